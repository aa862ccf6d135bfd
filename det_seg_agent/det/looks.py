"""What `data.html` draws over images: labels, and the trained model's predictions. `det.trainer` uses it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset
from ultralytics import YOLO

from det_seg_agent.reporting.looks import Look, Looks


def label_of(dataset: Any, index: int) -> dict[str, Any] | None:
    """Return the host's label of a sample, through wrappers; None if the data set holds none in memory."""
    if isinstance(dataset, Subset):
        return label_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return label_of(dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0))
    labels = getattr(dataset, "labels", None)
    label = labels[index] if labels is not None else None
    return label if isinstance(label, dict) and label.get("bbox_format") == "xywh" and label.get("normalized") else None


def label_looks(dataset: Any, names: Mapping[int, str]) -> Looks:
    """Return a function from indices to the labels' boxes.

    Args:
        dataset: the host's training set.
        names: class names by index.
    """

    def look(index: int) -> Look | None:
        label = label_of(dataset, index)
        if label is None:
            return None
        centre, half = label["bboxes"][:, :2], label["bboxes"][:, 2:] / 2
        classes = label["cls"].reshape(-1).astype(int).tolist()
        return Look(np.concatenate([centre - half, centre + half], 1), [names.get(c, str(c)) for c in classes])

    return lambda indices: [look(index) for index in indices]


def prediction_looks(trainer: Any, files: Sequence[str]) -> Looks:
    """Return a function from indices to what the best weights of a run predict, above the host's usual confidence.

    Args:
        trainer: the host's trainer; its best weights, else the last, are read when the function is called.
        files: image file of each sample.
    """

    def look(result: Any) -> Look | None:
        if result.boxes is None:
            return None
        names = [f"{result.names[int(c)]} {p:.2f}" for c, p in zip(result.boxes.cls, result.boxes.conf, strict=True)]
        return Look(result.boxes.xyxyn.cpu().numpy(), names)

    def looks(indices: Sequence[int]) -> list[Look | None]:
        given = Path(str(trainer.args.model))  # where nothing was trained
        candidates = (trainer.best, trainer.last, *([given] if given.suffix == ".pt" else []))
        weights = next((path for path in candidates if Path(path).is_file()), None)
        if weights is None or trainer.args.task not in ("detect", "segment", "pose"):
            return [None] * len(indices)
        model = YOLO(str(weights))
        settings = {"imgsz": trainer.args.imgsz, "device": trainer.device, "verbose": False, "save": False}
        return [look(model.predict(files[index], **settings)[0]) for index in indices]

    return looks
