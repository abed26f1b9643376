"""SURF (Park et al. 2022, arXiv 2203.10050): reward learning from few labels, with pseudo-labels and temporal crops.

Every segment is kept with some steps before and after it. A labelled pair is learned from through random crops of both
segments; an unlabelled pair likewise, with the label that the member itself gives to the uncropped pair, if it is
confident enough (SURF §4.1 and 4.2). Members learn from their own pseudo-labels only.

Of the original code's oddities, one matters and is not followed: with the teacher `skip`, it compares what is left by
the returns of the widened segments, not of the segments asked about. Followed are: the number of updates grows with
the labels and nothing stops it early, and the mean over unlabelled pairs counts the rejected ones as 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefvlm_core.agent.replay import IntArray, Replay
from prefvlm_core.config.run import SURFConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer, bradley_terry_loss
from prefvlm_core.reward.ensemble import RewardEnsemble, RewardLearning, segment_rewards


def crop_masks(shape: tuple[int, int], length: int, config: SURFConfig, generator: np.random.Generator) -> Tensor:
    """Random crops of pairs of widened segments, 1 inside and 0 outside: (*shape, 2, length + 2 window).

    Both crops of a pair have one length, uniform in length ± crop; each lies anywhere in its widened segment.
    """
    whole = length + 2 * config.window
    lengths = generator.integers(length - config.crop, length + config.crop + 1, size=(*shape, 1))
    first = generator.integers(0, whole - lengths + 1, size=(*shape, 2))[..., None]
    steps = np.arange(whole)
    return torch.from_numpy(((steps >= first) & (steps < first + lengths[..., None])).astype(np.float32))


def pseudo_labels(returns: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Label 0 or 1 that returns (..., 2) imply, and whether its probability is at least `confidence`: (...), (...)."""
    second = torch.sigmoid(returns[..., 1] - returns[..., 0])
    return (second > 0.5).float(), torch.maximum(second, 1 - second) >= confidence


def shuffled(count: int, size: int, members: int, generator: np.random.Generator) -> Iterator[IntArray]:
    """Without end, minibatches (members, at most `size`) of 0..count-1: each member sees all before any comes again."""
    while True:
        order = np.stack([generator.permutation(count) for _ in range(members)])
        yield from (order[:, first : first + size] for first in range(0, count, size))


def learn(
    ensemble: RewardEnsemble,
    replay: Replay,
    run: int,
    buffer: PreferenceBuffer,
    unlabelled: IntArray,
    truth: NDArray[np.float64],
    length: int,
    config: SURFConfig,
    generator: np.random.Generator,
) -> tuple[RewardLearning, dict[str, float]]:
    """Fit one run's members to its labels and to their own pseudo-labels of `unlabelled` pairs (u, 2).

    Segments are named by their own first step; the `window` before and after must lie in the same episode. truth:
    P(second preferred) of the unlabelled pairs by the true reward, (u,), for the metrics only.
    """
    if not len(buffer):
        return RewardLearning(0, float("nan")), {}
    networks, optimizer = ensemble.networks.of_run(run), ensemble.optimizer.of_run(run)
    device, members, size = replay.actions.device, ensemble.config.members, ensemble.config.batch_size
    updates = -(-config.epochs * len(buffer) // size)
    labelled_batches = shuffled(len(buffer), size, members, generator)
    unlabelled_batches = shuffled(len(unlabelled), size * config.unlabelled_batches, members, generator)
    correct, seen, decided = torch.zeros((), device=device), 0, 0
    accepted, right, judged = (torch.zeros((), device=device) for _ in range(3))

    def widened(starts: IntArray) -> Tensor:
        first = torch.from_numpy(starts - config.window).to(device)
        return segment_rewards(networks, replay, run, first, length + 2 * config.window)

    def cropped(rewards: Tensor) -> Tensor:
        shape = (rewards.shape[0], rewards.shape[1])
        return (rewards * crop_masks(shape, length, config, generator).to(device)).sum(-1)

    for _ in range(updates):
        chosen, others = next(labelled_batches), next(unlabelled_batches)
        labels = torch.from_numpy(buffer.labels[chosen]).to(device)
        returns = cropped(widened(buffer.starts[chosen]))
        rewards = widened(unlabelled[others])
        uncropped = rewards[..., config.window : config.window + length].detach().sum(-1)
        pseudo, accept = pseudo_labels(uncropped, config.confidence)
        loss = bradley_terry_loss(returns, labels).mean(-1)
        loss = loss + config.weight * (bradley_terry_loss(cropped(rewards), pseudo) * accept).mean(-1)
        networks.differentiate(loss.sum())
        optimizer.step()

        margin = (returns[..., 1] - returns[..., 0]).detach()
        correct += (margin * (labels - 0.5) > 0).sum()
        decided += int((buffer.labels[chosen] != 0.5).sum())
        seen += others.size
        true = torch.from_numpy(truth[others]).to(device)
        accepted += accept.sum()
        judged += (accept & (true != 0.5)).sum()
        right += (accept & (true == pseudo)).sum()
    accuracy = float(correct) / decided if decided else float("nan")
    return RewardLearning(-(-updates * size // len(buffer)), accuracy), {
        "pseudo_labels": float(accepted) / members,
        "pseudo_label_fraction": float(accepted) / seen,
        "pseudo_label_accuracy": float(right / judged) if judged else float("nan"),
    }
