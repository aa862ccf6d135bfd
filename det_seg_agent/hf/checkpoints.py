"""Our file in the host's checkpoints, and which checkpoint is whole. `hf.run` and `hf.trainer` use it."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.files import replacing
from det_seg_agent.messages import LOGGER

NAME = "det_seg_agent.pt"
FOLDER = re.compile(r"checkpoint-(\d+)")
LAST_WRITTEN = "trainer_state.json"  # the host writes it after all else, in place


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write our state to a checkpoint, atomically."""
    with replacing(folder / NAME) as part:
        torch.save(state, part)


def read(folder: Path) -> dict[str, Any]:
    """Return our state in a checkpoint.

    Raises:
        ConfigError: if there is none.
        StateError: if it cannot be read.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise ConfigError(f"resume_from_checkpoint={str(folder)!r}: there is no such folder; give a checkpoint-N.")
    if not path.is_file():
        raise ConfigError(
            f"resume_from_checkpoint={str(folder)!r}: it has no {NAME}, so it was not saved by AgentTrainer. Start a "
            "new run from its weights: from_pretrained(...)."
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a broken file
        raise StateError(f"{path} cannot be read ({type(error).__name__}). Resume from another checkpoint.") from error
    return state


def is_whole(folder: Path, processes: int) -> bool:
    """Return whether a checkpoint was written to its end: a process may be killed while it saves.

    Args:
        folder: the checkpoint.
        processes: number of processes, each of which has a file of random states.
    """
    try:
        json.loads((folder / LAST_WRITTEN).read_text(encoding="utf-8"))
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    random = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    files = [folder / name for name in (NAME, "optimizer.pt", "scheduler.pt", *random)]
    return all(path.is_file() and zipfile.is_zipfile(path) for path in files)


def newest_whole(output: Path, processes: int) -> Path:
    """Return the newest whole checkpoint in a run's folder; a warning names newer ones that are not.

    Raises:
        ConfigError: if there is none.
    """
    found = [(int(match[1]), path) for path in output.glob("checkpoint-*") if (match := FOLDER.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        if is_whole(path, processes):
            return path
        LOGGER.warning(f"{path} was not written to its end and is left out; an older checkpoint is looked for.")
    raise ConfigError(
        f"output_dir={str(output)!r}: it holds no whole checkpoint to resume from. Start a new run, without "
        "resume_from_checkpoint."
    )


def restore_weights(model: Any, folder: Path) -> None:
    """Load the weights of a checkpoint that the host saved by other names and does not load again.

    transformers (5.24.0) saves some models by the names of the hub's files: of ViT, Swin and SegFormer among others.
    `Trainer` loads a checkpoint by the names of the model's parameters, and leaves what it does not find as it was
    built, with a warning. `from_pretrained` knows both.

    Args:
        model: the model, not its distributed wrapper.
        folder: the checkpoint.

    Raises:
        StateError: if the checkpoint is of another model.
    """
    if not isinstance(model, PreTrainedModel):
        return  # peft and the host load others themselves
    saved: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            saved |= set(file.keys())
    lacking = set(model.state_dict()) - saved
    if not saved or not saved - set(model.state_dict()) or not lacking:
        return  # tied weights are saved once
    try:
        loaded = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
        model.load_state_dict(loaded.state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise StateError(
            f"{folder}: its weights do not fit {type(model).__name__}. Resume with the model that was trained."
        ) from error
    LOGGER.info(f"{len(lacking)} weights that the host saves by other names were read from {folder} as well")
