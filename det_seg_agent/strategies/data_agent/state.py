"""Running levels of a sample: its signals compared with those of other samples, averaged over passes."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.strategies.data_agent.reward import robust_scale
from det_seg_agent.sums import SampleSignals

LOSS, ENTROPY, INSUFFICIENCY = range(3)


class Levels:
    """Loss, entropy and 1 - sufficiency of each sample, (num_samples, 3) float16 in [0, 1].

    NaN before the first signal, and for sufficiency where a loop does not provide it.

    Each is taken without the drift of training (`sums.detrend`), and scaled between the 5th and the 95th percentile of
    its pass, which puts them on one footing. A single observation of a sample is noisy, as augmentation shows another
    crop of it each time, so that levels are exponential moving averages over passes.

    Args:
        num_samples: size of the training set.
        memory: decay of the moving average, in [0, 1): new = memory * old + (1 - memory) * observed.
    """

    def __init__(self, num_samples: int, memory: float):
        self.memory = memory
        self.rows = torch.full((num_samples, 3), float("nan"), dtype=torch.float16)

    def update(self, samples: SampleSignals) -> None:
        """Take the signals of a pass."""
        raw = samples.relative[:, 0], samples.relative[:, 1], -samples.relative[:, 2]
        now = torch.full((len(samples), 3), float("nan"))
        for column, values in enumerate(raw):
            known = values.isfinite()
            now[known, column] = robust_scale(values[known])
        old = self.rows[samples.index].float()
        mean = self.memory * old + (1 - self.memory) * now
        self.rows[samples.index] = torch.where(now.isnan(), old, torch.where(old.isnan(), now, mean)).half()

    def known(self, index: Tensor) -> Tensor:
        """Return the levels (n, 3) float32 of samples that were seen."""
        return self.rows[index].float()

    def difficulty(self, index: Tensor, by: str) -> Tensor:
        """Return D (n,) in [0, 1] of samples that were seen: by "loss", "insufficiency", or the mean of "both".

        Where a sample has no sufficiency, it is the loss.
        """
        level = self.known(index)
        loss = level[:, LOSS]
        other = level[:, INSUFFICIENCY].where(level[:, INSUFFICIENCY].isfinite(), loss)
        return {"loss": loss, "insufficiency": other, "both": (loss + other) / 2}[by]

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Return them as inputs of a policy, (n, 3) float32 in [-1, 1]; 0 for what is not known."""
        return (2 * self.rows[index].float() - 1).nan_to_num_(nan=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.rows = state["rows"].clone()
