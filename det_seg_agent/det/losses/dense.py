"""`v8DetectionLoss` and what is derived from it, by image: class, box, DFL or L1, and angle losses.

The formulas are the host's (ultralytics 8.4.190, `utils/loss.py`). Each term also sums its values by image, and weights
objects and images where the batch has weights. The sums are detached and stay on the device: no synchronisation.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils.loss import BboxLoss, v8OBBLoss, v8PoseLoss, v8SegmentationLoss
from ultralytics.utils.metrics import bbox_iou, probiou
from ultralytics.utils.tal import bbox2dist

from det_seg_agent.det.compat import gives_parts_of_output, loss_names, scores_of
from det_seg_agent.det.losses.base import BatchState, OfLabels, Split, entropy_of, pooled

# Loss item of the host -> the part that it is the sum of, and the host's gain.
ITEMS = {
    "box_loss": ("box", "box"),
    "seg_loss": ("mask", "box"),
    "pose_loss": ("keypoints", "pose"),
    "kobj_loss": ("visibility", "kobj"),
    "dfl_loss": ("distance", "dfl"),
    "l1_loss": ("distance", "dfl"),
    "sem_loss": ("semantic", "box"),
    "rle_loss": ("rle", "rle"),
    "angle_loss": ("angle", "angle"),
}


class Dense(Split):
    """Split of `v8DetectionLoss` and its subclasses."""

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.sees_features = gives_parts_of_output(stock)
        self.scored = stock
        self.state = state = BatchState()
        stock.assigner.register_forward_hook(state.assigned)
        self.bce = stock.bce = ImageBce(state)
        box = ImageRotatedBboxLoss if isinstance(stock, v8OBBLoss) else ImageBboxLoss
        stock.bbox_loss = box(stock.reg_max, state).to(stock.device)
        self.masks: Any = None
        if isinstance(stock, v8OBBLoss):
            stock.calculate_angle_loss = ImageAngles(state)
        if isinstance(stock, v8SegmentationLoss):
            from det_seg_agent.det.losses.segment import ImageBceDice, ImageMasks

            self.masks = stock.single_mask_loss = ImageMasks(stock.single_mask_loss, state)
            stock.bcedice_loss = ImageBceDice(stock.bcedice_loss, state)
        if isinstance(stock, v8PoseLoss):
            from det_seg_agent.det.losses.pose import ImageKeypoints, ImageRle, ImageVisibility

            stock.keypoint_loss = ImageKeypoints(stock.keypoint_loss, state)
            stock.bce_pose = ImageVisibility(state)
            if getattr(stock, "rle_loss", None) is not None:
                stock.rle_loss = rle = ImageRle(stock, state)
                stock.calculate_rle_loss = rle.call

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.state.begin(batch, weights)
        self.bce.class_weights = getattr(self.stock, "class_weights", None)
        if self.masks is not None:
            self.masks.values = []

    def parts(self) -> Tensor:
        """See `Split`."""
        if self.masks is not None:
            self.masks.drain()
        return self._items(self.state.parts, self.bce.cls)

    def objects(self) -> Tensor | None:
        """See `Split`; masks are not among them."""
        own = self.state.own
        return self._items(own, own["class"]).sum(1) if "class" in own else None

    def _items(self, parts: dict[str, Tensor], cls: Tensor) -> Tensor:
        """Return the loss items (n, K) in the host's order, with its gains."""
        state, hyp = self.state, self.stock.hyp
        none, columns = torch.zeros_like(cls), []
        for name in loss_names(self.stock):
            if name == "cls_loss":
                columns.append(cls / state.normaliser * hyp.cls)
            else:
                part, gain = ITEMS[name]
                columns.append(parts.get(part, none) * getattr(hyp, gain))
        return torch.stack(columns, 1)

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """See `Split`."""
        return self.state.of_labels(scores_of(self.stock, preds), image)

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; binary entropy of the best class."""
        return entropy_of(scores_of(self.stock, preds), self.state.foreground)

    def features(self, preds: Any) -> Tensor:
        """See `Split`."""
        return pooled(self.stock.parse_output(preds)["feats"])


class ImageBce(nn.BCEWithLogitsLoss):
    """Element-wise class loss (B, A, nc), multiplied by the anchors' weights if there are any.

    Attributes:
        cls: (B,) float32, sum for each image, with class weights but without loss weights.
    """

    class_weights: Tensor | None = None
    cls: Tensor

    def __init__(self, state: BatchState):
        super().__init__(reduction="none")
        self.state = state

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the stock tensor, weighted if there are weights."""
        out: Tensor = super().forward(input, target)
        # Now, as the host goes on to multiply by its class weights in place.
        scores = out.detach().float()
        state = self.state
        state.anchors = (scores if self.class_weights is None else scores * self.class_weights).sum(2)
        self.cls = state.anchors.sum(1)
        if state.owner is not None:
            state.own["class"] = self.cls.new_zeros(state.credits)  # until there are boxes
        state.foreground = torch.zeros_like(target[..., 0], dtype=torch.bool)  # until there are boxes
        return out if state.anchor_weights is None else out * state.anchor_weights[..., None]


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
        imgsz: Tensor | None = None,
        stride: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the box loss and the DFL or L1 loss, both scalars."""
        state, at = self.state, fg_mask.nonzero(as_tuple=True)
        state.foreground, state.at, state.normaliser = fg_mask, at, target_scores_sum
        if state.owner is not None:
            # Of the assigned anchors alone, as deterministic sums over all of a batch are slow on CUDA.
            state.give("class", state.anchors[at], state.owner[at], 1)
        score = target_scores[at].sum(-1, keepdim=True)
        box = (1.0 - self.overlap(pred_bboxes[at], target_bboxes[at])) * score
        if self.dfl_loss:
            bins = self.dfl_loss.reg_max
            target = self.distances(anchor_points, target_bboxes, bins - 1)
            distance = self.dfl_loss(pred_dist[at].view(-1, bins), target[at]) * score
        else:
            assert imgsz is not None and stride is not None  # up to 8.3 no model lacks a DFL
            size = torch.stack([imgsz[1], imgsz[0]]).repeat(2)
            target = self.distances(anchor_points, target_bboxes, None) * stride / size
            pred = (pred_dist * stride)[at] / size
            distance = F.l1_loss(pred, target[at], reduction="none").mean(-1, keepdim=True) * score
        box = state.take("box", box, target_scores_sum)
        distance = state.take("distance", distance, target_scores_sum)
        return box.sum() / target_scores_sum, distance.sum() / target_scores_sum


class ImageRotatedBboxLoss(ImageBboxLoss):
    """`RotatedBboxLoss`: (1 - ProbIoU) and DFL or L1."""

    floor = 0.01  # the host's

    def overlap(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the ProbIoU (N, 1)."""
        return probiou(pred, target, floor=self.floor)

    def distances(self, anchors: Tensor, target: Tensor, reg_max: int | None) -> Tensor:
        """Return the distances (B, A, 4) from anchors to box sides."""
        from ultralytics.utils.tal import rbox2dist  # from 8.4.0, as all of this class

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
        return self.state.take("angle", angle, normaliser).sum() / normaliser
