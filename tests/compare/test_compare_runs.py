"""Comparisons that are run: real cells in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from compare_runs import SCENES, write, write_segmentation

from det_seg_agent.compare import child
from det_seg_agent.compare.cells import CONTROLS, SHORT
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.detection import Detection
from det_seg_agent.compare.images import FILE, class_iou, resampled
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.store import Store
from det_seg_agent.det import judge

pytestmark = pytest.mark.slow  # it trains

TOOL = Path(__file__).parents[2] / "tools/compare.py"
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of cells import the strategies of `compare_runs`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]))


def test_cells_run_are_kept_and_run_again_when_they_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [str(config), "--folder", str(folder), "--jobs", "2"]
    assert main([*words, "--only", "loss"]) == 0
    first = next(folder.glob("detection-loss*/result.json"))
    stamp = first.stat().st_mtime_ns
    assert "the others take about" in capsys.readouterr().out
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 7 cells are finished; the others take about" in out and first.stat().st_mtime_ns == stamp
    results = {path.parent.name[:-16]: json.loads(path.read_text()) for path in folder.glob("detection-*/result.json")}
    assert len({result["initial_weights"] for result in results.values()}) == 1
    images = {name: result["images"] for name, result in results.items()}
    assert images == {
        "detection-full-seed-0": 32,
        "detection-full-shorter-0.5-at-1-epochs-seed-0": 16,
        "detection-full-shorter-0.5-at-2-epochs-seed-0": 32,
        **{f"detection-{label}-0.5-seed-0": 24 for label in (*CONTROLS, "loss")},
    }
    for result in results.values():
        assert result["cpu_s"] > 0 and (result["batch"], result["processes"]) == (8, 1)
    html = (folder / "index.html").read_text()
    assert html.count("<svg") == 3 and "mislabelled" in html and "not run" not in html

    # The same YAML with another strategy has one cell to run; one of other sources is run again, and stays.
    found = json.loads((first.parent / "cell.json").read_text())["resolved"]
    store = Store(folder, keep_older=True)
    changed = [replace(cell, resolved=found) for cell in read(write(config, strategies=["entropy"]))[1]]
    assert [cell.label for cell in changed if store.result(cell) is None] == ["entropy"]
    write(config)
    first.write_text(json.dumps({**json.loads(first.read_text()), "sources": "others"}))
    assert main([*words, "--page-only", "--keep-older"]) == 0
    assert "\N{DOUBLE DAGGER} 0" in (folder / "index.html").read_text() and not list(folder.glob("look-*"))
    assert main(words) == 0
    assert "1 cells were finished by another state" in capsys.readouterr().out
    assert json.loads(first.read_text())["sources"] == "others"
    assert len(list(folder.glob("detection-loss*/result.json"))) == 2


def test_the_last_weights_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best ones would be chosen on the set that is reported; `test_det_judge.py` has what `weights` does."""
    judged, stock = [], judge.judge

    def note(trainer: Any, weights: str) -> Any:
        judged.append(weights)
        return stock(trainer, weights)

    monkeypatch.setattr(judge, "judge", note)
    _, cells = read(write(tmp_path / "c.yaml"))
    outcome = Detection(cells[-1], tmp_path / "cell").train(calibrate=False)
    assert judged == ["last"] and outcome["quality"] == outcome["metrics"]["AP"]
    assert_by_class(outcome, tmp_path / "cell", "AP")
    known = [value for value in outcome["by_class50"].values() if value is not None]
    assert np.mean(known) == pytest.approx(outcome["metrics"]["AP50"])
    assert sum(outcome["classes"]["test_objects"].values()) > 0 and max(outcome["curve"]["seconds"]) > 0
    assert len(outcome["curve"]["points"]) == 2 and outcome["curve"]["name"].startswith("mAP50-95")


