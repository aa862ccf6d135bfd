"""`AgentTrainer` on the real `Trainer`: six families of models, each tiny, from configuration."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hf_runs import COUNT, MODELS, Images, Recorded, Texts, data_of, model_of, same, trainer_of, vit
from same import equal
from transformers import TrainerCallback

from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

HELPERS = Path(__file__).parents[1] / "helpers"
HALF = {"ratio": 0.5}
COUNTS = [40, 20, 20, 40]
STEPS = [5, 3, 3, 5]  # of batches of 8


class Whole(NamedTuple):
    """A run without a stop, with a checkpoint within its second pass and one at the end of its third."""

    name: str
    folder: Path
    trainer: Any
    data: Any


def selected(folder: Path) -> list[list[int]]:
    """Return the samples that each pass of a run selected, by its trace."""
    table = read(folder / "trace")
    assert table is not None
    passes: dict[int, list[int]] = {}
    for row in table.select(["pass", "sample", "selected"]).to_pylist():
        if row["selected"]:
            passes.setdefault(row["pass"], []).append(int(row["sample"]))
    return [sorted(passes[index]) for index in sorted(passes)]


@pytest.fixture(scope="module", params=MODELS)
def whole(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = Images(noise=True) if name == "vit" else data_of(name, scenes)
    recorded = Recorded(data)
    trainer = trainer_of(
        model_of(name, data), recorded, folder, HALF, save_strategy="steps", save_steps=7,
        trainer_given={"eval_dataset": data}, eval_strategy="no",
    )  # fmt: skip
    trainer.train()
    return Whole(name, folder, trainer, recorded)


def test_a_run_trains_on_its_selections_exactly(whole: Whole) -> None:
    run = whole.trainer.run
    assert [row["selected"] for row in run.selector.history] == COUNTS
    assert [row["images"] for row in run.selector.history] == [40, 60, 80, 120]
    assert whole.trainer.state.global_step == sum(STEPS) == run.plan.steps and whole.trainer.state.epoch == 4
    if hasattr(whole.data.dataset, "files"):  # Recorded hides them
        assert run.selector.samples is None
    passes, walked = selected(whole.folder), iter(whole.data.seen)
    assert [len(chosen) for chosen in passes] == COUNTS
    for chosen in passes:
        assert sorted(next(walked) for _ in chosen) == chosen
    table = run.selector.table
    assert bool((table.seen > 0).all()) and bool(table.loss.isfinite().all())
    assert bool(((table.entropy >= 0) & (table.entropy <= 1)).all()) and float(table.loss.std()) > 0


def test_the_learning_rate_follows_the_selections(whole: Whole) -> None:
    rates = [row["learning_rate"] for row in whole.trainer.state.log_history if "learning_rate" in row]
    assert len(rates) == 8 and rates[-1] == pytest.approx(1e-3 / 16)  # the last of 16 steps
    assert set(whole.trainer.lr_scheduler.get_last_lr()) == {0}


def test_a_run_leaves_figures_and_pictures(whole: Whole) -> None:
    figures = json.loads((whole.folder / "metrics.json").read_text())
    assert figures["passes"] == 4 and figures["images_trained"] == 120 and figures["budget"] == 0.75
    logged = [row for row in whole.trainer.state.log_history if "agent/selected" in row]
    assert [row["agent/selected"] for row in logged] == COUNTS and "agent/balance" in logged[0]
    assert [row["epoch"] for row in logged] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("whole", "step"), [*((name, 7) for name in MODELS), ("vit", 14), ("llama", 14)], indirect=["whole"]
)
def test_a_run_goes_on_exactly_from_a_checkpoint(whole: Whole, step: int, tmp_path: Path) -> None:
    """From within a pass: the same selections, signals and weights as without a stop."""
    shutil.copytree(whole.folder, tmp_path / "run")
    for later in (14, 16)[step // 14 :]:
        shutil.rmtree(tmp_path / f"run/checkpoint-{later}")
    data = whole.data.dataset
    trainer = trainer_of(
        model_of(whole.name, data), Recorded(data), tmp_path / "run", HALF, save_strategy="steps", save_steps=7
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=True)
    assert same(whole.trainer.model, trainer.model)
    assert equal(whole.trainer.run.selector.state_dict(), trainer.run.selector.state_dict())
    one, two = read(whole.folder / "trace"), read(tmp_path / "run/trace")
    assert one is not None and one.equals(two)


@pytest.mark.parametrize("name", MODELS)
def test_full_is_the_stock_training(name: str, scenes: Path, tmp_path: Path) -> None:
    data = Images(noise=True) if name == "vit" else data_of(name, scenes)
    model, more = model_of(name, data), {"num_train_epochs": 1.5}
    stock = trainer_of(model, data, tmp_path / "stock", stock=True, **more)
    loss = stock.train().training_loss
    full = trainer_of(model, data, tmp_path / "full", {"strategy": "full"}, **more)
    assert full.train().training_loss == loss
    assert same(stock.model, full.model)
    kept = [
        {k: v for k, v in row.items() if "second" not in k and "runtime" not in k} for row in stock.state.log_history
    ]
    assert kept == [
        {k: v for k, v in row.items() if "second" not in k and "runtime" not in k}
        for row in full.state.log_history if "agent/selected" not in row
    ]  # fmt: skip
    table = full.run.selector.table
    assert [row["images"] for row in full.run.selector.history] == [40, 64]  # 8 steps: three of the second epoch
    assert bool((table.seen >= 0).all()) and bool(table.loss.isfinite().all())


def test_full_goes_on_within_an_epoch(tmp_path: Path) -> None:
    """Also where the host would not load the weights again that it saves by other names."""
    more = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2}
    whole = trainer_of(vit, Images(), tmp_path, {"strategy": "full"}, **more)
    whole.train()
    again = trainer_of(vit, Images(), tmp_path, {"strategy": "full"}, **more)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(whole.model, again.model)
    assert [row["images"] for row in again.run.selector.history] == [40, 80]
    assert bool((again.run.selector.table.loss == whole.run.selector.table.loss).all())


def test_accumulation_and_bfloat16(tmp_path: Path) -> None:
    """Passes of an odd number of batches; a resume within one."""
    more = {"gradient_accumulation_steps": 2, "bf16": True, "save_strategy": "steps", "save_steps": 4}
    data = Recorded(Texts())
    whole = trainer_of(MODELS["llama"], data, tmp_path, HALF, **more)
    whole.train()
    assert whole.state.global_step == sum(-(-batches // 2) for batches in STEPS) == 10
    walked = iter(data.seen)
    assert all(sorted(next(walked) for _ in chosen) == chosen for chosen in selected(tmp_path))
    assert whole.run.selector.table.loss.dtype == torch.float32
    again = trainer_of(MODELS["llama"], data, tmp_path, HALF, **more)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(whole.model, again.model)
    assert equal(whole.run.selector.state_dict(), again.run.selector.state_dict())


def test_steps_and_warm_up_count_full_training(tmp_path: Path) -> None:
    trainer = trainer_of(vit, Images(), tmp_path, HALF, max_steps=20, warmup_steps=8, logging_steps=1)
    trainer.train()
    assert [row["selected"] for row in trainer.run.selector.history] == COUNTS
    assert trainer.state.global_step == 16 and trainer.run.plan.budget == 0.75
    rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert max(range(16), key=rates.__getitem__) == 6 and trainer.args.warmup_steps == 8  # 0.75 x 8 steps


def test_evaluation_saving_and_workers_by_epoch(tmp_path: Path) -> None:
    """Epochs of the host are passes; workers that stay get each selection, and draw what one process draws."""

    class Once(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.epochs = [*getattr(self, "epochs", []), state.epoch]

    once = Once()
    more = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 3}
    given = {"eval_dataset": Images(8, seed=1)}
    plain = trainer_of(
        MODELS["resnet"], Images(noise=True), tmp_path / "a", HALF, callbacks=[once], trainer_given=given, **more
    )
    plain.train()
    assert once.epochs == [1, 2, 3]
    assert [path.name for path in sorted((tmp_path / "a").glob("checkpoint-*"))] == [
        "checkpoint-13", "checkpoint-5", "checkpoint-8"
    ]  # fmt: skip
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    other = trainer_of(
        MODELS["resnet"], Images(noise=True), tmp_path / "b", HALF, trainer_given=given, **more, **workers
    )
    other.train()
    assert torch.equal(plain.run.selector.selection.indices, other.run.selector.selection.indices)
    assert torch.equal(plain.run.selector.table.loss, other.run.selector.table.loss)


def test_tensorboard_has_the_columns(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tmp_path / "board")
    try:
        trainer_of(vit, Images(), tmp_path / "run", HALF, report_to="tensorboard", num_train_epochs=2).train()
    finally:
        del os.environ["TENSORBOARD_LOGGING_DIR"]
    found = EventAccumulator(str(next((tmp_path / "board").rglob("events*")).parent)).Reload()
    assert [row.value for row in found.Scalars("train/agent/selected")] == [40, 40]


MOMENTS = {
    "vit": ["step:5", "step:4", "optimizer:1", "state:1"],
    "llama": ["replace:3", "trace:1", "step:2"],
    **{name: ["step:5", "state:1"] for name in ("swin", "resnet", "segformer", "upernet")},
}


@pytest.fixture(scope="module")
def killed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the killed runs of all families lie, and what their process said."""
    folder = tmp_path_factory.mktemp("killed")
    runs = [f"{name}={','.join(moments)}" for name, moments in MOMENTS.items()]
    words = [sys.executable, str(HELPERS / "kill_hf.py"), str(folder), str(scenes), *runs]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stderr[-3000:]


