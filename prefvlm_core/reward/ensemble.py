"""The reward ensemble, learned from labeled pairs with the Bradley–Terry model (Christiano et al. 2017; B-Pref)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, identity_scaling, uniform_fan_in
from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.agent.transfers import to_device
from prefvlm_core.common.arrays import IntArray
from prefvlm_core.config.run import RewardConfig, RunConfig
from prefvlm_core.preferences.pairs import bradley_terry_loss, preference_probability
from prefvlm_core.reward.inputs import InputsOf, inputs_of

RELABEL_CHUNK = 16_384
"""Steps evaluated at once. It bounds memory and changes results by float rounding only."""
SMALLEST_SCALE = 0.05
"""Smallest standard deviation by which an input (meters, or part of a quaternion) is divided when standardized, so that
an input that has hardly moved is not magnified."""


class Minibatch(NamedTuple):
    """Labeled pairs of one run, from which its members learn by one step, each from its own."""

    starts: Tensor
    """First steps of both segments, (members, n, 2)."""
    labels: Tensor
    """P(second preferred), (members, n)."""
    reliability: Tensor | None
    """Probability with which each label is right, (members, n); None: labels are taken at their word."""
    length: int
    """Steps of a segment."""
    learning_rate_scale: float
    """Factor of the learning rate."""

    @property
    def kind(self) -> tuple[int, bool, int, float]:
        """In what the minibatches of several runs agree if these learn at once."""
        return self.labels.shape[1], self.reliability is None, self.length, self.learning_rate_scale


class RewardEnsemble:
    """`members` networks per run, each of which maps an observation and an action to a reward in (-1, 1) (tanh).

    What the networks see of these `step_size` = O + A numbers, or of the D of an embedding, is up to `reward.inputs`
    and the domain of `task`, one of the fleet's.
    """

    def __init__(
        self,
        config: RewardConfig,
        step_size: int,
        generators: Sequence[np.random.Generator],
        device: torch.device,
        task: str,
    ) -> None:
        self.config = config
        self.inputs_of = inputs_of(config.inputs, task)
        input_size = self.inputs_of(torch.zeros(step_size)).shape[0]
        sizes = [input_size, *[config.width] * config.hidden_layers, 1]
        self.networks = StackedMLP.create(
            len(generators), config.members, sizes, functional.leaky_relu, uniform_fan_in, generators, device
        )
        assert self.networks.gradients is not None
        self.scaling = identity_scaling(len(generators), input_size, device)
        self.networks.scaling = self.scaling
        self.optimizer = StackedAdam(self.networks.values, self.networks.gradients, config.learning_rate)

    def of_run(self, run: int) -> RunEnsemble:
        """The members of one run, sharing memory."""
        return RunEnsemble(self.config, self.inputs_of, self.networks.of_run(run), self.optimizer.of_run(run))

    @torch.no_grad()
    def predict(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Mean reward (runs,) over the members, for observations (runs, O) and actions (runs, A)."""
        inputs = self.inputs_of(torch.cat((observations, actions), -1))
        return torch.tanh(self.networks(inputs.unsqueeze(1))).mean(1)[:, 0, 0]

    def learn(self, replay: Replay, minibatches: Mapping[int, Minibatch]) -> Tensor:
        """Take one step of Adam on the Bradley–Terry loss of the minibatches, all of one `kind`, of some runs.

        Returns (runs, members, n), by how much the return of each second segment exceeded that of the first before.
        """
        batches, places = list(minibatches.values()), self._places(list(minibatches))
        networks = self.networks.of_runs(places)
        assert networks.gradients is not None
        optimizer = self.optimizer.of_runs(places, networks.values, networks.gradients)
        starts = torch.stack([each.starts for each in batches])
        steps = starts.unsqueeze(-1) + torch.arange(batches[0].length, device=starts.device)
        inputs = self.inputs_of(replay.inputs(places, steps))
        returns = torch.tanh(networks(inputs.flatten(2, 4))).view(steps.shape).sum(-1)
        labels = torch.stack([each.labels for each in batches])
        reliability = [each.reliability for each in batches if each.reliability is not None]
        loss = bradley_terry_loss(returns, labels, torch.stack(reliability) if reliability else None)
        networks.backward(loss.mean(-1).sum())
        optimizer.step(batches[0].learning_rate_scale)
        if isinstance(places, Tensor):  # what learned is a copy
            self.networks.values[places] = networks.values
            for name, tensor in self.optimizer.state().items():
                tensor[places] = optimizer.state()[name]
        return (returns[..., 1] - returns[..., 0]).detach()

    def _places(self, runs: Sequence[int]) -> slice | Tensor:
        """Where the fleet's tensors hold some of its runs: a slice, which shares memory, where these lie together."""
        if list(runs) == list(range(runs[0], runs[-1] + 1)):
            return slice(runs[0], runs[-1] + 1)
        return to_device(np.array(runs), self.networks.values.device)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        return {"networks": self.networks.values, "scaling": self.scaling} | {
            f"optimizer.{name}": value for name, value in self.optimizer.state().items()
        }


