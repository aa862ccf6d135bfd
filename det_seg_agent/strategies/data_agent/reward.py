"""Difficulty, uncertainty, their balance, and the agent's reward (Data Agent, arXiv 2603.07433, section 3)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def percentile(values: Tensor, share: float | list[float]) -> Tensor:
    """Return the quantile `share` in [0, 1] of a 1-d tensor, linearly interpolated; several shares give a 1-d tensor.

    Unlike `torch.quantile`, it has no limit on the length and does not sort.
    """
    return torch.tensor(np.quantile(values.numpy(), share), dtype=values.dtype)


def min_max(values: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Scale a 1-d tensor from [low, high] (default: its range) to [0, 1] and clip; an empty range gives zeros."""
    if not len(values):
        return values
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    if not bool(high > low):
        return torch.zeros_like(values)
    return ((values - low) / (high - low)).clamp(0, 1)


def paper_difficulty(loss: Tensor) -> Tensor:
    """Return the published difficulty D of a mini-batch: loss clipped at its 95th percentile, then min-max scaled."""
    return min_max(loss.clamp(max=percentile(loss, 0.95))) if len(loss) else loss


def robust_scale(values: Tensor) -> Tensor:
    """Scale from the range of the 5th to 95th percentile to [0, 1], which makes loss and entropy comparable."""
    return min_max(values, *percentile(values, [0.05, 0.95])) if len(values) else values


def rank_order(values: Tensor) -> Tensor:
    """Return the rank of each value of a 1-d tensor, in (0, 1) with mean 0.5; equal values get their mean rank."""
    ordered, order = values.sort()
    _, place, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    rank = torch.empty(len(values))
    rank[order] = ((counts.cumsum(0) - counts / 2) / max(len(values), 1))[place]
    return rank


def balance(difficulty: Tensor, uncertainty: Tensor) -> Tensor:
    """Return the balance w = Var(D) / (Var(D) + Var(U) + 1e-8) of population variances, a scalar in [0, 1)."""
    var_d, var_u = difficulty.var(unbiased=False), uncertainty.var(unbiased=False)
    return var_d / (var_d + var_u + 1e-8)


def quality(difficulty: Tensor, uncertainty: Tensor) -> tuple[Tensor, Tensor]:
    """Return the quality q = w D + (1 - w) U of each sample, (n,) in [0, 1], and the balance w."""
    w = balance(difficulty, uncertainty)
    return w * difficulty + (1 - w) * uncertainty, w


def reward(action: Tensor, q: Tensor, matching: bool) -> Tensor:
    """Return the reward (n,) of actions a in (0, 1) and qualities q, both (n,): a q, or a q - a^2 / 2 if `matching`.

    The published reward a q is maximal at a = 1 for every sample with q > 0, so a converged policy cannot rank them.
    The matching reward is maximal at a = q.
    """
    return action * q - action**2 / 2 if matching else action * q


class RunningNorm:
    """Standardises by the mean and variance of all values so far (Chan et al. 1979; Gymnasium's RunningMeanStd)."""

    def __init__(self) -> None:
        self.mean, self.var, self.count = 0.0, 1.0, 0.0

    def __call__(self, values: Tensor) -> Tensor:
        """Update the statistics by `values` (n,) and return the values standardised."""
        if len(values):
            mean, var, n = float(values.mean()), float(values.var(unbiased=False)), len(values)
            total = self.count + n
            delta = mean - self.mean
            m2 = self.var * self.count + var * n + delta**2 * self.count * n / total
            self.mean, self.var, self.count = self.mean + delta * n / total, m2 / total, total
        return (values - self.mean) / (self.var**0.5 + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """Return mean, variance and count."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.mean, self.var, self.count = state["mean"], state["var"], state["count"]
