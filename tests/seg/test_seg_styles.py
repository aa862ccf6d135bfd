"""Both styles of MMEngine's configs through the command line, by names and by classes; recipes for other batches."""

import json
import re
from pathlib import Path
from typing import Any

from seg_runs import CONFIG  # first: it prepares the host

# isort: split
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from test_input_seg import config, run

from det_seg_agent.seg import AgentHook, AgentIterLoop
from det_seg_agent.seg.checks import batch_note, is_type, type_name
from det_seg_agent.seg.cli import arguments_parser, load_config, main

pytestmark = pytest.mark.slow  # it trains

CLASSES = """
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, PolyLR
from mmengine.runner import IterBasedTrainLoop, ValLoop
from mmseg.datasets import BaseSegDataset, LoadAnnotations, PackSegInputs
from mmseg.datasets.transforms import RandomCrop
from mmseg.evaluation import IoUMetric
from mmseg.models.backbones import ResNetV1c
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import FCNHead, PointHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import DepthEstimator, EncoderDecoder
from torch.optim import AdamW
from det_seg_agent.seg import AgentEpochLoop, AgentHook, AgentIterLoop, AgentSampler
"""
PLAIN = """
default_scope = "mmseg"
model = dict(
    type=EncoderDecoder, data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64), pad_val=0, seg_pad_val=255),
    backbone=dict(type=ResNetV1c, depth=18, stem_channels=8, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="BN"), norm_eval=False),
    decode_head=dict(type=FCNHead, in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=5,
        norm_cfg=dict(type="BN"), loss_decode=dict(type=CrossEntropyLoss)),
    train_cfg=dict(), test_cfg=dict(mode="whole"))
load = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations)]
data = dict(type=BaseSegDataset, data_root=ROOT, metainfo=dict(classes=tuple("abcde")))
train_dataloader = dict(batch_size=8, num_workers=0, sampler=dict(type=AgentSampler), dataset=dict(**data,
    data_prefix=dict(img_path="train", seg_map_path="masks/train"),
    pipeline=[*load, dict(type=RandomCrop, crop_size=(48, 48)), dict(type=PackSegInputs)]))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False), dataset=dict(
    **data, data_prefix=dict(img_path="val", seg_map_path="masks/val"), pipeline=[*load, dict(type=PackSegInputs)]))
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=0.004))
param_scheduler = [dict(type=PolyLR, power=0.9, begin=0, end=18, by_epoch=False)]
train_cfg = dict(type=AgentIterLoop, max_iters=18, val_interval=18)
val_cfg = dict(type=ValLoop)
default_hooks = dict(logger=dict(type=LoggerHook, interval=6, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook), checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=6))
custom_hooks = [dict(type=AgentHook)]
agent = dict(ratio=0.5, final_full=0)
randomness = dict(seed=0)
log_level = "INFO"
"""


def write(scenes: Path, folder: Path, more: str = "", base: bool = False) -> Path:
    """Write a config of classes, in one file or inherited by `read_base`, with more lines at its end."""
    text = f"{CLASSES}{PLAIN.replace('ROOT', repr(str(scenes)))}experiment_name = {folder.name!r}\n"
    path = folder / "own.py"
    if base:
        (folder / "classes_base.py").write_text(text)
        text = f"from mmengine.config import read_base\n{CLASSES}\nwith read_base():\n    from .classes_base import *\n"
    path.write_text(f"{text}{more}\n")
    return path


@pytest.mark.parametrize("base", [False, True])
def test_a_config_of_classes_trains(scenes: Path, tmp_path: Path, base: bool) -> None:
    path = write(scenes, tmp_path, base=base)
    assert main([str(path), "--work-dir", str(tmp_path / "run"), "--cfg-options", "agent.strategy=random"]) == 0
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (result["strategy"], result["full_images_trained"], result["images_trained"]) == ("random", 144, 96)
    assert len(result["iou"]["by_class"]) == 5 and len(list((tmp_path / "run/trace").iterdir())) == 3


# name -> (more lines; what is said)
BAD: dict[str, tuple[str, str]] = {
    "no hook": ("custom_hooks = [dict(type=EMAHook)]", "custom_hooks has no AgentHook"),
    "two hooks": ("custom_hooks = [dict(type=AgentHook), dict(type='AgentHook')]", "has 2 AgentHooks"),
    "no iterations": ("train_cfg.update(max_iters=0)", "train_cfg.max_iters=0: AgentIterLoop needs a whole number"),
    "no epochs": ("train_cfg = dict(type=AgentEpochLoop, max_epochs=0)", "train_cfg.max_epochs=0: AgentEpochLoop"),
    "host's loop": (
        "train_cfg = dict(type=IterBasedTrainLoop, max_iters=18)", "type='IterBasedTrainLoop' walks over no selections",
    ),
    "host's sampler": ("train_dataloader.update(sampler=dict(type=InfiniteSampler))", "sampler.type='InfiniteSampler'"),
    "head": ("model.update(decode_head=dict(type=PointHead))", "decode_head.type='PointHead' is not supported"),
    "segmentor": ("model.update(type=DepthEstimator)", "model.type='DepthEstimator' is not supported"),
    "agent's settings": ("agent = dict(ratios=0.5)", "Did you mean agent.ratio"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "base"), [(name, i % 2 == 1) for i, name in enumerate(BAD)])
