"""Per-image signals of an `EncoderDecoder`, recorded by hooks in its training forward. `AgentHook` uses them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from det_seg_agent.pixels import ImageSignals, image_signals
from det_seg_agent.seg.heads import check_model, heads_of, losses_of, seen_head


def pooled(features: Any, wanted: Any) -> Tensor:
    """Return (B, F) float32: the decode head's input levels, averaged over space and concatenated.

    Args:
        features: a tensor (B, C, h, w) or a sequence of them, from the backbone or the neck.
        wanted: the head's `in_index`, one level or several.
    """
    levels = [features] if isinstance(features, Tensor) else features
    picked = [levels[i] for i in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    maps = [level if isinstance(level, Tensor) else level[0] for level in picked]  # a ViT may return (map, class token)
    # With `dtype`, CUDA casts while reducing, without a float32 copy of the level.
    return torch.cat([level.detach().mean((2, 3), dtype=torch.float32) for level in maps], 1)


class SignalTap:
    """Records signals of a model's training forwards by forward hooks; the forward itself does not change.

    Args:
        model: the segmentor, not its distributed wrapper.
        weighted: whether losses are weighted by image.

    Attributes:
        signals: signals and features (B, F) of the last training forward.
        weights: (B,) loss weights for the next forward, or None. Setting them copies them to the model's device
            without synchronisation.

    Raises:
        ConfigError: if the model is not supported.
    """

    def __init__(self, model: Any, weighted: bool):
        check_model(model, weighted)
        self.signals: tuple[ImageSignals, Tensor] | None = None
        self._weights: Tensor | None = None
        self._head, self._logits, self._features = seen_head(model), None, None
        encoder = model.neck if model.with_neck else model.backbone
        self._handles: list[RemovableHandle] = [
            encoder.register_forward_hook(self._keep_features),
            self._head.conv_seg.register_forward_hook(self._keep_logits),
            model.register_forward_hook(self._read, with_kwargs=True),
        ]
        if weighted:
            for loss in [loss for head in heads_of(model) for loss in losses_of(head)]:
                self._handles.append(loss.register_forward_pre_hook(self._weigh, with_kwargs=True))

    @property
    def weights(self) -> Tensor | None:
        """Loss weights (B,) for the next forward, or None."""
        return self._weights

    @weights.setter
    def weights(self, given: Tensor | None) -> None:
        device = self._head.conv_seg.weight.device
        if given is not None and device.type == "cuda":
            given = given.pin_memory()  # a copy from pageable memory would synchronise
        self._weights = given if given is None else given.to(device, non_blocking=True)

    def remove(self) -> None:
        """Remove the hooks."""
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
            labels = [sample.gt_sem_seg.data.squeeze(0) for sample in samples]
            signals = image_signals(self._logits, labels, self._head.ignore_index)
            self.signals = signals, pooled(self._features, self._head.in_index)
        self._logits = self._features = None

    def _weigh(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self.weights is None or kwargs.get("reduction_override") == "none":  # OHEM needs unweighted losses
            return None
        weight = self.weights.view(-1, 1, 1).expand_as(args[1])
        given = kwargs.get("weight")
        return args, {**kwargs, "weight": weight if given is None else weight * given}
