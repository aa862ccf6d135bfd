"""AFSS: review what is learned, train on what is not (arXiv 2603.17684), at a given ratio."""

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register


class AfssOptions(BaseModel):
    """The published rule's figures."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    easy: float = Field(0.85, ge=0, le=1, description="sufficiency above which a sample is easy")
    moderate: float = Field(0.55, ge=0, le=1, description="sufficiency from which a sample is moderate")
    easy_share: float = Field(0.02, ge=0, le=1, description="share of the easy samples in a pass")
    moderate_share: float = Field(0.4, ge=0, le=1, description="share of the moderate samples in a pass")
    easy_review: int = Field(10, ge=1, description="passes unseen after which an easy sample is reviewed")
    native: bool = Field(False, description="the published rule: all hard samples, and the budget follows")
    moderate_review: int = Field(3, ge=1, description="passes unseen after which a moderate sample is reviewed")


@register("afss")
class Afss(Strategy):
    """Samples in three levels of sufficiency, min(precision, recall): hard ones all, the others in turns.

    The published rule (`native`) lets the budget follow from the levels: all hard samples, the reviews and the shares.
    By default the budget is given. Places go in this order, at random within each: reviews that are due, the moderate
    share, the easy share, the hard ones; what is left of the budget goes to the remaining samples, least sufficient
    first. Sufficiency is that of the last training forward that showed a sample, augmented as it was; the paper
    refreshes it by extra inference every five epochs.
    """

    Options: ClassVar[type[BaseModel]] = AfssOptions
    options: AfssOptions
    needs_sufficiency = True

    def __init__(self, table: Any, seed: int, options: AfssOptions):
        super().__init__(table, seed, options)
        self.fixed_budget = not self.options.native

    def select(self, request: Request) -> Selection:
        """Return `count` samples; native: as many as the rule takes, and at least one."""
        o, table = self.options, self.table
        # Unseen ones are hard; a sample whose signals were not finite is left to chance and reviews.
        known = torch.where(table.never_seen(), 0.0, table.sufficiency.nan_to_num(nan=1.0))
        table.score = 1 - known
        easy = known > o.easy
        moderate = (known >= o.moderate) & ~easy
        chance = torch.rand(len(table), generator=generator(self.seed, "afss", request.pass_index))
        unseen = request.pass_index - 1 - table.last_pass.long()  # passes since the last sight
        due = (easy & (unseen >= o.easy_review)) | (moderate & (unseen >= o.moderate_review))
        level = torch.full((len(table),), 3.0)
        level[~easy & ~moderate] = 2
        level[self._share(moderate & ~due, moderate, due, o.moderate_share, chance)] = 1
        level[self._share(easy & ~due, easy, due, o.easy_share, chance)] = 1
        level[due] = 0
        count = max(1, int((level < 3).sum())) if o.native else request.count
        rest = torch.where(level == 3, known, 0.0)
        order = chance.argsort()
        for key in (rest, level):  # stable: by level, then sufficiency among the rest, then chance
            order = order[key[order].argsort(stable=True)]
        return Selection(order[:count].sort().values)

    @staticmethod
    def _share(free: Tensor, level: Tensor, due: Tensor, share: float, chance: Tensor) -> Tensor:
        """Return indices of `free` samples that fill `share` of a level beside those that are due."""
        count = max(0, round(share * int(level.sum())) - int((level & due).sum()))
        index = free.nonzero().squeeze(1)
        return index[chance[index].argsort()[:count]]
