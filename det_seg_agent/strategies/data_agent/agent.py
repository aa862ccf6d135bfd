"""The strategy `agent`: a policy that scores samples, trained by PPO during training (Data Agent, arXiv 2603.07433)."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor

from det_seg_agent.seeding import generator
from det_seg_agent.strategies.base import register
from det_seg_agent.strategies.data_agent.learner import PpoStrategy
from det_seg_agent.strategies.data_agent.options import AgentOptions
from det_seg_agent.strategies.data_agent.ppo import PpoConfig
from det_seg_agent.strategies.data_agent.reward import quality, rank_order, reward
from det_seg_agent.strategies.data_agent.state import ENTROPY, Levels
from det_seg_agent.strategies.trust import Trusting
from det_seg_agent.sums import SampleSignals

ROWS = 8192  # samples that the policy scores at a time: they fit a processor's cache
MINIBATCH = 256  # samples in a gradient step of PPO


@register("agent")
class Agent(PpoStrategy, Trusting):
    """Beta policy over samples, whose weights are rates of selection."""

    Options: ClassVar[type[BaseModel]] = AgentOptions
    options: AgentOptions

    def __init__(self, table: Any, seed: int, options: AgentOptions):
        super().__init__(table, seed, options)
        self.feature_dim = options.feature_dim
        self.needs_sufficiency = options.difficulty == "insufficiency"
        self.levels = Levels(len(table), options.memory)
        self.floor = options.floor

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update trust, levels and feature statistics from a pass, then train the policy."""
        super().observe(samples, pass_index, total_passes)
        self.levels.update(samples)
        self.table.features.standardise(samples.index)
        draw = generator(self.seed, "ppo", pass_index, 0)
        index = samples.index
        if len(index) > self.options.max_samples:
            index = index[torch.randperm(len(index), generator=draw)[: self.options.max_samples]]
        q, balance = quality(
            self.levels.difficulty(index, self.options.difficulty), self.levels.known(index)[:, ENTROPY]
        )
        self._update(self._state(index), rank_order(q), float(balance), pass_index / max(total_passes, 1), draw)

    def _update(self, state: Tensor, q: Tensor, balance: float, progress: float, draw: torch.Generator) -> None:
        """Draw actions for samples of qualities q (n,), and update the policy by their rewards; several times."""
        rounds = self.options.first_rounds if self.ppo is None else self.options.rounds
        learner = self.learner(state.shape[1])
        learner.anneal(progress)
        for i in range(rounds):
            action = learner.policy.act(state, draw)
            raw = reward(action, q, matching=True)
            normed = self.norm(raw)
            with torch.no_grad():
                value = learner.policy.value(state)
            advantage = normed - value
            entropy = learner.update(state, action, advantage, advantage + value, draw)
            if i == 0:
                self._stats = {"balance": balance, "reward": float(raw.mean()), "policy_entropy": entropy}

    def ppo_config(self) -> PpoConfig:
        """Return the hyper-parameters of an update."""
        return PpoConfig(lr=self.options.lr, minibatch=MINIBATCH)

    def _state(self, index: Tensor | slice) -> Tensor:
        """Return what the policy sees of samples, (n, S) float32: standardised features, and levels."""
        return torch.cat([self.table.features.standardised(index), self.levels.inputs(index)], 1)

    def weights(self) -> Tensor:
        """Return the policy's mean action for every sample; before the first update, the scores of an earlier run."""
        if self.ppo is None:
            return self.table.score
        policy = self.ppo.policy
        weights = torch.empty(len(self.table))

        def score(start: int) -> None:
            rows = slice(start, start + ROWS)
            weights[rows] = policy.mean(self._state(rows))

        # Blocks are apart, so that threads change no figure. Each thread sets its own number of torch threads.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(score, range(0, len(weights), ROWS)))
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer, reward statistics, levels, trust, and the round-robin's priorities."""
        return {**super().state_dict(), "levels": self.levels.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.levels.load_state_dict(state["levels"])
