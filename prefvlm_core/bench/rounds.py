"""Things that are compared take turns, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prefvlm_core.bench import Measurement

Speeds = NDArray[np.float64]
"""Units of work per second in each round, (rounds,)."""


def seconds_of(works: Sequence[Callable[[], object]], rounds: int) -> list[Speeds]:
    """Wall seconds (rounds,) of each of the works, which take turns, after a round that warms caches."""
    seen = []
    for _ in range(rounds + 1):
        seconds = []
        for work in works:
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        seen.append(seconds)
    return list(np.array(seen[1:]).T)


def compared(
    name: str, unit: str, ours: Speeds | list[float], other: Speeds | list[float], against: str, target: str = ""
) -> Measurement:
    """Medians over the rounds of two things that took turns, and the median of their ratio."""
    ratio = np.median(np.divide(ours, other))
    return Measurement(name, unit, float(np.median(ours)), float(np.median(other)), float(ratio), against, target)
