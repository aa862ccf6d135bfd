"""What a resumed run must share with the run that it goes on with."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse, refuse_changes


def check_state(
    saved: dict[str, Any] | None, given: Mapping[str, Any], layout: Mapping[str, int], passes: int, planned: Settings
) -> tuple[Settings, str]:
    """Return the settings of the run that `saved` is of, and what to tell the user, if anything.

    Args:
        saved: our part of the checkpoint.
        given: the config's `agent`.
        layout: processes, and batch of each.
        passes: of the whole run as the config has it now.
        planned: settings by which the loop has planned the run, those that are not given by their defaults.

    Raises:
        ConfigError: for a checkpoint without our part, for changed settings.
        StateError: if passes would not be walked as they were begun.
    """
    if saved is None:
        raise ConfigError(
            "the checkpoint holds no state of the agent: it was saved without AgentHook. Start a new run with "
            "load_from= this checkpoint instead of resume."
        )
    settings = saved["selector"]["settings"]
    refuse_changes(parse(Settings, given, "agent.").model_dump(exclude_unset=True), settings)
    for key in Schedule.model_fields:  # those that are given are the same by now
        if settings.get(key, getattr(planned, key)) != getattr(planned, key):
            raise ConfigError(
                f"the run was started with agent.{key}={settings[key]!r}, which this config does not set, and which "
                f"its length follows from. Resume with agent.{key}={settings[key]!r}."
            )
    for key, then in saved.get("layout", layout).items():
        if layout[key] != then:
            raise StateError(
                f"the run was started with {key}={then}, this one has {key}={layout[key]}, so that its passes would "
                f"not be walked as they were begun. Resume with {key}={then}, or start a new run with load_from= this "
                "checkpoint."
            )
    before, note = saved["selector"]["total_passes"], ""
    if before != passes:
        note = (
            f"train_cfg: the run was started with {before} passes and has {passes} now; how much a pass selects "
            "follows the new number."
        )
    return parse(Settings, settings, "agent."), note


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
