"""Signals of a pass by sample: sums that take images in as they come, in memory that does not grow with them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.distributed import gather_objects, gather_rows
from det_seg_agent.features import BLOCK, FeatureStore
from det_seg_agent.signals import Signals, join

NEIGHBOURS = 32  # images before and after one that it is compared with


@dataclass(frozen=True)
class SampleSignals:
    """Signals of U distinct samples in one pass: means over their images, weighted by the share that shows them.

    Attributes:
        index: (U,) int64, rising.
        loss, entropy: (U,) float32, as in `Signals`.
        sufficiency: (U,) float32; NaN where none of a sample's images has one.
        relative: (U, 3) float32, loss, entropy and sufficiency less the drift of training, see `detrend`.
    """

    index: Tensor
    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    relative: Tensor

    def __len__(self) -> int:
        return len(self.index)


def detrend(values: Tensor, half: int = NEIGHBOURS) -> Tensor:
    """Return how far values lie from the course of their neighbours, in standard deviations of the neighbours.

    While a model trains, loss and entropy drift within a pass, so that signals as they are tell *when* an image was
    seen. A parabola is fitted to the `half` values on either side by least squares (Savitzky and Golay 1964; at the
    ends of a pass to what is there): a mean would be biased where the drift is steep or bends.

    Args:
        values: (n,) float32 in the order of training; NaN takes no part.
        half: neighbours on each side.
    """
    place = torch.linspace(-1, 1, 2 * half + 1, dtype=torch.float64)
    powers = torch.stack([place**power for power in range(5)], 1)
    edge = torch.full((half,), float("nan"))
    windows = torch.cat([edge, values, edge]).unfold(0, 2 * half + 1, 1).double()
    known = windows.isfinite().double()
    windows = windows.nan_to_num(0.0, 0.0, 0.0)
    sums, moments = known @ powers, windows @ powers[:, :3]
    gram = sums[:, torch.arange(3)[:, None] + torch.arange(3)] + 1e-9 * torch.eye(3)  # invertible also for one value
    curve = torch.linalg.solve(gram, moments)
    level, residual = curve[:, 0], windows.square().sum(1) - (curve * moments).sum(1)
    deviation = (residual.clamp(min=0) / sums[:, 0].clamp(min=1)).sqrt()
    difference = values - level
    difference[difference.abs() <= 1e-6 * level.abs()] = 0  # rounding, where all are equal
    return (difference / (deviation + 1e-6)).float()


class Drift:
    """Takes the drift out of a stream of images, `NEIGHBOURS` images late, however it is cut into pieces.

    The neighbours are those of this process: each rank sees a stream of its own.
    """

    def __init__(self) -> None:
        self.waiting: Signals | None = None  # images whose later neighbours are not all here yet
        self.before = torch.zeros(0, 3)  # loss, entropy and sufficiency of the images before them

    def push(self, signals: Signals, last: bool = False) -> tuple[Signals, Tensor]:
        """Take images, and return those whose neighbours are complete (`last`: all) with `SampleSignals.relative`."""
        waiting = signals if self.waiting is None else join([self.waiting, signals])
        values = torch.cat([self.before, torch.stack([waiting.loss, waiting.entropy, waiting.sufficiency], 1)])
        done = len(waiting) if last else max(0, len(waiting) - NEIGHBOURS)
        if not done:
            self.waiting = waiting
            return waiting.images(0, 0), torch.zeros(0, 3)
        first = len(self.before)
        # Only what the windows of these images reach over is looked at.
        relative = torch.stack([detrend(column[: first + done + NEIGHBOURS]) for column in values.T], 1)
        self.waiting = waiting.images(done, len(waiting))
        self.before = values[max(0, first + done - NEIGHBOURS) : first + done]
        return waiting.images(0, done), relative[first : first + done]

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only."""
        return {"before": self.before, "waiting": None if self.waiting is None else vars(self.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.before = state["before"]
        self.waiting = None if state["waiting"] is None else Signals(**state["waiting"])


class SampleSums:
    """Sums over the images of a pass, 32 bytes a sample whatever the number of images and credits.

    Args:
        num_samples: size of the training set.
        store: takes the samples' features; None to keep none.

    Attributes:
        rows: (num_samples, 8) float32: sum of shares; of share times loss, entropy, relative loss, relative entropy;
            then, over the images that have a sufficiency, of shares, and of share times sufficiency and relative
            sufficiency.
    """

    def __init__(self, num_samples: int, store: FeatureStore | None):
        self.store = store
        self.rows = torch.zeros(num_samples, 8)

    def clear(self) -> None:
        """Start a pass."""
        self.rows.zero_()

    def add(self, signals: Signals, relative: Tensor) -> None:
        """Take images and their `SampleSignals.relative`, (I, 3)."""
        known = signals.sufficiency.isfinite()
        ones = torch.ones(len(signals))
        columns = (ones, signals.loss, signals.entropy, relative[:, 0], relative[:, 1])
        enough = (known.float(), signals.sufficiency.where(known, 0), relative[:, 2].where(known, 0))
        parts = torch.stack([*columns, *enough], 1)[signals.image] * signals.share[:, None]
        if self.store is not None:
            index, place = torch.unique(signals.index, return_inverse=True)
            share = torch.zeros(len(index)).index_add_(0, place, signals.share)
            shared = signals.features[signals.image].float() * signals.share[:, None]
            features = torch.zeros(len(index), shared.shape[1]).index_add_(0, place, shared)
            self.store.blend(index, self.rows[index, 0], features, share)
        self.rows.index_add_(0, signals.index, parts)

    def collect(self) -> None:
        """Bring the sums of all ranks together on rank 0; those of the others start from 0. A collective."""
        width = 0 if self.store is None else max(gather_objects(self.store.rows.shape[1]))
        for start in range(0, len(self.rows), BLOCK):
            index = start + (self.rows[start : start + BLOCK, 0] > 0).nonzero().squeeze(1)
            rows = self.rows[index]
            parts = [gather_rows(index), gather_rows(rows)]
            if self.store is not None:
                features = torch.zeros(len(index), width)  # a rank that has seen nothing yet knows no width
                if len(index):
                    features = self.store.rows[index].float() * rows[:, :1]
                parts.append(gather_rows(features))
            if not parts[0]:
                self.rows[index] = 0
            # Rank by rank, so that the order of the additions does not depend on how long each took.
            for i, sums, *shared in list(zip(*parts, strict=True))[1:]:
                if self.store is not None:
                    self.store.blend(i, self.rows[i, 0], shared[0], sums[:, 0])
                self.rows[i] += sums

    def samples(self) -> SampleSignals:
        """Return the means of the samples that were seen."""
        index = (self.rows[:, 0] > 0).nonzero().squeeze(1)
        rows = self.rows[index]
        share, known = rows[:, 0], rows[:, 5]
        relative = torch.stack([rows[:, 3] / share, rows[:, 4] / share, rows[:, 7] / known], 1)
        return SampleSignals(index, rows[:, 1] / share, rows[:, 2] / share, rows[:, 6] / known, relative)
