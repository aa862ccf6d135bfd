"""Which images a score table is of, so that a resume on other ones is refused."""

import hashlib
import os
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from det_seg_agent.errors import StateError

SHOWN = 3  # names that a message gives
TRIES = 100  # images that are looked for when the folder that all share has changed


def relative(files: Sequence[str]) -> list[str]:
    """Return image paths, by dataset index, below the folder that all share: the data set may move as a whole."""
    paths = [file.replace(os.sep, "/") for file in files]
    shared = os.path.commonprefix(paths)  # noqa: RUF071  (paths may be URLs, and it is cut at a slash)
    return [path[shared.rfind("/") + 1 :] for path in paths]


def packed(files: Sequence[str] | None) -> Tensor | None:
    """Return `relative(files)` as one compressed uint8 tensor for a saved state, a few bytes each; None for None.

    Names may hold any bytes: those that are not UTF-8 are kept as Python has them (PEP 383).
    """
    if files is None:
        return None
    names = "\0".join(relative(files)).encode(errors="surrogateescape")
    return torch.frombuffer(bytearray(zlib.compress(names)), dtype=torch.uint8)


def unpacked(names: Tensor) -> list[str]:
    """Return the names that `packed` was made of."""
    return zlib.decompress(names.numpy().tobytes()).decode(errors="surrogateescape").split("\0")


def digest(*tensors: Tensor | None) -> str:
    """Return a hash of tensors, by which processes see whether they hold the same."""
    found = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        found.update(b"-" if tensor is None else tensor.numpy().tobytes())
    return found.hexdigest()


def refuse_other_samples(packed_then: Tensor | None, packed_now: Tensor | None) -> None:
    """Refuse a data set other than the state's, as scores belong to indices.

    Args:
        packed_then: images of the saved state by index, as `packed` gives them; None where it does not know them.
        packed_now: those of this run.

    Raises:
        StateError: if any index stands for another image, or only one side knows its images; it says how many are
            added and removed, or that only the order is another.
    """
    if packed_then is None and packed_now is None:
        return
    if packed_then is None or packed_now is None:
        which = "saved state" if packed_then is None else "run"
        raise StateError(
            f"the {which} does not say which images it is of, so that scores could go to others. Give samples= as when "
            "the state was saved, or start a new run."
        )
    if torch.equal(packed_then, packed_now):
        return
    then, now = unpacked(packed_then), unpacked(packed_now)
    if then == now:  # another version of zlib
        return
    before, after = _below_one_folder(then, now)
    added, removed = sorted(after - before), sorted(before - after)
    parts = [
        f"{len(names)} {word} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for names, word in ((added, "added"), (removed, "removed"))
        if names
    ]
    what = " and ".join(parts) or "the same images, in another order"
    raise StateError(
        f"data: the training images are not those that the run was started with: {what}; {len(then)} then, {len(now)} "
        "now. Resume on the data set as it was, or start a new run from these weights."
    )


def _below_one_folder(then: Sequence[str], now: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return both sides' names below one folder: images added or removed elsewhere change the folder that all share."""
    before, after = set(then), set(now)
    if before & after:
        return before, after
    for short, names, is_then in ((then, after, True), (now, before, False)):
        for first in short[:TRIES]:
            found = [name[: -len(first)] for name in names if name.endswith(f"/{first}")]
            if found:
                best = max(sorted(set(found)), key=lambda folder: len({folder + name for name in short} & names))
                moved = {best + name for name in short}
                return (moved, names) if is_then else (names, moved)
    return before, after
