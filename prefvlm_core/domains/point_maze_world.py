"""The world of the point mazes, their pictures from above, and the shortest way through them.

Gymnasium-Robotics' dense reward is the distance to the target as the crow flies, which leads into dead ends. The true
reward here is the length of the way that is left, along the cells of the maze.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
from collections import deque
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.model_drawing import FREE_CAMERA, compiled, pose

IDS = {"point-maze-u": "PointMaze_UMaze-v3", "point-maze-medium": "PointMaze_Medium-v3"}
"""Task -> the name of its environment."""
_SPEED = 8.0  # m/s per m to the next waypoint, which the expert aims at
_GAIN = 2.0  # of its force on the error of the speed
_UNSEEN = 1.4  # m of the outer walls, of which the camera shows 0.3 m at each side
_FASTEST = 5.0  # m/s, of the ball along x and y
_HEIGHT = 12.0  # of the camera, m; from far away, walls do not hide the ball
_FLOOR = -0.1  # its height in Gymnasium-Robotics, m
_THICKNESS = 0.02  # of a disc, m

REACHED = 0.45
"""Largest distance in m at which a target is reached, as in Gymnasium-Robotics."""

Cell = tuple[int, int]
Point = tuple[float, float]


class PointMazeWorld:
    """One maze; see `domains.domain.World`. The reward is minus the way that is left, in m."""

    def __init__(self, task: str) -> None:
        self._task = task
        self.env, _ = _made(task)
        self._model, self._frame_skip = self.env.model, self.env.point_env.frame_skip
        self._data = data = self.env.data
        # Views, which follow the simulation:
        self._position, self._speed, self._control = data.qpos, data.qvel, data.ctrl
        self.reset(0)  # before which it has no target

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        observation = self.env.reset(seed=seed)[0]
        self._target = observation["desired_goal"].astype(np.float64)
        return np.concatenate((observation["observation"], self._target))

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`."""
        observation = self.move(action)
        ball, target = _points(observation)
        return observation, -way_left(self._task, ball, target), math.dist(ball, target) <= REACHED

    def move(self, action: NDArray[np.float32]) -> NDArray[np.float64]:
        """Apply an action as the environment's own step does, and return the observation alone."""
        data = self._data
        np.minimum(np.maximum(self._speed, -_FASTEST, out=self._speed), _FASTEST, out=self._speed)
        mujoco.mj_forward(self._model, data)
        np.minimum(np.maximum(action, -1), 1, out=self._control)
        mujoco.mj_step(self._model, data, nstep=self._frame_skip)
        return np.concatenate((self._position, self._speed, self._target))

    def snapshot(self) -> NDArray[np.float32]:
        """The ball's position (2,)."""
        return self._position.astype(np.float32)

    def scene(self) -> NDArray[np.float32]:
        """The target's position (2,)."""
        return np.asarray(self.env.goal, np.float32).copy()


def way_left(task: str, ball: Point, target: Point) -> float:
    """Length in m of the way to the target: straight within its cell, else through the centers of the cells between."""
    between = _between(task, _cell(task, ball), _cell(task, target))
    if not between:
        return math.dist(ball, target)
    return math.dist(ball, between[0]) + _length(between) + math.dist(between[-1], target)


