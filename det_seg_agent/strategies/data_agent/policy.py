"""Actor and critic of the agent (Data Agent, section 3; initialised as in CleanRL's ppo_continuous_action.py)."""

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
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator when constructed
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
