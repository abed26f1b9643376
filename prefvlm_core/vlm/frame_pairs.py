"""Pairs of segments by the frames that they show, whose embeddings are looked up a few at a time.

Segments of different pairs overlap, and a robot that stands still shows the same frame again and again: adapters learn
from each different frame of a batch once.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.arrays import FloatArray, IntArray

Contents = NDArray[np.uint64]
"""What tells frames apart: a hash of each frame's embedding."""


class FramePairs(NamedTuple):
    """n pairs of segments of F frames each. Frames are numbered in the order in which they first appear."""

    shown: IntArray
    """The number of each frame that a segment shows, (n, 2, F)."""
    embeddings: Callable[[IntArray], FloatArray]
    """Maps numbers of frames (K,) to their embeddings (K, D)."""

    def __len__(self) -> int:
        return len(self.shown)

    def batch(self, chosen: IntArray) -> tuple[FloatArray, IntArray]:
        """Embeddings (K, D) of the frames that the pairs `chosen` (m,) show, each once and in the order of their
        numbers, and which of them each segment shows, (m, 2, F)."""
        used, shown = np.unique(self.shown[chosen], return_inverse=True)
        return self.embeddings(used), shown.reshape(len(chosen), *self.shown.shape[1:])

    @staticmethod
    def of(frames: FloatArray) -> FramePairs:
        """The pairs whose frames have the embeddings (n, 2, F, D)."""
        rows = frames.reshape(-1, frames.shape[-1])
        return pairs_of(contents(rows).reshape(frames.shape[:-1]), lambda first: rows[first])


def pairs_of(shown: Contents, embeddings: Callable[[IntArray], FloatArray]) -> FramePairs:
    """The pairs whose segments show frames with the contents `shown` (n, 2, F).

    `embeddings` maps indices (K,) into the flattened `shown` to embeddings (K, D).
    """
    _, first, content = np.unique(shown, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    where = first[order]
    return FramePairs(number[content].reshape(shown.shape), lambda numbers: embeddings(where[numbers]))


def contents(frames: FloatArray) -> Contents:
    """The contents (K,) of frames with embeddings (K, D)."""
    digests = [blake2b(frame, digest_size=8).digest() for frame in np.ascontiguousarray(frames)]
    return np.frombuffer(b"".join(digests), np.uint64)
