"""Signals of images from the logits of their pixels. The adapters of segmentation use them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(size: int, wanted: int, device: torch.device) -> Tensor:
    """Return (wanted,) int64: for each of `wanted` output pixels, the nearest of `size` input pixels."""
    places = torch.arange(size, dtype=torch.float32, device=device)
    return F.interpolate(places[None, None], size=wanted, mode="nearest-exact")[0, 0].long()


def resized(labels: Sequence[Tensor] | Tensor, size: torch.Size) -> Tensor:
    """Resize B labels (H, W) to `size` (h, w) by nearest neighbour; return (B, h, w) int32."""
    device = labels[0].device
    rows, columns = (nearest(n, m, device) for n, m in zip(labels[0].shape, size, strict=True))
    result = torch.empty(len(labels), *size, dtype=torch.int32, device=device)
    for place, label in zip(result, labels, strict=True):
        place.copy_(label[rows[:, None], columns])
    return result


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


@dataclass(frozen=True)
class ImageSignals:
    """Signals of B images, and what is counted by class.

    Attributes:
        loss, entropy, sufficiency, agreement: (B,) float32, see `Signals`. Loss, entropy and agreement are NaN for an
            image without valid pixels.
        expected: (B,) float32, entropy in nats, see `Signals.expected_loss`.
        counts: (3, classes) float32: right, predicted and labelled pixels of each class.
    """

    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    agreement: Tensor
    expected: Tensor
    counts: Tensor


def image_signals(logits: Tensor, labels: Sequence[Tensor] | Tensor, ignore_index: int) -> ImageSignals:
    """Return the signals of images, from logits and labels.

    The loss is the mean cross-entropy over valid pixels; the entropy is their mean entropy divided by ln(classes); the
    agreement is the geometric mean of the label's probability over a class's pixels, averaged over the labelled
    classes: by pixels, a large background would hide a small object's label.
    Rows are processed in parts, which needs less memory than one float32 copy of the logits.

    Args:
        logits: (B, C, h, w) logits of the decode head, before up-sampling, of any float dtype; C = 1 means sigmoid.
        labels: B labels (H, W) int64, resized to the logits by nearest neighbour.
        ignore_index: label that does not count.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        logits = logits.detach()
        parts = 6 + 20 // logits.shape[1]  # each takes about three copies of its logits and 15 values a pixel
        step = -(-logits.shape[2] // parts)
        label = resized(labels, logits.shape[2:])
        read = [_sums(*part, ignore_index) for part in zip(logits.split(step, 2), label.split(step, 1), strict=True)]
        sums, counts, by_class = (sum(column) for column in zip(*read, strict=True))
        loss, entropy, valid = sums  # 0 / 0 = NaN without valid pixels
        there = counts[2] > 0
        share = torch.exp(-by_class / counts[2].clamp(min=1)) * there
        agreement = share.sum(1) / there.sum(1)
        nats = entropy / valid * math.log(max(logits.shape[1], 2))
        return ImageSignals(loss / valid, entropy / valid, sufficiency(counts), agreement, nats, counts.sum(1))


def _sums(logits: Tensor, label: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums over the valid pixels of some rows.

    Returns:
        (3, B) loss, entropy and pixels; their `pixel_counts`; and (B, classes), the loss by labelled class.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    classes, label = logits.shape[1], label.long()
    valid = label != ignore_index
    top, guess = logits.max(1, keepdim=True)
    below = logits.float() - top.float()
    share = below.exp()
    total = share.sum(1)
    truth = label.masked_fill(~valid, 0)
    chosen = below.gather(1, truth[:, None])[:, 0]
    loss = total.log() - chosen
    entropy = (total.log() - share.mul_(below).sum(1) / total) / math.log(classes)
    sums = torch.stack([(each * valid).sum((1, 2)) for each in (loss, entropy, valid.float())])
    by_class = torch.zeros(len(label), classes, device=label.device)
    by_class.scatter_add_(1, truth.flatten(1), (loss * valid).flatten(1))
    return sums, pixel_counts(guess[:, 0], label, valid, classes), by_class
