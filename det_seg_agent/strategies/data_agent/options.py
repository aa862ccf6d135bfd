"""Options of the agent."""

from typing import Literal

from pydantic import Field

from det_seg_agent.strategies.base import StrategyOptions
from det_seg_agent.strategies.trust import TrustOptions


class AgentOptions(TrustOptions):
    """Options of `strategy=agent`; what PPO needs beyond them is in `PpoConfig`."""

    difficulty: Literal["loss", "insufficiency", "both"] = Field(
        "loss",
        description="difficulty D of the reward: loss, insufficiency (1 - min(precision, recall)), or the mean of both "
        "(the loss where there is no sufficiency)",
    )
    memory: float = Field(
        0.5,
        ge=0,
        le=0.95,
        description="decay of the moving average of a sample's levels; above 0.95 fp16 is too coarse",
    )
    floor: float = Field(0.4, ge=0, le=1, description="lowest rate of a sample, as a share of the ratio")
    feature_dim: int | None = Field(64, ge=1, description="features are projected to this many values; null: not")
    hidden: int = Field(32, ge=1, description="width of the policy's two hidden layers")
    lr: float = Field(3e-3, gt=0, description="Adam's learning rate at the start of the run, > 0; it falls to 1 %")
    first_rounds: int = Field(
        8, ge=1, description="rounds of the first update, which fits the policy to its first pass"
    )
    rounds: int = Field(2, ge=1, description="rounds of each later update: actions are drawn, then PPO is applied")
    max_samples: int = Field(2048, ge=1, description="samples of an update at most, drawn at random")


class PaperOptions(StrategyOptions):
    """Options of `strategy=data_agent_paper`."""

    hidden: int = Field(128, ge=1, description="width of the policy's two hidden layers")
    lr: float = Field(3e-4, gt=0, description="Adam's learning rate at the start of the run, > 0; it falls to 1 %")
    update_batches: int = Field(10, ge=1, description="mini-batches in an update")
    inverse_ratio_loss: bool = Field(True, description="scale selected losses by 1 / ratio, as published")
