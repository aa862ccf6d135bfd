"""Statistics of single test images, and figures by class of bootstrap samples of them. `compare.summary` uses it.

A finished cell has `per_image.npz`: the areas of each image in segmentation, the matches of `compare.matches` in
detection. The samples are the same for all cells, so that their differences are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_seg_agent.compare.fingerprint import digest_of_file
from det_seg_agent.compare.stats import resampled_counts
from det_seg_agent.files import replacing

FILE, CACHE = "per_image.npz", "resampled.npz"
KEYS = ("by_class", "by_class50")  # figures by class that are resampled; the second in detection only


@dataclass(frozen=True)
class Resampled:
    """Figures by class of bootstrap samples of the test images.

    Attributes:
        names: names of the classes.
        images: number of test images.
        values: by key of `KEYS`, (B, C) in percent; NaN where a sample lacks the class.
    """

    names: tuple[str, ...]
    images: int
    values: dict[str, NDArray[np.float32]]


def save(place: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the statistics of a cell to its folder, atomically."""
    _write(place / FILE, arrays)


def resampled(place: Path, resamples: int) -> Resampled | None:
    """Return the resampled figures of a cell; None if it stored no statistics. They are kept in its folder.

    Args:
        place: folder of the cell.
        resamples: number of bootstrap samples.
    """
    path, cache = place / FILE, place / CACHE
    if not path.is_file():
        return None
    state = f"{digest_of_file(path)} {resamples}"
    known = _load(cache)
    if known is None or str(known.get("state")) != state:
        arrays = _load(path)
        if arrays is None:
            return None
        known = {"state": np.array(state), **_resample(arrays, resamples)}
        _write(cache, known)
    values = {key: known[key] for key in KEYS if key in known}
    return Resampled(tuple(map(str, known["names"])), int(known["images"]), values)


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **dict[str, Any](arrays))


def _load(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays in a file; None if it cannot be read, for example after a stop."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _resample(arrays: Mapping[str, NDArray[Any]], resamples: int) -> dict[str, NDArray[Any]]:
    if "intersect" in arrays:
        images = len(arrays["intersect"])
        found = {"by_class": class_iou(arrays, resampled_counts(images, resamples))}
    else:
        from det_seg_agent.compare.matches import average_precision

        images = len(arrays["objects"])
        ap = average_precision(arrays, resampled_counts(images, resamples))
        found = {"by_class": ap.mean(2), "by_class50": ap[:, :, 0]}
    percent = {key: (100 * value).astype(np.float32) for key, value in found.items()}
    return {"names": arrays["names"], "images": np.array(images), **percent}


def class_iou(arrays: Mapping[str, NDArray[Any]], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the IoU of each class over each sample of the test images.

    Args:
        arrays: "intersect" and "union", (N, C) pixels.
        counts: (B, N), how often each image is in each sample.

    Returns:
        (B, C) in [0, 1]; NaN where nothing is of the class.
    """
    weights = counts.astype(np.float64)
    intersect, union = (weights @ arrays[name].astype(np.float64) for name in ("intersect", "union"))
    with np.errstate(invalid="ignore"):
        return np.where(union > 0, intersect / union, np.nan)
