"""What a resumed run must share with the run that it goes on with."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.settings import Settings, parse, refuse_changes


def check_state(
    saved: dict[str, Any] | None, given: Mapping[str, Any], files: list[str], layout: Mapping[str, int], passes: int
) -> tuple[Settings, str]:
    """Return the settings of the run that `saved` is of, and what to tell the user, if anything.

    Args:
        saved: our part of the checkpoint.
        given: the config's `agent`.
        files: image paths of the training set, by index.
        layout: processes, and batch of each.
        passes: of the whole run as the config has it now.

    Raises:
        ConfigError: for a checkpoint without our part, for changed settings or another data set.
        StateError: if passes would not be walked as they were begun.
    """
    if saved is None:
        raise ConfigError(
            "the checkpoint holds no state of the agent: it was saved without AgentHook. Start a new run with "
            "load_from= this checkpoint instead of resume."
        )
    settings = saved["selector"]["settings"]
    refuse_changes(parse(Settings, given, "agent.").model_dump(exclude_unset=True), settings)
    for key, then in saved.get("layout", layout).items():
        if layout[key] != then:
            raise StateError(
                f"the run was started with {key}={then}, this one has {key}={layout[key]}, so that its passes would "
                f"not be walked as they were begun. Resume with {key}={then}, or start a new run with load_from= this "
                "checkpoint."
            )
    refuse_other_files(saved["files"], relative(files))
    before, note = saved["selector"]["total_passes"], ""
    if before != passes:
        note = (
            f"train_cfg: the run was started with {before} passes and has {passes} now; how much a pass selects "
            "follows the new number."
        )
    return parse(Settings, settings, "agent."), note


def relative(files: Sequence[str]) -> list[str]:
    """Return paths below the folder that all files share, so that a data set may move."""
    shared = os.path.commonprefix(list(files))  # noqa: RUF071  (paths may be URLs, and it is cut at a slash)
    return [file[shared.rfind("/") + 1 :] for file in files]


def refuse_other_files(then: Sequence[str], now: Sequence[str]) -> None:
    """Refuse a data set other than the run's, as scores belong to indices.

    Args:
        then: the run's images by index, as `relative` gives them.
        now: those of the data set.

    Raises:
        ConfigError: if any index stands for another image.
    """
    if list(then) == list(now):
        return
    added, removed = len(set(now) - set(then)), len(set(then) - set(now))
    what = f"{added} added, {removed} removed" if added or removed else "in another order"
    raise ConfigError(
        f"train_dataloader.dataset: the images are not those that the run was started with: {what}. Resume on the same "
        "data set, or start a new run with load_from= this checkpoint."
    )


def refuse_other_model(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Refuse to resume with weights that do not fit; the host would print that, and go on with those that do.

    Args:
        model: the model, not its distributed wrapper.
        saved: the checkpoint's `state_dict`.

    Raises:
        StateError: naming the first weights that do not fit.
    """
    theirs = {key.removeprefix("module."): tuple(value.shape) for key, value in saved.items()}
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    keys = [key for key in dict.fromkeys((*ours, *theirs)) if ours.get(key) != theirs.get(key)]
    keys = [key for key in keys if "num_batches_tracked" not in key]
    if keys:
        first = ", ".join(f"{key} {theirs.get(key, 'missing')} -> {ours.get(key, 'missing')}" for key in keys[:3])
        raise StateError(
            f"the checkpoint is of another model: {len(keys)} weights do not fit (saved -> now: {first}). Resume with "
            "the model that the run was started with, or start a new run with load_from= this checkpoint."
        )
