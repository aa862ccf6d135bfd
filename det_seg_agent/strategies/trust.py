"""Trust: how far the model agrees with a sample's labels, compared with other samples of the same classes."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from det_seg_agent.classes import ClassShares
from det_seg_agent.strategies.base import StrategyOptions
from det_seg_agent.strategies.weights_to_selection import ByWeight
from det_seg_agent.sums import SampleSignals

PRIOR = 5.0  # samples that the mean over all classes counts as in the mean of a class
LONG = 8  # passes after which the mean over passes becomes a moving one
LEAST = 0.02  # lowest factor of a loss
SLACK = 0.05  # added to loss and entropy, whose ratio is noise where both are near 0


def usual_of_classes(shares: ClassShares, values: Tensor, overall: Tensor) -> Tensor:
    """Return the mean of `values` in each class, (classes,) float32, drawn to that of all where samples are few.

    Args:
        shares: classes of n samples.
        values: (n,) float32, of the same samples.
        overall: mean over all classes, a scalar.
    """
    sums, weight = shares.of_class(values)
    return ((sums + PRIOR * overall) / (weight + PRIOR)).float()


def usual_of_samples(shares: ClassShares, values: Tensor) -> Tensor:
    """Return the value that is usual for each sample's classes, (n,) float32; arguments as in `usual_of_classes`."""
    overall = values.mean()
    return shares.of_sample(usual_of_classes(shares, values, overall), float(overall))


def average(passes: Tensor, index: Tensor, *means: tuple[Tensor, Tensor]) -> None:
    """Add a pass to means over passes, after `LONG` of them moving ones; in place.

    Args:
        passes: (num_samples,) int16, passes that observed each sample.
        index: (n,) int64, samples that this pass observed.
        means: a mean (num_samples,) float32, NaN where not observed yet, and the pass's values (n,).
    """
    passes[index] = (passes[index] + 1).clamp(max=LONG)
    for mean, new in means:
        old = mean[index]
        mean[index] = torch.where(old.isnan(), new, old + (new - old) / passes[index])


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
        relative = now / usual_of_samples(shares.take(index), now).clamp(min=1e-6)
        average(self.passes, index, (self.agreement, now), (self.relative, relative))

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


class Surprise:
    """How much larger the loss of a sample's labels is than the model itself expects.

    The expectation of a cross-entropy over the model's own prediction is the prediction's entropy. Hard samples have
    both a high loss and a high entropy, and a ratio near 1; where the model is sure of something else than the label,
    the ratio is high.

    Args:
        num_samples: number of samples in the training set.

    Attributes:
        found, expected: (num_samples,) float32, means of `Signals.label_loss` and `Signals.expected_loss` over passes;
            NaN until first observed.
        passes: (num_samples,) int16, passes that observed the sample.
    """

    def __init__(self, num_samples: int):
        self.found, self.expected = torch.full((2, num_samples), float("nan")).unbind()
        self.passes = torch.zeros(num_samples, dtype=torch.int16)

    def update(self, samples: SampleSignals) -> None:
        """Update the means from the signals of a pass."""
        found, expected = samples.label_loss, samples.expected_loss
        known = found.isfinite() & expected.isfinite()
        average(self.passes, samples.index[known], (self.found, found[known]), (self.expected, expected[known]))

    def ratio(self, shares: ClassShares | None) -> Tensor:
        """Return the ratio of each sample, (num_samples,) float32; NaN until first observed.

        Args:
            shares: the samples' classes. Where the mean ratio of a sample's classes is above 1, as for classes that
                are not learnt yet, its ratio is divided by it.
        """
        ratio = (self.found + SLACK) / (self.expected + SLACK)
        known = ratio.isfinite()
        if shares is None or not bool(known.any()):
            return ratio
        ratio[known] /= usual_of_samples(shares.take(known.nonzero().squeeze(1)), ratio[known]).clamp(min=1)
        return ratio

    def state_dict(self) -> dict[str, Any]:
        """Return means and numbers of passes."""
        return {"found": self.found, "expected": self.expected, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.found, self.expected = state["found"].clone(), state["expected"].clone()
        self.passes = state["passes"].clone()


class TrustOptions(StrategyOptions):
    """Options of strategies that are `Trusting`."""

    trust: float = Field(6.0, ge=0, le=16, description="exponent of trust in rates and loss weights; 0: it is ignored")
    doubt_above: float = Field(
        1.1,
        ge=1,
        le=10,
        description="surprise, the loss over the one that the model expects, above which a sample is doubted",
    )


class Trusting(ByWeight):
    """Base of strategies that select samples of doubtful labels less often and scale their losses down.

    The factor of a sample is (doubt_above / surprise) ** trust, at most 1; it multiplies the rate and, where the loop
    can do so, the loss.
    """

    needs_weights = False

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.surprise = Surprise(len(table))
        self.weighs = self.uses_classes = self.options.trust > 0

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update the surprise from the signals of the pass."""
        self.surprise.update(samples)

    def factors(self) -> Tensor | None:
        """Return the factor of each sample, (num_samples,) float32 in [LEAST, 1]; None if all are 1."""
        if not self.options.trust or not bool(self.surprise.passes.any()):
            return None
        classes = self.table.classes
        ratio = self.surprise.ratio(None if classes is None else classes.read_shares(len(self.table)))
        factor = (self.options.doubt_above / ratio).clamp(max=1) ** self.options.trust
        return factor.clamp(min=LEAST).nan_to_num(nan=1.0)

    def full_weights(self) -> Tensor | None:
        """Return the factors of all samples."""
        return self.factors() if self.weighs else None

    def state_dict(self) -> dict[str, Any]:
        """Return the round-robin priorities and the surprise."""
        return {**super().state_dict(), "surprise": self.surprise.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.surprise.load_state_dict(state["surprise"])
