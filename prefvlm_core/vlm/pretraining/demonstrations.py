"""Films of scripted experts, on the way to success and back from mistakes: what TinyLIV is trained on."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.domains.domain import Camera
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import Perturbation
from prefvlm_core.domains.registry import sizes_of, task_number
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS

View = Literal["around", "changed", "evaluation"]
FRAMES_PER_FILM = 16

_LONGEST_BEGINNING = 90  # steps of the expert before it is disturbed
_LONGEST_DISTURBANCE = 70  # steps; there are at most two of them
_STEPS_AFTER_SUCCESS = 25
_SPARE = (
    260  # steps of the longest episode that the expert does not get; one that needs more than the others has failed
)
_DISTURBERS = tuple(task for task in TASKS if task not in PAPER_TASKS)  # held-out tasks stay unseen
_HAND_LOW, _HAND_HIGH = (-0.45, 0.4, 0.05), (0.45, 0.95, 0.4)  # meters; within reach in every task
_EVALUATION_POSITION = np.array((1.3, -0.2, 1.1))  # of Meta-World's corner2, meters
_EVALUATION_TARGET = np.array((-0.165, 0.70, 0.15))  # the point at which it looks, at the height of the objects


@dataclass(frozen=True)
class Episode:
    """The last part of a successful episode: N states from where the expert takes over, until shortly after success."""

    snapshots: NDArray[np.float32]
    """(N, S), as `Environment.snapshot` returns them."""
    scene: NDArray[np.float32]
    """(C,), as `Environment.scene` returns it."""
    remaining: NDArray[np.int64]
    """(N,): steps that the expert then needed to the first success, and 0 in the states of success after it."""


@dataclass(frozen=True)
class Films:
    """F films of T = 16 frames of each of K tasks."""

    frames: NDArray[np.uint8]
    """(K, F, T, 64, 64, 3), RGB, in the order of time."""
    remaining: NDArray[np.int64]
    """(K, F, T): the expert's steps from each frame to success."""


def collect_films(tasks: Sequence[str], view: View, clean: int, recoveries: int, looks: int, seed: int) -> Films:
    """Film successful episodes of the experts, each as 16 frames evenly spaced in an `Episode`.

    Args:
        tasks: Names of K tasks.
        view: "around": every film has its own distance, aim, light and colors, and a camera 8 to 25 degrees of azimuth
            and up to 8 degrees of elevation away from the evaluation camera, so that the evaluation view is never among
            them. Only Meta-World has it. "changed": the evaluation camera, but light and colors of its own for every
            film. "evaluation": that view, as it is.
        clean: Number of episodes per task in which the expert acts from the start.
        recoveries: Number of episodes per task in which it takes over after a disturbance, which is not filmed.
        looks: Number of films of the same 16 states of each episode; F = looks * (clean + recoveries).
        seed: Determines every byte of the result. Views and numbers of looks do not change the episodes.

    Raises:
        PrefVLMError: If an expert fails too often.
    """
    frames, remaining = [], []
    for task in tqdm(tasks, desc="films", unit="task"):
        acting = np.random.default_rng((seed, task_number(task)))
        looking = [np.random.default_rng((seed, task_number(task), 1 + look)) for look in range(looks)]
        frames_of_task, remaining_of_task = [], []
        with closing(FrameRenderer(task)) as renderer:
            for episode in successful_episodes(task, clean, recoveries, acting):
                chosen = np.linspace(0, len(episode.remaining) - 1, FRAMES_PER_FILM).round().astype(int)
                scenes = np.repeat(episode.scene[None], len(chosen), axis=0)
                for look in looking:
                    if view == "around":
                        renderer.look(_camera_around(look), _changed_lab(look))
                    elif view == "changed":
                        renderer.look(perturbation=_changed_lab(look))
                    frames_of_task.append(renderer.render(episode.snapshots[chosen], scenes))
                    remaining_of_task.append(episode.remaining[chosen])
        frames.append(np.stack(frames_of_task))
        remaining.append(np.stack(remaining_of_task))
    return Films(np.stack(frames), np.stack(remaining))


