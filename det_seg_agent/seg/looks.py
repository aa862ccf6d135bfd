"""What `data.html` draws over images: masks and the trained model's predictions. `seg.hook` gives it to the report."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from det_seg_agent.reporting.looks import Look, Looks
from det_seg_agent.seg.classes import loader_of
from det_seg_agent.seg.masks import leaves_of

LONGEST = 1024  # pixels of an image's longer side that predictions are made at


def mask_looks(dataset: Any, names: Sequence[str]) -> Looks:
    """Return a function from indices to the masks of samples, read as the host does.

    Args:
        dataset: the host's training set.
        names: class names.
    """
    leaves = leaves_of(dataset)
    ends = list(accumulate(map(len, leaves)))
    classes = dict(enumerate(names))

    def look(index: int) -> Look:
        part = bisect_right(ends, index)
        info = leaves[part].get_data_info(index - (ends[part - 1] if part else 0))
        return Look(mask=loader_of(leaves[part])(dict(info))["gt_seg_map"], classes=classes)

    return lambda indices: [look(index) for index in indices]


def prediction_looks(model: Any, files: Sequence[str], names: Sequence[str]) -> Looks:
    """Return a function from indices to what the model predicts of whole images, by its `test_cfg`.

    Args:
        model: the segmentor, not its distributed wrapper.
        files: image file of each sample.
        names: class names.
    """
    classes = dict(enumerate(names))

    def look(index: int) -> Look:
        image = mmcv.imread(files[index])
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        image = mmcv.imrescale(image, scale) if scale < 1 else image
        size = image.shape[:2]
        sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size, "pad_shape": size})
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        found = model.test_step({"inputs": [pixels], "data_samples": [sample]})[0].pred_sem_seg
        assert isinstance(found, PixelData)
        return Look(mask=found.data[0].cpu().numpy(), classes=classes)

    def looks(indices: Sequence[int]) -> list[Look]:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return [look(index) for index in indices]
        finally:
            model.train(training)

    return looks
