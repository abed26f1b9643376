"""walker-walk and cheetah-run, against the suite itself."""

import numpy as np
import pytest
from builders.runs import SMALL, quiet

from prefvlm_core.checks.names import check_names
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

pytest.importorskip("dm_control", reason="needs the extra dmc")
TASKS = ("walker-walk", "cheetah-run")
EACH = pytest.mark.parametrize("task", TASKS)


@EACH
def test_the_world_is_the_suite(task: str) -> None:
    from prefvlm_core.domains.dm_control_world import _imported

    ours = Environment(task)
    for seed in (1, 2, 1):
        peer = _imported("suite").load(*task.split("-"), task_kwargs={"random": seed})
        first = np.concatenate([np.ravel(values) for values in peer.reset().observation.values()])
        np.testing.assert_array_equal(ours.reset(seed), first)
        assert first.shape == (sizes_of(task).observation,)
        for action in np.random.default_rng(seed).uniform(-1, 1, (30, 6)).astype(np.float32):
            theirs = peer.step(action)
            observation, reward, success = ours.step(action)
            np.testing.assert_array_equal(
                observation, np.concatenate([np.ravel(values) for values in theirs.observation.values()])
            )
            assert reward == theirs.reward and success == (theirs.reward >= 0.9)
            np.testing.assert_array_equal(ours.snapshot(), peer.physics.data.qpos.astype(np.float32))


@EACH
def test_an_episode_lasts_a_thousand_steps_and_no_more(task: str) -> None:
    environment = Environment(task, 250, action_repeat=4)
    environment.reset(3)
    still = np.zeros(6, np.float32)
    returns = [environment.step(still)[1] for _ in range(250)]
    assert 0 < sum(returns) < 100  # of 250, and none of it after a reset that the suite would make by itself
    with pytest.raises(PrefVLMError, match="no step 251 of 250"):
        environment.step(still)


@EACH
def test_the_camera_follows_the_body(task: str) -> None:
    environment, renderer = Environment(task), FrameRenderer(task, 96)
    environment.reset(1)
    forward, upward = {"walker-walk": (1, 0), "cheetah-run": (0, 1)}[task]  # where qpos holds them, m
    poses = np.repeat(environment.snapshot()[None], 3, axis=0)
    poses[1, forward] += 8
    poses[2, upward] += 0.4
    frames = renderer.render(poses, np.zeros((3, 1), np.float32)).astype(int)
    bodies = [frame[..., 0] > frame[..., 2] + 40 for frame in frames]  # orange on blue
    assert bodies[0].sum() > 60
    places = [np.argwhere(body).mean(0) for body in bodies]
    np.testing.assert_allclose(places[1:], places[:1] * 2, atol=1.0)
    assert np.abs(frames[2] - frames[0]).mean() > 1  # the floor is further down


def test_pebble_and_prefvlm_train_on_bodies(tmp_path) -> None:
    changes = SMALL | {"reward.inputs": "state-action"}
    for task in TASKS:
        configs = [run_config(task, method, 0, "quick", changes) for method in ("pebble", "prefvlm")]
        for run in train(configs, quiet(tmp_path)):
            assert run.finished and run.read_metrics()[-1]["step"] == changes["total_steps"]


def test_relations_are_refused_in_a_sentence() -> None:
    with pytest.raises(PrefVLMError, match=r"reward\.inputs is relations, but DMControl names none of 'walker-walk'"):
        check_names(run_config("walker-walk", "pebble", 0, "quick", {"reward.inputs": "relations"}))


def test_an_unstable_simulation_is_named() -> None:
    environment = Environment("cheetah-run")
    environment.reset(0)
    environment.world.env.physics.data.qpos[0] = np.nan
    with pytest.raises(PrefVLMError, match="'cheetah-run' has become unstable at"):
        environment.step(np.zeros(6, np.float32))
