"""The strategy `agent`: a policy that scores samples, trained by PPO during training (Data Agent, arXiv 2603.07433)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from det_seg_agent.seeding import derive_seed, generator
from det_seg_agent.signals import Signals
from det_seg_agent.strategies.base import Request, Selection, Strategy, refuse_inert, register
from det_seg_agent.strategies.baselines import top
from det_seg_agent.strategies.data_agent.levels import ENTROPY, Levels
from det_seg_agent.strategies.data_agent.policy import BetaPolicy
from det_seg_agent.strategies.data_agent.ppo import Ppo, PpoConfig, gae
from det_seg_agent.strategies.data_agent.reward import RunningNorm, paper_difficulty, quality, ranks, reward
from det_seg_agent.strategies.round_robin import Turns
from det_seg_agent.sums import SampleSignals

ROWS = 4096  # samples that the policy scores at a time, so that they fit the CPU cache


class AgentOptions(BaseModel):
    """Options of the agent. The defaults are preset=default; `PAPER` lists what preset=paper overrides."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fresh_scores: bool = Field(True, description="score every sample with the current policy before each pass")
    history: bool = Field(True, description="the state holds the sample's levels beside the features, see levels.py")
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
    """Return the options that have no effect in combination with the others, each with the reason."""
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


@dataclass(frozen=True)
class Rows:
    """Training data of a policy update, n samples.

    Attributes:
        index: (n,) int64, dataset indices.
        loss, entropy: (n,) float32.
        features: (n, F) float32.
    """

    index: Tensor
    loss: Tensor
    entropy: Tensor
    features: Tensor

    @classmethod
    def of(cls, signals: Signals) -> "Rows":
        """Return one row per sample: the mean over its images, weighted by share."""
        index, row = torch.unique(signals.index, return_inverse=True)
        weight = torch.zeros(len(index)).index_add_(0, row, signals.share).clamp_(min=1e-12)
        share = signals.share / weight[row]

        def mean(values: Tensor) -> Tensor:
            part = values[signals.image].float()
            part.mul_(share if values.dim() == 1 else share[:, None])
            return torch.zeros(len(index), *values.shape[1:]).index_add_(0, row, part)

        return cls(index, *map(mean, (signals.loss, signals.entropy, signals.features)))

    @classmethod
    def cat(cls, parts: "list[Rows]") -> "Rows":
        """Concatenate the rows of all parts."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


@register("agent")
class Agent(Strategy):
    """Scores samples with a Beta policy. Scores are selection rates (`pick=rate`) or a ranking (`pick=top`)."""

    Options: ClassVar[type[BaseModel]] = AgentOptions
    presets = ("default", "paper")
    stat_names = ("balance", "reward", "policy_entropy")
    options: AgentOptions

    def __init__(self, table: Any, seed: int, options: AgentOptions, preset: str = "default"):
        super().__init__(table, seed, options, preset)
        o = self.options
        self.feature_dim, self.keeps_features = o.feature_dim, o.fresh_scores
        self.weighs = o.inverse_ratio_loss
        self.needs_sufficiency = o.difficulty == "insufficiency"
        # The published recipe learns from successive mini-batches, with the features of each forward.
        self.needs_images = o.update_batches is not None or o.scaling == "paper" or not o.fresh_scores
        self.needs_images |= o.advantage == "gae"
        self.levels = Levels(len(table), o.memory)
        self.turns = Turns(len(table) if o.pick == "rate" else 0, seed if o.stagger else None)
        self.norm = RunningNorm()
        self.ppo: Ppo | None = None
        self._stats: dict[str, float] = {}

    @classmethod
    def resolved(cls, options: Any, preset: str) -> Any:
        """Return the effective options: preset=paper has other defaults.

        Raises:
            ConfigError: if an option has no effect in combination with the others.
        """
        defaults = cls.Options(**(PAPER if preset == "paper" else {}))
        options = cls.Options(**{**defaults.model_dump(), **options.model_dump(exclude_unset=True)})
        refuse_inert(options, defaults, inert_options(options))
        return options

    def _learner(self, state_dim: int) -> Ppo:
        if self.ppo is None:
            o = self.options
            names = set(PpoConfig.__dataclass_fields__) - {"centre_advantage"}
            config = PpoConfig(**o.model_dump(include=names), centre_advantage=o.reward != "paper")
            self.ppo = Ppo(BetaPolicy(state_dim, o.hidden, derive_seed(self.seed, "agent")), config)
        return self.ppo

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update levels and feature statistics from a pass, then train the policy, unless it learns from images."""
        self.levels.update(samples)
        if self.keeps_features:
            self.table.features.standardise(samples.index)
        if not self.needs_images:
            rows = Rows(samples.index, samples.loss, samples.entropy, torch.zeros(len(samples), 0))
            self._report([self._update([rows], pass_index, 0, pass_index / max(total_passes, 1))])

    def observe_images(self, signals: Signals, pass_index: int, total_passes: int) -> None:
        """Train the policy on the images of a pass, one group of `update_batches` mini-batches at a time."""
        o = self.options
        steps = int(signals.step[-1]) + 1
        group = o.update_batches or steps
        figures = []
        for first in range(0, steps, group):
            bounds = torch.searchsorted(signals.step, torch.tensor([first, first + group]))
            part = signals.images(int(bounds[0]), int(bounds[1]))
            if len(part):
                progress = (pass_index + first / steps) / max(total_passes, 1)
                rows = self._by_step(part) if o.advantage == "gae" else [Rows.of(part)]
                figures.append(self._update(rows, pass_index, first, progress))
        self._report(figures)

    def _report(self, figures: list[tuple[float, float, float]]) -> None:
        self._stats = {key: sum(f[i] for f in figures) / len(figures) for i, key in enumerate(self.stat_names)}

    def _update(self, rows: list[Rows], pass_index: int, first: int, progress: float) -> tuple[float, float, float]:
        """Update the policy on some mini-batches; return (balance, mean reward, policy entropy in nats)."""
        o = self.options
        draw = generator(self.seed, "ppo", pass_index, first)
        every = rows[0] if len(rows) == 1 else Rows.cat(rows)
        index, features, lengths = every.index, every.features, [len(r.index) for r in rows]
        keep: Tensor | slice = slice(None)
        if o.advantage == "bandit" and len(index) > o.max_samples:
            keep = torch.randperm(len(index), generator=draw)[: o.max_samples]
        index, features = index[keep], features[keep]
        if o.scaling == "paper":
            pairs = [quality(paper_difficulty(r.loss), r.entropy.clamp(0, 1)) for r in rows]
            q, balances = torch.cat([p[0] for p in pairs])[keep], [p[1] for p in pairs]
        else:
            q, w = quality(self.levels.difficulty(index, o.difficulty), self.levels.known(index)[:, ENTROPY])
            balances = [w]
        if o.scaling == "rank":
            q = ranks(q)
        if o.reward == "centred":
            q = q - q.mean()
        state = self._state(index, None if o.fresh_scores else features)
        fresh = self.ppo is None
        learner = self._learner(state.shape[1])
        learner.anneal(progress)
        reward_mean, policy_entropy = 0.0, 0.0
        for turn in range(o.first_rounds if fresh else o.rounds):
            action = learner.policy.act(state, draw)
            raw = reward(action, q, o.reward == "matching")
            normed = self.norm(raw)
            with torch.no_grad():
                value = learner.policy.value(state)
            advantage = normed - value if o.advantage == "bandit" else self._gae(normed, value, lengths)
            before = learner.update(state, action, advantage, advantage + value, draw)
            if turn == 0:
                reward_mean, policy_entropy = float(raw.mean()), before
                if not o.fresh_scores:
                    self.table.score[index] = action
        return float(torch.stack(balances).mean()), reward_mean, policy_entropy

    def _state(self, index: Tensor | slice, features: Tensor | None = None) -> Tensor:
        """Return the policy's input (n, S) float32: features (by default the stored ones) and, if used, levels."""
        if features is None:
            features = self.table.features.standardised(index)
        return torch.cat([features, self.levels.inputs(index)], 1) if self.options.history else features

    @staticmethod
    def _by_step(part: Signals) -> list[Rows]:
        counts = torch.unique_consecutive(part.step, return_counts=True)[1].cumsum(0).tolist()
        return [Rows.of(part.images(a, b)) for a, b in zip([0, *counts[:-1]], counts, strict=True)]

    def _gae(self, reward: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        """Return advantages (n,) by GAE over the mini-batches as time steps, padded to the longest."""
        shape = (len(lengths), max(lengths))
        valid = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
        rewards, values = torch.zeros(shape), torch.zeros(shape)
        rewards[valid], values[valid] = reward, value
        return gae(rewards, values, valid, self.options.gamma, self.options.lam)[valid]

    def select(self, request: Request) -> Selection:
        """Score all samples with the current policy (unless `fresh_scores=false`); select `count` by rate or rank."""
        o, table = self.options, self.table
        if o.fresh_scores and self.ppo is not None:
            draw = generator(self.seed, "score", request.pass_index)
            score = torch.empty(len(table))
            for start in range(0, len(table), ROWS):
                rows = slice(start, start + ROWS)
                state, policy = self._state(rows), self.ppo.policy
                score[rows] = policy.act(state, draw) if o.draw else policy.mean(state)
            table.score = score
        ties = generator(self.seed, "ties", request.pass_index)
        if o.pick == "rate":
            indices = self.turns.take(table.score, request.count, o.floor, table.never_seen(), ties)
        else:
            indices = self._top(request, ties)
        weights = torch.full((len(indices),), 1 / request.ratio) if o.inverse_ratio_loss else None
        return Selection(indices, weights)

    def _top(self, request: Request, ties: torch.Generator) -> Tensor:
        """Return the `count` samples with the highest scores; some places are reserved for reviews."""
        o, table = self.options, self.table
        first = table.never_seen()
        if o.review_after:
            due = (request.pass_index - table.last_pass.long() > o.review_after).nonzero().squeeze(1)
            limit = min(len(due), int(o.review_share * request.count))
            if limit:
                oldest = table.last_pass[due].float() - table.score[due].nan_to_num(nan=1.0)
                first = first.clone()
                first[due[oldest.topk(limit, largest=False).indices]] = True
        return top(table.score, request.count, ties, first)

    def stats(self) -> dict[str, float]:
        """Return the last pass's balance w, mean reward (before normalisation) and policy entropy in nats."""
        return self._stats

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer, reward statistics, levels and round-robin priorities."""
        state: dict[str, Any] = {"norm": self.norm.state_dict(), "ppo": None}
        state |= {"due": self.turns.due, "levels": self.levels.state_dict()}
        if self.ppo is not None:
            state["ppo"] = self.ppo.state_dict()
            state["state_dim"] = self.ppo.policy.actor[0].in_features
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.norm.load_state_dict(state["norm"])
        self.levels.load_state_dict(state["levels"])
        self.turns.due = state["due"].clone()
        self.ppo = None  # a state from before the first signals has no policy
        if state["ppo"] is not None:
            self._learner(state["state_dim"]).load_state_dict(state["ppo"])
