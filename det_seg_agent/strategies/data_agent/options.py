"""Options of the agent, and what `preset=paper` sets else."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class AgentOptions(BaseModel):
    """Every switch of the agent; the defaults are preset=default, `PAPER` holds what the published recipe has else."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fresh_scores: bool = Field(True, description="score every sample with the current policy before each pass")
    history: bool = Field(True, description="the state holds the sample's levels beside the features, see state.py")
    memory: float = Field(
        0.5, ge=0, le=0.95, description="decay of a level's moving average; beyond 0.95 fp16 would not converge"
    )
    scaling: Literal["rank", "robust", "paper"] = Field(
        "rank",
        description="robust: D and U between their 5th and 95th percentile; rank: so, and q is replaced by its rank; "
        "paper: D min-max in a mini-batch, U as it is",
    )
    reward: Literal["matching", "centred", "paper"] = Field(
        "matching", description="matching: a q - a^2 / 2, best at a = q; centred: a (q - mean q); paper: a q"
    )
    advantage: Literal["bandit", "gae"] = Field("bandit", description="bandit: r - V; gae: by row over mini-batches")
    update_batches: int | None = Field(None, ge=1, description="mini-batches in an update; null: the whole pass")
    first_rounds: int = Field(
        8, ge=1, description="rounds of the first update, which fits the policy before it chooses"
    )
    rounds: int = Field(2, ge=1, description="times that actions are drawn anew for the samples of an update")
    max_samples: int = Field(2048, ge=1, description="samples of an update at most, drawn at random")
    difficulty: Literal["loss", "insufficiency", "both"] = Field(
        "loss",
        description="D of the reward (rank, robust): loss, insufficiency (1 - min(precision, recall)), or both's mean "
        "(the loss where no sufficiency is told)",
    )
    pick: Literal["top", "rate"] = Field(
        "rate", description="top: the highest weights; rate: weights are rates at which samples come round"
    )
    floor: float = Field(0.4, ge=0, le=1, description="least rate of a sample, as a share of the ratio (rate)")
    stagger: bool = Field(True, description="samples start at different points of their turn (rate)")
    draw: bool = Field(False, description="weights are drawn from the policy, or else its means")
    review_after: int = Field(5, ge=0, description="passes unseen after which a sample is reviewed (top); 0: never")
    review_share: float = Field(0.1, ge=0, le=1, description="share of a selection that reviews may take (top)")
    feature_dim: int | None = Field(64, ge=1, description="features are projected to this many values; null: not")
    hidden: int = Field(32, ge=1, description="width of the policy's two hidden layers")
    inverse_ratio_loss: bool = Field(False, description="scale selected losses by 1 / ratio, as published")
    lr: float = Field(3e-3, gt=0, description="Adam's learning rate, > 0")
    lr_final: float = Field(0.01, ge=0, le=1, description="share of it at the end of the run")
    adam_eps: float = Field(1e-5, gt=0, description="Adam's epsilon")
    weight_decay: float = Field(5e-4, ge=0, description="Adam's weight decay")
    clip: float = Field(0.2, gt=0, description="PPO's clip range")
    epochs: int = Field(4, ge=1, description="PPO epochs of an update")
    minibatch: int | None = Field(256, ge=1, description="samples in a gradient step; null: all")
    gamma: float = Field(0.99, ge=0, le=1, description="discount (gae)")
    lam: float = Field(0.95, ge=0, le=1, description="GAE's lambda (gae)")
    value_coef: float = Field(0.5, ge=0, description="weight of the critic's loss")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the policy's entropy")
    max_grad_norm: float = Field(0.5, gt=0, description="gradient norm at most")


PAPER: dict[str, Any] = {
    "fresh_scores": False,
    "history": False,
    "pick": "top",
    "draw": True,
    "scaling": "paper",
    "reward": "paper",
    "advantage": "gae",
    "update_batches": 10,
    "first_rounds": 1,
    "rounds": 1,
    "review_after": 0,
    "feature_dim": None,
    "hidden": 128,
    "inverse_ratio_loss": True,
    "lr": 3e-4,
    "minibatch": None,
}


def inert_options(o: AgentOptions) -> dict[str, str]:
    """Return the options that have no effect beside the others, each with the reason."""
    rules = {
        "unless pick=top": (o.pick != "top", ("review_after", "review_share")),
        "unless pick=rate": (o.pick != "rate", ("floor", "stagger")),
        "with scaling=paper": (o.scaling == "paper", ("difficulty",)),
        "with scaling=paper and history=false": (o.scaling == "paper" and not o.history, ("memory",)),
        "unless advantage=gae": (o.advantage != "gae", ("gamma", "lam")),
        "unless advantage=bandit": (o.advantage != "bandit", ("max_samples",)),
        "unless fresh_scores=true": (not o.fresh_scores, ("draw",)),
    }
    return {name: why for why, (off, names) in rules.items() if off for name in names}
