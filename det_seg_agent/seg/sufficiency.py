"""How well a segmentor does on each training image."""

import torch
from torch import Tensor


def sufficiency(predicted: Tensor, label: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Return min(precision, recall) of each image, both averaged over classes, (B,) float32 in [0, 1].

    AFSS (arXiv 2603.17684, section 3) defines it for boxes; here pixels are what is found. Precision counts the classes
    that are predicted, recall those that are there, over valid pixels.

    Args:
        predicted: (B, h, w) int64, class of each pixel.
        label: (B, h, w) int64.
        valid: (B, h, w) bool.
        classes: number of classes.
    """
    images = len(label)
    weight = valid.flatten(1).float()
    zero = torch.zeros(images, classes, device=label.device)
    truth = label.masked_fill(~valid, 0).flatten(1)
    guess = predicted.flatten(1)
    hit = zero.scatter_add(1, truth, weight * (truth == guess))
    made, there = zero.scatter_add(1, guess, weight), zero.scatter_add(1, truth, weight)
    precision, recall = ((hit / count.clamp(min=1)).sum(1) / (count > 0).sum(1).clamp(min=1) for count in (made, there))
    return torch.minimum(precision, recall)
