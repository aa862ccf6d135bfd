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


def step(model: Any, batch: dict[str, Any], autocast: bool = False) -> tuple[Any, dict[str, Any], list[Any]]:
    """Return loss, items and gradients of a training step."""
    torch.manual_seed(3)  # RT-DETR draws its denoising queries
    if isinstance(getattr(model, "criterion", None), SignalCriterion):
        model.criterion.carry(batch)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, items = model(batch)
    loss.sum().backward()
    return loss.detach(), items, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def tap(model: Any) -> list[Any]:
    """Give a model our criterion; return the list that its parts, totals and signals go to."""
    if hasattr(model, "criterion"):
        del model.criterion
    got: list[Any] = []
    model.criterion = SignalCriterion(model.init_criterion(), lambda *a: got.append(a), model.model[-1])
    emit = model.criterion._emit

    def spying(*args: Any) -> None:
        got[:] = [model.criterion.parts(), model.criterion.split.total()]
        emit(*args)

    model.criterion._emit = spying
    return got


def scale_of(model: Any) -> int:
    """Return what the host multiplies a batch's loss of four images by."""
    return 1 if type(model).__name__ in ("RTDETRDetectionModel", "ClassificationModel") else 4


CASES = [
    *((name, {}) for name in MODELS),
    *((head.models[-1], {"autocast": True}) for head in SUPPORTED),
    *((head.models[-1], {"where": ()}) for head in SUPPORTED if len(head.parts) > 1 and head.name != "Semantic"),
    ("yolov8n-seg", {"overlap_mask": False}),
    ("yolo26n-seg", {"overlap_mask": False}),
    ("yolo26n-sem", {"classes": 1}),
    ("yolo26n-sem", {"class_weights": True}),
    ("yolo26n-obb", {"class_weights": True}),
]


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_images_losses_sum_to_the_stock_loss_with_its_gradients(name: str, case: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in case.items() if key in ("overlap_mask", "classes")}
    model = build(tmp_path, name, **options)
    if "class_weights" in case:
        model.class_weights = torch.tensor([0.5, 1.0, 1.5, 0.7, 1.3])
    where = {"where": case["where"]} if "where" in case else {}
    autocast = "autocast" in case
    stock_loss, stock_items, stock_grads = step(model, credited(batch_of(model, **where)), autocast)
    got = tap(model)
    loss, items, grads = step(model, credited(batch_of(model, **where)), autocast)
    assert torch.equal(stock_loss, loss) and stock_items == items
    assert sum(g is not None for g in grads) > 20
    for a, b in zip(stock_grads, grads, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    parts, total, (index, signal, entropy, features, _, _) = got
    assert torch.allclose(parts.sum(0), torch.stack(list(items.values())).float(), rtol=1e-4, atol=1e-6)
    assert total.sum().item() * scale_of(model) == pytest.approx(loss.sum().item(), rel=1e-4)
    assert torch.equal(signal, total * 4) and index.tolist() == [10, 11, 12, 13] and signal.std() > 0
    assert ((entropy >= 0) & (entropy <= 1)).all() and entropy.std() > 0
    assert features.shape[0] == 4 and features.isfinite().all() and features.std(0).max() > 0
    assert all(not t.requires_grad for t in (parts, signal, entropy, features))


@pytest.mark.parametrize("head", SUPPORTED, ids=lambda head: head.models[-1])
def test_weights_scale_each_images_loss_and_gradient(head: Any, tmp_path: Path) -> None:
    model = build(tmp_path, head.models[-1])
    got = tap(model)
    _, _, stock = step(model, credited(batch_of(model)))
    total = got[1].clone()
    factors = torch.tensor([2.0, 1.0, 0.5, 3.0])
    loss, _, weighted = step(model, {**credited(batch_of(model)), "loss_weight": factors})
    assert loss.sum().item() == pytest.approx(scale_of(model) * (total * factors).sum().item(), rel=1e-4)
    assert torch.allclose(got[1], total, rtol=1e-4), "the signals are those of the plain loss"
    alone = [step(model, {**credited(batch_of(model)), "loss_weight": row}) for row in torch.eye(4)]
    for i, (whole, mix) in enumerate(zip(stock, weighted, strict=True)):
        if whole is None:
            continue
        scale = sum(gradients[i].abs() for _, _, gradients in alone).max() * 1e-4 + 1e-9
        assert (sum(gradients[i] for _, _, gradients in alone) - whole).abs().max() <= scale
        mixed = sum(f * gradients[i] for f, (_, _, gradients) in zip(factors, alone, strict=True))
        assert (mixed - mix).abs().max() <= 3 * scale


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
    assert sum(row["dropped"] for row in trainer.selector.history) == 0, "all signals are finite"
    assert (trainer.wdir / "last.pt").exists() and (trainer.wdir / "agent_last.pt").exists()
