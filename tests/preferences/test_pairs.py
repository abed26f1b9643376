"""Tests of the Bradley–Terry model and the preference buffer against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from prefvlm_core.preferences.pairs import PreferenceBuffer, bradley_terry_loss, preference_probability


def test_loss_equals_the_formula() -> None:
    returns = torch.tensor([[1.0, 3.0], [1.0, 3.0], [2.0, 2.0], [5.0, 4.0]])
    labels = torch.tensor([1.0, 0.0, 0.5, 0.5])
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(2)), math.log(2)]
    expected.append(0.5 * math.log(1 + math.exp(-1)) + 0.5 * math.log(1 + math.exp(1)))
    assert bradley_terry_loss(returns, labels).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_reliability_mixes_both_answers() -> None:
    """Returns 0 and ln 3 give P = 3/4; a label that is right four times in five says so with .8 P + .2 (1-P) = .65."""
    returns = torch.tensor([[0.0, math.log(3)]] * 3, dtype=torch.float64)
    labels, reliability = torch.tensor([1.0, 0.0, 0.5]), torch.full((3,), 0.8, dtype=torch.float64)
    expected = [-math.log(0.65), -math.log(0.35), -0.5 * math.log(0.65 * 0.35)]
    assert bradley_terry_loss(returns, labels, reliability).tolist() == pytest.approx(expected)


def test_labels_that_are_surely_right_have_the_plain_loss_and_gradient() -> None:
    returns = torch.tensor([[1.0, 3.0], [2.0, -30.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1.0, 1.0], dtype=torch.float64)
    plain, sure = bradley_terry_loss(returns, labels), bradley_terry_loss(returns, labels, torch.ones(2).double())
    assert sure.tolist() == pytest.approx(plain.tolist())
    gradients = [torch.autograd.grad(loss.sum(), returns)[0] for loss in (plain, sure)]
    assert gradients[1].tolist() == [pytest.approx(row) for row in gradients[0].tolist()]


def test_probability_is_of_the_second_segment() -> None:
    assert preference_probability(torch.tensor([0.0, math.log(3)])).item() == pytest.approx(0.75)


def test_the_buffer_keeps_the_order_of_its_pairs() -> None:
    buffer = PreferenceBuffer()
    buffer.add(np.array([[1, 2]]), np.array([1.0], np.float32))
    buffer.add(np.array([[3, 4], [5, 6]]), np.array([0.0, 0.5], np.float32))
    assert buffer.starts.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert buffer.labels.tolist() == [1.0, 0.0, 0.5] and len(buffer) == 3
