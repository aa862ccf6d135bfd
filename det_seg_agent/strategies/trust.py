"""Trust: how far the model agrees with a sample's labels, compared with other samples of the same classes."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.classes import ClassShares
from det_seg_agent.sums import SampleSignals

PRIOR = 5.0  # samples that the mean over all classes counts as in the mean of a class
LONG = 8  # passes after which the mean over passes becomes a moving one


def usual_of_classes(shares: ClassShares, agreement: Tensor, overall: Tensor) -> Tensor:
    """Return the mean agreement of each class, (classes,) float32, drawn to that of all where samples are few.

    Args:
        shares: classes of n samples.
        agreement: (n,) float32, of the same samples.
        overall: mean over all classes, a scalar.
    """
    sums, weight = shares.of_class(agreement)
    return ((sums + PRIOR * overall) / (weight + PRIOR)).float()


class Trust:
    """Means over passes of each sample's agreement, as it is and over that of its classes.

    Wrong labels are disagreed with in every pass; hard samples are so less, and rare or unlearned classes are compared
    with themselves only. The agreement is `Signals.agreement`.

    Args:
        num_samples: number of samples in the training set.

    Attributes:
        agreement: (num_samples,) float32 in [0, 1], mean over passes; NaN until first observed.
        relative: (num_samples,) float32 >= 0, the same of the agreement divided by the mean one of the sample's
            classes in the pass.
        passes: (num_samples,) int16, passes that observed the sample.
    """

    def __init__(self, num_samples: int):
        self.agreement = torch.full((num_samples,), float("nan"))
        self.relative = torch.full((num_samples,), float("nan"))
        self.passes = torch.zeros(num_samples, dtype=torch.int16)

    def update(self, samples: SampleSignals, shares: ClassShares) -> None:
        """Update the means from the signals of a pass."""
        known = samples.agreement.isfinite()
        index, now = samples.index[known], samples.agreement[known]
        if not len(now):
            return
        mine, overall = shares.take(index), now.mean()
        relative = now / mine.of_sample(usual_of_classes(mine, now, overall), float(overall)).clamp(min=1e-6)
        self.passes[index] = (self.passes[index] + 1).clamp(max=LONG)
        for mean, new in ((self.agreement, now), (self.relative, relative)):
            old = mean[index]
            mean[index] = torch.where(old.isnan(), new, old + (new - old) / self.passes[index])

    def weights(self, power: float, known: float) -> Tensor:
        """Return weights (num_samples,) float32 in [0, 1]; 1 for samples that were never observed.

        Args:
            power: exponent of the relative agreement, of which more than 1 counts as 1.
            known: factor of the sample whose labels the model agrees with most; it rises to 1 with the rank.
        """
        weight = self.relative.clamp(max=1) ** power
        seen = self.agreement.isfinite()
        rank = self.agreement[seen].argsort().argsort().float() / max(int(seen.sum()), 1)
        weight[seen] *= 1 - (1 - known) * rank
        return weight.nan_to_num(nan=1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return means and numbers of passes."""
        return {"agreement": self.agreement, "relative": self.relative, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.agreement, self.relative = state["agreement"].clone(), state["relative"].clone()
        self.passes = state["passes"].clone()
