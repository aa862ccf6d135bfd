"""Figures by class of a validation, by the host's own formulas."""

from typing import Any

import torch
from mmengine.dist import collect_results
from mmseg.evaluation import IoUMetric


class ClassIoU:
    """Keeps each image's areas during a validation; `IoUMetric` prints them by class and returns their means alone."""

    def __init__(self, metric: IoUMetric, classes: list[str]):
        self.metric, self.classes = metric, classes
        self.areas: list[Any] = []

    def add(self, outputs: Any) -> None:
        """Take the data samples of a batch, with prediction and ground truth."""
        for sample in outputs:
            if "gt_sem_seg" in sample and "pred_sem_seg" in sample:
                predicted = sample.pred_sem_seg.data.squeeze()
                label = sample.gt_sem_seg.data.squeeze().to(predicted)
                areas = IoUMetric.intersect_and_union(predicted, label, len(self.classes), self.metric.ignore_index)
                self.areas.append(areas)

    def result(self, size: int) -> dict[str, dict[str, float]]:
        """Return class -> {"IoU", "Acc"} in percent of `size` images, on rank 0; a collective.

        A class that is nowhere has no figure.
        """
        parts = collect_results(self.areas, size, "cpu")
        self.areas = []
        if not parts:
            return {}
        intersect, union, _, label = (torch.stack(column).sum(0) for column in zip(*parts, strict=True))
        figures: dict[str, dict[str, float]] = {}
        for name, i, u, n in zip(self.classes, intersect.tolist(), union.tolist(), label.tolist(), strict=True):
            row = {"IoU": (i, u), "Acc": (i, n)}
            figures[name] = {key: round(100 * a / b, 2) for key, (a, b) in row.items() if b}
        return figures