def follow_the_way(task: str, observation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expert's force (2,) toward the next cell on the shortest way, or toward the target within its cell."""
    ball, target = _points(observation)
    ahead = next(iter(_between(task, _cell(task, ball), _cell(task, target))), target)
    wanted = _SPEED * (np.array(ahead) - observation[0:2])
    return np.clip(_GAIN * (wanted - observation[2:4]), -1, 1)


def model_from_above(task: str) -> mujoco.MjModel:
    """The maze for rendering, with a camera above its middle."""
    return compiled(spec_from_above(task))


def spec_from_above(task: str) -> mujoco.MjSpec:
    """What `model_from_above` compiles, to which more can be added. Its target is a red disc of the size at which it is
    reached, larger than the ball, so that both are seen together."""
    environment, xml = _made(task)
    spec, maze = mujoco.MjSpec.from_string(xml), environment.maze
    side = max(maze.map_length, maze.map_width) * maze.maze_size_scaling - _UNSEEN
    fovy = 2 * math.degrees(math.atan(side / 2 / (_HEIGHT - maze.maze_height)))
    spec.worldbody.add_camera(name="above", pos=[0, 0, _HEIGHT], fovy=fovy)
    spec.worldbody.add_camera(name=FREE_CAMERA)
    lay_on_the_floor(spec.site("target"), REACHED, (1.0, 0.0, 0.0, 1.0))
    return spec


def lay_on_the_floor(
    target: mujoco.MjsSite, radius: float, color: tuple[float, float, float, float], below: int = 0
) -> None:
    """Make the site of a target a disc on the floor, or on `below` other discs: as the sphere that it is in
    Gymnasium-Robotics, it would hide the ball that has reached it."""
    target.type = mujoco.mjtGeom.mjGEOM_CYLINDER
    target.size = [radius, _THICKNESS / 2, 0]
    target.pos = [0, 0, _FLOOR + (below + 0.5) * _THICKNESS]
    target.rgba = color


def restore(
    model: mujoco.MjModel, data: mujoco.MjData, snapshot: NDArray[np.float32], scene: NDArray[np.float32]
) -> None:
    """Put the ball and the target where a snapshot (2,) and a scene (2,) say; what pads them is ignored.

    Raises `PrefVLMError` where they are smaller.
    """
    if snapshot.size < 2 or scene.size < 2:
        raise PrefVLMError(
            f"Snapshot {snapshot.shape} and scene {scene.shape} do not fit a maze, which needs (2,) each."
        )
    model.site("target").pos[:2] = scene[:2]
    pose(model, data, snapshot[:2])


def where_the_ball_is(data: mujoco.MjData) -> NDArray[np.float64]:
    """The middle of the ball (3,), m."""
    return np.asarray(data.site("particle_site").xpos)


def made(task: str, **options: Any) -> tuple[Any, str]:
    """A maze as gym.make makes it with `options`, and its MuJoCo XML text, whose file Gymnasium-Robotics would leave
    behind."""
    import gymnasium

    with contextlib.redirect_stderr(io.StringIO()):  # on which it speaks of other environments than these
        import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    environment: Any = gymnasium.make(IDS[task], **options)
    file = Path(environment.unwrapped.tmp_xml_file_path)
    xml = file.read_text(encoding="utf-8")
    file.unlink()
    return environment, xml


def _points(observation: NDArray[np.float64]) -> tuple[Point, Point]:
    """Where the ball and the (next) target are."""
    x, y, _, _, target_x, target_y = observation[:6].tolist()
    return (x, y), (target_x, target_y)


def _made(task: str) -> tuple[Any, str]:
    """A maze whose target stays when it is reached, and its XML."""
    environment, xml = made(task, continuing_task=True, reset_target=False)
    return environment.unwrapped, xml


@functools.cache
def _maze(task: str) -> Any:
    return _made(task)[0].maze


@functools.cache
def _middle_and_side(task: str) -> tuple[Point, float]:
    """The middle of a maze, from its upper left corner, and the side of a cell, m."""
    maze = _maze(task)
    return (maze.x_map_center, maze.y_map_center), maze.maze_size_scaling


def _cell(task: str, point: Point) -> Cell:
    (x, y), side = _middle_and_side(task)
    return math.floor((y - point[1]) / side), math.floor((point[0] + x) / side)


@functools.cache
def _between(task: str, start: Cell, end: Cell) -> tuple[Point, ...]:
    """Centers of the cells after `start` on the shortest way, without `end`."""
    maze = _maze(task)
    centers = (maze.cell_rowcol_to_xy(np.array(cell)).tolist() for cell in _way(task, start, end)[1:-1])
    return tuple((x, y) for x, y in centers)


@functools.cache
def _length(points: tuple[Point, ...]) -> float:
    return sum(itertools.starmap(math.dist, itertools.pairwise(points)))


def _way(task: str, start: Cell, end: Cell) -> list[Cell]:
    """The cells of the shortest way from `start` to `end`, both included, by breadth-first search; only these two where
    there is none, as for an expert in another maze than its own."""
    rows = enumerate(_maze(task).maze_map)
    free = {(row, column) for row, cells in rows for column, cell in enumerate(cells) if cell != 1}
    before: dict[Cell, Cell] = {start: start}
    waiting = deque([start])
    while end not in before:
        if not waiting:
            return [start, end]
        row, column = cell = waiting.popleft()
        for following in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if following in free and following not in before:
                before[following] = cell
                waiting.append(following)
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]
