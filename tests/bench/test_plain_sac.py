"""The plain SAC computes what ours does, and the limit of an update counts its products."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from prefvlm_core.agent.networks import StackedMLP
from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.bench.learner import our_updates
from prefvlm_core.bench.plain_sac import PlainSAC
from prefvlm_core.bench.products import gigaflop, multiply, products_of
from prefvlm_core.config.run import SACConfig

OBSERVED, ACTED = 5, 3
ACTOR, CRITIC = [39, 128, 128, 8], [43, 128, 128, 1]
CONFIG = SACConfig(hidden_layers=2, width=16, batch_size=32, discount=0.9, target_rate=0.1, target_update_every=2)


def copied(plain: nn.Module, ours: StackedMLP, member: int) -> None:
    """Give a plain network the parameters of one of ours."""
    linear = [layer for layer in plain.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(linear, ours.layers, strict=True):
            layer.weight.copy_(weight[0, member].T)
            layer.bias.copy_(bias[0, member, 0])


def gradients(plain: nn.Module) -> torch.Tensor:
    """In the order of ours: (parameters,)."""
    linear = [layer for layer in plain.modules() if isinstance(layer, nn.Linear)]
    return torch.cat([part.flatten() for layer in linear for part in (layer.weight.grad.T, layer.bias.grad)])


def test_targets_and_gradients_are_those_of_ours() -> None:
    generator = np.random.default_rng(3)
    ours = SAC.create(CONFIG, OBSERVED, ACTED, [generator], torch.device("cpu"), [0.2])
    ours.target_critic.values.mul_(1.1)
    plain = PlainSAC(CONFIG, OBSERVED, ACTED, capacity=1)
    copied(plain.actor, ours.actor, 0)
    for member in range(2):
        copied(plain.critics[member], ours.critic, member)
        copied(plain.targets[member], ours.target_critic, member)
    plain.log_alpha.data.copy_(ours.log_temperature[0, 0])

    def drawn(*shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal(shape, np.float32))

    seen: list[torch.Tensor] = []  # before the loss of the actor, which leaves gradients in the plain critics too
    plain.critic_optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.stack([gradients(critic) for critic in plain.critics]))
    )
    for update in (1, 2):
        batch = [drawn(32, OBSERVED), drawn(32, ACTED).tanh(), drawn(32), drawn(32, OBSERVED)]
        noise = drawn(2, 32, ACTED)
        stacked = Batch(*(part.unsqueeze(0) for part in batch))
        target = stacked.rewards + ours.discounted_value(stacked, noise[:1])
        torch.testing.assert_close(plain.target(batch[2], batch[3], noise[0]), target[0], rtol=1e-4, atol=1e-5)
        ours.update(stacked, noise.unsqueeze(1), update % 2 == 0)
        plain.update(batch, noise)
        close = {"rtol": 1e-3, "atol": 1e-5}
        torch.testing.assert_close(seen[-1], ours.critic.gradients[0], **close)
        torch.testing.assert_close(gradients(plain.actor), ours.actor.gradients[0, 0], **close)
        torch.testing.assert_close(plain.log_alpha.grad, ours.temperature_optimizer.gradients[0, 0], **close)
    moved = torch.stack([torch.cat([p.flatten() for p in target.parameters()]) for target in plain.targets])
    for member in range(2):
        copied(plain.critics[member], ours.target_critic, member)  # in the order of the plain parameters
    wanted = torch.stack([torch.cat([p.flatten() for p in critic.parameters()]) for critic in plain.critics])
    torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-5)


def test_the_products_of_an_update_are_those_of_its_passes() -> None:
    """Profile quick: batch 128, two hidden layers of 128, 39 observations, 4 actions."""
    actor, critic = (sum(128 * k * n for k, n in itertools.pairwise(sizes)) for sizes in (ACTOR, CRITIC))
    first_actor, first_critic = 128 * 39 * 128, 128 * 43 * 128
    # Critics: next actions; targets and critics forward; weights, and inputs of all layers but the first, back.
    # Actor: forward; both critics forward and back to the actions; its own weights and inputs back.
    multiplied = actor + 2 * (4 * critic - first_critic) + actor + 2 * 2 * critic + 2 * actor - first_actor
    assert gigaflop(products_of(our_updates(1, 1))) == pytest.approx(2 * multiplied / 1e9, rel=1e-12)
    assert gigaflop(products_of(our_updates(3, 2))) == pytest.approx(6 * 2 * multiplied / 1e9, rel=1e-12)


def test_the_products_alone_are_the_same_ones() -> None:
    products = [(2, 3, 4), (5, 6, 1), (2, 3, 4)]
    assert products_of(multiply(products)) == products
    assert gigaflop(products) == 2 * (24 + 30 + 24) / 1e9
