"""Metrics of a validation, including IoU by class, by the host's formulas. `AgentHook` uses them."""

from typing import Any

import torch
from mmengine.dist import collect_results
from mmseg.evaluation import IoUMetric


class ClassIoU:
    """Computes IoU and accuracy by class from the areas in an `IoUMetric`, which itself only returns means."""

    def __init__(self, metric: IoUMetric, classes: list[str]):
        self.metric, self.classes = metric, classes
        self.areas: list[Any] = []

    def add(self) -> None:
        """Collect the areas of the images since the last call; the host clears them before it returns its metrics."""
        self.areas += self.metric.results[len(self.areas) :]

    def result(self, size: int) -> dict[str, dict[str, float]]:
        """Return {"IoU", "Acc"} in percent for each class over `size` images, on rank 0. A collective.

        A class that does not occur has no values.
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
    """Records the metrics of the host's validations.

    Attributes:
        last: metrics of the last validation: the host's, and `by_class` on rank 0.
    """

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self._iou: ClassIoU | None = None

    def begin(self, runner: Any) -> None:
        """Start recording a validation."""
        metrics = [m for m in runner.val_evaluator.metrics if isinstance(m, IoUMetric) and not m.format_only]
        # a subclass may store something else for each image
        metrics = [m for m in metrics if type(m).process is IoUMetric.process]
        self._iou = None
        if metrics and metrics[0].dataset_meta:
            self._iou = ClassIoU(metrics[0], list(metrics[0].dataset_meta["classes"]))

    def add(self) -> None:
        """Collect the areas of a batch."""
        if self._iou is not None:
            self._iou.add()

    def end(self, runner: Any, metrics: dict[str, float]) -> None:
        """Record the host's metrics. A collective."""
        self.last = {key: round(float(value), 2) for key, value in metrics.items()}
        if self._iou is not None:
            self.last["by_class"] = self._iou.result(len(runner.val_dataloader.dataset))
