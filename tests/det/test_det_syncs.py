"""Waits of the host for the device in a training step: the stock loss's, and none of ours."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from head_runs import batch_of, build
from torch.utils._python_dispatch import TorchDispatchMode

from det_seg_agent import Selector
from det_seg_agent.det.criterion import SignalCriterion

MODELS = [
    "yolov8n",
    "yolov8n-seg",
    "yolov8n-pose",
    "yolo11n-obb",
    "yolo26n-seg",
    "yolo26n-pose",
    "yolo26n-sem",
    "rtdetr",
]
# Operators that give a number, or a tensor of a size, that the host waits for.
WAITING = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select",
    "aten.unique_dim", "aten._unique2", "aten.unique_consecutive", "aten.repeat_interleave.Tensor",
)  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts operators that wait, and indexing by a mask, which looks for its entries."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        masks = [t for t in args[1] if t is not None] if name.startswith(("aten.index.", "aten.index_put")) else []
        if name.startswith(WAITING) or any(t.dtype in (torch.bool, torch.uint8) for t in masks):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def prepared(folder: Path, name: str, mode: str, images: int, device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    """Return a model with the stock criterion or ours, and a batch with an object in every other image."""
    model = build(folder, name).to(device)
    batch = batch_of(model, where=tuple(sorted([*range(0, images, 2)] * 2)), images=images)
    index = torch.arange(images)
    batch.update(credit_index=index, credit_image=index, credit_share=torch.ones(images))
    if "batch_idx" in batch:
        batch["credit_object"] = batch["batch_idx"].long()
    if mode == "weighted":
        batch["loss_weight"] = torch.linspace(0.5, 2, images)
    if mode != "stock":
        selector = Selector(100, 4)
        selector.begin_pass(0)
        if hasattr(model, "criterion"):
            del model.criterion
        model.criterion = SignalCriterion(model.init_criterion(), selector.observe, model.model[-1])
    batch = {key: value.to(device) for key, value in batch.items()}
    step(model, dict(batch))
    return model, batch


def step(model: Any, batch: dict[str, Any]) -> None:
    """Run a forward pass and the loss."""
    torch.manual_seed(3)  # RT-DETR draws its denoising queries
    if isinstance(getattr(model, "criterion", None), SignalCriterion):
        model.criterion.carry(batch)
    model(batch)


def waits(folder: Path, name: str, mode: str, images: int) -> int:
    """Return how many operators of a step wait."""
    model, batch = prepared(folder, name, mode, images)
    with Waits() as counted:
        step(model, batch)
    return sum(counted.found.values())


@pytest.mark.parametrize("name", MODELS)
def test_signals_add_no_wait_and_weights_none_that_grow_with_the_batch(name: str, tmp_path: Path) -> None:
    stock = [waits(tmp_path, name, "stock", images) for images in (4, 12)]
    assert [waits(tmp_path, name, "ours", images) for images in (4, 12)] <= stock
    more = [waits(tmp_path, name, "weighted", images) - n for images, n in zip((4, 12), stock, strict=True)]
    assert more[0] == more[1] <= 0, more
