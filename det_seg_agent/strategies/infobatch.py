"""The strategy `infobatch` (InfoBatch, Qin et al., ICLR 2024), with a given or the published budget."""

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, StrategyOptions, refuse_inert, register

MIN_KEEP = 0.1


class InfoBatchOptions(StrategyOptions):
    """Options of `InfoBatch`."""

    native: bool = Field(False, description="the published rule: a fixed probability, and the budget follows")
    prune: float = Field(0.5, gt=0, lt=1, description="share of the samples below the mean that is pruned (native)")


@register("infobatch")
class InfoBatch(Strategy):
    """Prunes samples below the mean loss at random and scales the losses of those kept by 1 / keep probability.

    The published rule (`native`) fixes the probability, which determines the budget. By default the budget is given
    and determines the probability: if n of N samples are below the mean, k = count - (N - n) of them are kept, each
    with probability k / n, so that the expected gradient equals that of a full pass. If k / n would be below 0.1, the
    threshold is raised above the mean until it is 0.1, because otherwise no unbiased rescaling exists.
    """

    Options: ClassVar[type[BaseModel]] = InfoBatchOptions
    options: InfoBatchOptions
    weighs = True

    def __init__(self, table: Any, seed: int, options: InfoBatchOptions):
        super().__init__(table, seed, options)
        self.fixed_budget = not self.options.native

    @classmethod
    def resolved(cls, options: Any) -> Any:
        """Return the options; refuse `prune` without `native`."""
        refuse_inert(options, cls.Options(), {} if options.native else {"prune": "unless native=true"})
        return options

    def select(self, request: Request) -> Selection:
        """Return `count` samples (native: as many as the rule keeps) with weights; never-seen ones are not pruned."""
        loss = self.table.last("loss").nan_to_num(nan=float("inf"), neginf=float("-inf"))
        self.table.score = self.table.last("loss")
        known = loss.isfinite()
        below = loss < (loss[known].mean() if bool(known.any()) else 0)
        total, low = len(loss), int(below.sum())
        keep = low - round(self.options.prune * low) if self.options.native else request.count - (total - low)
        if not self.options.native and keep < MIN_KEEP * low:
            low = min(total, int((total - request.count) / (1 - MIN_KEEP)) + 1)
            below = torch.zeros(total, dtype=torch.bool)
            below[loss.topk(low, largest=False).indices] = True
            keep = request.count - (total - low)
        return self._selection(below, keep, generator(self.seed, "infobatch", request.pass_index))

    @staticmethod
    def _selection(below: Tensor, keep: int, draw: torch.Generator) -> Selection:
        """Return all samples outside the mask `below`, and `keep` random ones inside it."""
        low = below.nonzero().squeeze(1)
        kept = low[torch.randperm(len(low), generator=draw)[:keep]]
        weight = torch.ones(len(below))
        weight[kept] = len(low) / max(keep, 1)
        chosen = ~below
        chosen[kept] = True
        indices = chosen.nonzero().squeeze(1)
        return Selection(indices, weight[indices])
