"""Behaviors that act without learning: the domains' scripted experts, and random actions."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.registry import domain_of, sizes_of

Behavior = Callable[[NDArray[np.float64], int], NDArray[np.float32]]
"""Maps an observation (O,) and the number of steps taken so far to an action (A,) float32 in [-1, 1]."""


class RandomActions:
    """Random actions that keep roughly their direction for about ten steps."""

    def __init__(self, task: str, generator: np.random.Generator) -> None:
        self._generator = generator
        self._action = np.zeros(sizes_of(task).action)

    def __call__(self, _observation: NDArray[np.float64], _step: int) -> NDArray[np.float32]:
        self._action = 0.9 * self._action + self._generator.normal(0, 0.5, len(self._action))
        return np.clip(self._action, -1, 1).astype(np.float32)


class Expert:
    """The scripted expert of a task with Gaussian noise added to its actions.

    It needs observations that show the goal.

    Args:
        task: A task; one without an expert raises `PrefVLMError`.
        noise: Standard deviation of the noise on each component of an action.
        generator: Draws the noise.
    """

    def __init__(self, task: str, noise: float, generator: np.random.Generator) -> None:
        domain = domain_of(task)
        policy = domain.expert(task)
        if policy is None:
            raise PrefVLMError(f"'{task}' has no scripted expert: {domain.title} gives none.")
        self._policy, self._size = policy, domain.sizes(task).action
        self._noise = noise
        self._generator = generator

    def __call__(self, observation: NDArray[np.float64], _step: int) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some experts warn that their actions exceed the bounds
            action = self._policy(observation)
        return np.clip(action + self._generator.normal(0, self._noise, self._size), -1, 1).astype(np.float32)
