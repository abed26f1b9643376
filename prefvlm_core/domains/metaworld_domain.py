"""Meta-World as a domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefvlm_core.domains.domain import Domain, Drawing, Sizes, World
from prefvlm_core.domains.metaworld_texts import TASK_TEXTS
from prefvlm_core.domains.perturbations import INTENSITIES
from prefvlm_core.domains.tasks import ACTION_SIZE, MAX_HORIZON, OBSERVATION_SIZE, PAPER_TASKS, TASKS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

METAWORLD_CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
DEFAULT_CAMERA = "corner2-close"
"""The central half of Meta-World's `corner2`, the view in the videos of ROVED's authors; found by projecting points of
the scene."""
CAMERAS = (DEFAULT_CAMERA, *METAWORLD_CAMERAS)


class Metaworld(Domain):
    """The 50 tasks of Meta-World V3."""

    title = "Meta-World"
    tasks = {task: TASK_TEXTS[task] for task in TASKS}  # noqa: RUF012
    main_tasks = PAPER_TASKS
    longest_episode = MAX_HORIZON
    distributions = ("gymnasium",)
    cameras = CAMERAS
    factors = tuple(INTENSITIES)
    followed = "gripper"
    scene, agent = "a robot arm above a table", "the robot"

    def sizes(self, task: str) -> Sizes:
        """See `Domain`."""
        return Sizes(OBSERVATION_SIZE, ACTION_SIZE, snapshot=21, scene=321)

    def world(self, task: str, goal_visible: bool) -> World:
        """See `Domain`."""
        from prefvlm_core.domains.metaworld import MetaworldWorld

        return MetaworldWorld(task, goal_visible)

    def drawing(self, task: str, size: int, goal_marker: bool) -> Drawing:
        """See `Domain`."""
        from prefvlm_core.domains.light_model import light_model
        from prefvlm_core.domains.metaworld import between_the_fingers, restore
        from prefvlm_core.domains.model_drawing import ModelDrawing

        model = light_model(task)
        return ModelDrawing(model, restore, model.nq + 3, size, goal_marker, between_the_fingers)

    def expert(self, task: str) -> Callable[[NDArray[np.float64]], NDArray[Any]]:
        """See `Domain`."""
        from metaworld.policies import ENV_POLICY_MAP

        policy: Any = ENV_POLICY_MAP[task]
        act: Callable[[NDArray[np.float64]], NDArray[Any]] = policy().get_action
        return act

    def without_goal(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Domain`."""
        seen = observation.copy()
        seen[-3:] = 0
        return seen

    def relations(self, task: str) -> Callable[[Tensor], Tensor]:
        """See `Domain`."""
        from prefvlm_core.domains.relations import hand_object_relations

        return hand_object_relations
