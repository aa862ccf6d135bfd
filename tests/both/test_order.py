"""What the agent learns from a first pass is of the samples, and not of when they were seen."""

from pathlib import Path
from typing import Any

import pytest
import torch

from det_seg_agent import Request, Selector
from det_seg_agent.scenes import write_scenes
from det_seg_agent.strategies import Agent
from det_seg_agent.strategies.data_agent.reward import rank_order
from det_seg_agent.sums import NEIGHBOURS, Drift, SampleSignals, detrend

pytestmark = pytest.mark.slow  # it trains

SAMPLES, PASSES = 400, 6


class Keeping(Agent):
    """The agent on all samples in every pass, which keeps what it sees, and its weights after the first pass."""

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Learn, and keep."""
        super().observe(samples, pass_index, total_passes)
        self.kept = [*getattr(self, "kept", []), samples]
        if pass_index == 0:
            self.select(Request(1, total_passes, SAMPLES // 2, 0.5))
            self.weight = self.table.score.clone()


SETTINGS: dict[str, Any] = {"strategy": f"{__name__}:Keeping", "ratio": 1.0}


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return Spearman's rank correlation."""
    return float(torch.corrcoef(torch.stack([rank_order(one), rank_order(other)]))[0, 1])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many scenes as a correlation needs."""
    return write_scenes(tmp_path_factory.mktemp("many") / "scenes", SAMPLES, 4, 64)


def detection(many: Path, folder: Path) -> Selector:
    """Train a detector."""
    from det_runs import fit, write_yolov8

    from det_seg_agent.det.coco_convert import prepare_data
    from det_seg_agent.det.trainer import AgentDetectionTrainer

    trainer = AgentDetectionTrainer.configured(**SETTINGS)
    options = {"epochs": PASSES, "val": False, "optimizer": "AdamW", "lr0": 0.002, "nbs": 8, "cache": "ram"}
    return fit(write_yolov8(folder), prepare_data(many), folder, "run", trainer, **options).selector


def segmentation(many: Path, folder: Path) -> Selector:
    """Train a segmenter."""
    from seg_runs import EPOCHS, config_of, fit

    config = config_of(many, folder, **EPOCHS)
    config.train_cfg.update(max_epochs=PASSES, val_interval=100)
    config.default_hooks.checkpoint.interval = 100
    config.agent = SETTINGS
    runner, _ = fit(config)
    return next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook").selector


@pytest.mark.parametrize("train", [detection, segmentation])
def test_weights_after_the_first_pass_do_not_tell_when_a_sample_was_seen(
    train: Any, many: Path, tmp_path: Path
) -> None:
    selector = train(many, tmp_path)
    selector.sampler.set_epoch(0)
    position = selector.sampler.order().argsort().float()
    agent: Any = selector.strategy
    loss, relative = (torch.full((PASSES, SAMPLES), float("nan")) for _ in range(2))
    for p, samples in enumerate(agent.kept):
        loss[p, samples.index], relative[p, samples.index] = samples.loss, samples.relative[:, 0]
    known = loss.isfinite().all(0)  # a mosaic may leave a sample no pixel
    assert known.float().mean() > 0.95
    assert abs(correlation(position[known], agent.weight[known])) < 0.1
    # What the drift hid comes out: the first losses tell more of the later ones, or as much.
    later = torch.stack([rank_order(row) for row in loss[PASSES // 2 :, known]]).mean(0)
    assert correlation(relative[0, known], later) > correlation(loss[0, known], later) - 0.02


def test_drift_is_taken_out_and_differences_stay() -> None:
    g = torch.Generator().manual_seed(0)
    kind = (torch.rand(2000, generator=g) > 0.5).float()
    time = torch.linspace(0, 1, 2000)
    falling = 5 * torch.exp(-5 * time) * (1 + 0.1 * kind + 0.02 * torch.randn(2000, generator=g))
    assert correlation(falling, time) < -0.9
    relative, deviation = detrend(falling)
    assert bool((deviation > 0).all())
    assert abs(correlation(relative, time)) < 0.05 and correlation(relative, kind) > 0.8
    ends = torch.cat([relative[:NEIGHBOURS], relative[-NEIGHBOURS:]])
    assert correlation(ends, torch.cat([kind[:NEIGHBOURS], kind[-NEIGHBOURS:]])) > 0.8, "the ends as well"
    assert not detrend(torch.full((40,), 0.3))[0].any() and not detrend(torch.ones(1))[0].any()


@pytest.mark.parametrize("pieces", [[1] * 150, [7, 80, 0, 63], [150]])
def test_a_stream_is_detrended_alike_however_it_is_cut(pieces: list[int]) -> None:
    from det_seg_agent.features import Projector
    from det_seg_agent.signals import SignalBuffer

    g = torch.Generator().manual_seed(0)
    loss, entropy, enough = torch.rand(3, 150, generator=g)
    enough[::7] = float("nan")
    drift, buffer, done, relative, start = Drift(), SignalBuffer(Projector(None, 0)), [], [], 0
    for size in [*pieces, 0]:
        rows = slice(start, start + size)
        start += size
        if size:
            index = torch.arange(150)[rows].repeat_interleave(2)  # two credits an image
            image, share = torch.arange(size).repeat_interleave(2), torch.full((2 * size,), 0.5)
            features = torch.zeros(size, 2)
            buffer.add(loss[rows], entropy[rows], features, index, image, share, enough[rows])
        signals, found, _ = drift.push(buffer.drain(), last=start == 150 and size == 0)
        done.append(signals.index)
        relative.append(found)
    assert torch.cat(done).tolist() == [i for i in range(150) for _ in range(2)]
    expected = torch.stack([detrend(column)[0] for column in (loss, entropy, enough)], 1)
    assert torch.allclose(torch.cat(relative), expected, atol=1e-5, equal_nan=True)
