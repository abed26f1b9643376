"""How soon the explorers have drawn what a moved slider asks for, without the way to the browser.

    python tools/explorer_times.py

Prints the median and the longest of 20 moves of one slider of each explorer, in milliseconds, on the stored runs of
profile laptop.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefvlm_core.explore import EpisodeExplorer, LabelExplorer, RunExplorer, ThresholdExplorer


def milliseconds(slider: Any, values: Sequence[float]) -> str:
    """The times of 20 moves of a slider to and fro between values, once it has been at each of them."""
    for value in values:
        slider.value = value
    times = []
    for value in itertools.islice(itertools.cycle(values), 20):
        started = time.perf_counter()
        slider.value = value
        times.append(1000 * (time.perf_counter() - started))
    return f"{np.median(times):4.0f} ms (median) {max(times):5.0f} ms (longest)"


def main() -> None:
    """Print the table."""
    thresholds, runs = ThresholdExplorer("laptop"), RunExplorer("laptop")
    print(f"thresholds  {milliseconds(thresholds.lower, [0.2, 0.4, 0.8, 1.6])}")
    print(f"episode     {milliseconds(EpisodeExplorer('laptop').step, range(5, 105, 5))}")
    print(f"labels      {milliseconds(LabelExplorer('laptop').label, range(1, 21))}")
    print(f"runs        {milliseconds(runs.window, [1, 2, 3, 4])}")


if __name__ == "__main__":
    main()
