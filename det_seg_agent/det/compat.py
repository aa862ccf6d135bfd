"""What the installed version of Ultralytics can do: one small function for each difference that concerns us.

Behaviour follows what is found, not the version number; the versions in the docstrings say where a capability came or
went, between the two versions that were read. `docs/hosts.md` shows what was tried.
"""

import contextlib
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics import __version__
from ultralytics.data.augment import MixUp, Mosaic, RandomPerspective
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import loss, ops, torch_utils

from det_seg_agent.errors import HostError

VERSION: str = __version__

# Methods of the host that the adapter overrides or calls in every version.
NEEDED = {
    BaseTrainer: ("preprocess_batch", "optimizer_step", "validate", "save_model", "resume_training", "progress_string"),
    loss.v8DetectionLoss: ("__call__", "preprocess", "bbox_decode"),
    loss.BboxLoss: ("forward",),
}
DETECTION = ("box_loss", "cls_loss", "dfl_loss")


def optional(module: str, name: str) -> Any:
    """Return what `ultralytics.<module>` calls `name`, or None if this version lacks it."""
    try:
        return getattr(importlib.import_module(f"ultralytics.{module}"), name, None)
    except ModuleNotFoundError:
        return None


def check_needed() -> None:
    """Refuse a version that lacks a method we rely on.

    Raises:
        HostError: names what is missing.
    """
    lacking = [f"{cls.__name__}.{name}" for cls, names in NEEDED.items() for name in names if not hasattr(cls, name)]
    if lacking:
        raise HostError(f"ultralytics {VERSION} has no {', '.join(lacking)}, which we need.")


# Loss ---------------------------------------------------------------------------------------------------------------


def gives_parts_of_output(stock: Any) -> bool:
    """Return whether a criterion gets a dict with `scores` and `feats` (from 8.4.0), not the raw maps of the levels."""
    return hasattr(stock, "parse_output")


def scores_of(stock: Any, preds: Any) -> Tensor:
    """Return the class logits (B, classes, A) among the predictions that a `v8DetectionLoss` receives."""
    if gives_parts_of_output(stock):
        scores: Tensor = stock.parse_output(preds)["scores"]
        return scores
    levels = preds[1] if isinstance(preds, tuple) else preds  # up to 8.3: (B, box + classes, h, w) for each level
    return torch.cat([level.flatten(2)[:, -stock.nc :] for level in levels], 2)


def loss_names(stock: Any) -> tuple[str, ...]:
    """Return the names of a dense criterion's loss items in order; up to 8.4.60 it does not tell those of detection."""
    return tuple(getattr(stock, "loss_names", DETECTION))


def gives_named_items() -> bool:
    """Return whether criteria give their loss items as a dict (from 8.4.120); only then heads beside Detect work."""
    returned = inspect.signature(loss.v8DetectionLoss.__call__).return_annotation
    return returned is inspect.Signature.empty or "dict" in str(returned).partition("Tensor")[2]


def items_of(stock: Any, items: Any) -> dict[str, float]:
    """Return a batch's loss items by name: a dict (from 8.4.120), or a tensor (K,) in the order of `loss_names`."""
    if isinstance(items, dict):
        return {name: float(value) for name, value in items.items()}
    names = loss_names(stock)
    return dict(zip(names, items.tolist())) if items.dim() and len(items) == len(names) else {}


# Data and loader ----------------------------------------------------------------------------------------------------


def tells_parameters() -> bool:
    """Return whether mixing transforms tell what they drew by `get_params` (from 8.4.60)."""
    return hasattr(Mosaic, "get_params")


def calls_methods() -> bool:
    """Return whether mixing transforms call the methods that `credit_methods` overrides (8.3.0 to 8.4.0)."""
    methods = ((Mosaic, "_update_labels"), (RandomPerspective, "affine_transform"), (MixUp, "_mix_transform"))
    return all(hasattr(cls, name) for cls, name in methods)


def rewound(stock: Any) -> Any:
    """Return a loader of the host as it was before its first batch.

    Up to 8.4.120 it starts as it is built: it draws from its generator, and its workers load. Its generator must be
    where the host's own training has it, as the loader that takes its place shares it.
    """
    iterator = getattr(stock, "iterator", None)
    if iterator is not None:
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        if stock.generator is not None:
            stock.generator.manual_seed(stock.generator.initial_seed())
    return stock


# Trainer ------------------------------------------------------------------------------------------------------------


