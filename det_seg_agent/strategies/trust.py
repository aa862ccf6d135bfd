"""Trust: how far the model agrees with a sample's labels, compared with other samples of the same classes."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from det_seg_agent.classes import ClassShares
from det_seg_agent.strategies.base import Request, Selection, StrategyOptions
from det_seg_agent.strategies.weights_to_selection import ByWeight, rates
from det_seg_agent.sums import SampleSignals

PRIOR = 5.0  # samples that the mean over all classes counts as in the mean of a class
LONG = 8  # passes after which the mean over passes becomes a moving one
LEAST = 0.02  # lowest factor of a loss


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

    def update(self, samples: SampleSignals, shares: ClassShares | None) -> None:
        """Update the means from the signals of a pass; without classes all samples are compared with each other."""
        known = samples.agreement.isfinite()
        index, now = samples.index[known], samples.agreement[known]
        if not len(now):
            return
        usual = overall = now.mean()
        if shares is not None:
            mine = shares.take(index)
            usual = mine.of_sample(usual_of_classes(mine, now, overall), float(overall))
        relative = now / usual.clamp(min=1e-6)
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

    def factors(self, below: float, power: float) -> Tensor | None:
        """Return (relative / below) ** power, (num_samples,) float32 in [LEAST, 1]; None before any observation.

        Args:
            below: relative agreement from which on samples have 1.
            power: exponent.
        """
        if not bool(self.passes.any()):
            return None
        return ((self.relative / below).clamp(max=1) ** power).clamp(min=LEAST).nan_to_num(nan=1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return means and numbers of passes."""
        return {"agreement": self.agreement, "relative": self.relative, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.agreement, self.relative = state["agreement"].clone(), state["relative"].clone()
        self.passes = state["passes"].clone()


class TrustOptions(StrategyOptions):
    """Options of strategies that are `Trusting`."""

    trust: float = Field(3.0, ge=0, le=8, description="exponent of trust in rates and loss weights; 0: it is ignored")
    doubt_below: float = Field(
        0.75, gt=0, le=1, description="share of the usual agreement of its classes below which a sample is doubted"
    )


class Trusting(ByWeight):
    """Base of strategies that select samples of doubtful labels less often and scale their losses down.

    The factor of a sample is `Trust.factors`; it multiplies the rate and, where the loop can do so, the loss.
    """

    uses_classes = True
    needs_weights = False

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.trust = Trust(len(table))
        self.weighs = self.options.trust > 0

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update the trust from the signals of the pass."""
        classes = self.table.classes
        self.trust.update(samples, None if classes is None else classes.read_shares(len(self.table)))

    def factors(self) -> Tensor | None:
        """Return the factor of each sample, (num_samples,) float32 in (0, 1]; None if all are 1."""
        return self.trust.factors(self.options.doubt_below, self.options.trust) if self.options.trust else None

    def rates(self, request: Request) -> tuple[Tensor, float]:
        """Return rates by weight and trust; their floor is part of them, so that doubtful samples fall below it."""
        weight, floor = super().rates(request)
        if (factors := self.factors()) is None:
            return weight, floor
        return rates(weight, request.count, floor, self.cap) * factors, 0.0

    def select(self, request: Request) -> Selection:
        """Return the samples of highest priority, and their factors as weights."""
        indices = super().select(request).indices
        factors = self.factors() if self.weighs else None
        return Selection(indices, None if factors is None else factors[indices])

    def full_weights(self) -> Tensor | None:
        """Return the factors of all samples."""
        return self.factors() if self.weighs else None

    def state_dict(self) -> dict[str, Any]:
        """Return the round-robin priorities and the trust."""
        return {**super().state_dict(), "trust": self.trust.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.trust.load_state_dict(state["trust"])
