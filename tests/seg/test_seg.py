"""The MMEngine adapter on the real toolbox: a light UperNet, tiny images."""

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import EPOCHS, ITERS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from seg_runs import CONFIG, config_of, fit, merge, same_weights
from torch import Tensor
from torch.nn import functional as F

from det_seg_agent import ConfigError, StateError
from det_seg_agent.pixels import image_signals
from det_seg_agent.reporting.trace import read
from det_seg_agent.seg import compat
from det_seg_agent.seg.cli import main
from det_seg_agent.seg.index import SampleIndex, image_paths
from det_seg_agent.seg.signals import SignalTap

pytestmark = pytest.mark.slow  # it trains

FULL = {"agent__strategy": "full"}
LOOPS = {"epochs": EPOCHS, "iterations": ITERS}
SHARED = {"channels": 16, "num_classes": 5, "norm_cfg": {"type": "BN"}, "dropout_ratio": 0.1, "align_corners": False}
LAST = {"in_channels": 128, "in_index": 3}


def batch_of(images: int, label_size: int = 64, ignore: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    samples = []
    for _ in range(images):
        label = torch.randint(0, 5, (1, label_size, label_size), generator=generator)
        if ignore:
            label[:, :9] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_shape": (64, 64)}))
    return {"inputs": torch.randn(images, 3, 64, 64, generator=generator), "data_samples": samples}


def light_model(**options: Any) -> Any:
    torch.manual_seed(0)
    config = Config.fromfile(CONFIG)
    merge(config.model, options)
    model = MODELS.build(config.model)
    return model.train()


@MODELS.register_module()
class OtherSegmentor(EncoderDecoder):
    """One that may do anything."""


def total_of(losses: dict[str, Tensor]) -> Tensor:
    return sum(value for key, value in losses.items() if "loss" in key)  # type: ignore[return-value]


# Signals ------------------------------------------------------------------------------------------------------------


def test_per_image_losses_average_to_the_decode_loss() -> None:
    """With labels of the logits' size there is nothing to resize; the stock mean is then over valid pixels."""
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": True}
    model = light_model(decode_head__dropout_ratio=0, decode_head__loss_decode=loss)
    tap = SignalTap(model, weighted=False)
    losses = model(**batch_of(4, label_size=16), mode="loss")
    assert tap.signals is not None
    found, features = tap.signals
    loss, entropy = found.loss, found.entropy
    assert loss.mean().item() == pytest.approx(losses["decode.loss_ce"].item(), rel=1e-5)
    assert features.shape == (4, 16 + 32 + 64 + 128) and ((entropy > 0) & (entropy <= 1)).all()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"decode_head__loss_decode": {"type": "CrossEntropyLoss", "class_weight": [1.0, 2, 3, 4, 5]}},
        {"decode_head__sampler": {"type": "OHEMPixelSampler", "min_kept": 500}},
        {"decode_head__sampler": {"type": "OHEMPixelSampler", "min_kept": 500, "thresh": 0.7}},
        {"decode_head__loss_decode": [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss", "loss_name": "loss_dice"}]},
    ],
)
def test_training_is_untouched(more: dict) -> None:
    """Total loss and gradients are the stock ones, with class weights, OHEM, several losses and an auxiliary head."""
    results = []
    for tapped in (False, True):
        model = light_model(**more)
        tap = SignalTap(model, weighted=False) if tapped else None
        torch.manual_seed(1)
        batch = batch_of(3, ignore="class_weight" not in str(more))  # the stock loss fails on both together
        loss = total_of(model(**batch, mode="loss"))
        loss.backward()
        results.append((loss, [p.grad for p in model.parameters()]))
        assert tap is None or tap.signals is not None
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_entropy_and_loss_by_hand() -> None:
    p = torch.tensor([0.7, 0.2, 0.1])
    logits = p.log().view(1, 3, 1, 1).repeat(2, 1, 2, 2)
    logits[0, :, 1] = torch.tensor([9.0, 0, 0]).view(3, 1)  # these two pixels are ignored
    label = torch.tensor([[[0, 1], [255, 255]], [[255, 255], [255, 255]]])
    found = image_signals(logits, label, 255)
    loss, entropy = found.loss, found.entropy
    assert loss[0].item() == pytest.approx(-(math.log(0.7) + math.log(0.2)) / 2, rel=1e-5)
    assert entropy[0].item() == pytest.approx(-(p * p.log()).sum().item() / math.log(3), rel=1e-5)
    assert loss[1].isnan() and entropy[1].isnan(), "an image without a valid pixel tells nothing"
    half = image_signals(logits.half(), label, 255).loss
    assert half.dtype == torch.float32 and half[0].item() == pytest.approx(loss[0].item(), rel=1e-2)


