"""The maze with targets in order: against the maze with one, ways that can be counted by hand, and its own pictures."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from builders.runs import SMALL, quiet

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

pytest.importorskip("gymnasium_robotics", reason="needs the extra navigation")
EACH = pytest.mark.parametrize(("task", "count"), GOALS.items())


def test_one_goal_is_the_maze_with_one_target() -> None:
    ours, maze = Environment("maze-one-goal", 100), Environment("point-maze-u", 100)
    for seed in range(3):
        seen, observation = ours.reset(seed), maze.reset(seed)
        succeeded = False
        for action in np.random.default_rng(seed).uniform(-1, 1, (100, 2)).astype(np.float32):
            np.testing.assert_array_equal(seen[:6], observation)
            seen, reward, success = ours.step(action)
            observation, of_maze, reached = maze.step(action)
            succeeded |= reached
            assert success == succeeded and reward == (0 if succeeded else of_maze)


def test_tasks_begin_alike_and_longer_ones_add_targets() -> None:
    for seed in range(5):
        first = {task: Environment(task).reset(seed) for task in GOALS}
        longest = first["maze-four-goals"]
        for task, count in GOALS.items():
            np.testing.assert_array_equal(first[task][: 4 + 2 * count], longest[: 4 + 2 * count])
            np.testing.assert_array_equal(
                first[task][4 + 2 * count : 12], np.tile(longest[2 + 2 * count :][:2], 4 - count)
            )
            assert first[task][12] == count
        between = np.linalg.norm(np.diff(longest[4:12].reshape(4, 2), axis=0), axis=1)
        assert between.min() > 1


# The centers of the U's cells of 1 m along the only way through it.
WAY = [(-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def length_of_the_way(start: Sequence[float], end: Sequence[float]) -> float:
    """Within a cell straight, else through the centers of the cells between."""
    first, last = (int(np.argmin([math.dist(point, center) for center in WAY])) for point in (start, end))
    between = WAY[first + 1 : last] if first < last else WAY[last + 1 : first][::-1]
    points = [start, *between, end]
    return sum(math.dist(*pair) for pair in itertools.pairwise(points))


@EACH
def test_the_reward_is_the_way_through_all_targets_that_are_left(task: str, count: int) -> None:
    environment, expert = Environment(task, 500), Expert(task, 0.3, np.random.default_rng(0))
    for seed in range(3):
        observation, success = environment.reset(seed), False
        while not success:
            observation, reward, success = environment.step(expert(observation, 0))
            left = round(observation[12])
            points = [observation[:2], *observation[4 : 4 + 2 * left].reshape(-1, 2)]
            way = sum(length_of_the_way(*pair) for pair in itertools.pairwise(points))
            assert reward == pytest.approx(-way, abs=1e-9)


@EACH
def test_the_expert_visits_all_targets_and_the_reward_ends_at_zero(task: str, count: int) -> None:
    environment, expert = Environment(task, 500), Expert(task, 0.0, np.random.default_rng(0))
    for seed in range(10):
        observation, success, left = environment.reset(seed), False, [count]
        while not success:  # a step after the 500th raises
            observation, reward, success = environment.step(expert(observation, 0))
            left.append(int(observation[12]))
            assert (reward == 0) == success
        assert set(left) == set(range(count + 1)) and sorted(left, reverse=True) == left


def test_frames_show_the_targets_that_are_left() -> None:
    environment, renderer = Environment("maze-four-goals", 500), FrameRenderer("maze-four-goals", 96)
    expert, observation = Expert("maze-four-goals", 0.0, np.random.default_rng(0)), environment.reset(3)
    snapshots, left = [environment.snapshot()], [4]
    while left[-1]:
        observation, _, _ = environment.step(expert(observation, 0))
        if observation[12] < left[-1]:
            snapshots.append(environment.snapshot())
            left.append(int(observation[12]))
    frames = renderer.render(np.stack(snapshots), np.repeat(environment.scene()[None], 5, axis=0)).astype(int)
    red, green, blue = np.moveaxis(frames, -1, 0)
    reds, yellows = (red > green + 120) & (blue < 90), (red > 150) & (green > red - 70) & (blue < 90)
    assert [bool(shown.any()) for shown in reds] == [True, True, True, True, False]
    assert [bool(shown.any()) for shown in yellows] == [True, True, True, False, False]
    goals = environment.scene().reshape(4, 2)
    for shown, goal in zip(reds, goals, strict=False):
        row, column = np.argwhere(shown).mean(0)
        np.testing.assert_allclose(((column - 47.5) / 96 * 3.6, (47.5 - row) / 96 * 3.6), goal, atol=0.2)


def test_targets_lie_under_the_ball_and_smaller_ones_on_larger_ones() -> None:
    renderer = FrameRenderer("maze-four-goals", 96)
    place, away = np.float32([1, 1]), np.float32([100, 100])  # the middle of a cell, which has room for the largest one
    ball = np.float32([*place, 0])
    scenes = np.stack([np.concatenate(goals) for goals in ([away] * 4, [place] * 4, [away, place, away, away])])
    alone, *frames = renderer.render(np.repeat(ball[None], 3, axis=0), scenes).astype(int)
    green = (alone[..., 1] > alone[..., 0] + 30) & (alone[..., 1] > alone[..., 2] + 30)
    for frame in frames:
        np.testing.assert_array_equal(frame[green], alone[green])
    elsewhere = np.float32([[*(place + 100), 0]])
    red, green, blue = np.moveaxis(renderer.render(elsewhere, scenes[1:2])[0].astype(int), -1, 0)
    reds, yellows = (red > green + 120) & (blue < 90), (red > 150) & (green > red - 70) & (blue < 90)
    assert yellows.sum() > 20 and reds.sum() > 20
    np.testing.assert_allclose(np.argwhere(yellows).mean(0), np.argwhere(reds | yellows).mean(0), atol=0.5)


def test_a_snapshot_of_another_domain_is_refused() -> None:
    renderer = FrameRenderer("maze-two-goals", 64)
    with pytest.raises(PrefVLMError, match=r"do not fit a maze with 2 targets, which needs \(3,\) and \(4,\)"):
        renderer.render(np.zeros((1, 2), np.float32), np.zeros((1, 4), np.float32))


def test_relations_point_to_the_next_target() -> None:
    relations = domain_of("maze-four-goals").relations("maze-four-goals")
    assert relations is not None
    assert relations(torch.tensor([[1.0, 2, 0, 0, 4, -2, *[9.0] * 6, 4]])).tolist() == [[3, -4, 5]]


def test_tasks_of_different_length_train_in_one_fleet(tmp_path) -> None:
    changes = SMALL | {"reward.inputs": "relations"}
    configs = [run_config(task, "prefvlm", 0, "quick", changes) for task in ("maze-one-goal", "maze-four-goals")]
    runs = train(configs, quiet(tmp_path))
    assert all(run.finished for run in runs)
