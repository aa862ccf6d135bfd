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
        self.passes = torch.zeros(num_samples, dtype=torch.int16)

    def update(self, samples: SampleSignals, shares: ClassShares) -> None:
        """Update the means from the signals of a pass."""
        known = samples.agreement.isfinite()
        index, now = samples.index[known], samples.agreement[known]
        if not len(now):
            return
        classes = len(shares.labels)
        sums, weight = shares.of_class(now, index, classes)
        overall = float(now.mean())
        expected = ((sums + PRIOR * overall) / (weight + PRIOR)).float()
        now = now - shares.take(index).of_sample(expected, overall)
        self.passes[index] = (self.passes[index] + 1).clamp(max=LONG)
        old = self.mean[index]
        self.mean[index] = torch.where(old.isnan(), now, old + (now - old) / self.passes[index])

    def weights(self, distrusted: float, least: float) -> Tensor:
        """Return weights (num_samples,) float32 in [least, 1].

        The weight rises linearly with the rank of the mean, from `least` to 1 at the quantile `distrusted`. Samples
        that were never observed have weight 1.
        """
        weight = torch.ones(len(self.mean))
        known = self.mean.isfinite().nonzero().squeeze(1)
        if len(known) and distrusted > 0:
            rank = self.mean[known].argsort().argsort().float() / len(known)
            weight[known] = (least + (1 - least) * rank / distrusted).clamp(max=1)
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Return means and numbers of passes."""
        return {"mean": self.mean, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.mean, self.passes = state["mean"].clone(), state["passes"].clone()
