"""Levels: scaled signals of each sample, as moving averages over passes. The agent and `Quality` use them."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.strategies.data_agent.reward import robust_scale
from det_seg_agent.sums import SampleSignals

LOSS, ENTROPY, INSUFFICIENCY = range(3)


class Levels:
    """Exponential moving averages of each sample's loss, entropy and 1 - sufficiency, scaled to [0, 1].

    Each signal is detrended (`sums.detrend`) and scaled between the 5th and the 95th percentile of its pass, which
    makes the three comparable. They are averaged over passes because one observation is noisy: augmentation produces
    a different crop each time.

    Args:
        num_samples: number of samples in the training set.
        memory: decay of the moving average, in [0, 1): new = memory * old + (1 - memory) * observed.

    Attributes:
        rows: (num_samples, 3) float16 in [0, 1]; NaN until first observed, or if a signal is not provided.
    """

    def __init__(self, num_samples: int, memory: float):
        self.memory = memory
        self.rows = torch.full((num_samples, 3), float("nan"), dtype=torch.float16)

    def update(self, samples: SampleSignals) -> None:
        """Update the averages from the signals of a pass."""
        raw = samples.relative[:, 0], samples.relative[:, 1], -samples.relative[:, 2]
        now = torch.full((len(samples), 3), float("nan"))
        for column, values in enumerate(raw):
            known = values.isfinite()
            now[known, column] = robust_scale(values[known])
        old = self.rows[samples.index].float()
        mean = self.memory * old + (1 - self.memory) * now
        self.rows[samples.index] = torch.where(now.isnan(), old, torch.where(old.isnan(), now, mean)).half()

    def known(self, index: Tensor) -> Tensor:
        """Return the levels (n, 3) float32 of observed samples."""
        return self.rows[index].float()

    def difficulty(self, index: Tensor, by: str) -> Tensor:
        """Return the difficulty D (n,) in [0, 1] of observed samples: "loss", "insufficiency", or the mean of "both".

        The loss replaces a missing sufficiency.
        """
        level = self.known(index)
        loss = level[:, LOSS]
        other = level[:, INSUFFICIENCY].where(level[:, INSUFFICIENCY].isfinite(), loss)
        return {"loss": loss, "insufficiency": other, "both": (loss + other) / 2}[by]

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Return the levels as policy inputs, (n, 3) float32 in [-1, 1]; 0 where unknown."""
        return (2 * self.rows[index].float() - 1).nan_to_num_(nan=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.rows = state["rows"].clone()
