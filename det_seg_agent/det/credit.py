"""Assignment of augmented images to samples: which samples an item shows, and with what share. `det.dataset` uses it.

The host's Mosaic, affine crop, MixUp and CutMix are replaced by subclasses that draw the same random numbers in the
same order and record where each sample's pixels go: `labels["shown"]`, a list of (index, corners (4, 2), weight).
A sample's share is the area of its corners inside the image, times its blend weight, normalised. With copy-paste all
credit goes to the image that is pasted into. A user's own mixing transform is not changed; all its samples get equal
shares. Without any of these an item shows the image named by its `im_file`.

Written for ultralytics 8.4.190: it relies on `get_params` of these classes, and on keys that Mosaic keeps.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from ultralytics.data.augment import BaseMixTransform, Compose, CopyPaste, CutMix, MixUp, Mosaic, RandomPerspective

Shown = list[tuple[int, np.ndarray, float]]


def corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Return the corners (4, 2) float32 of a box, clockwise."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def visible(quad: np.ndarray, box: np.ndarray) -> float:
    """Return the area in pixels of a convex quadrilateral (4, 2) inside the box with corners `box` (4, 2)."""
    area = cv2.intersectConvexConvex(quad.astype(np.float32), box.astype(np.float32))[0]
    return float(area)


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
    """

    def __init__(self, files: Sequence[str]):
        self.files, self.asked = files, 0
        self.mixed: list[int] = []
        self._index: dict[str, int] = {}

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
        shown: Shown = label["shown"]
        return shown

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


class CreditedMosaic(Credited, Mosaic):
    """Mosaic that records the position of each patch."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and record the patches."""
        params: dict[str, Any] = super().get_params(labels)
        if self.sources.note(labels) is None:
            return params
        dx, dy = (0, 0) if self.n == 4 else self.border[::-1]
        shown: Shown = []
        for item in params["layout"]:
            keys = ("x1a", "y1a", "x2a", "y2a") if self.n == 4 else ("x1", "y1", "x2", "y2")
            x1, y1, x2, y2 = (item[key] for key in keys)
            for index, _, _ in (item["labels_patch"].get("shown") or [])[:1]:
                shown.append((index, corners(x1 + dx, y1 + dy, x2 + dx, y2 + dy), 1.0))
        labels["shown"] = shown
        return params


class CreditedPerspective(Credited, RandomPerspective):
    """Affine or perspective warp that also warps the recorded corners."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and warp the corners by the same matrix."""
        params: dict[str, Any] = super().get_params(labels)
        before = self.sources.note(labels)
        if before is None:
            return params
        matrix = np.asarray(params["M"], np.float64)
        warped: Shown = []
        for index, quad, weight in before:
            points = np.c_[quad, np.ones(4)] @ matrix.T
            warped.append((index, (points[:, :2] / points[:, 2:]).astype(np.float32), weight))
        width, height = params["size"]
        frame = corners(0, 0, width, height)
        labels["shown"] = [item for item in warped if visible(item[1], frame) > 0] or warped[:1]
        return params


class CreditedMixUp(Credited, MixUp):
    """MixUp that multiplies both images' weights by their blend factors."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and merge the corners."""
        params: dict[str, Any] = super().get_params(labels)
        before = self.sources.note(labels)
        if before is not None:
            r, other = float(params["r"]), labels["mix_labels"][0].get("shown") or []
            labels["shown"] = [(i, q, w * r) for i, q, w in before] + [(i, q, w * (1 - r)) for i, q, w in other]
        return params


class CreditedCutMix(Credited, CutMix):
    """CutMix that moves the credit of the cut area to the partner."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and split the corners at the cut."""
        params: dict[str, Any] = super().get_params(labels)
        before = self.sources.note(labels)
        if before is None or params.get("skip"):
            return params
        cut = corners(*(float(v) for v in params["area"].astype(np.int32)))
        shown: Shown = []
        for index, quad, weight in before:
            area = visible(quad, corners(0, 0, params["w"], params["h"]))
            left = 1 - visible(quad, cut) / area if area > 0 else 0.0
            shown.append((index, quad, weight * max(left, 0.0)))
        for index, quad, weight in labels["mix_labels"][0].get("shown") or []:
            area, part = cv2.intersectConvexConvex(quad.astype(np.float32), cut)
            if area > 0:
                shown.append((index, part.reshape(-1, 2), weight))
        labels["shown"] = shown
        return params


CREDITED = {
    Mosaic: CreditedMosaic,
    RandomPerspective: CreditedPerspective,
    MixUp: CreditedMixUp,
    CutMix: CreditedCutMix,
}


def credit_transforms(transforms: Any, sources: Sources, hosts: tuple[Any, ...], partners: Any, others: Any) -> None:
    """Make the transforms of a data set record the samples that they show; idempotent.

    Args:
        transforms: the data set's transforms, changed in place.
        sources: the record of sources.
        hosts: objects that a mixing transform may hold as its data set, to be replaced.
        partners: data set for the host's own mixing transforms.
        others: data set for a user's mixing transforms.
    """
    if isinstance(transforms, Compose):
        for each in transforms.transforms:
            credit_transforms(each, sources, hosts, partners, others)
    if type(transforms) in CREDITED:
        transforms.__class__ = CREDITED[type(transforms)]
        transforms.sources = sources
    if isinstance(transforms, BaseMixTransform):
        if any(transforms.dataset is host for host in hosts):
            known = isinstance(transforms, Credited) or type(transforms) is CopyPaste
            transforms.dataset = partners if known else others
        credit_transforms(transforms.pre_transform, sources, hosts, partners, others)
