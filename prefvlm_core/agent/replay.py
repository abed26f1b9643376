"""The replay: all transitions of the runs of a fleet, and the batches and segments drawn from them.

All runs advance in lock step and every episode lasts exactly `horizon` steps, so a step number alone identifies a
transition. The replay holds the whole run (as in B-Pref, whose capacity is the number of training steps): nothing is
ever overwritten, each observation is stored once, and a segment identified by its first step stays valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.sac import Batch
from prefvlm_core.common.arrays import DoubleArray, FloatArray, IntArray
from prefvlm_core.common.tensors import check_tensors, copy_tensors
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.fleet import EnvironmentFleet


class Replay:
    """The transitions of `runs` runs; step `s` is step `s % horizon` of episode `s // horizon`.

    observations (runs, episodes, horizon + 1, O), actions (runs, steps, A), true_rewards and rewards (runs, steps) are
    float32 on the learner's device. The agent learns from `rewards`, which are rewritten whenever the reward ensemble
    has changed. snapshots (runs, episodes, horizon + 1, S) and scenes (runs, episodes, C) are float32 on the host and
    serve to render frames later (see `domains.environment.Environment.snapshot`).
    """

    def __init__(
        self,
        runs: int,
        total_steps: int,
        horizon: int,
        observation_size: int,
        action_size: int,
        snapshot_size: int,
        scene_size: int,
        device: torch.device,
    ) -> None:
        episodes = -(-total_steps // horizon)
        steps = episodes * horizon
        self.horizon = horizon
        self.size = 0
        self.rewarded_by_episode: frozenset[int] = frozenset()
        """Runs whose rewards are known only after an episode has ended: only their complete episodes are sampled."""
        self.embeddings: Tensor | None = None
        """The VLM's embeddings (runs, steps, D) of the frames after each step of complete episodes, where the reward
        ensembles see these in place of the state."""
        self.observations = torch.empty(runs, episodes, horizon + 1, observation_size, device=device)
        self.actions = torch.empty(runs, steps, action_size, device=device)
        self.true_rewards = torch.empty(runs, steps, device=device)
        self.rewards = torch.empty(runs, steps, device=device)
        self.snapshots = np.empty((runs, episodes, horizon + 1, snapshot_size), np.float32)
        self.scenes = np.empty((runs, episodes, scene_size), np.float32)

    @property
    def input_size(self) -> int:
        """Size of `RunReplay.inputs` of one step."""
        if self.embeddings is not None:
            return self.embeddings.shape[-1]
        return self.observations.shape[-1] + self.actions.shape[-1]

    def begin_episode(self, observations: Tensor, snapshots: FloatArray, scenes: FloatArray) -> None:
        """Start an episode from its first observations (runs, O), first snapshots (runs, S) and scenes (runs, C)."""
        episode = self.size // self.horizon
        self.observations[:, episode, 0] = observations
        self.snapshots[:, episode, 0] = snapshots
        self.scenes[:, episode] = scenes

    def add(
        self,
        actions: Tensor,
        true_rewards: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        next_snapshots: FloatArray,
    ) -> None:
        """Append one transition of every run: actions (runs, A), both rewards (runs,), and what follows, (runs, O) and
        (runs, S)."""
        episode, step = divmod(self.size, self.horizon)
        self.actions[:, self.size] = actions
        self.true_rewards[:, self.size] = true_rewards
        self.rewards[:, self.size] = rewards
        self.observations[:, episode, step + 1] = next_observations
        self.snapshots[:, episode, step + 1] = next_snapshots
        self.size += 1

    @property
    def complete_episodes(self) -> int:
        """Number of episodes that have ended."""
        return self.size // self.horizon

    def shown(self, runs: IntArray, steps: IntArray) -> tuple[FloatArray, FloatArray]:
        """Snapshots (n, S) after the action and scenes (n, C), which the frames of `steps` (n,) of `runs` (n,) show."""
        episodes, within = np.divmod(steps, self.horizon)
        return self.snapshots[runs, episodes, within + 1], self.scenes[runs, episodes]

    def of_run(self, run: int) -> RunReplay:
        """The transitions of one run, sharing memory."""
        return RunReplay(self, run)

    def sample(self, generators: Sequence[np.random.Generator], batch_size: int) -> Batch:
        """A batch of uniformly drawn transitions of every run, each with the run's own generator."""
        drawn = [
            generator.integers(self.sampled_steps(run), size=batch_size) for run, generator in enumerate(generators)
        ]
        return self.transitions(torch.from_numpy(np.stack(drawn)).to(self.actions.device))

    def transitions(self, steps: Tensor) -> Batch:
        """The transitions of every run at its `steps` (runs, batch)."""
        rows, observations = rows_of(steps, self.horizon), self.observations.flatten(1, 2)
        return Batch(
            _taken(observations, rows),
            _taken(self.actions, steps),
            _taken(self.rewards, steps),
            _taken(observations, rows + 1),
        )

    def inputs(self, places: slice | Tensor, steps: Tensor) -> Tensor:
        """`RunReplay.inputs` (r, ..., O + A) or (r, ..., D) of r runs, all in a slice or at indices (r,), each at its
        `steps` (r, ...)."""
        runs = torch.arange(len(self.rewards), device=steps.device)[places]
        if self.embeddings is not None:
            return _taken(self.embeddings, steps, runs)
        observations = _taken(self.observations.flatten(1, 2), rows_of(steps, self.horizon), runs)
        return torch.cat((observations, _taken(self.actions, steps, runs)), -1)

    def sampled_steps(self, run: int) -> int:
        """Number of first steps of a run from which batches are drawn."""
        return self.complete_episodes * self.horizon if run in self.rewarded_by_episode else self.size

    def piece(self, first: int, last: int) -> dict[str, Tensor]:
        """The part of steps first to last - 1 (whole episodes) that never changes again, for a checkpoint."""
        episodes = slice(first // self.horizon, last // self.horizon)
        return {
            "observations": self.observations[:, episodes],
            "actions": self.actions[:, first:last],
            "true_rewards": self.true_rewards[:, first:last],
            "snapshots": torch.from_numpy(self.snapshots[:, episodes]),
            "scenes": torch.from_numpy(self.scenes[:, episodes]),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The rewards, which change; everything else is in the pieces of a checkpoint."""
        return {"rewards": self.rewards[:, : self.size]}, {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`, to be called after all pieces have been appended."""
        self.rewards[:, : self.size] = tensors["rewards"].to(self.rewards.device)

    def append_piece(self, piece: Mapping[str, Tensor]) -> None:
        """Inverse of `piece`: append it to the steps stored so far. Raises `PrefVLMError` where it does not fit."""
        last = self.size + piece["actions"].shape[1]
        targets = self.piece(self.size, last)
        check_tensors(piece, targets)
        copy_tensors(piece, targets)
        self.size = last


class RunReplay:
    """The transitions of one run of a fleet: a view of the fleet's `Replay` that shares its memory.

    Shapes: observations (episodes, horizon + 1, O), actions (steps, A), true_rewards and rewards (steps,), snapshots
    (episodes, horizon + 1, S), scenes (episodes, C).
    """

    def __init__(self, fleet: Replay, run: int) -> None:
        self._fleet, self._run = fleet, run
        self.horizon = fleet.horizon
        self.observations, self.actions = fleet.observations[run], fleet.actions[run]
        self.true_rewards, self.rewards = fleet.true_rewards[run], fleet.rewards[run]
        self.snapshots, self.scenes = fleet.snapshots[run], fleet.scenes[run]

    @property
    def size(self) -> int:
        """Number of steps so far."""
        return self._fleet.size

    @property
    def complete_episodes(self) -> int:
        """Number of episodes that have ended."""
        return self._fleet.complete_episodes

    @property
    def device(self) -> torch.device:
        """The device of observations, actions and rewards."""
        return self.actions.device

    def sample(self, generator: np.random.Generator, batch_size: int) -> Batch:
        """A batch of uniformly drawn transitions, as of a fleet of one: (1, batch, ...)."""
        drawn = generator.integers(self._fleet.sampled_steps(self._run), size=(1, batch_size))
        return self.transitions(torch.from_numpy(drawn).to(self.device))

    def transitions(self, steps: Tensor) -> Batch:
        """The transitions at `steps` (1, batch), as of a fleet of one."""
        rows, observations = rows_of(steps, self.horizon), self.observations.flatten(0, 1)
        return Batch(observations[rows], self.actions[steps], self.rewards[steps], observations[rows + 1])

    def inputs(self, steps: Tensor) -> Tensor:
        """What the reward networks take their inputs from at `steps` (...): observations with actions (..., O + A), or
        embeddings (..., D) where the replay has them."""
        if self._fleet.embeddings is not None:
            return self._fleet.embeddings[self._run, steps]
        return torch.cat((self.observations.flatten(0, 1)[rows_of(steps, self.horizon)], self.actions[steps]), -1)

    def steps_so_far(self) -> Tensor:
        """All step numbers so far, (size,)."""
        return torch.arange(self.size, device=self.device)

    def known_inputs(self) -> Tensor:
        """The `inputs` (n, ...) of all steps so far whose inputs are known."""
        return self.inputs(self.steps_so_far()[: self._fleet.sampled_steps(self._run)])

    def seen_observations(self) -> Tensor:
        """The observation before each step so far, (size, O)."""
        return self.observations.flatten(0, 1)[rows_of(self.steps_so_far(), self.horizon)]

    def shown(self, steps: IntArray) -> tuple[FloatArray, FloatArray]:
        """Snapshots (n, S) and scenes (n, C) that the frames of `steps` (n,) show: those after each step's action."""
        return self._fleet.shown(np.full(len(steps), self._run), steps)

    def recent_return(self, episodes: int = 10) -> float:
        """Mean true return of the newest complete episodes, at most `episodes` of them."""
        last = self.complete_episodes * self.horizon
        first = max(0, last - episodes * self.horizon)
        return float(self.true_rewards[first:last].sum()) * self.horizon / (last - first)

    def segment_steps(self, starts: IntArray, length: int) -> Tensor:
        """All steps (..., length) of segments that begin at `starts` (...)."""
        return torch.from_numpy(starts).to(self.device).unsqueeze(-1) + torch.arange(length, device=self.device)

    def true_segment_rewards(self, starts: IntArray, length: int) -> DoubleArray:
        """True rewards (n, 2, length) of pairs of segments that begin at `starts` (n, 2)."""
        return self.true_rewards[self.segment_steps(starts, length)].double().cpu().numpy()

    def true_labels(self, starts: IntArray, length: int) -> DoubleArray:
        """P(second segment preferred) (n,) of pairs `starts` (n, 2) by the true reward: 0, 1/2 (a tie) or 1."""
        returns = self.true_segment_rewards(starts, length).sum(-1)
        return np.asarray((1 + np.sign(returns[:, 1] - returns[:, 0])) / 2)

    def draw_segments(self, generator: np.random.Generator, count: int, length: int, recent_episodes: int) -> IntArray:
        """First steps (count, 2) of `count` random pairs of segments.

        As in B-Pref, each of the two segments is drawn independently: uniformly one of the `recent_episodes` newest
        complete episodes, and uniformly a start in it. Unlike in B-Pref, which leaves out the last possible start, a
        segment may end with its episode.
        """
        first = max(0, self.complete_episodes - recent_episodes)
        episodes = generator.integers(first, self.complete_episodes, size=(count, 2))
        return episodes * self.horizon + generator.integers(self.horizon - length + 1, size=(count, 2))


def make_replay(configs: Sequence[RunConfig], environments: EnvironmentFleet, device: torch.device) -> Replay:
    """An empty replay for the runs of a fleet."""
    replay = Replay(
        len(configs),
        configs[0].total_steps,
        configs[0].horizon,
        environments.sizes.observation,
        environments.sizes.action,
        environments.snapshots.shape[1],
        environments.scenes.shape[1],
        device,
    )
    replay.rewarded_by_episode = frozenset(
        run for run, config in enumerate(configs) if config.reward.source == "vlm" or config.reward.embedded
    )
    return replay


def _taken(values: Tensor, chosen: Tensor, runs: Tensor | None = None) -> Tensor:
    """The values (r, batch, ...) at `chosen` (r, batch) of each run's `values` (runs, n, ...), or of those of r `runs`
    (r,).

    The same as values[runs, chosen], in a third of the time.
    """
    count = values.shape[1]
    first = count * (torch.arange(len(values), device=values.device) if runs is None else runs)
    rows = first.view(-1, *[1] * (chosen.dim() - 1)) + chosen
    return values.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, chosen.shape)


def rows_of(steps: Tensor, horizon: int) -> Tensor:
    """Index of the observation before each of `steps`: an episode has one observation more than it has steps."""
    return steps + torch.div(steps, horizon, rounding_mode="floor")
