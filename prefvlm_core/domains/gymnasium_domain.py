"""Environments of Gymnasium with Box actions as domains."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.domain import Camera, Domain, Sizes
from prefvlm_core.domains.perturbations import Perturbation


class GymnasiumDomain(Domain):
    """A domain whose tasks are environments of Gymnasium. A subclass says what Gymnasium does not know.

    Actions in [-1, 1] are scaled to the environment's bounds, observations are flattened. An environment that
    terminates stays as it is for the rest of the episode, with a reward of 0, so that all episodes are equally long.
    """

    distributions = ("gymnasium", "pillow")

    @abstractmethod
    def make(self, task: str) -> gymnasium.Env[Any, Any]:
        """A new environment of a task, whose episodes can last `longest_episode` steps."""

    @abstractmethod
    def pose(self, environment: gymnasium.Env[Any, Any]) -> ArrayLike:
        """What a picture shows of an environment's state, numbers (S,)."""

    @abstractmethod
    def restore(self, environment: gymnasium.Env[Any, Any], pose: NDArray[np.float64]) -> None:
        """Bring another environment of the task to where its picture shows a `pose` (S,)."""

    def picture(self, environment: gymnasium.Env[Any, Any]) -> NDArray[np.uint8]:
        """An RGB picture (height, width, 3) of an environment, made with render_mode="rgb_array" unless overridden."""
        return np.asarray(environment.render(), np.uint8)

    def succeeded(self, environment: gymnasium.Env[Any, Any], reward: float, info: dict[str, Any]) -> bool:
        """Whether a step with this reward and info is a success."""
        return bool(info.get("success", info.get("is_success", False)))

    def sizes(self, task: str) -> Sizes:
        """See `Domain`. Raises `PrefVLMError` where actions are no bounded Box."""
        return _sizes(self, task)

    def world(self, task: str, goal_visible: bool) -> GymnasiumWorld:
        """See `Domain`."""
        return GymnasiumWorld(self, task)

    def drawing(self, task: str, size: int, goal_marker: bool) -> GymnasiumDrawing:
        """See `Domain`."""
        return GymnasiumDrawing(self, task, size)


class GymnasiumWorld:
    """An environment of Gymnasium; see `domains.domain.World`."""

    def __init__(self, domain: GymnasiumDomain, task: str) -> None:
        self.env = domain.make(task)
        self.env.reset(seed=0)  # before which it has no pose
        self._domain = domain
        space: Any = self.env.action_space
        self._low, self._range = space.low, space.high - space.low
        self._last: tuple[NDArray[np.float64], float, bool] | None = None
        """What a terminated environment goes on to return."""

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        self._last = None
        return self._flat(self.env.reset(seed=seed)[0])

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`."""
        if self._last is not None:
            return self._last
        scaled = self._low + (action.reshape(self._low.shape) + 1) / 2 * self._range
        seen, reward, terminated, _, info = self.env.step(scaled.astype(self._low.dtype))
        observation, success = self._flat(seen), self._domain.succeeded(self.env, float(reward), info)
        if terminated:
            self._last = observation, 0.0, success
        return observation, float(reward), success

    def snapshot(self) -> NDArray[np.float32]:
        """See `World`."""
        return np.asarray(self._domain.pose(self.env), np.float32).ravel()

    def scene(self) -> NDArray[np.float32]:
        """Nothing, as a single 0: all that a picture shows is in the snapshot."""
        return np.zeros(1, np.float32)

    def _flat(self, observation: Any) -> NDArray[np.float64]:
        return np.asarray(gymnasium.spaces.flatten(self.env.observation_space, observation), np.float64)


class GymnasiumDrawing:
    """Draws by an environment that is brought to each pose; see `domains.domain.Drawing`."""

    def __init__(self, domain: GymnasiumDomain, task: str, size: int) -> None:
        self.snapshot_size = domain.sizes(task).snapshot
        self._size, self._domain = size, domain
        self._env = domain.make(task)
        self._env.reset(seed=0)

    def look(self, camera: str | Camera, perturbation: Perturbation) -> None:
        """Nothing changes, as there is one view. Raises `PrefVLMError` for a `Camera`."""
        if isinstance(camera, Camera):
            raise PrefVLMError(f"{self._domain.title} has no free camera; allowed: {', '.join(self._domain.cameras)}.")

    def draw(
        self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.uint8], None]]:
        """See `Drawing`. A picture that is not square gets black bars."""
        for snapshot in snapshots:
            if snapshot.size < self.snapshot_size:
                raise PrefVLMError(f"A snapshot {snapshot.shape} does not fit, it needs ({self.snapshot_size},).")
            self._domain.restore(self._env, snapshot[: self.snapshot_size].astype(np.float64))
            picture = Image.fromarray(self._domain.picture(self._env))
            yield np.asarray(ImageOps.pad(picture, (self._size, self._size))), None

    def path(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Drawing`. A subclass of the domain whose `followed` names something draws by a class of its own."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Drawing`."""
        self._env.close()


@functools.cache
def _sizes(domain: GymnasiumDomain, task: str) -> Sizes:
    environment = domain.make(task)
    space = environment.action_space
    if not (isinstance(space, gymnasium.spaces.Box) and space.is_bounded()):
        raise PrefVLMError(f"Actions of '{task}' are {space}, but agents here act in a Box with bounds.")
    environment.reset(seed=0)
    pose = np.size(domain.pose(environment))
    seen = gymnasium.spaces.flatdim(environment.observation_space)
    environment.close()
    return Sizes(seen, int(np.prod(space.shape)), pose, scene=1)
