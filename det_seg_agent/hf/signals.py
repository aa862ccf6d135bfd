"""Signals of samples from the logits of the host's forward, by kind of model. `hf.tap` uses them.

Each function returns what the stock loss is made of as well: the sum of its terms for each sample, and their number.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from det_seg_agent.pixels import image_signals

IGNORED = -100  # the label of tokens that do not count, in all of transformers
ROWS = 2**22  # logits that are read at a time


@dataclass(frozen=True)
class BatchSignals:
    """Signals of B samples.

    Attributes:
        loss, entropy, sufficiency, agreement: (B,) float32, see `Selector.observe`. NaN for a sample without labels.
        expected: (B,) float32, entropy in nats, see `Signals.expected_loss`.
        counts: (3, classes) right, predicted and labelled, by class; None where there are too many, as in a vocabulary.
    """

    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    agreement: Tensor
    expected: Tensor
    counts: Tensor | None = None


def of_classes(logits: Tensor, labels: Tensor) -> BatchSignals:
    """Return the signals of classified samples.

    The loss is the cross-entropy, the entropy that of the softmax over ln(C), the agreement the label's probability;
    the sufficiency is 1 where the class is right, which is both its precision and its recall.

    Args:
        logits: (B, C), of any float dtype.
        labels: (B,) int64.
    """
    classes = logits.shape[1]
    log_p = logits.float().log_softmax(1)
    p = log_p.exp()
    guess, ones = logits.argmax(1), torch.ones(len(labels), device=logits.device)
    right = (guess == labels).float()
    loss = -log_p.gather(1, labels[:, None])[:, 0]
    counts = torch.zeros(3, classes, device=logits.device)
    counts[0].scatter_add_(0, labels, right)
    counts[1].scatter_add_(0, guess, ones)
    counts[2].scatter_add_(0, labels, ones)
    entropy = -(p * log_p).sum(1)
    return BatchSignals(loss, entropy / math.log(classes), right, (-loss).exp(), entropy, counts)


def of_tokens(logits: Tensor, labels: Tensor) -> BatchSignals:
    """Return the signals of texts, whose prompts and padding are labelled -100.

    Loss and entropy are means over the labelled tokens, the entropy over ln(V). The agreement is the geometric mean of
    the labels' probabilities; the sufficiency is the share of the tokens that are predicted.

    Args:
        logits: (B, T, V), of any float dtype; those at t predict the token t + 1.
        labels: (B, T) int64.
    """
    batch, length, words = logits.shape
    target = shifted(labels)
    valid = target != IGNORED
    loss, entropy, right = torch.zeros(3, batch, length, device=logits.device).unbind()
    step = max(1, ROWS // (batch * words))
    for start in range(0, length, step):  # in parts: a float32 copy of all logits is large
        part = slice(start, start + step)
        rows = logits[:, part].float()
        top = rows.amax(2, keepdim=True)
        below = rows - top
        share = below.exp()
        total = share.sum(2)
        chosen = below.gather(2, target[:, part].clamp(min=0)[..., None])[..., 0]
        log = total.log()
        loss[:, part] = log - chosen
        entropy[:, part] = log - share.mul_(below).sum(2) / total
        right[:, part] = (chosen == 0).float()
    count = valid.sum(1)
    loss, entropy, right = ((each * valid).sum(1) / count for each in (loss, entropy, right))  # 0 / 0 = NaN
    return BatchSignals(loss, entropy / math.log(words), right, (-loss).exp(), entropy)


def of_pixels(logits: Tensor, labels: Tensor, ignore_index: int) -> BatchSignals:
    """Return the signals of segmented images, from logits (B, C, h, w) before up-sampling; see `pixels`."""
    found = image_signals(logits, labels, ignore_index)
    return BatchSignals(found.loss, found.entropy, found.sufficiency, found.agreement, found.expected, found.counts)


def shifted(labels: Tensor) -> Tensor:
    """Return labels (B, T) of the token that follows each, as the host's loss shifts them."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def terms(kind: str, logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the sum of the terms of the stock loss for each sample, (B,) with gradient, and their number (B,).

    Args:
        kind: 'classes', 'tokens' or 'pixels'.
        logits: those that the stock loss takes: of pixels, after up-sampling.
        labels: the batch's labels.
        ignore_index: label that does not count.
    """
    logits = logits.float()
    if kind == "classes":
        loss = F.cross_entropy(logits, labels, reduction="none")
        return loss, torch.ones_like(loss)
    if kind == "tokens":
        labels = shifted(labels)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=ignore_index, reduction="none")
        return loss.view(labels.shape).sum(1), (labels != ignore_index).sum(1)
    if logits.shape[2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    return loss.sum((1, 2)), (labels != ignore_index).sum((1, 2))
