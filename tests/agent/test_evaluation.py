"""Tests of evaluation: how many episodes take place at once does not matter."""

import numpy as np
import pytest
import torch

from prefvlm_core.agent.evaluation import Evaluator, evaluate
from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.sac import SAC
from prefvlm_core.common.seeding import episode_seed
from prefvlm_core.config.run import SACConfig
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.fleet import EnvironmentFleet

TASKS, SEEDS, HORIZON, EPISODES = ("reach-v3", "push-v3"), (3, 4), 15, 4


@pytest.fixture(scope="module")
def agent() -> SAC:
    generators = [np.random.default_rng(seed) for seed in SEEDS]
    return SAC.create(SACConfig(hidden_layers=2, width=16), 39, 4, generators, torch.device("cpu"), [0.1] * 2)


def returns_alone(agent: SAC, run: int) -> float:
    """The mean return of a run's episodes, stepped one by one."""
    environment, total = Environment(TASKS[run], HORIZON), 0.0
    for episode in range(EPISODES):
        seen = environment.reset(episode_seed(SEEDS[run], episode, evaluation=True))
        for _ in range(HORIZON):
            action = agent.of_run(run).act(torch.from_numpy(seen.astype(np.float32)).view(1, 1, -1))[0, 0]
            seen, reward, _ = environment.step(action.numpy())
            total += reward
    return total / EPISODES


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_every_run_is_evaluated_in_as_many_episodes_as_asked_for(agent: SAC, at_once: int) -> None:
    with EnvironmentFleet(TASKS, HORIZON, 1, patience=0.001) as environments:
        outcome = evaluate(FleetPolicy(agent), environments.copies(at_once), SEEDS, EPISODES, 2)
    wanted = [2 * returns_alone(agent, run) for run in range(2)]
    np.testing.assert_allclose(outcome["episode_return"], wanted, rtol=1e-5)
    assert set(outcome["success"]) <= {0.0, 0.25, 0.5, 0.75, 1.0}


@pytest.mark.parametrize(("at_once", "beside"), [(False, False), (True, False), (False, True)])
def test_agents_are_evaluated_as_they_were_when_the_evaluation_began(at_once: bool, beside: bool) -> None:
    generators = [np.random.default_rng(seed) for seed in SEEDS]
    config = SACConfig(hidden_layers=2, width=16, standardise=True)
    agent = SAC.create(config, 39, 4, generators, torch.device("cpu"), [0.1] * 2)
    with EnvironmentFleet(TASKS, HORIZON, 1) as environments:
        wanted = evaluate(FleetPolicy(agent), environments, SEEDS, EPISODES, 2)
        outcome = Evaluator(FleetPolicy(agent), environments, SEEDS, 2, at_once, beside).begin(EPISODES)
        assert agent.scaling is not None
        agent.observe(torch.randn(2, 30, 39))  # which rescales what the actors see
        agent.actor.values.mul_(0.5)
        for name, values in outcome.result().items():
            np.testing.assert_allclose(values, wanted[name], rtol=1e-6 if at_once else 0)
        assert not np.allclose(
            evaluate(FleetPolicy(agent), environments, SEEDS, EPISODES, 2)["episode_return"], wanted["episode_return"]
        )
