"""The host's composites, made to record which samples they show. `det.dataset` uses it.

The host's Mosaic, affine crop, MixUp and CutMix are replaced by subclasses that draw the same random numbers in the
same order and record where each sample's pixels go: `labels["shown"]`, a list of (index, corners (4, 2), weight).
With copy-paste all pixels go to the image that is pasted into. A user's own mixing transform is not changed; all its
samples get equal shares. Without any of these an item shows the image named by its `im_file`.

Written for ultralytics 8.4.190: it relies on `get_params` of these classes, and on keys that Mosaic keeps.
"""

from typing import Any

import cv2
import numpy as np
from ultralytics.data.augment import (
    Albumentations,
    BaseMixTransform,
    Compose,
    CopyPaste,
    CutMix,
    Format,
    LetterBox,
    MixUp,
    Mosaic,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
)

from det_seg_agent.det.sources import Shown, Sources, corners, visible


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
CARRIERS = (Albumentations, Compose, CopyPaste, Format, LetterBox, RandomFlip, RandomHSV, *CREDITED.values())


def carries(transforms: Any) -> bool:
    """Return whether all transforms, after `credit_transforms`, keep an object's class as it is: the host's own do."""
    if type(transforms) not in CARRIERS:
        return False
    inner = transforms.transforms if isinstance(transforms, Compose) else []
    before = getattr(transforms, "pre_transform", None)
    return all(carries(each) for each in inner) and (before is None or carries(before))


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
