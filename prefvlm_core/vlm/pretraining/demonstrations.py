"""Episodes of Meta-World's scripted experts as a camera saw them: the data that TinyLIV is trained and judged on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frames import Camera, FrameRenderer, Perturbation
from prefvlm_core.domains.metaworld import Environment
from prefvlm_core.domains.tasks import ACTION_SIZE, PAPER_TASKS, TASKS

View = Literal["around", "evaluation"]
FRAMES_PER_DEMONSTRATION = 20
FRAME_EVERY = 5
"""Steps between two frames of a trajectory."""
TRAJECTORY_STEPS = 200

_LONGEST_DEMONSTRATION = 300  # steps; experts that need longer have failed
_STEPS_AFTER_SUCCESS = 5
_EVALUATION_POSITION = np.array((1.3, -0.2, 1.1))  # of Meta-World's corner2, metres
_EVALUATION_TARGET = np.array((-0.165, 0.70, 0.15))  # where it looks, at the height of the objects


@dataclass(frozen=True)
class Demonstrations:
    """D successful expert episodes, each as T frames evenly spaced from its start to just after its success."""

    frames: NDArray[np.uint8]
    """(D, T, 64, 64, 3), RGB."""
    tasks: NDArray[np.int64]
    """(D,), indices into `envs.TASKS`."""


@dataclass(frozen=True)
class Trajectory:
    """One episode of H steps, seen in the evaluation view."""

    frames: NDArray[np.uint8]
    """(H / 5, 64, 64, 3), RGB: the frame after every 5th step."""
    rewards: NDArray[np.float64]
    """(H,): Meta-World's reward of each step."""
    successes: NDArray[np.bool_]
    """(H,): whether each step meets Meta-World's success test."""
    actions: NDArray[np.float32]
    """(H, 4)."""


@dataclass(frozen=True)
class Trajectories:
    """Episodes of mixed quality of one task, seen in the evaluation view."""

    frames: NDArray[np.uint8]
    """(N, 40, 64, 64, 3): the frame after every 5th step."""
    rewards: NDArray[np.float64]
    """(N, 200): Meta-World's reward of each step."""


def collect_demonstrations(tasks: Sequence[str], view: View, count: int, views_each: int, seed: int) -> Demonstrations:
    """`count` expert episodes of each task, each filmed `views_each` times. Equal seeds, equal bytes.

    In the view "around", each film has a camera 8 to 25 degrees of azimuth and up to 8 of elevation off the
    evaluation camera, its own distance, aim, lights and colours: the evaluation view and light are never among them.
    "evaluation" is that view itself, in Meta-World's own light and colours.
    """
    frames, indices = [], []
    for task in tasks:
        generator = np.random.default_rng((seed, TASKS.index(task)))
        renderer = FrameRenderer(task)
        for snapshots, scene in _expert_successes(task, count, generator):
            chosen = np.linspace(0, len(snapshots) - 1, FRAMES_PER_DEMONSTRATION).round().astype(int)
            scenes = np.repeat(scene[None], len(chosen), axis=0)
            for _ in range(views_each):
                if view == "around":
                    renderer.look(_camera_around(generator), _other_lab(generator))
                frames.append(renderer.render(snapshots[chosen], scenes))
                indices.append(TASKS.index(task))
        renderer.close()
    return Demonstrations(np.stack(frames), np.array(indices))


def mixed_trajectories(task: str, count: int, seed: int) -> Trajectories:
    """`count` episodes as a learning agent might make them.

    In equal parts: random actions, the expert with noise, the expert that stops or reverses, another task's expert.
    """
    generator = np.random.default_rng((seed, TASKS.index(task)))
    renderer = FrameRenderer(task)
    environment = Environment(task, TRAJECTORY_STEPS, goal_visible=True)
    episodes = []
    for index in range(count):
        episode_seed = int(generator.integers(2**31))
        episodes.append(film(environment, renderer, _mixed_behavior(task, index % 4, generator), episode_seed))
    renderer.close()
    return Trajectories(
        np.stack([episode.frames for episode in episodes]), np.stack([episode.rewards for episode in episodes])
    )


