"""Data Agent (arXiv 2603.07433) as published, for comparison; docs/method.md says what `agent` does differently."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.signals import Signals
from det_seg_agent.strategies.base import Request, Selection, register
from det_seg_agent.strategies.data_agent.learner import PpoStrategy
from det_seg_agent.strategies.data_agent.options import PaperOptions
from det_seg_agent.strategies.data_agent.ppo import PpoConfig, gae
from det_seg_agent.strategies.data_agent.reward import paper_difficulty, quality, reward
from det_seg_agent.strategies.weights_to_selection import top

GAMMA, LAMBDA = 0.99, 0.95  # discount, and lambda of the advantage estimation


@dataclass(frozen=True)
class Rows:
    """Samples (n,) of a mini-batch, their loss and entropy (n,), and features (n, F), float32."""

    index: Tensor
    loss: Tensor
    entropy: Tensor
    features: Tensor

    @classmethod
    def of(cls, signals: Signals) -> "Rows":
        """Return one row per credited sample: the mean over its images, weighted by its share of each."""
        index, row = torch.unique(signals.index, return_inverse=True)
        weight = torch.zeros(len(index)).index_add_(0, row, signals.share).clamp_(min=1e-12)
        share = signals.share / weight[row]

        def mean(values: Tensor) -> Tensor:
            part = values[signals.image].float()
            part.mul_(share if values.dim() == 1 else share[:, None])
            return torch.zeros(len(index), *values.shape[1:]).index_add_(0, row, part)

        return cls(index, *map(mean, (signals.loss, signals.entropy, signals.features)))

    @classmethod
    def by_batch(cls, part: Signals) -> "list[Rows]":
        """Return the rows of each mini-batch."""
        counts = torch.unique_consecutive(part.step, return_counts=True)[1].cumsum(0).tolist()
        return [cls.of(part.images(a, b)) for a, b in zip([0, *counts[:-1]], counts, strict=True)]


@register("data_agent_paper")
class DataAgentPaper(PpoStrategy):
    """The samples of the highest actions, each drawn when the sample was last in a mini-batch."""

    Options: ClassVar[type[BaseModel]] = PaperOptions
    feature_dim = None
    keeps_features = False
    needs_images = True  # it learns from mini-batch after mini-batch, and from features as they were in each
    options: PaperOptions

    def __init__(self, table: Any, seed: int, options: PaperOptions):
        super().__init__(table, seed, options)
        self.weighs = options.inverse_ratio_loss

    def observe_images(self, signals: Signals, pass_index: int, total_passes: int) -> None:
        """Update the policy on the pass, one group of mini-batches after the other."""
        steps = int(signals.step[-1]) + 1
        figures = []
        for first in range(0, steps, self.options.update_batches):
            bounds = torch.searchsorted(signals.step, torch.tensor([first, first + self.options.update_batches]))
            part = signals.images(int(bounds[0]), int(bounds[1]))
            if len(part):
                draw = generator(self.seed, "ppo", pass_index, first)
                progress = (pass_index + first / steps) / max(total_passes, 1)
                figures.append(self._update(Rows.by_batch(part), progress, draw))
        self._stats = {key: sum(f[i] for f in figures) / len(figures) for i, key in enumerate(self.stat_names)}

    def _update(self, batches: list[Rows], progress: float, draw: torch.Generator) -> tuple[float, float, float]:
        """Make one update from mini-batches; return (balance, mean reward, policy entropy in nats)."""
        state = torch.cat([rows.features for rows in batches])
        pairs = [quality(paper_difficulty(rows.loss), rows.entropy.clamp(0, 1)) for rows in batches]
        learner = self.learner(state.shape[1])
        learner.anneal(progress)
        action = learner.policy.act(state, draw)
        raw = reward(action, torch.cat([q for q, _ in pairs]), matching=False)
        with torch.no_grad():
            value = learner.policy.value(state)
        advantage = self._advantage(self.norm(raw), value, [len(rows.index) for rows in batches])
        entropy = learner.update(state, action, advantage, advantage + value, draw)
        self.table.score[torch.cat([rows.index for rows in batches])] = action
        return float(torch.stack([balance for _, balance in pairs]).mean()), float(raw.mean()), entropy

    def ppo_config(self) -> PpoConfig:
        """Return the hyper-parameters of an update."""
        return PpoConfig(lr=self.options.lr, centre_advantage=False)

    @staticmethod
    def _advantage(reward: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        """Return (n,): row r of consecutive mini-batches is one trajectory, padded to the longest batch."""
        shape = (len(lengths), max(lengths))
        valid = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
        rewards, values = torch.zeros(shape), torch.zeros(shape)
        rewards[valid], values[valid] = reward, value
        return gae(rewards, values, valid, GAMMA, LAMBDA)[valid]

    def select(self, request: Request) -> Selection:
        """Return the `count` samples of the highest actions; those without one come first."""
        table = self.table
        ties = generator(self.seed, "ties", request.pass_index)
        indices = top(table.last("score"), request.count, ties, table.never_seen())
        return Selection(indices, torch.full((len(indices),), 1 / request.ratio) if self.weighs else None)
