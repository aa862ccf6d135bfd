"""Composites that record the samples they show in versions without `get_params` (8.3.0 to 8.4.0).

Their transforms do not tell what they draw, but each patch of a mosaic and the matrix of an affine crop pass through a
method of their own, which is overridden; a blend factor and a cut are measured in the pixels that come out.
"""

from typing import Any

import numpy as np
from ultralytics.data.augment import MixUp, Mosaic, RandomPerspective

from det_seg_agent.det.compat import optional
from det_seg_agent.det.sources import Credited, Shown, blend, corners, cut, warp

CutMix: Any = optional("data.augment", "CutMix")  # from 8.3.200


class PlacedMosaic(Credited, Mosaic):
    """Mosaic that records the position of each patch, which the host passes to `_update_labels`."""

    def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
        self.sources.note(labels)
        self.placed: Shown = []
        mixed: dict[str, Any] = super()._mix_transform(labels)
        height, width = mixed["img"].shape[:2]
        # The host cuts patches at the edges of the canvas, and at no other place.
        inside = [(index, quad.clip(0, (width, height)), weight) for index, quad, weight in self.placed]
        mixed["shown"] = [item for item in inside if np.ptp(item[1], axis=0).all()]
        return mixed

    def _update_labels(self, labels: dict[str, Any], padw: float, padh: float) -> dict[str, Any]:
        height, width = labels["img"].shape[:2]
        quad = corners(padw, padh, padw + width, padh + height)
        self.placed += [(index, quad, 1.0) for index, _, _ in (labels.get("shown") or [])[:1]]
        updated: dict[str, Any] = Mosaic._update_labels(labels, padw, padh)
        return updated


class WarpedPerspective(Credited, RandomPerspective):
    """Affine or perspective warp that also warps the recorded corners."""

    def affine_transform(self, img: np.ndarray, border: Any) -> Any:
        """Warp as the host does, and keep the matrix."""
        self.before = img.shape[:2]
        warped = super().affine_transform(img, border)
        self.matrix = warped[1]
        return warped

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Warp as the host does, and warp the corners by the same matrix."""
        known = "shown" in labels
        labels = super().__call__(labels)
        shown = self.sources.note(labels)
        if shown is None:
            return labels
        if not known:  # one image, of which the host may have changed the size before it warped it
            height, width = self.before
            shown = [(shown[0][0], corners(0, 0, width, height), 1.0)]
        labels["shown"] = warp(shown, self.matrix, *self.size)
        return labels


class MeasuredMixUp(Credited, MixUp):
    """MixUp that multiplies both images' weights by their blend factors, which the mixed pixels tell."""

    def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
        before, partner, image = self.sources.note(labels), labels["mix_labels"][0], labels["img"]
        other, shown = partner["img"], partner.get("shown") or []
        mixed: dict[str, Any] = super()._mix_transform(labels)
        if before is not None:
            mixed["shown"] = blend(before, shown, factor_of(image, other, mixed["img"]))
        return mixed


def factor_of(one: np.ndarray, two: np.ndarray, mixed: np.ndarray) -> float:
    """Return r of `mixed` = r `one` + (1 - r) `two` by least squares on every fourth pixel; 0.5 for equal images."""
    one, two, mixed = (image[::4, ::4].astype(np.float32) for image in (one, two, mixed))
    far = one - two
    square = float((far**2).sum())
    # The host cuts fractions off: half a level more on average.
    return float(((mixed + 0.5 - two) * far).sum()) / square if square else 0.5


CREDITED: dict[Any, type[Credited]] = {Mosaic: PlacedMosaic, RandomPerspective: WarpedPerspective, MixUp: MeasuredMixUp}
if CutMix is not None:

    class MeasuredCutMix(Credited, CutMix):
        """CutMix that moves the credit of the pixels that changed to the partner."""

        def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
            before, image = self.sources.note(labels), labels["img"].copy()
            other = labels["mix_labels"][0].get("shown") or []
            mixed: dict[str, Any] = super()._mix_transform(labels)
            box = box_of_changes(image, mixed["img"])
            if before is not None and box is not None:
                mixed["shown"] = cut(before, other, box, image.shape[1], image.shape[0])
            return mixed

    CREDITED[CutMix] = MeasuredCutMix


def box_of_changes(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Return the corners (4, 2) of the smallest box around the pixels that differ; None if there are none."""
    changed = (before != after).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return corners(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None
