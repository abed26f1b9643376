"""SURF: crop lengths and offsets, acceptance by hand, and pseudo-labels that help."""

import math
from itertools import islice

import numpy as np
import torch
from builders.rewards import LENGTH, ensemble, labelled, random_replay

from prefvlm_core.config.run import SURFConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward import surf


def test_crops_are_surfs() -> None:
    """Paper values: 60 steps, crops of 45 to 55 anywhere in them, one length per pair."""
    masks = surf.crop_masks((3, 4000), 50, SURFConfig(), np.random.default_rng(0)).numpy().astype(int)
    assert masks.shape == (3, 4000, 2, 60)
    lengths = masks.sum(-1)
    assert (lengths[..., 0] == lengths[..., 1]).all()
    counts = np.bincount(lengths[..., 0].ravel(), minlength=56)
    assert counts[:45].sum() == 0 and len(counts) == 56
    assert (abs(counts[45:] - 12_000 / 11) < 5 * math.sqrt(12_000 / 11)).all()  # uniform
    assert (abs(np.diff(masks, axis=-1)).sum(-1) <= 2).all()  # in one piece
    first = masks.argmax(-1)[lengths == 55]
    assert set(first) == set(range(6))  # 0 to 60 - 55, independent in the two segments:
    assert (masks.argmax(-1)[..., 0] != masks.argmax(-1)[..., 1]).any()


def test_acceptance_by_hand() -> None:
    """P = 0.99 at a difference of ln 99 = 4.595."""
    returns = torch.tensor([[0.0, 4.60], [0.0, 4.59], [4.60, 0.0], [1.0, 1.0]])
    labels, accepted = surf.pseudo_labels(returns, 0.99)
    assert labels.tolist() == [1, 1, 0, 0]
    assert accepted.tolist() == [True, False, True, False]


def test_minibatches_show_everything_before_anything_twice() -> None:
    batches = list(islice(surf.shuffled(10, 4, 2, np.random.default_rng(0)), 6))
    assert [batch.shape for batch in batches] == [(2, 4), (2, 4), (2, 2)] * 2
    for member in range(2):
        order = np.concatenate([batch[member] for batch in batches])
        assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))


def pairs(count: int, seed: int) -> tuple[PreferenceBuffer, np.ndarray]:
    """Labelled pairs with room for the window, and their truth as float64."""
    replay = random_replay()
    starts = 2 + replay.draw_segments(np.random.default_rng(seed), count, LENGTH + 4, 100)
    returns = replay.true_segment_rewards(0, starts, LENGTH).sum(-1)
    labels = (returns[:, 1] > returns[:, 0]).astype(np.float32)
    return PreferenceBuffer(starts, labels), labels.astype(np.float64)


def test_counts_updates_and_pseudo_labels() -> None:
    replay, rewards = random_replay(), ensemble()
    (buffer, _), (others, truth) = pairs(100, 1), pairs(400, 2)
    before = float(rewards.optimizer.steps[0])
    config = SURFConfig(window=2, crop=2, epochs=5, unlabelled_batches=2, confidence=0.5)
    common = replay, 0, buffer, others.starts, truth, LENGTH, config
    learning, metrics = surf.learn(rewards, *common, np.random.default_rng(3))
    assert float(rewards.optimizer.steps[0]) - before == 16  # ceil(5 * 100 / 32)
    # Everything is at least 0.5 sure: 16 batches of 64, of which two ended a round of 400 with 16 only.
    assert metrics["pseudo_label_fraction"] == 1 and metrics["pseudo_labels"] == 14 * 64 + 2 * 16
    assert 0.4 < metrics["pseudo_label_accuracy"] <= 1 and learning.epochs == 6
    sure = SURFConfig(window=2, crop=2, epochs=5, unlabelled_batches=2, confidence=1.0)
    learning, metrics = surf.learn(rewards, *common[:-1], sure, np.random.default_rng(3))
    assert metrics["pseudo_labels"] == 0 and math.isnan(metrics["pseudo_label_accuracy"])


def test_confident_pseudo_labels_are_mostly_right_and_the_reward_generalises() -> None:
    replay, rewards = random_replay(), ensemble()
    (buffer, _), (others, truth) = pairs(200, 1), pairs(800, 2)
    held_out = labelled(replay, 400, seed=9)
    other = rewards.networks.values[1].clone()
    config = SURFConfig(window=2, crop=2, epochs=20, unlabelled_batches=2, confidence=0.95)
    _, metrics = surf.learn(rewards, replay, 0, buffer, others.starts, truth, LENGTH, config, np.random.default_rng(3))
    assert metrics["pseudo_labels"] > 100 and metrics["pseudo_label_accuracy"] > 0.9
    returns = rewards.member_returns(replay, 0, held_out.starts, LENGTH).mean(0)
    assert float(((returns[:, 1] > returns[:, 0]).numpy() == held_out.labels).mean()) > 0.85
    assert torch.equal(rewards.networks.values[1], other)


def test_without_labels_nothing_is_learned() -> None:
    rewards = ensemble()
    nothing = PreferenceBuffer(), np.empty((0, 2), np.int64), np.empty(0), LENGTH, SURFConfig()
    learning, metrics = surf.learn(rewards, random_replay(), 0, *nothing, np.random.default_rng(2))
    assert learning.epochs == 0 and metrics == {}
