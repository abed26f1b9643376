"""Tests of SURF: the lengths and places of crops, which pseudo-labels are accepted, and what is learned from them."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from builders.rewards import LENGTH, accuracy, ensemble, labelled, learned, random_replay, setting

from prefvlm_core.agent.replay import Replay
from prefvlm_core.config.groups import SURFConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward import surf
from prefvlm_core.reward.ensemble import RewardEnsemble


def test_crops_have_surfs_lengths_and_places() -> None:
    """With the paper's values, crops have 45 to 55 of 60 steps, lie anywhere in them and have one length per pair."""
    masks = surf.crop_masks((3, 4000), 50, SURFConfig(), np.random.default_rng(0)).numpy().astype(int)
    assert masks.shape == (3, 4000, 2, 60)
    lengths = masks.sum(-1)
    assert (lengths[..., 0] == lengths[..., 1]).all()
    counts = np.bincount(lengths[..., 0].ravel(), minlength=56)
    assert counts[:45].sum() == 0 and len(counts) == 56
    assert (abs(counts[45:] - 12_000 / 11) < 5 * math.sqrt(12_000 / 11)).all()  # uniform
    assert (abs(np.diff(masks, axis=-1)).sum(-1) <= 2).all()  # contiguous
    first = masks.argmax(-1)[lengths == 55]
    assert set(first) == set(range(6))  # 0 to 60 - 55, independently in the two segments:
    assert (masks.argmax(-1)[..., 0] != masks.argmax(-1)[..., 1]).any()


def test_pseudo_labels_are_accepted_from_the_confidence_on() -> None:
    """A difference of returns of ln 99 = 4.595 has P = 0.99."""
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


def learner(replay: Replay, rewards: RewardEnsemble, **changes: Any) -> surf.SURFLearner:
    config = SURFConfig(window=2, crop=2, unlabelled_batches=2, **changes)
    learning = replace(rewards.config, learning="surf")
    return surf.SURFLearner(setting(replay, rewards, 3, surf=config, reward=learning))


def pairs(count: int, seed: int) -> PreferenceBuffer:
    """Labeled pairs with room for the window around their segments."""
    seen = random_replay().of_run(0)
    starts = 2 + seen.draw_segments(np.random.default_rng(seed), count, LENGTH + 4, 100)
    returns = seen.true_segment_rewards(starts, LENGTH).sum(-1)
    return PreferenceBuffer(starts, (returns[:, 1] > returns[:, 0]).astype(np.float32))


def test_unlabeled_pairs_are_drawn_for_every_query_with_room_for_the_window() -> None:
    replay, rewards = random_replay(), ensemble()
    surf_learner = learner(replay, rewards, epochs=1, unlabelled_ratio=7)
    for session in (1, 2):
        learned(replay, rewards, surf_learner.learn(pairs(30, session), asked=20))
        assert surf_learner.unlabelled.shape == (session * 140, 2)
    within = surf_learner.unlabelled % 20
    assert within.min() == 2 and within.max() == 20 - LENGTH - 2


def test_updates_and_pseudo_labels_are_counted() -> None:
    replay, rewards = random_replay(), ensemble()
    before = float(rewards.optimizer.steps[0])
    learning = learned(
        replay,
        rewards,
        learner(replay, rewards, epochs=5, confidence=0.5, unlabelled_ratio=4).learn(pairs(100, 1), asked=100),
    )
    assert float(rewards.optimizer.steps[0]) - before == 16  # ceil(5 * 100 / 32)
    # Every pseudo-label has P of at least 0.5: 16 batches of 64, but two, which end a round of 400, hold only 16.
    assert learning.metrics["pseudo_label_fraction"] == 1 and learning.metrics["pseudo_labels"] == 14 * 64 + 2 * 16
    assert 0.4 < learning.metrics["pseudo_label_accuracy"] <= 1 and learning.epochs == 6
    learning = learned(
        replay,
        rewards,
        learner(replay, rewards, epochs=5, confidence=1.0, unlabelled_ratio=4).learn(pairs(100, 1), asked=100),
    )
    assert learning.metrics["pseudo_labels"] == 0 and math.isnan(learning.metrics["pseudo_label_accuracy"])


def test_confident_pseudo_labels_are_mostly_right_and_the_reward_generalizes() -> None:
    replay, rewards = random_replay(), ensemble()
    held_out = labelled(replay, 400, seed=9)
    other = rewards.networks.values[1].clone()
    learning = learned(
        replay,
        rewards,
        learner(replay, rewards, epochs=20, confidence=0.95, unlabelled_ratio=4).learn(pairs(200, 1), asked=200),
    )
    assert learning.metrics["pseudo_labels"] > 100 and learning.metrics["pseudo_label_accuracy"] > 0.9
    assert accuracy(replay, rewards, held_out) > 0.85
    assert torch.equal(rewards.networks.values[1], other)


def test_without_labels_nothing_is_learned() -> None:
    replay, rewards = random_replay(), ensemble()
    before = rewards.networks.values.clone()
    learning = learned(replay, rewards, learner(replay, rewards).learn(PreferenceBuffer(), asked=0))
    assert learning.epochs == 0 and learning.metrics == {} and torch.equal(rewards.networks.values, before)
