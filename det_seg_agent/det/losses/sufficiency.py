"""Sufficiency, min(precision, recall), of each training image, from tensors of the loss. The criterion uses it."""

from typing import Any

import torch
from torch import Tensor, nn

PLACES = 100  # most confident anchors per image that count as predictions
CONFIDENCE = 0.25  # the host's threshold for prediction
OVERLAP = 0.5  # lowest IoU of a hit


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (B, P, M) of xyxy boxes (B, P, 4) and (B, M, 4)."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    return common / (area_a[:, :, None] + area_b[:, None] - common + 1e-9)


def sufficiency(scores: Tensor, boxes: Tensor, classes: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Return min(precision, recall) of each image, (B,) float32 in [0, 1] (AFSS, arXiv 2603.17684, section 3).

    Predictions are the anchors above the confidence threshold, at most `PLACES`. There is no non-maximum suppression,
    so several hits on one object all count. A hit has the object's class and an IoU of at least 0.5. Without objects
    recall is 1. Without predictions precision is 1 if there are no objects, else 0.

    Args:
        scores: (B, A, C) class probabilities.
        boxes: (B, A, 4) predicted boxes, xyxy.
        classes: (B, M, 1) or (B, M) class of each object.
        targets: (B, M, 4) boxes of the objects, in the units of `boxes`.
        valid: (B, M, 1) or (B, M), False for padding.
    """
    images = len(scores)
    best, label = scores.detach().float().max(-1)
    confidence, place = best.topk(min(PLACES, best.shape[1]), dim=1)
    predicted = confidence > CONFIDENCE
    objects = valid.reshape(images, -1).bool()
    box = boxes.detach().float().gather(1, place[..., None].expand(-1, -1, 4))
    same = label.gather(1, place)[:, :, None] == classes.reshape(images, 1, -1)
    hit = (overlaps(box, targets.float()) >= OVERLAP) & same & predicted[:, :, None] & objects[:, None]
    made, there = predicted.sum(1), objects.sum(1)
    precision = torch.where(made > 0, hit.any(2).sum(1) / made.clamp(min=1), (there == 0).float())
    recall = torch.where(there > 0, hit.any(1).sum(1) / there.clamp(min=1), 1.0) if hit.shape[2] else there + 1.0
    return torch.minimum(precision, recall)


class SufficiencyTap:
    """Computes `sufficiency` (B,) at each call of a task-aligned assigner, by a forward hook.

    The arguments of `TaskAlignedAssigner` (ultralytics 8.4) suffice: probabilities, decoded boxes and objects.
    """

    def __init__(self, assigner: nn.Module):
        self.value: Tensor | None = None
        assigner.register_forward_hook(self._read)

    def _read(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        scores, boxes, _, classes, targets, valid = args[:6]
        if boxes.shape[-1] != 4:  # rotated boxes need a different IoU
            return
        with torch.no_grad():
            self.value = sufficiency(scores, boxes, classes, targets, valid)

    def take(self) -> Tensor | None:
        """Return the last value and clear it; None if there is none."""
        value, self.value = self.value, None
        return value
