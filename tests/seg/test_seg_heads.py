"""Every decode head that mmseg has: it trains with signals of what its loss sees, or is refused by name."""

import itertools
from pathlib import Path
from typing import Any

from seg_runs import CONFIG  # first: it prepares the host

# isort: split
import mmengine
import mmseg
import mmseg.models.decode_heads as decode_heads
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models import segmentors
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from det_seg_agent import ConfigError
from det_seg_agent.seg.cli import main
from det_seg_agent.seg.heads import OWN_LOSS, SEGMENTORS, check_model, check_segmentor, refusal
from det_seg_agent.seg.scoring import compute_as_in_prediction
from det_seg_agent.seg.signals import SignalTap

pytestmark = pytest.mark.slow  # it trains

CE = {"type": "CrossEntropyLoss", "avg_non_ignore": True}
OHEM = {"type": "OhemCrossEntropy", "min_kept": 100}
ONE = {"in_channels": 64, "in_index": 3}
ALL = {"in_channels": [8, 16, 32, 64], "in_index": [0, 1, 2, 3]}
LAST = {"in_channels": [32, 64], "in_index": [2, 3]}
FCN = {"type": "FCNHead", **ONE, "num_convs": 1}


def vit(**more: Any) -> dict[str, Any]:
    return {
        "type": "VisionTransformer", "img_size": 64, "patch_size": 16, "embed_dims": 16, "num_layers": 4,
        "num_heads": 2, "out_indices": (0, 1, 2, 3), **more,
    }  # fmt: skip


# What a head needs beside `SHARED`; a dict of the whole model where it takes more than a head.
HEADS: dict[str, dict[str, Any]] = {
    "ANNHead": {**LAST, "project_channels": 8, "key_pool_scales": (1, 2)},
    "APCHead": {**ONE, "pool_scales": (1, 2)},
    "ASPPHead": {**ONE, "dilations": (1, 2)},
    "CCHead": ONE,
    "DAHead": {**ONE, "pam_channels": 8},
    "DDRHead": {
        "backbone": {"type": "DDRNet", "channels": 8, "ppm_channels": 8, "norm_cfg": {"type": "BN"}},
        "decode_head": {"in_channels": 32, "loss_decode": [CE, CE]},
    },
    "DMHead": {**ONE, "filter_sizes": (1, 3)},
    "DNLHead": ONE,
    "DPTHead": {
        "backbone": vit(output_cls_token=True),
        "decode_head": {
            "in_channels": (16,) * 4, "in_index": (0, 1, 2, 3), "input_transform": "multiple_select", "embed_dims": 16,
            "post_process_channels": [8, 8, 16, 16],
        },
    },
    "DepthwiseSeparableASPPHead": {**ONE, "dilations": (1, 2), "c1_in_channels": 8, "c1_channels": 8},
    "DepthwiseSeparableFCNHead": {**ONE, "num_convs": 1},
    "EMAHead": {**ONE, "ema_channels": 16, "num_bases": 4, "num_stages": 2},
    "EncHead": {**ALL, "num_codes": 4},
    "FCNHead": {**ONE, "num_convs": 1},
    "FPNHead": {**ALL, "feature_strides": [4, 8, 16, 32]},
    "GCHead": ONE,
    "ISAHead": {**ONE, "isa_channels": 8, "down_factor": (2, 2)},
    "LRASPPHead": {
        "in_channels": [8] * 3, "in_index": [0, 0, 0], "input_transform": "multiple_select", "branch_channels": (8, 8),
    },
    "LightHamHead": {**ALL, "ham_channels": 16, "norm_cfg": {"type": "GN", "num_groups": 4}},
    "NLHead": ONE,
    "OCRHead": {
        "type": "CascadeEncoderDecoder", "num_stages": 2, "before": FCN, "decode_head": {**ONE, "ocr_channels": 8},
    },
    "PIDHead": {
        "backbone": {"type": "PIDNet", "channels": 8, "ppm_channels": 8, "num_stem_blocks": 1, "num_branch_blocks": 1},
        "decode_head": {
            "in_channels": 32, "loss_decode": [CE, CE, {"type": "BoundaryLoss", "loss_weight": 20.0}, OHEM],
        },
    },
    "PSPHead": {**ONE, "pool_scales": (1, 2)},
    "SETRMLAHead": {
        "backbone": vit(),
        "neck": {"type": "MLANeck", "in_channels": [16] * 4, "out_channels": 16, "norm_cfg": {"type": "BN"}},
        "decode_head": {"in_channels": (16,) * 4, "in_index": (0, 1, 2, 3), "mla_channels": 4},
    },
    "SETRUPHead": {"backbone": vit(), "decode_head": {"in_channels": 16, "in_index": 3}},
    "SegformerHead": ALL,
    "UPerHead": {**ALL, "pool_scales": (1, 2)},
}  # fmt: skip
NOT_RUN = {"PSAHead": "needs an operator of the full mmcv"}
NAMES = sorted(set(decode_heads.__all__))
SHARED = {
    "channels": 16, "num_classes": 5, "norm_cfg": {"type": "BN"}, "dropout_ratio": 0.1, "align_corners": False,
    "loss_decode": CE,
}  # fmt: skip


