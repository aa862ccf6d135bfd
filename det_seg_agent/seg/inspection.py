"""`det-seg-agent inspect` for MMEngine configs: reads the masks of the training images."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.input_errors import input_errors
from det_seg_agent.hosts.recipes import found
from det_seg_agent.inspecting.asked import Asked
from det_seg_agent.inspecting.contents import EXAMPLES, Contents, Fault
from det_seg_agent.inspecting.report import inspect
from det_seg_agent.reporting.looks import Looks
from det_seg_agent.seg.compat import prepare_host

FEW = 0.0001  # share of an image's pixels, below which a class is an odd pixel or two


def main(words: list[str]) -> int:
    """Run the command; return the exit status."""
    return inspect(words, read_contents)


def read_contents(asked: Asked) -> tuple[Contents, Looks]:
    """Return the masks' contents, and what draws the masks.

    Raises:
        ConfigError: if config or data cannot be read.
    """
    prepare_host()
    from mmengine.config import Config
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    from det_seg_agent.seg.index import image_paths
    from det_seg_agent.seg.looks import mask_looks

    path = found(asked.data)
    if not Path(path).is_file():
        raise ConfigError(f"data={asked.data}: there is no such file.")
    with input_errors(f"data={asked.data}", "mmengine", "mmseg", "mmcv", kinds=(Exception,)):
        config = Config.fromfile(str(path))
        if config.get("train_dataloader") is None:
            raise ConfigError(f"data={asked.data}: the config has no train_dataloader; give one that trains.")
        register_all_modules(init_default_scope=True)
        dataset = DATASETS.build(config.train_dataloader.dataset)
    files = image_paths(dataset)
    if not files:
        raise ConfigError(f"data={asked.data}: its training set has no images; correct data_root or data_prefix.")
    head = config.get("model", {}).get("decode_head", {})
    head = head[-1] if isinstance(head, list) else head
    names = [str(name) for name in dataset.metainfo.get("classes") or ()]
    count = max(head.get("num_classes") or len(names), 1)
    names = [*names[:count], *(str(i) for i in range(len(names), count))]
    return _read(dataset, files, names, head.get("ignore_index", 255), asked.data), mask_looks(dataset, names)


def counted(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values of a mask, ascending, and the number of pixels of each."""
    if mask.size and mask.dtype.kind in "iu" and mask.min() >= 0 and mask.max() < 1 << 16:  # faster than a sort
        counts = np.bincount(mask.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    values, counts = np.unique(mask, return_counts=True)
    return values, counts


def _read(dataset: Any, files: list[str], names: list[str], ignored: int, source: str) -> Contents:
    from det_seg_agent.seg.classes import loader_of
    from det_seg_agent.seg.masks import leaves_of

    jobs = [(leaf, loader_of(leaf), i) for leaf in leaves_of(dataset) for i in range(len(leaf))]

    def one(job: tuple[Any, Any, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        leaf, load, index = job
        mask = load(dict(leaf.get_data_info(index)))["gt_seg_map"]
        return *counted(mask), mask.shape

    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:  # decoding leaves Python's lock
        rows = list(track(pool.map(one, jobs), "masks", len(jobs), transient=True))
    image = np.repeat(np.arange(len(rows)), [len(values) for values, _, _ in rows])
    values = np.concatenate([row[0] for row in rows]).astype(np.int64)
    amount = np.concatenate([row[1] for row in rows]).astype(np.float64)
    sizes = np.array([(shape[1], shape[0]) for _, _, shape in rows], np.int32)
    good = (values >= 0) & (values < len(names))
    unknown = ~good & (values != ignored)
    faults = []
    if unknown.any():
        shown = ", ".join(map(str, np.unique(values[unknown])[:5].tolist()))
        faults.append(
            Fault(
                f"masks hold unknown values ({shown})", len(np.unique(image[unknown])),
                np.unique(image[unknown])[:EXAMPLES].tolist(),
                f"Allowed are 0 to {len(names) - 1} and ignore_index={ignored}: training would stop there.",
            )
        )  # fmt: skip
    specks = good & (amount < FEW * sizes.prod(1)[image])
    if specks.any():
        faults.append(
            Fault(
                "classes in an image with under 0.01 % of its pixels", int(specks.sum()),
                np.unique(image[specks])[:EXAMPLES].tolist(), "Often left by painting or by resizing of the masks.",
            )
        )  # fmt: skip
    return Contents(
        source, "pixels", names, files, image[good], values[good].astype(np.int32), amount[good], None, sizes, faults
    )
