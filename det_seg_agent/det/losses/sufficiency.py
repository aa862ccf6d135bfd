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


def sufficiency(
    scores: Tensor, boxes: Tensor, classes: Tensor, targets: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Return min(precision, recall) of each image (AFSS, arXiv 2603.17684, section 3), and counts by class.

    Predictions are the anchors above the confidence threshold, at most `PLACES`. There is no non-maximum suppression,
    so several hits on one object all count. A hit has the object's class and an IoU of at least 0.5. Without objects
    recall is 1. Without predictions precision is 1 if there are no objects, else 0.

    Args:
        scores: (B, A, C) class probabilities.
        boxes: (B, A, 4) predicted boxes, xyxy.
        classes: (B, M, 1) or (B, M) class of each object.
        targets: (B, M, 4) boxes of the objects, in the units of `boxes`.
        valid: (B, M, 1) or (B, M), False for padding.

    Returns:
        (B,) float32 in [0, 1]; and (3, C) float32: by class, the objects with a hit, those and the predictions without
        a hit, and all objects.
    """
    images = len(scores)
    best, label = scores.detach().float().max(-1)
    confidence, place = best.topk(min(PLACES, best.shape[1]), dim=1)
    predicted = confidence > CONFIDENCE
    objects = valid.reshape(images, -1).bool()
    wanted = classes.reshape(images, -1).long()
    box = boxes.detach().float().gather(1, place[..., None].expand(-1, -1, 4))
    label = label.gather(1, place)
    same = label[:, :, None] == wanted[:, None]
    hit = (overlaps(box, targets.float()) >= OVERLAP) & same & predicted[:, :, None] & objects[:, None]
    made, there = predicted.sum(1), objects.sum(1)
    hits = hit.any(2) if hit.shape[2] else torch.zeros_like(predicted)
    found = hit.any(1) if hit.shape[2] else objects
    precision = torch.where(made > 0, hits.sum(1) / made.clamp(min=1), (there == 0).float())
    recall = torch.where(there > 0, found.sum(1) / there.clamp(min=1), 1.0)
    counts = torch.zeros(3, scores.shape[2], device=scores.device)
    counts[0].index_add_(0, wanted.flatten(), found.flatten().float())
    counts[1] = counts[0]
    counts[1].index_add_(0, label.flatten(), (predicted & ~hits).flatten().float())
    counts[2].index_add_(0, wanted.flatten(), objects.flatten().float())
    return torch.minimum(precision, recall), counts


class SufficiencyTap:
    """Computes `sufficiency` and its counts at each call of a task-aligned assigner, by a forward hook.

    The arguments of `TaskAlignedAssigner` (ultralytics 8.4) suffice: probabilities, decoded boxes and objects.
    """

    def __init__(self, assigner: nn.Module):
        self.last: tuple[Tensor, Tensor] | None = None
        assigner.register_forward_hook(self._read)

    def _read(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        scores, boxes, _, classes, targets, valid = args[:6]
        if boxes.shape[-1] != 4:  # rotated boxes need a different IoU
            return
        with torch.no_grad():
            self.last = sufficiency(scores, boxes, classes, targets, valid)

    def take(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return what the last call gave, and forget it; two None if there was none."""
        last, self.last = self.last, None
        return last or (None, None)