def test_a_config_of_classes_is_checked(scenes: Path, tmp_path: Path, capsys: Any, name: str, base: bool) -> None:
    more, message = BAD[name]
    assert main([str(write(scenes, tmp_path, more, base)), "--work-dir", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "amp"),
    [
        ("", True),
        ("optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.1))", True),
        ("optim_wrapper = dict(type='mmengine.OptimWrapper', optimizer=dict(type='AdamW', lr=0.1))", True),
        ("optim_wrapper.update(type=AmpOptimWrapper, loss_scale=8.0)", False),
        ("optim_wrapper.update(type='AmpOptimWrapper', loss_scale=8.0)", False),
    ],
)
def test_mixed_precision_in_both_styles(scenes: Path, tmp_path: Path, more: str, amp: bool) -> None:
    words = [str(write(scenes, tmp_path, more)), "--amp", "--work-dir", str(tmp_path / "run")]
    wrapper = load_config(arguments_parser().parse_args(words)).optim_wrapper
    assert type_name(wrapper.type) == "AmpOptimWrapper" and wrapper.loss_scale == ("dynamic" if amp else 8.0)
    assert type_name(wrapper.optimizer.type) == "AdamW"


@pytest.mark.parametrize(
    ("more", "said"),
    [("optim_wrapper = None", "not None"), ("optim_wrapper.update(type='Own')", "not 'Own'"),
     ("optim_wrapper.update(type=DefaultSampler)", "not 'DefaultSampler'")],
)  # fmt: skip
def test_mixed_precision_needs_the_hosts_wrapper(
    scenes: Path, tmp_path: Path, capsys: Any, more: str, said: str
) -> None:
    assert main([str(write(scenes, tmp_path, more)), "--amp", "--work-dir", str(tmp_path / "run")]) == 2
    assert f"--amp needs optim_wrapper.type='OptimWrapper', {said}" in capsys.readouterr().err


def test_a_type_is_known_by_name_scope_or_class() -> None:
    own = type("Own", (AgentHook,), {})
    assert [type_name(given) for given in (None, "A", "mmseg.A", AgentIterLoop)] == ["", "A", "A", "AgentIterLoop"]
    assert all(is_type(given, "AgentHook") for given in ("AgentHook", "mmengine.AgentHook", AgentHook, own))
    assert not any(is_type(given, "AgentHook") for given in (None, "Agent", AgentIterLoop, "AgentHook.Other"))


# Recipes ------------------------------------------------------------------------------------------------------------

ADE = CONFIG.parent / "upernet_r50_80k_ade20k-512x512.py"


def recipe(folder: Path, name: str, text: str = "a = 1") -> Config:
    """Return the config of a file."""
    (folder / name).write_text(text)
    return Config.fromfile(folder / name)


def test_a_recipe_for_another_batch_is_told(tmp_path: Path) -> None:
    """By the name of the file, or of the nearest that it inherits; `NxbM` is N processes of M images."""
    ours = Config.fromfile(ADE)
    assert ours.train_dataloader.batch_size == 4
    note = batch_note(ours, 1, 4)
    assert note.startswith("upernet_r50_4xb4-80k_ade20k-512x512.py is for 16 images in a batch"), note
    assert "this run has 1 x 4. Set train_dataloader.batch_size=16, or scale the learning rate by 0.25" in note
    assert batch_note(ours, 1, 16) == batch_note(ours, 4, 4) == batch_note(ours, 8, 2) == ""
    assert "batch_size=8" in batch_note(ours, 2, 4) and "rate by 2 and the iterations by 0.5" in batch_note(ours, 8, 4)
    own = recipe(tmp_path, "own_2xb8.py", f"_base_ = {str(ADE)!r}")
    assert batch_note(own, 1, 16) == "" and batch_note(own, 1, 4).startswith("own_2xb8.py is for 16 images")
    assert "own_8xb1.py is for 8" in batch_note(recipe(tmp_path, "own_8xb1.py"), 1, 1)
    for name in ("own.py", "a64xb2c.py", "ade_512x512.py", "4x4.py"):
        assert batch_note(recipe(tmp_path, name, "# see own_8xb1.py\na = 'own_8xb1.py'"), 1, 1) == "", name
    scaled = recipe(tmp_path, "scaled_8xb1.py", "auto_scale_lr = dict(base_batch_size=32)")
    assert batch_note(scaled, 1, 32) == "" and "auto_scale_lr.base_batch_size is for 32" in batch_note(scaled, 1, 8)
    scaled.auto_scale_lr.enable = True
    assert batch_note(scaled, 1, 1) == "", "the host scales the learning rate"
    assert batch_note(Config({"a": 1}), 1, 1) == ""


