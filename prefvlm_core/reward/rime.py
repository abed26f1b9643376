"""RIME (Cheng et al. 2024, arXiv 2402.17257): reward learning from noisy labels, by denoising and a warm start.

Before each pass over the labels, the divergence between each label and the ensemble's opinion decides: kept, left out
of this pass, or flipped for this pass (`KLFilter` in mode `rime`, RIME §4.2). Before the first labels, the ensemble is
fitted to the normalised state entropy that the agent explores with, and the agent's critic is kept (§4.3).

The original code differs in places, knowingly not followed here:
- Its threshold starts from a largest trusted divergence of 0, so it trusts everything for several passes; here the
  first pass trusts everything, and the second already knows the divergences of the first.
- While the lower threshold is above the upper one, it trains on the same pair twice, kept and flipped; here once.
- It takes the variance (at most 3) of the trusted divergences for their spread; here, as in the paper, the standard
  deviation.
- Its step size is 0 in the first pass of the warm-up, so the first pass teaches nothing; here it starts at one part.
- Its warm start draws five new batches per update and scales the entropy by the largest one ever seen, not as the agent
  sees it; here the ensemble takes five steps on the batch of the agent, with the agent's own normalisation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefvlm_core.agent.replay import Replay
from prefvlm_core.config.run import RIMEConfig
from prefvlm_core.preferences.filters import KLFilter, Partition, divergence
from prefvlm_core.preferences.pairs import PreferenceBuffer, preference_probability
from prefvlm_core.reward.ensemble import RewardEnsemble, RewardLearning, member_rewards


class Denoised(NamedTuple):
    """The labels of one pass."""

    buffer: PreferenceBuffer
    """What is learned from: trusted labels, and flipped ones already flipped."""
    partition: Partition
    """What became of each label (n,); `uncertain` ones are left out."""


def denoise(buffer: PreferenceBuffer, probabilities: NDArray[np.float64], kl_filter: KLFilter) -> Denoised:
    """Split labels by the ensemble's P(second preferred) of now, (n,), and let the filter take in the trusted ones."""
    divergences = divergence(buffer.labels, probabilities)
    if kl_filter.sessions:
        partition = kl_filter.split(divergences)
    else:
        none = np.zeros(len(buffer), bool)
        partition = Partition(~none, none, none)
    kl_filter.observe(divergences[partition.clean])
    used = partition.clean | partition.flipped
    labels = np.where(partition.flipped, 1 - buffer.labels, buffer.labels)
    return Denoised(PreferenceBuffer(buffer.starts[used], labels[used]), partition)


def learn(
    ensemble: RewardEnsemble,
    replay: Replay,
    run: int,
    buffer: PreferenceBuffer,
    truth: NDArray[np.float64],
    length: int,
    config: RIMEConfig,
    kl_filter: KLFilter,
    generator: np.random.Generator,
) -> tuple[RewardLearning, dict[str, float]]:
    """Fit one run's members to its denoised labels, and say how right the denoiser was in the last pass.

    truth: P(second preferred) by the true reward, 0, 1/2 or 1, (n,), for the metrics only. The filter counts passes.
    """
    accuracy, epochs = float("nan"), 0
    partition: Partition | None = None
    while len(buffer) and epochs < ensemble.config.max_epochs:
        epochs += 1
        step_size = min(1.0, (kl_filter.sessions + 1) / config.warm_up_epochs)
        returns = ensemble.member_returns(replay, run, buffer.starts, length)
        probabilities = preference_probability(returns).double().mean(0).cpu().numpy()
        denoised, partition = denoise(buffer, probabilities, kl_filter)
        if len(denoised):
            accuracy = ensemble.epoch(replay, run, denoised, length, generator, step_size)
        if epochs >= config.minimum_epochs and accuracy > config.stop_accuracy:
            break
    learning = RewardLearning(epochs, accuracy)
    return learning, _metrics(partition, buffer, truth, kl_filter) if partition is not None else {}


def _metrics(
    partition: Partition, buffer: PreferenceBuffer, truth: NDArray[np.float64], kl_filter: KLFilter
) -> dict[str, float]:
    """Of the last pass: labels flipped and left out, and how many of the flipped and of the kept ones are now right."""
    decided = truth != 0.5
    flipped, clean = partition.flipped & decided, partition.clean & decided
    return {
        "flips": float(partition.flipped.sum()),
        "flip_accuracy": float(np.mean(1 - buffer.labels[flipped] == truth[flipped])) if flipped.any() else math.nan,
        "left_out": float(partition.uncertain.sum()),
        "kept_accuracy": float(np.mean(buffer.labels[clean] == truth[clean])) if clean.any() else math.nan,
        "tau_lower": kl_filter.lower,
        "tau_upper": kl_filter.upper,
    }


def warm_start(ensemble: RewardEnsemble, run: int, inputs: Tensor, entropy: Tensor, updates: int) -> None:
    """Gradient updates of one run's members towards the normalised state entropy (n,) of inputs (n, O + A): mean
    squared error."""
    networks, optimizer = ensemble.networks.of_run(run), ensemble.optimizer.of_run(run)
    for _ in range(updates):
        error = member_rewards(networks, inputs) - entropy
        networks.differentiate(error.square().mean(-1).sum())
        optimizer.step()


def normalised_entropy(distance: Tensor, mean: float, std: float) -> Tensor:
    """State entropy (n,) as RIME rewards exploration with it: centred, in units of three standard deviations, clipped
    to [-1, 1]."""
    return torch.clamp((distance - mean) / (3 * std), -1, 1)
