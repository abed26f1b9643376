"""The run explorer: its curves against means taken from the published rows."""

import numpy as np
import pandas as pd
import pytest
from builders.explore import RESULTS, words

from prefvlm_core.experiments.opened import open_experiment
from prefvlm_core.explore.runs import RunExplorer, curve, mean_over_tasks, smoothed


@pytest.fixture(scope="module")
def evaluations() -> pd.DataFrame:
    return open_experiment("03_filter_ablation", "laptop", False, str(RESULTS)).evaluations


def test_a_curve_is_the_mean_over_tasks_of_the_mean_over_seeds(evaluations: pd.DataFrame) -> None:
    rows = evaluations[evaluations["arm"] == "prefvlm"]
    runs = curve(rows, "step", "success")
    assert len(runs.columns) == rows["run_id"].nunique() == 20
    by_step = 100 * rows.groupby(["step", "task"])["success"].mean().groupby("step").mean()
    np.testing.assert_allclose(mean_over_tasks(runs), by_step)
    assert list(runs.index) == list(range(2_500, 30_001, 2_500))
    returns = curve(rows, "step", "episode_return")  # which are no fractions
    np.testing.assert_allclose(returns.mean().mean(), rows["episode_return"].mean())


def test_tasks_weigh_the_same_whatever_their_seeds() -> None:
    columns = pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)], names=["task", "seed"])
    runs = pd.DataFrame([[0.0, 50.0, 100.0]], index=[5], columns=columns)
    assert mean_over_tasks(runs).to_dict() == {5: (25 + 100) / 2}


def test_smoothing_takes_the_mean_of_the_last_evaluations() -> None:
    runs = pd.DataFrame({"run": [0.0, 60.0, 30.0, 90.0]}, index=[1, 2, 3, 4])
    assert smoothed(runs, 3)["run"].tolist() == [0, 30, 30, 60]
    assert smoothed(runs, 1).equals(runs)


def test_against_labels_a_run_ends_at_the_labels_it_used(evaluations: pd.DataFrame) -> None:
    rows = evaluations[(evaluations["arm"] == "prefvlm") & (evaluations["task"] == "door-close-v3")]
    runs = curve(rows, "human_labels", "success")
    last = rows.sort_values("step").groupby("seed").last()
    assert runs.index[-1] == last["human_labels"].max()
    expected = rows[rows["step"] > 0.9 * rows["step"].max()].groupby("seed")["success"].mean()
    np.testing.assert_allclose(runs.iloc[-1].to_numpy(), 100 * expected)


def test_the_explorer_draws_what_is_chosen() -> None:
    explorer = RunExplorer("laptop", RESULTS)
    explorer.experiment.value = "03_filter_ablation"
    assert explorer.tasks.value == ("button-press-v3", "door-close-v3")
    lines = [len(explorer._picture._picture.axes.lines)]
    explorer.seeds.value = True
    lines.append(len(explorer._picture._picture.axes.lines))
    shown = explorer._evaluations[explorer._evaluations["arm"].isin(explorer.arms.value)]
    assert lines[1] - lines[0] == shown["run_id"].nunique()
    before = explorer._picture.view.value
    explorer.window.value = 3
    assert explorer._picture.view.value != before
    explorer.metric.value, explorer.arms.value = "clean_accuracy", ("prefvlm",)
    (end,) = [line for line in explorer._picture._picture.axes.lines if line.get_marker() == "o"]
    rows = explorer._evaluations.query("arm == 'prefvlm'")
    last_three = rows[rows["step"] >= 25_000].groupby(["task", "seed"])["clean_accuracy"].mean()
    assert end.get_ydata()[0] == pytest.approx(100 * last_three.groupby("task").mean().mean())
    explorer.experiment.value = "06_component_ablation"
    explorer.metric.value, explorer.arms.value = "clean_accuracy", ("human only",)
    assert "human only has no such measure" in words(explorer.words.value)
    explorer.arms.value = ()
    assert len(explorer._picture._picture.axes.lines) == 0
