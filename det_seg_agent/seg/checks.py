"""Checks of a config before anything is built. `seg.cli` and `seg.run` use them."""

import os
import re
from pathlib import Path
from typing import Any

from det_seg_agent.errors import ConfigError
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import resolve

LOOPS = {"AgentIterLoop": "max_iters", "AgentEpochLoop": "max_epochs"}
RECIPE = re.compile(
    r"[\w.-]*?(?<![a-z0-9])(\d+)xb(\d+)(?![a-z0-9])[\w.-]*"
)  # processes and batch size in OpenMMLab's config names


def type_name(given: Any) -> str:
    """Return the class name in a config's `type`, which is a name with or without scope, or a class; "" for None."""
    if given is None:
        return ""
    return given.__name__ if hasattr(given, "__name__") else str(given).rsplit(".", 1)[-1]


def is_type(given: Any, name: str) -> bool:
    """Return whether a config's `type` is `name`, or a class of that name or a subclass of one."""
    return name in {type_name(given), *(base.__name__ for base in getattr(given, "__mro__", ()))}


def settings_of(config: Any) -> tuple[dict[str, Any], Settings]:
    """Return the config's top-level `agent` dict, and the settings parsed from it.

    Raises:
        ConfigError: if any setting is invalid.
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
        config: the whole config, after its `custom_imports`.
        name: name of its file, for messages.

    Raises:
        ConfigError: names the key, its value and the remedy.
    """
    if not any(is_type(hook.get("type"), "AgentHook") for hook in config.get("custom_hooks", None) or []):
        raise ConfigError(
            f"config {name}: custom_hooks has no AgentHook. Inherit a recipe of ours (`det-seg-agent recipe`), or add "
            "dict(type='AgentHook') to custom_hooks; a list in your config replaces that of its base."
        )
    settings_of(config)
    loop = config.get("train_cfg", None) or {}
    for kind, key in LOOPS.items():
        length = loop.get(key, None)
        if is_type(loop.get("type"), kind) and (type(length) is not int or length < 1):
            raise ConfigError(f"train_cfg.{key}={length!r}: {kind} needs a whole number of at least 1.")
    if not config.get("resume", False):
        refuse_trained(Path(config.work_dir))


def refuse_trained(folder: Path) -> None:
    """Refuse to start a new run in the folder of another, whose checkpoints and trace it would overwrite.

    Raises:
        ConfigError: if the folder contains a run.
    """
    found = next((p for p in (folder / "trace", folder / "last_checkpoint", *folder.glob("*.pth")) if p.exists()), None)
    if found is not None:
        raise ConfigError(
            f"work_dir={str(folder)!r} holds a run already ({found.name}), which would be overwritten. Go on with it "
            "by --resume, or give another --work-dir."
        )


def use_amp(config: Any) -> None:
    """Switch a config to automatic mixed precision, as mmseg's `--amp` does.

    Raises:
        ConfigError: if the optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    wrapper = config.get("optim_wrapper", None) or {}
    name = type_name(wrapper.get("type", "OptimWrapper"))
    if is_type(wrapper.get("type"), "AmpOptimWrapper"):
        return
    if not wrapper or name != "OptimWrapper":
        raise ConfigError(
            f"--amp needs optim_wrapper.type='OptimWrapper', not {name if wrapper else None!r}. Leave --amp out, or "
            "set it to OptimWrapper or AmpOptimWrapper."
        )
    wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")


def batch_note(config: Any, processes: int, batch: int) -> str:
    """Return a warning if a recipe's total batch size differs from the run's; "" otherwise.

    The recipe's is `auto_scale_lr.base_batch_size`, or follows from `4xb4` in the name of its file or an inherited one.

    Args:
        config: the run's config.
        processes: number of processes.
        batch: batch size of each process.
    """
    scaling = config.get("auto_scale_lr", None) or {}
    total, recipe = scaling.get("base_batch_size"), "auto_scale_lr.base_batch_size"
    if total is None:
        # `config.text` has each file's path before its text, inherited files first.
        lines = [line for line in (config.text or "").splitlines() if re.match(r"from |[^#]*\.py$", line)]
        found = [found for line in [*lines, config.filename or ""] for found in RECIPE.finditer(os.path.basename(line))]
        if not found:
            return ""
        recipe, total = found[-1][0], int(found[-1][1]) * int(found[-1][2])
    if total == processes * batch or scaling.get("enable"):
        return ""
    ratio = processes * batch / total
    return (
        f"{recipe} is for {total} images in a batch, over all processes; this run has {processes} x {batch}. Set "
        f"train_dataloader.batch_size={max(1, round(total / processes))}, or scale the learning rate by {ratio:.3g} "
        f"and the iterations by {1 / ratio:.3g}."
    )
