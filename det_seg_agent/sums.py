"""Signals of a pass by sample: sums that take images in as they come, in memory that does not grow with them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.features import BLOCK, FeatureStore
from det_seg_agent.ranks import gather_objects, gather_rows
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


def less_mean(features: Tensor, first: int, count: int, half: int = NEIGHBOURS) -> Tensor:
    """Return the rows `first` .. `first + count - 1` of features (n, F), less the mean of `half` rows on either side.

    It takes out the drift of the model's features, within a pass and from pass to pass.
    """
    sums = torch.cat([torch.zeros(1, features.shape[1], dtype=torch.float64), features.double().cumsum(0)])
    row = torch.arange(first, first + count)
    low, high = (row - half).clamp(min=0), (row + half + 1).clamp(max=len(features))
    mean = (sums[high] - sums[low]) / (high - low)[:, None]
    return features[first : first + count].float() - mean.float()


class Drift:
    """Takes the drift out of a stream of images, `NEIGHBOURS` images late, however it is cut into pieces.

    The neighbours are those of this process: each rank sees a stream of its own.
    """

    def __init__(self) -> None:
        self.waiting: Signals | None = None  # images whose later neighbours are not all here yet
        self.before: Signals | None = None  # the images before them

    def push(self, signals: Signals, last: bool = False) -> tuple[Signals, Tensor]:
        """Take images, and return those whose neighbours are complete (`last`: all).

        Returns:
            The images, their features less those of their neighbours, and their `SampleSignals.relative`.
        """
        waiting = signals if self.waiting is None else join([self.waiting, signals])
        done = len(waiting) if last else max(0, len(waiting) - NEIGHBOURS)
        if not done:
            self.waiting = waiting
            return waiting.images(0, 0), torch.zeros(0, 3)
        known = waiting if self.before is None else join([self.before, waiting])
        first = len(known) - len(waiting)
        reach = slice(first + done + NEIGHBOURS)  # of the windows of these images
        columns = [detrend(column[reach])[first:] for column in (known.loss, known.entropy, known.sufficiency)]
        features = less_mean(known.features[reach], first, done)
        self.waiting = waiting.images(done, len(waiting))
        self.before = known.images(max(0, first + done - NEIGHBOURS), first + done)
        return replace(waiting.images(0, done), features=features), torch.stack(columns, 1)[:done]

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only."""
        return {key: None if value is None else vars(value) for key, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.waiting, self.before = (
            None if state[key] is None else Signals(**state[key]) for key in ("waiting", "before")
        )


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
            index, rows, features = self.block(start, width)
            parts = [gather_rows(column) for column in (index, rows, features)]
            if not parts[0]:
                self.rows[index] = 0
            # Rank by rank, so that the order of the additions does not depend on how long each took.
            for part in list(zip(*parts, strict=True))[1:]:
                self.merge(*part)

    def block(self, start: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (index, sums, features times share) of the samples from `start` on that this rank saw.

        `width` is that of the features, which a rank that has seen nothing does not know.
        """
        index = start + (self.rows[start : start + BLOCK, 0] > 0).nonzero().squeeze(1)
        rows, features = self.rows[index], torch.zeros(len(index), width)
        if self.store is not None and len(index):
            features = self.store.rows[index].float() * rows[:, :1]
        return index, rows, features

    def merge(self, index: Tensor, rows: Tensor, features: Tensor) -> None:
        """Add what `block` of another process returns."""
        if self.store is not None and len(index):
            self.store.blend(index, self.rows[index, 0], features, rows[:, 0])
        self.rows[index] += rows

    def samples(self) -> SampleSignals:
        """Return the means of the samples that were seen."""
        index = (self.rows[:, 0] > 0).nonzero().squeeze(1)
        rows = self.rows[index]
        share, known = rows[:, 0], rows[:, 5]
        relative = torch.stack([rows[:, 3] / share, rows[:, 4] / share, rows[:, 7] / known], 1)
        return SampleSignals(index, rows[:, 1] / share, rows[:, 2] / share, rows[:, 6] / known, relative)
