"""How good the agents of a fleet are: deterministic policies on initial states that training never sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prefvlm_core.agent.sac import SAC
from prefvlm_core.common.arrays import DoubleArray
from prefvlm_core.common.seeding import episode_seed
from prefvlm_core.domains.fleet import EnvironmentFleet


def evaluate(
    agent: SAC, environments: EnvironmentFleet, seeds: Sequence[int], episodes: int, action_repeat: int
) -> dict[str, DoubleArray]:
    """Mean over `episodes` episodes of every run of a fleet, (runs,) each.

    success: any step of the episode meets the task's test (as B-Pref, RIME and the Meta-World paper count);
    success_last_step: its last step does; episode_return: sum of true rewards over environment steps. `seeds`: of the
    runs.
    """
    device = agent.actor.values.device
    outcome = {name: np.zeros(len(seeds)) for name in ("success", "success_last_step", "episode_return")}
    for episode in range(episodes):
        observations = environments.reset([episode_seed(seed, episode, evaluation=True) for seed in seeds])
        succeeded = np.zeros(len(seeds), bool)
        for _ in range(environments.horizon):
            actions = agent.act(torch.from_numpy(observations).to(device).unsqueeze(1))[:, 0]
            environments.step_async(actions.cpu().numpy())
            result = environments.step_wait()
            observations = result.observations
            succeeded |= result.successes
            outcome["episode_return"] += result.rewards * action_repeat
        outcome["success"] += succeeded
        outcome["success_last_step"] += result.successes
    return {name: total / episodes for name, total in outcome.items()}
