"""Every head of the real Ultralytics: its images' losses, their weights, and short trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from det_runs import TINY
from head_runs import batch_of, build, host_of, write_data, write_head

from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.heads import HEADS
from det_seg_agent.det.trainers import trainer_for

SUPPORTED = [head for head in HEADS if not head.reason]
MODELS = [model for head in SUPPORTED for model in head.models]


def credited(batch: dict[str, Any]) -> dict[str, Any]:
    images = len(batch["img"])
    index = torch.arange(images)
    return {**batch, "credit_index": index + 10, "credit_image": index, "credit_share": torch.ones(images)}


def step(model: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any], list[torch.Tensor | None]]:
    """Return loss, items and gradients of a training step."""
    torch.manual_seed(3)  # RT-DETR draws its denoising queries
    if isinstance(getattr(model, "criterion", None), SignalCriterion):
        model.criterion.carry(batch)
    model.zero_grad()
    loss, items = model(batch)
    loss.sum().backward()
    return loss.detach(), items, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def criterion_of(model: Any, got: list[Any]) -> SignalCriterion:
    if hasattr(model, "criterion"):
        del model.criterion
    criterion = SignalCriterion(model.init_criterion(), lambda *a: got.append(a), model.model[-1])
    emit = criterion._emit
    # Parts are read where signals are.
    criterion._emit = lambda *a: (got.append(criterion.parts()), emit(*a))  # type: ignore[method-assign]
    return criterion


@pytest.mark.parametrize("name", MODELS)
def test_images_losses_sum_to_the_stock_loss_with_its_gradients(name: str, tmp_path: Path) -> None:
    model = build(tmp_path, name)
    got: list[Any] = []
    stock_loss, stock_items, stock_grads = step(model, credited(batch_of(model)))
    model.criterion = criterion_of(model, got)
    loss, items, grads = step(model, credited(batch_of(model)))
    assert torch.equal(stock_loss, loss) and stock_items == items
    assert sum(g is not None for g in grads) > 20
    for a, b in zip(stock_grads, grads, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    parts, (index, signal, entropy, features, _, _) = got
    assert torch.allclose(parts.sum(0), torch.stack(list(items.values())).float(), rtol=1e-4, atol=1e-6)
    assert signal.mean().item() == pytest.approx(scale_of(name, loss), rel=1e-4)
    assert index.tolist() == [10, 11, 12, 13] and signal.std() > 0
    assert ((entropy >= 0) & (entropy <= 1)).all() and entropy.std() > 0
    assert features.shape[0] == 4 and features.isfinite().all() and features.std(0).max() > 0


def scale_of(name: str, loss: torch.Tensor) -> float:
    """Return the sum of a batch's terms; the host multiplies it by the batch's size, but for two heads."""
    return float(loss.sum()) / (1 if name == "rtdetr" or name.endswith("cls") else 4)


@pytest.mark.parametrize("head", SUPPORTED, ids=lambda head: head.models[-1])
def test_two_epochs_train_on_selections(head: Any, scenes: Path, tmp_path: Path) -> None:
    model = host_of(write_head(tmp_path, head.models[-1]))
    cls = trainer_for(model)
    assert cls.__name__ == head.trainer
    data = write_data(scenes, model.task, tmp_path)
    more = {"data": data, "epochs": 2, "project": str(tmp_path), "name": "run", "workers": 0}
    model.train(trainer=cls.configured(ratio=0.5, final_full=0), **{**TINY, **more})
    trainer = model.trainer
    assert tuple(trainer.loss_names) == head.parts
    assert [row["selected"] for row in trainer.selector.history] == [48, 24]
    assert (trainer.wdir / "last.pt").exists() and (trainer.wdir / "agent_last.pt").exists()
