"""Per-image signals from the tensors of the stock loss."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils.loss import BboxLoss, v8DetectionLoss
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import bbox2dist

from det_seg_agent.det.sufficiency import SufficiencyTap
from det_seg_agent.errors import ConfigError

PLACES = 100  # anchors of an image that its entropy is the mean over


class Sink(Protocol):
    """Where signals go; see `SignalBuffer.add`."""

    def __call__(
        self,
        index: Tensor,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        image: Tensor,
        share: Tensor,
        sufficiency: Tensor | None,
    ) -> None: ...


class ImageBce(nn.BCEWithLogitsLoss):
    """The stock element-wise BCE (B, A, nc), times the images' weights where there are any.

    Attributes:
        cls: (B,) each image's sum, with class weights and without the images' own, detached.
    """

    weights: Tensor | None = None
    class_weights: Tensor | None = None
    cls: Tensor

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the stock tensor."""
        out: Tensor = super().forward(input, target)
        # Now, as the host goes on to multiply by its class weights in place.
        scores = out.detach().float()
        self.cls = (scores if self.class_weights is None else scores * self.class_weights).sum((1, 2))
        return out if self.weights is None else out * self.weights.view(-1, 1, 1)


class ImageBboxLoss(BboxLoss):
    """CIoU and DFL losses of `BboxLoss`, which also keeps each image's part of them.

    The terms are those of the host: (1 - CIoU) and DFL (arXiv 2006.04388) per assigned anchor, times its target score,
    summed and divided by `target_scores_sum`. Anchors without targets are not touched.

    Attributes:
        box, dfl: (B,) each image's part, unweighted, detached; they sum to the stock losses.
        normaliser: scalar, `target_scores_sum`.
        foreground: (B, A) bool, the assigned anchors.
    """

    weights: Tensor | None = None
    box: Tensor
    dfl: Tensor
    normaliser: Tensor
    foreground: Tensor

    def forward(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Tensor,
        fg_mask: Tensor,
        *unused: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return (box, dfl) losses, scalars."""
        at = fg_mask.nonzero(as_tuple=True)
        score = target_scores[at].sum(-1, keepdim=True)
        box = (1.0 - bbox_iou(pred_bboxes[at], target_bboxes[at], xywh=False, CIoU=True)) * score
        bins = self.dfl_loss.reg_max
        target = bbox2dist(anchor_points, target_bboxes, bins - 1)
        dfl = self.dfl_loss(pred_dist[at].view(-1, bins), target[at]) * score
        zero = torch.zeros(len(fg_mask), device=box.device, dtype=torch.float32)
        self.box = zero.index_add(0, at[0], box.detach().float().squeeze(1)) / target_scores_sum
        self.dfl = zero.index_add(0, at[0], dfl.detach().float().squeeze(1)) / target_scores_sum
        self.normaliser, self.foreground = target_scores_sum, fg_mask
        if self.weights is not None:
            weight = self.weights[at[0]].view(-1, 1)
            box, dfl = box * weight, dfl * weight
        return box.sum() / target_scores_sum, dfl.sum() / target_scores_sum


def entropy_of(scores: Tensor, foreground: Tensor) -> Tensor:
    """Return (B,) in [0, 1]: mean binary entropy, over ln 2, of the best class at the places that matter.

    These are the assigned anchors and then the most confident ones, `PLACES` together, out of thousands of background
    anchors. `scores` are logits (B, nc, A); `foreground` is (B, A) bool.
    """
    best = scores.detach().float().amax(1)
    places = (best + 1e4 * foreground).topk(min(PLACES, best.shape[1]), dim=1).indices
    logit = best.gather(1, places)
    p = logit.sigmoid()
    return (-(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit)) / 0.6931471805599453).mean(1)


class SignalCriterion:
    """The stock criterion of a detection model, which hands each training batch's signals to a sink.

    The returned loss and its gradients are the stock ones, but for batches with `loss_weight` (B,).
    A copy or a pickle of it is None: the host then makes its stock criterion anew, as it does for the EMA model.

    Raises:
        ConfigError: for a criterion that it cannot take apart.
    """

    def __init__(self, stock: Any, sink: Sink):
        check_criterion(stock)
        self.stock, self.sink = stock, sink
        self.bce = stock.bce = ImageBce(reduction="none")
        box_loss = ImageBboxLoss(stock.reg_max).to(stock.device)
        self.box_loss = stock.bbox_loss = box_loss
        self.sufficiency = SufficiencyTap(stock.assigner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "stock":
            raise AttributeError(name)
        return getattr(self.stock, name)

    def __call__(self, preds: Any, batch: dict[str, Any]) -> Any:
        """Return what the stock criterion returns for (preds, batch)."""
        weights = batch.get("loss_weight")
        self.bce.weights = self.box_loss.weights = weights
        self.bce.class_weights = self.stock.class_weights
        out = self.stock(preds, batch)
        if "credit_index" in batch:
            with torch.no_grad():
                self._emit(self.stock.parse_output(preds) if hasattr(self.stock, "parse_output") else preds, batch)
        return out

    def parts(self) -> Tensor:
        """Return (B, 3) float32: each image's box, class and DFL loss with gains; column sums are the loss items."""
        cls = self.bce.cls / self.box_loss.normaliser
        hyp = self.stock.hyp
        return torch.stack([self.box_loss.box * hyp.box, cls * hyp.cls, self.box_loss.dfl * hyp.dfl], 1)

    def _emit(self, preds: Any, batch: dict[str, Any]) -> None:
        loss = self.parts().sum(1) * len(batch["img"])
        entropy = entropy_of(preds["scores"], self.box_loss.foreground)
        features = torch.cat([level.detach().float().mean((2, 3)) for level in preds["feats"]], 1)
        credits = batch["credit_image"], batch["credit_share"]
        self.sink(batch["credit_index"], loss, entropy, features, *credits, self.sufficiency.take())

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


def check_criterion(stock: Any) -> None:
    """Refuse, by name, a criterion whose per-image parts are not known here."""
    if type(stock) is not v8DetectionLoss or not stock.use_dfl:
        raise ConfigError(
            f"model: its loss is {type(stock).__name__}, whose per-image parts are not supported. Valid: detection "
            "models with the YOLOv8 or YOLO11 head, such as yolov8n.yaml or yolo11s.pt."
        )
