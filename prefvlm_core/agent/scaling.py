"""Standardized observations: what actor and critics see has mean 0 and standard deviation 1 over the run so far."""

from __future__ import annotations

import torch
from torch import Tensor

from prefvlm_core.agent.networks import StackedMLP, identity_scaling

SMALLEST_SCALE = 0.02
"""Smallest standard deviation by which an observation (meters, or part of a quaternion) is divided, so that one that
has hardly moved is not magnified."""


class ObservationScaling:
    """The mean and standard deviation of the observations of every run so far; both are exact, not decaying.

    Actor and critics share them, so a value means the same to both, and to target critics. Actions are not scaled.
    """

    def __init__(self, runs: int, observation_size: int, action_size: int, device: torch.device) -> None:
        self.observation_size = observation_size
        self.values = identity_scaling(runs, observation_size + action_size, device)
        self.sums = torch.zeros(2, runs, observation_size, dtype=torch.float64, device=device)
        self.count = torch.zeros(1, dtype=torch.int64, device=device)

    def attach(self, actor: StackedMLP, critic: StackedMLP) -> None:
        """Let the networks scale their inputs, observations (O) and observations with actions (O + A)."""
        actor.scaling, critic.scaling = self.values[..., : self.observation_size], self.values

    @torch.no_grad()
    def add(self, observations: Tensor) -> None:
        """Take note of observations (runs, n, O), and scale by the mean and standard deviation of all of them."""
        seen = observations.double()
        self.count += seen.shape[1]
        self.sums += torch.stack((seen.sum(1), seen.square().sum(1)))
        mean, mean_square = self.sums / self.count
        spread = (mean_square - mean.square()).clamp(min=0).sqrt().clamp(min=SMALLEST_SCALE)
        self.values[:, :, 0, 0, : self.observation_size] = torch.stack((mean, spread)).float()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that `add` changes, by name; copy into them to restore."""
        return {"values": self.values, "sums": self.sums, "count": self.count}
