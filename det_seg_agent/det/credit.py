"""Which samples a composite image shows, and by how much.

Mosaic, the affine crop, MixUp and CutMix are replaced by subclasses that draw what the host draws, in the same order,
and keep beside it where each sample's pixels went: `labels["shown"]`, a list of (index, corners (4, 2), weight).
The share that is credited to a sample is the area of its corners inside the image, times its blend weight.
Copy-paste leaves the credit with the image that is pasted into.

Written for ultralytics 8.4.190: `get_params` of these classes, and keys that survive Mosaic.
"""

from typing import Any

import cv2
import numpy as np
from ultralytics.data.augment import BaseMixTransform, Compose, CutMix, MixUp, Mosaic, RandomPerspective

Shown = list[tuple[int, np.ndarray, float]]


def corners(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Return the corners (4, 2) float32 of a box, clockwise."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def visible(quad: np.ndarray, box: np.ndarray) -> float:
    """Return the area, in pixels, of a convex quadrilateral inside a box of corners (4, 2)."""
    area = cv2.intersectConvexConvex(quad.astype(np.float32), box.astype(np.float32))[0]
    return float(area)


def shares(shown: Shown, height: int, width: int) -> dict[int, float]:
    """Return dataset index -> share of an image of `height` x `width` pixels; the shares sum to 1."""
    frame = corners(0, 0, width, height)
    areas: dict[int, float] = {}
    for index, quad, weight in shown:
        areas[index] = areas.get(index, 0.0) + max(0.0, visible(quad, frame) * weight)
    areas = {index: area for index, area in areas.items() if area > 1e-4 * height * width}  # slivers show nothing
    total = sum(areas.values())
    if total <= 0:
        return {shown[0][0]: 1.0}
    return {index: area / total for index, area in areas.items()}


class CreditedMosaic(Mosaic):
    """Mosaic that keeps where each patch was placed."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and note the patches."""
        params: dict[str, Any] = super().get_params(labels)
        dx, dy = (0, 0) if self.n == 4 else self.border[::-1]
        shown: Shown = []
        for item in params["layout"]:
            patch = item["labels_patch"]
            keys = ("x1a", "y1a", "x2a", "y2a") if self.n == 4 else ("x1", "y1", "x2", "y2")
            x1, y1, x2, y2 = (item[key] for key in keys)
            shown.append((patch["shown"][0][0], corners(x1 + dx, y1 + dy, x2 + dx, y2 + dy), 1.0))
        labels["shown"] = shown
        return params


class CreditedPerspective(RandomPerspective):
    """Affine or perspective warp that takes the noted corners along."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and warp the corners by the same matrix."""
        params: dict[str, Any] = super().get_params(labels)
        matrix = np.asarray(params["M"], np.float64)
        warped: Shown = []
        for index, quad, weight in labels["shown"]:
            points = np.c_[quad, np.ones(4)] @ matrix.T
            warped.append((index, (points[:, :2] / points[:, 2:]).astype(np.float32), weight))
        width, height = params["size"]
        frame = corners(0, 0, width, height)
        labels["shown"] = [item for item in warped if visible(item[1], frame) > 0] or warped[:1]
        return params


class CreditedMixUp(MixUp):
    """MixUp that weighs both images' corners by the blend."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and merge the corners."""
        params: dict[str, Any] = super().get_params(labels)
        r = float(params["r"])
        other = labels["mix_labels"][0]["shown"]
        labels["shown"] = [(i, q, w * r) for i, q, w in labels["shown"]] + [(i, q, w * (1 - r)) for i, q, w in other]
        return params


class CreditedCutMix(CutMix):
    """CutMix that moves the cut area's credit to the partner."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and split the corners at the cut."""
        params: dict[str, Any] = super().get_params(labels)
        if params.get("skip"):
            return params
        cut = corners(*(float(v) for v in params["area"].astype(np.int32)))
        shown: Shown = []
        for index, quad, weight in labels["shown"]:
            area = visible(quad, corners(0, 0, params["w"], params["h"]))
            left = 1 - visible(quad, cut) / area if area > 0 else 0.0
            shown.append((index, quad, weight * max(left, 0.0)))
        for index, quad, weight in labels["mix_labels"][0]["shown"]:
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


def credit_transforms(transforms: Any, source: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return `transforms` with crediting classes in place and mixing partners drawn from `source`.

    The objects are rebuilt with the host's attributes as they are; a transform used twice stays one object.
    """
    seen = {} if seen is None else seen
    if id(transforms) in seen:
        return seen[id(transforms)]
    original = transforms
    if isinstance(transforms, Compose):
        transforms.transforms = [credit_transforms(t, source, seen) for t in transforms.transforms]
    elif type(transforms) in CREDITED:
        cls = CREDITED[type(transforms)]
        replacement = cls.__new__(cls)
        replacement.__dict__.update(transforms.__dict__)
        transforms = replacement
    if isinstance(transforms, BaseMixTransform):
        transforms.dataset = source
        if transforms.pre_transform is not None:
            transforms.pre_transform = credit_transforms(transforms.pre_transform, source, seen)
    seen[id(original)] = transforms
    return transforms
