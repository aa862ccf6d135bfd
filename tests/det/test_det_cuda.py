"""Detection on a CUDA device: the stock training with mixed precision, exact resumes, and no waits of ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_runs import needs_cuda, returns_early, synchronizations
from det_runs import fit
from head_runs import batch_of, build
from test_det_syncs import MODELS, prepared, step
from test_heads import credited, tap
from test_objects import named_objects
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.reporting.trace import read

pytestmark = [pytest.mark.slow, needs_cuda]

DEVICE = "cuda"
RUN: dict[str, Any] = {"device": 0, "amp": True, "workers": 2, "optimizer": "SGD", "nbs": 8, "val": False}


class Stop(Exception):
    """The end of a run that is to be resumed."""


def noting(stock: Any) -> Any:
    """Return a subclass of a trainer that keeps the loss items of each batch."""

    class Noting(stock):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.losses: list[list[float]] = []
            self.add_callback("on_train_batch_end", Noting.note)

        def note(self) -> None:
            self.losses.append([float(value) for value in self.loss_items.values()])

    return Noting


def test_full_with_mixed_precision_is_the_stock_training(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    """Bit for bit where two stock runs are, else within what separates runs in half precision."""
    full = AgentDetectionTrainer.configured(strategy="full")
    classes = {"stock": DetectionTrainer, "again": DetectionTrainer, "full": full}
    runs = {
        name: fit(model_yaml, data_yaml, tmp_path, name, noting(cls), **{**RUN, "epochs": 2})
        for name, cls in classes.items()
    }
    assert all(run.amp and run.device.type == DEVICE for run in runs.values())
    stock, again, ours = (torch.tensor(run.losses) for run in runs.values())
    assert len(stock) == 12 and stock.isfinite().all()
    if torch.equal(stock, again):
        assert torch.equal(ours, stock)
    else:
        assert torch.allclose(ours[0], stock[0], rtol=1e-3) and torch.allclose(ours, stock, rtol=0.02, atol=0.02)
    assert bool((runs["full"].selector.table.selected == 2).all())


def test_a_run_with_mixed_precision_goes_on_from_its_last_checkpoint(
    model_yaml: str, data_yaml: str, tmp_path: Path
) -> None:
    """The pass after the checkpoint begins with the same selection, weights and loss scale."""
    base: Any = AgentDetectionTrainer.configured(ratio=0.5, final_full=0)
    begun: list[tuple[list[int], float, dict[str, torch.Tensor]]] = []

    class Cut(base):  # type: ignore[misc]
        ends = -1

        def _on_train_epoch_start(self) -> None:
            super()._on_train_epoch_start()
            if self.epoch == 2:
                weights = {key: value.clone() for key, value in self.model.state_dict().items()}
                begun.append((self.selector.selection.indices.tolist(), self.scaler.get_scale(), weights))
            if self.epoch == self.ends:
                self.train_loader.close()
                self.test_loader.close()
                raise Stop

    class Stopping(Cut):
        ends = 2

    with pytest.raises(Stop):
        fit(model_yaml, data_yaml, tmp_path, "run", Stopping, **{**RUN, "epochs": 3})
    model = YOLO(tmp_path / "run/weights/last.pt")
    model.train(trainer=noting(Cut), resume=True)
    trainer = model.trainer
    assert trainer.start_epoch == 2 and trainer.amp and trainer.device.type == DEVICE
    (chosen, scale, weights), (chosen_again, scale_again, weights_again) = begun
    assert chosen_again == chosen and len(chosen) == 24 and scale_again == scale
    assert all(torch.equal(weights_again[key], weights[key]) for key in weights)
    table = trainer.selector.table
    assert [row["selected"] for row in trainer.selector.history] == [48, 24, 24]
    assert torch.tensor(trainer.losses).isfinite().all()
    assert table.loss.device.type == "cpu" and table.loss.isfinite().all() and table.score.isfinite().all()
    trace = read(tmp_path / "run/trace")
    assert trace is not None and len(trace) == 3 * 48 and (tmp_path / "run/metrics.json").exists()


def mixed(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run a training step in half precision; return loss and loss items."""
    with torch.autocast(DEVICE, torch.float16):
        torch.manual_seed(3)
        if isinstance(getattr(model, "criterion", None), SignalCriterion):
            model.criterion.carry(batch)
        loss, items = model(batch)
    loss.sum().backward()
    return loss.detach(), items


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, as the host trains by default."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_the_device_no_more_than_the_stock_one(name: str, tmp_path: Path) -> None:
    counts = {}
    for mode in ("stock", "ours", "weighted"):
        model, batch = prepared(tmp_path, name, mode, 12, DEVICE)
        mixed(model, dict(batch))
        counts[mode] = synchronizations(lambda model=model, batch=batch: mixed(model, dict(batch)))
    assert counts["ours"] <= counts["stock"] and counts["weighted"] <= counts["stock"], counts


