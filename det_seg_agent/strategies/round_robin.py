"""Turns: each sample comes round at its rate, none is left out, and every selection has all kinds of samples."""

import torch
from torch import Tensor

from det_seg_agent.seeding import generator

UNSEEN = 1024.0  # passes that a sample which was never seen is more due than any other
GOLDEN = (5**0.5 - 1) / 2


def phases(total: int, seed: int) -> Tensor:
    """Return where in its turn each sample starts, (total,) float32 in [0, 1]: the golden ratio's multiples.

    Any run of neighbours is spread evenly over the turn (Kronecker's low-discrepancy sequence), so that a selection
    takes the same share of each part of a sorted data set or of a video, whose neighbours are alike.
    """
    start = torch.rand((), generator=generator(seed, "phases"), dtype=torch.float64)
    return ((start + torch.arange(total, dtype=torch.float64) * GOLDEN) % 1).float()


def rates(weight: Tensor, count: int, floor: float) -> Tensor:
    """Return rates (N,) that add up to `count`: floor * count / N + c * weight, cut at 1; weights (N,) are >= 0."""
    n, floor = len(weight), floor * count / len(weight)
    weight = weight + 1e-6
    total, cut = weight.sum(dtype=torch.float64), torch.zeros((), dtype=torch.bool)
    while True:  # each round cuts more samples at 1, so that c rises, until no more are cut
        left = n - int(cut.sum())
        if not left:
            return torch.ones_like(weight)
        scale = (count - (n - left) - floor * left) / float(total)
        rate = floor + scale * weight
        over = rate >= 1
        if bool(torch.equal(over | cut, cut.expand(n))):
            return rate.clamp_(max=1)
        cut = over | cut
        total = weight.masked_fill(cut, 0).sum(dtype=torch.float64)


class Turns:
    """How due each sample is, (num_samples,) float32: each pass it earns its rate, and a selection pays back one.

    Args:
        num_samples: size of the training set.
        seed: of where the first turns start; None to start all together.
    """

    def __init__(self, num_samples: int, seed: int | None):
        self.due = torch.zeros(num_samples) if seed is None else phases(num_samples, seed)

    def take(self, weight: Tensor, count: int, floor: float, first: Tensor, draw: torch.Generator) -> Tensor:
        """Return the `count` samples that are most due, rising; a sample of rate 1/3 so comes round every third pass.

        Args:
            weight: (num_samples,) float32 >= 0, see `rates`; NaN counts as 1.
            count: size of the selection.
            floor: least rate, as a share of count / num_samples.
            first: (num_samples,) bool, the samples that come before all others.
            draw: breaks ties.
        """
        self.due += rates(weight.nan_to_num(nan=1.0), count, floor)
        indices = top(self.due + UNSEEN * first, count, draw)
        self.due[indices] -= 1
        return indices


def top(score: Tensor, count: int, draw: torch.Generator, first: Tensor | None = None) -> Tensor:
    """Return the `count` indices of the highest scores, rising; those in the mask `first`, and NaN, come before all.

    Of equal scores `draw` chooses: by index the first classes of a sorted data set would always win.
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
