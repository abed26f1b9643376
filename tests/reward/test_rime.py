"""RIME: thresholds by hand, what is kept and flipped, the warm start, and noisy labels made harmless."""

import math

import numpy as np
import pytest
import torch
from builders.rewards import CPU, LENGTH, ensemble, labelled, random_replay

from prefvlm_core.config.run import FilterConfig, RewardConfig, RIMEConfig
from prefvlm_core.preferences.filters import KLFilter
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward import rime
from prefvlm_core.reward.ensemble import RewardEnsemble


def pairs(labels: list[float]) -> PreferenceBuffer:
    return PreferenceBuffer(np.arange(2 * len(labels)).reshape(-1, 2), np.array(labels, np.float32))


def test_the_first_pass_trusts_everything_and_the_second_splits_by_rimes_thresholds() -> None:
    kl_filter = KLFilter(FilterConfig(beta_sessions=600))
    buffer, probabilities = pairs([1, 0, 1, 0]), np.array([0.9, 0.2, 0.5, 0.6])
    first = rime.denoise(buffer, probabilities, kl_filter)
    assert first.partition.clean.all() and first.buffer.labels.tolist() == [1, 0, 1, 0]
    trusted = [-math.log(0.9), -math.log(0.8), -math.log(0.5), -math.log(0.4)]
    rho = max(trusted)
    beta = 3 - (3 - 1) / 600
    lower = -math.log(rho) + 0.5 * rho + beta * float(np.std(trusted))
    assert kl_filter.lower == pytest.approx(lower)
    assert lower < 2 < 6.9 < kl_filter.upper == pytest.approx(-math.log(0.001))
    # Divergences now: 0.105 kept, 2.30 left out, 9.2 flipped, ln 2 - ln 2 = 0 of an equal label kept.
    second = rime.denoise(pairs([1, 1, 0, 0.5]), np.array([0.9, 0.1, 1 - 1e-4, 0.5]), kl_filter)
    assert second.partition.clean.tolist() == [True, False, False, True]
    assert second.partition.flipped.tolist() == [False, False, True, False]
    assert second.buffer.labels.tolist() == [1, 1, 0.5]
    assert second.buffer.starts.tolist() == [[0, 1], [4, 5], [6, 7]]
    # Statistics take in what was trusted only: rho moves a tenth of the way to 0.105.
    assert kl_filter._rho == pytest.approx(rho + 0.1 * (-math.log(0.9) - rho))
    assert kl_filter.sessions == 2


def test_entropy_is_centred_scaled_and_clipped() -> None:
    distances = torch.tensor([0.0, 2.0, 5.0, 50.0])
    assert rime.normalised_entropy(distances, 2.0, 1.0).tolist() == pytest.approx([-2 / 3, 0, 1, 1])


def test_the_warm_start_fits_the_entropy() -> None:
    rewards = ensemble()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 6, generator=generator)
    entropy = torch.tanh(inputs[:, 0])
    other = rewards.networks.values[1].clone()
    rime.warm_start(rewards, 0, inputs, entropy, 300)
    error = rime.member_rewards(rewards.networks.of_run(0), inputs) - entropy
    assert float(error.detach().square().mean(-1).max()) < 0.1 * float(entropy.var())
    assert torch.equal(rewards.networks.values[1], other)


def noisy(seed: int) -> tuple[PreferenceBuffer, np.ndarray]:
    """400 labels, a fifth of them wrong, and the truth."""
    buffer = labelled(random_replay(), 400, seed)
    wrong = np.random.default_rng(seed).random(400) < 0.2
    truth = buffer.labels.astype(np.float64)
    return PreferenceBuffer(buffer.starts, np.where(wrong, 1 - buffer.labels, buffer.labels)), truth


def test_flips_are_right_and_the_reward_generalises_better_than_without() -> None:
    """Trained for long on labels of which a fifth is wrong: plain learning fits the mistakes too."""
    replay = random_replay()
    held_out = labelled(replay, 1000, seed=9)
    config = RewardConfig(hidden_layers=2, width=32, learning_rate=3e-3, batch_size=32, max_epochs=40)

    def accuracy(rewards: RewardEnsemble) -> float:
        returns = rewards.member_returns(replay, 0, held_out.starts, LENGTH).mean(0)
        return float(((returns[:, 1] > returns[:, 0]).numpy() == held_out.labels).mean())

    gains = []
    for seed in (3, 4):
        buffer, truth = noisy(seed)
        plain, denoised = (RewardEnsemble(config, 6, [np.random.default_rng(0)], CPU) for _ in range(2))
        plain.learn(replay, 0, buffer, LENGTH, np.random.default_rng(2))
        kl_filter = KLFilter(FilterConfig(beta_sessions=20, upper=2.0))
        common = buffer, truth, LENGTH, RIMEConfig(warm_up_epochs=1), kl_filter
        learning, metrics = rime.learn(denoised, replay, 0, *common, np.random.default_rng(2))
        assert metrics["flips"] > 20 and metrics["flip_accuracy"] > 0.75 and metrics["kept_accuracy"] > 0.9
        assert learning.epochs == kl_filter.sessions <= 40
        gains.append(accuracy(denoised) - accuracy(plain))
    assert np.mean(gains) > 0.015


def test_passes_stop_no_earlier_than_the_minimum() -> None:
    replay, rewards = random_replay(), ensemble()
    easy = labelled(replay, 10, seed=1)
    learn = easy, easy.labels.astype(np.float64), LENGTH, RIMEConfig(warm_up_epochs=1, minimum_epochs=30)
    learning, _ = rime.learn(rewards, replay, 0, *learn, KLFilter(FilterConfig()), np.random.default_rng(2))
    assert 30 <= learning.epochs < 60 and learning.accuracy > 0.98


def test_without_labels_nothing_is_learned() -> None:
    replay, rewards = random_replay(), ensemble()
    before = rewards.networks.values.clone()
    nothing = PreferenceBuffer(), np.empty(0), LENGTH, RIMEConfig()
    learning, metrics = rime.learn(rewards, replay, 0, *nothing, KLFilter(FilterConfig()), np.random.default_rng(2))
    assert learning.epochs == 0 and metrics == {} and torch.equal(rewards.networks.values, before)
