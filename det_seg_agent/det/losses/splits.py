"""Per-image decomposition of each stock criterion; `SignalCriterion` uses it.

A split replaces loss terms of a stock criterion by versions that also record per-image values (`parts`, `rtdetr`,
`semantic`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.utils.loss import (
    E2ELoss,
    PoseLoss26,
    SegmentLoss26,
    SemanticSegmentationLoss,
    v8ClassificationLoss,
    v8DetectionLoss,
    v8OBBLoss,
    v8PoseLoss,
    v8SegmentationLoss,
)

from det_seg_agent.det.losses.measures import entropy_of, pooled, softmax_entropy
from det_seg_agent.det.losses.parts import (
    BatchState,
    ImageAngles,
    ImageBboxLoss,
    ImageBce,
    ImageBceDice,
    ImageKeypoints,
    ImageMasks,
    ImageRle,
    ImageRotatedBboxLoss,
    ImageVisibility,
)
from det_seg_agent.det.losses.rtdetr import QueryTerms
from det_seg_agent.det.losses.semantic import PixelTerms
from det_seg_agent.errors import ConfigError


class Split:
    """Base class: decomposes a criterion's loss by image.

    Attributes:
        stock: the criterion.
        scored: the criterion whose assigner makes the targets of the predicting branch; None if there is none.
        sees_features: whether the criterion receives the head's inputs; otherwise a hook on the head records them.
    """

    scored: Any = None
    sees_features = False

    def __init__(self, stock: Any):
        self.stock = stock

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """Prepare for a batch of B images with loss weights (B,) or None."""
        raise NotImplementedError

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the criterion's result."""
        return self.stock(preds, batch, **more)

    def parts(self) -> Tensor:
        """Return (B, K) float32: each image's part of each loss item, including gains, in the host's order."""
        raise NotImplementedError

    def total(self) -> Tensor:
        """Return (B,) float32: each image's part of the minimised loss; the batch's loss is the sum.

        The host multiplies the loss by the batch size, except for classification and RT-DETR.
        """
        return self.parts().sum(1)

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """Return the entropy (B,) float32 in [0, 1] of the predictions `preds`."""
        raise NotImplementedError

    def features(self, preds: Any) -> Tensor:
        """Return the features (B, F) float32; only if `sees_features`."""
        raise NotImplementedError


# Loss item of the host -> name of its per-image part and of the host's gain.
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

    sees_features = True

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.scored = stock
        self.state = state = BatchState()
        self.bce = stock.bce = ImageBce(state)
        box = ImageRotatedBboxLoss if isinstance(stock, v8OBBLoss) else ImageBboxLoss
        stock.bbox_loss = box(stock.reg_max, state).to(stock.device)
        self.masks: ImageMasks | None = None
        if isinstance(stock, v8OBBLoss):
            stock.calculate_angle_loss = ImageAngles(state)
        if isinstance(stock, v8SegmentationLoss):
            self.masks = stock.single_mask_loss = ImageMasks(stock.single_mask_loss, state)
            stock.bcedice_loss = ImageBceDice(stock.bcedice_loss, state)
        if isinstance(stock, v8PoseLoss):
            stock.keypoint_loss = ImageKeypoints(stock.keypoint_loss, state)
            stock.bce_pose = ImageVisibility(state)
            if getattr(stock, "rle_loss", None) is not None:
                stock.rle_loss = rle = ImageRle(stock, state)
                stock.calculate_rle_loss = rle.call

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.state.begin(len(batch["img"]), weights)
        self.bce.class_weights = self.stock.class_weights
        if self.masks is not None:
            self.masks.values = []

    def parts(self) -> Tensor:
        """See `Split`."""
        state, hyp = self.state, self.stock.hyp
        if self.masks is not None:
            self.masks.drain()
        none = torch.zeros_like(self.bce.cls)
        columns = []
        for name in self.stock.loss_names:
            if name == "cls_loss":
                columns.append(self.bce.cls / state.normaliser * hyp.cls)
            else:
                part, gain = ITEMS[name]
                columns.append(state.parts.get(part, none) * getattr(hyp, gain))
        return torch.stack(columns, 1)

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; binary entropy of the best class."""
        return entropy_of(self.stock.parse_output(preds)["scores"], self.state.foreground)

    def features(self, preds: Any) -> Tensor:
        """See `Split`."""
        return pooled(self.stock.parse_output(preds)["feats"])


class EndToEnd(Split):
    """Split of `E2ELoss`: two dense losses whose weights change over epochs; the one-to-one branch predicts."""

    sees_features = True

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.scored = stock.one2one
        self.many, self.one = Dense(stock.one2many), Dense(stock.one2one)

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.many.begin(batch, weights)
        self.one.begin(batch, weights)

    def parts(self) -> Tensor:
        """See `Split`; of the one-to-one branch, which the host reports."""
        return self.one.parts()

    def total(self) -> Tensor:
        """See `Split`; of both branches."""
        return self.many.total() * self.stock.o2m + self.one.total() * self.stock.o2o

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the one-to-one branch, which predicts."""
        return self.one.entropy(self.stock.one2many.parse_output(preds)["one2one"], batch)

    def features(self, preds: Any) -> Tensor:
        """See `Split`."""
        return self.one.features(self.stock.one2many.parse_output(preds)["one2one"])


