"""The mask losses of `v8SegmentationLoss` by image (ultralytics 8.4.190, `utils/loss.py`)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.utils.loss import BCEDiceLoss

from det_seg_agent.det.losses.base import BatchState


class ImageMasks:
    """`v8SegmentationLoss.single_mask_loss`; the host calls it for each image with assigned anchors, in order."""

    def __init__(self, stock: Callable[..., Tensor], state: BatchState):
        self.stock, self.state = stock, state
        self.values: list[Tensor] = []
        self.weights: Tensor  # (B,) in the host's order

    def __call__(self, *args: Tensor) -> Tensor:
        """Return the loss of the next image, a scalar."""
        loss = self.stock(*args)
        if not self.values and self.state.weights is not None:
            self.weights = self.state.weights[self.state.in_order()]
        self.values.append(loss.detach().float())
        return loss if self.state.weights is None else loss * self.weights[len(self.values) - 1]

    def drain(self) -> None:
        """Record the parts of the batch."""
        if self.values:
            values = torch.stack(self.values)
            parts = values.new_zeros(self.state.images).index_copy(0, self.state.in_order()[: len(values)], values)
            self.state.parts["mask"] = parts / self.state.foreground.sum()
            self.values = []


class ImageBceDice(BCEDiceLoss):
    """`BCEDiceLoss`; images are equally large, so the batch's mean is the mean of the images' losses."""

    def __init__(self, stock: BCEDiceLoss, state: BatchState):
        super().__init__(stock.weight_bce, stock.weight_dice)
        self.dice.reduction = "none"
        self.state = state

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        if target.shape[-2:] != pred.shape[-2:]:
            target = F.interpolate(target, pred.shape[-2:], mode="nearest")
        dice = self.dice(pred, target)
        with torch.no_grad():
            bce = F.binary_cross_entropy_with_logits(pred, target, reduction="none").float().flatten(1).mean(1)
            self.state.parts["semantic"] = (self.weight_bce * bce + self.weight_dice * dice.float()) / len(dice)
        weights = self.state.weights
        if weights is None:
            return self.weight_bce * self.bce(pred, target) + self.weight_dice * dice.mean()
        bce = F.binary_cross_entropy_with_logits(pred, target, weights.view(-1, 1, 1, 1))
        return self.weight_bce * bce + self.weight_dice * (dice * weights).mean()
