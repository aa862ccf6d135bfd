"""The keypoint losses of `v8PoseLoss` and `PoseLoss26` by image (ultralytics 8.4.190, `utils/loss.py`)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils.loss import KeypointLoss, RLELoss

from det_seg_agent.det.losses.base import BatchState


class ImageKeypoints(KeypointLoss):
    """`KeypointLoss`, a mean over the keypoints of all assigned anchors."""

    def __init__(self, stock: KeypointLoss, state: BatchState):
        super().__init__(stock.sigmas)
        self.state = state

    def forward(self, pred_kpts: Tensor, gt_kpts: Tensor, kpt_mask: Tensor, area: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        d = (pred_kpts[..., 0] - gt_kpts[..., 0]).pow(2) + (pred_kpts[..., 1] - gt_kpts[..., 1]).pow(2)
        factor = kpt_mask.shape[1] / (torch.sum(kpt_mask != 0, dim=1) + 1e-9)
        e = d / ((2 * self.sigmas).pow(2) * (area + 1e-9) * 2)
        loss = factor.view(-1, 1) * ((1 - torch.exp(-e)) * kpt_mask)
        return self.state.take("keypoints", loss, loss.numel()).mean()


class ImageVisibility(nn.BCEWithLogitsLoss):
    """The loss of the keypoints' visibility, a mean over the keypoints of all assigned anchors."""

    def __init__(self, state: BatchState):
        super().__init__()
        self.state = state

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        loss = F.binary_cross_entropy_with_logits(input, target, reduction="none")
        loss = self.state.take("visibility", loss, loss.numel())
        # The mean of the plain losses rounds otherwise in its gradient.
        return super().forward(input, target) if self.state.weights is None else loss.mean()


class ImageRle(RLELoss):
    """`RLELoss`, a mean over the visible keypoints, clamped at zero by the caller.

    An image's part may be negative. If the mean is clamped, all parts are zero, as is the gradient. If the host drops
    keypoints that are not finite, the parts are NaN, as it is unknown which images they belong to.
    """

    def __init__(self, stock: Any, state: BatchState):
        super().__init__(stock.rle_loss.use_target_weight, stock.rle_loss.size_average, stock.rle_loss.residual)
        self.state, self.caller = state, stock.calculate_rle_loss
        self.visible: Tensor

    def call(self, pred_kpt: Tensor, gt_kpt: Tensor, kpt_mask: Tensor) -> Tensor:
        """Wrap `PoseLoss26.calculate_rle_loss` to record the visible keypoints `kpt_mask` (N, K) bool."""
        self.visible = kpt_mask
        return self.caller(pred_kpt, gt_kpt, kpt_mask)

    def forward(self, sigma: Tensor, log_phi: Tensor, error: Tensor, target_weight: Tensor) -> Tensor:  # type: ignore[override]
        """Return the loss, a scalar."""
        loss = torch.log(sigma) - log_phi.unsqueeze(1)
        loss = (loss + (torch.log(sigma * 2) + torch.abs(error))) * target_weight.unsqueeze(1) / len(loss)
        visible = self.visible.flatten()
        at = visible.int().argsort(descending=True, stable=True)[: len(loss)]  # `nonzero` would wait for the device
        total = self.state.take("rle", loss, 1, at // self.visible.shape[1]).sum()
        for parts in (self.state.parts, self.state.own):
            if "rle" in parts:
                kept = torch.where(total.detach() > 0, parts["rle"], 0.0)
                parts["rle"] = torch.where(visible.sum() == len(loss), kept, math.nan)
        return total
