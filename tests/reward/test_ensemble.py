"""Tests of the reward ensemble: it learns from labels, and only its own run's."""

import math

import numpy as np
import pytest
import torch
from builders.rewards import CONFIG, LENGTH, accuracy, ensemble, labelled, learned, random_replay, setting

from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward.ensemble import SMALLEST_SCALE, RewardEnsemble
from prefvlm_core.reward.learning import PlainLearner


def test_learns_the_order_of_unseen_pairs_and_leaves_other_runs_alone() -> None:
    replay, rewards = random_replay(), ensemble()
    other = rewards.networks.values[1].clone()
    held_out = labelled(replay, 300, seed=9)

    before = accuracy(replay, rewards, held_out)
    learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(labelled(replay, 400, seed=1), 400))
    assert before < 0.75 and accuracy(replay, rewards, held_out) > 0.9
    assert torch.equal(rewards.networks.values[1], other)


def test_inputs_are_standardized_by_their_own_run_and_divided_by_no_less_than_the_smallest_scale() -> None:
    replay, rewards = random_replay(), ensemble()
    replay.observations[0, ..., 1] = 7 + 0.001 * replay.observations[0, ..., 1]  # hardly varies
    replay.observations[0, ..., 2] = 3 + 20 * replay.observations[0, ..., 2]
    seen = torch.cat((replay.observations[0, :, :-1].flatten(0, 1), replay.actions[0]), -1).double().numpy()
    rewards.of_run(0).standardise(replay.of_run(0))
    center, scale = rewards.networks.scaling[:, 0, 0, 0].double().numpy()
    assert center == pytest.approx(seen.mean(0), rel=1e-4, abs=1e-4)
    expected = seen.std(0, ddof=1)
    assert expected[1] < 0.01 and scale[1] == pytest.approx(SMALLEST_SCALE)
    assert np.delete(scale, 1) == pytest.approx(np.delete(expected, 1), rel=1e-4)
    assert torch.equal(rewards.networks.scaling[:, 1], ensemble().networks.scaling[:, 1])


def test_few_labels_suffice_only_if_inputs_are_standardized() -> None:
    """The reward depends on an input that varies much less than the others."""
    held_out_accuracy = {}
    for standardise in (False, True):
        replay, rewards = random_replay(), ensemble()
        pairs, held_out = labelled(replay, 60, seed=1), labelled(replay, 300, seed=9)
        replay.observations[0, ..., 0] *= 0.06
        if standardise:
            rewards.of_run(0).standardise(replay.of_run(0))
        learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(pairs, 60))
        held_out_accuracy[standardise] = accuracy(replay, rewards, held_out)
    assert held_out_accuracy[True] > held_out_accuracy[False] + 0.1


def test_learning_stops_early_at_the_wanted_accuracy() -> None:
    replay, rewards = random_replay(), ensemble()
    easy = labelled(replay, 20, seed=1)
    learning = learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(easy, 0))
    assert learning.epochs < CONFIG.max_epochs and learning.accuracy > CONFIG.stop_accuracy


def test_without_labels_nothing_is_learned() -> None:
    replay, rewards = random_replay(), ensemble()
    before = rewards.networks.values.clone()
    learning = learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(PreferenceBuffer(), 0))
    assert learning.epochs == 0 and math.isnan(learning.accuracy)
    assert torch.equal(rewards.networks.values, before)


def test_ties_pull_the_returns_together() -> None:
    replay, rewards = random_replay(), ensemble()
    pairs = labelled(replay, 64, seed=1)
    ties = PreferenceBuffer(pairs.starts, np.full(64, 0.5, np.float32))
    gap = lambda: float(  # noqa: E731
        rewards.of_run(0).member_returns(replay.of_run(0), pairs.starts, LENGTH).diff(dim=-1).abs().mean()
    )
    before = gap()
    learning = learned(replay, rewards, PlainLearner(setting(replay, rewards, seed=2)).learn(ties, 0))
    assert gap() < 0.5 * before and math.isnan(learning.accuracy) and learning.epochs == CONFIG.max_epochs


def test_relabel_writes_the_mean_of_the_members() -> None:
    replay, rewards = random_replay(), ensemble()
    seen = replay.of_run(1)
    rewards.of_run(1).relabel(seen)
    inputs = seen.inputs(torch.arange(replay.size))
    expected = torch.stack([_member(rewards, 1, member, inputs) for member in range(3)]).mean(0)
    torch.testing.assert_close(replay.rewards[1], expected)
    assert not replay.rewards[0].any()
    returns = rewards.of_run(1).member_returns(seen, np.array([[0, 21]]), LENGTH)
    assert returns.mean(0)[0, 1].item() == pytest.approx(float(expected[21 : 21 + LENGTH].sum()), rel=1e-4)
    predicted = rewards.predict(inputs[:1, :4].expand(2, -1), inputs[:1, 4:].expand(2, -1))
    assert predicted[1].item() == pytest.approx(expected[0].item(), rel=1e-5)


def _member(rewards: RewardEnsemble, run: int, member: int, inputs: torch.Tensor) -> torch.Tensor:
    hidden = inputs
    for index, (weight, bias) in enumerate(rewards.networks.layers):
        hidden = hidden @ weight[run, member].detach() + bias[run, member].detach()
        hidden = torch.nn.functional.leaky_relu(hidden) if index < 2 else torch.tanh(hidden)
    return hidden[:, 0]
