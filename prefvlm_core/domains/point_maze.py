"""Navigation: the point mazes of Gymnasium-Robotics, in which a ball is pushed to a target."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefvlm_core.domains.domain import Domain, Drawing, Sizes, World
from prefvlm_core.domains.perturbations import INTENSITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

OWN_VLM = {"vlm.model": "tinyliv2-maze"}
"""The one that was trained on the mazes, in place of a profile's, which never saw them."""


class PointMaze(Domain):
    """The U-shaped and the medium point maze (extra `navigation`).

    An observation (6,) is the ball's position and velocity, in m and m/s, and the position of the target, which every
    reset draws anew, as it does the ball's. An action is the force on the ball along x and y.
    """

    title = "PointMaze"
    tasks = {  # noqa: RUF012
        "point-maze-u": "roll the green ball through the U-shaped maze to the red target",
        "point-maze-medium": "roll the green ball through the maze to the red target",
    }
    longest_episode = 600
    extra = ("gymnasium_robotics", "navigation")
    distributions = ("gymnasium", "gymnasium-robotics")
    cameras = ("above",)
    factors = tuple(INTENSITIES)
    followed = "ball"
    scene = "a green ball in a maze, seen from above"
    profiles = dict.fromkeys(("quick", "laptop", "paper"), OWN_VLM)

    def sizes(self, task: str) -> Sizes:
        """See `Domain`."""
        return Sizes(observation=6, action=2, snapshot=2, scene=2)

    def world(self, task: str, goal_visible: bool) -> World:
        """See `Domain`. Everybody sees the goal."""
        from prefvlm_core.domains.point_maze_world import PointMazeWorld

        return PointMazeWorld(task)

    def drawing(self, task: str, size: int, goal_marker: bool) -> Drawing:
        """See `Domain`. The goal is always drawn, since the text speaks of it: a disc on the floor, on which the ball
        stays visible."""
        from prefvlm_core.domains.model_drawing import ModelDrawing
        from prefvlm_core.domains.point_maze_world import model_from_above, restore, where_the_ball_is

        return ModelDrawing(model_from_above(task), restore, 2, size, True, where_the_ball_is)

    def expert(self, task: str) -> Callable[[NDArray[np.float64]], NDArray[Any]]:
        """See `Domain`: from cell to cell on the shortest way."""
        from prefvlm_core.domains.point_maze_world import follow_the_way

        return functools.partial(follow_the_way, task)

    def relations(self, task: str) -> Callable[[Tensor], Tensor]:
        """See `Domain`: the vector (2,) from the ball to the target, and its length, in m."""
        return to_the_target


def to_the_target(observations: Tensor) -> Tensor:
    """The vector from the ball to the (next) target and its length, (..., 3), in m, of observations (..., O)."""
    import torch

    reach = observations[..., 4:6] - observations[..., 0:2]
    return torch.cat((reach, reach.norm(dim=-1, keepdim=True)), -1)
