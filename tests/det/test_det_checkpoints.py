"""A run of ours goes on from any checkpoint that has its state, and says where it cannot; files of any name."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from det_runs import fit, write_model
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent import ConfigError
from det_seg_agent.det.resume import find_state, grab_training, restore_training
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

AGENT = {"ratio": 0.4, "final_full": 0.2}
RUN: dict[str, Any] = {"epochs": 5, "val": False, "optimizer": "SGD", "nbs": 8, "save_period": 1}


class Stop(Exception):
    """The end of a run that is to be resumed."""


def stopping(stock: Any, epoch: int) -> Any:
    """Return a trainer that stops before an epoch."""

    class Stopping(stock):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.add_callback("on_train_epoch_start", Stopping.stop_there)

        def stop_there(self) -> None:
            if self.epoch == epoch:
                raise Stop

    return Stopping


@pytest.fixture(scope="module")
def finished(model_yaml: str, data_yaml: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trainer of a finished run that kept a checkpoint of each epoch."""
    folder = tmp_path_factory.mktemp("finished")
    return fit(model_yaml, data_yaml, folder, "run", AgentDetectionTrainer.configured(**AGENT), **RUN)


def resumed(checkpoint: Path, trainer: Any = AgentDetectionTrainer) -> Any:
    """Resume, and return the trainer."""
    model = YOLO(str(checkpoint))
    model.train(trainer=trainer, resume=True)
    return model.trainer


def copied(finished: Any, folder: Path) -> Path:
    """Return the weights folder of a copy of the run, whose checkpoints know nothing of the first one's place."""
    shutil.copytree(finished.save_dir, folder / "run")
    return folder / "run/weights"


@pytest.mark.parametrize("name", ["epoch1.pt", "epoch3.pt"])
def test_a_kept_epoch_goes_on_with_the_same_selections_and_weights(name: str, finished: Any, tmp_path: Path) -> None:
    weights = copied(finished, tmp_path)
    again = resumed(weights / name)
    assert again.start_epoch == int(name[5]) + 1
    assert again.selector.history[-1]["images"] == finished.selector.history[-1]["images"]
    assert torch.equal(again.selector.table.selected, finished.selector.table.selected)
    one, other = (trainer.model.state_dict() for trainer in (again, finished))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_every_kept_checkpoint_has_a_state_and_none_is_left_alone(finished: Any, tmp_path: Path) -> None:
    names = {path.name for path in finished.wdir.iterdir()}
    assert {f"agent_epoch{i}.pt" for i in range(5)} <= names and {"agent_last.pt", "agent_best.pt"} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_a_checkpoint_without_its_state_is_refused_with_those_that_have_one(finished: Any, tmp_path: Path) -> None:
    weights = copied(finished, tmp_path)
    (weights / "agent_epoch1.pt").unlink()
    with pytest.raises(
        ConfigError, match=r"no agent_epoch1.pt .*put it back.*can be resumed there: epoch0.pt"
    ) as error:
        resumed(weights / "epoch1.pt")
    assert "epoch3.pt (epoch 4)" in str(error.value)
    with pytest.raises(ConfigError, match="its run is finished.*can be resumed there: epoch0.pt"):
        find_state(weights / "last.pt")


def test_a_resumed_run_has_the_optimizers_kernel_of_its_own_device(finished: Any) -> None:
    """The host builds a fused Adam on a GPU, and its loss scaling relies on it; the state may be of a CPU."""
    saved = {"training": grab_training(finished, 0)}
    for group in finished.optimizer.param_groups:
        group["fused"] = True
    restore_training(finished, saved, gradients=False)
    assert all(group["fused"] is True for group in finished.optimizer.param_groups)
    for group in finished.optimizer.param_groups:
        group["fused"] = None


def test_a_stock_resume_in_between_is_noticed(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    stopped = stopping(AgentDetectionTrainer.configured(**AGENT), 2)
    with pytest.raises(Stop):
        fit(model_yaml, data_yaml, tmp_path, "run", stopped, **{**RUN, "save_period": -1})
    last = tmp_path / "run/weights/last.pt"
    with pytest.raises(Stop):
        resumed(last, stopping(DetectionTrainer, 4))
    with pytest.raises(ConfigError, match="of epoch 4, and the agent's state beside it of epoch 2: another trainer"):
        resumed(last)


@pytest.mark.draws
def test_names_of_any_bytes_train_and_resume(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    """As of an archive from Windows, unpacked on Linux: a byte of Latin-1 that is no UTF-8."""
    from det_seg_agent.det.coco_convert import prepare_data

    host = Path(prepare_data(scenes)).parent
    folder = tmp_path / "data"
    for split in ("train", "val"):
        for kind, ending in (("images", ".jpg"), ("labels", ".txt")):
            (folder / kind / split).mkdir(parents=True)
            for path in sorted((host / kind / split).glob(f"*{ending}"))[:12]:
                name = os.fsencode(path.stem) + b"_b\xe4r" + ending.encode()
                shutil.copy(path, os.path.join(os.fsencode(folder / kind / split), name))
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c, d]\n")
    data, model = str(folder / "data.yaml"), write_model(tmp_path)
    whole = fit(model, data, tmp_path, "whole", AgentDetectionTrainer.configured(**AGENT), **RUN)
    with pytest.raises(Stop):
        fit(model, data, tmp_path, "cut", stopping(AgentDetectionTrainer.configured(**AGENT), 3), **RUN)
    again = resumed(tmp_path / "cut/weights/last.pt")
    assert again.selector.history[-1]["images"] == whole.selector.history[-1]["images"]
    assert torch.equal(again.selector.table.selected, whole.selector.table.selected)
    for run in ("whole", "cut"):
        trace = read(tmp_path / run / "trace")
        assert trace is not None and len(trace) == 5 * 12
        assert {path.name for path in (tmp_path / run).glob("*_selected.jpg")} == {
            "most_selected.jpg",
            "least_selected.jpg",
        }
        assert (tmp_path / run / "metrics.json").exists()
