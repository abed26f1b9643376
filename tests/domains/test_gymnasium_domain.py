"""docs/howto/add_domain.md: a Gymnasium environment as a domain, in short runs and in everything that takes a task."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from builders.registries import restored_registries
from PIL import Image

from prefvlm_core.analysis.sanity import reward_curves
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.experts import Expert
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import Perturbation
from prefvlm_core.domains.registry import DOMAINS, meant_task
from prefvlm_core.labelling.clips import CLIP_SIZE, ClipMaker
from prefvlm_core.methods import run_config
from prefvlm_core.vlm import load
from prefvlm_core.vlm.goal_pictures import goal_pictures

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "add_domain.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
TASK = "pendulum-upright"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that the page's script defines, after it has trained; the domain stays registered."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with restored_registries(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        exec(compile(SCRIPT, "docs/howto/add_domain.md", "exec"), names)
        yield names


def test_the_wrapper_is_short() -> None:
    assert 20 < SCRIPT.count("\n", SCRIPT.index("class Pendulum"), SCRIPT.index("DOMAINS.register")) <= 60


def test_pebble_and_prefvlm_train_on_it(page: dict[str, Any]) -> None:
    pebble, prefvlm = page["runs"]
    assert pebble.finished and prefvlm.finished and pebble.config.action_repeat == 4
    for run in (pebble, prefvlm):
        row = run.read_metrics()[-1]
        assert row["step"] == 400 and 8 < row["human_labels"] <= 20
        assert -16.3 * 200 <= row["episode_return"] < 0  # Gymnasium's bounds of the reward
    assert prefvlm.manifest["vlm_text"] == "swing the pendulum up and hold it upright"
    assert (prefvlm.path / "adapters.safetensors").exists()


def test_the_environment_is_gymnasiums(page: dict[str, Any]) -> None:
    peer = gymnasium.make("Pendulum-v1")
    ours = Environment(TASK, 10, action_repeat=2)
    for seed in (3, 4):
        np.testing.assert_array_equal(ours.reset(seed), peer.reset(seed=seed)[0])
        for action in np.random.default_rng(seed).uniform(-1, 1, (10, 1)).astype(np.float32):
            steps = [peer.step(2 * action) for _ in range(2)]  # its torque is up to 2
            observation, reward, success = ours.step(action)
            np.testing.assert_allclose(observation, steps[1][0], atol=1e-5)  # torques differ by float32's rounding
            assert reward == pytest.approx((steps[0][1] + steps[1][1]) / 2, rel=1e-5)
            assert success == any(step[0][0] > 0.95 for step in steps)


def test_workers_know_a_domain_whose_class_exists_here_only(page: dict[str, Any]) -> None:
    alone = Environment(TASK, 5)
    with EnvironmentFleet([TASK, TASK], 5, workers=2) as fleet:
        np.testing.assert_array_equal(fleet.reset([7, 8])[1], alone.reset(8).astype(np.float32))
        fleet.step_async(np.full((2, 1), 0.5, np.float32))
        step = fleet.step_wait()
        observation, reward, _ = alone.step(np.full(1, 0.5, np.float32))
        np.testing.assert_array_equal(step.observations[1], observation.astype(np.float32))
        assert step.rewards[1] == np.float32(reward)
        np.testing.assert_array_equal(step.snapshots[1], alone.snapshot())


def test_frames_show_the_pose_of_their_snapshot(page: dict[str, Any]) -> None:
    renderer = FrameRenderer(TASK, 64)
    up, left = renderer.render(np.array([[0.0], [np.pi / 2]], np.float32), np.zeros((2, 1), np.float32))
    red = [np.argwhere(frame[..., 1] < 100).mean(0) for frame in (up, left)]
    np.testing.assert_allclose(red[0], (20, 32), atol=1.5)  # row, column of the middle of the rod
    np.testing.assert_allclose(red[1], (32, 20), atol=1.5)
    renderer.look(perturbation=Perturbation(noise=30))
    noisy = renderer.render(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))[0]
    assert (noisy != up).mean() > 0.4  # half of the noise is beyond white
    with pytest.raises(PrefVLMError, match="Unknown change of Pendulum's pictures 'light'"):
        renderer.look(perturbation=Perturbation(light=0.5))


def test_people_see_clips_of_it(page: dict[str, Any]) -> None:
    angles = np.linspace(0, 3, 8, dtype=np.float32).reshape(2, 4, 1)
    count, sheet = ClipMaker().make(TASK, angles, np.zeros((2, 1), np.float32))
    assert count == 4 and Image.open(io.BytesIO(sheet)).size == (2 * CLIP_SIZE, 4 * CLIP_SIZE)


def test_the_expert_and_the_sanity_check_work(page: dict[str, Any]) -> None:
    curves = {curve.behavior: curve for curve in reward_curves(TASK, load("random"))}
    assert curves["expert"].first_success is not None
    assert curves["expert"].true_rewards[-10:].mean() > -0.1 > curves["random actions"].true_rewards[-10:].mean()
    assert goal_pictures(TASK, 64).shape == (8, 64, 64, 3)


def test_a_domain_without_relations_or_expert_says_so(page: dict[str, Any]) -> None:
    config = run_config(TASK, "pebble", 0, "quick", {"reward.inputs": "relations"})
    with pytest.raises(
        PrefVLMError, match=r"reward\.inputs is relations, but Pendulum names none of 'pendulum-upright'"
    ):
        page["train"]([config], page["Execution"]("my-results"))

    class Mute(page["Pendulum"]):
        title, tasks = "Mute", {"pendulum-mute": "swing"}

        def expert(self, task: str) -> None:
            return None

    DOMAINS.register("mute", Mute())
    with pytest.raises(PrefVLMError, match="'pendulum-mute' has no scripted expert: Mute gives none"):
        Expert("pendulum-mute", 0.0, np.random.default_rng(0))


def test_a_tasks_name_decides_its_domain(page: dict[str, Any]) -> None:
    assert meant_task("pendulum upright") == TASK and meant_task("drawer-close") == "drawer-close-v3"
    assert run_config(TASK, "sac", 0, "laptop").reward.inputs == "state-action"
    with pytest.raises(PrefVLMError, match="Pendulum's episodes allow 1 to 200 environment steps in all"):
        run_config(TASK, "sac", 0, "quick", {"action_repeat": 5})
    with pytest.raises(PrefVLMError, match="'drawer-close-v3' is one of Meta-World's"):
        DOMAINS.register("thief", type("Thief", (page["Pendulum"],), {"tasks": {"drawer-close-v3": "x"}})())
    same = {"action_repeat": 4}
    pair = [run_config(task, "sac", 0, "quick", same) for task in (TASK, "drawer-close-v3")]
    with pytest.raises(PrefVLMError, match="cannot share a fleet: a task of Pendulum with 3 observations"):
        check_compatible(pair)


class Falling(gymnasium.Env[Any, Any]):
    """Terminates after its third step, with a reward of 1 for each."""

    observation_space = gymnasium.spaces.Dict({"b": gymnasium.spaces.Box(-9, 9, (2,)), "a": gymnasium.spaces.Box(0, 9)})
    action_space = gymnasium.spaces.Box(np.array([0.0, -4.0]), np.array([1.0, 0.0]), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count, self.taken = 0, np.zeros(2)
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.count, self.taken = self.count + 1, np.asarray(action)
        return self._seen(), 1.0, self.count == 3, False, {"is_success": self.count == 3}

    def _seen(self) -> Any:
        return {"b": self.taken.astype(np.float32), "a": np.array([self.count], np.float32)}


def test_actions_of_several_dimensions_keep_their_shape(page: dict[str, Any]) -> None:
    class Wide(Falling):
        observation_space = gymnasium.spaces.Box(-9, 9, (2, 3), np.float64)
        action_space = gymnasium.spaces.Box(np.zeros((2, 3)), np.arange(6.0).reshape(2, 3), dtype=np.float64)

        def _seen(self) -> Any:
            return self.taken.reshape(2, 3) if self.count else np.zeros((2, 3))

    members = {"title": "Wide", "tasks": {"wide": "wide"}, "longest_episode": 5, "pose": lambda self, env: [env.count]}
    members |= {"make": lambda self, task: Wide(), "restore": lambda self, env, pose: None}
    DOMAINS.register("wide", type("WideDomain", (page["GymnasiumDomain"],), members)())
    environment = Environment("wide")
    environment.reset(0)
    observation, _, _ = environment.step(np.array([1, 1, 1, 1, 0, -1], np.float32))
    assert environment.world.env.taken.shape == (2, 3) and observation.tolist() == [0, 1, 2, 3, 2, 0]


def test_what_terminates_stays_as_it_is(page: dict[str, Any]) -> None:
    members = {"title": "Fall", "tasks": {"fall": "fall"}, "longest_episode": 5, "pose": lambda self, env: [env.count]}
    members |= {"make": lambda self, task: Falling(), "restore": lambda self, env, pose: None}
    DOMAINS.register("fall", type("Fall", (page["GymnasiumDomain"],), members)())
    environment = Environment("fall")
    assert environment.reset(0).tolist() == [0, 0, 0] and environment.horizon == 5
    steps = [environment.step(np.array([0.5, -1.0], np.float32)) for _ in range(5)]
    assert [step[0].tolist() for step in steps] == [[1, 0.75, -4], [2, 0.75, -4], *[[3, 0.75, -4]] * 3]
    assert [step[1] for step in steps] == [1, 1, 1, 0, 0]
    assert [step[2] for step in steps] == [False, False, True, True, True]
    assert environment.snapshot().tolist() == [3] and environment.reset(1).tolist() == [0, 0, 0]
