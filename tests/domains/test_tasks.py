"""Names and sizes of the tasks are Meta-World's, and cost nothing to import."""

import subprocess
import sys

import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.registry import check_horizon
from prefvlm_core.domains.tasks import (
    ACTION_SIZE,
    MAX_HORIZON,
    OBSERVATION_SIZE,
    PAPER_TASKS,
    TASKS,
)


def test_tasks_are_metaworlds_in_its_order() -> None:
    assert list(TASKS) == list(ALL_V3_ENVIRONMENTS)
    assert len(PAPER_TASKS) == 8 and set(PAPER_TASKS) < set(TASKS)


def test_sizes_and_the_longest_episode_are_metaworlds() -> None:
    environment = ALL_V3_ENVIRONMENTS[PAPER_TASKS[0]]()
    assert environment.action_space.shape == (ACTION_SIZE,)
    assert environment.observation_space.shape == (OBSERVATION_SIZE,)
    assert SawyerXYZEnv.max_path_length == MAX_HORIZON


@pytest.mark.parametrize("horizon, action_repeat", [(1, 1), (500, 1), (250, 2)])
def test_episodes_of_up_to_500_steps_are_allowed(horizon: int, action_repeat: int) -> None:
    check_horizon(PAPER_TASKS[0], horizon, action_repeat)


@pytest.mark.parametrize("horizon, action_repeat", [(0, 1), (501, 1), (251, 2), (10, 0), (-5, -5)])
def test_other_episodes_are_rejected(horizon: int, action_repeat: int) -> None:
    with pytest.raises(PrefVLMError, match=rf"horizon is {horizon} and action_repeat {action_repeat}.*1 to 500"):
        check_horizon(PAPER_TASKS[0], horizon, action_repeat)


def test_names_and_checks_load_no_simulator() -> None:
    script = "import sys, prefvlm_core.domains.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert {"metaworld", "mujoco", "torch", "numpy"}.isdisjoint(loaded)
