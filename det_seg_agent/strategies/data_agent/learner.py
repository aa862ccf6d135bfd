"""The learner that `agent` and `data_agent_paper` share: a Beta policy, PPO, and their saved state."""

from abc import abstractmethod
from typing import Any

from det_seg_agent.seeding import derive_seed
from det_seg_agent.strategies.base import Strategy
from det_seg_agent.strategies.data_agent.ppo import BetaPolicy, Ppo, PpoConfig
from det_seg_agent.strategies.data_agent.reward import RunningNorm


class PpoStrategy(Strategy):
    """A strategy whose policy is trained by PPO.

    Attributes:
        norm: running mean and standard deviation of the rewards.
        ppo: policy and optimizer; None before the first update, as the state's size is not known earlier.
    """

    stat_names = ("balance", "reward", "policy_entropy")

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.norm = RunningNorm()
        self.ppo: Ppo | None = None
        self._stats: dict[str, float] = {}

    @abstractmethod
    def ppo_config(self) -> PpoConfig:
        """Return the hyper-parameters of an update."""

    def learner(self, state_dim: int) -> Ppo:
        """Return the learner for states of `state_dim` values, which the first call creates."""
        if self.ppo is None:
            policy = BetaPolicy(state_dim, self.options.hidden, derive_seed(self.seed, "agent"))
            self.ppo = Ppo(policy, self.ppo_config())
        return self.ppo

    def stats(self) -> dict[str, float]:
        """Return the last pass's balance w, mean reward (before normalisation) and policy entropy in nats."""
        return self._stats

    def state_dict(self) -> dict[str, Any]:
        """Return policy, optimizer and reward statistics."""
        state: dict[str, Any] = {**super().state_dict(), "norm": self.norm.state_dict(), "ppo": None}
        if self.ppo is not None:
            state |= {"ppo": self.ppo.state_dict(), "state_dim": self.ppo.policy.actor[0].in_features}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.norm.load_state_dict(state["norm"])
        self.ppo = None  # a state from before the first signals resets the policy too
        if state["ppo"] is not None:
            self.learner(state["state_dim"]).load_state_dict(state["ppo"])
