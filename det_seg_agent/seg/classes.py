"""The classes of the training images, from their masks. `seg.run` uses it."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations

from det_seg_agent.classes import Classes
from det_seg_agent.errors import ConfigError
from det_seg_agent.seg.heads import seen_head
from det_seg_agent.seg.masks import leaves_of, mask_loaders

THREADS = 4  # decoding leaves Python's lock


def loader_of(leaf: Any) -> LoadAnnotations:
    """Return the transform that loads the masks of a data set without parts.

    Raises:
        ConfigError: if there is none of the host's class.
    """
    if loaders := mask_loaders(leaf):
        return loaders[0]
    raise ConfigError(
        f"train_dataloader.dataset.type={type(leaf).__name__!r}: its pipeline has no LoadAnnotations, which tells the "
        "classes of its masks. Add it, or take a strategy that does not select by classes."
    )


def counts_of(dataset: Any, classes: int) -> Iterator[np.ndarray]:
    """Yield the pixels of each class, (classes,) int64, for each sample in order; masks are read as the host does.

    Raises:
        ConfigError: see `loader_of`.
    """
    leaves = [(leaf, loader_of(leaf)) for leaf in leaves_of(dataset)]
    jobs = ((leaf, load, i) for leaf, load in leaves for i in range(len(leaf)))

    def count(job: tuple[Any, LoadAnnotations, int]) -> np.ndarray:
        leaf, load, index = job
        mask = load(dict(leaf.get_data_info(index)))["gt_seg_map"]
        return np.bincount(mask.ravel(), minlength=classes)[:classes]

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(count, jobs)


def classes_of(dataset: Any, model: Any) -> Classes | None:
    """Return the classes of a training set; None for a model whose head does not tell their number.

    Args:
        dataset: the host's training set.
        model: the segmentor, not its distributed wrapper.
    """
    head = seen_head(model) if hasattr(model, "decode_head") else None
    if head is None or not hasattr(head, "conv_seg"):  # the run refuses it, with a reason
        return None
    count = max(2, head.conv_seg.out_channels)
    names = [str(name) for name in (getattr(dataset, "metainfo", {}).get("classes") or ())][:count]
    names += [str(number) for number in range(len(names), count)]

    def read() -> Iterable[np.ndarray]:
        return counts_of(dataset, count)

    return Classes(names, read)
