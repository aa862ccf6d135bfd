"""Composites that record the samples they show in versions without `get_params` (8.3.0 to 8.4.0).

Their transforms do not tell what they draw, but call a method of their own with each patch's place (Mosaic) or return
the matrix from one (affine crop): overriding these keeps the credit exact. MixUp's blend factor is in no method: both
images count by its mean, a half (the host draws from Beta(32, 32), deviation 0.06). Neither is CutMix's area: its
pixels count for the first image, and its objects for their own.
"""

from typing import Any

import numpy as np
from ultralytics.data.augment import MixUp, Mosaic, RandomPerspective

from det_seg_agent.det.compat import optional
from det_seg_agent.det.sources import Credited, Shown, corners, visible, warp

CutMix: Any = optional("data.augment", "CutMix")  # from 8.3.200


class PlacedMosaic(Credited, Mosaic):
    """Mosaic that records the position of each patch, which the host passes to `_update_labels`."""

    def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
        self.sources.note(labels)
        self.placed: Shown = []
        mixed: dict[str, Any] = super()._mix_transform(labels)
        height, width = mixed["img"].shape[:2]
        frame = corners(0, 0, width, height)
        mixed["shown"] = [item for item in self.placed if visible(item[1], frame) > 0]
        return mixed

    def _update_labels(self, labels: dict[str, Any], padw: float, padh: float) -> dict[str, Any]:
        height, width = labels["img"].shape[:2]
        # The host cuts a patch at the edges of the canvas alone.
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


class HalfMixUp(Credited, MixUp):
    """MixUp that halves both images' weights."""

    def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
        before, other = self.sources.note(labels), labels["mix_labels"][0].get("shown") or []
        mixed: dict[str, Any] = super()._mix_transform(labels)
        if before is not None:
            mixed["shown"] = [(index, quad, weight / 2) for index, quad, weight in [*before, *other]]
        return mixed


CREDITED: dict[Any, type[Credited]] = {Mosaic: PlacedMosaic, RandomPerspective: WarpedPerspective, MixUp: HalfMixUp}
if CutMix is not None:

    class FirstCutMix(Credited, CutMix):
        """CutMix, whose pixels count for the first image."""

        def _mix_transform(self, labels: dict[str, Any]) -> dict[str, Any]:
            before = self.sources.note(labels)
            mixed: dict[str, Any] = super()._mix_transform(labels)
            return mixed if before is None else {**mixed, "shown": before}

    CREDITED[CutMix] = FirstCutMix
