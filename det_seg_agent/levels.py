"""Running levels of a sample: its signals relative to those of the others, averaged over the passes that saw it."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.rewards import robust_scale
from det_seg_agent.signals import SampleSignals

LOSS, ENTROPY, INSUFFICIENCY = range(3)


class Levels:
    """Loss, entropy and 1 - sufficiency of each sample, (num_samples, 3) float16 in [0, 1].

    NaN before the first sight, and where a loop tells no sufficiency.

    Each is scaled between the 5th and the 95th percentile of its pass, which puts them on one footing and takes out
    the fall of the loss over training. A single sight of a sample is noisy, as augmentation shows another crop of it
    each time, so that levels are exponential means over sights.

    Args:
        num_samples: size of the training set.
        memory: share of the mean so far that a new sight leaves, in [0, 1).
    """

    def __init__(self, num_samples: int, memory: float):
        self.memory = memory
        self.rows = torch.full((num_samples, 3), float("nan"), dtype=torch.float16)

    def update(self, samples: SampleSignals) -> None:
        """Take the signals of a pass."""
        raw = samples.loss, samples.entropy, 1 - samples.sufficiency
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

        Without a sufficiency, the mean of both is the loss.
        """
        level = self.known(index)[:, [LOSS, INSUFFICIENCY]]
        return {"loss": level[:, 0], "insufficiency": level[:, 1], "both": level.nanmean(1)}[by]

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Return them as inputs of a policy, (n, 3) float32 in [-1, 1]; 0 for what is not known."""
        return (2 * self.rows[index].float() - 1).nan_to_num_(nan=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.rows = state["rows"].clone()
