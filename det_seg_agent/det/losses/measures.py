"""Entropy and features of images, from what a head gets and gives."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 100  # anchors of an image that its entropy is the mean over
LN2 = math.log(2)


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
