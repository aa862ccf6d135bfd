"""Detection under faults: kills, other data and models, NaN, memory, broken images, a full disk, many passes."""

import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kill_det
import pytest
import torch
from det_runs import fit
from same import equal
from ultralytics import YOLO

from det_seg_agent import ConfigError, Selector, StateError
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

# How often each moment comes, before the last epoch's checkpoint: batches of 8 of 48, 19, 19 and 48 images.
MOMENTS = {"batch": 18, "last": 3, "state": 6, "trace": 4, "replace": 17, "replaced": 17}
RUN = {"epochs": 4, "nbs": 8, "warmup_epochs": 0, "optimizer": "SGD", "val": False}
TRAINER = AgentDetectionTrainer.configured(ratio=0.4, final_full=0)


def copy_of(data_yaml: str, folder: Path) -> Path:
    """Copy the data set, with images of its own; return its YAML."""
    scenes = Path(data_yaml).parent.parent
    shutil.copytree(scenes, folder / "scenes", symlinks=True)
    return folder / "scenes" / Path(data_yaml).relative_to(scenes)


# Stops --------------------------------------------------------------------------------------------------------------


def test_ten_kills_leave_the_run_as_it_would_have_been(data_yaml: str, tmp_path: Path) -> None:
    """Policy, table, selections, trace and weights of resumed runs are those of the run without a kill."""
    draw = random.Random(0)
    every = [f"{kind}:{n}" for kind, times in MOMENTS.items() for n in range(1, times + 1)]
    one_of_each = [f"{kind}:{draw.randint(1, times)}" for kind, times in MOMENTS.items()]
    moments = [*one_of_each, *draw.sample([moment for moment in every if moment not in one_of_each], 4)]
    done = subprocess.run(
        [sys.executable, kill_det.__file__, data_yaml, str(tmp_path), *moments],
        capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads((tmp_path / "ends.json").read_text())
    whole, trace = state_of(tmp_path / "whole"), read(tmp_path / "whole/trace")
    weights = weights_of(tmp_path / "whole")
    assert trace is not None and len(trace) == 4 * 48
    for moment in moments:
        folder = tmp_path / moment.replace(":", "_")
        assert os.WTERMSIG(ends[moment][0]) == signal.SIGKILL and ends[moment][1] == 0, (moment, done.stderr[-3000:])
        assert equal(whole, state_of(folder)), moment
        assert trace.equals(read(folder / "trace")), moment
        assert equal(weights, weights_of(folder)), moment
        assert not [path for path in folder.glob("**/.*.part")], moment


def state_of(folder: Path) -> Any:
    """Return the selector's state of a run."""
    return torch.load(folder / "weights/agent_last.pt", weights_only=True)["selector"]


def weights_of(folder: Path) -> Any:
    """Return the weights of a run's checkpoint."""
    found = torch.load(folder / "weights/last.pt", weights_only=False)
    return (found["model"] or found["ema"]).state_dict()


def test_ctrl_c_within_a_pass_is_resumed(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    class Stopping(TRAINER):  # type: ignore[misc,valid-type]
        def optimizer_step(self) -> None:
            super().optimizer_step()
            if self.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    whole = fit(model_yaml, data_yaml, tmp_path, "whole", TRAINER, **RUN)
    with pytest.raises(KeyboardInterrupt):
        fit(model_yaml, data_yaml, tmp_path, "cut", Stopping, **RUN)
    YOLO(tmp_path / "cut/weights/last.pt").train(trainer=AgentDetectionTrainer, resume=True)
    assert equal(state_of(whole.save_dir), state_of(tmp_path / "cut"))
    one, two = read(whole.save_dir / "trace"), read(tmp_path / "cut/trace")
    assert one is not None and one.equals(two)


def test_a_resume_on_other_data_strategy_or_model_is_refused(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    class Stopping(TRAINER):  # type: ignore[misc,valid-type]
        def optimizer_step(self) -> None:
            super().optimizer_step()
            if self.epoch == 2:
                raise KeyboardInterrupt

    data = copy_of(data_yaml, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(model_yaml, str(data), tmp_path, "run", Stopping, **RUN)
    last = tmp_path / "run/weights/last.pt"
    trace = read(tmp_path / "run/trace")

    def resume(trainer: Any = AgentDetectionTrainer) -> None:
        for cache in data.parent.glob("**/*.cache"):
            cache.unlink()
        YOLO(last).train(trainer=trainer, resume=True)

    with pytest.raises(ConfigError, match="agent.strategy='agent'"):
        resume(AgentDetectionTrainer.configured(strategy="random"))
    listed = data.parent / "train.txt"
    names = listed.read_text().splitlines()
    listed.write_text("\n".join(names[1:]) + "\n")
    with pytest.raises(StateError, match=r"1 removed \(.*48 then, 47 now"):
        resume()
    listed.write_text("\n".join(names) + "\n")
    images = (data.parent / names[0]).parent
    shutil.copy(data.parent / names[0], images / "another.jpg")
    listed.write_text("\n".join([*names, f"{names[0].rpartition('/')[0]}/another.jpg"]) + "\n")
    with pytest.raises(StateError, match=r"1 added \(another.jpg\); 48 then, 49 now"):
        resume()
    listed.write_text("\n".join(names) + "\n")
    state = torch.load(last.parent / "agent_last.pt", weights_only=True)
    key = next(iter(state["training"]["model"]))
    state["training"]["model"][key] = torch.zeros(2, 3, 3, 3)
    torch.save(state, last.parent / "agent_last.pt")
    with pytest.raises(StateError, match=r"^the saved weights do not fit this model \(.{1,145}\); resume with"):
        resume()
    assert trace is not None and trace.equals(read(tmp_path / "run/trace")), "a refused resume changes nothing"


# Faults while training ----------------------------------------------------------------------------------------------


def test_nan_takes_the_selector_back_to_the_checkpoint(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    """The host loads last.pt and makes the pass again: the same selection, and nothing is counted twice."""
    chosen: list[tuple[int, list[int]]] = []

    class Poisoned(TRAINER):  # type: ignore[misc,valid-type]
        def _on_train_epoch_start(self) -> None:
            super()._on_train_epoch_start()
            chosen.append((self.epoch, self.selector.selection.indices.tolist()))
            # What the pass before left is what the checkpoint holds, after NaN too.
            if self.epoch == 2:
                saved = torch.load(self.wdir / "agent_last.pt", weights_only=True)["selector"]
                assert equal(saved["table"]["loss"], self.selector.table.loss)
                assert equal(saved["strategy"]["ppo"], self.selector.strategy.state_dict()["ppo"])

        def preprocess_batch(self, batch: Any) -> Any:
            batch = super().preprocess_batch(batch)
            if len(chosen) == 3:
                batch["img"] = batch["img"] * float("nan")
            return batch

    trainer = fit(model_yaml, data_yaml, tmp_path, "run", Poisoned, **RUN)
    assert [epoch for epoch, _ in chosen] == [0, 1, 2, 2, 3]
    assert chosen[2] == chosen[3]
    assert [row["images"] for row in trainer.selector.history] == [48, 67, 86, 105]
    assert int(trainer.selector.table.selected.sum()) == 105 and bool(trainer.selector.table.loss.isfinite().all())
    table = read(trainer.save_dir / "trace")
    assert table is not None and len(table) == 4 * 48


def test_out_of_memory_halves_the_batch_and_begins_again(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    batches: list[tuple[int, int]] = []
    steps: list[int] = []

    class Short(TRAINER):  # type: ignore[misc,valid-type]
        def preprocess_batch(self, batch: Any) -> Any:
            batch = super().preprocess_batch(batch)
            batches.append((self.epoch, len(batch["img"])))
            if len(batches) == 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate a test.")
            return batch

        def optimizer_step(self) -> None:
            steps.append(self._batches)
            super().optimizer_step()

    trainer = fit(model_yaml, data_yaml, tmp_path, "run", Short, **{**RUN, "epochs": 2, "nbs": 16})
    assert batches[:3] == [(0, 8)] * 3 and {size for _, size in batches[3:-1]} == {4}
    assert len([epoch for epoch, _ in batches[3:] if epoch == 0]) == 12
    assert set(steps[1:]) == {4}, "four batches of four make a nominal batch, and none from before is counted"
    assert [row["images"] for row in trainer.selector.history] == [48, 67]


def test_a_broken_image_is_named_and_the_run_can_go_on(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    data = copy_of(data_yaml, tmp_path)
    broken: list[Path] = []

    class Breaking(TRAINER):  # type: ignore[misc,valid-type]
        def _on_train_epoch_start(self) -> None:
            super()._on_train_epoch_start()
            if self.epoch == 2:
                file = self.train_loader.dataset.im_files[int(self.selector.selection.indices[5])]
                broken.append(Path(file))
                broken.append(Path(shutil.move(file, tmp_path / "kept.jpg")))
                broken[0].write_bytes(b"no image")

    with pytest.raises(StateError, match="the image cannot be read") as error:
        fit(model_yaml, str(data), tmp_path, "run", Breaking, **RUN)
    assert broken[0].name in str(error.value)
    shutil.move(broken[1], broken[0])
    model = YOLO(tmp_path / "run/weights/last.pt")
    model.train(trainer=AgentDetectionTrainer, resume=True)
    assert len(model.trainer.selector.history) == 4


@pytest.mark.draws
def test_a_full_disk_costs_the_trace_and_not_the_run(
    model_yaml: str, data_yaml: str, tmp_path: Path, log: io.StringIO
) -> None:
    class Full(TRAINER):  # type: ignore[misc,valid-type]
        def _on_train_epoch_end(self) -> None:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            if self.epoch in (1, 2):
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # no file may be longer
            try:
                super()._on_train_epoch_end()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    trainer = fit(model_yaml, data_yaml, tmp_path, "run", Full, **RUN)
    table = read(trainer.save_dir / "trace")
    assert table is not None and sorted(set(table["pass"].to_pylist())) == [0, 3]
    told = log.getvalue()
    assert told.count("the trace cannot be written") == 1 and "pass 2 is missing" in told
    assert not list((trainer.save_dir / "trace").glob(".*.part"))
    assert (trainer.save_dir / "agent.png").stat().st_size > 1000


def test_a_state_that_cannot_be_written_stops_the_run(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    class Full(TRAINER):  # type: ignore[misc,valid-type]
        def save_model(self) -> Any:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            if self.epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
            try:
                return super().save_model()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with pytest.raises(StateError, match="agent_last.pt cannot be written"):
        fit(model_yaml, data_yaml, tmp_path, "run", Full, **RUN)
    model = YOLO(tmp_path / "run/weights/last.pt")
    model.train(trainer=AgentDetectionTrainer, resume=True)
    assert model.trainer.start_epoch == 2 and len(model.trainer.selector.history) == 4


# Many passes --------------------------------------------------------------------------------------------------------


def held() -> tuple[int, int]:
    """Return how many tensors live, and how many files are open."""
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects()), len(os.listdir("/proc/self/fd"))


def test_three_hundred_passes_hold_no_more_than_thirty() -> None:
    g = torch.Generator().manual_seed(0)
    features, loss, entropy = torch.randn(64, 8, generator=g), torch.rand(64, generator=g), torch.rand(64, generator=g)
    selector = Selector(64, 300, ratio=0.5, options={"rounds": 1})
    counts = []
    for p in range(300):
        selector.begin_pass(p)
        for rows in torch.tensor(list(selector.sampler)).split(16):
            selector.observe(rows, loss[rows], entropy[rows], features[rows])
        selector.end_pass()
        if p in (30, 250):
            counts.append(held())
    assert counts[0] == counts[1]


def test_sixteen_epochs_of_the_host_leave_no_tensor_or_file_open(
    model_yaml: str, data_yaml: str, tmp_path: Path
) -> None:
    counts: dict[int, tuple[int, int]] = {}

    class Watched(TRAINER):  # type: ignore[misc,valid-type]
        def _on_train_epoch_start(self) -> None:
            super()._on_train_epoch_start()
            counts[self.epoch] = held()

    fit(model_yaml, data_yaml, tmp_path, "run", Watched, **{**RUN, "epochs": 16})
    assert counts[6] == counts[14]
