"""Sufficiency, min(precision, recall), of each training image, from pixel counts. `seg.signals` uses it."""

import torch
from torch import Tensor


def pixel_counts(predicted: Tensor, label: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Count, by image and class, the valid pixels that are correct, predicted and labelled; (3, B, classes) float32.

    Args:
        predicted: (B, h, w) int64, predicted class of each pixel.
        label: (B, h, w) int64, true class of each pixel.
        valid: (B, h, w) bool; other pixels do not count.
        classes: number of classes.
    """
    counts = torch.zeros(3, len(label), classes, device=label.device)
    weight = valid.flatten(1).float()
    truth, guess = label.masked_fill(~valid, 0).flatten(1), predicted.flatten(1)
    counts[0].scatter_add_(1, truth, weight * (truth == guess))
    counts[1].scatter_add_(1, guess, weight)
    counts[2].scatter_add_(1, truth, weight)
    return counts


def sufficiency(counts: Tensor) -> Tensor:
    """Return min(precision, recall) of each image, both averaged over classes, (B,) float32 in [0, 1].

    AFSS (arXiv 2603.17684, section 3) defines it for boxes; we use pixels instead. Precision is averaged over the
    predicted classes, recall over the labelled ones.

    Args:
        counts: (3, B, classes) from `pixel_counts`; counts of parts of the images may be summed.
    """
    right, predicted, labelled = counts
    precision, recall = (
        (right / count.clamp(min=1)).sum(1) / (count > 0).sum(1).clamp(min=1) for count in (predicted, labelled)
    )
    return torch.minimum(precision, recall)
