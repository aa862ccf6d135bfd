"""InfoBatch (Qin et al., ICLR 2024) at a given ratio."""

import torch

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register

MIN_KEEP = 0.1


@register("infobatch")
class InfoBatch(Strategy):
    """Prunes at random among the samples below the mean loss and scales the kept ones' losses by 1 / keep probability.

    The published rule fixes the probability and lets the budget follow; here the budget is given and the probability
    follows: with n of N samples below the mean, k = count - (N - n) of them are kept, each with probability k / n, so
    that the expected gradient is that of the full pass. Where this would leave them a probability below 0.1, the
    threshold rises above the mean until it is 0.1: without that no unbiased rescaling exists.
    """

    weighs = True

    def select(self, request: Request) -> Selection:
        """Return exactly `count` samples and their weights; a sample never seen is never pruned."""
        loss = self.table.last("loss").nan_to_num(nan=float("inf"), neginf=float("-inf"))
        known = loss.isfinite()
        below = loss < (loss[known].mean() if bool(known.any()) else 0)
        total, low = len(loss), int(below.sum())
        if request.count - (total - low) < MIN_KEEP * low:
            low = min(total, int((total - request.count) / (1 - MIN_KEEP)) + 1)
            below = torch.zeros(total, dtype=torch.bool)
            below[loss.topk(low, largest=False).indices] = True
        low_index = below.nonzero().squeeze(1)
        keep = request.count - (total - low)
        draw = generator(self.seed, "infobatch", request.pass_index)
        kept = low_index[torch.randperm(low, generator=draw)[:keep]]
        weight = torch.ones(total)
        weight[kept] = low / max(keep, 1)
        chosen = ~below
        chosen[kept] = True
        self.table.score = self.table.last("loss")
        indices = chosen.nonzero().squeeze(1)
        return Selection(indices, weight[indices])
