"""Exact resume: our states beside the host's checkpoints (`agent_last.pt` for `last.pt`, etc.). The trainers use it.

The host resumes from the EMA weights in half precision. The losses, and thereby later selections, would then deviate
from those of an uninterrupted run. Until a run ends, our states therefore also hold weights, EMA and optimizer in full
precision, and accumulated gradients. This takes 12 bytes a parameter with SGD and 16 with Adam, and 4 more if there
are accumulated gradients.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import RANK

from det_seg_agent.det.compat import optimizer_state, unwrap_model
from det_seg_agent.det.messages import LOGGER
from det_seg_agent.errors import LIMIT, ConfigError, StateError
from det_seg_agent.files import replacing
from det_seg_agent.hosts.input_errors import one_line

LAST, OLD = "agent_last.pt", "agent_last_old.pt"
PARTS = ".checkpoints.part"


def write(path: Path, state: dict[str, Any]) -> None:
    """Save `state` to `path` atomically.

    Raises:
        StateError: if it cannot be written, for example on a full disk.
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
def whole_checkpoints(trainer: Any) -> Iterator[None]:
    """Make the host write its checkpoints to a temporary folder, then replace the old ones atomically.

    `last.pt` is replaced last. Each other checkpoint gets a copy of this epoch's state, so that it can be resumed too.
    The host itself (ultralytics 8.4.190) writes in place, so an interruption would leave an unusable file.
    """
    folder, last, best = trainer.wdir, trainer.last, trainer.best
    parts = folder / PARTS
    shutil.rmtree(parts, ignore_errors=True)  # left by a kill
    parts.mkdir(parents=True)
    trainer.wdir, trainer.last, trainer.best = parts, parts / f"{last.name}.part", parts / f"{best.name}.part"
    try:
        yield
        for part in sorted(parts.iterdir(), key=lambda path: path == trainer.last):
            checkpoint = folder / part.name.removesuffix(".part")
            os.replace(part, checkpoint)
            if checkpoint != last:
                copy_state(folder / LAST, state_path(checkpoint))
        drop_states(folder)
    finally:
        trainer.wdir, trainer.last, trainer.best = folder, last, best
        shutil.rmtree(parts, ignore_errors=True)


def state_path(checkpoint: Path) -> Path:
    """Return the path of a checkpoint's state."""
    return checkpoint.with_name(f"agent_{checkpoint.name}")


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Save the state of an epoch; keep the previous one, as the host may be stopped before it writes its checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / OLD)
    write(folder / LAST, state)


def copy_state(state: Path, path: Path) -> None:
    """Replace `path` by a copy of a state; a hard link if possible, as states are only ever replaced as a whole."""
    with replacing(path) as part:
        try:
            os.link(state, part)
        except OSError:
            shutil.copyfile(state, part)


def drop_states(folder: Path) -> None:
    """Remove the states of `epochN.pt` files that no longer exist."""
    for path in folder.glob("agent_epoch*.pt"):
        name = path.name.removeprefix("agent_")
        if re.fullmatch(r"epoch\d+\.pt", name) and not (folder / name).exists():
            path.unlink()


def slim_states(last: Path, best: Path) -> None:
    """Remove from the states what only a resume needs, as the host strips the optimizer from checkpoints at the end."""
    last.with_name(OLD).unlink(missing_ok=True)
    for path in map(state_path, (last, best)):
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            state.pop("training", None)
            write(path, state)


def load_state(path: Path, epoch: int) -> dict[str, Any] | None:
    """Return the state in a file; None if the file does not exist or is of another epoch."""
    if not path.exists():
        return None
    state = read(path)
    return state if state["epoch"] == epoch else None


def read(path: Path) -> dict[str, Any]:
    """Return the state in a file, on the CPU; the file is read as far as it is used."""
    state: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)  # 2.2: no path
    return state


