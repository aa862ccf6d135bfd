"""The terms of the semantic task's loss, which also keep every image's part of it.

Cross-entropy is a sum over pixels, divided by the valid ones in the batch. Dice is made of sums over the batch, I and C
for intersection and cardinality, and 1 - (2 I + 1) / (C + 1) = (C - 2 I) / (C + 1): an image's part is its own C - 2 I,
the pixels' distance |p - t|, over the batch's C + 1. The formulas are the host's (ultralytics 8.4.190).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = 255


class PixelTerms:
    """Replaces the terms of a `SemanticSegmentationLoss`.

    Attributes:
        ce: (B,) float32 tensors, each image's part of the main head's cross-entropy, and of the auxiliary one's.
        dice: (B,) float32, each image's part of the Dice loss.
    """

    dice: Tensor

    def __init__(self, stock: Any):
        self.stock, self.dice_loss = stock, stock._dice_loss
        stock._ce_loss, stock._dice_loss = self._ce_loss, self._dice_loss

    def begin(self, weights: Tensor | None) -> None:
        """Forget the last batch."""
        self.weights = weights
        self.ce: list[Tensor] = []

    def parts(self) -> Tensor:
        """Return (B, 3) float32: each image's part of the cross-entropy, Dice and auxiliary losses."""
        auxiliary = self.ce[1] * 0.4 if len(self.ce) > 1 else torch.zeros_like(self.dice)
        return torch.stack([self.ce[0], self.dice, auxiliary], 1)

    def _ce_loss(self, preds: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        flat = masks.reshape(-1).long()
        log_p = None
        if self.stock.nc == 1:
            target = flat.float() * valid
            pixels = F.binary_cross_entropy_with_logits(preds.reshape(-1), target, reduction="none") * valid
            loss, denominator = pixels[valid].sum(), valid.sum()
            p = preds.detach().float().sigmoid().reshape(-1, 1)
        else:
            weight = self.stock.ce.weight
            log_p = F.log_softmax(preds.permute(0, 2, 3, 1).reshape(-1, self.stock.nc), 1)  # once, for all terms
            pixels = F.nll_loss(log_p, flat, weight, ignore_index=IGNORED, reduction="none")
            loss = F.nll_loss(log_p, flat, weight, ignore_index=IGNORED, reduction="sum")
            denominator = valid.sum() if weight is None else weight[flat[valid]].sum()
            p = log_p.detach().float().exp()
        denominator = denominator.clamp_min(1)
        if not self.ce:
            distance, cardinality = self._distance(p, masks, valid)
            self.dice = (distance / (cardinality + 1)).mean(1)
        self.ce.append(pixels.detach().float().view(len(masks), -1).sum(1) / denominator)
        if self.weights is not None:
            loss = (pixels.view(len(masks), -1).sum(1) * self.weights).sum()
        return loss / denominator

    def _distance(self, p: Tensor, masks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return C - 2 I by image and class (B, nc), and the batch's C (nc,), of probabilities (B h w, nc)."""
        images, nc = len(masks), self.stock.nc
        flat = masks.reshape(-1).long()
        shown = valid.float()
        of_image = torch.arange(images, device=p.device).repeat_interleave(flat.numel() // images)
        if nc == 1:
            own, marked = p[:, 0], (flat == 1).float() * shown
            place = of_image
        else:
            target = flat.masked_fill(~valid, 0)
            own, marked = p.gather(1, target[:, None])[:, 0], shown
            place = of_image * nc + target
        none = p.new_zeros(images * nc)
        count = none.index_add(0, place, marked).view(images, nc)
        intersection = none.index_add(0, place, own * marked).view(images, nc)
        cardinality = (p * shown[:, None]).view(images, -1, nc).sum(1) + count
        return cardinality - 2 * intersection, cardinality.sum(0)

    def _dice_loss(self, preds: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        if self.weights is None:
            return self.dice_loss(preds, masks, valid)
        p = preds.float().sigmoid() if self.stock.nc == 1 else preds.float().softmax(1)
        p = p.permute(0, 2, 3, 1).reshape(-1, self.stock.nc)
        distance, cardinality = self._distance(p, masks, valid)
        return ((distance * self.weights[:, None]).sum(0) / (cardinality + 1)).mean()
