"""The samples that an augmented item shows, by pixels and by objects. `det.credit` records them, `det.dataset` reads.

A sample's share is the area of its corners inside the image, times its blend weight, normalised. Objects keep their
sample: its position among the item's samples is added to their class as a fraction (`MARKS`), which the host's
transforms carry along as they concatenate, filter and sort objects. `Sources.unmark` takes it off again.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

Shown = list[tuple[int, np.ndarray, float]]
MARKS = 256  # the fractions are multiples of 1 / MARKS, which float32 holds exactly up to class 65,535


def corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Return the corners (4, 2) float32 of a box, clockwise."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def visible(quad: np.ndarray, box: np.ndarray) -> float:
    """Return the area in pixels of a convex quadrilateral (4, 2) inside the box with corners `box` (4, 2)."""
    area = cv2.intersectConvexConvex(quad.astype(np.float32), box.astype(np.float32))[0]
    return float(area)


def warp(shown: Shown, matrix: Any, width: int, height: int) -> Shown:
    """Return samples warped by a matrix (3, 3) into an image of `width` x `height` pixels; the visible, or the first.

    Args:
        shown: what the image shows before.
        matrix: affine or projective.
        width: width of the image afterwards, in pixels.
        height: its height.
    """
    matrix, warped, frame = np.asarray(matrix, np.float64), [], corners(0, 0, width, height)
    for index, quad, weight in shown:
        points = np.c_[quad, np.ones(4)] @ matrix.T
        warped.append((index, (points[:, :2] / points[:, 2:]).astype(np.float32), weight))
    return [item for item in warped if visible(item[1], frame) > 0] or warped[:1]


def blend(shown: Shown, other: Shown, factor: float) -> Shown:
    """Return what an image shows that is `factor` times one and 1 - `factor` times another."""
    return [(i, q, w * factor) for i, q, w in shown] + [(i, q, w * (1 - factor)) for i, q, w in other]


def cut(shown: Shown, other: Shown, box: np.ndarray, width: int, height: int) -> Shown:
    """Return what an image of `width` x `height` pixels shows after a box (4, 2) of it was filled from another."""
    frame, result = corners(0, 0, width, height), []
    for index, quad, weight in shown:
        area = visible(quad, frame)
        left = 1 - visible(quad, box) / area if area > 0 else 0.0
        result.append((index, quad, weight * max(left, 0.0)))
    for index, quad, weight in other:
        area, part = cv2.intersectConvexConvex(quad.astype(np.float32), box)
        if area > 0:
            result.append((index, part.reshape(-1, 2), weight))
    return result


def shares(shown: Shown, height: int, width: int) -> dict[int, float]:
    """Return the share of each dataset index in an image of `height` x `width` pixels; shares sum to 1."""
    frame = corners(0, 0, width, height)
    areas: dict[int, float] = {}
    for index, quad, weight in shown:
        areas[index] = areas.get(index, 0.0) + max(0.0, visible(quad, frame) * weight)
    areas = {index: area for index, area in areas.items() if area > 1e-4 * height * width}  # ignore slivers
    total = sum(areas.values())
    if total <= 0:
        return {shown[0][0]: 1.0}
    return {index: area / total for index, area in areas.items()}


class Sources:
    """Finds the sample of a label by its image file, and records the sources of the current item.

    Attributes:
        files: image file of each sample, at the start of the run.
        asked: the sample that the loader requested.
        mixed: samples that a user's own transforms mixed into the item.
        marked: samples whose objects are marked in the item; the mark of a sample is its position, from 1.
        marks: whether objects are marked, as they are if only transforms that carry the marks along will see them.
    """

    def __init__(self, files: Sequence[str]):
        self.files = files
        self.start(0, marks=False)
        self._index: dict[str, int] = {}

    def start(self, index: int, marks: bool) -> None:
        """Begin the item of sample `index`."""
        self.asked, self.marks = index, marks
        self.mixed: list[int] = []
        self.marked: list[int] = []

    def find(self, label: Any, likely: int) -> int | None:
        """Return the sample of a label or item (`likely` is tried first); None if unknown."""
        file = label.get("im_file") if isinstance(label, dict) else None
        if file is None:
            return None
        if 0 <= likely < len(self.files) and self.files[likely] == str(file):
            return likely
        if not self._index:  # built lazily: only needed if a data set returns other images than requested
            self._index = {name: index for index, name in enumerate(self.files)}
        return self._index.get(str(file))

    def note(self, label: dict[str, Any], likely: int | None = None) -> Shown | None:
        """Return the `shown` list of a label; if it has none, add one with its whole image. None if unknown."""
        if "shown" not in label:
            index = self.find(label, self.asked if likely is None else likely)
            if index is None:
                return None
            height, width = label["img"].shape[:2]
            label["shown"] = [(index, corners(0, 0, width, height), 1.0)]
            if self.marks and len(self.marked) < MARKS - 1:
                self.marked.append(index)
                label["cls"] = label["cls"] + np.float32(len(self.marked) / MARKS)
        shown: Shown = label["shown"]
        return shown

    def unmark(self, item: dict[str, Any]) -> Tensor | None:
        """Restore the classes of a finished item; return its objects' samples (n,) int64, -1 if unknown.

        Returns None if nothing was marked.
        """
        if not self.marked:
            return None
        marked = item["cls"]
        item["cls"] = marked.floor()
        if "sem_masks" in item:
            item["sem_masks"] = item["sem_masks"].floor()
        place = ((marked - item["cls"]).flatten() * MARKS).round().long()
        return torch.tensor([-1, *self.marked])[place]

    def mix(self, label: Any, likely: int) -> None:
        """Record that a label is mixed into the item."""
        index = self.find(label, likely)
        if index is not None:
            self.mixed.append(index)

    def credits(self, item: Any) -> list[tuple[int, float]]:
        """Return (index, share) of the samples that an item shows; shares sum to 1. Empty if unknown."""
        shown = item.get("shown") if isinstance(item, dict) else None
        if shown and not self.mixed:
            height, width = item["img"].shape[-2:]
            return list(shares(shown, height, width).items())
        first = self.find(item, self.asked)
        own = [index for index, _, _ in shown] if shown else [] if first is None else [first]
        distinct = list(dict.fromkeys([*own, *self.mixed]))
        return [(index, 1 / len(distinct)) for index in distinct]


class Credited:
    """Mixin for a transform of the host that records the samples it shows.

    Attributes:
        sources: the record of sources.
    """

    sources: Sources
