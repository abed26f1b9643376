"""Tests of exploration: the state entropy against scipy's k-d tree, and the running scale against numpy."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from prefvlm_core.agent.exploration import RunningStd, disagreement_bonus, nearest_neighbour_distance


def test_distance_equals_a_kd_tree() -> None:
    states = np.random.default_rng(0).normal(size=(300, 7))
    expected = cKDTree(states).query(states[:40], k=6)[0][:, 5]
    ours = nearest_neighbour_distance(torch.from_numpy(states[:40]), torch.from_numpy(states), 5)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


def test_distance_with_few_references_takes_the_farthest() -> None:
    states = torch.tensor([[0.0], [1.0], [3.0]])
    assert nearest_neighbour_distance(states, states, 5).tolist() == [3.0, 2.0, 3.0]


def test_running_std_equals_numpy_and_runs_do_not_mix() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=500).astype(np.float32)
    scale = RunningStd(2, torch.device("cpu"))
    for part in np.split(values, [10, 11, 300]):
        last = scale.update(1, torch.from_numpy(part))
    assert float(last) == pytest.approx(values.astype(np.float64).std(), rel=1e-9)
    assert scale.count.tolist() == [0, 500]


def test_constant_values_do_not_divide_by_zero() -> None:
    assert RunningStd(1, torch.device("cpu")).update(0, torch.ones(5)) == 1.0


def test_bonus_equals_the_formula() -> None:
    """RUNE's bonus is 0.05 (1 - rho)^t times the population standard deviation."""
    rewards = torch.tensor([[0.1, 0.5], [0.4, 0.5], [0.7, 0.5]])
    bonus = disagreement_bonus(rewards, 0.05, 1e-3, 2000)
    assert bonus.tolist() == pytest.approx([0.05 * 0.999**2000 * np.std([0.1, 0.4, 0.7]), 0.0])
