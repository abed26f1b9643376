"""Tests of MRN: the meta-gradient against finite differences, and meta-updates that lower the outer loss."""

import itertools

import numpy as np
import pytest
import torch
from builders.rewards import CPU, ensemble, labelled, random_replay
from torch.nn import functional

from prefvlm_core.agent.networks import StackedMLP
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.config.run import SACConfig
from prefvlm_core.reward.mrn import meta_update, outer_loss


def network(members: int, sizes: list[int], activation, seed: int) -> StackedMLP:
    """Networks in double precision, so that finite differences are accurate."""
    count = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    values = torch.randn(1, members, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 2
    return StackedMLP(sizes, activation, values, torch.zeros_like(values))


def test_meta_gradient_equals_finite_differences() -> None:
    generator = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    reward = network(3, [4, 5, 1], functional.leaky_relu, 1)
    critic = network(2, [4, 6, 1], torch.tanh, 2)  # smooth, because finite differences across a kink would be wrong
    inputs, next_value, first, labels = draw(8, 4), draw(8), draw(5, 2, 4), torch.tensor([0, 1, 1, 0.5, 0]).double()
    before = critic.values.clone()

    def loss() -> torch.Tensor:
        targets = torch.tanh(reward(inputs.unsqueeze(0)))[0, :, :, 0].mean(0) + next_value
        return outer_loss(critic, inputs, targets, 0.3, first, labels)

    reward.backward(loss())
    gradient = reward.gradients.clone()
    expected = torch.zeros_like(gradient)
    for member in range(3):
        for index in range(gradient.shape[-1]):
            sides = []
            for shift in (1e-5, -2e-5):
                with torch.no_grad():
                    reward.values[0, member, index] += shift
                sides.append(float(loss().detach()))
            with torch.no_grad():
                reward.values[0, member, index] += 1e-5
            expected[0, member, index] = (sides[0] - sides[1]) / 2e-5
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)
    assert gradient.abs().max() > 1e-3 and torch.equal(critic.values, before)


def test_the_inner_step_is_plain_gradient_descent() -> None:
    """With two linear critics, the step and therefore the loss can be written down."""
    critic = StackedMLP([1, 1], torch.relu, torch.tensor([[[2.0, 0.0], [1.0, 1.0]]]), torch.zeros(1, 2, 2))
    inputs, targets = torch.tensor([[1.0]]), torch.tensor([5.0])
    first, labels = torch.tensor([[[0.0], [1.0]]]), torch.tensor([1.0])
    # Q = w x + b: gradients 2 (Q - y) for both w and b; Q1 = 2 and Q2 = 2 at x = 1, so both gain 0.1 * 6 = 0.6.
    # Q at 1 minus Q at 0 is w: 2.6 and 1.6 after the step.
    expected = np.log1p(np.exp(-2.6)) + np.log1p(np.exp(-1.6))
    loss = outer_loss(critic, inputs, targets, 0.1, first, labels).detach()
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_meta_update_lowers_the_outer_loss_and_touches_its_run_only() -> None:
    replay, rewards = random_replay(), ensemble()
    config = SACConfig(hidden_layers=2, width=32, batch_size=64, critic_learning_rate=0.05)
    generators = [np.random.default_rng(run) for run in range(2)]
    agent = SAC.create(config, 4, 2, generators, CPU, [0.1, 0.1])
    seen = replay.of_run(0)
    rewards.of_run(0).relabel(seen)
    buffer = labelled(replay, 32, seed=1)
    critic, other = agent.critic.values.clone(), rewards.networks.values[1].clone()
    losses = []
    for _ in range(30):
        sampled = seen.sample(np.random.default_rng(5), 64)
        batch = Batch(*(tensor.clone() for tensor in sampled))
        noise = torch.zeros(1, 64, 2)
        losses.append(meta_update(agent.of_run(0), rewards.of_run(0), seen, batch, noise, buffer, outer_weight=0.1))
        assert not torch.equal(batch.rewards, sampled.rewards)
    assert losses[-1]["meta_loss"] < losses[0]["meta_loss"] - 1e-3
    assert all(loss["meta_reward_change"] > 0 for loss in losses)
    assert torch.equal(agent.critic.values, critic) and torch.equal(rewards.networks.values[1], other)
    inputs = seen.inputs(torch.arange(5))
    expected = torch.tanh(rewards.networks(inputs.expand(2, -1, -1)))[0, :, :, 0].mean(0)
    torch.testing.assert_close(replay.rewards[0, :5], expected.detach())
    assert not replay.rewards[1].any()
