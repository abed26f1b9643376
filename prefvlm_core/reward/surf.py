"""SURF (Park et al. 2022, arXiv 2203.10050): reward learning from few labels, with pseudo-labels and temporal crops.

Every segment is kept with some steps before and after it. The members learn from random crops of both segments of a
labeled pair. They learn from crops of an unlabeled pair too, with the label that a member itself gives to the uncropped
pair, if it is confident enough (SURF §4.1 and §4.2). Each member learns only from its own pseudo-labels.

Deliberate deviation from the reference code: with the teacher `skip`, it compares the remaining pairs by the returns of
the widened segments; here the segments that were asked about are compared. As in the reference code, the number of
updates grows with the labels without early stopping, and the mean over unlabeled pairs counts rejected ones as 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.common.arrays import DoubleArray, IntArray
from prefvlm_core.config.groups import SURFConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer, bradley_terry_loss
from prefvlm_core.reward.learning import Learning, LearningSetting, RewardLearner, RewardLearning


def crop_masks(shape: tuple[int, int], length: int, config: SURFConfig, generator: np.random.Generator) -> Tensor:
    """Masks (*shape, 2, length + 2 window) of random crops of pairs of widened segments: 1 inside and 0 outside.

    Both crops of a pair have the same length, uniform in length ± crop, at independent uniform places.
    """
    whole = length + 2 * config.window
    lengths = generator.integers(length - config.crop, length + config.crop + 1, size=(*shape, 1))
    first = generator.integers(0, whole - lengths + 1, size=(*shape, 2))[..., None]
    steps = np.arange(whole)
    return torch.from_numpy(((steps >= first) & (steps < first + lengths[..., None])).astype(np.float32))


def pseudo_labels(returns: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Labels 0 or 1 (...) that returns (..., 2) imply, and whether their probability is at least `confidence` (...)."""
    second = torch.sigmoid(returns[..., 1] - returns[..., 0])
    return (second > 0.5).float(), torch.maximum(second, 1 - second) >= confidence


def shuffled(count: int, size: int, members: int, generator: np.random.Generator) -> Iterator[IntArray]:
    """Endless minibatches (members, at most `size`) of 0 to count - 1; a member sees all indices before any repeats."""
    while True:
        order = np.stack([generator.permutation(count) for _ in range(members)])
        yield from (order[:, first : first + size] for first in range(0, count, size))


class SURFLearner(RewardLearner):
    """Fits the members of one run to its labels, and to their own pseudo-labels of pairs that nobody is asked about.

    A segment is identified by its own first step; the `window` steps before and after it lie in the same episode.
    """

    def __init__(self, setting: LearningSetting) -> None:
        self.setting, self.config = setting, setting.config.surf
        self.length = setting.config.feedback.segment_length
        self.unlabelled: IntArray = np.empty((0, 2), np.int64)
        """Pairs that nobody is asked about, (u, 2)."""

    def learn(self, buffer: PreferenceBuffer, asked: int) -> Learning[RewardLearning]:
        """See `RewardLearner.learn`. It first draws `unlabelled_ratio` unlabeled pairs per query."""
        yield from ()  # its loss is one of its own, on which a run descends alone
        drawn = self.setting.pairs.draw(asked * self.config.unlabelled_ratio)
        self.unlabelled = np.concatenate((self.unlabelled, drawn))
        if not len(buffer):
            return RewardLearning(0, float("nan"))
        ensemble, generator, config = self.setting.ensemble, self.setting.generator, self.config
        members, size, device = ensemble.config.members, ensemble.config.batch_size, self.setting.replay.device
        updates = -(-config.epochs * len(buffer) // size)
        labelled_batches = shuffled(len(buffer), size, members, generator)
        unlabelled_batches = shuffled(len(self.unlabelled), size * config.unlabelled_batches, members, generator)
        counts = _Counts(members, self.setting.replay.true_labels(self.unlabelled, self.length), device)
        for _ in range(updates):
            chosen, others = next(labelled_batches), next(unlabelled_batches)
            labels = torch.from_numpy(buffer.labels[chosen]).to(device)
            returns = self._cropped(self._widened(buffer.starts[chosen]))
            rewards = self._widened(self.unlabelled[others])
            uncropped = rewards[..., config.window : config.window + self.length].detach().sum(-1)
            pseudo, accept = pseudo_labels(uncropped, config.confidence)
            loss = bradley_terry_loss(returns, labels).mean(-1)
            loss = loss + config.weight * (bradley_terry_loss(self._cropped(rewards), pseudo) * accept).mean(-1)
            ensemble.descend(loss.sum())
            counts.add_labelled(returns.detach(), labels)
            counts.add_pseudo(others, pseudo, accept)
        return RewardLearning(-(-updates * size // len(buffer)), counts.accuracy, counts.metrics())

    def _widened(self, starts: IntArray) -> Tensor:
        """Rewards (members, n, 2, length + 2 window) of segments `starts` (members, n, 2) and the steps around them."""
        first = torch.from_numpy(starts - self.config.window).to(self.setting.replay.device)
        return self.setting.ensemble.segment_rewards(self.setting.replay, first, self.length + 2 * self.config.window)

    def _cropped(self, rewards: Tensor) -> Tensor:
        """Returns (members, n, 2) of random crops of widened segments, from their rewards."""
        shape = (rewards.shape[0], rewards.shape[1])
        masks = crop_masks(shape, self.length, self.config, self.setting.generator)
        return (rewards * masks.to(rewards.device)).sum(-1)

    def tensors(self) -> dict[str, Tensor]:
        """The unlabeled pairs."""
        return {"unlabelled": torch.from_numpy(self.unlabelled)}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `tensors`."""
        self.unlabelled = tensors["unlabelled"].numpy()


class _Counts:
    """Counts, over the updates of a session, how often members agreed with labels and pseudo-labels with the truth.

    Args:
        members: Number of members of the ensemble.
        truth: P(second preferred) of the unlabeled pairs by the true reward, (u,), for the metrics only.
        device: Where the counts are kept until somebody asks for them.
    """

    def __init__(self, members: int, truth: DoubleArray, device: torch.device) -> None:
        self.members, self.truth, self.seen = members, truth, 0
        counts = (torch.zeros((), device=device) for _ in range(5))
        self.correct, self.decided, self.accepted, self.right, self.judged = counts

    def add_labelled(self, returns: Tensor, labels: Tensor) -> None:
        """Count the agreement of returns (members, n, 2) with labels (members, n)."""
        margin = returns[..., 1] - returns[..., 0]
        self.correct += (margin * (labels - 0.5) > 0).sum()
        self.decided += (labels != 0.5).sum()

    def add_pseudo(self, pairs: IntArray, pseudo: Tensor, accept: Tensor) -> None:
        """Count pseudo-labels (members, n) of unlabeled pairs (members, n); `accept` marks those confident enough."""
        true = torch.from_numpy(self.truth[pairs]).to(pseudo.device)
        self.seen += pairs.size
        self.accepted += accept.sum()
        self.judged += (accept & (true != 0.5)).sum()
        self.right += (accept & (true == pseudo)).sum()

    @property
    def accuracy(self) -> float:
        """Fraction of the labels other than 1/2 with which members agreed; nan if there were none."""
        return float(self.correct) / float(self.decided) if self.decided else float("nan")

    def metrics(self) -> dict[str, float]:
        """Columns for metrics.csv."""
        return {
            "pseudo_labels": float(self.accepted) / self.members,
            "pseudo_label_fraction": float(self.accepted) / self.seen,
            "pseudo_label_accuracy": float(self.right / self.judged) if self.judged else float("nan"),
        }
