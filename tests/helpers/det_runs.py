"""Runs of the real Ultralytics trainer on tiny scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ultralytics import YOLO
from ultralytics.utils import ROOT

TINY = {"imgsz": 64, "batch": 8, "device": "cpu", "plots": False, "verbose": False, "seed": 1, "exist_ok": True}
SCALES = {"n": [0.33, 0.0625, 1024]}


def write_yolov8(folder: Path) -> str:
    """Write YOLOv8 at an eighth of the n model's width."""
    content = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
    return _written(folder, {**content, "scales": SCALES})


def write_model(folder: Path) -> str:
    """Write what most tests train: YOLOv8's head and strides without its blocks, a third of the tensors."""
    backbone = [[-1, 1, "Conv", [channels, 3, 2]] for channels in (64, 128, 256, 512, 1024)]
    content = {"nc": 80, "scales": SCALES, "backbone": backbone, "head": [[[2, 3, 4], 1, "Detect", ["nc"]]]}
    return _written(folder, content)


def _written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "yolov8n.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def fit(model_yaml: str, data: str, folder: Path, name: str, trainer: Any, **more: Any) -> Any:
    """Train, and return the trainer."""
    model = YOLO(model_yaml)
    arguments = {**TINY, "data": data, "epochs": 4, "project": str(folder), "name": name, "close_mosaic": 0, **more}
    model.train(trainer=trainer, **arguments)
    return model.trainer


class Painted:
    """Has a data set of the host load grey images, and the sample `lit` in blue; green is the same in all."""

    def __init__(self, dataset: Any):
        self.load, self.lit = dataset.get_image_and_label, -1
        dataset.get_image_and_label = self

    def __call__(self, index: int) -> Any:
        """Return the host's image and label, painted."""
        label = self.load(index)
        label["img"] = np.full_like(label["img"], 114)  # the colour of the host's padding
        label["img"][..., 1] = 254
        label["img"][..., 0] = 254 if index == self.lit else 114
        return label
