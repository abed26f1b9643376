"""The reward ensemble: learned from labelled pairs with the Bradley–Terry model (Christiano et al. 2017; B-Pref)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, identity_scaling, uniform_fan_in
from prefvlm_core.agent.replay import IntArray, Replay
from prefvlm_core.config.run import RewardConfig, RunConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer, bradley_terry_loss

RELABEL_CHUNK = 16_384
"""Steps evaluated at once when relabelling: bounds memory, changes no result beyond float rounding."""


SMALLEST_SCALE = 0.05
"""Of a standardised input: what has hardly moved so far (metres, or a part of a quaternion) is not blown up."""


class RewardLearning(NamedTuple):
    """What one session of reward learning did."""

    epochs: int
    accuracy: float
    """Training accuracy (fraction) of the last epoch, mean over members, pairs labelled 1/2 left out; nan without
    labels."""


class RewardEnsemble:
    """`members` networks per run, observation and action -> tanh reward in (-1, 1)."""

    def __init__(
        self, config: RewardConfig, input_size: int, generators: Sequence[np.random.Generator], device: torch.device
    ) -> None:
        self.config = config
        sizes = [input_size, *[config.width] * config.hidden_layers, 1]
        self.networks = StackedMLP.create(
            len(generators), config.members, sizes, functional.leaky_relu, uniform_fan_in, generators, device
        )
        assert self.networks.gradients is not None
        self.networks.scaling = identity_scaling(len(generators), input_size, device)
        self.optimizer = StackedAdam(self.networks.values, self.networks.gradients, config.learning_rate)

    @torch.no_grad()
    def standardise(self, replay: Replay, run: int) -> None:
        """From now on one run's inputs have mean 0 and standard deviation 1 over everything it has seen so far."""
        inputs = replay.inputs(run, torch.arange(replay.size, device=replay.actions.device))
        assert self.networks.scaling is not None
        self.networks.scaling[:, run, 0, 0] = torch.stack((inputs.mean(0), inputs.std(0).clamp(min=SMALLEST_SCALE)))

    @torch.no_grad()
    def predict(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Mean reward over the members for (runs, O) and (runs, A): (runs,)."""
        inputs = torch.cat((observations, actions), -1).unsqueeze(1)
        return torch.tanh(self.networks(inputs)).mean(1)[:, 0, 0]

    @torch.no_grad()
    def relabel(self, replay: Replay, run: int) -> None:
        """Write the ensemble's mean reward over everything one run has seen."""
        networks = self.networks.of_run(run)
        for first in range(0, replay.size, RELABEL_CHUNK):
            last = min(first + RELABEL_CHUNK, replay.size)
            steps = torch.arange(first, last, device=replay.actions.device)
            rewards = torch.tanh(networks(replay.inputs(run, steps).unsqueeze(0)))
            replay.rewards[run, first:last] = rewards.mean(1)[0, :, 0]

    @torch.no_grad()
    def member_returns(self, replay: Replay, run: int, starts: IntArray, length: int) -> Tensor:
        """Each member's return of pairs (n, 2) of segments: (members, n, 2)."""
        inputs = replay.inputs(run, replay.segment_steps(starts, length))
        rewards = torch.tanh(self.networks.of_run(run)(inputs.flatten(0, 2).unsqueeze(0)))
        return rewards.view(self.config.members, *inputs.shape[:3]).sum(-1)

    def learn(
        self, replay: Replay, run: int, buffer: PreferenceBuffer, length: int, generator: np.random.Generator
    ) -> RewardLearning:
        """Fit one run's members to its labels: each its own order, until `stop_accuracy` or `max_epochs`.

        The original code leaves the accuracy undefined when a session brought no label; here nothing is learned then.
        """
        accuracy, epochs = float("nan"), 0
        while len(buffer) and epochs < self.config.max_epochs:
            epochs += 1
            accuracy = self.epoch(replay, run, buffer, length, generator)
            if accuracy > self.config.stop_accuracy:
                break
        return RewardLearning(epochs, accuracy)

    def epoch(
        self,
        replay: Replay,
        run: int,
        buffer: PreferenceBuffer,
        length: int,
        generator: np.random.Generator,
        step_size: float = 1.0,
    ) -> float:
        """One pass of one run's members over its labels (at least one), each in its own order; `step_size` scales
        Adam's. Returns the training accuracy (see `RewardLearning`)."""
        networks, optimizer = self.networks.of_run(run), self.optimizer.of_run(run)
        optimizer.learning_rate *= step_size
        device = replay.actions.device
        starts, labels = torch.from_numpy(buffer.starts).to(device), torch.from_numpy(buffer.labels).to(device)
        order = np.stack([generator.permutation(len(buffer)) for _ in range(self.config.members)])
        correct = torch.zeros((), device=device)
        for chosen in torch.from_numpy(order).to(device).split(self.config.batch_size, dim=1):
            returns = segment_rewards(networks, replay, run, starts[chosen], length).sum(-1)
            wanted = labels[chosen]
            networks.differentiate(bradley_terry_loss(returns, wanted).mean(-1).sum())
            optimizer.step()
            margin = (returns[..., 1] - returns[..., 0]).detach()
            correct += (margin * (wanted - 0.5) > 0).sum()
        decided = int((labels != 0.5).sum()) * self.config.members
        return float(correct) / decided if decided else float("nan")

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        assert self.networks.scaling is not None
        return {"networks": self.networks.values, "scaling": self.networks.scaling} | {
            f"optimizer.{name}": value for name, value in self.optimizer.state().items()
        }


def member_rewards(networks: StackedMLP, inputs: Tensor) -> Tensor:
    """Rewards in (-1, 1) that each member of one run's ensemble gives to inputs (n, O + A): (members, n)."""
    return torch.tanh(networks(inputs.unsqueeze(0)))[0, :, :, 0]


def segment_rewards(networks: StackedMLP, replay: Replay, run: int, starts: Tensor, length: int) -> Tensor:
    """Rewards that each member of one run's ensemble gives to its own segments, first steps (members, n, 2):
    (members, n, 2, length)."""
    steps = starts.unsqueeze(-1) + torch.arange(length, device=starts.device)
    inputs = replay.inputs(run, steps)
    return torch.tanh(networks(inputs.flatten(1, 3).unsqueeze(0))).view(steps.shape)


def reward_accuracy(
    replay: Replay, run: int, ensemble: RewardEnsemble, config: RunConfig, generator: np.random.Generator
) -> float:
    """Fraction of random pairs that the ensemble orders as the true reward does; equal true returns are left out."""
    length = config.feedback.segment_length
    pairs = config.evaluation.held_out_pairs
    starts = replay.draw_segments(generator, pairs, length, config.feedback.recent_episodes)
    rewards = replay.true_segment_rewards(run, starts, length).sum(-1)
    truth = rewards[:, 1] - rewards[:, 0]
    returns = ensemble.member_returns(replay, run, starts, length).mean(0).double().cpu().numpy()
    decided = truth != 0
    return float(np.mean(((returns[:, 1] - returns[:, 0]) * truth > 0)[decided])) if decided.any() else float("nan")
