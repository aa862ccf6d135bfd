"""Weighted round-robin: each sample is selected at its own rate and none is starved. The agent and its controls use it.

A sample of rate 1/3 is selected in every third pass.
"""

import torch
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.baselines import top

UNSEEN = 1024.0  # priority bonus that puts never-seen samples first
GOLDEN = (5**0.5 - 1) / 2


def phases(total: int, seed: int) -> Tensor:
    """Return initial priorities (total,) float32 in [0, 1]: multiples of the golden ratio modulo 1.

    This low-discrepancy (Kronecker) sequence spreads consecutive samples evenly, so that a selection takes the same
    fraction of each part of a sorted data set or a video, where neighbours are similar.
    """
    start = torch.rand((), generator=generator(seed, "phases"), dtype=torch.float64)
    return ((start + torch.arange(total, dtype=torch.float64) * GOLDEN) % 1).float()


def rates(weight: Tensor, count: int, floor: float) -> Tensor:
    """Return rates (N,) float32 that sum to `count`: min(1, floor * count / N + c * weight) with a suitable c.

    Args:
        weight: (N,) float32 >= 0.
        count: size of a selection.
        floor: lowest rate, as a fraction of count / N.
    """
    floor *= count / len(weight)
    weight = weight + 1e-6
    free = torch.ones(len(weight), dtype=torch.bool)
    while left := int(free.sum()):  # clipping samples at 1 raises c, so repeat until none is clipped
        scale = (count - (len(weight) - left) - floor * left) / float(weight[free].double().sum())
        rate = floor + scale * weight
        if bool((rate[free] < 1).all()):
            return rate.clamp(max=1)
        free &= rate < 1
    return torch.ones_like(weight)


class Turns:
    """Round-robin by priority: in each pass a priority grows by the sample's rate; being selected subtracts 1.

    Args:
        num_samples: number of samples in the training set.
        seed: seed of the initial priorities, see `phases`; None to start all at 0.

    Attributes:
        due: (num_samples,) float32, priority of each sample.
    """

    def __init__(self, num_samples: int, seed: int | None):
        self.due = torch.zeros(num_samples) if seed is None else phases(num_samples, seed)

    def take(self, weight: Tensor, count: int, floor: float, first: Tensor, draw: torch.Generator) -> Tensor:
        """Update the priorities and return the `count` samples with the highest, (count,) int64, ascending.

        Args:
            weight: (num_samples,) float32 >= 0, see `rates`; NaN counts as 1.
            count: size of the selection.
            floor: lowest rate, as a fraction of count / num_samples.
            first: (num_samples,) bool, samples to take before all others.
            draw: generator that breaks ties.
        """
        self.due += rates(weight.nan_to_num(nan=1.0), count, floor)
        indices = top(self.due + UNSEEN * first, count, draw)
        self.due[indices] -= 1
        return indices
