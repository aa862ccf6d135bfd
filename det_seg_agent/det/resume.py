"""Our state beside the host's checkpoints: `weights/agent_last.pt` and `weights/agent_best.pt`.

The host resumes from the EMA's weights in half precision. That is not where the run stood, so its losses, and with
them later selections, would drift from those of the run that was not stopped. Until the run ends our state therefore
holds what it takes to go on exactly: weights, EMA and optimizer in full precision, and gradients not yet applied.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ultralytics.utils.torch_utils import unwrap_model

from det_seg_agent.cli import one_line
from det_seg_agent.errors import LIMIT, ConfigError, StateError
from det_seg_agent.files import replacing

if TYPE_CHECKING:
    from det_seg_agent.det.trainer import AgentTrainerMixin

LAST, OLD, BEST = "agent_last.pt", "agent_last_old.pt", "agent_best.pt"


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace `path` at once or not at all.

    Raises:
        StateError: if it cannot be written, as on a full disk.
    """
    try:
        with replacing(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # the latter is torch's, for what its own writer meets
        raise StateError(
            f"{path} cannot be written ({one_line(error, LIMIT // 3)}), and without it the run could not go on after "
            "a stop. Free space, then resume: the checkpoint of the epoch before is whole."
        ) from error


@contextmanager
def whole_checkpoints(trainer: "AgentTrainerMixin") -> Iterator[None]:
    """Let the host write `last.pt` and `best.pt` beside the old ones, which they replace once they are whole.

    The host (ultralytics 8.4.190) writes in place: a stop within left a file that nothing can resume from.
    """
    last, best = trainer.last, trainer.best
    with replacing(last) as part:
        trainer.last, trainer.best = part, part.with_name(f".{best.name}.part")
        try:
            yield
            if trainer.best.exists():
                os.replace(trainer.best, best)
        finally:
            trainer.best.unlink(missing_ok=True)
            trainer.last, trainer.best = last, best


def save_state(folder: Path, state: dict[str, Any], best: bool) -> None:
    """Save the state of an epoch; that of the epoch before stays until the next, as the host may be stopped between."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / OLD)
    write(folder / LAST, state)
    if best:
        write(folder / BEST, {key: value for key, value in state.items() if key != "training"})


def slim_states(folder: Path) -> None:
    """Drop what only a resume needs, as the host strips its optimizer at the end."""
    (folder / OLD).unlink(missing_ok=True)
    if (folder / LAST).exists():
        state = torch.load(folder / LAST, weights_only=True)
        state.pop("training", None)
        write(folder / LAST, state)


def find_state(checkpoint: Path) -> dict[str, Any]:
    """Return the state that belongs to a host checkpoint.

    Raises:
        ConfigError: if there is none of that epoch, or the run is finished.
    """
    epoch = torch.load(checkpoint, map_location="cpu", weights_only=False)["epoch"]  # the host's own format
    if epoch < 0:
        raise ConfigError(
            f"resume={checkpoint}: its run is finished, nothing is left to resume; start a new run with model= this "
            "file."
        )
    for name in (LAST, OLD):
        path = checkpoint.parent / name
        if path.exists():
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["epoch"] == epoch:
                return state
    raise ConfigError(
        f"{checkpoint}: no {LAST} of epoch {epoch + 1} lies beside it, so the agent cannot go on. Resume with the "
        "stock trainer, or start a new run with model= this checkpoint."
    )


def grab_training(trainer: "AgentTrainerMixin", batches: int) -> dict[str, Any]:
    """Return the exact training state between two epochs, as tensors and primitives."""
    model = unwrap_model(trainer.model)
    gradients = [None if p.grad is None else p.grad.detach().clone() for p in model.parameters()] if batches else []
    return {
        "model": model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "gradients": gradients,
        "batches": batches,
        "accumulate": trainer.accumulate,
    }


def restore_training(trainer: "AgentTrainerMixin", saved: dict[str, Any], gradients: bool) -> int:
    """Put the exact training state back; gradients apart, as the host clears them before the first epoch.

    Returns:
        Batches whose gradients wait for a step.

    Raises:
        StateError: if the model is another.
    """
    state = saved.get("training")
    if state is None:
        return 0
    model = unwrap_model(trainer.model)
    if gradients:
        for parameter, gradient in zip(model.parameters(), state["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        trainer.accumulate = state["accumulate"]  # not before: the host takes the first value as the nominal one
        return int(state["batches"])
    try:
        model.load_state_dict(state["model"])
        trainer.ema.ema.load_state_dict(state["ema"])
    except RuntimeError as error:
        text = f"the saved weights do not fit this model ({one_line(error, LIMIT // 2)}); resume with the same model."
        raise StateError(text) from error
    trainer.ema.updates = state["updates"]
    trainer.optimizer.load_state_dict(state["optimizer"])
    return 0
