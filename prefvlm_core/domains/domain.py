"""What a domain is: tasks of one kind, their environments and pictures, and what else is known about them.

A task's name decides its domain (`domains.registry.domain_of`), so everything that takes the name of a task works in
every domain: training, clips for people, recordings, the sanity check. Light to import, as configs are checked here.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prefvlm_core.common.errors import PrefVLMError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prefvlm_core.domains.perturbations import Perturbation

FACTORS_OF_PICTURES = ("occluder", "noise")
"""The factors of `Perturbation` that change finished pictures, which every domain has."""


@dataclass(frozen=True)
class Sizes:
    """How many numbers describe a task. The last two are the most that any task of the domain needs."""

    observation: int
    action: int
    snapshot: int
    scene: int


@dataclass(frozen=True)
class Camera:
    """An upright camera anywhere: `position` and `target` are (x, y, z) in meters, `fovy` is the vertical field of view
    in degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 30.0


class World(Protocol):
    """One simulated world of a task, which `domains.environment.Environment` drives.

    It lasts for the domain's `longest_episode` steps after each reset, whatever happens in it.
    """

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Start the episode that `seed` alone determines and return its first observation (O,)."""

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """Apply an action (A,) in [-1, 1]. Returns the observation (O,), the true reward, and whether it is a
        success."""

    def snapshot(self) -> NDArray[np.float32]:
        """What changes from step to step in a picture, (S,); of that size already before the first reset."""

    def scene(self) -> NDArray[np.float32]:
        """What changes in a picture at a reset only, (C,); of that size already before the first reset."""


class Drawing(Protocol):
    """Draws snapshots of a task, long after they were taken; `domains.frames.FrameRenderer` uses it."""

    snapshot_size: int
    """Size of the task's snapshots without the zeros that pad them."""

    def look(self, camera: str | Camera, perturbation: Perturbation) -> None:
        """Change the view and the scene of all later pictures."""

    def draw(
        self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
        """For each of N snapshots (N, S) with its scene (N, C), which zeros may pad at the end, an upright RGB picture
        (size, size, 3) and where in it the background is seen, (size, size); None unless a film is put there."""

    def path(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where pictures of N snapshots (N, S) with their scenes (N, C) show what the domain's `followed` names: column
        and row (N, 2) in pixels from the upper left corner. Not asked where that is empty."""

    def close(self) -> None:
        """Release what drawing needs. Pictures cannot be drawn afterwards."""


class Domain(ABC):
    """Tasks of one kind. A subclass says what the attributes and the methods below say.

    An object of it is sent to the processes that step environments, so it holds nothing that is open.
    """

    title: str
    """The name of the domain, as messages say it."""
    tasks: Mapping[str, str]
    """Name of each task -> the text by which vision-language models and people know it."""
    main_tasks: tuple[str, ...] = ()
    """The tasks of comparisons (empty: all)."""
    longest_episode: int
    """Environment steps."""
    extra: tuple[str, str] | None = None
    """A module that its tasks need, and the extra of this package that brings it."""
    distributions: tuple[str, ...] = ()
    """What is installed for it beside what every run needs; the manifests of its runs name the versions."""
    cameras: tuple[str, ...] = ("default",)
    """The names of the views, of which the first one is what the VLM and people see."""
    factors: tuple[str, ...] = FACTORS_OF_PICTURES
    """The factors of `Perturbation` that its pictures can show."""
    followed: str = ""
    """What the path that is drawn into clips for people follows, such as the gripper (empty: nothing)."""
    scene: str = "an agent in its environment"
    """What its pictures show, as a model behind an endpoint is told."""
    agent: str = "the agent"
    """Who is to do a task in them."""
    profiles: Mapping[str, Mapping[str, Any]] = {}
    """Name of a profile -> the dotted fields, such as horizon and action_repeat, in which it is another one here."""

    @abstractmethod
    def sizes(self, task: str) -> Sizes:
        """How many numbers describe a task."""

    @abstractmethod
    def world(self, task: str, goal_visible: bool) -> World:
        """A world of a task. `goal_visible` shows the goal to experts where it is hidden from agents."""

    @abstractmethod
    def drawing(self, task: str, size: int, goal_marker: bool) -> Drawing:
        """What draws a task's snapshots, `size` pixels high and wide, with or without marks of the goal."""

    @property
    def installed(self) -> bool:
        """Whether the module of `extra` is there."""
        return not self.extra or importlib.util.find_spec(self.extra[0]) is not None

    def check_installed(self) -> None:
        """Raise `PrefVLMError` where the module of `extra` is missing."""
        if self.extra and not self.installed:
            raise PrefVLMError(f"{self.title} needs {self.extra[0]}: pip install 'prefvlm[{self.extra[1]}]'.")

    def expert(self, task: str) -> Callable[[NDArray[np.float64]], NDArray[Any]] | None:
        """A scripted expert of the task, from an observation that shows the goal to an action; None without one."""
        return None

    def without_goal(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """What agents see (O,) of an observation (O,) that shows the goal."""
        return observation

    def relations(self, task: str) -> Callable[[Tensor], Tensor] | None:
        """What `reward.inputs` relations shows the reward beside observations, from observations (..., O) to relations
        (..., R); None without any."""
        return None
