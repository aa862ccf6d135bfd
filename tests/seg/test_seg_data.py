"""What a segmentation run says about its images, and what an inspection says before it, on the real toolbox."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from seg_runs import CONFIG, EPOCHS, config_of, fit

from det_seg_agent.hosts.commands import main
from det_seg_agent.inspecting.asked import asked_of
from det_seg_agent.reporting.samples import read_samples
from det_seg_agent.seg.inspection import read_contents

AGENT = {"agent": {"_delete_": True, "ratio": 0.5, "strategy": "random"}}


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 48 scenes, of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(config_of(scenes, folder, **{**EPOCHS, **AGENT, "train_cfg.max_epochs": 2}))
    return folder


@pytest.mark.slow
def test_a_run_leaves_its_samples_and_a_page(run: Path, scenes: Path) -> None:
    rows = read_samples(run)
    assert len(rows) == 48 and min(rows["selected"].to_pylist()) >= 1
    assert all(rows[name].null_count == 0 for name in ("loss", "loss_mean", "entropy", "agreement", "suspect"))
    first = rows.slice(0, 1).to_pylist()[0]
    mask = next(path for path in scenes.rglob(f"{Path(first['file']).stem}.png") if "train" in str(path))
    values = np.unique(np.asarray(Image.open(mask)))
    assert len(first["classes"].split("; ")) == len(set(values.tolist()) - {255})
    page = (run / "data.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<h2>Classes</h2>" in page and len(re.findall("<img", page)) >= 24


@pytest.mark.slow
def test_the_host_reads_an_exported_list(run: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "keep.txt"
    assert main(["export", str(run), "--where", "sample<16", "--out", str(out)]) == 0
    options = {**EPOCHS, **AGENT, "train_dataloader.dataset.ann_file": str(out), "train_cfg.max_epochs": 1}
    fit(config_of(scenes, tmp_path / "less", **options))
    kept = read_samples(tmp_path / "less")["file"].to_pylist()
    assert kept == read_samples(run)["file"].to_pylist()[:16]


@pytest.mark.slow
def test_masks_and_predictions_can_be_drawn(scenes: Path, tmp_path: Path) -> None:
    runner, _ = fit(config_of(scenes, tmp_path / "run", **{**EPOCHS, **AGENT, "train_cfg.max_epochs": 1}))
    hook = next(hook for hook in runner.hooks if hasattr(hook, "selector"))
    report = hook.run.report
    assert report.labels is not None and report.predictions is not None
    runner.model.train()
    label, predicted = report.labels([3])[0], report.predictions([3])[0]
    assert label is not None and predicted is not None and label.mask is not None and predicted.mask is not None
    assert label.mask.shape == predicted.mask.shape and runner.model.training
    assert set(np.unique(predicted.mask)) <= set(predicted.classes)


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> Path:
    """A config on a copy of the scenes."""
    shutil.copytree(scenes, tmp_path / "scenes")
    path = tmp_path / "mine.py"
    path.write_text(
        f"_base_ = [{str(CONFIG)!r}]\ntrain_dataloader = dict(dataset=dict(data_root={str(tmp_path / 'scenes')!r}))\n"
    )
    return path


def test_masks_are_counted(config: Path) -> None:
    contents, looks = read_contents(asked_of([f"data={config}"]))
    assert len(contents) == 48 and contents.unit == "pixels" and contents.sizes[0].tolist() == [64, 64]
    assert np.bincount(contents.image, contents.amount).max() <= 64 * 64
    look = looks([5])[0]
    assert look is not None and look.mask is not None
    rows = contents.image == 5
    counts = np.bincount(look.mask.ravel(), minlength=256)
    assert counts[contents.cls[rows]].tolist() == contents.amount[rows].tolist()


def test_unknown_values_are_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    contents, _ = read_contents(asked_of([f"data={config}"]))
    name = Path(contents.files[7]).stem
    mask = next(p for p in (config.parent / "scenes").rglob(f"{name}.png") if "train" in str(p))
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[:9, :9] = 77
    pixels[20, 20] = 255
    Image.fromarray(pixels).save(mask)
    out = config.parent / "out"
    assert main(["inspect", f"data={config}", f"out={out}", "images=true"]) == 0
    said = capsys.readouterr().out
    assert f"Masks hold unknown values (77): 1, first in {contents.files[7]}." in said
    assert "ignore_index=255: training would stop there" in said
    assert (out / "inspect.html").is_file() and (out / "duplicates.csv").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("x = 1\n", "the config has no train_dataloader"),
        ("train_dataloader = dict(dataset=dict(type='NoSuch'))\n", "NoSuch"),
        ("x = (\n", "mine.py"),
    ],
)
def test_unusable_configs_are_named(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert main(["inspect", f"data={path}", f"out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err
