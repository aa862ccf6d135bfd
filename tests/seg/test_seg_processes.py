"""Segmentation in several processes: gloo on a CPU, the real torchrun."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ddp_seg
import pytest
import torch
from same import equal
from seg_runs import fit

from det_seg_agent import StateError
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

Ranks = list[dict[str, dict[str, Any]]]


def launch(processes: int, scenes: Path, folder: Path, *names: str) -> Ranks:
    """Run `ddp_seg.py` under torchrun; return what each rank held at the end, by rank."""
    folder.mkdir(exist_ok=True)
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), ddp_seg.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words, str(scenes), str(folder), *names],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(processes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of two processes lie."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(scenes: Path, folder: Path) -> Ranks:
    """The runs of two processes."""
    return launch(2, scenes, folder, *ddp_seg.RUNS, "command_line")


def check_ranks(ranks: Ranks, name: str) -> None:
    """All ranks train on one selection; each pass shows its samples once, on one rank, but for the padding."""
    runs = [rank[name] for rank in ranks]
    for run in runs[1:]:
        for key in ("selection", "weights", "history", "pass_index"):
            assert equal(runs[0]["state"][key], run["state"][key]), key
        assert not run["state"]["table"]["selected"].any(), "rank 0 alone learns"
        assert equal(runs[0]["passes"], run["passes"])
        for key, value in run["weights"].items():  # the host keeps running statistics by rank
            assert "running" in key or equal(runs[0]["weights"][key], value), key
    start = 0
    for p, iterations in enumerate(runs[0]["iterations"]):
        stop = start + iterations
        shown = [i for run in runs for batch in run["stream"][start:stop] for i in batch]
        selected, padding = runs[0]["passes"][p]
        assert sorted(set(shown)) == selected.tolist()
        assert len(shown) - len(selected) == padding < len(runs) * len(runs[0]["stream"][0])
        assert padding or len(selected) == 48, "19 do not divide into batches"
        start = stop
    assert start == len(runs[0]["stream"])


@pytest.mark.parametrize("name", ["iterations", "epochs", "plain"])
def test_two_processes_hold_and_see_the_same(two: Ranks, name: str) -> None:
    check_ranks(two, name)


def test_three_processes_hold_and_see_the_same(scenes: Path, tmp_path: Path) -> None:
    check_ranks(launch(3, scenes, tmp_path, "iterations"), "iterations")


@pytest.mark.parametrize("loop", ["iterations", "epochs"])
def test_two_processes_go_on_exactly(two: Ranks, folder: Path, loop: str) -> None:
    """Stopped within a pass, after a checkpoint within a pass: the same weights, table, policy and trace."""
    assert equal(two[0][loop]["state"], two[0][f"{loop}_cut"]["state"])
    for rank in two:
        assert equal(rank[loop]["weights"], rank[f"{loop}_cut"]["weights"])
        stream = rank[f"{loop}_cut"]["stream"]
        assert len(stream) > 0 and stream == rank[loop]["stream"][-len(stream) :]
    one, other = read(folder / loop / "trace"), read(folder / f"{loop}_cut/trace")
    assert one is not None and one.equals(other)


def test_two_processes_equal_one_on_the_same_stream(two: Ranks, scenes: Path, tmp_path: Path) -> None:
    """Half the batch in each: the same images in every iteration, the same selections, losses up to rounding."""
    one, both = ddp_seg.run(scenes, tmp_path, 8, **ddp_seg.RUNS["plain"]), [rank["plain"] for rank in two]
    for batch, *halves in zip(one["stream"], *(run["stream"] for run in both), strict=True):
        assert sorted(batch) == sorted(i for half in halves for i in half)
    for p, (selected, _) in one["passes"].items():
        assert torch.equal(selected, both[0]["passes"][p][0])
    table, other = one["state"]["table"], both[0]["state"]["table"]
    for name in ("loss", "entropy"):
        assert torch.allclose(table[name], other[name], rtol=0.01), name
    for name in ("seen", "selected", "last_pass"):
        assert torch.equal(table[name], other[name])


def test_what_two_processes_write_they_write_once(two: Ranks, folder: Path) -> None:
    """By the command line and the host's launcher."""
    run = folder / "command_line"
    assert [rank["command_line"]["status"] for rank in two] == [0, 0]
    result = json.loads((run / "metrics.json").read_text())
    assert result["processes"] == 2 and result["images_trained"] == 80  # 48, and 29 in batches of 8
    assert result["padding"] == 3
    trace = read(run / "trace")
    assert trace is not None and len(trace) == 2 * 48
    logs = list(run.glob("*/*.log"))
    assert len({log.parent for log in logs}) == 1, "one folder of logs"
    assert len(list(run.glob("*/vis_data/scalars.json"))) == 1
    assert (
        sorted(path.name for path in run.glob("*.png")) == ["agent.png", "classes.png"]
        and len(list(run.glob("*.jpg"))) == 2
    )
    assert not list(run.rglob("*.part"))
    for path in run.glob("iter_*.pth"):
        assert torch.load(path, weights_only=True)["det_seg_agent"]["layout"] == {"processes": 2, "batch": 4}


def test_another_number_of_processes_does_not_resume(two: Ranks, folder: Path, scenes: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(folder / "iterations/iter_16.pth", work)
    (work / "last_checkpoint").write_text(str(work / "iter_16.pth"))
    options = {**ddp_seg.LOOPS["iterations"], "agent__ratio": 0.4, "resume": True}
    with pytest.raises(StateError, match=r"processes=2, this one has processes=1"):
        fit(ddp_seg.config_of(scenes, work, **options))
