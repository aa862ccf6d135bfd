"""Checks of the values in masks: each mask is checked once, as loaded, before any crop. `seg.run` installs them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mmcv.transforms
import mmengine.dataset
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER
from det_seg_agent.ranks import gather_objects
from det_seg_agent.seg.heads import heads_of, losses_of, refusal

COMPOSED = (mmengine.dataset.Compose, mmcv.transforms.Compose)
PACKED = " after the training pipeline"


class MaskError(ConfigError):
    """A mask that would make the loss fail.

    A data loader re-raises a worker's error with the whole traceback as text; the message is cut to its last line.
    """

    def __init__(self, text: str):
        super().__init__(text.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


@dataclass(frozen=True)
class Limit:
    """Values that a head allows in a mask: 0 to `classes` - 1, and `ignore_index`.

    `setting` is the responsible key of the config, with its value.
    """

    setting: str
    classes: int
    ignore_index: int

    def wrong(self, values: np.ndarray) -> np.ndarray:
        """Return the values that are not allowed."""
        return values[((values < 0) | (values >= self.classes)) & (values != self.ignore_index)]

    def __str__(self) -> str:
        allowed = "0 alone" if self.classes == 1 else f"0 to {self.classes - 1}"
        return f"{self.setting} allows {allowed} and ignore_index={self.ignore_index}"


def limits_of(model: Any) -> list[Limit]:
    """Return the limits of a segmentor's heads, the decode head's first; empty for a model without heads."""
    result = []
    for part in ("decode_head", "auxiliary_head"):
        for head in heads_of(model, (part,)):
            if refusal(type(head)):  # such as STDCHead, whose labels are the mask's edges
                continue
            setting, classes = f"model.{part}.num_classes={head.num_classes}", head.out_channels
            if classes == 1:
                sigmoid = all(getattr(loss, "use_sigmoid", True) for loss in losses_of(head))
                classes, more = (2, "") if sigmoid else (1, " without loss_decode.use_sigmoid=True")
                setting += f" with one channel{more}"
            result.append(Limit(setting, classes, head.ignore_index))
    return result


def values_of(mask: np.ndarray) -> np.ndarray:
    """Return the distinct values of a mask, ascending."""
    if mask.size and mask.dtype.kind in "iu" and mask.min() >= 0 and mask.max() < 1 << 16:
        return np.flatnonzero(np.bincount(mask.ravel()))
    return np.unique(mask)


def check_values(values: np.ndarray, limits: list[Limit], name: Any, note: str = "") -> None:
    """Refuse values that would make a head's loss fail; on CUDA the host's own error names neither file nor value.

    Args:
        values: distinct values of the mask.
        limits: limits of the heads.
        name: path of the mask.
        note: inserted after the values in the message.

    Raises:
        MaskError: names the file, the values, the allowed ones and the remedy.
    """
    for limit in limits:
        wrong = limit.wrong(values)
        if len(wrong):
            found = ", ".join(map(str, wrong[:5].tolist()))
            raise MaskError(
                f"{name}: the mask holds {found}{note}, and {limit}. Correct the mask, num_classes, ignore_index or "
                "reduce_zero_label."
            )


class CheckMask(BaseTransform):
    """Transform that checks each mask of a data set once, before other transforms change it.

    Args:
        limits: limits of the heads.
        samples: number of samples in the data set.
        values: (256,) uint8 in shared memory; entries of values that occur are set to 1.
    """

    def __init__(self, limits: list[Limit], samples: int, values: Tensor):
        self.limits, self.values = limits, values
        self.seen = torch.zeros(samples, dtype=torch.uint8).share_memory_()  # shared by all workers

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Check a mask once both mask and image are loaded.

        Raises:
            MaskError: if its size differs from the image's, or it has several channels or values that are not allowed.
        """
        if "gt_seg_map" not in results or "img" not in results:
            return results
        index = results.get("sample_idx")
        known = isinstance(index, int | np.integer) and 0 <= index < len(self.seen)
        if known and self.seen[index]:
            return results
        mask, image = results["gt_seg_map"], tuple(results.get("ori_shape", results["img"].shape)[:2])
        name = results.get("seg_map_path", results.get("img_path"))
        if mask.ndim != 2:
            raise MaskError(_channels(name, mask.shape))
        if mask.shape != image:
            (h, w), (height, width) = mask.shape, image
            raise MaskError(
                f"{name}: the mask has {w} x {h} pixels, its image {width} x {height} as loaded, turned where its EXIF "
                "tag says so. Save the mask at that size."
            )
        values = values_of(mask)
        note = " (1 more in the file, by reduce_zero_label)" if results.get("reduce_zero_label") else ""
        check_values(values, self.limits, name, note)
        self.values[values[values < len(self.values)]] = 1
        if known:
            self.seen[index] = 1
        return results


