"""Strategies that learn nothing: full, random, and the largest last loss or entropy."""

import torch

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register
from det_seg_agent.strategies.round_robin import top


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