def assert_by_class(outcome: dict[str, Any], place: Path, name: str) -> None:
    """Check that the figures by class and those of the stored images are the whole figure."""
    known = {key: value for key, value in outcome["by_class"].items() if value is not None}
    assert np.mean(list(known.values())) == pytest.approx(outcome["metrics"][name], abs=0.01)
    with np.load(place / FILE) as stored:
        arrays = dict(stored)
        assert set(arrays["names"].tolist()) == outcome["by_class"].keys()
        assert len(arrays["objects" if "objects" in arrays else "union"]) == SCENES["val"]
        if "union" in arrays:
            whole = dict(zip(arrays["names"].tolist(), 100 * class_iou(arrays, np.ones((1, SCENES["val"])))[0]))
            assert {key: whole[key] for key in known} == pytest.approx(known, abs=0.01)
    assert outcome["classes"]["train_images"].keys() == outcome["by_class"].keys()
    assert 0 < max(outcome["classes"]["train_images"].values()) <= SCENES["train"]
    assert 0 < max(outcome["classes"]["test_images"].values()) <= SCENES["val"]
    assert outcome["aside"]["cpu_s"] > 0
    found = resampled(place, 20)
    assert found is not None and found.values["by_class"].shape == (20, len(outcome["by_class"]))


def test_segmentation_trains_every_role(tmp_path: Path) -> None:
    config = write_segmentation(tmp_path / "c.yaml")
    _, cells = read(config)
    found = {}
    for cell in cells:
        if cell.label not in CONTROLS:
            place = tmp_path / cell.folder
            place.mkdir()
            (place / "cell.json").write_text(json.dumps(asdict(cell)))
            assert child.main(["train", str(place)]) == 0
            found[cell.label] = json.loads((place / "outcome.json").read_text())
            assert_by_class(found[cell.label], place, "mIoU")
    # 8 passes of 16 images in batches of 8: the first is full, then one batch each.
    lengths = {label: (outcome["schedule"], outcome["images"]) for label, outcome in found.items()}
    assert lengths == {"full": ("16 iterations", 128), SHORT: ("9 iterations", 72), "loss": ("9 iterations", 72)}
    assert len({outcome["initial_weights"] for outcome in found.values()}) == 1
    for label, outcome in found.items():
        assert (outcome["batch"], outcome["processes"], outcome["full_images"]) == (8, 1, 128)
        assert len(outcome["curve"]["seconds"]) == len(outcome["curve"]["points"])
        assert outcome["curve"]["seconds"] == sorted(outcome["curve"]["seconds"]), "none is missing"
        assert outcome["curve"]["points"][-1] == [outcome["images"], pytest.approx(outcome["quality"], abs=0.01)]
        assert set(outcome["by_class"]) > {"disc", "star"} and bool(outcome["selection"]) == (label == "loss")
    rates = {label: learning_rates(tmp_path, label) for label in ("full", "full-shorter", "loss")}
    assert rates["full-shorter"] == rates["loss"] != rates["full"], "it falls to the end"


def learning_rates(folder: Path, label: str) -> list[float]:
    """Return the learning rate of each iteration of a cell."""
    rest = "seed" if label == "full" else "0"  # of the folder's name: "full" begins "full-shorter" too
    path = next(folder.glob(f"segmentation-{label}-{rest}*/run/*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["lr"] for row in rows if "lr" in row]


def test_a_config_with_settings_of_ours_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path / "c.yaml")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(recipe.read_text() + "agent = dict(final_full=0.5)\n")
    assert main([str(config), "--folder", str(tmp_path / "out")]) == 2
    assert "agent.final_full: in a comparison" in capsys.readouterr().err


def test_a_cell_that_fails_is_told_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"label": "broken so", "strategy": "compare_runs:Broken"}
    config = write(tmp_path / "c.yaml", strategies=[broken, {"label": "loss so", "strategy": "loss"}])
    folder = tmp_path / "out"
    assert main([str(config), "--folder", str(folder), "--only", "so 0.5"]) == 1
    assert "FAILED" in capsys.readouterr().out
    text = (folder / "index.html").read_text()
    assert "failed with status" in text and "on purpose" in text and ">loss so 0.5<" in text


def test_terminated_it_ends_its_cells_even_as_a_background_job(tmp_path: Path) -> None:
    stage = "detection-full-seed-0-*"
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [sys.executable, str(TOOL), str(config), "--folder", str(folder)]
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


