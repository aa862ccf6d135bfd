"""Baseline strategies without learning (full, random, top loss, top entropy), and `top`, which other rules use."""

import torch

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register
from det_seg_agent.strategies.weights_to_selection import top


@register("full")
class Full(Strategy):
    """Selects every sample in every pass: ordinary training, with signals recorded."""

    selects_all = True

    def select(self, request: Request) -> Selection:
        """Return all samples."""
        return Selection(torch.arange(len(self.table)))


@register("random")
class Random(Strategy):
    """Selects samples uniformly without replacement, independently in each pass."""

    def select(self, request: Request) -> Selection:
        """Return `count` random samples."""
        draw = generator(self.seed, "random", request.pass_index)
        self.table.score = torch.rand(len(self.table), generator=draw)
        return Selection(top(self.table.score, request.count, draw))


@register("loss")
class TopLoss(Strategy):
    """Selects the samples with the largest last observed loss."""

    def select(self, request: Request) -> Selection:
        """Return the `count` samples with the largest loss, never-observed samples first."""
        self.table.score = self.table.last("loss")
        return Selection(top(self.table.score, request.count, generator(self.seed, "ties", request.pass_index)))


@register("entropy")
class TopEntropy(Strategy):
    """Selects the samples with the largest last observed entropy."""

    def select(self, request: Request) -> Selection:
        """Return the `count` samples with the largest entropy, never-observed samples first."""
        self.table.score = self.table.last("entropy")
        return Selection(top(self.table.score, request.count, generator(self.seed, "ties", request.pass_index)))
