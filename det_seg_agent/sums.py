"""Per-sample means of a pass's signals, from streaming sums of constant size. `Selector` uses them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.features import BLOCK, FeatureStore
from det_seg_agent.ranks import gather_objects, gather_rows
from det_seg_agent.signals import Signals, join

NEIGHBOURS = 32  # images on each side that an image is compared with


@dataclass(frozen=True)
class SampleSignals:
    """Signals of U distinct samples in one pass: means over each sample's images, weighted by share.

    Attributes:
        index: (U,) int64, ascending.
        loss, entropy: (U,) float32, as in `Signals`.
        sufficiency: (U,) float32; NaN if none of the sample's images has one.
        agreement, least_agreement: (U,) float32; NaN if none of the sample's credits has one.
        label_loss, expected_loss: (U,) float32; NaN if no credit of the sample has both.
        relative: (U, 3) float32, detrended loss, entropy and sufficiency, see `detrend`.
    """

    index: Tensor
    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    agreement: Tensor
    least_agreement: Tensor
    label_loss: Tensor
    expected_loss: Tensor
    relative: Tensor

    def __len__(self) -> int:
        return len(self.index)


def detrend(values: Tensor, half: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Remove the drift of training: return each value's residual from a local trend, in local standard deviations.

    Loss and entropy drift within a pass, so raw signals mainly reflect *when* an image was trained on. The trend is
    a parabola fitted by least squares to the value and `half` neighbours on each side (Savitzky and Golay 1964; fewer
    at the ends of a pass). A moving average would be biased where the drift is steep or bends.

    Args:
        values: (n,) float32 in the order of training; NaN is ignored.
        half: number of neighbours on each side.

    Returns:
        (n,) float32 residuals, NaN where `values` is; and (n,) float32, the local standard deviations.
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
    difference[difference.abs() <= 1e-6 * level.abs()] = 0  # rounding errors of a constant sequence
    deviation = deviation + 1e-6
    return (difference / deviation).float(), deviation.float()


def less_mean(features: Tensor, first: int, count: int, half: int = NEIGHBOURS) -> Tensor:
    """Return rows `first` to `first + count - 1` of features (n, F), minus their moving average over +-`half` rows.

    This removes the drift of the model's features, within a pass and between passes. Returns (count, F) float32.
    """
    sums = torch.cat([torch.zeros(1, features.shape[1], dtype=torch.float64), features.double().cumsum(0)])
    row = torch.arange(first, first + count)
    low, high = (row - half).clamp(min=0), (row + half + 1).clamp(max=len(features))
    mean = (sums[high] - sums[low]) / (high - low)[:, None]
    return features[first : first + count].float() - mean.float()


class Drift:
    """Detrends a stream of images with a delay of `NEIGHBOURS` images; chunk boundaries do not affect the result.

    Each rank detrends its own stream.
    """

    def __init__(self) -> None:
        self.waiting: Signals | None = None  # images whose later neighbours are still to come
        self.before: Signals | None = None  # the `NEIGHBOURS` images before those

    def push(self, signals: Signals, last: bool = False) -> tuple[Signals, Tensor, Tensor]:
        """Add images and return those whose neighbours are complete, or all remaining ones if `last`.

        Returns:
            The I images with detrended features, their `SampleSignals.relative` (I, 3), and the standard deviation
            (I,) of the loss that the first of those is in units of.
        """
        waiting = signals if self.waiting is None else join([self.waiting, signals])
        done = len(waiting) if last else max(0, len(waiting) - NEIGHBOURS)
        if not done:
            self.waiting = waiting
            return waiting.images(0, 0), torch.zeros(0, 3), torch.zeros(0)
        known = waiting if self.before is None else join([self.before, waiting])
        first = len(known) - len(waiting)
        reach = slice(first + done + NEIGHBOURS)  # all images in the windows of the finished ones
        columns = [detrend(column[reach]) for column in (known.loss, known.entropy, known.sufficiency)]
        features = less_mean(known.features[reach], first, done)
        self.waiting = waiting.images(done, len(waiting))
        self.before = known.images(max(0, first + done - NEIGHBOURS), first + done)
        relative = torch.stack([column[first:] for column, _ in columns], 1)[:done]
        return replace(waiting.images(0, done), features=features), relative, columns[0][1][first:][:done]

    def state_dict(self) -> dict[str, Any]:
        """Return the images held back, as tensors."""
        return {key: None if value is None else vars(value) for key, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.waiting, self.before = (
            None if state[key] is None else Signals(**state[key]) for key in ("waiting", "before")
        )


class SampleSums:
    """Share-weighted sums of signals per sample; 56 bytes a sample, independent of the number of images and credits.

    Args:
        num_samples: number of samples in the training set.
        store: receives the features of the samples; None to keep no features.

    Attributes:
        rows: (num_samples, 14) float32. Columns 0-4: sums of share, and of share times loss, entropy, relative loss and
            relative entropy. Columns 5-7, over images with a sufficiency: sums of share, and of share times
            sufficiency and relative sufficiency. Columns 8-10, over credits with both agreements: sums of share, and of
            share times agreement and least agreement. Columns 11-13, over credits with both losses: sums of share, and
            of share times label loss and expected loss.
    """

    def __init__(self, num_samples: int, store: FeatureStore | None):
        self.store = store
        self.rows = torch.zeros(num_samples, 14)

    def clear(self) -> None:
        """Reset the sums to zero, for the start of a pass."""
        self.rows.zero_()

    def add(self, signals: Signals, relative: Tensor, deviation: Tensor) -> None:
        """Add images, their `SampleSignals.relative` (I, 3), and the deviation (I,) of their losses."""
        known = signals.sufficiency.isfinite()
        ones = torch.ones(len(signals))
        columns = (ones, signals.loss, signals.entropy, relative[:, 0], relative[:, 1])
        enough = (known.float(), signals.sufficiency.where(known, 0), relative[:, 2].where(known, 0))
        by_image = torch.stack([*columns, *enough], 1)
        agrees = signals.agreement.isfinite() & signals.least_agreement.isfinite()
        expects = signals.label_loss.isfinite() & signals.expected_loss.isfinite()
        labels = [expects.float(), *(each.where(expects, 0) for each in (signals.label_loss, signals.expected_loss))]
        agreement = (each.where(agrees, 0) for each in (signals.agreement, signals.least_agreement))
        by_credit = torch.stack([agrees.float(), *agreement, *labels], 1)
        parts = torch.cat([by_image[signals.image], by_credit], 1)
        more = signals.sample_loss - signals.loss[signals.image]  # than the image as a whole
        parts[:, 1] += more
        parts[:, 3] += more / deviation[signals.image]
        parts *= signals.share[:, None]
        if self.store is not None:
            index, place = torch.unique(signals.index, return_inverse=True)
            share = torch.zeros(len(index)).index_add_(0, place, signals.share)
            shared = signals.features[signals.image].float() * signals.share[:, None]
            features = torch.zeros(len(index), shared.shape[1]).index_add_(0, place, shared)
            self.store.blend(index, self.rows[index, 0], features, share)
        self.rows.index_add_(0, signals.index, parts)

    def collect(self) -> None:
        """Add up the sums of all ranks on rank 0 and reset them on the others. This is a collective."""
        width = 0 if self.store is None else max(gather_objects(self.store.rows.shape[1]))
        for start in range(0, len(self.rows), BLOCK):
            index, rows, features = self.block(start, width)
            parts = [gather_rows(column) for column in (index, rows, features)]
            if not parts[0]:
                self.rows[index] = 0
            # In rank order, so that rounding is reproducible.
            for part in list(zip(*parts, strict=True))[1:]:
                self.merge(*part)

    def block(self, start: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (index, sums, features times share) of one block: the samples from `start` on with any signals.

        `width` is the width of the features, which a rank without signals does not know.
        """
        index = start + (self.rows[start : start + BLOCK, 0] > 0).nonzero().squeeze(1)
        rows, features = self.rows[index], torch.zeros(len(index), width)
        if self.store is not None and len(index):
            features = self.store.rows[index].float() * rows[:, :1]
        return index, rows, features

    def merge(self, index: Tensor, rows: Tensor, features: Tensor) -> None:
        """Add the sums that `block` returned on another rank."""
        if self.store is not None and len(index):
            self.store.blend(index, self.rows[index, 0], features, rows[:, 0])
        self.rows[index] += rows

    def samples(self) -> SampleSignals:
        """Return the mean signals of the samples that have any."""
        index = (self.rows[:, 0] > 0).nonzero().squeeze(1)
        rows = self.rows[index]
        share, known = rows[:, 0], rows[:, 5]
        relative = torch.stack([rows[:, 3] / share, rows[:, 4] / share, rows[:, 7] / known], 1)
        agreement, losses = rows[:, 9:11] / rows[:, 8:9], rows[:, 12:] / rows[:, 11:12]
        return SampleSignals(
            index, rows[:, 1] / share, rows[:, 2] / share, rows[:, 6] / known,
            agreement[:, 0], agreement[:, 1], losses[:, 0], losses[:, 1], relative,
        )  # fmt: skip
