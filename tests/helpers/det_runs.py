"""Runs of the real Ultralytics trainer on tiny scenes."""

from pathlib import Path
from typing import Any

import yaml
from ultralytics import YOLO
from ultralytics.utils import ROOT

TINY = {"imgsz": 64, "batch": 8, "device": "cpu", "plots": False, "verbose": False, "seed": 1, "exist_ok": True}


def write_model(folder: Path) -> str:
    """Write YOLOv8 at an eighth of the n model's width."""
    content = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
    content["scales"] = {"n": [0.33, 0.0625, 1024]}
    path = folder / "yolov8n.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def fit(model_yaml: str, data: str, folder: Path, name: str, trainer: Any, **more: Any) -> Any:
    """Train, and return the trainer."""
    model = YOLO(model_yaml)
    arguments = {**TINY, "data": data, "epochs": 4, "project": str(folder), "name": name, "close_mosaic": 0, **more}
    model.train(trainer=trainer, **arguments)
    return model.trainer
