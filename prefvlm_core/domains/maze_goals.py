"""Tasks of several stages: a maze with one to four targets, to be visited in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefvlm_core.domains.domain import Domain, Drawing, Sizes, World
from prefvlm_core.domains.perturbations import INTENSITIES
from prefvlm_core.domains.point_maze import OWN_VLM

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MOST_GOALS = 4
GOALS = {"maze-one-goal": 1, "maze-two-goals": 2, "maze-three-goals": 3, "maze-four-goals": MOST_GOALS}
"""Task -> its number of stages."""
_FIRST = "roll the green ball to the red target"


class MazeGoals(Domain):
    """The U-shaped point maze with targets to be visited in order (extra `navigation`).

    An observation (13,) is the ball's position and velocity, in m and m/s, the positions of the targets that are left,
    in order and filled up with the last one, and how many are left. An action is the force on the ball along x and y.
    A seed gives the tasks the same beginning: each has the targets of the shorter ones first.
    """

    title = "MazeGoals"
    tasks = {  # noqa: RUF012
        "maze-one-goal": _FIRST,
        "maze-two-goals": f"{_FIRST} and then to the yellow one",
        "maze-three-goals": f"{_FIRST} and then to the two yellow ones in turn",
        "maze-four-goals": f"{_FIRST} and then to the three yellow ones in turn",
    }
    longest_episode = 700
    extra = ("gymnasium_robotics", "navigation")
    distributions = ("gymnasium", "gymnasium-robotics")
    cameras = ("above",)
    factors = tuple(INTENSITIES)
    followed = "ball"
    scene = "a green ball in a maze, seen from above"
    profiles = {  # noqa: RUF012
        "quick": OWN_VLM,
        "laptop": OWN_VLM  # the expert needs up to 500 steps, so a policy that still learns is given all 700
        | {
            "total_steps": 8_400,
            "horizon": 140,
            "sac.discount": 0.9,  # every step in the right direction is rewarded at once
            "feedback.session_every": 350,
            "evaluation.every": 700,
        },
        "paper": OWN_VLM,
    }

    def sizes(self, task: str) -> Sizes:
        """See `Domain`."""
        return Sizes(observation=5 + 2 * MOST_GOALS, action=2, snapshot=3, scene=2 * MOST_GOALS)

    def world(self, task: str, goal_visible: bool) -> World:
        """See `Domain`. Everybody sees the goals."""
        from prefvlm_core.domains.maze_goals_world import MazeGoalsWorld

        return MazeGoalsWorld(GOALS[task])

    def drawing(self, task: str, size: int, goal_marker: bool) -> Drawing:
        """See `Domain`. The targets that are left are always drawn, as discs on the floor: the next one red, the others
        yellow, smaller the later they come."""
        from prefvlm_core.domains.maze_goals_world import model_with_goals, restore
        from prefvlm_core.domains.model_drawing import ModelDrawing
        from prefvlm_core.domains.point_maze_world import where_the_ball_is

        return ModelDrawing(model_with_goals(GOALS[task]), restore, 3, size, True, where_the_ball_is)

    def expert(self, task: str) -> Callable[[NDArray[np.float64]], NDArray[Any]]:
        """See `Domain`: to each target on the shortest way, and then it stays."""
        from prefvlm_core.domains.maze_goals_world import follow_the_ways

        return follow_the_ways

    def relations(self, task: str) -> Callable[[Tensor], Tensor]:
        """See `Domain`: the vector (2,) from the ball to the next target, and its length, in m."""
        from prefvlm_core.domains.point_maze import to_the_target

        return to_the_target
