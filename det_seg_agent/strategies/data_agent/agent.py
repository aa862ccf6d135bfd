"""The agent: a policy that weighs samples, trained by PPO while the model trains (Data Agent, arXiv 2603.07433)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor

from det_seg_agent.seeding import derive_seed, generator
from det_seg_agent.signals import Signals
from det_seg_agent.strategies.base import Request, Selection, Strategy, refuse_inert, register
from det_seg_agent.strategies.data_agent.options import PAPER, AgentOptions, inert_options
from det_seg_agent.strategies.data_agent.ppo import BetaPolicy, Ppo, PpoConfig, gae
from det_seg_agent.strategies.data_agent.reward import RunningNorm, paper_difficulty, quality, ranks, reward
from det_seg_agent.strategies.data_agent.state import ENTROPY, Levels
from det_seg_agent.strategies.round_robin import Turns, top
from det_seg_agent.sums import SampleSignals

ROWS = 4096  # samples that the policy scores at a time: they fit a processor's cache


@dataclass(frozen=True)
class Rows:
    """What an update learns from: n samples (n,), their loss and entropy, and features (n, F), float32."""

    index: Tensor
    loss: Tensor
    entropy: Tensor
    features: Tensor

    @classmethod
    def of(cls, signals: Signals) -> "Rows":
        """Return one row per credited sample: the mean of its images, weighted by the share that shows it."""
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
        """Return the rows of all parts, in order."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


@register("agent")
class Agent(Strategy):
    """Beta policy over samples, whose weights are rates of selection (`pick=rate`) or an order (`pick=top`)."""

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
        # The published recipe learns from mini-batch after mini-batch, and from features as they were in each.
        self.needs_images = o.update_batches is not None or o.scaling == "paper" or not o.fresh_scores
        self.needs_images |= o.advantage == "gae"
        self.levels = Levels(len(table), o.memory)
        self.turns = Turns(len(table) if o.pick == "rate" else 0, seed if o.stagger else None)
        self.norm = RunningNorm()
        self.ppo: Ppo | None = None
        self._stats: dict[str, float] = {}

    @classmethod
    def resolved(cls, options: Any, preset: str) -> Any:
        """Return the options in force: preset=paper has other defaults."""
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
        """Take the levels and features of a pass, then train the policy on it."""
        self.levels.update(samples)
        if self.keeps_features:
            self.table.features.standardise(samples.index)
        if not self.needs_images:
            rows = Rows(samples.index, samples.loss, samples.entropy, torch.zeros(len(samples), 0))
            self._report([self._update([rows], pass_index, 0, pass_index / max(total_passes, 1))])

    def observe_images(self, signals: Signals, pass_index: int, total_passes: int) -> None:
        """Train the policy on the pass, one group of mini-batches after the other."""
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
        """Make one update from some mini-batches; return (balance, mean reward, policy entropy in nats)."""
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
        """Return what the policy sees of samples, (n, S) float32: features, the stored ones or these, and levels."""
        if features is None:
            features = self.table.features.standardised(index)
        return torch.cat([features, self.levels.inputs(index)], 1) if self.options.history else features

    @staticmethod
    def _by_step(part: Signals) -> list[Rows]:
        counts = torch.unique_consecutive(part.step, return_counts=True)[1].cumsum(0).tolist()
        return [Rows.of(part.images(a, b)) for a, b in zip([0, *counts[:-1]], counts, strict=True)]

    def _gae(self, reward: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        """Lay the mini-batches' rows along time, padded to the longest, and return the advantages of the real ones."""
        shape = (len(lengths), max(lengths))
        valid = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
        rewards, values = torch.zeros(shape), torch.zeros(shape)
        rewards[valid], values[valid] = reward, value
        return gae(rewards, values, valid, self.options.gamma, self.options.lam)[valid]

    def select(self, request: Request) -> Selection:
        """Score every sample with the current policy (default), and return `count` of them by rate or by order."""
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
        """Return the `count` samples of the highest weights; some places are for samples that are due for review."""
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
        """Return balance w, mean reward (before normalisation) and policy entropy in nats of the last pass."""
        return self._stats

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer, reward statistics, levels, and how due each sample is."""
        state: dict[str, Any] = {"norm": self.norm.state_dict(), "ppo": None}
        state |= {"due": self.turns.due, "levels": self.levels.state_dict()}
        if self.ppo is not None:
            state["ppo"] = self.ppo.state_dict()
            state["state_dim"] = self.ppo.policy.actor[0].in_features
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.norm.load_state_dict(state["norm"])
        self.levels.load_state_dict(state["levels"])
        self.turns.due = state["due"].clone()
        self.ppo = None  # a state from before the first signals takes the policy back too
        if state["ppo"] is not None:
            self._learner(state["state_dim"]).load_state_dict(state["ppo"])
