"""What the losses of all criteria share: the interface of a split, the state of a batch, entropy and features."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 100  # anchors of an image that its entropy is the mean over
LN2 = math.log(2)


class Split:
    """What a criterion is taken apart by.

    Attributes:
        stock: the criterion.
        scored: the criterion whose assigner gives the targets of the branch that predicts, where there is one.
        sees_features: whether the criterion gets the head's inputs; they are taken off the head where it does not.
    """

    scored: Any = None
    sees_features = False

    def __init__(self, stock: Any):
        self.stock = stock

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """Get ready for a batch of images, with factors (B,) of their losses or None."""
        raise NotImplementedError

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return what the criterion returns."""
        return self.stock(preds, batch, **more)

    def parts(self) -> Tensor:
        """Return (B, K) float32: each image's part of every loss item, with gains, in the host's order."""
        raise NotImplementedError

    def total(self) -> Tensor:
        """Return (B,) float32: each image's part of what is minimised, of which a batch's loss is the sum.

        The host multiplies it by the batch's size, but for classification and RT-DETR.
        """
        return self.parts().sum(1)

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """Return (B,) float32 in [0, 1], of the predictions that `call` got."""
        raise NotImplementedError

    def features(self, preds: Any) -> Tensor:
        """Return (B, F) float32, where `sees_features`."""
        raise NotImplementedError


class BatchState:
    """What the terms of one loss share about a batch of B images.

    Attributes:
        images: B.
        weights: (B,) factors of the images' losses, or None.
        foreground: (B, A) bool, the assigned anchors.
        rows: (N,) int64, the image of each assigned anchor, in the order of `foreground`.
        normaliser: `target_scores_sum`, by which the host divides.
        parts: name of a loss item -> (B,) float32, each image's part of it, unweighted and without the host's gain.
    """

    weights: Tensor | None
    foreground: Tensor
    rows: Tensor
    normaliser: Any

    def begin(self, images: int, weights: Tensor | None) -> None:
        """Forget the last batch."""
        self.images, self.weights, self.normaliser = images, weights, 1
        self.parts: dict[str, Tensor] = {}

    def take(self, name: str, values: Tensor, rows: Tensor, divisor: Any) -> Tensor:
        """Note the parts of item `name`, and return the values (N, ...), weighted where images are weighted."""
        own = values.detach().float()
        own = own.flatten(1).sum(1) if own.dim() > 1 else own
        self.parts[name] = own.new_zeros(self.images).index_add(0, rows, own) / divisor
        if self.weights is None:
            return values
        return values * self.weights[rows].view(-1, *[1] * (values.dim() - 1))

    def in_order(self) -> Tensor:
        """Return (B,) int64: the images with assigned anchors, in order, and then the others."""
        return self.foreground.any(1).int().argsort(descending=True, stable=True)


def binary_entropy(logit: Tensor) -> Tensor:
    """Return the entropy, over ln 2, of sigmoid(logit), of the same shape."""
    p = logit.sigmoid()
    return -(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit)) / LN2


def softmax_entropy(logits: Tensor) -> Tensor:
    """Return the entropy, over ln C, of the softmax over dimension 1; of the sigmoid where C is 1."""
    logits = logits.detach().float()
    if logits.shape[1] == 1:
        return binary_entropy(logits[:, 0])
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def entropy_of(scores: Tensor, foreground: Tensor) -> Tensor:
    """Return (B,) in [0, 1]: mean binary entropy, over ln 2, of the best class at the places that matter.

    These are the assigned anchors and then the most confident ones, `PLACES` together, out of thousands of background
    anchors. `scores` are logits (B, nc, A); `foreground` is (B, A) bool.
    """
    best = scores.detach().float().amax(1)
    places = (best + 1e4 * foreground).topk(min(PLACES, best.shape[1]), dim=1).indices
    return binary_entropy(best.gather(1, places)).mean(1)


def pooled(levels: Any) -> Tensor:
    """Return (B, F) float32: feature maps (B, C, h, w), one or several, averaged over space and joined."""
    levels = [levels] if isinstance(levels, Tensor) else levels
    return torch.cat([level.detach().float().flatten(2).mean(2) for level in levels], 1)


class FeatureTap:
    """Takes the pooled inputs of a head as they come, by a forward pre-hook.

    A copy or a pickle of it, as in the EMA model and the checkpoints made of it, does nothing and needs no module of
    ours: it is a built-in that returns the inputs as they are.

    Attributes:
        last: (B, F) float32, of the last training forward.
    """

    last: Tensor

    def __init__(self, head: nn.Module):
        linear = getattr(head, "linear", None)  # that of a classification head gets what is pooled already
        (head if linear is None else linear).register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: Any) -> None:
        if module.training:
            inputs = args[0]
            flat = isinstance(inputs, Tensor) and inputs.dim() == 2
            self.last = inputs.detach().float() if flat else pooled(inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return {}.get

    def __reduce__(self) -> Any:
        return getattr, ({}, "get")
