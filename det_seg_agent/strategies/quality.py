"""Two controls for the agent with the same round-robin selection: its reward's target as a rule, and equal rates."""

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field

from det_seg_agent.strategies.base import register
from det_seg_agent.strategies.data_agent.reward import quality, rank_order
from det_seg_agent.strategies.data_agent.state import ENTROPY, Levels
from det_seg_agent.strategies.trust import Trusting, TrustOptions
from det_seg_agent.strategies.weights_to_selection import ByWeight
from det_seg_agent.sums import SampleSignals


@register("even")
class Even(ByWeight):
    """Selects all samples at the same rate by round-robin: measures what even coverage alone gives over random."""

    floor = 1.0

    def weights(self) -> torch.Tensor:
        """Return the weight of each sample, (num_samples,) float32 in [0, 1]."""
        return torch.ones(len(self.table))


class QualityOptions(TrustOptions):
    """Options of `Quality`; they mean the same as the agent's options of these names."""

    floor: float = Field(0.4, ge=0, le=1, description="least rate of a sample, as a share of the ratio")
    memory: float = Field(0.5, ge=0, le=0.95, description="decay of the moving average of a sample's levels")


@register("quality")
class Quality(Trusting):
    """The agent without its policy: the weight of a sample is the rank of its quality q = w D + (1 - w) U.

    The agent's matching reward is maximal at q (`reward.reward`), and q can be computed for every sample. The
    difference between the agent and this rule is therefore the effect of learning.
    """

    Options: ClassVar[type[BaseModel]] = QualityOptions
    options: QualityOptions

    def __init__(self, table: Any, seed: int, options: QualityOptions):
        super().__init__(table, seed, options)
        self.levels = Levels(len(table), self.options.memory)
        self.floor = self.options.floor

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update trust and levels from the signals of the pass."""
        super().observe(samples, pass_index, total_passes)
        self.levels.update(samples)

    def weights(self) -> torch.Tensor:
        """Return the rank of q in [0, 1] among the samples with a known q, and 0.5 for the others."""
        score = torch.full((len(self.table),), 0.5)
        index = self.levels.rows[:, ENTROPY].isfinite().nonzero().squeeze(1)
        if len(index):
            q, _ = quality(self.levels.difficulty(index, "loss"), self.levels.known(index)[:, ENTROPY])
            score[index] = rank_order(q)
        return score

    def state_dict(self) -> dict[str, Any]:
        """Return priorities, trust and levels."""
        return {**super().state_dict(), "levels": self.levels.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.levels.load_state_dict(state["levels"])
