"""Trust: how far the model agrees with a sample's labels, compared with other samples of the same classes."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.classes import ClassShares
from det_seg_agent.sums import SampleSignals

PRIOR = 5.0  # samples that the mean over all classes counts as in the mean of a class
LONG = 8  # passes after which the mean over passes becomes a moving one


class Trust:
    """Mean over passes of each sample's agreement, less what its classes lead to expect.

    Wrong labels are disagreed with in every pass; hard samples are so less, and rare classes are compared with
    themselves only. The agreement is `Signals.agreement`.

    Args:
        num_samples: number of samples in the training set.

    Attributes:
        mean: (num_samples,) float32, in logits; NaN until first observed.
        passes: (num_samples,) int16, passes that observed the sample.
    """

    def __init__(self, num_samples: int):
        self.mean = torch.full((num_samples,), float("nan"))
        self.share = torch.full((num_samples,), float("nan"))
        self.passes = torch.zeros(num_samples, dtype=torch.int16)

    def update(self, samples: SampleSignals, shares: ClassShares) -> None:
        """Update the means from the signals of a pass."""
        known = samples.agreement.isfinite()
        index, now = samples.index[known], samples.agreement[known].sigmoid()
        if not len(now):
            return
        sums, weight = shares.of_class(now, index, len(shares.labels))
        overall = float(now.mean())
        expected = ((sums + PRIOR * overall) / (weight + PRIOR)).float()
        self.passes[index] = (self.passes[index] + 1).clamp(max=LONG)
        for kept, new in ((self.share, now), (self.mean, now / shares.take(index).of_sample(expected, overall))):
            old = kept[index]
            kept[index] = torch.where(old.isnan(), new, old + (new - old) / self.passes[index])

    def weights(self, power: float, least: float, known: float) -> Tensor:
        """Return weights (num_samples,) float32 in (0, 1]; 1 for samples that were never observed."""
        trust = self.mean.clamp(max=1) ** power
        seen = self.share.isfinite()
        if known < 1 and bool(seen.any()):
            rank = self.share[seen].argsort().argsort().float() / int(seen.sum())
            trust[seen] *= 1 - (1 - known) * rank
        return trust.nan_to_num(nan=1.0).clamp(min=least)

    def state_dict(self) -> dict[str, Any]:
        """Return means and numbers of passes."""
        return {"mean": self.mean, "share": self.share, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.mean, self.share, self.passes = (state[name].clone() for name in ("mean", "share", "passes"))