def successful_episodes(task: str, clean: int, recoveries: int, generator: np.random.Generator) -> Iterator[Episode]:
    """Episodes of the expert of `task` with noise on its actions: first the clean ones, then the recoveries.

    Failures are left out and repeated with less noise. Raises `PrefVLMError` if there are too many.
    """
    environment = Environment(task, goal_visible=True)
    for count, disturbed, most_noise in ((clean, False, 0.5), (recoveries, True, 0.2)):
        found = 0
        for attempt in range(10 * count):
            observation = environment.reset(int(generator.integers(2**31)))
            if disturbed:
                observation = _disturb(environment, observation, generator)
            expert = Expert(task, generator.uniform(0, most_noise / (1 + attempt - found)), generator)
            episode = _until_success(environment, observation, expert, generator)
            if episode is not None:
                found += 1
                yield episode
                if found == count:
                    break
        if found < count:
            raise PrefVLMError(f"The scripted expert of '{task}' succeeded in only {found} of {10 * count} episodes.")


def _until_success(
    environment: Environment, observation: NDArray[np.float64], expert: Expert, generator: np.random.Generator
) -> Episode | None:
    """Let the expert act until it succeeds, and then anything for a few steps. None if it fails."""
    snapshots, success = [environment.snapshot()], False
    while not success:
        if len(snapshots) > environment.horizon - _SPARE:
            return None
        observation, _, success = environment.step(expert(observation, len(snapshots) - 1))
        snapshots.append(environment.snapshot())
    remaining = list(range(len(snapshots) - 1, -1, -1))
    task = environment.task
    afterwards = (expert, RandomActions(task, generator), _constant(task, generator))[generator.integers(3)]
    for step in range(_STEPS_AFTER_SUCCESS):
        observation, _, success = environment.step(afterwards(observation, step))
        if success:  # a state after the success has been undone has an unknown number of steps to the next one
            snapshots.append(environment.snapshot())
            remaining.append(0)
    return Episode(np.stack(snapshots), environment.scene(), np.array(remaining))


def _disturb(
    environment: Environment, observation: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """In half of the cases some steps of the expert, then once or twice another behavior. Returns the observation."""
    phases: list[tuple[Behavior, int]] = []
    if generator.random() < 0.5:
        beginning = Expert(environment.task, 0.2, generator)
        phases.append((beginning, int(generator.integers(5, _LONGEST_BEGINNING + 1))))
    for _ in range(generator.integers(1, 3)):
        disturbance = _disturbance(environment.task, generator)
        phases.append((disturbance, int(generator.integers(5, _LONGEST_DISTURBANCE + 1))))
    for behavior, steps in phases:
        for step in range(steps):
            observation, _, _ = environment.step(behavior(observation, step))
    return observation


def _disturbance(task: str, generator: np.random.Generator) -> Behavior:
    """Drift, the expert reversed or a constant action; in Meta-World also another expert, or the way to a point."""
    makers: list[Callable[[], Behavior]] = [
        lambda: RandomActions(task, generator),
        lambda: _reversed(Expert(task, 0.2, generator)),
        lambda: _constant(task, generator),
    ]
    if task in TASKS:
        makers.insert(2, lambda: Expert(_another_task(task, generator), 0.2, generator))
        makers.append(lambda: _to_a_point(generator))
    return makers[generator.integers(len(makers))]()


def _reversed(expert: Expert) -> Behavior:
    return lambda observation, step: -expert(observation, step)


def _another_task(task: str, generator: np.random.Generator) -> str:
    return str(generator.choice([name for name in _DISTURBERS if name != task]))


def _constant(task: str, generator: np.random.Generator) -> Behavior:
    action = generator.uniform(-1, 1, sizes_of(task).action).astype(np.float32)
    return lambda _observation, _step: action


def _to_a_point(generator: np.random.Generator) -> Behavior:
    point, effort = generator.uniform(_HAND_LOW, _HAND_HIGH), generator.uniform(-1, 1)

    def act(observation: NDArray[np.float64], _step: int) -> NDArray[np.float32]:
        return np.clip((*(10 * (point - observation[:3])), effort), -1, 1).astype(np.float32)

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


def _changed_lab(generator: np.random.Generator) -> Perturbation:
    """Lights and surfaces that are clearly not Meta-World's."""
    light, turn, color, texture = generator.uniform(0.3, 1, 4) * (0.6, 60, 0.5, 0.3)
    return Perturbation(
        light=light, light_angle=turn, color=color, texture=texture, seed=int(generator.integers(2**31))
    )
