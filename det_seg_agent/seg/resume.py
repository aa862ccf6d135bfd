"""Checks that a checkpoint fits the run that resumes from it. `seg.run` and `AgentHook` use them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.fingerprint import refuse_older
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse, refuse_changes


def check_state(
    saved: dict[str, Any] | None, given: Mapping[str, Any], layout: Mapping[str, int], passes: int, planned: Settings
) -> tuple[Settings, str]:
    """Return the settings of the saved run, and a note for the user (empty if there is none).

    Args:
        saved: our part of the checkpoint.
        given: the config's `agent` dict.
        layout: number of processes, and batch size of each.
        passes: number of passes by the current config.
        planned: settings that the loop has planned the run with, including defaults.

    Raises:
        ConfigError: if the checkpoint has no state of ours, or settings have changed.
        StateError: if the number of processes or the batch size has changed.
    """
    if saved is None:
        raise ConfigError(
            "the checkpoint holds no state of the agent: it was saved without AgentHook. Start a new run with "
            "load_from= this checkpoint instead of resume."
        )
    refuse_older(saved["selector"])
    settings = saved["selector"]["settings"]
    refuse_changes(parse(Settings, given, "agent.").model_dump(exclude_unset=True), settings)
    for key in Schedule.model_fields:  # given ones are equal by now; this compares defaults
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
    """Refuse to resume if weights do not fit; the host would only print a warning and load those that do.

    Args:
        model: the model, not its distributed wrapper.
        saved: the checkpoint's `state_dict`.

    Raises:
        StateError: if weights do not fit; names the first ones.
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
