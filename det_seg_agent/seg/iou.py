"""Figures of a validation, those by class too, by the host's own formulas."""

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


class Figures:
    """Follows the host's validations.

    Attributes:
        last: figures of the last validation: the host's, and `by_class` on rank 0.
    """

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self._iou: ClassIoU | None = None

    def begin(self, runner: Any) -> None:
        """Begin a validation."""
        metrics = [m for m in runner.val_evaluator.metrics if isinstance(m, IoUMetric) and not m.format_only]
        if metrics and metrics[0].dataset_meta:
            self._iou = ClassIoU(metrics[0], list(metrics[0].dataset_meta["classes"]))

    def add(self, outputs: Any) -> None:
        """Take the data samples of a batch."""
        if self._iou is not None:
            self._iou.add(outputs)

    def end(self, runner: Any, metrics: dict[str, float]) -> None:
        """Take the host's figures; a collective."""
        self.last = {key: round(float(value), 2) for key, value in metrics.items()}
        if self._iou is not None:
            self.last["by_class"] = self._iou.result(len(runner.val_dataloader.dataset))