def epoch_of(checkpoint: Path) -> int:
    """Return the epoch of a host's checkpoint, from 0; -1 if the run is finished."""
    return int(torch.load(checkpoint, map_location="cpu", weights_only=False)["epoch"])  # the host's own format


def find_state(checkpoint: Path) -> dict[str, Any]:
    """Return the state that belongs to a host's checkpoint.

    Raises:
        ConfigError: if there is no state of its epoch, or the run is finished; lists what can be resumed.
    """
    folder, epoch = checkpoint.parent, epoch_of(checkpoint)
    if epoch < 0:
        raise ConfigError(
            f"resume={checkpoint}: its run is finished, nothing is left to resume; start a new run with model= this "
            f"file.{others(checkpoint)}"
        )
    paths = (state_path(checkpoint), folder / LAST, folder / OLD)
    for path in paths:
        state = load_state(path, epoch)
        if state is not None:
            return state
    known = [read(path)["epoch"] for path in paths if path.exists()]
    if known and epoch > max(known):
        raise ConfigError(
            f"resume={checkpoint}: it is of epoch {epoch + 1}, and the agent's state beside it of epoch "
            f"{max(known) + 1}: another trainer went on with the run, as a stock resume does, on all images. Resume "
            f"with that one, or start a new run with model= this file.{others(checkpoint)}"
        )
    raise ConfigError(
        f"resume={checkpoint}: no {state_path(checkpoint).name} or {LAST} of epoch {epoch + 1} lies beside it, so the "
        "agent cannot go on. Our trainer keeps a state beside last.pt, best.pt and, with save_period=, each epochN.pt: "
        "put it back, or start a new run with model= this file, or resume with the stock trainer."
        f"{others(checkpoint)}"
    )


def others(checkpoint: Path) -> str:
    """Return a sentence listing the other checkpoints in the folder that can be resumed; empty if there are none."""
    found = []
    for path in sorted(checkpoint.parent.glob("agent_*.pt")):
        other = path.with_name(path.name.removeprefix("agent_"))
        if other != checkpoint and other.exists() and (epoch := epoch_of(other)) >= 0 and load_state(path, epoch):
            found.append(f"{other.name} (epoch {epoch + 1})")
    return f" What can be resumed there: {', '.join(found)}." if found else ""


def warn_of_others(results: Path) -> None:
    """Warn if rows of the host's `results.csv` lack the agent's columns, as another trainer wrote those epochs."""
    rows = [line.split(",") for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    epochs = [row[0] for row in rows[1:] if "agent/images" not in rows[0] or len(row) != len(rows[0])]
    if epochs and RANK in {-1, 0}:
        LOGGER.warning(
            f"{results}: epochs {', '.join(epochs)} are of another trainer, as a stock resume, which trains on all "
            "images; the plot of this file needs rows of one length: take theirs out."
        )


def grab_training(trainer: Any, batches: int) -> dict[str, Any]:
    """Return the full-precision training state between two epochs, as tensors and primitives.

    Args:
        trainer: the trainer.
        batches: number of batches accumulated since the last optimizer step.
    """
    model = unwrap_model(trainer.model)
    gradients = [None if p.grad is None else p.grad.detach().clone() for p in model.parameters()] if batches else []
    return {
        "model": model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": optimizer_state(trainer.optimizer),
        "gradients": gradients,
        "batches": batches,
        "accumulate": trainer.accumulate,
    }


def restore_training(trainer: Any, saved: dict[str, Any], gradients: bool) -> int:
    """Restore the training state: weights, EMA and optimizer, or in a second call `gradients` and `accumulate`.

    Two calls are needed because the host clears gradients before the first epoch.

    Returns:
        Number of accumulated batches; 0 for the first call.

    Raises:
        StateError: if the weights do not fit the model.
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
    for then, now in zip(state["optimizer"]["param_groups"], trainer.optimizer.param_groups):
        then["fused"] = now.get("fused")  # as the host does: the kernel is that of this run's device
    trainer.optimizer.load_state_dict(state["optimizer"])
    return 0
