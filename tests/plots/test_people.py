"""Figures of what people's labels taught."""

import numpy as np
import pytest

from prefvlm_core.domains.environment import Environment
from prefvlm_core.plots import people


@pytest.mark.parametrize("task", ["drawer-close-v3", "point-maze-u", "maze-two-goals"])
def test_the_expert_is_seen_as_training_sees(task: str) -> None:
    observations, actions, rewards = people._expert_episode(task, 12, action_repeat=2)
    environment = Environment(task, 12, action_repeat=2)  # as in training, where the goal may be hidden
    seen = [environment.reset(people._SEED)]
    steps = [environment.step(action) for action in actions.numpy()]
    seen += [step[0] for step in steps[:-1]]
    assert np.array_equal(observations.numpy(), np.array(seen, np.float32))
    assert rewards.tolist() == [step[1] for step in steps]
    assert observations[:, -3:].any() == (task != "drawer-close-v3")
