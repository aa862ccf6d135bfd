"""Which images a score table is of, so that a resume on other ones is refused."""

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


def packed(names: Sequence[str] | None) -> Tensor | None:
    """Return names as one compressed uint8 tensor for a saved state, a few bytes each; None for None."""
    return (
        None
        if names is None
        else torch.frombuffer(
            bytearray(zlib.compress("\0".join(names).encode(errors="surrogateescape"))), dtype=torch.uint8
        )
    )


def unpacked(names: Tensor | None) -> list[str] | None:
    """Return what `packed` was given."""
    return (
        None if names is None else zlib.decompress(names.numpy().tobytes()).decode(errors="surrogateescape").split("\0")
    )


def refuse_other_samples(then: Sequence[str] | None, now: Sequence[str] | None) -> None:
    """Refuse a data set other than the state's, as scores belong to indices.

    Args:
        then: images of the saved state by index, as `relative` gives them; None where it does not know them.
        now: those of this run.

    Raises:
        StateError: if any index stands for another image, or only one side knows its images; it says how many are
            added and removed, or that only the order is another.
    """
    if then is None and now is None:
        return
    if then is None or now is None:
        raise StateError(
            f"the {'saved state' if then is None else 'run'} does not say which images it is of, so that its scores "
            "could go to others. Give samples= as when the state was saved, or start a new run."
        )
    if list(then) == list(now):
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
