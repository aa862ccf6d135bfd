"""The semantic task's loss terms, extended to record each image's part. `Semantic` uses them.

Cross-entropy is a sum over pixels, divided by the number of valid pixels in the batch. Dice consists of sums over the
batch, intersection I and cardinality C: 1 - (2 I + 1) / (C + 1) = (C - 2 I) / (C + 1). An image's part is its own
C - 2 I, the pixels' distance |p - t|, divided by the batch's C + 1. The formulas are the host's (ultralytics 8.4.190).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from det_seg_agent.det.losses.base import OfLabels, Split
from det_seg_agent.pixels import ImageSignals, image_signals

IGNORED = 255


class Semantic(Split):
    """Split of `SemanticSegmentationLoss`."""

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.terms = PixelTerms(stock)
        self.found: ImageSignals | None = None  # of the batch

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.terms.begin(weights)
        self.found = None

    def parts(self) -> Tensor:
        """See `Split`."""
        return self.terms.parts()

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; mean over valid pixels, at the head's resolution, of the softmax's divided by ln(classes)."""
        return self._signals(preds, batch).entropy

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """See `Split`; over valid pixels, at the head's resolution."""
        found = self._signals(preds, batch)
        return OfLabels(found.agreement, found.agreement, found.loss, found.expected).take(image)

    def _signals(self, preds: Any, batch: dict[str, Any]) -> ImageSignals:
        """Return the signals of the batch from the logits of the main head; computed once."""
        if self.found is None:
            logits = preds[0] if isinstance(preds, tuple) else preds
            self.found = image_signals(logits, batch["semantic_mask"].to(logits.device), IGNORED)
        return self.found


class PixelTerms:
    """Replaces the terms of a `SemanticSegmentationLoss`.

    Attributes:
        ce: (B,) float32 tensors, each image's part of the cross-entropy of the main head, then of the auxiliary one.
        dice: (B,) float32, each image's part of the Dice loss.
    """

    dice: Tensor

    def __init__(self, stock: Any):
        self.stock, self.ce_loss, self.dice_loss = stock, stock._ce_loss, stock._dice_loss
        stock._ce_loss, stock._dice_loss = self._ce_loss, self._dice_loss

    def begin(self, weights: Tensor | None) -> None:
        """Reset for a batch with loss weights (B,) or None."""
        self.weights = weights
        self.ce: list[Tensor] = []

    def parts(self) -> Tensor:
        """Return (B, 3) float32: each image's part of the cross-entropy, Dice and auxiliary losses."""
        auxiliary = self.ce[1] * 0.4 if len(self.ce) > 1 else torch.zeros_like(self.dice)
        return torch.stack([self.ce[0], self.dice, auxiliary], 1)

    def _ce_loss(self, preds: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        flat, shown = masks.reshape(-1).long(), valid.float()
        weight = None if self.stock.nc == 1 else self.stock.ce.weight
        denominator = (shown if weight is None else weight[flat.masked_fill(~valid, 0)] * shown).sum().clamp_min(1)
        weighted = self.weights is not None
        with (
            torch.set_grad_enabled(weighted and torch.is_grad_enabled()),
            torch.autocast(preds.device.type, enabled=False),
        ):
            # One image at a time to save memory: maps are as large as images, and the host's loss holds several.
            terms = [self._terms(logits.float(), mask, not self.ce) for logits, mask in zip(preds, masks)]
            ce, distance, cardinality = (torch.stack(column) for column in zip(*terms))
            ce = ce / denominator
            if not self.ce:  # the auxiliary head's call comes second
                dice = (distance / (cardinality.sum(0) + 1)).mean(1)
                self.dice = dice.detach()
                self.weighted_dice = None if self.weights is None else (dice * self.weights).sum()
        self.ce.append(ce.detach())
        return self.ce_loss(preds, masks, valid) if self.weights is None else (ce * self.weights).sum()

    def _dice_loss(self, preds: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        return self.dice_loss(preds, masks, valid) if self.weighted_dice is None else self.weighted_dice

    def _terms(self, logits: Tensor, mask: Tensor, dice: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed cross-entropy, C - 2 I (nc,) and C (nc,) of one image.

        Args:
            logits: (nc, h, w) float32.
            mask: (h, w), class of each pixel, or `IGNORED`.
            dice: whether to compute the latter two; otherwise they are zero.
        """
        nc = self.stock.nc
        logits, flat = logits.reshape(nc, -1), mask.reshape(-1).long()
        shown = (flat != IGNORED).float()
        target = flat.masked_fill(flat == IGNORED, 0)
        none = logits.new_zeros(nc)
        if nc == 1:
            ce = F.binary_cross_entropy_with_logits(logits[0], target.float(), reduction="none") * shown
            p, place, marked = logits.sigmoid(), torch.zeros_like(target), (flat == 1).float()
        else:
            log_p = logits.log_softmax(0)
            ce = -log_p.gather(0, target[None])[0] * shown
            if self.stock.ce.weight is not None:
                ce = ce * self.stock.ce.weight[target]
            if dice:
                p, place, marked = log_p.exp(), target, shown
        if not dice:
            return ce.sum(), none, none
        intersection = none.index_add(0, place, p.gather(0, place[None])[0] * marked)
        cardinality = (p * shown).sum(1) + none.index_add(0, place, marked)
        return ce.sum(), cardinality - 2 * intersection, cardinality
