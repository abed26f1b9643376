"""The world of a maze with several targets in order, and its pictures from above."""

import itertools
import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.maze_goals import MOST_GOALS
from prefvlm_core.domains.model_drawing import compiled, pose
from prefvlm_core.domains.point_maze_world import (
    REACHED,
    PointMazeWorld,
    follow_the_way,
    lay_on_the_floor,
    spec_from_above,
    way_left,
)

_MAZE = "point-maze-u"
_APART = 1.0  # m between two targets in a row at least, the width of a cell
_YELLOW = (1.0, 0.85, 0.1, 1.0)
_AWAY = 100.0  # m, where nobody sees the targets that were visited


class MazeGoalsWorld:
    """The maze with `count` targets; see `domains.domain.World`.

    The reward is minus the length in m of the way that is left, through all the targets that are left: it rises from
    stage to stage, and is 0 when all were visited, which is the success and stays one.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._maze = PointMazeWorld(_MAZE)
        self.reset(0)

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        observation = self._maze.reset(seed)
        drawn = self._maze.env
        self._goals = [observation[4:6]]
        while len(self._goals) < self._count:
            goal = drawn.add_xy_position_noise(drawn.generate_target_goal())
            if np.linalg.norm(goal - self._goals[-1]) > _APART:
                self._goals.append(goal)
        self._visit(0)
        return np.concatenate((observation[:4], self._left))

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`."""
        observation = self._maze.move(action)
        x, y = observation[:2].tolist()
        if self._ahead and math.dist((x, y), self._ahead[0]) <= REACHED:
            self._visit(self._visited + 1)
        ways = [way_left(_MAZE, (x, y), self._ahead[0]), *self._ways_between] if self._ahead else []
        return np.concatenate((observation[:4], self._left)), -sum(ways), not self._ahead

    def snapshot(self) -> NDArray[np.float32]:
        """The ball's position and the number of targets that were visited, (3,)."""
        return np.array((*self._maze.snapshot(), self._visited), np.float32)

    def scene(self) -> NDArray[np.float32]:
        """The positions of all targets (2 * count,)."""
        return np.concatenate(self._goals, dtype=np.float32)

    def _visit(self, targets: int) -> None:
        """The first `targets` were visited: what an observation says of those that are left."""
        left = self._goals[targets:]
        padded = [*left, *[self._goals[-1]] * (MOST_GOALS - len(left))]
        self._visited, self._left = targets, np.concatenate((*padded, [len(left)]))
        self._ahead = [(x, y) for x, y in np.reshape(left, (-1, 2)).tolist()]
        self._ways_between = [way_left(_MAZE, before, after) for before, after in itertools.pairwise(self._ahead)]


def follow_the_ways(observation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expert's force (2,): see `follow_the_way`, to the next target or, after the last one, to where it is."""
    return follow_the_way(_MAZE, observation)


def model_with_goals(count: int) -> mujoco.MjModel:
    """The maze of `model_from_above` with `count` discs as targets. Where they overlap, the smaller is on top."""
    spec = spec_from_above(_MAZE)
    for later in range(1, count):
        lay_on_the_floor(spec.worldbody.add_site(name=f"target{later}"), REACHED * 0.75**later, _YELLOW, later)
    return compiled(spec)


def restore(
    model: mujoco.MjModel, data: mujoco.MjData, snapshot: NDArray[np.float32], scene: NDArray[np.float32]
) -> None:
    """Put the ball where a snapshot (3,) says, and the targets of a scene (2 * count,) that are left to their places.

    Raises `PrefVLMError` where they are smaller.
    """
    sites = [model.site(index) for index in range(model.nsite) if model.site(index).name.startswith("target")]
    if snapshot.size < 3 or scene.size < 2 * len(sites):
        raise PrefVLMError(
            f"Snapshot {snapshot.shape} and scene {scene.shape} do not fit a maze with {len(sites)} targets, which "
            f"needs (3,) and ({2 * len(sites)},)."
        )
    left = scene[: 2 * len(sites)].reshape(-1, 2)[int(snapshot[2]) :]
    for place, site in enumerate(sites):
        site.pos[:2] = left[place] if place < len(left) else (_AWAY, _AWAY)
    pose(model, data, snapshot[:2])
