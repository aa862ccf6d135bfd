"""Composites that record the samples they show, by what their transforms tell in `get_params` (from 8.4.60).

The subclasses draw the same random numbers in the same order as the host, and rely on keys that Mosaic keeps.
"""

from typing import Any

import numpy as np
from ultralytics.data.augment import CutMix, MixUp, Mosaic, RandomPerspective

from det_seg_agent.det.sources import Credited, Shown, blend, corners, cut, warp


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
        labels["shown"] = warp(before, params["M"], *params["size"])
        return params


class CreditedMixUp(Credited, MixUp):
    """MixUp that multiplies both images' weights by their blend factors."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and merge the corners."""
        params: dict[str, Any] = super().get_params(labels)
        before = self.sources.note(labels)
        if before is not None:
            labels["shown"] = blend(before, labels["mix_labels"][0].get("shown") or [], float(params["r"]))
        return params


class CreditedCutMix(Credited, CutMix):
    """CutMix that moves the credit of the cut area to the partner."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Draw as the host does, and split the corners at the cut."""
        params: dict[str, Any] = super().get_params(labels)
        before = self.sources.note(labels)
        if before is None or params.get("skip"):
            return params
        x1, y1, x2, y2 = params["area"].astype(np.int32)
        other = labels["mix_labels"][0].get("shown") or []
        labels["shown"] = cut(before, other, corners(x1, y1, x2, y2), params["w"], params["h"])
        return params


CREDITED = {
    Mosaic: CreditedMosaic,
    RandomPerspective: CreditedPerspective,
    MixUp: CreditedMixUp,
    CutMix: CreditedCutMix,
}
