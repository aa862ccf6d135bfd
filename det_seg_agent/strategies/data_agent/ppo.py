"""Proximal policy optimisation (Schulman et al. 2017) of a Beta policy that weighs samples.

The actor and the critic are those of Data Agent, section 3, initialised as in CleanRL's ppo_continuous_action.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from det_seg_agent.seeding import generator

EPS = 1e-4


def _mlp(inputs: int, hidden: int, outputs: int, gain: float, seed: torch.Generator) -> nn.Sequential:
    net = nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
    for layer, scale in ((net[0], 2**0.5), (net[2], 2**0.5), (net[4], gain)):
        assert isinstance(layer, nn.Linear)
        nn.init.orthogonal_(layer.weight, scale, generator=seed)
        nn.init.zeros_(layer.bias)
    return net


class BetaPolicy(nn.Module):
    """Actor: state (B, S) -> Beta(alpha, beta), both softplus + 1 (unimodal); critic: state (B, S) -> value (B,).

    Args:
        state_dim: S.
        hidden: width of the two hidden layers.
        seed: seed of the initial weights.
    """

    def __init__(self, state_dim: int, hidden: int, seed: int):
        super().__init__()
        draw = generator(seed, "policy", state_dim, hidden)
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global stream before we initialise
            self.actor = _mlp(state_dim, hidden, 2, 0.01, draw)
            self.critic = _mlp(state_dim, hidden, 1, 1.0, draw)

    def distribution(self, state: Tensor) -> torch.distributions.Beta:
        """Return the Beta distribution of the action, batch shape (B,)."""
        alpha, beta = (F.softplus(self.actor(state)) + 1).unbind(1)
        return torch.distributions.Beta(alpha, beta, validate_args=False)

    def value(self, state: Tensor) -> Tensor:
        """Return the critic's estimate of the reward, (B,)."""
        return self.critic(state).squeeze(1)

    @torch.no_grad()
    def mean(self, state: Tensor) -> Tensor:
        """Return the mean action (B,) in (0, 1)."""
        concentration = F.softplus(self.actor(state)) + 1
        return concentration[:, 0] / concentration.sum(1)

    @torch.no_grad()
    def act(self, state: Tensor, draw: torch.Generator) -> Tensor:
        """Draw actions (B,) in (0, 1): a Beta draw is one of two Gamma draws divided by their sum."""
        concentration = F.softplus(self.actor(state)) + 1
        gamma = torch._standard_gamma(concentration, generator=draw)
        return (gamma[:, 0] / gamma.sum(1)).clamp_(EPS, 1 - EPS)


@dataclass(frozen=True)
class PpoConfig:
    """Hyper-parameters of an update; the defaults are the published ones, but for `centre_advantage`."""

    lr: float = 3e-4  # Adam's learning rate at the start of the run
    lr_final: float = 0.01  # share of it at the end; it falls linearly
    adam_eps: float = 1e-5  # Adam's epsilon
    weight_decay: float = 5e-4  # Adam's L2 penalty
    clip: float = 0.2  # clip range of the probability ratio
    epochs: int = 4  # times that an update goes over its samples
    minibatch: int | None = None  # samples in a gradient step; None: all of an update
    value_coef: float = 0.5  # weight of the critic's squared error
    entropy_coef: float = 0.0  # weight of the policy's entropy
    max_grad_norm: float = 0.5  # gradients are clipped to this norm
    centre_advantage: bool = True  # subtract the mean advantage before dividing by its std


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
