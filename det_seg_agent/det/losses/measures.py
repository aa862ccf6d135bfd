"""Entropy and features of images, from the outputs and inputs of a head. The criterion and its splits use them."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 100  # anchors per image over which the entropy is averaged
LN2 = math.log(2)


def binary_entropy(logit: Tensor) -> Tensor:
    """Return the entropy of sigmoid(logit) divided by ln 2, of the same shape."""
    p = logit.sigmoid()
    return -(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit)) / LN2


def softmax_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the softmax over dimension 1, of size C, divided by ln C; of the sigmoid if C is 1."""
    logits = logits.detach().float()
    if logits.shape[1] == 1:
        return binary_entropy(logits[:, 0])
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def entropy_of(scores: Tensor, foreground: Tensor) -> Tensor:
    """Return (B,) float32 in [0, 1]: mean binary entropy, divided by ln 2, of the best class at the relevant anchors.

    These are `PLACES` anchors: the assigned ones first, then the most confident ones; thousands of background anchors
    are left out.

    Args:
        scores: (B, nc, A) logits.
        foreground: (B, A) bool, assigned anchors.
    """
    best = scores.detach().float().amax(1)
    places = (best + 1e4 * foreground).topk(min(PLACES, best.shape[1]), dim=1).indices
    return binary_entropy(best.gather(1, places)).mean(1)


def pooled(levels: Any) -> Tensor:
    """Return (B, F) float32: one or several feature maps (B, C, h, w), averaged over space and concatenated."""
    levels = [levels] if isinstance(levels, Tensor) else levels
    return torch.cat([level.detach().float().flatten(2).mean(2) for level in levels], 1)


class FeatureTap:
    """Records the pooled inputs of a head by a forward pre-hook.

    A copy or pickle, as in the EMA model and its checkpoints, is a built-in function that has no effect, so loading
    one does not need our package.

    Attributes:
        last: (B, F) float32, pooled inputs of the last training forward.
    """

    last: Tensor

    def __init__(self, head: nn.Module):
        linear = getattr(head, "linear", None)  # in a classification head its input is already pooled
        (head if linear is None else linear).register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Record the inputs `args` of a training forward."""
        if module.training:
            inputs = args[0]
            flat = isinstance(inputs, Tensor) and inputs.dim() == 2
            self.last = inputs.detach().float() if flat else pooled(inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return {}.get

    def __reduce__(self) -> Any:
        return getattr, ({}, "get")
