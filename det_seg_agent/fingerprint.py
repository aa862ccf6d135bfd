"""What a saved state must share with the run that goes on from it: version, settings, and training images."""

import hashlib
import os
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from det_seg_agent.errors import StateError
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings

FORMAT = 3  # of a selector's state; raised when an older state cannot be gone on from
SHOWN = 3  # most names in a message
TRIES = 100  # images to search for when the common folder has changed


def relative(files: Sequence[str]) -> list[str]:
    """Return image paths, by dataset index, relative to their common folder: the whole data set may be moved."""
    paths = [file.replace(os.sep, "/") for file in files]
    shared = os.path.commonprefix(paths)  # noqa: RUF071  (paths may be URLs, and it is cut at a slash)
    return [path[shared.rfind("/") + 1 :] for path in paths]


def packed(files: Sequence[str] | None) -> Tensor | None:
    """Return `relative(files)` as a compressed uint8 tensor for a saved state, a few bytes a file; None for None.

    Bytes in names that are not UTF-8 are preserved (surrogate escapes, PEP 383).
    """
    if files is None:
        return None
    names = "\0".join(relative(files)).encode(errors="surrogateescape")
    return torch.frombuffer(bytearray(zlib.compress(names)), dtype=torch.uint8)


def unpacked(names: Tensor) -> list[str]:
    """Return the names from the output of `packed`."""
    return zlib.decompress(names.numpy().tobytes()).decode(errors="surrogateescape").split("\0")


def digest(*tensors: Tensor | None) -> str:
    """Return a hash of CPU tensors, to compare them between processes."""
    found = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        found.update(b"-" if tensor is None else tensor.numpy().tobytes())
    return found.hexdigest()


def refuse_other_samples(packed_then: Tensor | None, packed_now: Tensor | None) -> None:
    """Refuse a data set that differs from the saved state's, as scores are stored by dataset index.

    Args:
        packed_then: images of the saved state, from `packed`; None if they are not known.
        packed_now: images of this run, likewise.

    Raises:
        StateError: if any index refers to another image, or only one side has a list of images. The message counts
            the added and removed images, or says that only the order differs.
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
    """Return both sets of names relative to one folder: added or removed images may change the common folder."""
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


def refuse_other_size(then: int, now: int) -> None:
    """Refuse the state of a data set of another size.

    Raises:
        StateError: if the numbers of samples differ.
    """
    if then != now:
        raise StateError(
            f"the saved state is of a data set of {then} images, this one has {now}. Resume on the data set that the "
            "run was started with, or start a new run."
        )


def refuse_older(state: dict[str, Any]) -> None:
    """Refuse the state of a selector that was saved in another format, as by another version.

    Raises:
        StateError: for such a state.
    """
    if state.get("format") != FORMAT:
        raise StateError(
            "the saved state was made by another version of det_seg_agent. Resume with that version, or start a new "
            "run from its weights."
        )


def refuse_other_settings(state: dict[str, Any], settings: Settings, options: BaseModel, passes: int | None) -> None:
    """Refuse a state that was made with other settings.

    Args:
        state: what `Selector.state_dict` gave.
        settings: those of this run.
        options: the strategy's options that are in force.
        passes: of this run; None if the state's run may have had another number.

    Raises:
        StateError: naming what differs, with both values.
    """
    refuse_older(state)
    saved = state["settings"]
    seed = saved["seed"]
    if seed != settings.seed:
        raise StateError(
            f"the saved state is of seed {seed}, this run has {settings.seed}. Resume with agent.seed={seed}, "
            "or start a new run."
        )
    if saved["strategy"] != settings.strategy:
        raise StateError(
            f"the saved state is of strategy {saved['strategy']!r}, this run has {settings.strategy!r}. "
            f"Resume with agent.strategy={saved['strategy']}, or start a new run."
        )
    before, now = state.get("options", {}), options.model_dump()
    if new := [key for key in now if key not in before]:
        raise StateError(
            f"the saved state knows nothing of agent.options.{new[0]}: it is of another version of "
            "det_seg_agent or of the strategy. Resume with that version, or start a new run."
        )
    pairs = {f"agent.options.{key}": (before[key], now[key]) for key in now}
    for key in Schedule.model_fields:
        pairs[f"agent.{key}"] = saved[key], getattr(settings, key)
    if passes is not None:
        pairs["total_passes"] = state["total_passes"], passes
    if other := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
        then = ", ".join(f"{key}={pair[0]!r}" for key, pair in other.items())
        here = ", ".join(f"{key}={pair[1]!r}" for key, pair in other.items())
        raise StateError(
            f"the saved state was made with {then}, and this run has {here}. Resume with what the state was made "
            "with, or start a new run."
        )


def on_cpu(state: Any) -> Any:
    """Return a state, nested in dicts, lists and tuples, with its tensors on the CPU; a host may load it to a GPU."""
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(on_cpu, state))
    return state.cpu() if isinstance(state, Tensor) else state
