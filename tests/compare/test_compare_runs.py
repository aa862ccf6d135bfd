"""Comparisons that are run: real cells in processes of their own. Tests share what one fixture has trained."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from compare_runs import SCENES, Here, write, write_segmentation
from compare_strategies import WAITS
from rich.console import Console

from det_seg_agent.compare import pool, preparing
from det_seg_agent.compare.cells import CONTROLS, SHORT, Cell
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.detection import Detection
from det_seg_agent.compare.images import FILE, class_iou, resampled
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.store import Store
from det_seg_agent.det import judge

pytestmark = pytest.mark.slow  # it trains

TOOL = Path(__file__).parents[2] / "tools/compare.py"
HELPERS = Path(__file__).parents[1] / "helpers"
LOSS = {"label": "loss", "strategy": "compare_strategies:Patient"}
BREAKS = {"label": "breaks", "strategy": "compare_strategies:Broken"}
KEEPING = ["--keep-checkpoints", "--devices", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def children() -> Iterator[None]:
    """Let the processes of cells import the strategies of `compare_strategies`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]))
        yield


@dataclass
class Made:
    """A comparison with finished cells.

    Attributes:
        config: its YAML.
        folder: its cells; a test that changes them works on a copy.
        resolved: what `prepare` found, the same for all cells of a task.
        status, said, page: of the first command.
    """

    config: Path
    folder: Path
    resolved: dict[str, str]
    status: int = 0
    said: str = ""
    page: str = ""

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results of finished cells, by label and epochs."""
        found = {}
        for path in self.folder.glob("*/result.json"):
            if not path.parent.name.startswith("calibrate"):
                cell = Cell(**json.loads(path.with_name("cell.json").read_text()))
                outcome = {**json.loads(path.read_text()), "place": str(path.parent)}
                found[f"{cell.label} {cell.epochs or ''}".strip()] = outcome
        return found

    def words(self, folder: Path | None = None, *more: str) -> list[str]:
        """Return the words of a command."""
        return [str(self.config), "--folder", str(folder or self.folder), *more]

    def beside(self, tmp_path: Path) -> Path:
        """Return a folder with the data and the measured pace, without cells."""
        for path in self.folder.glob("*"):
            if path.is_dir() and path.name.startswith(("scenes-", "calibrate-")):
                shutil.copytree(path, tmp_path / "out" / path.name)
        return tmp_path / "out"

    def copied(self, tmp_path: Path) -> Path:
        """Return a folder with all cells."""
        return Path(shutil.copytree(self.folder, tmp_path / "out"))

    def skip_preparing(self, patch: pytest.MonkeyPatch) -> None:
        """Have commands of this process take what `prepare` found the first time."""

        def known(runner: Any, cells: list[Cell], *_: Any) -> list[Cell]:
            return [replace(cell, resolved=self.resolved) for cell in cells]

        patch.setattr(pool.Runner, "prepare", known)


def said_by(words: list[str]) -> tuple[int, str]:
    """Run a command in this process; return its status and output."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(words)
    return status, said.getvalue()


def finish(runner: pool.Runner, cells: list[Cell]) -> None:
    """Run cells in this process."""
    for cell in cells:
        assert runner.one(cell).status == 0


def begin(config: Path, folder: Path) -> tuple[pool.Runner, list[Cell]]:
    """Read settings and data and measure the pace in this process; return what runs cells here, and the cells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "Processes", Here)
        runner = pool.Runner(folder)
    cells, console = read(config)[1], Console()
    cells = runner.prepare(cells, {cell.task for cell in cells}, console)
    runner.calibrate(cells, console)
    return runner, cells


# Detection -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detection(children: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two cells of a comparison, one of which fails; all checkpoints are kept."""
    home = tmp_path_factory.mktemp("detection")
    config, folder = write(home / "c.yaml", strategies=[LOSS]), home / "out"
    both = write(home / "breaks.yaml", strategies=[BREAKS, LOSS])
    _, cells = begin(config, folder)
    made = Made(config, folder, cells[0].resolved)
    with pytest.MonkeyPatch.context() as patch:
        made.skip_preparing(patch)
        made.status, made.said = said_by([str(both), "--folder", str(folder), "--only", "s 0.5", *KEEPING])
    made.page = (folder / "index.html").read_text()
    return made


