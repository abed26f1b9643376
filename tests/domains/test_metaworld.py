"""Environments against Meta-World itself: the same bits, whatever was done before and wherever they are stepped."""

import copy
import warnings

import mujoco
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains import fast_metaworld
from prefvlm_core.domains import metaworld as envs
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.registry import check_task
from prefvlm_core.domains.tasks import TASKS


def metaworlds_own(task: str, seed: int, goal_visible: bool) -> SawyerXYZEnv:
    """A new instance of Meta-World's class, its goal drawn from `seed`."""
    environment = ALL_V3_ENVIRONMENTS[task]()
    environment._freeze_rand_vec = False
    environment._set_task_called = True
    environment.seeded_rand_vec = True
    environment._partially_observable = not goal_visible
    environment.__dict__.pop("sawyer_observation_space", None)
    environment.seed(seed)
    return environment


def random_actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (steps, 4)).astype(np.float32)


def assert_same_step(task: str, number: int, theirs: tuple, ours: tuple) -> None:
    observation, reward, _, _, info = theirs
    where = f"{task}, step {number}"
    assert np.array_equal(observation, ours[0]), f"{where}: entries {np.flatnonzero(observation != ours[0])}"
    assert float(reward) == ours[1], where
    assert bool(info["success"]) == ours[2], where


def assert_same_picture(reference: SawyerXYZEnv, environment: Environment) -> None:
    """What `restore` puts into a model that knows nothing of the reset is what Meta-World would render."""
    model = copy.copy(reference.model)
    model.body_pos[:], model.site_pos[:] = 7, 7
    data = mujoco.MjData(model)
    snapshot, scene = environment.snapshot(), environment.scene()
    envs.restore(model, data, np.pad(snapshot, (0, 3)), np.pad(scene, (0, 9)))
    for name in ("xpos", "xmat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "light_xpos"):
        np.testing.assert_allclose(getattr(data, name), getattr(reference.data, name), atol=2e-6, err_msg=name)


def test_scripted_experts_see_the_same_bits_in_every_task() -> None:
    solved = []
    for index, task in enumerate(TASKS):
        reference, environment = metaworlds_own(task, index, True), Environment(task, goal_visible=True)
        expert, noise = ENV_POLICY_MAP[task](), random_actions(150, index)
        seen, _ = reference.reset()
        assert np.array_equal(seen, environment.reset(index)), task
        for number in range(150):
            action = noise[number]
            if number % 10:  # one action in ten is random
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # experts ask for more than the action bounds allow
                    action = expert.get_action(seen).astype(np.float32)
            theirs, ours = reference.step(action), environment.step(action)
            assert_same_step(task, number, theirs, ours)
            seen = theirs[0]
        solved += [task] * ours[2]
        assert_same_picture(reference, environment)
    assert len(solved) >= 25, f"only {solved} reach their goal: too little to test"


@pytest.mark.parametrize(
    "task", ["button-press-v3", "basketball-v3", "shelf-place-v3", "stick-push-v3", "sweep-into-v3"]
)
def test_hidden_goal_shows_the_same_bits_to_the_last_step(task: str) -> None:
    reference, environment = metaworlds_own(task, 5, False), Environment(task)
    assert np.array_equal(reference.reset()[0], environment.reset(5))
    for number, action in enumerate(random_actions(500)):
        ours = environment.step(action)
        assert_same_step(task, number, reference.step(action), ours)
        assert not ours[0][36:].any()
    with pytest.raises(PrefVLMError, match=f"'{task}' has no step 501 of 500"):
        environment.step(action)


def test_an_episode_depends_on_its_seed_alone_in_every_task() -> None:
    def episode(environment: Environment, seed: int) -> np.ndarray:
        first = environment.reset(seed)
        steps = [environment.step(action) for action in random_actions(4, seed)]
        return np.concatenate([first, *(np.append(o, (r, s)) for o, r, s in steps), environment.scene()])

    for task in TASKS:
        environment = Environment(task, horizon=4, goal_visible=True)
        first, other, again = (episode(environment, seed) for seed in (7, 3, 7))
        assert np.array_equal(first, again), task
        assert not np.array_equal(first[:39], other[:39]), task


def test_physics_model_weighs_what_metaworlds_does() -> None:
    for task in ("button-press-v3", "coffee-push-v3", "window-open-v3"):
        full = mujoco.MjModel.from_xml_path(envs.model_path(task))
        bare = Environment(task).world.env.model
        for name in ("body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_M0", "body_invweight0", "site_pos"):
            assert np.array_equal(getattr(full, name), getattr(bare, name)), (task, name)
        assert bare.ngeom < full.ngeom


def test_tolerance_equals_metaworlds() -> None:
    draws = np.random.default_rng(0).uniform(-0.2, 1, (500, 4))
    for (x, low, width, margin), sigmoid in zip(draws, ["long_tail", "gaussian"] * 250, strict=True):
        for number in (x, np.float64(x), np.float32(x), low):
            arguments = (number, (low, low + abs(width)), np.float64(abs(margin)), sigmoid)
            fast, slow = fast_metaworld.tolerance(*arguments), reward_utils.tolerance(*arguments)
            assert fast == slow and type(fast) is type(slow)
    with pytest.raises(ValueError, match="non-negative"):
        fast_metaworld.tolerance(0.5, (0.0, 0.1), -1.0, "long_tail")


def test_norm_and_rotation_equal_numpys_and_scipys() -> None:
    rng = np.random.default_rng(0)
    for vector in rng.normal(size=(200, 3)):
        assert fast_metaworld.norm(vector) == np.linalg.norm(vector)
        assert fast_metaworld.norm(vector[0]) == np.linalg.norm(vector[0])
    quaternions = rng.normal(size=(400, 4)) * rng.choice([1, 1e-9], size=(400, 4))  # also near the axes
    for quaternion in quaternions:
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, quaternion / np.linalg.norm(quaternion))
        ours = fast_metaworld.Rotation.from_matrix(matrix.reshape(3, 3)).as_quat()
        assert np.array_equal(ours, Rotation.from_matrix(matrix.reshape(3, 3)).as_quat())


