"""The stock YOLO loss terms, extended to record each image's part. `splits.Dense` uses them.

The formulas are the host's (ultralytics 8.4.190, `utils/loss.py`). In addition each term is summed by image, and
images may be weighted. Parts are detached and stay on the device. There are no device synchronisations besides the
host's own (for the indices of the assigned anchors, and for the images that have any).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils.loss import BboxLoss, BCEDiceLoss, KeypointLoss, RLELoss
from ultralytics.utils.metrics import bbox_iou, probiou
from ultralytics.utils.tal import bbox2dist, rbox2dist


class BatchState:
    """State of a batch of B images that the terms of one loss share.

    Attributes:
        images: B.
        weights: (B,) float32, loss weights of the images, or None.
        foreground: (B, A) bool, the assigned anchors.
        rows: (N,) int64, image of each assigned anchor, in the order of `foreground`.
        normaliser: `target_scores_sum`, by which the host divides.
        parts: maps a loss item to (B,) float32, each image's part of it, unweighted and without the host's gain.
    """

    weights: Tensor | None
    foreground: Tensor
    rows: Tensor
    normaliser: Any

    def begin(self, images: int, weights: Tensor | None) -> None:
        """Reset for a batch of `images` images with loss weights (B,) or None."""
        self.images, self.weights, self.normaliser = images, weights, 1
        self.parts: dict[str, Tensor] = {}

    def take(self, name: str, values: Tensor, rows: Tensor, divisor: Any) -> Tensor:
        """Record the parts of item `name`, and return the values (N, ...), weighted if images are weighted."""
        own = values.detach().float()
        own = own.flatten(1).sum(1) if own.dim() > 1 else own
        self.parts[name] = own.new_zeros(self.images).index_add(0, rows, own) / divisor
        if self.weights is None:
            return values
        return values * self.weights[rows].view(-1, *[1] * (values.dim() - 1))

    def in_order(self) -> Tensor:
        """Return (B,) int64: the images with assigned anchors in ascending order, then the others."""
        return self.foreground.any(1).int().argsort(descending=True, stable=True)


class ImageBce(nn.BCEWithLogitsLoss):
    """Element-wise class loss (B, A, nc), multiplied by the images' weights if there are any.

    Attributes:
        cls: (B,) float32, sum for each image, with class weights but without image weights.
    """

    class_weights: Tensor | None = None
    cls: Tensor

    def __init__(self, state: BatchState):
        super().__init__(reduction="none")
        self.state = state

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the stock tensor, weighted if images are weighted."""
        out: Tensor = super().forward(input, target)
        # Sum here, as the host then multiplies the result by its class weights in place.
        scores = out.detach().float()
        self.cls = (scores if self.class_weights is None else scores * self.class_weights).sum((1, 2))
        self.state.foreground = torch.zeros_like(target[..., 0], dtype=torch.bool)  # until the box loss sets it
        return out if self.state.weights is None else out * self.state.weights.view(-1, 1, 1)


class ImageBboxLoss(BboxLoss):
    """`BboxLoss`: (1 - CIoU) and DFL (arXiv 2006.04388) or L1 per assigned anchor, times its target score."""

    def __init__(self, reg_max: int, state: BatchState):
        super().__init__(reg_max)
        self.state = state

    def overlap(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the CIoU (N, 1)."""
        return bbox_iou(pred, target, xywh=False, CIoU=True)

    def distances(self, anchors: Tensor, target: Tensor, reg_max: int | None) -> Tensor:
        """Return the distances (B, A, 4) from anchors to box sides."""
        return bbox2dist(anchors, target, reg_max)

    def forward(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Any,
        fg_mask: Tensor,
        imgsz: Tensor,
        stride: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the box loss and the DFL or L1 loss, both scalars."""
        state, at = self.state, fg_mask.nonzero(as_tuple=True)
        state.foreground, state.rows, state.normaliser = fg_mask, at[0], target_scores_sum
        score = target_scores[at].sum(-1, keepdim=True)
        box = (1.0 - self.overlap(pred_bboxes[at], target_bboxes[at])) * score
        if self.dfl_loss:
            bins = self.dfl_loss.reg_max
            target = self.distances(anchor_points, target_bboxes, bins - 1)
            distance = self.dfl_loss(pred_dist[at].view(-1, bins), target[at]) * score
        else:
            size = torch.stack([imgsz[1], imgsz[0]]).repeat(2)
            target = self.distances(anchor_points, target_bboxes, None) * stride / size
            pred = (pred_dist * stride)[at] / size
            distance = F.l1_loss(pred, target[at], reduction="none").mean(-1, keepdim=True) * score
        box = state.take("box", box, at[0], target_scores_sum)
        distance = state.take("distance", distance, at[0], target_scores_sum)
        return box.sum() / target_scores_sum, distance.sum() / target_scores_sum


class ImageRotatedBboxLoss(ImageBboxLoss):
    """`RotatedBboxLoss`: (1 - ProbIoU) and DFL or L1."""

    floor = 0.01  # the host's value

    def overlap(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the ProbIoU (N, 1)."""
        return probiou(pred, target, floor=self.floor)

    def distances(self, anchors: Tensor, target: Tensor, reg_max: int | None) -> Tensor:
        """Return the distances (B, A, 4) from anchors to box sides."""
        return rbox2dist(target[..., :4], anchors, target[..., 4:5], reg_max=reg_max)


class ImageAngles:
    """Replacement of `v8OBBLoss.calculate_angle_loss`."""

    def __init__(self, state: BatchState):
        self.state = state

    def __call__(
        self, pred: Tensor, target: Tensor, fg_mask: Tensor, weight: Tensor, normaliser: Any, lambda_val: int = 3
    ) -> Tensor:
        """Return the loss, a scalar; the arguments are the host's."""
        pred, target = pred[fg_mask], target[fg_mask]
        log_ratio = torch.log((target[:, 2] + 1e-9) / (target[:, 3] + 1e-9))
        delta = pred[:, 4] - target[:, 4]
        wrapped = delta - torch.round(delta / math.pi) * math.pi
        angle = torch.exp(-(log_ratio**2) / (lambda_val**2)) * torch.sin(2 * wrapped) ** 2 * weight
        return self.state.take("angle", angle, self.state.rows, normaliser).sum() / normaliser


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
        return self.state.take("keypoints", loss, self.state.rows, loss.numel()).mean()


class ImageVisibility(nn.BCEWithLogitsLoss):
    """The loss of the keypoints' visibility, a mean over the keypoints of all assigned anchors."""

    def __init__(self, state: BatchState):
        super().__init__()
        self.state = state

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        loss = F.binary_cross_entropy_with_logits(input, target, reduction="none")
        loss = self.state.take("visibility", loss, self.state.rows, loss.numel())
        # Call the stock loss if possible: a mean over element-wise losses rounds differently in the gradient.
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
        at = visible.int().argsort(descending=True, stable=True)[: len(loss)]  # `nonzero` would synchronise
        total = self.state.take("rle", loss, self.state.rows[at // self.visible.shape[1]], 1).sum()
        parts = torch.where(total.detach() > 0, self.state.parts["rle"], 0.0)
        self.state.parts["rle"] = torch.where(visible.sum() == len(loss), parts, math.nan)
        return total