@pytest.mark.parametrize("name", MOMENTS)
def test_a_killed_run_goes_on_exactly(name: str, killed: tuple[Path, str]) -> None:
    """SIGKILL within steps, files of checkpoints and the trace; with random augmentation in one of them."""
    folder, said = killed[0] / name, killed[1]
    assert json.loads((folder / "ends.json").read_text()) == [0, *[9] * len(MOMENTS[name]), 0], said
    one, two = (torch.load(folder / kind / "final.pt") for kind in ("whole", "killed"))
    assert equal(one, two)
    assert read(folder / "whole/trace").equals(read(folder / "killed/trace"))  # type: ignore[union-attr]


def test_two_processes_train_on_one_selection(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += [str(HELPERS / "ddp_hf.py"), str(tmp_path), "vit", "llama", "weights", "full", "stock"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]
    for name in ("vit", "llama", "weights"):
        assert equal(ranks[0][name]["passes"], ranks[1][name]["passes"]), name
        assert equal(ranks[0][name]["weights"], ranks[1][name]["weights"]), name
    counts = {"vit": [40, 20, 40], "llama": [40, 19, 40], "weights": [40, 20, 40]}
    for name, wanted in counts.items():
        assert [len(chosen) for chosen in ranks[0][name]["passes"].values()] == wanted
        history = ranks[0][name]["state"]["history"]
        assert history[-1]["images"] == sum(-(-count // 8) * 8 for count in wanted)  # filled up to 2 x 4
        assert bool((ranks[0][name]["state"]["table"]["seen"] > 0).all())
    assert ranks[0]["llama"]["steps"] == 3 + 2 + 3
    assert equal(ranks[0]["vit"]["weights"], ranks[0]["vit_resumed"]["weights"])
    assert equal(ranks[0]["vit"]["state"], ranks[0]["vit_resumed"]["state"])
    assert equal(ranks[0]["full"]["weights"], ranks[0]["stock"]["weights"])
    assert ranks[0]["full"]["state"]["history"][-1]["images"] == 3 * COUNT