class RunEnsemble:
    """The members of one run of a fleet: a view of the fleet's `RewardEnsemble` that shares its memory."""

    def __init__(self, config: RewardConfig, inputs_of: InputsOf, networks: StackedMLP, optimizer: StackedAdam) -> None:
        self.config, self.inputs_of, self.networks, self.optimizer = config, inputs_of, networks, optimizer

    @torch.no_grad()
    def standardise(self, replay: RunReplay) -> None:
        """Scale inputs from now on to mean 0 and standard deviation 1 over all steps of the run so far."""
        inputs = self.inputs_of(replay.known_inputs())
        assert self.networks.scaling is not None
        self.networks.scaling[:, 0, 0, 0] = torch.stack((inputs.mean(0), inputs.std(0).clamp(min=SMALLEST_SCALE)))

    @torch.no_grad()
    def relabel(self, replay: RunReplay, since: int = 0) -> None:
        """Overwrite the replay's rewards of all steps from `since` on with the mean over the members."""
        for first in range(since, replay.size, RELABEL_CHUNK):
            last = min(first + RELABEL_CHUNK, replay.size)
            steps = torch.arange(first, last, device=replay.device)
            replay.rewards[first:last] = self.member_rewards(replay.inputs(steps)).mean(0)

    @torch.no_grad()
    def member_returns(self, replay: RunReplay, starts: IntArray, length: int) -> Tensor:
        """Returns (members, n, 2) that each member gives to pairs `starts` (n, 2) of segments.

        The segments of all pairs are sorted, so that a chunk holds those that overlap: each step is evaluated once,
        however many pairs hold it, but for those at the edges of chunks.
        """
        segments, of_pairs = np.unique(starts, return_inverse=True)
        returns = torch.empty(self.config.members, len(segments), device=replay.device)
        size = max(1, RELABEL_CHUNK // length)
        for first in range(0, len(segments), size):
            steps = replay.segment_steps(segments[first : first + size], length)
            distinct, shown = steps.unique(return_inverse=True)
            returns[:, first : first + size] = self.member_rewards(replay.inputs(distinct))[:, shown].sum(-1)
        return returns[:, torch.from_numpy(of_pairs.reshape(starts.shape)).to(replay.device)]

    def member_probabilities(self, replay: RunReplay, starts: IntArray, length: int) -> Tensor:
        """P(second preferred) (members, n) that each member gives to pairs `starts` (n, 2)."""
        return preference_probability(self.member_returns(replay, starts, length))

    def member_rewards(self, inputs: Tensor) -> Tensor:
        """Rewards (members, n) in (-1, 1) that each member gives to observations with actions (n, O + A)."""
        return torch.tanh(self.networks(self.inputs_of(inputs).unsqueeze(0)))[0, :, :, 0]

    def segment_rewards(self, replay: RunReplay, starts: Tensor, length: int) -> Tensor:
        """Rewards (members, n, 2, length) that each member gives to its own pairs, `starts` (members, n, 2)."""
        steps = starts.unsqueeze(-1) + torch.arange(length, device=starts.device)
        inputs = self.inputs_of(replay.inputs(steps))
        return torch.tanh(self.networks(inputs.flatten(1, 3).unsqueeze(0))).view(steps.shape)

    def descend(self, loss: Tensor) -> None:
        """Take one step of Adam on the scalar `loss`."""
        self.networks.backward(loss)
        self.optimizer.step()


def reward_accuracy(
    replay: RunReplay, ensemble: RunEnsemble, config: RunConfig, generator: np.random.Generator
) -> float:
    """Fraction of random pairs that the ensemble orders as the true reward does, without ties of the true return.

    Returns nan if all pairs are ties.
    """
    length = config.feedback.segment_length
    starts = replay.draw_segments(generator, config.evaluation.held_out_pairs, length, config.feedback.recent_episodes)
    true_returns = replay.true_segment_rewards(starts, length).sum(-1)
    true_difference = true_returns[:, 1] - true_returns[:, 0]
    returns = ensemble.member_returns(replay, starts, length).mean(0).double().cpu().numpy()
    agrees = (returns[:, 1] - returns[:, 0]) * true_difference > 0
    decided = true_difference != 0
    return float(np.mean(agrees[decided])) if decided.any() else float("nan")
