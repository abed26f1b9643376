"""Evaluation of a fleet's agents: their deterministic policies act from initial states that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

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


class Evaluator:
    """Evaluates the agents of a fleet, run i with `seeds[i]`.

    Args:
        policy: Of the fleet's agents.
        environments: The fleet's, which are between two episodes at an evaluation.
        seeds: Of the runs.
        action_repeat: The domain's steps per step of an environment.
        at_once: Let all episodes of an evaluation take place at once; a GPU acts as fast for many as for one.
        beside: Let an evaluation take place while the training goes on, in a thread with environments of its own. It
            pays where cores are idle.
    """

    def __init__(
        self,
        policy: FleetPolicy,
        environments: EnvironmentFleet,
        seeds: Sequence[int],
        action_repeat: int,
        at_once: bool,
        beside: bool,
    ) -> None:
        self.policy, self.environments, self.seeds, self.action_repeat = policy, environments, seeds, action_repeat
        self.at_once, self.beside = at_once, beside

    def begin(self, episodes: int) -> Future[dict[str, DoubleArray]]:
        """Evaluate the agents as they are now, as `evaluate` does. Unless `beside`, it has ended when this returns; if
        so, the next one may begin when it has ended."""
        if self.beside:
            pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))
            policy, environments = self.policy.frozen(), self.environments.copies(1)
            future = pool.submit(evaluate, policy, environments, self.seeds, episodes, self.action_repeat)
            pool.shutdown(wait=False)  # its thread ends with the evaluation
            return future
        environments = self.environments.copies(episodes) if self.at_once else self.environments
        ended: Future[dict[str, DoubleArray]] = Future()
        ended.set_result(evaluate(self.policy, environments, self.seeds, episodes, self.action_repeat))
        return ended
