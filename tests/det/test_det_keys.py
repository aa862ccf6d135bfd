"""Keys of `yolo train` that change the loop, each as docs/keys.md says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from det_runs import fit
from loop_runs import IMAGES, LOOP, check_counts, watched
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent.det.trainer import AgentDetectionTrainer

pytestmark = pytest.mark.slow  # it trains

SOME = AgentDetectionTrainer.configured(ratio=0.4, final_full=0.25)
# What each key is set to, and how many images there are to select from.
KEYS: dict[str, dict[str, Any]] = {
    "multi_scale": {"multi_scale": 0.5},
    "freeze": {"freeze": 5},
    "cache": {"cache": "ram"},
    "fraction": {"fraction": 0.5},
    "classes": {"classes": [0, 1]},
    "single_cls": {"single_cls": True},
    "nbs": {"nbs": 16},
    "save_period": {"save_period": 1},
    "close_mosaic": {"close_mosaic": 2},
    "cos_lr": {"cos_lr": True},
    "val": {"val": True},
    "amp": {"amp": False},
    "deterministic": {"deterministic": False},
    "optimizer": {"optimizer": "auto"},
    "rect": {"rect": True},
    "patience": {"patience": 50},
    "workers": {"workers": 2},
    "dropout": {"dropout": 0.1},
    "several": {
        "rect": True,
        "cache": "disk",
        "fraction": 0.7,
        "freeze": 3,
        "cos_lr": True,
        "nbs": 8,
        "classes": [0, 2],
    },
}
ELSEWHERE = {
    "time",
    "compile",
    "resume",
    "quantize",
    "batch",
    "device",
    "pretrained",
}  # test_det_loop.py and others


@pytest.mark.parametrize("key", KEYS)
def test_selections_and_counts_are_exact_with_a_key(key: str, model_yaml: str, data: str, tmp_path: Path) -> None:
    trainer = fit(model_yaml, data, tmp_path, "run", watched(SOME), **{**LOOP, **KEYS[key]})
    check_counts(trainer)
    images = len(trainer.selector)
    assert images == round(IMAGES * KEYS[key].get("fraction", 1))
    assert [row["selected"] for row in trainer.selector.history] == [images, *[round(0.4 * images)] * 2, images]


@pytest.mark.parametrize("key", ["several", "multi_scale", "close_mosaic", "optimizer"])
def test_full_is_the_stock_run_with_a_key(key: str, model_yaml: str, data: str, tmp_path: Path) -> None:
    full = AgentDetectionTrainer.configured(strategy="full")
    more = {**LOOP, **KEYS[key], "epochs": 3, "batch": 7}  # whole: the host takes no batch of one image
    ours, stock = (
        fit(model_yaml, data, tmp_path, name, watched(trainer), **more)
        for name, trainer in (("ours", full), ("stock", DetectionTrainer))
    )
    assert ours.batches == stock.batches and ours.steps == stock.steps
    one, other = ours.ema.ema.state_dict(), stock.ema.ema.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_key_in_the_table_is_tried() -> None:
    text = (Path(__file__).parents[2] / "docs/keys.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)`", text, re.M))
    assert listed == (set(KEYS) - {"several"}) | ELSEWHERE
