"""Recorded episodes of good and bad behaviors: the data on which a vision-language model is judged."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frame_steps import has_frame
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import main_tasks, task_number

RECORDED_STEPS = 200
"""Environment steps of a recorded episode, unless others are asked for."""
FRAME_EVERY = 5
"""Environment steps from one recorded frame to the next."""
SEGMENT_FRAMES = 10
"""Recorded frames in a segment of 50 steps, the length of the papers' segments."""


@dataclass(frozen=True)
class Recording:
    """N episodes of H steps of one task, as a camera sees them."""

    task: str
    frames: NDArray[np.uint8]
    """(N, H / 5, size, size, 3), RGB: the frame after every 5th step."""
    rewards: NDArray[np.float64]
    """(N, H): the true reward of each step."""
    successes: NDArray[np.bool_]
    """(N, H): whether each step meets the task's success criterion."""
    actions: NDArray[np.float32]
    """(N, H, A)."""


@dataclass(frozen=True)
class Episodes:
    """N episodes of H steps of one task, which can be rendered again and again; see `Recording`."""

    task: str
    snapshots: NDArray[np.float32]
    """(N, H / 5, S): the pose after every 5th step."""
    scenes: NDArray[np.float32]
    """(N, C)."""
    rewards: NDArray[np.float64]
    successes: NDArray[np.bool_]
    actions: NDArray[np.float32]

    def seen_by(self, renderer: FrameRenderer) -> Recording:
        """The episodes as a renderer of the same task draws them."""
        count, shown, size = self.snapshots.shape
        frames = renderer.render(self.snapshots.reshape(-1, size), np.repeat(self.scenes, shown, axis=0))
        by_episode = frames.reshape(count, shown, *frames.shape[1:])
        return Recording(self.task, by_episode, self.rewards, self.successes, self.actions)


def play(task: str, episodes: Iterable[tuple[Behavior, int]], steps: int = RECORDED_STEPS) -> Episodes:
    """Play one episode of `steps`, a multiple of 5, per behavior and seed of its initial state.

    `episodes` is consumed lazily, each item after the episode before it, so that they may share a random generator.
    """
    environment = Environment(task, steps, goal_visible=True)
    snapshots, scenes, rewards, successes, actions = [], [], [], [], []
    for behavior, seed in episodes:
        observation = environment.reset(seed)
        for step in range(steps):
            action = behavior(observation, step)
            observation, reward, success = environment.step(action)
            actions.append(action)
            rewards.append(reward)
            successes.append(success)
            if has_frame(step, FRAME_EVERY):
                snapshots.append(environment.snapshot())
        scenes.append(environment.scene())
    by_episode = (len(scenes), steps)
    return Episodes(
        task=task,
        snapshots=np.reshape(snapshots, (len(scenes), steps // FRAME_EVERY, -1)),
        scenes=np.stack(scenes),
        rewards=np.reshape(rewards, by_episode),
        successes=np.reshape(successes, by_episode),
        actions=np.reshape(actions, (*by_episode, -1)),
    )


def record(
    task: str, episodes: Iterable[tuple[Behavior, int]], size: int = 64, steps: int = RECORDED_STEPS
) -> Recording:
    """What `play` plays, in the evaluation view, with frames of `size` pixels."""
    return _seen(play(task, episodes, steps), size)


def record_mixed_behaviors(task: str, count: int, seed: int, size: int = 64) -> Recording:
    """What `play_mixed_behaviors` plays, in the evaluation view, with frames of `size` pixels."""
    return _seen(play_mixed_behaviors(task, count, seed), size)


def _seen(episodes: Episodes, size: int) -> Recording:
    with closing(FrameRenderer(episodes.task, size)) as renderer:
        return episodes.seen_by(renderer)


def play_mixed_behaviors(task: str, count: int, seed: int) -> Episodes:
    """Play `count` episodes of mixed quality, as a learning agent might produce them.

    Equal shares are random actions, the expert with noise, the expert that stops or reverses, and the expert of another
    task of the domain, or of its only one.
    """
    generator = np.random.default_rng((seed, task_number(task)))

    def episodes() -> Iterator[tuple[Behavior, int]]:
        for index in range(count):
            episode_seed = int(generator.integers(2**31))
            yield _mixed_behavior(task, index % 4, generator), episode_seed

    return play(task, episodes())


def expert_episodes(
    task: str, noise: float, count: int, generator: np.random.Generator
) -> Iterator[tuple[Behavior, int]]:
    """What `play` takes: `count` episodes of the task's expert, with `noise` on its actions."""
    for _ in range(count):
        yield Expert(task, noise, generator), int(generator.integers(2**31))


def at_frames(values: NDArray[Any]) -> NDArray[Any]:
    """Of values (..., H) of steps, those (..., H / 5) of the steps that a frame shows."""
    return values[..., FRAME_EVERY - 1 :: FRAME_EVERY]


def segment_returns(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """True returns (N, H / 5 - 9) of the segments of 50 steps that begin at every 5th step of rewards (N, H)."""
    return segment_sums(rewards.reshape(len(rewards), -1, FRAME_EVERY).sum(2))


def segment_sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums over each segment of 10 frames, given one value per frame: (N, F) to (N, F - 9)."""
    return np.lib.stride_tricks.sliding_window_view(values, SEGMENT_FRAMES, axis=1).sum(2, dtype=np.float64)


def _mixed_behavior(task: str, kind: int, generator: np.random.Generator) -> Behavior:
    """Kinds: 0 random actions, 1 expert with noise, 2 expert that stops or reverses, 3 expert of another task."""
    noise = generator.uniform(0.1, 1.0)
    turn = generator.integers(20, 120)
    reverse = generator.random() < 0.5
    other = str(generator.choice([name for name in main_tasks(task) if name != task] or [task]))
    expert = Expert(other if kind == 3 else task, noise if kind == 1 else 0.2, generator)
    drift = RandomActions(task, generator)

    def act(observation: NDArray[np.float64], step: int) -> NDArray[np.float32]:
        if kind == 0:
            return drift(observation, step)
        action = expert(observation, step)
        if kind == 2 and step >= turn:
            action = -action if reverse else generator.normal(0, 0.1, len(action)).astype(np.float32)
        return action

    return act
