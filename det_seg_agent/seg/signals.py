"""Per-image signals of an `EncoderDecoder`, from its stock training forward."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from det_seg_agent.seg.checks import check_label
from det_seg_agent.seg.heads import check_model, heads_of, losses_of, seen_head
from det_seg_agent.seg.sufficiency import sufficiency


def image_signals(logits: Tensor, label: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each image's mean cross-entropy over valid pixels, their mean entropy over ln(classes), and sufficiency.

    Args:
        logits: (B, C, h, w) of the decode head, before up-sampling, any float dtype; C = 1 is a sigmoid's.
        label: (B, H, W) int64; the pixel nearest to a logit's centre counts.
        ignore_index: label that does not count.

    Returns:
        Three (B,) float32, entropy and `sufficiency` in [0, 1]; the first two NaN for an image without a valid pixel.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        logits = logits.detach().float()
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        size = logits.shape[2:]
        if label.shape[1:] != size:
            label = F.interpolate(label[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
        valid = label != ignore_index
        count = valid.sum((1, 2)).float()  # 0 gives NaN: such an image tells nothing
        log_p = logits.log_softmax(1)
        chosen = log_p.gather(1, label.masked_fill(~valid, 0)[:, None])[:, 0]
        entropy = -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])
        enough = sufficiency(log_p.argmax(1), label, valid, logits.shape[1])
        return -(chosen * valid).sum((1, 2)) / count, (entropy * valid).sum((1, 2)) / count, enough


def pooled(features: Any, wanted: Any) -> Tensor:
    """Return (B, F) float32: the decode head's input levels, averaged over space and joined.

    Args:
        features: a tensor (B, C, h, w), or a sequence of them, as the backbone or the neck returns.
        wanted: the head's `in_index`, a level or several.
    """
    levels = [features] if isinstance(features, Tensor) else features
    picked = [levels[i] for i in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    maps = [level if isinstance(level, Tensor) else level[0] for level in picked]  # a ViT may add its class token
    return torch.cat([level.detach().float().mean((2, 3)) for level in maps], 1)


class SignalTap:
    """Reads signals off a model's training forwards by forward hooks; the forward itself is the stock one.

    Args:
        model: the segmentor, not its distributed wrapper.
        weighted: whether losses are to be scaled by image.

    Attributes:
        signals: loss (B,), entropy (B,), features (B, F), sufficiency (B,) of the last training forward.
        weights: (B,) factors of the losses of the next forward, or None.
    """

    def __init__(self, model: Any, weighted: bool):
        check_model(model, weighted)
        self.signals: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.weights: Tensor | None = None
        self._head, self._logits, self._features = seen_head(model), None, None
        self._checked: set[int] = set()
        encoder = model.neck if model.with_neck else model.backbone
        self._handles: list[RemovableHandle] = [
            encoder.register_forward_hook(self._keep_features),
            self._head.conv_seg.register_forward_hook(self._keep_logits),
            model.register_forward_hook(self._read, with_kwargs=True),
        ]
        if weighted:
            for loss in [loss for head in heads_of(model) for loss in losses_of(head)]:
                self._handles.append(loss.register_forward_pre_hook(self._weigh, with_kwargs=True))

    def check_labels(self, shown: list[int], samples: list[Any]) -> None:
        """Look at the mask of each sample at its first showing; `shown` are their dataset indices.

        Raises:
            ConfigError: see `check_label`.
        """
        for index, sample in zip(shown, samples, strict=True):
            if index not in self._checked and "gt_sem_seg" in sample:
                self._checked.add(index)
                label = sample.gt_sem_seg.data
                check_label(label, self._head.num_classes, self._head.ignore_index, sample.metainfo)

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _keep_features(self, module: nn.Module, args: Any, output: Any) -> None:
        self._features = output if module.training else None

    def _keep_logits(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._logits = output if module.training else None  # type: ignore[assignment]

    def _read(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        samples = kwargs.get("data_samples", args[1] if len(args) > 1 else None)
        mode = kwargs.get("mode", args[2] if len(args) > 2 else "tensor")
        if mode == "loss" and self._logits is not None and self._features is not None:
            label = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples])
            loss, entropy, enough = image_signals(self._logits, label, self._head.ignore_index)
            self.signals = loss, entropy, pooled(self._features, self._head.in_index), enough
        self._logits = self._features = None

    def _weigh(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self.weights is None or kwargs.get("reduction_override") == "none":  # OHEM looks at plain losses
            return None
        weight = self.weights.to(args[0].device).view(-1, 1, 1).expand_as(args[1])
        given = kwargs.get("weight")
        return args, {**kwargs, "weight": weight if given is None else weight * given}
