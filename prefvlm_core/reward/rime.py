"""RIME (Cheng et al. 2024, arXiv 2402.17257): reward learning from noisy labels, by denoising and a warm start.

Before each pass over the labels, the divergence of each label from the ensemble's prediction decides whether the pass
keeps it, leaves it out or flips it (`RIMEThresholds`, RIME §4.2). Before the first labels, the ensemble is fitted to
the normalized state entropy that rewards the exploring agent; the critic is then kept after the first session (§4.3).

Deliberate deviations from the reference code:
- Its threshold starts from a largest trusted divergence of 0, so it trusts everything for several passes; here the
  first pass trusts everything, and the second already knows the divergences of the first.
- While the lower threshold is above the upper one, it trains on some pairs twice, kept and flipped; here they are only
  flipped.
- It measures the dispersion of the trusted divergences by their variance (at most 3); here, as in the paper, by their
  standard deviation.
- Its learning rate is 0 in the first pass of the warm-up, so that pass learns nothing; here it starts at the fraction
  1 / `rime.warm_up_epochs` of its full value.
- Its warm start draws five new batches per update and scales the entropy by the largest value seen so far, unlike the
  reward of the agent; here the ensemble takes five steps on the agent's batch, with the agent's normalization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.common.arrays import DoubleArray
from prefvlm_core.preferences.filters import Partition, RIMEThresholds, divergence
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.reward.ensemble import RunEnsemble
from prefvlm_core.reward.learning import Learning, LearningSetting, RewardLearner, RewardLearning


class Denoised(NamedTuple):
    """The labels of one pass."""

    buffer: PreferenceBuffer
    """The labels to learn from: trusted ones as they are, and flipped ones with the opposite label."""
    partition: Partition
    """What the thresholds decided about each label, (n,); `uncertain` ones are left out."""


def denoise(buffer: PreferenceBuffer, probabilities: DoubleArray, thresholds: RIMEThresholds) -> Denoised:
    """Split n labels by the ensemble's current P(second preferred) (n,), and show the thresholds the trusted ones.

    The first pass trusts every label.
    """
    divergences = divergence(buffer.labels, probabilities)
    if thresholds.sessions:
        partition = thresholds.split(divergences)
    else:
        nowhere = np.zeros(len(buffer), bool)
        partition = Partition(~nowhere, nowhere, nowhere)
    thresholds.observe(divergences[partition.clean])
    used = partition.clean | partition.flipped
    labels = np.where(partition.flipped, 1 - buffer.labels, buffer.labels)
    return Denoised(PreferenceBuffer(buffer.starts[used], labels[used]), partition)


class RIMELearner(RewardLearner):
    """Fits the members of one run to its denoised labels, and reports the accuracy of the denoiser in the last pass.

    What the thresholds call a session is here a pass over the labels.
    """

    def __init__(self, setting: LearningSetting) -> None:
        self.setting, self.config = setting, setting.config.rime
        self.length = setting.config.feedback.segment_length
        self.thresholds = RIMEThresholds(setting.config.filter)

    def learn(self, buffer: PreferenceBuffer, asked: int) -> Learning[RewardLearning]:
        """See `RewardLearner.learn`."""
        setting, ensemble = self.setting, self.setting.ensemble
        accuracy, epochs = float("nan"), 0
        partition: Partition | None = None
        while len(buffer) and epochs < ensemble.config.max_epochs:
            epochs += 1
            warm_up = min(1.0, (self.thresholds.sessions + 1) / self.config.warm_up_epochs)
            probabilities = ensemble.member_probabilities(setting.replay, buffer.starts, self.length)
            denoised, partition = denoise(buffer, probabilities.double().mean(0).cpu().numpy(), self.thresholds)
            if len(denoised):
                accuracy = yield from setting.one_pass(denoised, warm_up)
            if epochs >= self.config.minimum_epochs and accuracy > self.config.stop_accuracy:
                break
        if partition is None:
            return RewardLearning(epochs, accuracy)
        truth = setting.replay.true_labels(buffer.starts, self.length)
        return RewardLearning(epochs, accuracy, _metrics(partition, buffer, truth, self.thresholds))

    def values(self) -> dict[str, Any]:
        """The state of the thresholds."""
        return self.thresholds.state()

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `values`."""
        self.thresholds.restore(values)


def _metrics(
    partition: Partition, buffer: PreferenceBuffer, truth: DoubleArray, thresholds: RIMEThresholds
) -> dict[str, float]:
    """The last pass in numbers: labels flipped and left out, the accuracy of flipped and of kept ones, the thresholds.

    `truth` (n,) is P(second preferred) by the true reward, 0, 1/2 or 1; it is used for the metrics only.
    """
    decided = truth != 0.5
    flipped, clean = partition.flipped & decided, partition.clean & decided
    return {
        "flips": float(partition.flipped.sum()),
        "flip_accuracy": float(np.mean(1 - buffer.labels[flipped] == truth[flipped])) if flipped.any() else math.nan,
        "left_out": float(partition.uncertain.sum()),
        "kept_accuracy": float(np.mean(buffer.labels[clean] == truth[clean])) if clean.any() else math.nan,
        "tau_lower": thresholds.lower,
        "tau_upper": thresholds.upper,
    }


def warm_start(ensemble: RunEnsemble, inputs: Tensor, entropy: Tensor, updates: int) -> None:
    """Fit the members to the state entropy (n,) of inputs (n, O + A), by `updates` steps on the mean squared error."""
    for _ in range(updates):
        error = ensemble.member_rewards(inputs) - entropy
        ensemble.descend(error.square().mean(-1).sum())


def normalised_entropy(distance: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """RIME's exploration reward (n,): the state entropy, centered, in units of three standard deviations and clipped to
    [-1, 1]."""
    return torch.clamp((distance - mean) / (3 * std), -1, 1)
