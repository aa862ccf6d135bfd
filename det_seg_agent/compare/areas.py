"""What a segmentation cell records beside the host's metrics: areas of each test image, and images of each class."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmseg.evaluation import IoUMetric
from numpy.typing import NDArray

from det_seg_agent.compare.attempts import note_weights
from det_seg_agent.compare.fingerprint import digest_of_weights
from det_seg_agent.compare.locks import waiting
from det_seg_agent.files import write_json
from det_seg_agent.seg.masks import leaves_of, mask_loaders, values_of


class Areas(Hook):  # type: ignore[misc]
    """Records initial weights, the time of each validation, and the areas of the last one.

    Args:
        folder: folder of the cell.

    Attributes:
        weights: digest of the weights before training.
        seconds: seconds from the start of training to the end of each validation, by iteration.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights, self.seconds = "", dict[int, float]()
        self._began, self._areas = 0.0, list[Any]()

    def before_train(self, runner: Any) -> None:
        """Note weights and time."""
        self.weights, self._began = note_weights(self.folder, digest_of_weights(runner.model)), time.time()

    def before_val_epoch(self, runner: Any) -> None:
        """Begin with no areas."""
        self._areas = []

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the areas of a batch; the host clears them before it returns its metrics."""
        for metric in runner.val_evaluator.metrics:
            # a subclass may store something else for each image
            if isinstance(metric, IoUMetric) and type(metric).process is IoUMetric.process:
                self._areas += metric.results[len(self._areas) :]
                return

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Note the time."""
        self.seconds[runner.iter] = time.time() - self._began

    def arrays(self, names: list[str]) -> dict[str, NDArray[Any]]:
        """Return the last validation's "intersect", "union" and "label" (N, C) in pixels, and "names"; {} if unknown.

        Args:
            names: names of the classes.
        """
        if not self._areas or len(self._areas[0][0]) != len(names):
            return {}
        columns = (np.stack([np.asarray(area[i]) for area in self._areas]).astype(np.int64) for i in (0, 1, 3))
        return {"names": np.array(names), **dict(zip(("intersect", "union", "label"), columns, strict=True))}


def images_of_classes(dataset: Any, cache: Path) -> dict[str, int]:
    """Return in how many masks of a data set each class occurs; {} if its masks are not loaded by the host.

    Args:
        dataset: the host's training data set.
        cache: JSON file that keeps the answer, as reading all masks takes a while.
    """
    with waiting(cache.with_suffix(".lock")):  # of several cells, one reads them
        try:
            return dict(json.loads(cache.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            found = _count(dataset)
            write_json(cache, found)
            return found


def _count(dataset: Any) -> dict[str, int]:
    names, loaders = list(dataset.metainfo["classes"]), mask_loaders(leaves_of(dataset)[0])
    if not loaders:
        return {}
    counts = np.zeros(len(names), np.int64)
    for index in range(len(dataset)):
        values = values_of(loaders[0](dataset.get_data_info(index))["gt_seg_map"])
        counts[values[(values >= 0) & (values < len(names))]] += 1
    return dict(zip(names, counts.tolist()))
