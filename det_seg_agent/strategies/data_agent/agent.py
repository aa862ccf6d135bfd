"""The strategy `agent`: a policy that scores samples, trained by PPO during training (Data Agent, arXiv 2603.07433)."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor

from det_seg_agent.seeding import derive_seed, generator
from det_seg_agent.strategies.base import Request, Selection, Strategy, register
from det_seg_agent.strategies.data_agent.options import AgentOptions
from det_seg_agent.strategies.data_agent.ppo import BetaPolicy, Ppo, PpoConfig
from det_seg_agent.strategies.data_agent.reward import RunningNorm, quality, ranks, reward
from det_seg_agent.strategies.data_agent.state import ENTROPY, Levels
from det_seg_agent.strategies.weights_to_selection import Turns
from det_seg_agent.sums import SampleSignals

ROWS = 8192  # samples that the policy scores at a time: they fit a processor's cache
MINIBATCH = 256  # samples in a gradient step of PPO


@register("agent")
class Agent(Strategy):
    """Beta policy over samples, whose weights are rates of selection."""

    Options: ClassVar[type[BaseModel]] = AgentOptions
    stat_names = ("balance", "reward", "policy_entropy")
    options: AgentOptions

    def __init__(self, table: Any, seed: int, options: AgentOptions):
        super().__init__(table, seed, options)
        self.feature_dim = options.feature_dim
        self.needs_sufficiency = options.difficulty == "insufficiency"
        self.levels = Levels(len(table), options.memory)
        self.turns = Turns(len(table), seed)
        self.norm = RunningNorm()
        self.ppo: Ppo | None = None
        self._stats: dict[str, float] = {}

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update levels and feature statistics from a pass, then train the policy, unless it learns from images."""
        self.levels.update(samples)
        self.table.features.standardise(samples.index)
        draw = generator(self.seed, "ppo", pass_index, 0)
        index = samples.index
        if len(index) > self.options.max_samples:
            index = index[torch.randperm(len(index), generator=draw)[: self.options.max_samples]]
        q, balance = quality(
            self.levels.difficulty(index, self.options.difficulty), self.levels.known(index)[:, ENTROPY]
        )
        self._update(self._state(index), ranks(q), float(balance), pass_index / max(total_passes, 1), draw)

    def _update(self, state: Tensor, q: Tensor, balance: float, progress: float, draw: torch.Generator) -> None:
        """Draw actions for samples of qualities q (n,), and update the policy by their rewards; several times."""
        rounds = self.options.first_rounds if self.ppo is None else self.options.rounds
        learner = self._learner(state.shape[1])
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

    def _learner(self, state_dim: int) -> Ppo:
        if self.ppo is None:
            policy = BetaPolicy(state_dim, self.options.hidden, derive_seed(self.seed, "agent"))
            self.ppo = Ppo(policy, PpoConfig(lr=self.options.lr, minibatch=MINIBATCH))
        return self.ppo

    def _state(self, index: Tensor | slice) -> Tensor:
        """Return what the policy sees of samples, (n, S) float32: standardised features, and levels."""
        return torch.cat([self.table.features.standardised(index), self.levels.inputs(index)], 1)

    def _weights(self, policy: BetaPolicy) -> Tensor:
        """Return the policy's mean action for every sample; blocks are apart, so that threads change no figure."""
        weights = torch.empty(len(self.table))

        def score(start: int) -> None:
            torch.set_num_threads(1)  # of this thread
            rows = slice(start, start + ROWS)
            weights[rows] = policy.mean(self._state(rows))

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(score, range(0, len(weights), ROWS)))
        return weights

    def select(self, request: Request) -> Selection:
        """Score every sample with the current policy, and return `count` of them by rate."""
        table = self.table
        if self.ppo is not None:
            table.score = self._weights(self.ppo.policy)
        ties = generator(self.seed, "ties", request.pass_index)
        return Selection(self.turns.take(table.score, request.count, self.options.floor, table.never_seen(), ties))

    def stats(self) -> dict[str, float]:
        """Return the last pass's balance w, mean reward (before normalisation) and policy entropy in nats."""
        return self._stats

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer, reward statistics, levels, and the round-robin's credits."""
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
        self.ppo = None  # a state from before the first signals takes the policy back too
        if state["ppo"] is not None:
            self._learner(state["state_dim"]).load_state_dict(state["ppo"])
