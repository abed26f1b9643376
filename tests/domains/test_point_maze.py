"""The point mazes, against Gymnasium-Robotics' own environment and the ways that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import SMALL, quiet

from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import perturbation_of
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

pytest.importorskip("gymnasium_robotics", reason="needs the extra navigation")
TASKS = ("point-maze-u", "point-maze-medium")
EACH = pytest.mark.parametrize("task", TASKS)


def observed(ball: tuple[float, float], target: tuple[float, float]) -> np.ndarray:
    return np.array([*ball, 0, 0, *target], float)


def test_the_reward_is_the_way_around_the_wall() -> None:
    from prefvlm_core.domains.point_maze_world import way_left

    # The U's two arms are rows of three cells of 1 m, one above the other, joined at the right by a cell between them.
    assert way_left("point-maze-u", (-1, 1), (-1, -1)) == pytest.approx(6)
    assert way_left("point-maze-u", (-1, -1), (1, -1)) == pytest.approx(2)
    assert way_left("point-maze-u", (-0.9, 1), (-1.2, 1)) == pytest.approx(0.3)  # within a cell


@EACH
def test_the_world_is_gymnasium_robotics(task: str) -> None:
    import gymnasium

    names = {"point-maze-u": "PointMaze_UMaze-v3", "point-maze-medium": "PointMaze_Medium-v3"}
    peer, ours = gymnasium.make(names[task], reset_target=False), Environment(task, 20)
    Path(peer.unwrapped.tmp_xml_file_path).unlink()  # which it would leave behind
    for seed in (1, 2, 1):
        theirs = peer.reset(seed=seed)[0]
        np.testing.assert_array_equal(ours.reset(seed), [*theirs["observation"], *theirs["desired_goal"]])
        for action in np.random.default_rng(seed).uniform(-1, 1, (20, 2)).astype(np.float32):
            theirs, _, _, _, info = peer.step(action)
            observation, reward, success = ours.step(action)
            np.testing.assert_array_equal(observation, [*theirs["observation"], *theirs["desired_goal"]])
            assert success == info["success"] and reward <= -np.linalg.norm(observation[4:] - observation[:2]) + 1e-9


@EACH
def test_the_expert_reaches_every_target(task: str) -> None:
    environment, expert = Environment(task, 250), Expert(task, 0.0, np.random.default_rng(0))
    for seed in range(20):
        observation, success = environment.reset(seed), False
        while not success:  # a step after the 250th raises
            observation, _, success = environment.step(expert(observation, 0))


@EACH
def test_frames_from_above_show_ball_and_target_where_they_are(task: str) -> None:
    environment, renderer = Environment(task), FrameRenderer(task, 96)
    seen = 3.6 if task == TASKS[0] else 6.6  # m, of mazes of 5 and 8 m with their outer walls
    for seed in range(3):
        observation = environment.reset(seed)
        frame = renderer.render(environment.snapshot()[None], environment.scene()[None])[0].astype(int)
        red, green, blue = np.moveaxis(frame, -1, 0)
        for shown, position in ((green > red + 30, observation[:2]), (red > green + 120, observation[4:6])):
            row, column = np.argwhere(shown & (blue < 110)).mean(0)
            x, y = (column - 47.5) / 96 * seen, (47.5 - row) / 96 * seen
            np.testing.assert_allclose((x, y), position, atol=0.25)
    renderer.look(perturbation=perturbation_of("everything", "strong", 1))
    changed = renderer.render(environment.snapshot()[None], environment.scene()[None])[0]
    assert np.abs(changed.astype(int) - frame).mean() > 10


@EACH
def test_the_ball_stays_visible_on_a_target_that_it_has_reached(task: str) -> None:
    environment, renderer = Environment(task), FrameRenderer(task, 96)
    environment.reset(0)
    ball = environment.scene()  # the middle of a target, which is away from walls
    reached = [np.zeros(2), np.array([0.1, 0]), np.array([0, 0.3])]  # m from the target
    targets = np.stack([ball + 100, *(ball + offset for offset in reached)]).astype(np.float32)
    alone, *frames = renderer.render(np.repeat(ball[None], len(targets), axis=0), targets).astype(int)
    green = alone[..., 1] > alone[..., 0] + 30
    green &= alone[..., 1] > alone[..., 2] + 30
    assert green.sum() > 20
    for frame in frames:
        np.testing.assert_array_equal(frame[green], alone[green])
    assert (frames[-1][..., 0] > frames[-1][..., 1] + 120).any()  # of the target, what is not under the ball


def test_relations_point_to_the_target() -> None:
    relations = domain_of(TASKS[0]).relations(TASKS[0])
    assert relations is not None
    found = relations(torch.from_numpy(observed((1, 2), (4, -2)))[None])
    assert found.tolist() == [[3, -4, 5]]


def test_pebble_and_prefvlm_train_in_mazes(tmp_path) -> None:
    changes = SMALL | {"reward.inputs": "relations"}
    configs = [run_config(task, method, 0, "quick", changes) for task in TASKS for method in ("pebble", "prefvlm")]
    runs = train(configs, quiet(tmp_path))  # one fleet
    for run in runs:
        assert run.finished and run.read_metrics()[-1]["step"] == changes["total_steps"]
    assert {run.manifest["vlm_text"] for run in runs} == {
        None,
        "roll the green ball through the U-shaped maze to the red target",
        "roll the green ball through the maze to the red target",
    }
