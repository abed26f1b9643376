"""Pairs of segments, their labels, and the Bradley–Terry model that ties labels to rewards.

One convention everywhere: a label is P(second segment preferred), 0, 1/2 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from prefvlm_core.agent.replay import IntArray

FloatArray = npt.NDArray[np.float32]


def bradley_terry_loss(returns: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of labels (..., n) under P(second) = sigmoid(R2 - R1); returns (..., n, 2) -> (..., n)."""
    return functional.binary_cross_entropy_with_logits(returns[..., 1] - returns[..., 0], labels, reduction="none")


def preference_probability(returns: Tensor) -> Tensor:
    """P(second segment preferred) of segment returns (..., 2): (...)."""
    return torch.sigmoid(returns[..., 1] - returns[..., 0])


@dataclass
class PreferenceBuffer:
    """The labelled pairs of one run, in the order in which they were asked."""

    starts: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """First step of both segments, (n, 2)."""
    labels: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))
    """P(second preferred), (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, starts: IntArray, labels: FloatArray) -> None:
        """Append pairs (n, 2) with their labels (n,)."""
        self.starts = np.concatenate((self.starts, starts))
        self.labels = np.concatenate((self.labels, labels.astype(np.float32)))
