"""Plain means over tasks, with their intervals, as figures show them.

The mean over tasks is the mean of the tasks' means, so that tasks count alike however many runs they have.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.arrays import DoubleArray

FEWEST_SEEDS = 5
"""Of each task, from which on a mean gets an interval: with fewer it would be much too narrow (see `stats`)."""
FEWEST_TASKS = 3
"""From which on a mean over tasks is shown: of two, both are."""
RESAMPLES = 2_000


def mean_over_tasks(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of the mean over seeds, row by row: columns mean, low and high (95 % percentile bootstrap).

    `runs`: one column per run, labeled (task, seed), no value missing. Seeds are drawn within each task, the same ones
    for every row, so that neighboring rows differ by the data, not by chance. The interval is nan where a task has
    fewer than `FEWEST_SEEDS`.
    """
    tasks = [of_task.to_numpy(np.float64) for _, of_task in runs.T.groupby(level="task")]
    mean = np.mean([values.mean(0) for values in tasks], axis=0)
    low = high = np.full(len(runs), np.nan)
    if min(map(len, tasks)) >= FEWEST_SEEDS:
        low, high = interval_of_means(tasks, np.random.default_rng(0), RESAMPLES)
    return pd.DataFrame({"mean": mean, "low": low, "high": high}, index=runs.index)


def interval_of_means(
    tasks: Sequence[DoubleArray], generator: np.random.Generator, resamples: int
) -> tuple[DoubleArray, DoubleArray]:
    """Low and high of the 95 % percentile bootstrap interval of the mean over tasks of the mean over seeds.

    `tasks`: per task its values, (seeds,) or (seeds, n), of which the bounds are 0-d or (n,). Seeds are drawn within
    each task.
    """
    drawn = [values[generator.integers(len(values), size=(resamples, len(values)))].mean(1) for values in tasks]
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975), axis=0)
    return low, high


def mean_of_runs(runs: pd.DataFrame, value: str) -> pd.Series:
    """`mean_over_tasks` of one number per run; `runs` has the columns task, seed and `value`."""
    return mean_over_tasks(runs.set_index(["task", "seed"])[[value]].T).iloc[0]


def shown_tasks(tasks: pd.Series) -> list[str]:
    """The tasks that have a panel of their own: all of one or two, else their mean alone."""
    names = sorted(set(tasks) - {ALL_TASKS})
    return names if len(names) < FEWEST_TASKS else [ALL_TASKS]


def complete(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of what ran on every task, by the column `name`; the others cannot be compared with them."""
    return runs[runs.groupby(name)["task"].transform("nunique") == runs["task"].nunique()]