def film(environment: Environment, renderer: FrameRenderer, behavior: Behavior, seed: int) -> Trajectory:
    """Film the episode `seed` of an environment, over its whole horizon (a multiple of 5)."""
    observation = environment.reset(seed)
    snapshots, rewards, successes, actions = [], [], [], []
    for step in range(environment.horizon):
        action = behavior(observation, step)
        observation, reward, success = environment.step(action)
        actions.append(action)
        rewards.append(reward)
        successes.append(success)
        if (step + 1) % FRAME_EVERY == 0:
            snapshots.append(environment.snapshot())
    scenes = np.repeat(environment.scene()[None], len(snapshots), axis=0)
    frames = renderer.render(np.stack(snapshots), scenes)
    return Trajectory(frames, np.array(rewards), np.array(successes), np.stack(actions))


def _expert_successes(
    task: str, count: int, generator: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Snapshots (steps, S) and scene (C,) of `count` successful episodes; failures are tried anew with less noise."""
    environment = Environment(task, _LONGEST_DEMONSTRATION, goal_visible=True)
    found = 0
    for attempt in range(10 * count):
        if found == count:
            return
        expert = Expert(task, generator.uniform(0, 0.5 / (1 + attempt - found)), generator)
        observation = environment.reset(int(generator.integers(2**31)))
        snapshots, steps_left = [environment.snapshot()], _LONGEST_DEMONSTRATION
        succeeded = False
        while steps_left:
            observation, _, success = environment.step(expert(observation, len(snapshots) - 1))
            snapshots.append(environment.snapshot())
            steps_left -= 1
            if success and not succeeded:
                succeeded = True
                steps_left = min(steps_left, _STEPS_AFTER_SUCCESS)
        if succeeded:
            found += 1
            yield np.stack(snapshots), environment.scene()
    raise PrefVLMError(f"The scripted expert of '{task}' succeeded in only {found} of {10 * count} episodes.")


def _mixed_behavior(task: str, kind: int, generator: np.random.Generator) -> Behavior:
    """Kinds: 0 random actions, 1 expert with noise, 2 expert that stops or reverses, 3 expert of another task."""
    noise = generator.uniform(0.1, 1.0)
    turn = generator.integers(20, 120)
    reverse = generator.random() < 0.5
    other = str(generator.choice([name for name in PAPER_TASKS if name != task]))
    expert = Expert(other if kind == 3 else task, noise if kind == 1 else 0.2, generator)
    drift = RandomActions(generator)

    def act(observation: NDArray[np.float64], step: int) -> NDArray[np.float32]:
        if kind == 0:
            return drift(observation, step)
        action = expert(observation, step)
        if kind == 2 and step >= turn:
            action = -action if reverse else generator.normal(0, 0.1, ACTION_SIZE).astype(np.float32)
        return action

    return act


def _camera_around(generator: np.random.Generator) -> Camera:
    """A camera near the evaluation view, but never in it."""
    offset = _EVALUATION_POSITION - _EVALUATION_TARGET
    distance = np.linalg.norm(offset) * generator.uniform(0.8, 1.25)
    azimuth = math.atan2(offset[1], offset[0]) + generator.choice((-1, 1)) * math.radians(generator.uniform(8, 25))
    elevation = math.asin(offset[2] / np.linalg.norm(offset)) + math.radians(generator.uniform(-8, 8))
    direction = (math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation))
    target = _EVALUATION_TARGET + generator.uniform(-0.08, 0.08, 3)
    position = target + distance * np.array(direction)
    return Camera(tuple(position), tuple(target), float(generator.uniform(28, 37)))


def _other_lab(generator: np.random.Generator) -> Perturbation:
    return Perturbation(light=0.25, color=0.1, seed=int(generator.integers(2**31)))