def test_metaworld_itself_is_left_as_it_was() -> None:
    Environment("door-open-v3")
    own = ALL_V3_ENVIRONMENTS["door-open-v3"]
    assert own.compute_reward.__globals__["np"] is np
    assert own.compute_reward.__globals__["reward_utils"] is reward_utils
    assert type(Environment("door-open-v3").world.env) is not own


@pytest.mark.filterwarnings("ignore:Constant")
def test_a_repeated_action_is_that_many_steps_of_the_same_one() -> None:
    single, repeated = Environment("drawer-close-v3", 200), Environment("drawer-close-v3", 40, action_repeat=5)
    expert = ENV_POLICY_MAP["drawer-close-v3"]()
    observation = repeated.reset(3)
    assert np.array_equal(single.reset(3), observation)
    successes = []
    for _ in range(40):
        action = np.clip(expert.get_action(observation), -1, 1).astype(np.float32)
        outcomes = [single.step(action) for _ in range(5)]
        observation, reward, success = repeated.step(action)
        assert np.array_equal(observation, outcomes[-1][0])
        assert reward == pytest.approx(np.mean([reward for _, reward, _ in outcomes]))
        assert success == any(success for _, _, success in outcomes)
        successes.append([success for _, _, success in outcomes])
    assert np.any(successes) and not np.all(successes)
    assert np.array_equal(single.snapshot(), repeated.snapshot())
    with EnvironmentFleet(["drawer-close-v3"], 40, 1, action_repeat=5) as fleet:
        fleet.reset([3])
        fleet.step_async(np.ones((1, 4), np.float32))
        single.reset(3)
        observation = [single.step(np.ones(4, np.float32)) for _ in range(5)][-1][0]
        assert np.array_equal(fleet.step_wait().observations[0], observation.astype(np.float32))


def test_names_and_numbers_are_checked() -> None:
    assert len(TASKS) == 50
    with pytest.raises(PrefVLMError, match=r"Unknown task 'button-pres-v3'\. Did you mean 'button-press-v3'"):
        check_task("button-pres-v3")
    for horizon in (0, 501):
        with pytest.raises(PrefVLMError, match=f"horizon is {horizon}.* 1 to 500"):
            Environment("reach-v3", horizon)
    for horizon, repeat in ((101, 5), (10, 0)):
        with pytest.raises(PrefVLMError, match=f"horizon is {horizon} and action_repeat {repeat}.* 1 to 500"):
            Environment("reach-v3", horizon, action_repeat=repeat)
    environment = Environment("reach-v3", 1)
    with pytest.raises(PrefVLMError, match="call reset"):
        environment.step(np.zeros(4, np.float32))
    with pytest.raises(PrefVLMError, match="seed of 0 or more, got -1"):
        environment.reset(-1)
    environment.reset(0)
    with pytest.raises(PrefVLMError, match=r"shape \(4,\), got \(3,\)"):
        environment.step(np.zeros(3, np.float32))
    with pytest.raises(PrefVLMError, match="do not fit this model"):
        model = environment.world.env.model
        envs.restore(model, environment.world.env.data, environment.snapshot()[1:], environment.scene())