def unwrap_model(model: Any) -> Any:
    """Return a model without its wrappers: `unwrap_model` (from 8.3.200), before it `de_parallel`."""
    unwrap = getattr(torch_utils, "unwrap_model", None) or torch_utils.de_parallel
    return unwrap(model)


def world_size(trainer: Any) -> int:
    """Return the number of processes; up to 8.3.100 the trainer does not tell, but torch's launcher does."""
    size = getattr(trainer, "world_size", None)
    return max(int(os.environ.get("WORLD_SIZE", 1)) if size is None else int(size), 1)


def launches_processes(trainer: Any) -> bool:
    """Return whether training will run in child processes; up to 8.3.100 this follows from the devices alone."""
    if hasattr(trainer, "ddp"):
        return bool(trainer.ddp)
    device = trainer.args.device
    devices = device.split(",") if isinstance(device, str) else device if isinstance(device, list | tuple) else []
    return len(devices) > 1 and "LOCAL_RANK" not in os.environ


def warmup_ends(trainer: Any, batches: int) -> int:
    """Return the first epoch without a batch of the warm-up, given the batches of a full epoch.

    Up to 8.4.60 a warm-up has at least 100 batches.
    """
    epochs = trainer.args.warmup_epochs
    if hasattr(trainer, "_get_warmup_iterations"):
        return int(epochs) + 1
    return max(round(epochs * batches), 100) // max(batches, 1) + 1


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state without NumPy's numbers, which the warm-up sets as rates up to 8.4.60."""
    state = optimizer.state_dict()
    plain = [{k: v.item() if isinstance(v, np.generic) else v for k, v in g.items()} for g in state["param_groups"]]
    return {**state, "param_groups": plain}


def setting(args: Any, name: str) -> Any:
    """Return a setting of the host, or None if this version lacks it (`distill_model`, `compile`)."""
    return getattr(args, name, None)


# Files and command line ---------------------------------------------------------------------------------------------


def load_yaml(path: Any) -> Any:
    """Read a YAML file as the host does: `YAML.load` (from 8.3.200), before it `yaml_load`."""
    yaml = optional("utils", "YAML")
    return yaml.load(path) if yaml else optional("utils", "yaml_load")(path)


def save_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a YAML file as the host does: `YAML.save` (from 8.3.200), before it `yaml_save`."""
    yaml = optional("utils", "YAML")
    yaml.save(path, content) if yaml else optional("utils", "yaml_save")(path, content)


def check_keys(defaults: dict[str, Any], given: dict[str, Any]) -> None:
    """Replace the host's deprecated keys in `given`; unknown ones are left to the caller.

    The host's check can spare unknown ones from 8.4.0 on; before, deprecated keys count as unknown.

    Raises:
        TypeError: the host's, for a deprecated key without a successor.
    """
    from ultralytics.cfg import check_dict_alignment

    if "allowed_custom_keys" in inspect.signature(check_dict_alignment).parameters:
        check_dict_alignment(defaults, given, allowed_custom_keys=set(given))


def takes_save_dir() -> bool:
    """Return whether the host's settings take `save_dir` (from 8.4.0); before, it is dropped without a word."""
    from ultralytics.cfg import get_cfg

    return hasattr(get_cfg(overrides={"save_dir": "."}), "save_dir")


def run_folder(args: Any) -> Path:
    """Return the folder of a run with these settings, which does not exist yet or holds something.

    From 8.4.0 to 8.4.60 asking for it creates it, and the training would then take the next free name.
    """
    from ultralytics.cfg import get_save_dir

    folder = Path(get_save_dir(args))
    with contextlib.suppress(OSError):  # it holds something, or does not exist
        folder.rmdir()
    return folder


# Validation ---------------------------------------------------------------------------------------------------------


def prediction(found: Any) -> dict[str, Tensor]:
    """Return an image's predictions as a dict (the host's own from 8.3.200), before it rows of a tensor (n, 6)."""
    if isinstance(found, dict):
        return found
    return {"bboxes": found[:, :4], "conf": found[:, 4], "cls": found[:, 5]}


def scaled(validator: Any, found: dict[str, Tensor], image: dict[str, Any]) -> dict[str, Tensor]:
    """Return predictions in pixels of the image: by `scale_preds` (from 8.3.200), before it of the boxes alone."""
    if hasattr(validator, "scale_preds"):
        result: dict[str, Tensor] = validator.scale_preds(found, image)
        return result
    shape, ratio = tuple(image["ori_shape"]), image["ratio_pad"]
    return {**found, "bboxes": ops.scale_boxes(image["imgsz"], found["bboxes"].clone(), shape, ratio_pad=ratio)}
