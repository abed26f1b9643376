"""Tests of the calmer agent: standardized observations and normalized critics, against numpy and torch's LayerNorm."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runs import quiet, tiny, weights_hash, without_seconds

from prefvlm_core.agent.networks import StackedMLP, normalized_relu, uniform_fan_in
from prefvlm_core.agent.sac import SAC
from prefvlm_core.agent.scaling import SMALLEST_SCALE, ObservationScaling
from prefvlm_core.config.run import SACConfig
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.train import Fleet, train

CPU = torch.device("cpu")


def agents(**changes: bool) -> SAC:
    config = SACConfig(hidden_layers=2, width=16, **changes)
    return SAC.create(config, 6, 2, [np.random.default_rng(seed) for seed in (0, 1)], CPU, [0.1, 0.1])


def test_a_normalized_network_equals_torch_modules() -> None:
    generator = np.random.default_rng(0)
    network = StackedMLP.create(1, 1, (5, 7, 3), normalized_relu, uniform_fan_in, [generator], CPU)
    (first_weight, first_bias), (second_weight, second_bias) = network.layers
    first, second = torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)
    with torch.no_grad():
        for linear, weight, bias in ((first, first_weight, first_bias), (second, second_weight, second_bias)):
            linear.weight.copy_(weight[0, 0].T)
            linear.bias.copy_(bias[0, 0, 0])
    norm = torch.nn.LayerNorm(7, elementwise_affine=False)
    inputs = torch.randn(1, 4, 5)
    torch.testing.assert_close(
        network(inputs)[0, 0], torch.nn.Sequential(first, norm, torch.nn.ReLU(), second)(inputs[0])
    )


def test_only_critics_are_normalized() -> None:
    plain, normalized = agents(), agents(critic_norm=True)
    inputs, observations = torch.randn(2, 4, 8), torch.randn(2, 4, 6)
    assert torch.equal(plain.act(observations), normalized.act(observations))
    for critic in ("critic", "target_critic"):
        values = getattr(normalized, critic)(inputs)
        assert not torch.allclose(getattr(plain, critic)(inputs), values)
        far = getattr(normalized, critic)(1e4 * inputs)  # a normalized critic does not extrapolate without bound
        assert far.detach().abs().max() < 20 * values.detach().abs().max()


def test_scaling_is_by_the_mean_and_spread_of_all_observations() -> None:
    generator = np.random.default_rng(0)
    episodes = [generator.normal(3, 2, (2, length, 6)).astype(np.float32) for length in (11, 11, 5)]
    for episode in episodes:
        episode[:, :, 4] = 0.7  # never moves
    scaling = ObservationScaling(2, 6, 2, CPU)
    for episode in episodes:
        scaling.add(torch.from_numpy(episode))
    every = np.concatenate(episodes, axis=1).astype(np.float64)
    spread = np.maximum(every.std(1), SMALLEST_SCALE)
    np.testing.assert_allclose(scaling.values[0, :, 0, 0, :6], every.mean(1), rtol=1e-5)
    np.testing.assert_allclose(scaling.values[1, :, 0, 0, :6], spread, rtol=1e-5)
    assert (scaling.values[0, ..., 6:] == 0).all() and (scaling.values[1, ..., 6:] == 1).all()


def test_actor_and_both_critics_see_what_is_standardized() -> None:
    """Of one run and of a fleet, and after the critic was renewed."""
    agent, plain = agents(standardise=True), agents()
    seen = torch.from_numpy(np.random.default_rng(1).normal(5, 3, (2, 40, 6)).astype(np.float32))
    agent.observe(seen)
    observations, actions = seen[:, :4], torch.rand(2, 4, 2)
    standardized = (observations - seen.mean(1, keepdim=True)) / seen.std(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(agent.act(observations), plain.act(standardized), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(agent.of_run(1).act(observations[1:]), plain.act(standardized)[1:], rtol=1e-4, atol=1e-5)
    agent.of_run(1).reset_critic(np.random.default_rng(2))
    plain.of_run(1).reset_critic(np.random.default_rng(2))
    for critic in ("critic", "target_critic"):
        values = getattr(agent, critic)(torch.cat((observations, actions), -1))
        expected = getattr(plain, critic)(torch.cat((standardized, actions), -1))
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_a_calm_fleet_resumes_bit_identical_and_stores_what_acts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"sac.critic_norm": True, "sac.standardise": True}
    configs = [tiny(method, seed=3, **changes) for method in ("sac", "pebble", "mrn")]
    fleets: list[Fleet] = []

    def kept(fleet: Fleet, finish=Fleet._finish) -> None:
        fleets.append(fleet)
        finish(fleet)

    monkeypatch.setattr(Fleet, "_finish", kept)
    uninterrupted = train(configs, quiet(tmp_path / "uninterrupted"))

    def killed(fleet: Fleet, progress: object, episode=Fleet._episode) -> None:
        if fleet.replay.size == 250:
            raise KeyboardInterrupt
        episode(fleet, progress)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sys.modules["prefvlm_core.train"].Fleet, "_episode", killed)
        train(configs, quiet(tmp_path / "killed", checkpoint_seconds=0))
    for run, resumed in enumerate(train(configs, quiet(tmp_path / "killed"))):
        assert without_seconds(resumed) == without_seconds(uninterrupted[run])
        assert weights_hash(resumed) == weights_hash(uninterrupted[run])
    agent = fleets[0].agent
    assert agent.scaling is not None and int(agent.scaling.count) == 8 * 51
    observations = fleets[0].replay.observations[:, 0]
    for run, directory in enumerate(uninterrupted):
        stored = read_tensors(directory.path / "weights.safetensors").tensors["actor"]
        alone = StackedMLP(agent.actor.sizes, torch.relu, stored.unsqueeze(0), None)
        expected = agent.actor(observations)[run]
        torch.testing.assert_close(alone(observations[run : run + 1])[0], expected, rtol=1e-3, atol=1e-4)
