"""Detection in several processes: gloo on a CPU, by the real torchrun and by the host's own launcher."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from det_runs import TINY, write_model
from same import equal
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from det_seg_agent import Selector
from det_seg_agent.det.classes import classes_of
from det_seg_agent.det.settings import VARIABLE, DetSettings, from_environment, in_environment
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.features import FeatureStore, Projector
from det_seg_agent.reporting.trace import read
from det_seg_agent.signals import SignalBuffer
from det_seg_agent.sums import Drift, SampleSums

pytestmark = pytest.mark.slow  # it trains

SCRIPT = str(Path(__file__).parents[1] / "helpers/ddp_det.py")
RUN_AGENT = {"ratio": 0.4, "final_full": 0}  # of ddp_det, which is not imported here: it changes torch for its process


def launch(
    data: str, folder: Path, processes: int, own_launcher: bool = False, **environment: str
) -> list[dict[str, Any]]:
    """Run `ddp_det.py`; return what each rank held at the end, by rank; nothing of ranks that were killed."""
    write_model(folder)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    last = [str(processes)] if own_launcher else []
    done = subprocess.run(
        [sys.executable, *([] if own_launcher else words), SCRIPT, data, str(folder), *last],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    if "STOP_BEFORE" in environment:
        assert "SIGKILL" in done.stderr, done.stderr[-4000:]
        return []
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(processes)]


def check_ranks(ranks: list[dict[str, Any]], folder: Path) -> None:
    """All ranks train on one selection, a sample on one rank but for the padding; rank 0 alone learns and writes."""
    for rank in ranks[1:]:
        for key in ("selections", "padding", "weights", "settings"):
            assert equal(ranks[0][key], rank[key]), key
        assert equal(ranks[0]["state"]["history"], rank["state"]["history"])
        assert not rank["state"]["table"]["selected"].any(), "rank 0 alone learns"
        assert not rank["writes"]
    assert [len(chosen) for chosen in ranks[0]["selections"]] == [48, 19, 19, 19]
    images = 0
    for p, chosen in enumerate(ranks[0]["selections"]):
        shown = [index for rank in ranks for index in rank["shown"][p]]
        padding = ranks[0]["padding"][p]
        assert sorted(set(shown)) == chosen.tolist() and len(shown) == len(chosen) + padding
        assert padding == -len(chosen) % len(ranks)
        assert len({len(rank["shown"][p]) for rank in ranks}) == 1
        images += len(shown)
        assert ranks[0]["state"]["history"][p]["images"] == images, "padding is counted"
    assert ranks[0]["callbacks"] == ranks[1]["callbacks"] == 1
    assert "metrics/mAP50-95(B)" in ranks[0]["judged"]["host"]
    written = [Path(path).name for path in ranks[0]["writes"]]
    assert sorted(name for name in written if name.startswith("pass_")) == [f"pass_000{p}.parquet" for p in range(4)]
    assert written.count("last.pt") == 4 and written.count("agent.png") == 1
    table = read(folder / "run/trace")
    assert table is not None and len(table) == 4 * 48


def one_process(ranks: list[dict[str, Any]], data_yaml: str) -> Selector:
    """Return a selector that one process gave the sums of all ranks, made anew from the signals of each."""
    data = check_det_dataset(data_yaml)
    classes = classes_of(data, YOLODataset(img_path=data["train"], data=data, augment=False))
    selector = Selector(48, 4, DetSettings(**ranks[0]["settings"]), applies_weights=True, classes=classes)
    selector.samples = ranks[0]["state"]["samples"]
    for p, chosen in enumerate(ranks[0]["selections"]):
        assert torch.equal(selector.begin_pass(p).indices, chosen), "two processes select what one does"
        for rank in ranks:
            buffer = SignalBuffer(Projector(selector.strategy.feature_dim, selector.settings.seed or 0))
            for _, given in rank["stream"][p]:
                buffer.add(**{name: value for name, value in given.items() if name != "class_counts"})
            sums = SampleSums(48, FeatureStore(48))
            sums.add(*Drift().push(buffer.drain(), last=True))
            selector.signals._sums.merge(*sums.block(0, 0))
        selector.signals.buffer.projector.in_features = buffer.projector.in_features
        selector.end_pass(sum(len(rank["shown"][p]) for rank in ranks))
    return selector


@pytest.fixture(scope="module")
def two(data_yaml: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What a run of two processes leaves, and where."""
    folder = tmp_path_factory.mktemp("two")
    return launch(data_yaml, folder, 2), folder


@pytest.mark.parametrize("processes", [2, 3])
def test_ranks_hold_the_same_and_what_one_process_would(
    data_yaml: str, tmp_path: Path, processes: int, request: pytest.FixtureRequest
) -> None:
    if processes == 2:
        ranks, folder = request.getfixturevalue("two")
    else:
        ranks, folder = launch(data_yaml, tmp_path, processes), tmp_path
    check_ranks(ranks, folder)
    one = one_process(ranks, data_yaml).state_dict()
    for key in ("table", "strategy", "selection", "previous", "history"):
        assert equal(one[key], ranks[0]["state"][key]), f"{key}, bit for bit"


def test_two_processes_go_on_exactly_after_a_kill(
    two: tuple[list[dict[str, Any]], Path], data_yaml: str, tmp_path: Path
) -> None:
    whole, folder = two
    launch(data_yaml, tmp_path, 2, STOP_BEFORE="2")
    cut = launch(data_yaml, tmp_path, 2, RESUME=str(tmp_path / "run/weights/last.pt"))
    assert equal(whole[0]["state"], cut[0]["state"]), "table, policy, selection and history"
    for one, other in zip(whole, cut, strict=True):
        assert equal(one["weights"], other["weights"])
        assert equal(one["selections"][2:], other["selections"]) and one["shown"][2:] == other["shown"]
    first, second = read(folder / "run/trace"), read(tmp_path / "run/trace")
    assert first is not None and first.equals(second)


def test_the_hosts_launcher_keeps_settings_and_callbacks(data_yaml: str, tmp_path: Path) -> None:
    """The host writes a script and a pickle of the trainer's class, and starts them in two processes."""
    ranks = launch(data_yaml, tmp_path, 2, own_launcher=True)
    check_ranks(ranks, tmp_path)
    assert {key: ranks[1]["settings"][key] for key in RUN_AGENT} == RUN_AGENT


def test_settings_reach_a_trainer_that_is_rebuilt_by_its_name(data_yaml: str, tmp_path: Path) -> None:
    """As by older launchers, which import the plain class; and a later run of the process starts from the defaults."""
    overrides = {**TINY, "model": write_model(tmp_path), "data": data_yaml, "project": str(tmp_path), "name": "run"}
    with in_environment(DetSettings(ratio=0.3, seed=5)):
        trainer = AgentDetectionTrainer(overrides=overrides)
        assert trainer.agent_settings.ratio == 0.3 and trainer.agent_settings.seed == 5
    assert VARIABLE not in os.environ and from_environment() is None
    assert AgentDetectionTrainer(overrides=overrides).agent_settings.ratio == 0.6