def test_a_run_tells_its_recipes_batch_once(scenes: Path, tmp_path: Path) -> None:
    given = config(tmp_path, "")
    given["config"] = given["config"].rename(tmp_path / "own_4xb4.py")
    assert run(scenes, {"work_dir": tmp_path / "run", **given, "train_cfg.max_iters": 6}) == 0
    text = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert text.count("own_4xb4.py is for 16 images in a batch, over all processes; this run has 1 x 8.") == 1
    assert text.count(" - det_seg_agent - INFO - ") >= 4, "the budget, the panel, passes and the closing sentence"
    assert text.count("images of full training, padding included: saves") == text.count("trained on ") == 1


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Return a config's values by dotted key; `_scope_` is where the host has looked a file up."""
    if isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
        value = {str(i): each for i, each in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {at: value}
    rows = [flat(each, f"{at}.{key}".lstrip(".")) for key, each in value.items() if key != "_scope_"]
    return {key: each for row in rows for key, each in row.items()}


def differing(ours: Any, theirs: Any) -> set[str]:
    """Return the keys at which two configs differ."""
    one, other = flat(ours.to_dict()), flat(theirs.to_dict())
    return {key for key in {*one, *other} if key not in one or key not in other or one[key] != other[key]}


OWN = {
    "custom_imports.imports", "custom_imports.allow_failed_imports", "custom_hooks.0.type", "agent.strategy",
    "agent.ratio", "train_cfg.type", "train_dataloader.sampler.type", "train_dataloader.sampler.shuffle",
}  # fmt: skip
LENGTH = {
    "train_cfg.max_iters", "train_cfg.val_interval", "param_scheduler.1.end", "default_hooks.checkpoint.interval",
}  # fmt: skip
HALF = {
    "crop_size", "model.data_preprocessor.size", "param_scheduler.0.end",
    "train_dataloader.dataset.pipeline.2.scale", "train_dataloader.dataset.pipeline.3.crop_size",
    "val_dataloader.dataset.pipeline.1.scale", "test_dataloader.dataset.pipeline.1.scale",
}  # fmt: skip
SWIN = "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"
# file -> mmseg's recipe, and what else differs
RECIPES: dict[str, tuple[str, set[str]]] = {
    "swin-t_upernet_160k_ade20k-512x512": (SWIN, set()),
    "swin-t_upernet_80k_ade20k-512x512": (SWIN, LENGTH),
    "upernet_r18_80k_ade20k-512x512": ("upernet/upernet_r18_4xb4-80k_ade20k-512x512.py", set()),
    "upernet_r50_10k_ade20k-256x256": (
        "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py",
        LENGTH - {"param_scheduler.1.end"} | HALF,
    ),
    "upernet_r50_80k_ade20k-512x512": ("upernet/upernet_r50_4xb4-80k_ade20k-512x512.py", set()),
    "upernet_r50_160k_ade20k-512x512": ("upernet/upernet_r50_4xb4-160k_ade20k-512x512.py", set()),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_mmsegs_own_but_for_our_keys(name: str) -> None:
    """A shorter one has the warm-up of the whole, as mmseg's own of 80,000 iterations have."""
    recipe, more = RECIPES[name]
    ours, theirs = Config.fromfile(CONFIG.parent / f"{name}.py"), get_config(f"mmseg::{recipe}")
    assert differing(ours, theirs) == OWN | more
    assert ours.train_cfg.type == "AgentIterLoop" and ours.train_dataloader.sampler == {"type": "AgentSampler"}
    assert ours.custom_hooks == [{"type": "AgentHook"}] and ours.custom_imports["imports"] == ["det_seg_agent.seg"]
    assert ours.train_cfg.max_iters == int(re.findall(r"_(\d+)k_", name)[0]) * 1000 == ours.param_scheduler[-1]["end"]
    assert ours.train_cfg.val_interval == ours.default_hooks.checkpoint.interval == ours.train_cfg.max_iters // 10


def test_every_recipe_is_compared() -> None:
    assert {path.stem for path in CONFIG.parent.glob("*ade20k*.py")} == set(RECIPES)
