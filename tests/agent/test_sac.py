"""Tests of SAC against torch.distributions, and against a plain implementation with one network at a time."""

import copy

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from prefvlm_core.agent.sac import SAC, Batch, squashed_gaussian
from prefvlm_core.config.run import SACConfig

CPU = torch.device("cpu")
CONFIG = SACConfig(hidden_layers=2, width=16, batch_size=32, initial_temperature=0.3, temperature_learning_rate=1e-2)


def agents(seeds: list[int]) -> SAC:
    return SAC.create(
        CONFIG, 6, 2, [np.random.default_rng(seed) for seed in seeds], CPU, [CONFIG.initial_temperature] * len(seeds)
    )


def batch(seeds: list[int]) -> tuple[Batch, torch.Tensor]:
    drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
    stack = lambda *shape: torch.stack([torch.randn(shape, generator=one) for one in drawn])  # noqa: E731
    content = Batch(stack(32, 6), torch.tanh(stack(32, 2)), stack(32), stack(32, 6))
    return content, stack(2, 32, 2).transpose(0, 1)


def test_log_probability_equals_torch_distributions() -> None:
    parameters, noise = torch.randn(50, 8, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    actions, log_probability = squashed_gaussian(parameters, noise)
    mean, raw = parameters.chunk(2, -1)
    std = torch.exp(-5 + 3.5 * (torch.tanh(raw) + 1))
    keep = (mean + std * noise).abs().amax(-1) < 6  # beyond that, the atanh of the reference has lost all digits
    reference = TransformedDistribution(Independent(Normal(mean[keep], std[keep]), 1), [TanhTransform()])
    torch.testing.assert_close(log_probability[keep], _log_prob(reference, actions[keep]), rtol=1e-6, atol=1e-6)
    assert keep.sum() > 20


def _log_prob(distribution: TransformedDistribution, actions: torch.Tensor) -> torch.Tensor:
    """Log-density of actions; the log-slope of tanh is summed over the action dimensions."""
    base, tanh = distribution.base_dist, distribution.transforms[0]
    before = tanh.inv(actions)
    return base.log_prob(before) - tanh.log_abs_det_jacobian(before, actions).sum(-1)


def test_log_probability_of_saturated_actions_is_finite() -> None:
    _, log_probability = squashed_gaussian(torch.tensor([[30.0, 0.0]]), torch.tensor([[1.0]]))
    assert torch.isfinite(log_probability).all()


def test_update_equals_a_plain_implementation() -> None:
    agent, (content, noise) = agents([3]), batch([5])
    observations, actions, rewards, following = (tensor[0] for tensor in content)
    actor, critics = _modules(agent.actor, 1)[0], _modules(agent.critic, 2)
    targets = copy.deepcopy(critics)
    log_temperature = torch.tensor(np.log(0.3), dtype=torch.float32, requires_grad=True)
    temperature = log_temperature.exp().detach()

    with torch.no_grad():
        next_actions, next_log = squashed_gaussian(actor(following), noise[0, 0])
        next_inputs = torch.cat((following, next_actions), -1)
        value = torch.min(*(target(next_inputs)[:, 0] for target in targets)) - temperature * next_log
        wanted = rewards + 0.99 * value
    critic_optimizer = torch.optim.Adam([p for critic in critics for p in critic.parameters()], lr=3e-4)
    sum(((critic(torch.cat((observations, actions), -1))[:, 0] - wanted) ** 2).mean() for critic in critics).backward()
    critic_optimizer.step()

    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-4)
    new_actions, log_probability = squashed_gaussian(actor(observations), noise[1, 0])
    inputs = torch.cat((observations, new_actions), -1)
    (temperature * log_probability - torch.min(*(critic(inputs)[:, 0] for critic in critics))).mean().backward()
    actor_optimizer.step()

    temperature_optimizer = torch.optim.Adam([log_temperature], lr=1e-2)
    (log_temperature.exp() * (-log_probability.detach() + 2).mean()).backward()
    temperature_optimizer.step()

    agent.update(content, noise, update_target=True)
    for ours, theirs in ((_modules(agent.actor, 1), [actor]), (_modules(agent.critic, 2), critics)):
        for one, other in zip(ours, theirs, strict=True):
            for mine, reference in zip(one.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(agent.log_temperature[0, 0], log_temperature.detach(), rtol=1e-5, atol=1e-6)
    for one, before, now in zip(_modules(agent.target_critic, 2), targets, critics, strict=True):
        for mine, old, new in zip(one.parameters(), before.parameters(), now.parameters(), strict=True):
            torch.testing.assert_close(mine, 0.995 * old + 0.005 * new, rtol=1e-5, atol=1e-6)


def _modules(network, members: int) -> list[torch.nn.Sequential]:
    modules = []
    for member in range(members):
        layers: list[torch.nn.Module] = []
        for weight, bias in network.layers:
            linear = torch.nn.Linear(*weight.shape[2:])
            linear.weight.data, linear.bias.data = (
                weight[0, member].detach().T.clone(),
                bias[0, member, 0].detach().clone(),
            )
            layers += [linear, torch.nn.ReLU()]
        modules.append(torch.nn.Sequential(*layers[:-1]))
    return modules


def test_a_fleet_of_one_equals_the_same_run_in_a_fleet_of_four() -> None:
    fleet, alone = agents([1, 2, 3, 4]), agents([3])
    for step in range(10):
        content, noise = batch([10 * step + seed for seed in (1, 2, 3, 4)])
        fleet.update(content, noise, update_target=step % 2 == 0)
        content, noise = batch([10 * step + 3])
        alone.update(content, noise, update_target=step % 2 == 0)
    for name, tensor in alone.state().items():
        torch.testing.assert_close(fleet.state()[name][2:3], tensor, rtol=1e-4, atol=1e-5)


def test_a_run_trained_through_its_view_changes_nothing_else() -> None:
    fleet = agents([1, 2])
    before = {name: tensor.clone() for name, tensor in fleet.state().items()}
    content, noise = batch([7])
    fleet.of_run(1).update(content, noise, update_target=True)
    fleet.of_run(1).reset_critic(np.random.default_rng(0))
    for name, tensor in fleet.state().items():
        assert torch.equal(tensor[0], before[name][0]), name
    assert not torch.equal(fleet.critic.values[1], before["critic"][1])
    assert torch.equal(fleet.critic.values[1], fleet.target_critic.values[1])
    assert not fleet.critic_optimizer.second_moment[1].any()


def test_deterministic_action_is_the_mode() -> None:
    agent, observations = agents([0]), torch.randn(1, 3, 6)
    expected = torch.tanh(_modules(agent.actor, 1)[0](observations[0]).chunk(2, -1)[0])
    torch.testing.assert_close(agent.act(observations)[0], expected)
    zero_noise = agent.act(observations, torch.zeros(1, 3, 2))
    torch.testing.assert_close(zero_noise[0], expected)
    assert agent.log_temperature.item() == pytest.approx(np.log(0.3))
