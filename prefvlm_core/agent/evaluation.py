"""Evaluation of a fleet's agents: their deterministic policies act from initial states that training never sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.transfers import to_device
from prefvlm_core.common.arrays import DoubleArray
from prefvlm_core.common.seeding import episode_seed
from prefvlm_core.domains.fleet import EnvironmentFleet


def evaluate(
    policy: FleetPolicy, environments: EnvironmentFleet, seeds: Sequence[int], episodes: int, action_repeat: int
) -> dict[str, DoubleArray]:
    """Evaluate every run of a fleet over `episodes` episodes, whose initial states follow from the runs' `seeds`.

    As many of `environments` belong to each run, one run after the other; so many episodes take place at once, a
    divisor of `episodes`.

    Returns three means over the episodes, (runs,) each:
        success: Fraction of episodes in which any step meets the task's test (as B-Pref, RIME and the Meta-World paper
            count).
        success_last_step: Fraction of episodes whose last step meets it.
        episode_return: Sum of the true rewards over environment steps.
    """
    runs, total = len(seeds), len(environments.tasks)
    at_once = total // runs
    outcome = {name: np.zeros(total) for name in ("success", "success_last_step", "episode_return")}
    for first in range(0, episodes, at_once):
        numbers = range(first, first + at_once)
        starts = [episode_seed(seed, episode, evaluation=True) for seed in seeds for episode in numbers]
        observations = environments.reset(starts)
        succeeded = np.zeros(total, bool)
        for _ in range(environments.horizon):
            actions = policy.mean(to_device(observations, policy.device))
            environments.step_async(actions.cpu().numpy())
            result = environments.step_wait()
            observations = result.observations
            succeeded |= result.successes
            outcome["episode_return"] += result.rewards * action_repeat  # a step's reward is the mean of its repeats
        outcome["success"] += succeeded
        outcome["success_last_step"] += result.successes
    return {name: values.reshape(runs, at_once).sum(1) / episodes for name, values in outcome.items()}
