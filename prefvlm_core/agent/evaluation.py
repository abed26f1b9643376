"""Evaluation of a fleet's agents: their deterministic policies act from initial states that training never sees."""

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
    """Evaluate every run of a fleet over `episodes` episodes, whose initial states follow from the runs' `seeds`.

    Returns three means over the episodes, (runs,) each:
        success: Fraction of episodes in which any step meets the task's test (as B-Pref, RIME and the Meta-World paper
            count).
        success_last_step: Fraction of episodes whose last step meets it.
        episode_return: Sum of the true rewards over environment steps.
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
            outcome["episode_return"] += result.rewards * action_repeat  # a step's reward is the mean of its repeats
        outcome["success"] += succeeded
        outcome["success_last_step"] += result.successes
    return {name: total / episodes for name, total in outcome.items()}
