"""Weighted round-robin: each sample is selected at its own rate and none is starved. The agent and its controls use it.

A sample of rate 1/3 is selected in every third pass.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy

UNSEEN = 1024.0  # passes that a sample which was never seen is more due than any other
GOLDEN = (5**0.5 - 1) / 2


def phases(total: int, seed: int) -> Tensor:
    """Return initial priorities (total,) float32 in [0, 1]: multiples of the golden ratio modulo 1.

    This low-discrepancy (Kronecker) sequence spreads consecutive samples evenly, so that a selection takes the same
    fraction of each part of a sorted data set or a video, where neighbours are similar.
    """
    start = torch.rand((), generator=generator(seed, "phases"), dtype=torch.float64)
    return ((start + torch.arange(total, dtype=torch.float64) * GOLDEN) % 1).float()


def rates(weight: Tensor, count: float, floor: float, cap: int = 1) -> Tensor:
    """Return rates (N,) float32 that sum to `count`: min(cap, floor * count / N + c * weight) with a suitable c.

    Args:
        weight: (N,) float32 >= 0.
        count: sum of the rates, the mean size of a selection.
        floor: lowest rate, as a fraction of count / N.
        cap: highest rate: how often a selection may hold a sample.
    """
    n, floor = len(weight), floor * count / len(weight)
    weight = weight + 1e-6
    total, cut = weight.sum(dtype=torch.float64), torch.zeros((), dtype=torch.bool)
    while True:  # each round cuts more samples at the cap, so that c rises, until no more are cut
        left = n - int(cut.sum())
        if not left:
            return torch.full_like(weight, cap)
        scale = (count - cap * (n - left) - floor * left) / float(total)
        rate = floor + scale * weight
        over = rate >= cap
        if bool(torch.equal(over | cut, cut.expand(n))):
            return rate.clamp_(max=cap)
        cut = over | cut
        total = weight.masked_fill(cut, 0).sum(dtype=torch.float64)


class RoundRobin:
    """Round-robin by priority: in each pass a priority grows by the sample's rate; being selected subtracts 1.

    Args:
        num_samples: number of samples in the training set.
        seed: seed of the initial priorities, see `phases`; None to start all at 0.

    Attributes:
        priority: (num_samples,) float32, priority of each sample.
    """

    def __init__(self, num_samples: int, seed: int | None):
        self.priority = torch.zeros(num_samples) if seed is None else phases(num_samples, seed)

    def take(
        self, weight: Tensor, count: int, floor: float, first: Tensor, draw: torch.Generator, cap: int = 1
    ) -> Tensor:
        """Update the priorities and return the `count` samples with the highest, (count,) int64, ascending.

        A sample of priority p is taken a second time as one of priority p - 1 would be taken once, and so on.

        Args:
            weight: (num_samples,) float32 >= 0, see `rates`; NaN counts as 1.
            count: size of the selection.
            floor: lowest rate, as a fraction of count / num_samples.
            first: (num_samples,) bool, samples to take before all others.
            draw: generator that breaks ties.
            cap: how often a sample may be taken.
        """
        self.priority += rates(weight.nan_to_num(nan=1.0), count, floor, cap)
        again = [self.priority - copy for copy in range(1, cap)]
        places = top(torch.cat([self.priority + UNSEEN * first, *again]), count, draw)
        indices = (places % len(self.priority)).sort().values
        self.priority -= torch.bincount(indices, minlength=len(self.priority))
        return indices


class ByWeight(Strategy):
    """Base of strategies that select each sample at a rate in proportion to its weight.

    Attributes:
        floor: least rate, as a fraction of the ratio.
        cap: how often a selection may hold a sample.
    """

    floor: float = 0.0
    cap: int = 1

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.round_robin = RoundRobin(len(table), seed)

    @abstractmethod
    def weights(self) -> Tensor:
        """Return the weight of each sample, (num_samples,) float32 >= 0."""

    def factors(self) -> Tensor | None:
        """Return factors of the samples' rates and losses, (num_samples,) float32 in (0, 1]; None if all are 1."""
        return None

    def select(self, request: Request) -> Selection:
        """Return the `count` samples of highest round-robin priority, with their factors as weights if it `weighs`.

        The floor is part of the rates that the factors multiply, so that a rate may fall below it.
        """
        self.table.score = self.weights()
        weight, floor, factors = self.table.score, self.floor, self.factors()
        if factors is not None:
            weight, floor = rates(weight.nan_to_num(nan=1.0), request.count, floor, self.cap) * factors, 0.0
        draw = generator(self.seed, "ties", request.pass_index)
        first = self.table.never_seen()
        indices = self.round_robin.take(weight, request.count, floor, first, draw, self.cap)
        return Selection(indices, factors[indices] if factors is not None and self.weighs else None)

    def state_dict(self) -> dict[str, Any]:
        """Return the round-robin priorities."""
        return {"due": self.round_robin.priority}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.round_robin.priority = state["due"].clone()


def top(score: Tensor, count: int, draw: torch.Generator, first: Tensor | None = None) -> Tensor:
    """Return the indices of the `count` highest scores, (count,) int64, ascending.

    Ties are broken at random: breaking them by index would favour the first classes of a sorted data set.

    Args:
        score: (n,) float32; NaN ranks highest.
        count: number of indices, from 1 to n.
        draw: generator that breaks ties.
        first: (n,) bool, samples that rank above all others; optional.
    """
    score = score.nan_to_num(nan=float("inf"))
    if first is not None:
        score = score.masked_fill(first, float("inf"))
    floor = score.kthvalue(len(score) - count + 1).values  # without a sort
    chosen = score > floor
    tied = (score == floor).nonzero().squeeze(1)
    places = count - int(chosen.sum())
    if places < len(tied):
        tied = tied[torch.randperm(len(tied), generator=draw)[:places]]
    chosen[tied] = True
    return chosen.nonzero().squeeze(1)
