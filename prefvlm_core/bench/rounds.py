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
        seen.append([wall_seconds(work) for work in works])
    return list(np.array(seen[1:]).T)


def wall_seconds(work: Callable[[], object]) -> float:
    """Those of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compared(
    name: str, unit: str, ours: Speeds | list[float], other: Speeds | list[float], against: str, target: str = ""
) -> Measurement:
    """Medians over the rounds of two things that took turns, and the median of their ratio."""
    ratio = np.median(np.divide(ours, other))
    return Measurement(name, unit, float(np.median(ours)), float(np.median(other)), float(ratio), against, target)
