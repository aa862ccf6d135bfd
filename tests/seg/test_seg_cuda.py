"""Segmentation on a CUDA device: the stock training with mixed precision, exact resumes, and no waits of ours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_runs import needs_cuda, returns_early, synchronizations
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from seg_runs import ITERS, config_of, fit
from test_seg import light_model

from det_seg_agent import Selector
from det_seg_agent.pixels import image_signals
from det_seg_agent.seg.signals import SignalTap, pooled

pytestmark = [pytest.mark.slow, needs_cuda]

DEVICE = "cuda"
# SGD, as AdamW's first steps turn rounding errors of small gradients into whole steps.
AMP: dict[str, Any] = {
    **ITERS, "optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "float16",
    "optim_wrapper.optimizer": {"_delete_": True, "type": "SGD", "lr": 0.01, "momentum": 0.9},
    "env_cfg.cudnn_benchmark": False, "train_cfg.val_interval": 100,
}  # fmt: skip


@HOOKS.register_module(force=True)
class NoteLosses(Hook):
    """Keeps the loss of each iteration."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append(float(outputs["loss"]))


def losses_of(runner: Any) -> torch.Tensor:
    """Return the losses that were kept."""
    return torch.tensor(next(hook for hook in runner.hooks if isinstance(hook, NoteLosses)).losses)


def selector_of(runner: Any) -> Selector:
    """Return the selector of a run."""
    return next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook").selector


def test_full_with_mixed_precision_is_the_stock_training(scenes: Path, tmp_path: Path) -> None:
    """As close as two stock runs are: sums on a device vary in their order."""
    losses = []
    for name in ("stock", "again", "full"):
        options = {**AMP, "train_cfg.max_iters": 12, "param_scheduler": []}
        config = config_of(scenes, tmp_path / name, **options)
        config.agent = {"strategy": "full"}
        if name != "full":
            config.custom_hooks = []
            config.train_cfg.type, config.train_dataloader.sampler.type = "IterBasedTrainLoop", "InfiniteSampler"
        config.custom_hooks = [*config.custom_hooks, {"type": "NoteLosses"}]
        runner, _ = fit(config)
        assert next(runner.model.parameters()).device.type == DEVICE
        losses.append(losses_of(runner))
    stock, again, full = losses
    assert len(stock) == 12 and stock.isfinite().all()
    if torch.equal(stock, again):
        assert torch.equal(full, stock)
    else:
        assert torch.allclose(full[0], stock[0], rtol=1e-3) and torch.allclose(full, stock, rtol=0.02)
    table = selector_of(runner).table
    assert table.loss.device.type == "cpu" and table.loss.isfinite().all()


def test_a_run_with_mixed_precision_goes_on_from_its_last_checkpoint(scenes: Path, tmp_path: Path) -> None:
    """The host loads a checkpoint to the device, with our state in it; the next pass is the one that would have been.

    Passes of 3 batches follow one of 6: the checkpoint after iteration 12 is at the end of the third pass.
    """
    options = {**AMP, "agent__ratio": 0.5, "custom_hooks": [{"type": "AgentHook"}, {"type": "NoteLosses"}]}
    _, stopped = fit(config_of(scenes, tmp_path, **options), 15)
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_12.pth")
    again, notes = fit(config_of(scenes, tmp_path, **options, resume=True))
    assert notes.stream[:3] == stopped.stream[12:15]
    assert len({index for batch in notes.stream[:3] for index in batch}) == 24
    selector = selector_of(again)
    assert [row["selected"] for row in selector.history] == [48, *[24] * 6, 48]
    assert losses_of(again).isfinite().all()
    assert selector.table.loss.device.type == "cpu" and selector.table.score.isfinite().all()


def batch_of(images: int = 4, size: int = 96) -> dict[str, Any]:
    """Return a batch as a loader gives it."""
    draw = torch.Generator().manual_seed(3)
    samples = []
    for _ in range(images):
        label = torch.randint(0, 5, (1, size, size), generator=draw)
        label[:, :9] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_shape": (size, size)}))
    inputs = [torch.randint(0, 256, (3, size, size), generator=draw, dtype=torch.uint8) for _ in range(images)]
    return {"inputs": inputs, "data_samples": samples}


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_waits_for_the_device_as_often_as_the_stock_one(weighted: bool) -> None:
    counts = []
    for ours in (False, True):
        model, batch = light_model().to(DEVICE), batch_of()
        optim = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 0.001), dtype="float16")
        tap = SignalTap(model, weighted) if ours else None
        selector = Selector(100, 4)
        selector.begin_pass(0)

        def step(
            model: Any = model, batch: Any = batch, optim: Any = optim, tap: Any = tap, to: Any = selector
        ) -> None:
            if tap is not None and weighted:
                tap.weights = torch.tensor([0.5, 2.0, 1.0, 0.7])
            model.train_step(batch, optim)
            if tap is not None:
                found, features = tap.signals
                given = {"agreement": found.agreement, "class_counts": found.counts}
                to.observe(torch.arange(4), found.loss, found.entropy, features, sufficiency=found.sufficiency, **given)

        step()
        step()
        counts.append(synchronizations(step))
    assert counts[1] <= counts[0], counts


def test_signals_are_handed_over_while_the_device_is_busy() -> None:
    logits = torch.randn(4, 5, 24, 24, device=DEVICE).half()
    labels = list(torch.randint(0, 5, (4, 96, 96), device=DEVICE))
    selector = Selector(100, 4)
    selector.begin_pass(0)

    def hand_over() -> None:
        found = image_signals(logits, labels, 255)
        given = {"agreement": found.agreement, "class_counts": found.counts, "sufficiency": found.sufficiency}
        selector.observe(torch.arange(4), found.loss, found.entropy, pooled([logits], 0), **given)

    hand_over()
    assert synchronizations(hand_over) == 0 and returns_early(hand_over)
