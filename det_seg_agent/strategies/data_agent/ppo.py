"""Proximal policy optimisation (PPO, Schulman et al. 2017) of the agent's policy."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from det_seg_agent.strategies.data_agent.policy import BetaPolicy


@dataclass(frozen=True)
class PpoConfig:
    """Hyper-parameters of PPO."""

    lr: float  # Adam's initial learning rate
    lr_final: float  # final learning rate as a fraction of `lr`; the decay is linear
    adam_eps: float  # Adam's epsilon
    weight_decay: float  # Adam's L2 penalty
    clip: float  # clip range of the probability ratio
    epochs: int  # epochs over the samples of an update
    minibatch: int | None  # samples in a gradient step; None: all of an update
    value_coef: float  # weight of the critic's squared error
    entropy_coef: float  # weight of the policy's entropy
    max_grad_norm: float  # gradients are clipped to this norm
    centre_advantage: bool  # subtract the mean advantage before dividing by its std


def gae(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """Return generalised advantage estimates (T, R) of R trajectories; the value after the last valid step is 0.

    The published recipe takes T consecutive mini-batches and treats row r of each as one trajectory.

    Args:
        rewards: (T, R) float32.
        values: (T, R) float32, the critic's estimates.
        valid: (T, R) bool, False for padding.
        gamma: discount.
        lam: lambda of GAE.
    """
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[0])
    next_value = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_value - values[t]
        running = torch.where(valid[t], delta + gamma * lam * running, running)
        next_value = torch.where(valid[t], values[t], next_value)
        advantages[t] = running
    return advantages


class Ppo:
    """Trains a `BetaPolicy` by PPO with Adam."""

    def __init__(self, policy: BetaPolicy, config: PpoConfig):
        self.policy, self.config = policy, config
        self.optimizer = torch.optim.Adam(
            policy.parameters(), lr=config.lr, eps=config.adam_eps, weight_decay=config.weight_decay
        )

    def anneal(self, progress: float) -> None:
        """Set the learning rate for `progress` in [0, 1] through the run."""
        share = 1 - (1 - self.config.lr_final) * min(max(progress, 0.0), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * share

    def update(self, state: Tensor, action: Tensor, advantage: Tensor, target: Tensor, draw: torch.Generator) -> float:
        """Make one update from n samples and return the mean policy entropy (nats) before it.

        Args:
            state: (n, S) float32.
            action: (n,) float32 in (0, 1), drawn from the current policy.
            advantage: (n,) float32; divided by its standard deviation here.
            target: (n,) float32, targets of the critic.
            draw: generator that shuffles the mini-batches.
        """
        config = self.config
        if config.centre_advantage:
            advantage = advantage - advantage.mean()
        advantage = advantage / (advantage.std(unbiased=False) + 1e-8)
        with torch.no_grad():
            before = self.policy.distribution(state)
            log_prob, entropy = before.log_prob(action), float(before.entropy().mean())
        size = config.minibatch or len(state)
        for _ in range(config.epochs):
            for rows in torch.randperm(len(state), generator=draw).split(size):
                self._step(state[rows], action[rows], log_prob[rows], advantage[rows], target[rows])
        return entropy

    def _step(self, state: Tensor, action: Tensor, log_prob: Tensor, advantage: Tensor, target: Tensor) -> None:
        config = self.config
        now = self.policy.distribution(state)
        ratio = (now.log_prob(action) - log_prob).exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
        value_loss = (self.policy.value(state) - target).square().mean()
        loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * now.entropy().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policy and optimizer."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
