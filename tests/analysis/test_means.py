"""Means over tasks: tasks count alike, and the interval covers as often as it says."""

import numpy as np
import pandas as pd
import pytest

from prefvlm_core.analysis.means import complete, mean_of_runs, mean_over_tasks, shown_tasks


def table(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [(task, seed, value) for task, numbers in values.items() for seed, value in enumerate(numbers)]
    return pd.DataFrame(rows, columns=["task", "seed", "success"])


def test_tasks_count_alike_however_many_runs_they_have() -> None:
    mean = mean_of_runs(table({"a": [0.0, 1.0], "b": [1.0] * 6}), "success")
    assert mean["mean"] == 0.75  # not 7 / 8, which all runs together would be
    assert np.isnan(mean["low"]) and np.isnan(mean["high"])  # a task has two runs only


def test_intervals_of_two_tasks_are_those_of_a_sum_of_two_means() -> None:
    generator = np.random.default_rng(1)
    values = {"a": generator.normal(0, 1, 400).tolist(), "b": generator.normal(5, 3, 100).tolist()}
    mean = mean_of_runs(table(values), "success")
    error = np.sqrt(np.var(values["a"]) / 400 + np.var(values["b"]) / 100) / 2
    middle = (np.mean(values["a"]) + np.mean(values["b"])) / 2
    assert mean["mean"] == pytest.approx(middle)
    assert (mean["low"], mean["high"]) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.1 * error)


def test_rows_that_are_equal_have_equal_intervals() -> None:
    runs = table({"a": [0, 1, 2, 3, 4], "b": [9, 8, 7, 3, 0]}).set_index(["task", "seed"])["success"]
    both = mean_over_tasks(pd.DataFrame([runs, runs, 2 * runs]))
    assert both.iloc[0].tolist() == both.iloc[1].tolist()
    np.testing.assert_allclose(both.iloc[2], 2 * both.iloc[0])


def test_of_two_tasks_both_are_shown_of_three_their_mean() -> None:
    assert shown_tasks(pd.Series(["b", "a", "b", "all tasks"])) == ["a", "b"]
    assert shown_tasks(pd.Series(["b", "a", "c"])) == ["all tasks"]


def test_only_what_ran_everywhere_is_complete() -> None:
    runs = pd.DataFrame([("x", "a"), ("x", "b"), ("y", "a"), ("y", "a")], columns=["arm", "task"])
    assert complete(runs, "arm")["arm"].unique().tolist() == ["x"]
