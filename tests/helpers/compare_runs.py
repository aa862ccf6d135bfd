"""Comparisons of tiny runs."""

from pathlib import Path
from typing import Any

import yaml
from det_runs import write_model
from pydantic import BaseModel
from seg_runs import CONFIG, TINY

from det_seg_agent import Strategy

SCENES = {"train": 16, "val": 4, "size": 64}


class Broken(Strategy):
    """Fails when it is asked."""

    def select(self, request: Any) -> Any:
        """Raise."""
        raise RuntimeError("on purpose")


class NativeOptions(BaseModel):
    """Whether the budget follows from the rule."""

    native: bool = False


class Rule(Strategy):
    """Has a rule that may set its own budget."""

    Options = NativeOptions

    def select(self, request: Any) -> Any:
        """Raise."""
        raise NotImplementedError


def write(path: Path, **content: Any) -> Path:
    """Write a comparison of detectors on tiny scenes."""
    model = write_model(path.parent)
    host = {"model": model, "epochs": 2, "imgsz": 64, "batch": 8, "device": "cpu", "optimizer": "SGD", "lr0": 0.01}
    block = {"data": "scenes", "scenes": SCENES, "host": host, "agent": {"final_full": 0}, "ratios": {0.5: [0]}}
    path.write_text(yaml.safe_dump({"title": "Tiny", "detection": {**block, "strategies": ["loss"], **content}}))
    return path


def write_segmentation(path: Path, **content: Any) -> Path:
    """Write a comparison of segmenters on tiny scenes: 8 passes of 2 iterations, of which 7 select at ratio 0.5."""
    recipe = path.with_name("recipe.py")
    if not recipe.exists():
        recipe.write_text(
            f"_base_ = {str(CONFIG)!r}\ntrain_cfg = dict(max_iters=16, val_interval=8)\n"
            "model = dict(data_preprocessor=dict(size=(64, 64)))\n"
            "param_scheduler = [dict(type='PolyLR', power=0.9, by_epoch=False, begin=0, end=16)]\n"
        )
    host = {
        **TINY,
        "train_dataloader.dataset.pipeline.3.crop_size": 64,
        "log_level": "ERROR",
        "default_hooks.logger.interval": 1,
    }
    block = {"data": "scenes", "scenes": SCENES, "host": host, "agent": {"final_full": 0}, "ratios": {0.5: [0]}}
    block |= {"config": recipe.name, "strategies": ["loss"]}
    path.write_text(yaml.safe_dump({"title": "Tiny", "segmentation": {**block, **content}}))
    return path
