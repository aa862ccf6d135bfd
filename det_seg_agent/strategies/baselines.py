"""Strategies that learn nothing: full, random, and the largest last loss or entropy."""

import torch
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register


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


@register("full")
class Full(Strategy):
    """Every sample in every pass: the stock training, observed."""

    selects_all = True

    def select(self, request: Request) -> Selection:
        """Return all."""
        return Selection(torch.arange(len(self.table)))


@register("random")
class Random(Strategy):
    """A uniform draw without replacement, anew for each pass."""

    def select(self, request: Request) -> Selection:
        """Return `count` random samples."""
        draw = generator(self.seed, "random", request.pass_index)
        self.table.score = torch.rand(len(self.table), generator=draw)
        return Selection(top(self.table.score, request.count, draw))


@register("loss")
class TopLoss(Strategy):
    """The samples with the largest loss at last sight."""

    def select(self, request: Request) -> Selection:
        """Return the `count` samples of the largest loss, unseen ones first."""
        self.table.score = self.table.last("loss")
        return Selection(top(self.table.score, request.count, generator(self.seed, "ties", request.pass_index)))


@register("entropy")
class TopEntropy(Strategy):
    """The samples with the largest entropy at last sight."""

    def select(self, request: Request) -> Selection:
        """Return the `count` samples of the largest entropy, unseen ones first."""
        self.table.score = self.table.last("entropy")
        return Selection(top(self.table.score, request.count, generator(self.seed, "ties", request.pass_index)))
