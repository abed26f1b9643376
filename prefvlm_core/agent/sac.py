"""Soft actor-critic (Haarnoja et al. 2018) for all runs of a fleet at once.

The agent follows B-Pref's: twin critics, a tanh-squashed Gaussian policy with bounded log standard deviation, a learned
temperature, an actor that is updated at every update and target critics that follow at every second. Meta-World never
ends an episode before its time limit, and a time limit is not the end of the task, so every transition bootstraps and
there is no `done`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, normalized_relu, orthogonal
from prefvlm_core.agent.scaling import ObservationScaling
from prefvlm_core.config.run import SACConfig

LOG_STD_BOUNDS = (-5.0, 2.0)
"""Bounds of the policy's log standard deviation (B-Pref)."""


class Batch(NamedTuple):
    """Transitions; each tensor is (runs, batch, ...) float32."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor

    def of_run(self, run: int) -> Batch:
        """The transitions of one run as the batch of a fleet of one, sharing memory."""
        return Batch(*(tensor[run : run + 1] for tensor in self))


def squashed_gaussian(parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterized sample of tanh(N(mean, std)) and its log-density.

    Args:
        parameters: (..., 2A): the mean and the raw log standard deviation, which tanh maps into `LOG_STD_BOUNDS`.
        noise: (..., A), standard normal.

    Returns actions (..., A) in (-1, 1) and their log-densities (...).
    """
    mean, raw = parameters.chunk(2, dim=-1)
    low, high = LOG_STD_BOUNDS
    log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
    before_tanh = mean + log_std.exp() * noise
    # log(1 - tanh(u)^2) in a form that does not underflow for large |u|.
    log_slope = 2 * (math.log(2) - before_tanh - functional.softplus(-2 * before_tanh))
    log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi) - log_slope
    return torch.tanh(before_tanh), log_density.sum(-1)


