"""What is looked at before training starts, and at each sample's first showing."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from det_seg_agent.errors import ConfigError
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import resolve

LOOPS = {"AgentIterLoop": "max_iters", "AgentEpochLoop": "max_epochs"}


def settings_of(config: Any) -> tuple[dict[str, Any], Settings]:
    """Return the config's top-level `agent` dict and the settings that it stands for.

    Raises:
        ConfigError: for anything in it that cannot work.
    """
    given = config.get("agent", None)
    given = {} if given is None else given.to_dict() if hasattr(given, "to_dict") else given
    if not isinstance(given, dict):
        raise ConfigError(f"agent={given!r} is not a dict; write agent = dict(strategy='agent', ratio=0.6).")
    settings = parse(Settings, given, "agent.")
    resolve(settings)
    return given, settings


def check_config(config: Any, name: str) -> None:
    """Refuse a config that cannot train with the agent, before anything is built.

    Args:
        config: the whole config; its `custom_imports` are done.
        name: of its file.

    Raises:
        ConfigError: naming the key, its value and the remedy.
    """
    hooks = [hook.get("type") for hook in config.get("custom_hooks", None) or []]
    if "AgentHook" not in hooks:
        raise ConfigError(
            f"config {name}: custom_hooks has no AgentHook. Inherit configs/seg/_base_/agent.py, or add "
            "dict(type='AgentHook') to custom_hooks; a list in your config replaces that of its base."
        )
    settings_of(config)
    loop = config.get("train_cfg", None) or {}
    key = LOOPS.get(loop.get("type", ""))
    length = loop.get(key, None) if key else 1
    if type(length) is not int or length < 1:
        raise ConfigError(f"train_cfg.{key}={length!r}: {loop['type']} needs a whole number of at least 1.")
    if not config.get("resume", False):
        refuse_trained(Path(config.work_dir))


def refuse_trained(folder: Path) -> None:
    """Refuse to start a new run in the folder of another, whose checkpoints and trace it would overwrite.

    Raises:
        ConfigError: if there is one.
    """
    found = next((p for p in (folder / "trace", folder / "last_checkpoint", *folder.glob("*.pth")) if p.exists()), None)
    if found is not None:
        raise ConfigError(
            f"work_dir={str(folder)!r} holds a run already ({found.name}), which would be overwritten. Go on with it "
            "by --resume, or give another --work-dir."
        )


def check_masks(paths: list[str | None], images: list[str]) -> None:
    """Refuse an image without a mask, where masks are plain files.

    Args:
        paths: the mask of each sample, None where the data set has none.
        images: the image of each sample.

    Raises:
        ConfigError: naming the first image and the mask that is not there.
    """
    lost = [i for i, path in enumerate(paths) if path is not None and "://" not in path and not os.path.isfile(path)]
    if lost:
        raise ConfigError(
            f"train_dataloader.dataset: {len(lost)} of {len(paths)} images have no mask, {images[lost[0]]} first, "
            f"whose mask would be {paths[lost[0]]}. Add the masks, take the images out, or correct seg_map_suffix and "
            "data_prefix.seg_map_path."
        )


def check_label(label: Any, classes: int, ignore_index: int, metainfo: dict[str, Any]) -> None:
    """Refuse a mask that the loss would fail on: a value past the classes, or several channels.

    On CUDA the host's failure is a device assertion that names neither the file nor the value.

    Args:
        label: (1, H, W) int64, on the CPU, as the data loader gives it.
        classes: number of classes of the decode head.
        ignore_index: value that does not count.
        metainfo: of the sample; `seg_map_path` names the mask.

    Raises:
        ConfigError: naming the file, the value and the number of classes.
    """
    name = metainfo.get("seg_map_path", metainfo.get("img_path"))
    if label.dim() != 3 or label.shape[0] != 1:
        raise ConfigError(
            f"{name}: the mask has shape {tuple(label.shape)}, and one channel of class indices is needed, "
            "(1, height, width). Convert colours to indices."
        )
    values = label.numpy()
    wrong = ((values >= classes) | (values < 0)) & (values != ignore_index)
    if wrong.any():
        found = ", ".join(map(str, np.unique(values[wrong])[:5]))
        raise ConfigError(
            f"{name}: the mask holds {found}, and model.decode_head.num_classes={classes} allows 0 to {classes - 1} "
            f"and ignore_index={ignore_index}. Correct the mask or num_classes, or set reduce_zero_label=True where 0 "
            "stands for no class."
        )
