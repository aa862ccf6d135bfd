"""File names of any bytes: an archive made elsewhere may hold names that are not UTF-8."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from seg_runs import ITERS, config_of, fit, same_weights
from test_input_seg import mask, picture, spoilt

from det_seg_agent.reporting.trace import read
from det_seg_agent.seg.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.draws]  # it trains

NAME = os.fsdecode(b"d\xe9cran_%d.png")  # Latin-1, which Python keeps as a surrogate


def save(image: Image.Image, path: str) -> None:
    """Save an image under a name of any bytes."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        image.save(file, "PNG")


def options(root: Path, count: int = 12) -> dict[str, Any]:
    """Write a training set of such names, and return the options that name it."""
    for i in range(count):
        save(picture(i), f"{root}/data/train/{NAME % i}")
        save(mask(i), f"{root}/data/masks/train/{NAME % i}")
    data = {"train_dataloader.dataset.data_root": f"{root}/data", "train_dataloader.dataset.img_suffix": ".png"}
    return {**ITERS, **data, "train_dataloader.batch_size": 4, "train_cfg.max_iters": 12, "agent__ratio": 0.5}


@pytest.mark.parametrize("strategy", ["agent"])
def test_names_that_are_not_utf8_train_and_resume(scenes: Path, tmp_path: Path, strategy: str) -> None:
    given = {**options(tmp_path), "agent__strategy": strategy, "default_hooks.checkpoint.interval": 2}
    whole, notes = fit(config_of(scenes, tmp_path / "whole", **given))
    fit(config_of(scenes, tmp_path / "cut", **given), 5)
    again, rest = fit(config_of(scenes, tmp_path / "cut", **given, resume=True))
    assert same_weights(whole, again) and rest.stream == notes.stream[-len(rest.stream) :]
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        assert json.loads((folder / "metrics.json").read_text())["images_trained"] == 4 * len(notes.stream)
        assert {path.name for path in folder.glob("*.jpg")} == {"most_selected.jpg", "least_selected.jpg"}
        table = read(folder / "trace")
        assert table is not None and len(table) == 4 * 12
    sheet = Image.open(tmp_path / "whole/most_selected.jpg").convert("L")
    assert sheet.crop((0, 34, 200, 184)).getextrema()[0] < 64, "a picture, not a grey field"


def test_an_error_names_such_a_file(scenes: Path, tmp_path: Path, capfd: Any) -> None:
    given = options(tmp_path)
    save(spoilt(), f"{tmp_path}/data/masks/train/{NAME % 7}")
    config = config_of(scenes, tmp_path / "run", **given, agent__strategy="full")
    config.dump(str(tmp_path / "own.py"))
    assert main([str(tmp_path / "own.py"), "--work-dir", str(tmp_path / "run")]) == 2
    assert "cran_7.png: the mask holds 9, " in capfd.readouterr().err