@dataclass
class SAC:
    """The agents of a fleet: row i of every tensor belongs to run i."""

    config: SACConfig
    actor: StackedMLP
    critic: StackedMLP
    target_critic: StackedMLP
    log_temperature: Tensor
    entropy: Tensor
    """Mean entropy (runs, 1) of the policy in the latest batch, nats."""
    actor_optimizer: StackedAdam
    critic_optimizer: StackedAdam
    temperature_optimizer: StackedAdam
    scaling: ObservationScaling | None
    """How observations are standardized; None if they are not, and for the agent of one run, which does not decide."""

    @classmethod
    def create(
        cls,
        config: SACConfig,
        observation_size: int,
        action_size: int,
        generators: Sequence[np.random.Generator],
        device: torch.device,
        temperatures: Sequence[float],
    ) -> SAC:
        """Freshly initialized agents, one per generator and initial temperature."""
        runs, hidden = len(generators), [config.width] * config.hidden_layers
        actor_sizes = [observation_size, *hidden, 2 * action_size]
        critic_sizes = [observation_size + action_size, *hidden, 1]
        actor = StackedMLP.create(runs, 1, actor_sizes, torch.relu, orthogonal, generators, device)
        activation = normalized_relu if config.critic_norm else torch.relu
        critic = StackedMLP.create(runs, 2, critic_sizes, activation, orthogonal, generators, device)
        scaling = None
        if config.standardise:
            scaling = ObservationScaling(runs, observation_size, action_size, device)
            scaling.attach(actor, critic)
        log_temperature = torch.tensor(temperatures, device=device).log().unsqueeze(1)
        assert actor.gradients is not None and critic.gradients is not None
        return cls(
            config,
            actor,
            critic,
            critic.frozen_copy(),
            log_temperature,
            torch.zeros_like(log_temperature),
            StackedAdam(actor.values, actor.gradients, config.actor_learning_rate),
            StackedAdam(critic.values, critic.gradients, config.critic_learning_rate),
            StackedAdam(log_temperature, torch.zeros_like(log_temperature), config.temperature_learning_rate),
            scaling,
        )

    @property
    def action_size(self) -> int:
        """A, the numbers of an action."""
        return self.actor.sizes[-1] // 2

    @torch.no_grad()
    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions (runs, batch, A) for observations (runs, batch, O).

        With standard normal `noise` (runs, batch, A), they are samples of the policy, else the tanh of its mean.
        """
        parameters = self.actor(observations)[:, 0]
        if noise is None:
            return torch.tanh(parameters.chunk(2, dim=-1)[0])
        return squashed_gaussian(parameters, noise)[0]

    def update_noise(self, generators: Sequence[np.random.Generator]) -> Tensor:
        """Standard normal noise (2, runs, batch, A) for `update`; each run's is drawn from its own generator."""
        shape = (2, self.config.batch_size, self.action_size)
        drawn = np.stack([run.standard_normal(shape, np.float32) for run in generators], axis=1)
        return torch.from_numpy(drawn).to(self.actor.values.device)

    def update(self, batch: Batch, noise: Tensor, update_target: bool) -> None:
        """Update the critics, the actor and the temperature of every run by one gradient step each.

        `noise` (2, runs, batch, A) is standard normal, for the critics' target and for the actor. Losses are means over
        a run's batch and sums over runs, so the runs do not influence each other.
        """
        temperature = self.log_temperature.exp()
        self._update_critic(batch, noise[0])
        self._update_actor(batch, noise[1], temperature)
        if update_target:
            self.update_target()

    def update_target(self) -> None:
        """Move the target critics toward the critics."""
        self.target_critic.values.lerp_(self.critic.values, self.config.target_rate)

    @torch.no_grad()
    def discounted_value(self, batch: Batch, noise: Tensor) -> Tensor:
        """Discounted soft value (runs, batch) of the next observations, which the critics' target adds to the reward.

        `noise` (runs, batch, A) is standard normal and draws the next actions.
        """
        next_actions, log_probability = squashed_gaussian(self.actor(batch.next_observations)[:, 0], noise)
        next_inputs = torch.cat((batch.next_observations, next_actions), -1)
        next_value = self.target_critic(next_inputs).squeeze(-1).amin(1) - self.log_temperature.exp() * log_probability
        return self.config.discount * next_value

    def _update_critic(self, batch: Batch, noise: Tensor) -> None:
        target = batch.rewards + self.discounted_value(batch, noise)
        predicted = self.critic(torch.cat((batch.observations, batch.actions), -1)).squeeze(-1)
        loss = (predicted - target.unsqueeze(1)).square().mean(-1).sum()
        self.critic.backward(loss)
        self.critic_optimizer.step()

    def _update_actor(self, batch: Batch, noise: Tensor, temperature: Tensor) -> None:
        actions, log_probability = squashed_gaussian(self.actor(batch.observations)[:, 0], noise)
        value = self.critic(torch.cat((batch.observations, actions), -1), frozen=True).squeeze(-1).amin(1)
        loss = (temperature * log_probability - value).mean(-1).sum()
        self.actor.backward(loss)
        self.actor_optimizer.step()
        # The derivative of alpha * mean(-log pi - target entropy) by log alpha, with a target entropy of -A.
        self.entropy.copy_(-log_probability.detach().mean(-1, keepdim=True))
        surplus = actions.shape[-1] + self.entropy
        self.temperature_optimizer.gradients.copy_(temperature * surplus)
        self.temperature_optimizer.step()

    def observe(self, observations: Tensor) -> None:
        """Take note of observations (runs, n, O) of complete episodes, if they are standardized."""
        if self.scaling is not None:
            self.scaling.add(observations)

    def of_run(self, run: int) -> SAC:
        """The agent of one run as a fleet of one, sharing memory."""
        return SAC(
            self.config,
            self.actor.of_run(run),
            self.critic.of_run(run),
            self.target_critic.of_run(run),
            self.log_temperature[run : run + 1],
            self.entropy[run : run + 1],
            self.actor_optimizer.of_run(run),
            self.critic_optimizer.of_run(run),
            self.temperature_optimizer.of_run(run),
            None,
        )

    def reset_critic(self, generator: np.random.Generator) -> None:
        """Reinitialize the critics, targets and their optimizer of a fleet of one (PEBBLE, after the first session)."""
        self.critic.initialise(0, orthogonal, generator)
        self.target_critic.values.copy_(self.critic.values)
        self.critic_optimizer.reset()

    def columns(self, run: int) -> dict[str, float]:
        """Columns of one run for metrics.csv."""
        return {"temperature": float(self.log_temperature[run].exp()), "entropy": float(self.entropy[run])}

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name; copy into them to restore."""
        state = {
            "actor": self.actor.values,
            "critic": self.critic.values,
            "target_critic": self.target_critic.values,
            "log_temperature": self.log_temperature,
            "entropy": self.entropy,
        }
        for name in ("actor", "critic", "temperature"):
            optimizer: StackedAdam = getattr(self, f"{name}_optimizer")
            state |= {f"{name}_optimizer.{key}": value for key, value in optimizer.state().items()}
        if self.scaling is not None:
            state |= {f"scaling.{key}": value for key, value in self.scaling.state().items()}
        return state
