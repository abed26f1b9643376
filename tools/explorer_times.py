"""How soon the explorers have drawn what a moved slider asks for, without the way to the browser.

    python tools/explorer_times.py

Prints the median of 20 moves of one slider of each explorer, in milliseconds, on the stored runs of profile laptop:
on the clock, and of the processor, which other programs on a busy machine prolong less.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefvlm_core.explore import EpisodeExplorer, LabelExplorer, RunExplorer, ThresholdExplorer


def milliseconds(slider: Any, values: Sequence[float]) -> str:
    """The time of 20 moves of a slider to and fro between values, once it has been at each of them."""
    for value in values:
        slider.value = value
    times = []
    for value in itertools.islice(itertools.cycle(values), 20):
        started = time.perf_counter(), time.process_time()
        slider.value = value
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    clock, processor = 1000 * np.median(times, axis=0)
    return f"{clock:5.0f} ms on the clock {processor:5.0f} ms of the processor"


def main() -> None:
    """Print the table."""
    thresholds, runs = ThresholdExplorer("laptop"), RunExplorer("laptop")
    print(f"thresholds  {milliseconds(thresholds.lower, [0.2, 0.4, 0.8, 1.6])}")
    print(f"episode     {milliseconds(EpisodeExplorer('laptop').step, range(5, 105, 5))}")
    print(f"labels      {milliseconds(LabelExplorer('laptop').label, range(1, 21))}")
    print(f"runs        {milliseconds(runs.window, [1, 2, 3, 4])}")


if __name__ == "__main__":
    main()
