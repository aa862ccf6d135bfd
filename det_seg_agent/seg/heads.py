"""Which segmentors and heads are supported, and why others are not. `seg.signals`, `seg.masks` and `seg.cli` use it."""

from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from torch import nn

from det_seg_agent.errors import ConfigError
from det_seg_agent.seg.checks import type_name

SEGMENTORS = {
    "EncoderDecoder": "",
    "CascadeEncoderDecoder": "",
    "DepthEstimator": "estimates depth: there are no classes",
    "MultimodalEncoderDecoder": "classifies masks of queries by a text encoder",
    "SegTTAModel": "is for testing, it does not train",
}
# Heads with their own loss, whose `conv_seg` runs once per forward and yields the logits used in testing; loss parts.
OWN_LOSS = {
    "DAHead": "`pam_cam` (seen), `pam`, `cam`",
    "DDRHead": "`loss_context` (seen), `loss_spatial`",
    "EncHead": "`loss_decode` (seen), `loss_se`",
    "OCRHead": "`loss_decode` (seen), and those of the heads before it",
    "PIDHead": "`loss_sem_i` (seen), `loss_sem_p`, `loss_bd`, `loss_sem_bd`",
}
REFUSED = {
    "IterativeDecodeHead": "each of its stages has logits of its own, from kernels and not from `conv_seg`",
    "KernelUpdateHead": "is a part of IterativeDecodeHead",
    "KernelUpdator": "is a part of IterativeDecodeHead",
    "Mask2FormerHead": "matches masks of queries to segments: no loss of a pixel's class; mmseg needs mmdet for it",
    "MaskFormerHead": "matches masks of queries to segments: no loss of a pixel's class; mmseg needs mmdet for it",
    "PointHead": "makes its loss at sampled points, not over the image",
    "STDCHead": "predicts the boundaries of classes; as auxiliary head it is supported",
    "SegmenterMaskTransformerHead": "has no `conv_seg`: its logits are products with class tokens",
    "SideAdapterCLIPHead": "matches masks of queries to segments: no loss of a pixel's class",
    "VPDDepthHead": "estimates depth: there are no classes",
}


def refusal(head: type) -> str:
    """Return why a class of decode heads is not supported; "" if it is."""
    if head.__name__ in REFUSED:
        return REFUSED[head.__name__]
    if not issubclass(head, BaseDecodeHead):
        return "is not a BaseDecodeHead"
    if MODELS.get(head.__name__) is head and head.__name__ in OWN_LOSS:
        return ""
    own = [
        name for name in ("loss", "loss_by_feat", "cls_seg") if getattr(head, name) is not getattr(BaseDecodeHead, name)
    ]
    return f"has its own {' and '.join(own)}" if own else ""


def check_segmentor(model: Any) -> None:
    """Check the class names in a model's config before the host builds it, which may fail with a less clear message.

    Raises:
        ConfigError: if the segmentor or the decode head is not supported.
    """
    segmentor = type_name(model.get("type"))
    if SEGMENTORS.get(segmentor):
        _refuse("model.type", segmentor, SEGMENTORS[segmentor])
    heads = model.get("decode_head") or {}
    name = type_name((heads[-1] if isinstance(heads, list | tuple) else heads).get("type"))
    if name in REFUSED:
        _refuse("decode_head.type", name, REFUSED[name])


def check_model(model: nn.Module, weighted: bool) -> None:
    """Check that a model's signals can be recorded.

    Args:
        model: the segmentor.
        weighted: whether losses are weighted by image.

    Raises:
        ConfigError: if the segmentor, a head or a loss is not supported; names it.
    """
    if type(model) not in (EncoderDecoder, CascadeEncoderDecoder):
        name = type(model).__name__
        _refuse("model.type", name, SEGMENTORS.get(name) or "is neither EncoderDecoder nor CascadeEncoderDecoder")
    head = seen_head(model)
    reason = refusal(type(head)) or ("" if hasattr(head, "conv_seg") else "has no `conv_seg`")
    if reason:
        _refuse("decode_head.type", type(head).__name__, reason)
    if head.out_channels > 1 and all(getattr(loss, "use_sigmoid", False) for loss in losses_of(head)):
        raise ConfigError(
            f"decode_head.loss_decode has use_sigmoid=True with {head.out_channels} channels, which is not supported: "
            "entropy over classes needs a softmax. Set use_sigmoid=False in one of the losses."
        )
    if weighted and (name := unweighable(model)):
        raise ConfigError(
            f"{name} cannot be weighted by image, which this strategy asks for. Use CrossEntropyLoss, or a strategy "
            "without weights: agent, random, loss, entropy."
        )


def unweighable(model: nn.Module) -> str:
    """Return the name of a model's first loss that cannot be weighted by image; empty if all can."""
    extra = [each.loss_se_decode for each in heads_of(model) if hasattr(each, "loss_se_decode")]
    heads = [each for each in heads_of(model) if hasattr(each, "loss_decode")]
    for loss in [*(loss for each in heads for loss in losses_of(each)), *extra]:
        if not isinstance(loss, CrossEntropyLoss) or getattr(loss, "use_sigmoid", False):
            return type(loss).__name__
    return ""


def _refuse(key: str, name: str, reason: str) -> None:
    raise ConfigError(
        f"{key}={name!r} is not supported: it {reason}. Valid: EncoderDecoder with a head that keeps BaseDecodeHead's "
        f"loss, such as UPerHead, FCNHead, PSPHead, ASPPHead, SegformerHead, or one of {', '.join(OWN_LOSS)}. "
        "docs/segmentation.md has the table. Others train with the stock loops."
    )


def seen_head(model: Any) -> Any:
    """Return the decode head whose signals are recorded: the only one, or the last of a cascade."""
    return model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head


def heads_of(model: Any, parts: tuple[str, ...] = ("decode_head", "auxiliary_head")) -> list[Any]:
    """Return the heads in some parts of a segmentor, by default decode and auxiliary heads."""
    found = [getattr(model, part, None) for part in parts]
    return [
        head for part in found if part is not None for head in (part if isinstance(part, nn.ModuleList) else [part])
    ]


def losses_of(head: Any) -> list[nn.Module]:
    """Return the modules of a head's `loss_decode`."""
    losses = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]
