"""How well a segmentor does on each training image."""

import torch
from torch import Tensor


def pixel_counts(predicted: Tensor, label: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Return, by image and class, the valid pixels that are right, predicted and labelled, (3, B, classes) float32.

    Args:
        predicted: (B, h, w) int64, class of each pixel.
        label: (B, h, w) int64.
        valid: (B, h, w) bool; what lies outside does not count.
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

    AFSS (arXiv 2603.17684, section 3) defines it for boxes; here pixels are what is found. Precision counts the classes
    that are predicted, recall those that are there.

    Args:
        counts: (3, B, classes) of `pixel_counts`; those of parts of the images may be added up.
    """
    right, predicted, labelled = counts
    precision, recall = (
        (right / count.clamp(min=1)).sum(1) / (count > 0).sum(1).clamp(min=1) for count in (predicted, labelled)
    )
    return torch.minimum(precision, recall)
