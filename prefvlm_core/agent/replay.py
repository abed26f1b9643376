"""Everything the runs of a fleet have seen, and the segments and batches drawn from it.

All runs advance in lock step and every episode lasts exactly `horizon` steps, so a transition is named by its step
number alone. The replay holds the whole run (as in B-Pref, whose capacity is the number of training steps): nothing is
ever overwritten, an observation is stored once, and a segment named by its first step stays valid for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prefvlm_core.agent.sac import Batch

IntArray = npt.NDArray[np.int64]


class Replay:
    """Transitions of `runs` runs, step `s` being step `s % horizon` of episode `s // horizon`.

    observations (runs, episodes, horizon + 1, O), actions (runs, steps, A), true_rewards and rewards (runs, steps):
    float32 on the learner's device. `rewards` is what the agent learns from and is rewritten when the reward ensemble
    has changed. snapshots (runs, episodes, horizon + 1, S) and scenes (runs, episodes, C): float32 on the host, for
    rendering later (see `envs.Environment.snapshot`).
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
        """Runs whose rewards are known only when an episode has ended; only complete episodes of theirs are sampled."""
        self.observations = torch.empty(runs, episodes, horizon + 1, observation_size, device=device)
        self.actions = torch.empty(runs, steps, action_size, device=device)
        self.true_rewards = torch.empty(runs, steps, device=device)
        self.rewards = torch.empty(runs, steps, device=device)
        self.snapshots = np.empty((runs, episodes, horizon + 1, snapshot_size), np.float32)
        self.scenes = np.empty((runs, episodes, scene_size), np.float32)
        self._runs = torch.arange(runs, device=device).unsqueeze(1)

    def begin_episode(
        self, observations: Tensor, snapshots: npt.NDArray[np.float32], scenes: npt.NDArray[np.float32]
    ) -> None:
        """First observations (runs, O) and snapshots (runs, S) of the next episode, and its scenes (runs, C)."""
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
        next_snapshots: npt.NDArray[np.float32],
    ) -> None:
        """One transition of every run: actions (runs, A), rewards (runs,), what followed (runs, O) and (runs, S)."""
        episode, step = divmod(self.size, self.horizon)
        self.actions[:, self.size] = actions
        self.true_rewards[:, self.size] = true_rewards
        self.rewards[:, self.size] = rewards
        self.observations[:, episode, step + 1] = next_observations
        self.snapshots[:, episode, step + 1] = next_snapshots
        self.size += 1

    @property
    def complete_episodes(self) -> int:
        """Episodes that have ended."""
        return self.size // self.horizon

    def sample(self, generators: Sequence[np.random.Generator], batch_size: int, run: int | None = None) -> Batch:
        """Uniform transitions of every run (or of one `run`), each drawn from its own generator."""
        indices = range(len(generators)) if run is None else (run,)
        drawn = np.stack(
            [
                generator.integers(self._sampled_steps(index), size=batch_size)
                for index, generator in zip(indices, generators, strict=True)
            ]
        )
        steps = torch.from_numpy(drawn).to(self.actions.device)
        runs = self._runs if run is None else self._runs[run : run + 1]
        observations = self.observations.flatten(1, 2)
        rows = self._rows(steps)
        return Batch(
            observations[runs, rows], self.actions[runs, steps], self.rewards[runs, steps], observations[runs, rows + 1]
        )

    def _sampled_steps(self, run: int) -> int:
        return self.complete_episodes * self.horizon if run in self.rewarded_by_episode else self.size

    def _rows(self, steps: Tensor) -> Tensor:
        """Where the observation before each step lies: an episode has one observation more than it has steps."""
        return steps + torch.div(steps, self.horizon, rounding_mode="floor")

    def inputs(self, run: int, steps: Tensor) -> Tensor:
        """What reward networks see of `steps` (any shape) of one run, observation and action: (..., O + A)."""
        return torch.cat((self.observations[run].flatten(0, 1)[self._rows(steps)], self.actions[run][steps]), -1)

    def seen_observations(self, run: int) -> Tensor:
        """The observation before each step so far, of one run: (size, O)."""
        return self.observations[run].flatten(0, 1)[self._rows(torch.arange(self.size, device=self.actions.device))]

    def recent_return(self, run: int, episodes: int = 10) -> float:
        """Mean true return of one run's newest complete episodes."""
        last = self.complete_episodes * self.horizon
        first = max(0, last - episodes * self.horizon)
        return float(self.true_rewards[run, first:last].sum()) * self.horizon / (last - first)

    def true_segment_rewards(self, run: int, starts: IntArray, length: int) -> npt.NDArray[np.float64]:
        """True rewards of pairs of segments, starts (n, 2) -> (n, 2, length)."""
        return self.true_rewards[run][self.segment_steps(starts, length)].double().cpu().numpy()

    def segment_steps(self, starts: IntArray, length: int) -> Tensor:
        """Every step of segments that begin at `starts` (...): (..., length)."""
        device = self.actions.device
        return torch.from_numpy(starts).to(device).unsqueeze(-1) + torch.arange(length, device=device)

    def piece(self, first: int, last: int) -> dict[str, Tensor]:
        """What never changes of steps first..last-1 (whole episodes), for a checkpoint."""
        episodes = slice(first // self.horizon, last // self.horizon)
        return {
            "observations": self.observations[:, episodes],
            "actions": self.actions[:, first:last],
            "true_rewards": self.true_rewards[:, first:last],
            "snapshots": torch.from_numpy(self.snapshots[:, episodes]),
            "scenes": torch.from_numpy(self.scenes[:, episodes]),
        }

    def append_piece(self, piece: dict[str, Tensor]) -> None:
        """Inverse of `piece`, at the end of what is there."""
        last = self.size + piece["actions"].shape[1]
        for name, there in self.piece(self.size, last).items():
            there.copy_(piece[name])
        self.size = last

    def draw_segments(self, generator: np.random.Generator, count: int, length: int, recent_episodes: int) -> IntArray:
        """First steps (count, 2) of `count` pairs of segments of one run.

        As in B-Pref: two independent uniform complete episodes of the `recent_episodes` newest, two independent uniform
        starts.
        """
        first = max(0, self.complete_episodes - recent_episodes)
        episodes = generator.integers(first, self.complete_episodes, size=(count, 2))
        return episodes * self.horizon + generator.integers(self.horizon - length + 1, size=(count, 2))