def _channels(name: Any, shape: Any) -> str:
    return (
        f"{name}: the mask has shape {tuple(shape)}, and one channel of class indices is needed. Convert colours to "
        "indices."
    )


def leaves_of(dataset: Any) -> list[Any]:
    """Return the data sets inside wrappers, in order."""
    inner = getattr(dataset, "datasets", None)
    if inner is None:
        inner = [dataset.dataset] if hasattr(dataset, "dataset") else []
    return [leaf for part in inner for leaf in leaves_of(part)] or [dataset]


def steps_of(pipeline: Any) -> Iterator[Any]:
    """Yield a pipeline and all transforms in it, including nested ones."""
    yield pipeline
    inner = getattr(pipeline, "transforms", [])
    for step in inner if isinstance(inner, list | tuple) else [inner]:
        yield from steps_of(step)


def mask_loaders(leaf: Any) -> list[mmcv.transforms.LoadAnnotations]:
    """Return the transforms, in order, that load the masks of a data set without wrappers: the host's or subclasses."""
    steps = steps_of(getattr(leaf, "pipeline", None))
    return [step for step in steps if isinstance(step, mmcv.transforms.LoadAnnotations)]


class Masks:
    """Checks the masks of a training set, in the data loader's workers and after the pipeline.

    Args:
        dataset: the training set, before its workers start.
        model: the segmentor, not its distributed wrapper.
    """

    def __init__(self, dataset: Any, model: Any):
        self.limits = limits_of(model)
        self.values = torch.zeros(256, dtype=torch.uint8).share_memory_()
        self._packed: set[int] = set()
        self._told = False
        self.checks: list[CheckMask] = []
        for leaf in leaves_of(dataset):
            self.checks.append(CheckMask(self.limits, len(leaf), self.values))
            for step in list(steps_of(getattr(leaf, "pipeline", None))):
                if isinstance(step, COMPOSED):  # after each transform, as any may load the mask
                    stock = [one for one in step.transforms if not isinstance(one, CheckMask)]
                    step.transforms = [each for one in stock for each in (one, self.checks[-1])]
        pad = getattr(getattr(model, "data_preprocessor", None), "seg_pad_val", None)
        for limit in self.limits:
            if pad is not None and len(limit.wrong(np.array([pad]))):
                LOGGER.warning(
                    f"model.data_preprocessor.seg_pad_val={pad}, which fills up small masks, and {limit}: training "
                    f"fails where a mask is filled up. Set seg_pad_val={limit.ignore_index}."
                )
                break

    def check_packed(self, shown: list[int], samples: list[Any]) -> None:
        """Check the output of the pipeline for each mask, at its first use; `shown` are the dataset indices.

        Raises:
            MaskError: for values that a transform introduced, and for masks that could not be checked as loaded.
        """
        for index, sample in zip(shown, samples, strict=True):
            if index not in self._packed and "gt_sem_seg" in sample:
                self._packed.add(index)
                label = sample.gt_sem_seg.data
                name = sample.metainfo.get("seg_map_path", sample.metainfo.get("img_path"))
                if label.dim() != 3 or label.shape[0] != 1:
                    raise MaskError(_channels(name, label.shape))
                check_values(values_of(label.numpy()), self.limits, name, PACKED)

    def hint(self) -> None:
        """Warn, once most masks are checked, if they contain at most one class; call at a pass's end. A collective."""
        if self._told or not self.limits:
            return
        ranks = gather_objects((self.values, sum(int(check.seen.sum()) for check in self.checks)))
        values = np.flatnonzero(torch.stack([values for values, _ in ranks]).sum(0).numpy())
        limit, count = self.limits[0], sum(seen for _, seen in ranks)
        classes = values[(values < limit.classes) & (values != limit.ignore_index)].tolist()
        most = 2 * count > sum(len(check.seen) for check in self.checks)
        self._told = len(classes) > 1 or most
        if most and len(classes) < 2:
            LOGGER.warning(
                f"the {count} masks so far hold no value but {', '.join(map(str, values.tolist()))}: "
                f"{'one class' if classes else 'no class'} to learn, as ignore_index={limit.ignore_index} does not "
                "count. A mask holds the numbers of classes, 0, 1, 2 and so on; if 255 marks an object, save it as 1."
            )