def test_one_channel_is_a_sigmoid() -> None:
    logits = torch.full((1, 1, 2, 2), 0.4)
    found = image_signals(logits, torch.ones(1, 2, 2, dtype=torch.int64), 255)
    loss, entropy = found.loss, found.entropy
    p = torch.sigmoid(torch.tensor(0.4))
    assert loss.item() == pytest.approx(-p.log().item(), rel=1e-5)
    binary = -(p * p.log() + (1 - p) * (1 - p).log()) / math.log(2)
    assert entropy.item() == pytest.approx(binary.item(), rel=1e-5)


def test_own_stride_ranks_images_as_full_size_does() -> None:
    """Images of different difficulty keep their order when only every fourth pixel in each direction is read."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (16, 8, 8), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    onehot = F.one_hot(label, 5).permute(0, 3, 1, 2).float()
    skill = torch.linspace(0, 4, 16).view(-1, 1, 1, 1)
    logits = F.avg_pool2d(onehot, 4) * skill + torch.randn(16, 5, 16, 16, generator=generator)
    small = image_signals(logits, label, 255).loss
    large = image_signals(F.interpolate(logits, scale_factor=4, mode="bilinear"), label, 255).loss
    order = torch.corrcoef(torch.stack([small.argsort().argsort().float(), large.argsort().argsort().float()]))[0, 1]
    assert order > 0.95


def test_weights_scale_each_images_loss_in_every_head() -> None:
    model = light_model(decode_head__dropout_ratio=0, auxiliary_head__dropout_ratio=0)
    tap = SignalTap(model, weighted=True)
    weights = torch.tensor([2.0, 0.5, 0.0])
    batch = batch_of(3)
    single = []
    for i in range(3):
        tap.weights = torch.eye(3)[i]
        single.append(model(**batch, mode="loss"))
    tap.weights = weights
    losses = model(**batch, mode="loss")
    for key in ("decode.loss_ce", "aux.loss_ce"):
        expected = sum(w * s[key].item() for w, s in zip(weights.tolist(), single, strict=True))
        assert losses[key].item() == pytest.approx(expected, rel=1e-5)
    tap.weights = None
    stock = model(**batch, mode="loss")
    assert stock["decode.loss_ce"].item() == pytest.approx(sum(s["decode.loss_ce"].item() for s in single), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "weighted", "message"),
    [
        ({"type": "OtherSegmentor"}, False, "OtherSegmentor"),
        ({"decode_head": {"_delete_": True, **SHARED, "type": "STDCHead", **LAST}}, False, "STDCHead.*boundaries"),
        ({"decode_head__loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True}}, False, "use_sigmoid"),
        ({"auxiliary_head__loss_decode": {"type": "LovaszLoss", "per_image": True}}, True, "LovaszLoss"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(more: dict, weighted: bool, message: str) -> None:
    config = Config.fromfile(CONFIG).model
    merge(config, more)
    with pytest.raises(ConfigError, match=message):
        SignalTap(MODELS.build(config), weighted)


# Data ---------------------------------------------------------------------------------------------------------------


def test_index_of_joined_data_sets_is_global_and_doubles_are_refused(scenes: Path, tmp_path: Path) -> None:
    config = config_of(scenes, tmp_path).train_dataloader.dataset
    parts = [config, {**config, "data_prefix": {"img_path": "val", "seg_map_path": "masks/val"}}]
    joined = DATASETS.build({"type": "ConcatDataset", "datasets": parts})
    paths = image_paths(joined)
    assert len(paths) == 48 + 8
    index = SampleIndex(paths)
    assert index.mark([joined[50]["data_samples"], joined[3]["data_samples"]]) == [50, 3]
    with pytest.raises(ConfigError, match="RepeatDataset"):
        image_paths(DATASETS.build({"type": "RepeatDataset", "times": 2, "dataset": config}))
    with pytest.raises(ConfigError, match="MultiImageMixDataset"):
        image_paths(DATASETS.build({"type": "MultiImageMixDataset", "dataset": config, "pipeline": []}))
    lost = joined[3]["data_samples"]
    lost.set_metainfo({"img_path": "elsewhere.jpg"})
    with pytest.raises(ConfigError, match="meta_keys"):
        index.mark([lost])


def test_an_image_that_the_host_replaces_is_known_by_its_path(scenes: Path, tmp_path: Path) -> None:
    dataset = DATASETS.build(config_of(scenes, tmp_path).train_dataloader.dataset)
    stock = dataset.prepare_data
    dataset.prepare_data = lambda i: None if i == 5 else stock(i)
    sample = dataset[5]["data_samples"]
    [index] = SampleIndex(image_paths(dataset)).mark([sample])
    assert index != 5 and sample.metainfo["sample_idx"] == index


# Loops --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loop", LOOPS)
def test_every_pass_walks_exactly_its_selection(scenes: Path, tmp_path: Path, loop: str, workers: int) -> None:
    config = config_of(scenes, tmp_path, **LOOPS[loop], agent__ratio=0.4)
    config.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.insert(-1, {"type": "NoteWorker"})
    pipeline[-1]["meta_keys"] = ("img_path", "worker")
    runner, notes = fit(config)
    hook = next(h for h in runner.hooks if type(h).__name__ == "AgentHook")
    trace = read(tmp_path / "trace").to_pydict()
    start, partial = 0, 0
    for p in range(8):
        chosen = {s for s, q, yes in zip(trace["sample"], trace["pass"], trace["selected"]) if yes and q == p}
        stop = start + hook.run.iterations_of(p)
        shown = [index for batch in notes.stream[start:stop] for index in batch]
        assert set(shown) == chosen and len(shown) - len(chosen) < 8, "all of it, and less than a batch twice"
        assert all(len(batch) == 8 for batch in notes.stream), "no batch is smaller than the recipe's"
        partial += len(chosen) == 19
        start = stop
    assert partial == 6 and start == len(notes.stream)
    assert len(notes.workers) == max(workers, 1), "workers are kept"


def test_iterations_follow_the_budget_and_schedules_with_them(scenes: Path, tmp_path: Path) -> None:
    whole, full = fit(config_of(scenes, tmp_path / "full", **ITERS, **FULL))
    runner, notes = fit(config_of(scenes, tmp_path / "agent", **ITERS, agent__ratio=0.4))
    # 19 images fill 3 batches of 8, so that 6 passes of them are 18 iterations beside 2 full ones of 6
    assert len(notes.stream) == runner.max_iters == 30
    assert len(full.stream) == 48 and full.validated == [20, 40, 48]
    assert notes.validated == [13, 26, 30], "as often as the recipe validates"
    assert notes.rates == pytest.approx([0.004 * (1 - i / 29) ** 0.9 for i in range(30)])
    assert full.rates == pytest.approx([0.004 * (1 - i / 47) ** 0.9 for i in range(48)])
    assert {p.name for p in (tmp_path / "agent").glob("iter_*.pth")} == {f"iter_{4 * i}.pth" for i in range(1, 8)} | {
        "iter_30.pth"
    }
    assert whole.max_iters == 48
    result = json.loads((tmp_path / "agent/metrics.json").read_text())
    assert result["images_trained"] == 240 and result["full_images_trained"] == 384 and result["budget"] == 0.625
    iou = result["iou"]
    assert set(iou) == {"mIoU", "mAcc", "aAcc", "by_class"} and len(iou["by_class"]) == 5
    for figure in ("IoU", "Acc"):
        values = [row[figure] for row in iou["by_class"].values() if figure in row]
        assert sum(values) / len(values) == pytest.approx(iou[f"m{figure}"], abs=0.02), "the mean is the host's"
    assert json.loads((tmp_path / "full/metrics.json").read_text())["budget"] == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_of_full_sees_the_remaining_stream(scenes: Path, tmp_path: Path, loop: str) -> None:
    """Stopped within a pass, as `test_adapters.py` has it for selections; on a CPU the weights are the same."""
    length = {"train_cfg.max_epochs": 4} if loop == "epochs" else {"train_cfg.max_iters": 24}
    options = {**LOOPS[loop], **length, "agent__ratio": 0.4, "agent__strategy": "full", "train_cfg.val_interval": 100}
    whole, notes = fit(config_of(scenes, tmp_path / "whole", **options))
    stop = 13
    _, first = fit(config_of(scenes, tmp_path / "cut", **options), stop)
    assert len(first.stream) == stop
    again, second = fit(config_of(scenes, tmp_path / "cut", **options, resume=True))
    saved = len(notes.stream) - len(second.stream)
    assert saved == (12 if loop == "epochs" else 10)
    assert second.stream == notes.stream[saved:]
    assert same_weights(whole, again)


def test_validation_leaves_the_random_streams_alone(scenes: Path, tmp_path: Path) -> None:
    """Else a run that is resumed after a validation would differ."""
    options = {**ITERS, "agent__ratio": 0.4, "train_cfg.val_interval": 20}
    whole, _ = fit(config_of(scenes, tmp_path / "whole", **options))
    fit(config_of(scenes, tmp_path / "cut", **options, **{"default_hooks.checkpoint.interval": 20}), 15)
    assert (tmp_path / "cut/last_checkpoint").read_text().endswith("iter_13.pth")
    again, _ = fit(config_of(scenes, tmp_path / "cut", **options, resume=True))
    assert same_weights(whole, again)


def test_a_resume_that_cannot_be_exact_is_refused(scenes: Path, tmp_path: Path) -> None:
    fit(config_of(scenes, tmp_path, **ITERS, agent__ratio=0.4), 14)
    with pytest.raises(ConfigError, match=r"agent.ratio=0.4"):
        fit(config_of(scenes, tmp_path, **ITERS, agent__ratio=0.5, resume=True))
    other = {"train_dataloader__dataset__indices": 40}
    with pytest.raises(StateError, match="images are not those"):
        fit(config_of(scenes, tmp_path, **ITERS, agent__ratio=0.4, resume=True, **other))
    path = tmp_path / "iter_12.pth"
    state = torch.load(path, weights_only=False)
    del state["det_seg_agent"]
    torch.save(state, path)
    with pytest.raises(ConfigError, match="load_from"):
        fit(config_of(scenes, tmp_path, **ITERS, agent__ratio=0.4, resume=True, load_from=str(path)))
    fit(config_of(scenes, tmp_path / "new", **ITERS, agent__ratio=0.5, load_from=str(path)))


# Command line -------------------------------------------------------------------------------------------------------


def words_of(scenes: Path, **more: Any) -> list[str]:
    settings = {f"{name}_dataloader.dataset.data_root": scenes for name in ("train", "val", "test")}
    settings |= {"train_cfg.max_iters": 12, "train_cfg.val_interval": 6, "param_scheduler.0.end": 12}
    settings |= {"experiment_name": "cli", "visualizer.name": "cli", "log_level": "ERROR", **more}
    return ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]


def test_the_command_line_trains_resumes_and_judges(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    words = [str(CONFIG), "--work-dir", str(tmp_path)]
    assert main([*words, *words_of(scenes, **{"agent.ratio": 0.5, "agent.final_full": 0})]) == 0
    assert "LOCAL_RANK" not in os.environ, "a process that is started later would take itself for a rank"
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["images_trained"] == 72 and result["full_images_trained"] == 96 and result["budget"] == 0.75
    assert len(result["iou"]["by_class"]) == 5 and 0 < result["iou"]["mIoU"] <= result["iou"]["aAcc"]
    assert "saves 25%" not in capsys.readouterr().out, "log_level=ERROR"
    assert main([*words, "--resume", *words_of(scenes, **{"agent.ratio": 0.6})]) == 2
    assert "cannot change on resume" in capsys.readouterr().err


# Families, configs, compatibility -----------------------------------------------------------------------------------

RESNET = {"out_indices": (0, 1, 2, 3)}
CHANNELS = [16, 32, 64, 128]


def swin() -> dict[str, Any]:
    return {
        "_delete_": True, "type": "SwinTransformer", "embed_dims": 16,
        "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8),
        "window_size": 4, "out_indices": (0, 1, 2, 3), "drop_path_rate": 0.1,
    }  # fmt: skip


def mit() -> dict[str, Any]:
    return {
        "_delete_": True, "type": "MixVisionTransformer", "embed_dims": 8, "num_stages": 4, "num_layers": [1, 1, 1, 1],
        "num_heads": [1, 2, 4, 8], "sr_ratios": [8, 4, 2, 1],
    }  # fmt: skip


FAMILIES: dict[str, dict[str, Any]] = {
    "upernet": {},
    "fcn": {"decode_head": {"type": "FCNHead", "in_channels": 128, "in_index": 3, "num_convs": 1}},
    "pspnet": {"decode_head": {"type": "PSPHead", "in_channels": 128, "in_index": 3, "pool_scales": (1, 2)}},
    "deeplabv3plus": {
        "decode_head": {
            "type": "DepthwiseSeparableASPPHead", "in_channels": 128, "in_index": 3, "dilations": (1, 2),
            "c1_in_channels": 16, "c1_channels": 8,
        }
    },
    "segformer": {
        "backbone": mit(), "auxiliary_head": None,
        "decode_head": {"type": "SegformerHead", "in_channels": [8, 16, 32, 64], "in_index": [0, 1, 2, 3]},
    },
    "swin-upernet": {"backbone": swin()},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_segmentor_families_train(scenes: Path, tmp_path: Path, family: str) -> None:
    change = {}
    for key, value in FAMILIES[family].items():
        if key == "decode_head":
            value = {"_delete_": True, **SHARED, "loss_decode": {"type": "CrossEntropyLoss"}, **value}
        change[f"model.{key}"] = value
    train = {"type": "AgentIterLoop", "max_iters": 2, "val_interval": 2}
    runner, _ = fit(config_of(scenes, tmp_path, train_cfg=train, agent__warmup=0, agent__trace=False, **change))
    hook = next(h for h in runner.hooks if type(h).__name__ == "AgentHook")
    table = hook.selector.table
    assert int((table.seen > 0).sum()) == 16 and table.loss[table.seen > 0].isfinite().all()


def test_an_oscillating_piece_inherits_ours() -> None:
    config = Config.fromfile(CONFIG.parent / "_base_/oscillating.py")
    assert config.agent.schedule == "oscillating" and config.agent.ratio == (config.agent.low + config.agent.high) / 2


def test_missing_operators_say_what_to_install() -> None:
    compat.stub_mmcv_ops()
    from mmcv.ops import sigmoid_focal_loss

    if not compat.stub_mmcv_ops():
        pytest.skip("the full mmcv is installed")
    with pytest.raises(ModuleNotFoundError, match="mmcv-lite"):
        sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 2.0, 0.25, None, "mean")


def test_checkpoints_load_restricted(tmp_path: Path) -> None:
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({"history": buffer, "weights": torch.ones(2)}, tmp_path / "a.pth")
    compat.allow_checkpoint_types()
    assert torch.load(tmp_path / "a.pth", weights_only=True)["history"].mean() == 1.5
    assert compat.history_method(HistoryBuffer, "mean") is HistoryBuffer.mean
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        compat.history_method(HistoryBuffer, "__init__")
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        compat.history_method(Path, "mean")

    class Other:
        pass

    Other.__qualname__ = "Other"
    globals()["Other"] = Other
    torch.save({"other": Other()}, tmp_path / "b.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "b.pth", weights_only=True)


def test_pkg_resources_is_quiet(recwarn: Any) -> None:
    import warnings

    compat.quiet_pkg_resources()
    warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=1)
    assert not [w for w in recwarn if "pkg_resources" in str(w.message)]