def test_a_cell_that_fails_is_told_and_the_others_go_on(detection: Made) -> None:
    assert detection.status == 1 and "FAILED" in detection.said
    text = detection.page
    assert "failed with status" in text and "on purpose" in text and ">loss 0.5<" in text
    assert "the others take about" in detection.said


def test_what_cannot_go_on_starts_again(detection: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a stop between the last epoch and the result."""
    detection.skip_preparing(monkeypatch)
    folder = detection.copied(tmp_path)
    [place] = folder.glob("*-loss-0.5*/")
    first = detection.results["loss"]
    assert (place / "run/weights/best.pt").exists() and first["device"] == "cpu"
    (place / "result.json").unlink()
    assert main(detection.words(folder, "--only", "loss", *KEEPING)) == 0
    again = json.loads((place / "result.json").read_text())
    assert again["resumed"] is False and again["quality"] == first["quality"]


def test_the_last_weights_are_judged(detection: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best ones would be chosen on the set that is reported; `test_det_judge.py` has what `weights` does.

    This attempt begins again too: the state beside its checkpoint is missing.
    """
    judged, stock = [], judge.judge

    def note(trainer: Any, weights: str) -> Any:
        judged.append(weights)
        return stock(trainer, weights)

    monkeypatch.setattr(judge, "judge", note)
    [place] = detection.copied(tmp_path).glob("*-loss-0.5*/")
    (place / "result.json").unlink()
    (place / "run/weights/agent_last.pt").unlink()
    cell = Cell(**json.loads((place / "cell.json").read_text()))
    outcome = Detection(cell, place, "cpu").train(calibrate=False, resume=True)
    assert outcome["resumed"] is False and outcome["quality"] == detection.results["loss"]["quality"]
    assert judged == ["last"] and outcome["quality"] == outcome["metrics"]["AP"]
    assert_by_class(outcome, place, "AP")
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


@pytest.fixture(scope="module")
def whole(detection: Made) -> tuple[str, str]:
    """What two processes say that train the controls that select at the same time; then the rest is trained here."""
    words = detection.words(None, "--only", "0.5 seed")
    other = subprocess.Popen(
        [sys.executable, str(TOOL), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with pytest.MonkeyPatch.context() as patch:
        detection.skip_preparing(patch)
        status, said = said_by([*words, "--jobs", "2"])
        theirs = other.communicate(timeout=500)[0]
        assert (status, other.returncode) == (0, 0), said + theirs
        assert len(detection.results) == 4 and not list(detection.folder.glob("*.lock"))
        runner, cells = begin(detection.config, detection.folder)
        finish(runner, [cell for cell in cells if runner.result(cell) is None])
        assert main(detection.words()) == 0
    return said, theirs


def test_two_processes_share_a_folder(detection: Made, whole: tuple[str, str]) -> None:
    """No cell runs twice, and both end with all of them."""
    lines = [line for text in whole for line in text.splitlines() if ": finished in" in line]
    names = [line.partition(": finished in")[0] for line in lines]
    assert sorted(names) == sorted(f"detection {label} 0.5 seed 0" for label in CONTROLS), whole
    assert len(list(detection.folder.glob("detection-*/result.json"))) == 7
    assert not list(detection.folder.glob("*.lock"))


def test_cells_run_are_kept_and_run_again_when_they_change(
    detection: Made, whole: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection.skip_preparing(monkeypatch)
    folder = detection.copied(tmp_path)
    first = next(folder.glob("detection-loss*/result.json"))
    assert "1 of 4 cells are finished; the others take about" in whole[0]
    assert "loss 0.5 seed 0" not in "".join(whole), "it is not trained again"
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
    assert html.count("<svg") == 3 and "duplicate" in html and "not run" not in html

    # The same YAML with another strategy has one cell to run; one of other sources is run again, and stays.
    store = Store(folder, keep_older=True)
    entropy = write(tmp_path / "c.yaml", strategies=["entropy"])
    changed = [replace(cell, resolved=detection.resolved) for cell in read(entropy)[1]]
    assert [cell.label for cell in changed if store.result(cell) is None] == ["entropy"]
    first.write_text(json.dumps({**json.loads(first.read_text()), "sources": "others"}))
    assert main(detection.words(folder, "--page-only", "--keep-older")) == 0
    assert "\N{DOUBLE DAGGER} 0" in (folder / "index.html").read_text() and not list(folder.glob("look-*"))
    status, said = said_by(detection.words(folder))
    assert status == 0 and "1 cells were finished by another state" in said
    assert json.loads(first.read_text())["sources"] == "others"
    assert len(list(folder.glob("detection-loss*/result.json"))) == 2


def test_a_time_limit_stops_what_runs(detection: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detection.skip_preparing(monkeypatch)
    folder = detection.beside(tmp_path)
    status, said = said_by(detection.words(folder, "--only", "loss", "--time-limit", "1e-6"))
    assert status == 124 and "the same command goes on with what is left" in said
    assert not list(folder.glob("*-loss*/failed.json")) and not list(folder.glob("*-loss*/result.json"))


# Segmentation --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmentation(children: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The cells of a comparison that are no controls, and the measured pace."""
    home = tmp_path_factory.mktemp("segmentation")
    config, folder = write_segmentation(home / "c.yaml", strategies=[LOSS]), home / "out"
    runner, cells = begin(config, folder)
    finish(runner, [cell for cell in cells if cell.label not in CONTROLS])
    return Made(config, folder, cells[0].resolved)


def test_segmentation_trains_every_role(segmentation: Made) -> None:
    found = segmentation.results
    for outcome in found.values():
        assert_by_class(outcome, Path(outcome["place"]), "mIoU")
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
    rates = {label: learning_rates(segmentation.folder, label) for label in ("full", "full-shorter", "loss")}
    assert rates["full-shorter"] == rates["loss"] != rates["full"], "it falls to the end"


def learning_rates(folder: Path, label: str) -> list[float]:
    """Return the learning rate of each iteration of a cell."""
    rest = "seed" if label == "full" else "0"  # of the folder's name: "full" begins "full-shorter" too
    path = next(folder.glob(f"segmentation-{label}-{rest}*/run/*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["lr"] for row in rows if "lr" in row]


def test_a_config_with_settings_of_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparing, "Processes", Here)
    config = write_segmentation(tmp_path / "c.yaml")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(recipe.read_text() + "agent = dict(final_full=0.5)\n")
    assert main([str(config), "--folder", str(tmp_path / "out")]) == 2
    assert "agent.final_full: in a comparison" in capsys.readouterr().err


# Both ----------------------------------------------------------------------------------------------------------------


def last_checkpoint(place: Path) -> Path | None:
    """Return a checkpoint of a cell of either task."""
    return next(iter([*place.glob("run/weights/last.pt"), *place.glob("run/iter_*.pth")]), None)


def stopped(words: list[str], waits: Path) -> str:
    """Run a command as a background job until its cell waits, and terminate it; return what it said of errors."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what ends with &
    try:
        process = subprocess.Popen(
            [sys.executable, str(TOOL), *words], stderr=subprocess.PIPE, text=True,
            env={**os.environ, WAITS: str(waits)},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    while not waits.exists():
        assert process.poll() is None, "it came to its end"
        time.sleep(0.05)
    cells = psutil.Process(process.pid).children()
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and cells
    assert not psutil.wait_procs(cells, timeout=5)[1], "a cell went on alone"
    return said


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_stopped_cell_goes_on_and_ends_as_one_that_was_not(
    task: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Made = request.getfixturevalue(task)
    folder = made.beside(tmp_path)
    words = made.words(folder, "--only", "loss 0.5")
    assert "finished cells are kept" in stopped(words, tmp_path / "waits")
    [place] = (path.parent for path in folder.glob("*-loss-0.5*/run"))
    assert last_checkpoint(place) and (place / "started.json").exists() and not (place / "result.json").exists()
    assert not list(folder.glob("*-loss-0.5*/outcome.json")), "it came to its end"
    assert not list(folder.glob("*/failed.json")), "what was stopped did not fail"
    assert not list(folder.glob("*.lock")), "locks are released"
    made.skip_preparing(monkeypatch)
    assert main(words) == 0
    found = [made.results["loss"], json.loads((place / "result.json").read_text())]
    assert [result["resumed"] for result in found] == [False, True]
    for key in ("quality", "by_class", "images", "curve", "selection", "initial_weights", "schedule", "metrics"):
        one, other = ({**r[key], "seconds": None} if key == "curve" else r[key] for r in found)
        assert one == other, key
    assert "\N{SECTION SIGN} 0" in (folder / "index.html").read_text(), "its seconds do not count"
    kept = [path.name for path in place.rglob("*") if path.suffix in (".pt", ".pth")]
    assert len(kept) == 1 and (kept == ["last.pt"] or kept[0].startswith("iter_")), "the others are removed"
