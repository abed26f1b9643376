"""Tests of RIME: thresholds worked out by hand, kept and flipped labels, the warm start, and noisy labels."""

import math

import numpy as np
import pytest
import torch
from builders.rewards import CPU, accuracy, ensemble, labelled, learned, random_replay, setting

from prefvlm_core.config.run import FilterConfig, RewardConfig, RIMEConfig
from prefvlm_core.methods import run_config
from prefvlm_core.preferences.filters import RIMEThresholds
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward import rime
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.reward.learning import PlainLearner


def pairs(labels: list[float]) -> PreferenceBuffer:
    return PreferenceBuffer(np.arange(2 * len(labels)).reshape(-1, 2), np.array(labels, np.float32))


def test_the_first_pass_trusts_everything_and_the_second_splits_by_rimes_thresholds() -> None:
    thresholds = RIMEThresholds(FilterConfig(beta_sessions=600))
    buffer, probabilities = pairs([1, 0, 1, 0]), np.array([0.9, 0.2, 0.5, 0.6])
    first = rime.denoise(buffer, probabilities, thresholds)
    assert first.partition.clean.all() and first.buffer.labels.tolist() == [1, 0, 1, 0]
    trusted = [-math.log(0.9), -math.log(0.8), -math.log(0.5), -math.log(0.4)]
    rho = max(trusted)
    beta = 3 - (3 - 1) / 600
    lower = -math.log(rho) + 0.5 * rho + beta * float(np.std(trusted))
    assert thresholds.lower == pytest.approx(lower)
    assert lower < 2 < 6.9 < thresholds.upper == pytest.approx(-math.log(0.001))
    # The divergences are now 0.105 (kept), 2.30 (left out), 9.2 (flipped) and, for the tie, ln 2 - ln 2 = 0 (kept).
    second = rime.denoise(pairs([1, 1, 0, 0.5]), np.array([0.9, 0.1, 1 - 1e-4, 0.5]), thresholds)
    assert second.partition.clean.tolist() == [True, False, False, True]
    assert second.partition.flipped.tolist() == [False, False, True, False]
    assert second.buffer.labels.tolist() == [1, 1, 0.5]
    assert second.buffer.starts.tolist() == [[0, 1], [4, 5], [6, 7]]
    # Only trusted labels enter the statistics: rho moves a tenth of the way to 0.105.
    assert thresholds._rho == pytest.approx(rho + 0.1 * (-math.log(0.9) - rho))
    assert thresholds.sessions == 2


def test_entropy_is_centered_scaled_and_clipped() -> None:
    distances = torch.tensor([0.0, 2.0, 5.0, 50.0])
    entropy = rime.normalised_entropy(distances, torch.tensor(2.0), torch.tensor(1.0))
    assert entropy.tolist() == pytest.approx([-2 / 3, 0, 1, 1])


def test_the_warm_start_fits_the_entropy() -> None:
    rewards = ensemble()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 6, generator=generator)
    entropy = torch.tanh(inputs[:, 0])
    other = rewards.networks.values[1].clone()
    rime.warm_start(rewards.of_run(0), inputs, entropy, 300)
    error = rewards.of_run(0).member_rewards(inputs) - entropy
    assert float(error.detach().square().mean(-1).max()) < 0.1 * float(entropy.var())
    assert torch.equal(rewards.networks.values[1], other)


def noisy(seed: int) -> PreferenceBuffer:
    """400 labels, of which a fifth is wrong."""
    buffer = labelled(random_replay(), 400, seed)
    wrong = np.random.default_rng(seed).random(400) < 0.2
    return PreferenceBuffer(buffer.starts, np.where(wrong, 1 - buffer.labels, buffer.labels))


def test_most_flips_are_right_and_the_reward_generalizes_better_than_without_them() -> None:
    """After long training on labels of which a fifth is wrong, plain learning has fitted the mistakes too."""
    replay = random_replay()
    held_out = labelled(replay, 1000, seed=9)
    config = RewardConfig(hidden_layers=2, width=32, learning_rate=3e-3, batch_size=32, max_epochs=40)
    groups = {"filter": FilterConfig(beta_sessions=20, upper=2.0), "rime": RIMEConfig(warm_up_epochs=1)}
    gains = []
    for seed in (3, 4):
        plain, denoised = (
            RewardEnsemble(config, 6, [np.random.default_rng(0)], CPU, "drawer-close-v3") for _ in range(2)
        )
        learned(replay, plain, PlainLearner(setting(replay, plain, 2)).learn(noisy(seed), 0))
        learner = rime.RIMELearner(setting(replay, denoised, 2, **groups))
        learning = learned(replay, denoised, learner.learn(noisy(seed), 0))
        metrics = learning.metrics
        assert metrics["flips"] > 20 and metrics["flip_accuracy"] > 0.75 and metrics["kept_accuracy"] > 0.9
        assert learning.epochs == learner.thresholds.sessions <= 40
        gains.append(accuracy(replay, denoised, held_out) - accuracy(replay, plain, held_out))
    assert np.mean(gains) > 0.015


def test_passes_stop_no_earlier_than_the_minimum() -> None:
    replay, rewards = random_replay(), ensemble()
    easy = labelled(replay, 10, seed=1)
    config = RIMEConfig(warm_up_epochs=1, minimum_epochs=30)
    learning = learned(replay, rewards, rime.RIMELearner(setting(replay, rewards, 2, rime=config)).learn(easy, 0))
    assert 30 <= learning.epochs < 60 and learning.accuracy > 0.98


def test_without_labels_nothing_is_learned() -> None:
    replay, rewards = random_replay(), ensemble()
    before = rewards.networks.values.clone()
    learning = learned(replay, rewards, rime.RIMELearner(setting(replay, rewards, 2)).learn(PreferenceBuffer(), 0))
    assert learning.epochs == 0 and learning.metrics == {} and torch.equal(rewards.networks.values, before)


@pytest.mark.parametrize("profile", ["quick", "laptop", "paper"])
def test_the_method_has_the_thresholds_of_rimes_own_command_in_every_profile(profile: str) -> None:
    thresholds = run_config("button-press-v3", "rime", 0, profile).filter
    assert (thresholds.mode, thresholds.alpha, thresholds.beta_max, thresholds.beta_min) == ("rime", 0.5, 3.0, 1.0)
    assert thresholds.upper == pytest.approx(3 * np.log(10))