def model_of(name: str) -> Any:
    """Return a tiny model with a head."""
    torch.manual_seed(0)
    config = Config.fromfile(CONFIG).model
    config.backbone.update(base_channels=8, stem_channels=8)
    given = HEADS[name] if "decode_head" in HEADS[name] else {"decode_head": HEADS[name]}
    change = {key: value for key, value in given.items() if key not in ("decode_head", "before")}
    head = {**SHARED, "type": name, **given["decode_head"]}
    config = {**config.to_dict(), "auxiliary_head": None, **change, "decode_head": head}
    if "before" in given:
        config["decode_head"] = [{**SHARED, **given["before"]}, head]
    return MODELS.build(config).train()


def batch_of(images: int, name: str, label_size: torch.Size | tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """Return a batch for a head, with labels of a size, and edges for the heads that want them."""
    size = 200 if name == "LRASPPHead" else 64  # it pools over 49 x 49 at stride 4
    draw = torch.Generator().manual_seed(3)
    samples = []
    for _ in range(images):
        label = torch.randint(0, 5, (1, *label_size), generator=draw)
        if name not in ("DDRHead", "PIDHead"):  # these leave it to the loss what to ignore
            label[:, :1] = 255
        edge = torch.randint(0, 2, (1, *label_size), generator=draw)
        gt = {"gt_sem_seg": PixelData(data=label), "gt_edge_map": PixelData(data=edge)}
        samples.append(SegDataSample(**gt, metainfo={"img_shape": (size, size)}))
    return {"inputs": torch.randn(images, 3, size, size, generator=draw), "data_samples": samples}


def seen_part(losses: dict[str, Tensor]) -> Tensor:
    """Return the part of the loss that signals are taken of."""
    names = ("decode.loss_ce", "decode_1.loss_ce", "decode.pam_cam.loss_ce", "decode.loss_context", "decode.loss_sem_i")
    [name] = [name for name in names if name in losses]
    return losses[name]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_trains_and_its_signals_are_what_its_loss_sees(name: str) -> None:
    """With labels of the logits' size, the mean of the images' losses is the stock loss; the training is untouched."""
    model = model_of(name)
    shape: list[torch.Size] = []
    head = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
    handle = head.conv_seg.register_forward_hook(lambda module, args, output: shape.append(output.shape))
    model(**batch_of(2, name), mode="loss")
    handle.remove()
    assert len(shape) == 1, "conv_seg is called once a forward"
    results = []
    for tapped in (False, True):
        model = model_of(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        tap = SignalTap(model, weighted=False) if tapped else None
        torch.manual_seed(1)
        for _ in range(2):
            losses = model(**batch_of(2, name, shape[0][2:]), mode="loss")
            if tap is not None:
                assert tap.signals is not None
                found, features = tap.signals
                loss, entropy = found.loss, found.entropy
                assert loss.mean().item() == pytest.approx(seen_part(losses).item(), rel=1e-4)
                assert bool(((entropy > 0) & (entropy <= 1)).all())
                assert features.shape[0] == 2 and bool(features.isfinite().all())
            optimizer.zero_grad()
            model.parse_losses(losses)[0].backward()
            optimizer.step()
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


@pytest.mark.parametrize("name", HEADS)
def test_scoring_reads_a_heads_signals_and_changes_nothing(name: str) -> None:
    """Twice the same loss of one image, in spite of dropout, batch norm and moving averages."""
    model = model_of(name)
    compute_as_in_prediction(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tap, found = SignalTap(model, weighted=False), []
    for _ in range(2):
        torch.manual_seed(5)  # LightHamHead draws its bases, in prediction too
        with torch.no_grad():
            model(**batch_of(1, name), mode="loss")
        assert tap.signals is not None and bool(tap.signals[1].isfinite().all())
        found.append(tap.signals[0])
        tap.signals = None
    assert 0 < found[0].loss.item() == found[1].loss.item() < 10 and 0 < found[0].entropy.item() <= 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# What is refused, and words of the reason.
REFUSED = {
    "IterativeDecodeHead": "each of its stages has logits of its own",
    "KernelUpdateHead": "part of IterativeDecodeHead",
    "KernelUpdator": "part of IterativeDecodeHead",
    "Mask2FormerHead": "no loss of a pixel's class",
    "MaskFormerHead": "no loss of a pixel's class",
    "PointHead": "at sampled points",
    "STDCHead": "boundaries of classes",
    "SegmenterMaskTransformerHead": "no `conv_seg`",
    "SideAdapterCLIPHead": "no loss of a pixel's class",
    "VPDDepthHead": "estimates depth",
}


@pytest.mark.parametrize(
    ("name", "given"),
    [*itertools.product(REFUSED, ["{}", "class"]), ("PointHead", "mmseg.{}")],
)
def test_what_is_refused_is_refused_by_name(name: str, given: str, tmp_path: Path, capsys: Any) -> None:
    """By the command line before the model is built, which fails otherwise where a package is missing."""
    head = getattr(decode_heads, name)
    if given == "class":
        with pytest.raises(ConfigError) as refused:
            check_segmentor({"type": segmentors.EncoderDecoder, "decode_head": {"type": head}})
        error = str(refused.value)
    else:
        words = ["--cfg-options", f"model.decode_head.type={given.format(name)}"]
        assert main([str(CONFIG), "--work-dir", str(tmp_path / "run"), *words]) == 2
        error = capsys.readouterr().err
    assert f"decode_head.type='{name}' is not supported: it " in error and REFUSED[name] in error
    assert "Others train with the stock loops." in error and not (tmp_path / "run").exists()


def test_every_head_trains_here_or_is_refused() -> None:
    assert sorted([*HEADS, *NOT_RUN, *REFUSED]) == NAMES


class OwnLoss(BaseDecodeHead):
    """A user's head with a loss of its own."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Any) -> dict[str, Tensor]:
        """Return nothing that we know."""
        return {"loss_own": seg_logits.sum()}


def test_a_users_head_is_known_by_what_it_changes() -> None:
    model = model_of("FCNHead")
    kept = type("KeepsTheLoss", (type(model.decode_head),), {})
    model.decode_head.__class__ = kept
    check_model(model, weighted=True)
    assert "loss_by_feat" in refusal(OwnLoss)
    changed = type("DAHead2", (decode_heads.DAHead,), {})
    assert "loss_by_feat" in refusal(changed), "a subclass of a head that is known may do anything"
    assert "is not a BaseDecodeHead" in refusal(nn.Conv2d)


def test_a_second_loss_of_encnet_cannot_be_weighted() -> None:
    with pytest.raises(ConfigError, match="cannot be weighted by image"):
        check_model(model_of("EncHead"), weighted=True)


def table() -> str:
    """Return the table of the documentation, from the classes that mmseg has."""
    lines = ["| head | status | loss parts | entropy | features |", "| --- | --- | --- | --- | --- |"]
    for name in NAMES:
        reason = refusal(getattr(decode_heads, name))
        if reason:
            lines.append(f"| `{name}` | refused: {reason} | | | |")
            continue
        status = "trains in the tests" if name in HEADS else f"supported, not run: {NOT_RUN[name]}"
        parts = OWN_LOSS.get(name, "`loss_decode`, one or several (seen)")
        lines.append(f"| `{name}` | {status} | {parts} | softmax of `conv_seg`'s logits | levels `in_index`, pooled |")
    for name in sorted(SEGMENTORS):
        reason = SEGMENTORS[name]
        lines.append(f"| segmentor `{name}` | {'refused: ' + reason if reason else 'supported'} | | | |")
    return "\n".join(lines)


def test_the_documentation_has_every_head() -> None:
    text = (Path(__file__).parents[2] / "docs/segmentation.md").read_text(encoding="utf-8")
    assert table() in text, "docs/segmentation.md should hold:\n" + table()
    assert f"mmseg {mmseg.__version__}" in text and f"mmengine {mmengine.__version__}" in text, "the tested versions"
    assert set(SEGMENTORS) == {name for name in segmentors.__all__ if name != "BaseSegmentor"}
