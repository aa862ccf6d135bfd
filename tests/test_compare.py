"""Comparisons: the matrix, real cells in processes of their own, what is counted, and the page."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from det_runs import write_model

from det_seg_agent import Strategy
from det_seg_agent.compare.cells import FULL, RANDOM, SHORT, Cell
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.page import page
from det_seg_agent.compare.results import Row, front, rows_of
from det_seg_agent.compare.run import Runner
from det_seg_agent.compare.spec import read
from det_seg_agent.errors import ConfigError
from det_seg_agent.strategies.agent import Agent, AgentOptions

CONFIGS = Path(__file__).parents[1] / "configs"


class Broken(Strategy):
    """Fails when it is asked."""

    def select(self, request: Any) -> Any:
        """Raise."""
        raise RuntimeError("on purpose")


SCENES = {"train": 16, "val": 4, "size": 64}


def write(path: Path, **content: Any) -> Path:
    """Write a comparison of detectors on tiny scenes."""
    model = write_model(path.parent)
    host = {"model": model, "epochs": 2, "imgsz": 64, "batch": 8, "device": "cpu", "optimizer": "SGD", "lr0": 0.01}
    block = {"data": "scenes", "scenes": SCENES, "host": host, "agent": {"final_full": 0}, "ratios": {0.5: [0]}}
    path.write_text(yaml.safe_dump({"title": "Tiny", "detection": {**block, "strategies": ["loss"], **content}}))
    return path


@pytest.mark.parametrize("config", sorted((CONFIGS / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_comparison_has_its_controls(config: Path) -> None:
    comparison, cells = read(config, "data")
    assert comparison.title and len({cell.key for cell in cells}) == len(cells)
    for task in {cell.task for cell in cells}:
        mine = [cell for cell in cells if cell.task == task]
        for cell in mine:
            if cell.role == "selection":
                same = {(c.label, c.ratio) for c in mine if c.seed == cell.seed}
                assert {(FULL, 1.0), (SHORT, cell.ratio), (RANDOM, cell.ratio)} <= same
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells), "all of a seed before the next"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratios": [1.5]}, "1.5 does not lie between 0 and 1"),
        ({"ratios": {0.5: [0, 0]}}, "not a list of different seeds"),
        ({"strategies": ["magic"]}, "agent.strategy='magic'"),
        ({"strategies": [{"strategy": "loss", "ratios": {0.5: [-1]}}]}, "strategies: loss.ratios: 0.5: .-1. is not"),
        ({"strategies": ["loss", {"strategy": "random", "ratios": [0.3]}]}, "random .* remove its ratios"),
        ({"strategies": ["loss", "loss"]}, "twice"),
        ({"strategies": [{"strategy": "agent", "options": {"lrr": 1}}]}, "Did you mean .*options.lr"),
        ({"host": {"epochs": 2, "optimizer": "auto"}}, "optimizer=auto"),
        ({"host": {"epochs": 2, "optimizer": "SGD", "seed": 3}}, "detection.host.seed"),
        ({"strategy": ["loss"]}, "Did you mean detection.strategies"),
        ({"scenes": {"mislabeled": 20}}, "Did you mean detection.scenes.mislabelled"),
    ],
)
def test_a_wrong_yaml_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "c.yaml", **change))


def test_a_strategy_may_have_ratios_of_its_own(tmp_path: Path) -> None:
    strategies = [{"strategy": "loss", "ratios": {0.5: [0]}}, {"strategy": "entropy", "ratios": {0.5: [1], 0.3: [1]}}]
    _, cells = read(write(tmp_path / "c.yaml", strategies=["random", *strategies], ratios=None))
    controls = {(0, SHORT, 0.5), (0, RANDOM, 0.5), (0, FULL, 1.0), (1, FULL, 1.0)}
    controls |= {(1, label, ratio) for label in (SHORT, RANDOM) for ratio in (0.5, 0.3)}
    expected = controls | {(0, "loss", 0.5), (1, "entropy", 0.5), (1, "entropy", 0.3)}
    assert {(cell.seed, cell.label, cell.ratio) for cell in cells} == expected and len(cells) == len(expected)


def test_a_changed_default_changes_the_cells_that_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "c.yaml", strategies=["loss", "agent"])
    before = {cell.name: cell.key for cell in read(config)[1]}

    class Changed(AgentOptions):
        floor: float = 0.123

    monkeypatch.setattr(Agent, "Options", Changed)
    after = {cell.name: cell.key for cell in read(config)[1]}
    assert [name for name in before if before[name] != after[name]] == ["detection agent 0.5 seed 0"]


def result_of(cell: Cell, quality: float, images: int = 50, cpu: float = 10.0) -> dict[str, Any]:
    """Return what a finished cell leaves."""
    picks = {"coverage": 0.9, "turnover": 0.5, "top_tenth": 0.2, "kinds": {"easy": 0.4, "hard": 0.6}}
    picks["thirds"] = {"easy": [0.5, 0.3], "hard": [0.5, 0.7]}
    return {
        "quality": quality, "images": images, "full_images": 100, "wall_s": 2 * cpu, "cpu_s": cpu,
        "curve": {"name": "mIoU, %", "points": [[10, 1.0], [images, quality]]}, "initial_weights": "w",
        "selection": picks if cell.role == "selection" else {}, "machine": {"torch": "2"}, "finished": "2026-01-01",
    }  # fmt: skip


def finished_of(tmp_path: Path) -> list[tuple[Cell, dict[str, Any]]]:
    """Return two seeds of results made by hand."""
    _, cells = read(write(tmp_path / "c.yaml", ratios={0.5: [0, 1]}))
    quality = {FULL: (40.0, 44.0), SHORT: (30.0, 31.0), RANDOM: (32.0, 36.0), "loss": (35.0, 37.0)}
    done = []
    for cell in cells:
        full = cell.role == "full"
        done.append((cell, result_of(cell, quality[cell.label][cell.seed], 100 if full else 50, 20 if full else 11)))
    return done


def test_figures_by_hand(tmp_path: Path) -> None:
    rows = rows_of(finished_of(tmp_path))
    assert [row.name for row in rows] == ["full", "full, shorter 0.5", "random 0.5", "loss 0.5"]
    loss = rows[3]
    assert loss.mean == 36 and loss.budget == 0.5 and loss.cpu_ratio == pytest.approx(0.55)
    assert loss.to_random == {0: 3, 1: 1} and loss.to_short == {0: 5, 1: 6}
    assert rows[0].to_random == {} and rows[0].cpu_ratio == 1
    assert [row.name for row in front(rows)] == ["loss 0.5", "full"]


def test_nothing_finished_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "c.yaml", scenes={**SCENES, "mislabelled": 200})
    assert main([str(config), "--folder", str(tmp_path / "out"), "--page-only"]) == 2
    assert "no cell is finished" in capsys.readouterr().err
    assert main([str(config), "--folder", str(tmp_path / "out")]) == 2
    assert "mislabelled is 200" in capsys.readouterr().err


def test_a_seed_without_its_own_full_run_is_compared_with_the_others(tmp_path: Path) -> None:
    done = [(c, r) for c, r in finished_of(tmp_path) if not (c.role == "full" and c.seed == 1)]
    loss: Row = rows_of(done)[3]
    assert loss.cpu_ratio == pytest.approx(0.55) and len(loss.quality) == 2


def test_the_page_holds_every_number_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = finished_of(tmp_path)
    text = page("A <title>", "yaml: here", "python tools/compare.py c.yaml", done, {"detection x": "failed"})
    for piece in ("A &lt;title&gt;", "36.00 ± 1.41", "+2.00 ± 1.41 (+3.00, +1.00)", "+5.50", "55 %", "yaml: here"):
        assert piece in text
    assert "loss 0.5" in text and "hard" in text and "60 % (50, 70)" in text and "detection x" in text
    assert text.count("<svg") == 2 and "<script" not in text
    assert not re.findall(r"(?:src|href)=\"(?!#)", re.sub(r"xmlns\S*", "", text)), "nothing is loaded from elsewhere"


@pytest.mark.slow
def test_cells_run_are_kept_and_run_again_when_they_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [str(config), "--folder", str(folder), "--jobs", "2"]
    assert main([*words, "--only", "loss"]) == 0
    first = next(folder.glob("detection-loss*/result.json"))
    stamp = first.stat().st_mtime_ns
    assert "the others take about" in capsys.readouterr().out
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 4 cells are finished; the others take about" in out and first.stat().st_mtime_ns == stamp
    results = [json.loads(path.read_text()) for path in folder.glob("detection-*/result.json")]
    assert len(results) == 4 and len({result["initial_weights"] for result in results}) == 1
    assert {result["images"] for result in results} == {32, 24}, "the shorter schedule has whole epochs"
    assert all(result["cpu_s"] > 0 for result in results)
    html = (folder / "index.html").read_text()
    assert html.count("<svg") == 2 and "mislabelled" in html and "not run" not in html
    write(config, strategies=["entropy"])
    _, cells = read(config)
    runner = Runner(folder)
    assert [cell.label for cell in cells if runner.result(cell) is None] == ["entropy"]


@pytest.mark.slow
def test_a_cell_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "c.yaml", strategies=[{"label": "broken", "strategy": "test_compare:Broken"}])
    folder = tmp_path / "out"
    words = [str(config), "--folder", str(folder)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    assert main([*words, "--only", "0.5"]) == 1
    assert "FAILED" in capsys.readouterr().out
    text = (folder / "index.html").read_text()
    assert "failed with status" in text and "on purpose" in text and "random 0.5" in text


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare-detection", "detection-full-seed-0-*"])
def test_terminated_it_ends_its_cells_even_as_a_background_job(tmp_path: Path, stage: str) -> None:
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [sys.executable, str(CONFIGS.parent / "tools/compare.py"), str(config), "--folder", str(folder)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what ends with &
    try:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (children := psutil.Process(process.pid).children()) or not list(folder.glob(f"{stage}/cell.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "finished cells are kept" in said
    assert not psutil.wait_procs(children, timeout=5)[1], "a cell went on alone"
    assert not list(folder.glob(f"{stage}/outcome.json")), "it came to its end"
    assert not list(folder.glob("*/failed.json")), "what was stopped did not fail"
