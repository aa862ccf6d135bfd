"""The classes of the training images, from the labels that the host has in memory. `det.trainer` uses it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset
from ultralytics.data.dataset import ClassificationDataset, SemanticDataset

from det_seg_agent.classes import Classes


def labels_of(dataset: Any) -> list[np.ndarray] | None:
    """Return the classes of each sample's objects, (n,) int64 arrays; None if the data set does not hold them."""
    if isinstance(dataset, Subset):
        found = labels_of(dataset.dataset)
        return None if found is None else [found[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [labels_of(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [row for part in parts for row in part or []]
    if isinstance(dataset, ClassificationDataset):
        return [np.array([sample[1]]) for sample in dataset.samples]
    if isinstance(dataset, SemanticDataset) or not hasattr(dataset, "labels"):
        return None
    return [label["cls"].reshape(-1).astype(np.int64) for label in dataset.labels]


def classes_of(data: dict[str, Any], dataset: Any) -> Classes | None:
    """Return the classes of a training set, or None if its labels are not in memory.

    Args:
        data: the host's description of the data, with `names`.
        dataset: the host's training set, before its labels are changed.
    """
    names = [str(name) for _, name in sorted(data["names"].items())]
    if not names or labels_of(dataset) is None:
        return None

    def read() -> Iterable[np.ndarray]:
        for row in labels_of(dataset) or []:
            yield np.bincount(row, minlength=len(names))

    return Classes(names, read)