class Classification(Split):
    """Split of `v8ClassificationLoss`, a mean over images. No term is replaced."""

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.weights = weights

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the stock criterion's result, weighted if there are weights."""
        logits = preds[1] if isinstance(preds, list | tuple) else preds
        loss = F.cross_entropy(logits, batch["cls"], reduction="none")
        self.own = loss.detach().float() / len(loss)
        if self.weights is None:
            return self.stock(preds, batch)
        return (loss * self.weights).mean(), {"loss": (loss.detach() * self.weights).mean()}

    def parts(self) -> Tensor:
        """See `Split`; (B, 1)."""
        return self.own[:, None]

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the softmax, divided by ln(classes)."""
        return softmax_entropy(preds[1] if isinstance(preds, list | tuple) else preds)


class Semantic(Split):
    """Split of `SemanticSegmentationLoss`."""

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.terms = PixelTerms(stock)

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.terms.begin(weights)

    def parts(self) -> Tensor:
        """See `Split`."""
        return self.terms.parts()

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; mean over valid pixels, at the head's resolution, of the softmax's divided by ln(classes)."""
        logits = preds[0] if isinstance(preds, tuple) else preds
        valid = (batch["semantic_mask"].to(logits.device) != 255).float()
        valid = F.interpolate(valid[:, None], size=logits.shape[2:], mode="nearest-exact")[:, 0]
        return (softmax_entropy(logits) * valid).sum((1, 2)) / valid.sum((1, 2))


class Queries(Split):
    """Split of `RTDETRDetectionLoss`."""

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.terms = QueryTerms(stock)

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.terms.begin(len(batch["gt_groups"]), weights)

    def parts(self) -> Tensor:
        """See `Split`; of the last decoder layer, which the host reports."""
        return self.terms.parts()

    def total(self) -> Tensor:
        """See `Split`; includes all layers and the denoising queries."""
        return self.terms.total

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the last decoder layer's queries."""
        scores = preds[1][-1].transpose(1, 2)
        return entropy_of(scores, self.terms.matched(scores.shape[2]))


SPLITS: dict[type, type[Split]] = {
    **dict.fromkeys((v8DetectionLoss, v8SegmentationLoss, v8PoseLoss, v8OBBLoss, SegmentLoss26, PoseLoss26), Dense),
    E2ELoss: EndToEnd,
    v8ClassificationLoss: Classification,
    SemanticSegmentationLoss: Semantic,
    RTDETRDetectionLoss: Queries,
}


def split_of(stock: Any) -> Split:
    """Return the split of a stock criterion.

    Raises:
        ConfigError: if its class is not in `SPLITS`; subclasses are not accepted.
    """
    inner = [stock.one2many, stock.one2one] if type(stock) is E2ELoss else []
    for each in [stock, *inner]:
        if type(each) not in SPLITS:
            raise ConfigError(
                f"model: its loss is {type(each).__name__}, whose per-image parts are not supported. Valid: "
                f"{', '.join(cls.__name__ for cls in SPLITS)}; see docs/heads.md."
            )
    return SPLITS[type(stock)](stock)
