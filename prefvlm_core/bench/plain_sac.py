"""Soft actor-critic as most people would write it: one run, plain PyTorch modules, a replay of numpy arrays.

In the manner of CleanRL's single files; what the benchmark compares our learner with. It computes what
`agent.sac.SAC` does.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from prefvlm_core.config.run import SACConfig

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of `sizes` with ReLUs between them."""
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class PlainSAC:
    """An agent and its replay. Batches are (observations, actions, rewards, next observations)."""

    def __init__(self, config: SACConfig, observation_size: int, action_size: int, capacity: int) -> None:
        hidden = [config.width] * config.hidden_layers
        self.config, self.action_size = config, action_size
        self.actor = mlp([observation_size, *hidden, 2 * action_size])
        self.critics = nn.ModuleList(mlp([observation_size + action_size, *hidden, 1]) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_temperature).log())
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.actor_learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), config.critic_learning_rate)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], config.temperature_learning_rate)
        self.replay = [
            np.zeros((capacity, *shape), np.float32)
            for shape in ((observation_size,), (action_size,), (), (observation_size,))
        ]
        self.size = 0
        self.updates = 0
        self.generator = np.random.default_rng(0)

    def policy(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (batch, A) and their log probabilities (batch,), drawn by standard normal noise (batch, A)."""
        mean, raw = self.actor(observations).chunk(2, dim=-1)
        log_std = LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) / 2 * (torch.tanh(raw) + 1)
        normal = Normal(mean, log_std.exp())
        unsquashed = mean + normal.stddev * noise
        actions = torch.tanh(unsquashed)
        log_prob = normal.log_prob(unsquashed) - torch.log(1 - actions.square() + 1e-6)
        return actions, log_prob.sum(-1)

    def values(self, critics: nn.ModuleList, observations: Tensor, actions: Tensor) -> list[Tensor]:
        """The value (batch,) of each critic."""
        inputs = torch.cat((observations, actions), -1)
        return [critic(inputs).squeeze(-1) for critic in critics]

    def target(self, rewards: Tensor, next_observations: Tensor, noise: Tensor) -> Tensor:
        """What the critics learn (batch,)."""
        with torch.no_grad():
            next_actions, log_prob = self.policy(next_observations, noise)
            smaller = torch.minimum(*self.values(self.targets, next_observations, next_actions))
            return rewards + self.config.discount * (smaller - self.log_alpha.exp() * log_prob)

    def update(self, batch: Sequence[Tensor], noise: Tensor) -> None:
        """One gradient step; `noise` (2, batch, A) is standard normal."""
        observations, actions, rewards, next_observations = batch
        target = self.target(rewards, next_observations, noise[0])
        predicted = self.values(self.critics, observations, actions)
        critic_loss = sum(functional.mse_loss(value, target) for value in predicted)
        self._step(self.critic_optimizer, critic_loss)

        new_actions, log_prob = self.policy(observations, noise[1])
        smaller = torch.minimum(*self.values(self.critics, observations, new_actions))
        self._step(self.actor_optimizer, (self.log_alpha.exp().detach() * log_prob - smaller).mean())

        surplus = log_prob.detach() - self.action_size  # the target entropy is -A
        self._step(self.alpha_optimizer, -(self.log_alpha.exp() * surplus).mean())

        self.updates += 1
        if self.updates % self.config.target_update_every == 0:
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.data.copy_(self.config.target_rate * fast.data + (1 - self.config.target_rate) * slow.data)

    def add(self, *transition: Any) -> None:
        """Keep a transition."""
        for values, value in zip(self.replay, transition, strict=True):
            values[self.size] = value
        self.size += 1

    def learn(self, updates: int) -> None:
        """Update by batches of the replay."""
        for _ in range(updates):
            chosen = self.generator.integers(self.size, size=self.config.batch_size)
            batch = [torch.as_tensor(values[chosen]) for values in self.replay]
            self.update(batch, torch.randn(2, self.config.batch_size, self.action_size))

    def train(self, environment: Any, steps: int, random_steps: int) -> None:
        """Act and learn; the first `random_steps` actions are random. `environment` is one of Gymnasium."""
        observation, _ = environment.reset()
        for step in range(steps):
            if step < random_steps:
                action = environment.action_space.sample()
            else:
                with torch.no_grad():
                    seen = torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0)
                    action = self.policy(seen, torch.randn(1, self.action_size))[0][0].numpy()
            following, reward, terminated, truncated, _ = environment.step(action)
            self.add(observation, action, reward, following)
            observation = environment.reset()[0] if terminated or truncated else following
            if step >= random_steps and step % self.config.update_every == 0:
                self.learn(1)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