@pytest.mark.parametrize("name", MODELS)
def test_signals_are_handed_over_while_the_device_is_busy(name: str, tmp_path: Path) -> None:
    model, batch = prepared(tmp_path, name, "ours", 12, DEVICE)
    emit, found = model.criterion._emit, []

    def watched(*args: Any) -> None:
        found.append((synchronizations(lambda: emit(*args)), returns_early(lambda: emit(*args))))

    model.criterion._emit = watched
    step(model, dict(batch))
    assert found == [(0, True)]


HEADS = ["yolov8n", "yolov8n-seg", "yolov8n-pose", "yolo11n-obb", "yolo26n-seg", "yolo26n-pose"]


@pytest.mark.parametrize("name", HEADS)
def test_losses_of_images_and_samples_sum_to_the_stock_loss_in_half_precision(name: str, tmp_path: Path) -> None:
    model = build(tmp_path, name).to(DEVICE)
    batch = credited(batch_of(model))
    batch["credit_object"] = batch["batch_idx"].long()
    batch = {key: value.to(DEVICE) for key, value in batch.items()}
    stock, stock_items = mixed(model, dict(batch))
    got = tap(model)
    loss, items = mixed(model, dict(batch))
    assert loss.isfinite().all() and torch.allclose(loss, stock, rtol=1e-3) and list(items) == list(stock_items)
    parts, total, signals = got
    assert parts.device.type == DEVICE
    assert torch.allclose(parts.sum(0), torch.stack(list(items.values())).float(), rtol=1e-3, atol=1e-5)
    assert total.sum().item() * 4 == pytest.approx(loss.sum().item(), rel=1e-3)
    assert torch.allclose(signals["sample_loss"], signals["loss"], rtol=1e-3), "an image of one sample is that sample's"


def test_signals_of_composites_are_those_of_the_cpu(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosaics whose objects know their samples; each column of the signals, without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    dataset = named_objects(scenes, tmp_path, {})
    chosen = list(range(0, 48, 6))
    dataset.set_pass(1, torch.tensor(chosen), None, [], 8)
    batch = dataset.collate([dataset[index] for index in chosen])
    batch = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    batch["img"] = batch["img"].float() / 255
    assert len(batch["credit_index"]) > 2 * len(chosen) and (batch["credit_object"] >= 0).float().mean() > 0.9
    found = []
    for device in ("cpu", DEVICE):
        model = build(tmp_path, "yolov8n", classes=48).to(device)
        got: dict[str, torch.Tensor] = {}
        model.criterion = SignalCriterion(
            model.init_criterion(), lambda got=got, **signals: got.update(signals), model.model[-1]
        )
        step(model, {key: value.to(device) for key, value in batch.items()})
        assert all(value.device.type == device for value in got.values())
        found.append({name: value.cpu() for name, value in got.items()})
    assert len(found[0]) == 10
    for name, one in found[0].items():
        assert torch.allclose(one.float(), found[1][name].float(), rtol=2e-3, atol=1e-3, equal_nan=True), name
    loss, image, share, samples = (found[1][name] for name in ("loss", "image", "share", "sample_loss"))
    assert torch.allclose(torch.zeros(len(loss)).index_add(0, image, samples * share), loss, rtol=1e-3)
