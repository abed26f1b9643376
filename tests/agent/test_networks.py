"""Tests of stacked networks and their Adam against torch's own, one network at a time."""

import numpy as np
import pytest
import torch

from prefvlm_core.agent.networks import StackedAdam, StackedMLP, identity_scaling, orthogonal, uniform_fan_in

CPU = torch.device("cpu")
SIZES = (5, 7, 3)


def stacked(runs: int = 2, members: int = 3, initialiser=uniform_fan_in) -> StackedMLP:
    generators = [np.random.default_rng(run) for run in range(runs)]
    return StackedMLP.create(runs, members, SIZES, torch.relu, initialiser, generators, CPU)


def as_torch_module(network: StackedMLP, run: int, member: int) -> torch.nn.Sequential:
    first, second = torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)
    with torch.no_grad():
        for linear, (weight, bias) in zip((first, second), network.layers, strict=True):
            linear.weight.copy_(weight[run, member].T)
            linear.bias.copy_(bias[run, member, 0])
    return torch.nn.Sequential(first, torch.nn.ReLU(), second)


@pytest.mark.parametrize("shared", [True, False])
def test_forward_and_gradient_equal_separate_networks(shared: bool) -> None:
    network = stacked()
    inputs = torch.randn(2, 4, 5) if shared else torch.randn(2, 3, 4, 5)
    outputs = network(inputs)
    network.backward(outputs.square().sum())
    for run in range(2):
        for member in range(3):
            module = as_torch_module(network, run, member)
            expected = module(inputs[run] if shared else inputs[run, member])
            expected.square().sum().backward()
            torch.testing.assert_close(outputs[run, member], expected)
            gradient = torch.cat(
                [p for linear in (module[0], module[2]) for p in (linear.weight.grad.T.flatten(), linear.bias.grad)]
            )
            torch.testing.assert_close(network.gradients[run, member], gradient)


def test_scaling_is_applied_to_the_inputs_and_can_be_folded_into_the_weights() -> None:
    network, inputs = stacked(), torch.randn(2, 4, 5)
    center, scale = torch.randn(2, 1, 5), torch.rand(2, 1, 5) + 0.5
    expected = network((inputs - center) / scale)
    unscaled = network(inputs)
    network.scaling = identity_scaling(2, 5, CPU)
    assert torch.equal(network(inputs), unscaled)
    network.scaling[:] = torch.stack((center, scale)).unsqueeze(2)
    torch.testing.assert_close(network(inputs), expected)
    torch.testing.assert_close(network(inputs.unsqueeze(1).expand(-1, 3, -1, -1)), expected)
    plain = StackedMLP(SIZES, torch.relu, network.folded(), None)
    assert plain.scaling is None
    torch.testing.assert_close(plain(inputs), expected)
    for part in (network.of_run(1), network.with_layers(network.layers).of_run(1), network.frozen_copy().of_run(1)):
        torch.testing.assert_close(part(inputs[1:]), expected[1:])


def test_frozen_parameters_pass_gradients_to_inputs_only() -> None:
    network, inputs = stacked(), torch.randn(2, 4, 5, requires_grad=True)
    network(inputs, frozen=True).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None for layer in network.layers for parameter in layer)


def test_adam_equals_torch_adam_per_run() -> None:
    values, gradients = torch.randn(3, 10), torch.zeros(3, 10)
    references = [torch.nn.Parameter(row.clone()) for row in values]
    optimizers = [torch.optim.Adam([reference], lr=0.01) for reference in references]
    optimizer = StackedAdam(values, gradients, 0.01)
    for step in range(20):
        for run in range(3):
            gradients[run] = torch.randn(10)
            references[run].grad = gradients[run].clone()
        if step % 3:  # run 1 skips every third step, so its bias correction must be its own
            optimizer.step()
            [torch_adam.step() for torch_adam in optimizers]
        else:
            for run in (0, 2):
                optimizer.of_run(run).step()
                optimizers[run].step()
    for row, reference in zip(values, references, strict=True):
        torch.testing.assert_close(row, reference.detach(), rtol=1e-5, atol=1e-6)


def test_a_run_is_a_view_and_depends_on_its_own_generator_only() -> None:
    network, alone = stacked(runs=3), stacked(runs=1)
    torch.testing.assert_close(network.values[0], alone.values[0], rtol=0, atol=0)
    network.of_run(1).values.zero_()
    assert not network.values[1].any() and network.values[0].any() and network.values[2].any()
    inputs = torch.randn(1, 4, 5)
    torch.testing.assert_close(network.of_run(2)(inputs)[0], network(inputs.expand(3, -1, -1))[2])


def test_initial_weights_are_orthogonal_or_uniform_in_their_bound() -> None:
    weight = stacked(initialiser=orthogonal).layers[0][0][1, 2]
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), rtol=1e-5, atol=1e-5)
    weight, bias = stacked(runs=40).layers[1]
    bound = 1 / 7**0.5
    assert weight.abs().max() <= bound and bias.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
