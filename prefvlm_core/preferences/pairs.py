"""Pairs of segments, their labels, and the Bradley–Terry model that relates labels to rewards.

Throughout the package, a label is P(second segment preferred): 0, 1 or, for a tie, 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.common.arrays import FloatArray, IntArray


def bradley_terry_loss(returns: Tensor, labels: Tensor, reliability: Tensor | None = None) -> Tensor:
    """Cross-entropy (..., n) of labels (..., n) under P(second) = sigmoid(R2 - R1), for segment returns (..., n, 2).

    With `reliability` r, the probability (..., n) with which each label is right, labels are compared with
    r P + (1 - r) (1 - P) instead, what a labeler as reliable says of a pair (forward correction, Patrini et al. 2017).
    """
    if reliability is not None:
        return _corrected_loss(returns[..., 1] - returns[..., 0], labels, reliability)
    return functional.binary_cross_entropy_with_logits(returns[..., 1] - returns[..., 0], labels, reduction="none")


def _corrected_loss(margin: Tensor, labels: Tensor, reliability: Tensor) -> Tensor:
    right, wrong = torch.log(reliability), torch.log1p(-reliability)
    second = torch.logaddexp(right + functional.logsigmoid(margin), wrong + functional.logsigmoid(-margin))
    first = torch.logaddexp(right + functional.logsigmoid(-margin), wrong + functional.logsigmoid(margin))
    return -labels * second - (1 - labels) * first


def preference_probability(returns: Tensor) -> Tensor:
    """P(second segment preferred) (...) for segment returns (..., 2)."""
    return torch.sigmoid(returns[..., 1] - returns[..., 0])


@dataclass
class PreferenceBuffer:
    """Labeled pairs of one run, in the order in which they were added."""

    starts: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """First steps of both segments, (n, 2)."""
    labels: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))
    """P(second preferred), (n,)."""
    judged: int | None = None
    """Number of first pairs on which learning is judged; None: all."""
    reliability: FloatArray | None = None
    """Probability with which each label is right, (n,); None: learning takes all labels at their word."""

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, starts: IntArray, labels: FloatArray) -> None:
        """Append pairs (n, 2) with their labels (n,)."""
        self.starts = np.concatenate((self.starts, starts))
        self.labels = np.concatenate((self.labels, labels.astype(np.float32)))