def last_checkpoint(place: Path) -> Path | None:
    """Return a checkpoint of a cell of either task."""
    return next(iter([*place.glob("run/weights/last.pt"), *place.glob("run/iter_*.pth")]), None)


@pytest.mark.parametrize("writer", [write, write_segmentation])
def test_a_stopped_cell_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, writer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = writer(tmp_path / "c.yaml", scenes={**SCENES, "train": 32})
    content = yaml.safe_load(config.read_text())
    [block] = [content[task] for task in ("detection", "segmentation") if task in content]
    if "epochs" in block["host"]:
        block["host"]["epochs"] = 4
    else:
        block["host"]["default_hooks.checkpoint.interval"] = 2
        block["iterations"] = 32
    config.write_text(yaml.safe_dump(content))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ["--only", "loss 0.5"]
    assert main([str(config), "--folder", str(whole), *words]) == 0
    capsys.readouterr()
    process = subprocess.Popen(
        [sys.executable, str(TOOL), str(config), "--folder", str(stopped), *words], stderr=subprocess.PIPE
    )
    place = None
    while place is None or last_checkpoint(place) is None:
        place = next(stopped.glob("*-loss-0.5*/run"), tmp_path).parent
        assert process.poll() is None, "it came to its end"
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 130 and (place / "started.json").exists() and not (place / "result.json").exists()
    assert not list(stopped.glob("*.lock")), "locks are released"
    assert main([str(config), "--folder", str(stopped), *words]) == 0
    found = [json.loads(next(f.glob("*-loss-0.5*/result.json")).read_text()) for f in (whole, stopped)]
    assert [result["resumed"] for result in found] == [False, True]
    for key in ("quality", "by_class", "images", "curve", "selection", "initial_weights", "schedule", "metrics"):
        one, other = ({**r[key], "seconds": None} if key == "curve" else r[key] for r in found)
        assert one == other, key
    assert "\N{SECTION SIGN} 0" in (stopped / "index.html").read_text(), "its seconds do not count"
    kept = [path.name for path in place.rglob("*") if path.suffix in (".pt", ".pth")]
    assert len(kept) == 1 and (kept == ["last.pt"] or kept[0].startswith("iter_")), "the others are removed"


def test_what_cannot_go_on_starts_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a stop between the last epoch and the result."""
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [str(config), "--folder", str(folder), "--only", "loss", "--keep-checkpoints", "--devices", "cpu"]
    assert main(words) == 0
    [place] = folder.glob("*-loss-0.5*/")
    first = json.loads((place / "result.json").read_text())
    assert (place / "run/weights/best.pt").exists() and first["device"] == "cpu"
    (place / "result.json").unlink()
    assert main(words) == 0
    again = json.loads((place / "result.json").read_text())
    assert again["resumed"] is False and again["quality"] == first["quality"]
    # a step that only the toolbox refuses
    (place / "result.json").unlink()
    (place / "run/weights/agent_last.pt").unlink()
    assert main(words) == 0
    assert json.loads((place / "result.json").read_text())["quality"] == first["quality"]


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """No cell runs twice, and both end with all of them."""
    config, folder = write(tmp_path / "c.yaml"), tmp_path / "out"
    words = [sys.executable, str(TOOL), str(config), "--folder", str(folder), "--only", "0.5 seed"]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    names = [
        line.partition(": finished in")[0] for text in said for line in text.splitlines() if ": finished in" in line
    ]
    assert sorted(names) == sorted({f"detection {label} 0.5 seed 0" for label in (*CONTROLS, "loss")}), said
    assert len(list(folder.glob("detection-*/result.json"))) == 4 and not list(folder.glob("*.lock"))


def test_a_time_limit_stops_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "c.yaml")
    assert main([str(config), "--folder", str(tmp_path / "out"), "--only", "loss", "--time-limit", "1e-6"]) == 124
    assert "the same command goes on with what is left" in capsys.readouterr().out
    assert not list(tmp_path.glob("out/*-loss*/failed.json")) and not list(tmp_path.glob("out/*-loss*/result.json"))
