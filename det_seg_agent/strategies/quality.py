"""Controls of the agent: the rule that it is rewarded by, and equal rates, both with the agent's turns."""

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register
from det_seg_agent.strategies.data_agent.reward import quality, ranks
from det_seg_agent.strategies.data_agent.state import ENTROPY, Levels
from det_seg_agent.strategies.round_robin import Turns
from det_seg_agent.sums import SampleSignals


@register("even")
class Even(Strategy):
    """Every sample at the same rate, in turns: what even coverage alone gives, beside a random draw."""

    floor: float = 1.0  # least rate, as a share of the ratio

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.turns = Turns(len(table), seed)

    def select(self, request: Request) -> Selection:
        """Return the `count` samples that are most due."""
        self.table.score = self.weights()
        draw = generator(self.seed, "ties", request.pass_index)
        first = self.table.never_seen()
        return Selection(self.turns.take(self.table.score, request.count, self.floor, first, draw))

    def weights(self) -> torch.Tensor:
        """Return the weight of each sample, (num_samples,) float32 in [0, 1]."""
        return torch.ones(len(self.table))

    def state_dict(self) -> dict[str, Any]:
        """Return how due each sample is."""
        return {"due": self.turns.due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.turns.due = state["due"].clone()


class QualityOptions(BaseModel):
    """As the agent's options of the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    floor: float = Field(0.4, ge=0, le=1, description="least rate of a sample, as a share of the ratio")
    memory: float = Field(0.5, ge=0, le=0.95, description="decay of the moving average of a sample's levels")


@register("quality")
class Quality(Even):
    """The agent without its policy: a sample's weight is its quality q = w D + (1 - w) U itself, by rank.

    The agent's reward is best at q (`rewards.reward`), and q follows from what is known of every sample: what the agent
    adds to this rule is what learning adds.
    """

    Options: ClassVar[type[BaseModel]] = QualityOptions
    options: QualityOptions

    def __init__(self, table: Any, seed: int, options: QualityOptions):
        super().__init__(table, seed, options)
        self.levels = Levels(len(table), self.options.memory)
        self.floor = self.options.floor

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Take the levels of the pass."""
        self.levels.update(samples)

    def weights(self) -> torch.Tensor:
        """Return the rank of q among the samples of which it is known, and the middle for the others."""
        score = torch.full((len(self.table),), 0.5)
        index = self.levels.rows[:, ENTROPY].isfinite().nonzero().squeeze(1)
        if len(index):
            q, _ = quality(self.levels.difficulty(index, "loss"), self.levels.known(index)[:, ENTROPY])
            score[index] = ranks(q)
        return score

    def state_dict(self) -> dict[str, Any]:
        """Return how due each sample is, and its levels."""
        return {**super().state_dict(), "levels": self.levels.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self.levels.load_state_dict(state["levels"])
