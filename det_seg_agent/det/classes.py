"""The classes of the training images, from the labels that the host has in memory. `det.trainer` uses it."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset
from ultralytics.data.dataset import ClassificationDataset, SemanticDataset

from det_seg_agent.classes import Classes


def reader_of(dataset: Any) -> Callable[[int], np.ndarray] | None:
    """Return a function from a sample's index to its objects' classes (n,) int64; None if they are not in memory."""
    if isinstance(dataset, Subset):
        whole = reader_of(dataset.dataset)
        return None if whole is None else lambda index: whole(dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        parts = [part for part in map(reader_of, dataset.datasets) if part is not None]
        ends = dataset.cumulative_sizes

        def read(index: int) -> np.ndarray:
            part = bisect_right(ends, index)
            return parts[part](index - (ends[part - 1] if part else 0))

        return read if len(parts) == len(dataset.datasets) else None
    if isinstance(dataset, ClassificationDataset):
        return lambda index: np.array([dataset.samples[index][1]])
    if isinstance(dataset, SemanticDataset) or not hasattr(dataset, "labels"):
        return None
    return lambda index: dataset.labels[index]["cls"].reshape(-1).astype(np.int64)


def classes_of(data: dict[str, Any], dataset: Any) -> Classes | None:
    """Return the classes of a training set, or None if its labels are not in memory.

    Args:
        data: the host's description of the data, with `names`.
        dataset: the host's training set, before its labels are changed.
    """
    names = [str(name) for _, name in sorted(data["names"].items())]
    read = reader_of(dataset)
    if not names or read is None:
        return None

    def counts() -> Iterable[np.ndarray]:
        return (np.bincount(read(index), minlength=len(names)) for index in range(len(dataset)))

    return Classes(names, counts)
