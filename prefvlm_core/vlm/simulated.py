"""A simulated VLM, right with a given probability: what the method would do with a better or a worse one.

Its errors are independent of each other and of what a segment looks like; those of a real model are neither, so a
filter has it easier here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.agent.replay import IntArray
from prefvlm_core.common.seeding import Stream, generator


def simulated_returns(starts: IntArray, truth: NDArray[np.float64], accuracy: float, seed: int) -> NDArray[np.float32]:
    """Returns (n, 2) that order pairs `starts` (n, 2) as their `truth` (n,) does, P(second preferred) 0, 1/2 or 1, with
    probability `accuracy`, and the other way round otherwise. A run of a given `seed` always orders a pair alike; pairs
    of equal true return go either way."""
    drawn = [generator(seed, Stream.SIMULATED_VLM, *map(int, pair)).random(2) for pair in starts]
    right, coin = np.array(drawn).reshape(-1, 2).T
    second = np.where(truth == 0.5, coin < 0.5, (right < accuracy) == (truth == 1))
    return np.stack((np.zeros(len(starts)), np.where(second, 1, -1)), axis=1).astype(np.float32)
