"""What the host decides about its loop, under selections: time, early ends, shapes, batches and calibration."""

import io
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from det_runs import fit
from loop_runs import IMAGES, LOOP, check_counts, watched
from PIL import Image
from ultralytics.data import build_dataloader
from ultralytics.data.build import ContiguousDistributedSampler
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent import Selector
from det_seg_agent.det.loader import images_of_a_pass, shown_samples, shuffles
from det_seg_agent.det.trainer import AgentDetectionTrainer

pytestmark = pytest.mark.slow  # it trains

FULL = AgentDetectionTrainer.configured(strategy="full")
SOME = AgentDetectionTrainer.configured(ratio=0.4, final_full=0.25)


@pytest.fixture(scope="module")
def oblong(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scenes, a third of them half as high and a third half as wide."""
    scenes, folder = Path(data).parent.parent, tmp_path_factory.mktemp("oblong") / "scenes"
    shutil.copytree(scenes, folder, symlinks=True)
    for i, path in enumerate(sorted((folder / "train").glob("*.jpg"))):
        Image.open(path).resize([(64, 64), (64, 32), (32, 64)][i % 3]).save(path)
    for cache in folder.glob("**/*.cache"):
        cache.unlink()
    return str(folder / Path(data).relative_to(scenes))


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `compile=True` change the loop without compiling, which takes minutes."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")


def same_training(one: Any, other: Any) -> None:
    """Check that two watched trainers were shown the same batches and came to the same weights."""
    assert one.batches == other.batches and one.steps == other.steps
    a, b = (trainer.ema.ema.state_dict() for trainer in (one, other))
    assert all(torch.equal(a[key], b[key]) for key in a)


# Time and early ends ------------------------------------------------------------------------------------------------


def until(estimates: list[int], stock: Any = SOME) -> Any:
    """Return a watched trainer whose host estimates these numbers of epochs, after the first epoch, the second, ..."""

    class Timed(watched(stock)):  # type: ignore[misc]
        def _on_train_epoch_end(self) -> None:
            super()._on_train_epoch_end()
            expected = estimates[min(self.epoch, len(estimates) - 1)]
            done = self.epoch - self.start_epoch + 1
            self.train_time_start = time.time() - done * self.args.time * 3600 / (expected - 0.5)

    return Timed


@pytest.mark.parametrize(("epochs", "estimates"), [(100, [6, 8, 8, 10, 9]), (2, [7]), (100, [20, 4])])
def test_the_schedule_follows_the_epochs_that_time_allows(
    model_yaml: str, data: str, tmp_path: Path, epochs: int, estimates: list[int], log: io.StringIO
) -> None:
    more = {**LOOP, "epochs": epochs, "time": 1}
    trainer = fit(model_yaml, data, tmp_path, "run", until(estimates), **more)
    check_counts(trainer)
    passes = len(trainer.selector.history)
    assert passes == estimates[-1] and trainer.selector.total_passes == estimates[-1]
    for p, row in enumerate(trainer.selector.history[1:], 1):
        known = estimates[min(p - 1, len(estimates) - 1)]
        assert row["selected"] == trainer.selector.settings.count_at(p, max(known, p + 1), IMAGES), p
    selected = [row["selected"] for row in trainer.selector.history]
    assert selected[0] == IMAGES and selected[-1] == IMAGES and min(selected) == 8
    told = log.getvalue()
    assert "until time=1 hours are over" in told and "saves" not in told, "no number of passes is promised"


@pytest.mark.parametrize("stock", [SOME, FULL], ids=["agent", "full"])
@pytest.mark.parametrize("by", ["time", "stop"])
def test_a_pass_that_ends_early_counts_what_it_trained_on(
    model_yaml: str, data: str, tmp_path: Path, stock: Any, by: str
) -> None:
    class Cut(watched(stock)):  # type: ignore[misc]
        def optimizer_step(self) -> None:
            super().optimizer_step()
            if self.epoch == 1 and self.steps[1] == 2:
                if by == "time":
                    self.train_time_start -= 2 * 3600
                else:
                    self.stop = True

    more = {**LOOP, "epochs": 5, "warmup_epochs": 0, "mosaic": 0.0} | ({"time": 1} if by == "time" else {})
    trainer = fit(model_yaml, data, tmp_path, "run", Cut, **more)
    check_counts(trainer, whole=False)
    assert [len(batch) for batch in trainer.batches[1]] == [4, 4]
    assert [row["images"] for row in trainer.selector.history] == [IMAGES, IMAGES + 8]
    files = [str(file) for file in trainer.train_loader.dataset.im_files]
    shown = sorted(files.index(file) for batch in trainer.batches[1] for file in batch)
    table = trainer.selector.table
    assert torch.nonzero(table.last_pass == 1).flatten().tolist() == shown
    assert abs(trainer.accumulate) < 1000, "the gate for the last batch is not left behind"


def test_patience_may_end_a_run_before_its_full_passes(model_yaml: str, data: str, tmp_path: Path) -> None:
    class Worse(watched(SOME)):  # type: ignore[misc]
        def validate(self) -> Any:
            metrics, _ = super().validate()
            self.best_fitness = 1.0
            return metrics, 1.0 - 0.1 * self.epoch

    trainer = fit(model_yaml, data, tmp_path, "run", Worse, **{**LOOP, "epochs": 12, "patience": 2, "val": True})
    check_counts(trainer)
    assert [row["selected"] for row in trainer.selector.history] == [IMAGES, 8, 8]
    assert trainer.report.cost()["full_images_trained"] == IMAGES * 3


# Shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("square", [True, False])
def test_rect_shuffles_where_the_host_does(
    model_yaml: str, data: str, oblong: str, tmp_path: Path, square: bool
) -> None:
    more = {**LOOP, "rect": True}
    runs = [
        fit(model_yaml, data if square else oblong, tmp_path, name, watched(trainer), **more)
        for name, trainer in (("stock", DetectionTrainer), ("full", FULL), ("some", SOME))
    ]
    same_training(*runs[:2])
    for trainer in runs[1:]:
        check_counts(trainer)
        files = [str(file) for file in trainer.train_loader.dataset.im_files]
        orders = [[files.index(file) for batch in part for file in batch] for part in trainer.batches.values()]
        assert [order == sorted(order) for order in orders] == [not square] * 4
    assert runs[2].selector.sampler.shuffle == square


def test_what_the_hosts_loaders_do_is_read_off_them() -> None:
    samples = torch.utils.data.TensorDataset(torch.zeros(10))
    for shuffle in (True, False):
        assert shuffles(build_dataloader(samples, 4, 0, shuffle=shuffle, device="cpu")) is shuffle
    distributed = torch.utils.data.DistributedSampler(samples, 2, 0)
    assert shuffles(SimpleNamespace(sampler=distributed))
    assert not shuffles(SimpleNamespace(sampler=ContiguousDistributedSampler(samples, 2, 4, 0)))
    assert shuffles(SimpleNamespace(sampler=torch.utils.data.WeightedRandomSampler([1.0] * 10, 10)))
    for drop_last, images in ((False, 10), (True, 8)):
        assert images_of_a_pass(build_dataloader(samples, 4, 0, drop_last=drop_last, device="cpu")) == images
    assert images_of_a_pass(build_dataloader(samples, 16, 0, drop_last=True, device="cpu")) == 10


# Whole batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "shapes"), [(0.4, "square"), (0.1, "oblong")])
def test_compile_fills_up_batches_and_drops_nothing(
    model_yaml: str, data: str, oblong: str, tmp_path: Path, ratio: float, shapes: str
) -> None:
    trainer = fit(
        model_yaml,
        data if shapes == "square" else oblong,
        tmp_path,
        "run",
        watched(AgentDetectionTrainer.configured(ratio=ratio, final_full=0.25)),
        **{**LOOP, "compile": True, "batch": 6, "rect": shapes == "oblong"},
    )
    check_counts(trainer)
    assert {len(batch) for part in trainer.batches.values() for batch in part} == {6}
    count = round(ratio * IMAGES)
    whole = 6 * -(-count // 6)
    assert [row["selected"] for row in trainer.selector.history] == [IMAGES, count, count, IMAGES]
    assert [row["images"] for row in trainer.selector.history] == [24, 24 + whole, 24 + 2 * whole, 48 + 2 * whole]
    cost = trainer.report.cost()
    assert cost["full_images_trained"] == 4 * 18, "the host itself drops the last three"
    assert cost["padding"] == cost["images_trained"] - 2 * (IMAGES + count)


def test_full_drops_what_the_host_drops_and_counts_the_rest(model_yaml: str, data: str, tmp_path: Path) -> None:
    more = {**LOOP, "compile": True, "batch": 8, "mosaic": 0.0}
    stock, ours = (
        fit(model_yaml, data, tmp_path, name, watched(trainer), **more)
        for name, trainer in (("stock", DetectionTrainer), ("full", FULL))
    )
    same_training(stock, ours)
    check_counts(ours)
    assert [row["images"] for row in ours.selector.history] == [16, 32, 48, 64]
    assert ours.report.cost()["budget"] == 1
    files = [str(file) for file in ours.train_loader.dataset.im_files]
    last = {files.index(file) for batch in ours.batches[3] for file in batch}
    assert set(torch.nonzero(ours.selector.table.last_pass == 3).flatten().tolist()) == last


def test_out_of_memory_halves_whole_batches_too(model_yaml: str, data: str, tmp_path: Path) -> None:
    class Short(watched(SOME)):  # type: ignore[misc]
        def preprocess_batch(self, batch: Any) -> Any:
            batch = super().preprocess_batch(batch)
            if len(batch["img"]) == 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate a test.")
            return batch

    trainer = fit(model_yaml, data, tmp_path, "run", Short, **{**LOOP, "compile": True, "batch": 8})
    check_counts(trainer)
    assert {len(batch) for part in trainer.batches.values() for batch in part} == {4}
    assert [row["images"] for row in trainer.selector.history] == [24, 32, 40, 64]


@pytest.mark.parametrize("more", [{"imgsz": 32}, {"imgsz": 64, "multi_scale": 0.5}])
def test_no_batch_of_one_image_where_batch_norm_cannot_take_it(
    model_yaml: str, data: str, tmp_path: Path, more: dict[str, Any]
) -> None:
    """The host looks at the last batch of all 21 images, three of them; a selection of 9 in fours leaves one."""
    trainer = AgentDetectionTrainer.configured(ratio=0.43, final_full=0)
    run = fit(model_yaml, data, tmp_path, "run", watched(trainer), **{**LOOP, "batch": 4, "fraction": 19, **more})
    check_counts(run)
    assert {len(batch) for part in run.batches.values() for batch in part} == {4}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_what_each_rank_trained_on_tells_what_a_pass_showed(ranks: int) -> None:
    selectors = [
        Selector(50, 4, strategy="random", ratio=0.4, rank=r, world_size=ranks, batch=4, warmup=0) for r in range(ranks)
    ]
    orders = []
    for selector in selectors:
        selector.begin_pass(1)
        orders.append(list(selector.sampler))
    assert {len(order) % 4 for order in orders} == {0} and len({len(order) for order in orders}) == 1
    images = [4 * (1 + r % 2) for r in range(ranks)]
    shown = shown_samples(selectors[0], images).tolist()
    assert sorted(shown) == sorted(i for order, n in zip(orders, images, strict=True) for i in order[:n])
    whole = shown_samples(selectors[0], [len(orders[0])] * ranks)
    assert torch.equal(whole, selectors[0].selection.indices)


# Before and between epochs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"multi_scale": 0.5, "fraction": 20}, {"compile": True}])
def test_calibration_before_the_loop_is_the_hosts(
    model_yaml: str, data: str, tmp_path: Path, more: dict[str, Any]
) -> None:
    """With quantize=8 the host makes a loader, and takes batches of it, before it knows accumulate or a criterion."""
    seen: dict[str, list[torch.Tensor]] = {}

    def calibrated(stock: Any, name: str) -> Any:
        class Calibrated(watched(stock)):  # type: ignore[misc]
            def set_model_attributes(self) -> None:
                super().set_model_attributes()
                self.stride = 32
                loader = self.get_dataloader(self.data["train"], batch_size=4, rank=-1, mode="train")
                seen[name] = [self.preprocess_batch(batch)["img"] for batch, _ in zip(loader, range(3), strict=False)]

        return Calibrated

    trainers = {"stock": DetectionTrainer, "full": FULL, "some": SOME}
    runs = {
        name: fit(model_yaml, data, tmp_path, name, calibrated(trainer, name), **{**LOOP, **more})
        for name, trainer in trainers.items()
    }
    assert all(torch.equal(a, b) for a, b in zip(seen["stock"], seen["full"], strict=True))
    assert [len(images) for images in seen["some"]] == [4, 4, 4]
    same_training(runs["stock"], runs["full"])
    check_counts(runs["full"], whole=not more.get("compile"))
    check_counts(runs["some"])


@pytest.mark.parametrize("warmup_epochs", [1.5, 3])
def test_the_warm_up_comes_to_its_end(model_yaml: str, data: str, tmp_path: Path, warmup_epochs: float) -> None:
    """Its last batch by the host's count, nb * warmup_epochs, may lie behind the end of a short pass."""
    ends: list[tuple[int, float]] = []

    class Noting(watched(SOME)):  # type: ignore[misc]
        def optimizer_step(self) -> None:
            super().optimizer_step()
            ends.append((self._nominal, self.optimizer.param_groups[0]["momentum"]))

    more = {"epochs": 6, "nbs": 16, "warmup_epochs": warmup_epochs}
    fit(model_yaml, data, tmp_path, "run", Noting, **{**LOOP, **more})
    assert ends[0][1] < 0.9 and ends[-1] == (4, 0.937)


def test_a_run_of_few_batches_makes_a_step(model_yaml: str, data: str, tmp_path: Path) -> None:
    """The host caps `accumulate` by the batches of a run, 24 of all images, so that there is a step."""
    trainer = fit(model_yaml, data, tmp_path, "run", watched(SOME), **{**LOOP, "nbs": 1000, "warmup_epochs": 0})
    assert sum(map(len, trainer.batches.values())) == 16 and sum(trainer.steps.values()) == 1


def test_a_plain_pass_may_expect_another_number_of_passes() -> None:
    selector = Selector(20, 100, strategy="random", ratio=0.5, final_full=0.25)
    counts = []
    for p, passes in enumerate((100, 8, 8, 4)):
        counts.append(len(selector.begin_pass(p, passes)))
        selector.observe(selector.selection.indices, *torch.ones(2, counts[-1]), torch.ones(counts[-1], 3))
        selector.end_pass(trained_on=selector.selection.indices[:5] if p == 3 else None)
    assert counts == [20, 10, 10, 20] and selector.total_passes == 4
    assert len(selector.begin_pass(4)) == 20 and selector.total_passes == 4
