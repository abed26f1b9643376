"""Tests of what a CUDA device repeats: that torch.compile can trace it, and, where there is a GPU, what it does."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from builders.devices import needs_gpu

from prefvlm_core.agent.captured import Captured, CapturedFunction
from prefvlm_core.agent.policy import FleetPolicy
from prefvlm_core.agent.replay import Replay
from prefvlm_core.agent.sac import SAC
from prefvlm_core.agent.transfers import HostCopy, to_device
from prefvlm_core.agent.updates import DeviceUpdates
from prefvlm_core.config.run import SACConfig
from prefvlm_core.methods import run_config
from prefvlm_core.reward.ensemble import RewardEnsemble

CPU = torch.device("cpu")
SEEDS = [3, 5]


def learner() -> tuple[SAC, Replay]:
    config = SACConfig(hidden_layers=2, width=16, batch_size=8, standardise=True, critic_norm=True)
    generators = [np.random.default_rng(seed) for seed in SEEDS]
    replay = Replay(2, 40, 10, 6, 2, 1, 1, CPU)
    for tensor in (replay.observations, replay.actions, replay.rewards):
        tensor.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    replay.size = 40
    return SAC.create(config, 6, 2, generators, CPU, [0.1] * 2), replay


def traced(work: Callable[[], None], whole: bool) -> Callable[[], None]:
    torch.compiler.reset()
    compiled = torch.compile(work, backend="aot_eager", dynamic=False, fullgraph=whole)

    def quiet() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `Captured`
            compiled()

    return quiet


def test_updates_can_be_traced() -> None:
    learned = []
    for trace in (False, True):
        agent, replay = learner()
        updates = DeviceUpdates(agent, replay, SEEDS)
        if trace:
            updates._draw = traced(updates._draw._work, whole=True)
            updates._update = traced(updates._update._work, whole=False)  # no gradient is traced inside a graph
        for number in range(3):
            updates.draw(number)
            updates.update(update_target=True)
        learned.append(agent.state())
    for name, tensor in learned[0].items():
        torch.testing.assert_close(learned[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_acting_and_predicting_can_be_traced() -> None:
    agent, _ = learner()
    reward = run_config("drawer-close-v3", "pebble", 0, "paper").reward
    generators = [np.random.default_rng(seed) for seed in SEEDS]
    ensemble = RewardEnsemble(reward, 43, generators, CPU, "drawer-close-v3")
    for function, sizes in ((agent.act, (6, 2)), (agent.act, (6,)), (ensemble.predict, (39, 4))):
        arguments = [torch.randn(2, *(() if function == ensemble.predict else (3,)), size) for size in sizes]
        results: list[torch.Tensor] = []
        traced(lambda f=function, a=arguments, r=results: r.append(f(*a)), whole=False)()  # type: ignore[misc]
        torch.testing.assert_close(results[0], function(*arguments), rtol=1e-5, atol=1e-6)


def test_a_function_is_called_as_it_is_on_the_cpu() -> None:
    function = CapturedFunction(torch.add, CPU)
    one = torch.ones(2)
    first = function(one, one)
    assert torch.equal(function(one, first), 3 * one) and torch.equal(first, 2 * one)


def test_a_policy_gives_each_runs_rows_to_its_agent() -> None:
    agent, _ = learner()
    policy, observations, noise = FleetPolicy(agent), torch.randn(6, 6), torch.randn(6, 2)
    for run, rows in enumerate((slice(0, 3), slice(3, 6))):
        alone = FleetPolicy(agent.of_run(run))
        torch.testing.assert_close(policy.mean(observations)[rows], alone.mean(observations[rows]))
        sampled = policy.sample(observations, noise)[rows]
        torch.testing.assert_close(sampled, alone.sample(observations[rows], noise[rows]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_what_is_sent_arrives(device: str) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = to_device(array, torch.device(device))
    assert there.device.type == device
    assert np.array_equal(HostCopy(there).array(), array)


@needs_gpu
def test_captured_work_is_done_once_per_call_from_the_first_on() -> None:
    counter = torch.zeros((), device="cuda")
    work = Captured(lambda: counter.add_(1) and None, [counter], counter.device)
    for calls in range(1, 4):
        work()
        assert counter == calls


@needs_gpu
def test_a_captured_function_takes_new_arguments() -> None:
    function = CapturedFunction(torch.mul, torch.device("cuda"))
    for factor, size in ((2.0, 4), (3.0, 4), (4.0, 5)):
        wanted = torch.full((size,), factor)
        assert torch.equal(function(wanted.cuda(), torch.ones(size).cuda()).cpu(), wanted)


@needs_gpu
def test_work_that_cannot_be_compiled_is_captured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", refuse)
    counter = torch.zeros((), device="cuda")
    work = Captured(lambda: counter.add_(1) and None, [counter], counter.device)
    with pytest.warns(UserWarning, match="slower than need be: no compiler$"):
        work()
    assert counter == 1


def test_on_the_cpu_nothing_is_captured() -> None:
    counter = torch.zeros(())
    work = Captured(lambda: counter.add_(1) and None, [counter], CPU)
    for _ in range(3):
        work()
    assert counter == 3
