"""The strategy `afss` (AFSS, arXiv 2603.17684), with a given or the published budget."""

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, StrategyOptions, register


class AfssOptions(StrategyOptions):
    """Options of `Afss`; the defaults are the published values."""

    easy: float = Field(0.85, ge=0, le=1, description="sufficiency above which a sample is easy")
    moderate: float = Field(0.55, ge=0, le=1, description="sufficiency from which a sample is moderate")
    easy_share: float = Field(0.02, ge=0, le=1, description="share of the easy samples in a pass")
    moderate_share: float = Field(0.4, ge=0, le=1, description="share of the moderate samples in a pass")
    easy_review: int = Field(10, ge=1, description="passes unseen after which an easy sample is reviewed")
    native: bool = Field(False, description="the published rule: all hard samples, and the budget follows")
    moderate_review: int = Field(3, ge=1, description="passes unseen after which a moderate sample is reviewed")


@register("afss")
class Afss(Strategy):
    """Splits samples into hard, moderate and easy by sufficiency, min(precision, recall), and replays learned ones.

    In the published rule (`native`) the levels determine the budget: all hard samples, a share of the moderate and of
    the easy ones, and every sample whose review interval has passed. By default the budget is given and filled in
    this order, at random within each group: reviews, the moderate share and the easy share, hard samples, then the
    remaining samples by ascending sufficiency. Sufficiency comes from the last (augmented) training forward of a
    sample; the paper refreshes it by extra inference every five epochs.
    """

    Options: ClassVar[type[BaseModel]] = AfssOptions
    options: AfssOptions
    needs_sufficiency = True

    def __init__(self, table: Any, seed: int, options: AfssOptions):
        super().__init__(table, seed, options)
        self.fixed_budget = not self.options.native

    def select(self, request: Request) -> Selection:
        """Return `count` samples (native: as many as the rule takes, at least one)."""
        o, table = self.options, self.table
        # Never-seen samples count as hard; samples without finite signals count as easy.
        known = torch.where(table.never_seen(), 0.0, table.sufficiency.nan_to_num(nan=1.0))
        table.score = 1 - known
        easy = known > o.easy
        moderate = (known >= o.moderate) & ~easy
        chance = torch.rand(len(table), generator=generator(self.seed, "afss", request.pass_index))
        unseen = request.pass_index - 1 - table.last_pass.long()  # passes since last trained on
        due = (easy & (unseen >= o.easy_review)) | (moderate & (unseen >= o.moderate_review))
        level = torch.full((len(table),), 3.0)
        level[~easy & ~moderate] = 2
        level[self._share(moderate & ~due, moderate, due, o.moderate_share, chance)] = 1
        level[self._share(easy & ~due, easy, due, o.easy_share, chance)] = 1
        level[due] = 0
        count = max(1, int((level < 3).sum())) if o.native else request.count
        rest = torch.where(level == 3, known, 0.0)
        order = chance.argsort()
        for key in (rest, level):  # stable sorts: by level, then sufficiency (rest only), then at random
            order = order[key[order].argsort(stable=True)]
        return Selection(order[:count].sort().values)

    @staticmethod
    def _share(free: Tensor, level: Tensor, due: Tensor, share: float, chance: Tensor) -> Tensor:
        """Return random `free` samples that, with those to be reviewed, make up `share` of a level."""
        count = max(0, round(share * int(level.sum())) - int((level & due).sum()))
        index = free.nonzero().squeeze(1)
        return index[chance[index].argsort()[:count]]
