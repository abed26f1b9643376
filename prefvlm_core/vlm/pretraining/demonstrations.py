"""Demonstrations by Meta-World's scripted experts: the frames on which TinyLIV is trained."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import Camera, FrameRenderer, Perturbation
from prefvlm_core.domains.metaworld import Environment
from prefvlm_core.domains.tasks import TASKS

View = Literal["around", "evaluation"]
FRAMES_PER_DEMONSTRATION = 20

_LONGEST_DEMONSTRATION = 300  # steps; an expert that needs more has failed
_STEPS_AFTER_SUCCESS = 5
_EVALUATION_POSITION = np.array((1.3, -0.2, 1.1))  # of Meta-World's corner2, meters
_EVALUATION_TARGET = np.array((-0.165, 0.70, 0.15))  # the point at which it looks, at the height of the objects


def collect_demonstrations(
    tasks: Sequence[str], view: View, count: int, views_each: int, seed: int
) -> NDArray[np.uint8]:
    """Render successful episodes of the experts, each as T = 20 frames evenly spaced from start to success.

    Args:
        tasks: Names of K tasks.
        view: "around": each rendering has its own distance, aim, light and colors, and a camera 8 to 25 degrees of
            azimuth and up to 8 degrees of elevation away from the evaluation camera, so that the evaluation view is
            never among them. "evaluation": that view, with Meta-World's light and colors.
        count: Number of episodes per task.
        views_each: Number of renderings per episode.
        seed: Determines every byte of the result.

    Returns:
        Frames (K, count x views_each, T, 64, 64, 3) uint8 RGB.

    Raises:
        PrefVLMError: If an expert fails too often.
    """
    frames = []
    for task in tasks:
        generator = np.random.default_rng((seed, TASKS.index(task)))
        of_task = []
        with closing(FrameRenderer(task)) as renderer:
            for snapshots, scene in _expert_successes(task, count, generator):
                chosen = np.linspace(0, len(snapshots) - 1, FRAMES_PER_DEMONSTRATION).round().astype(int)
                scenes = np.repeat(scene[None], len(chosen), axis=0)
                for _ in range(views_each):
                    if view == "around":
                        renderer.look(_camera_around(generator), _changed_lab(generator))
                    of_task.append(renderer.render(snapshots[chosen], scenes))
        frames.append(np.stack(of_task))
    return np.stack(frames)


def _expert_successes(
    task: str, count: int, generator: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Snapshots (steps, S) and scene (C,) of `count` successful episodes; failures are repeated with less noise."""
    environment = Environment(task, _LONGEST_DEMONSTRATION, goal_visible=True)
    found = 0
    for attempt in range(10 * count):
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
            if found == count:
                return
    raise PrefVLMError(f"The scripted expert of '{task}' succeeded in only {found} of {10 * count} episodes.")


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


def _changed_lab(generator: np.random.Generator) -> Perturbation:
    return Perturbation(light=0.25, color=0.1, seed=int(generator.integers(2**31)))
