"""A simulated VLM that is right with a given probability. It shows what the method does with a better or a worse VLM.

Its errors are independent of each other and of what a segment looks like. Those of a real model are neither, so
filtering them is harder.
"""

from __future__ import annotations

import numpy as np

from prefvlm_core.common.arrays import DoubleArray, FloatArray, IntArray
from prefvlm_core.common.seeding import Stream, generator


def simulated_returns(starts: IntArray, truth: DoubleArray, accuracy: float, seed: int) -> FloatArray:
    """Returns (n, 2) that order a pair as the true reward does with probability `accuracy`, else the other way round.

    True ties are ordered either way with equal probability. The order of a pair depends only on the pair and `seed`.

    Args:
        starts: First steps of the pairs' segments, (n, 2).
        truth: P(second preferred) by the true reward, 0, 1/2 or 1, (n,).
        accuracy: Probability of the true order.
        seed: Seed of the run.
    """
    drawn = [generator(seed, Stream.SIMULATED_VLM, *map(int, pair)).random(2) for pair in starts]
    right, coin = np.array(drawn).reshape(-1, 2).T
    second = np.where(truth == 0.5, coin < 0.5, (right < accuracy) == (truth == 1))
    return np.stack((np.zeros(len(starts)), np.where(second, 1, -1)), axis=1).astype(np.float32)
