"""Behaviors that act without learning: Meta-World's scripted experts, and random actions."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

from prefvlm_core.domains.tasks import ACTION_SIZE, check_task

Behavior = Callable[[NDArray[np.float64], int], NDArray[np.float32]]
"""Maps an observation (39,) and the number of steps taken so far to an action (4,) float32 in [-1, 1]."""


class RandomActions:
    """Random actions that keep roughly their direction for about ten steps."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._action = np.zeros(ACTION_SIZE)

    def __call__(self, _observation: NDArray[np.float64], _step: int) -> NDArray[np.float32]:
        self._action = 0.9 * self._action + self._generator.normal(0, 0.5, ACTION_SIZE)
        return np.clip(self._action, -1, 1).astype(np.float32)


class Expert:
    """The scripted expert of a task with Gaussian noise added to its actions.

    It needs observations that show the goal.

    Args:
        task: One of `TASKS`; another name raises `PrefVLMError`.
        noise: Standard deviation of the noise on each component of an action.
        generator: Draws the noise.
    """

    def __init__(self, task: str, noise: float, generator: np.random.Generator) -> None:
        check_task(task)
        policy: Any = ENV_POLICY_MAP[task]
        self._policy = policy()
        self._noise = noise
        self._generator = generator

    def __call__(self, observation: NDArray[np.float64], _step: int) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some experts warn that their actions exceed the bounds
            action = self._policy.get_action(observation)
        return np.clip(action + self._generator.normal(0, self._noise, ACTION_SIZE), -1, 1).astype(np.float32)
