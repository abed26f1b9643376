"""Figures with a row per arm: every run is a dot, marks are means, rows are sorted, nothing empty is shown."""

import numpy as np
import pytest
from builders.evaluations import FILTERS, FOUR_TASKS, TASKS, evaluated
from builders.figures import footer
from matplotlib.axes import Axes

from prefvlm_core.analysis.stats import run_table, stratified_bootstrap_interval
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.rows import ACCURACIES, final_success, label_accuracy


def names(axes: Axes) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]


def dots(axes: Axes, row: int) -> list[float]:
    """Small dots of a row, from its top."""
    found = [line for line in axes.lines if line.get_markersize() == 2.4 and round(np.mean(line.get_ydata())) == row]
    return np.concatenate([line.get_xdata() for line in found]).tolist() if found else []


def mark(axes: Axes, row: int) -> float:
    (found,) = [line for line in axes.lines if line.get_markersize() == 3.6 and line.get_ydata()[0] == row]
    return float(found.get_xdata()[0])


def bar(axes: Axes, row: int) -> list[float]:
    (found,) = [line for line in axes.lines if line.get_linewidth() == 2.0 and line.get_ydata()[0] == row]
    return list(found.get_xdata())


def test_every_run_is_a_dot_and_the_best_arm_comes_first() -> None:
    runs = run_table(evaluated(seeds=3))
    figure = final_success(runs, "quick")
    assert [axes.get_title() for axes in figure.axes] == ["button-press", "door-close"]
    means = runs.groupby(["arm", "task"])["success"].mean().groupby("arm").mean().sort_values(ascending=False)
    assert names(figure.axes[0]) == list(means.index)
    for axes, task in zip(figure.axes, ("button-press-v3", "door-close-v3"), strict=True):
        for row, arm in enumerate(means.index):
            single = 100 * runs[(runs["arm"] == arm) & (runs["task"] == task)].sort_values("seed")["success"]
            assert dots(axes, row) == pytest.approx(single.tolist())
            assert mark(axes, row) == pytest.approx(single.mean())
            assert np.isnan(bar(axes, row)).all()  # three seeds have no interval
    assert "dots: single runs; mark: mean" in footer(figure) and "fewer than 5 seeds, no interval" in footer(figure)


def test_many_runs_have_an_interval_instead_of_dots() -> None:
    runs = run_table(evaluated(TASKS[:1], seeds=20))
    figure = final_success(runs, "laptop")
    (axes,) = figure.axes
    arm = names(axes)[0]
    interval = stratified_bootstrap_interval(
        100 * runs.loc[runs["arm"] == arm, "success"].to_numpy(), np.mean, np.random.default_rng(0)
    )
    assert dots(axes, 0) == [] and bar(axes, 0) == pytest.approx(interval)
    assert "bar: 95 % stratified bootstrap interval of the mean" in footer(figure) and "dots" not in footer(figure)


def test_of_four_tasks_the_mean_is_shown_with_the_tasks_as_dots() -> None:
    runs = run_table(evaluated(FOUR_TASKS, seeds=2))
    runs = runs[(runs["arm"] != "sac") | (runs["task"] == "door-close-v3")]
    figure = final_success(runs, "quick")
    (axes,) = figure.axes
    assert axes.get_title() == "all tasks" and set(names(axes)) == {"pebble (400 labels)", "pebble (1200 labels)"}
    by_task = 100 * runs[runs["arm"] == names(axes)[0]].groupby("task")["success"].mean()
    assert dots(axes, 0) == pytest.approx(by_task.tolist()) and mark(axes, 0) == pytest.approx(by_task.mean())
    assert "not on every task, left out: sac" in footer(figure)


def test_of_one_seed_no_dot_is_drawn_twice() -> None:
    figure = final_success(run_table(evaluated(TASKS[:1], seeds=1)), "quick")
    assert "mechanism, one seed: no evidence of success" in footer(figure) and "dots" not in footer(figure)


def test_label_accuracy_is_that_at_the_end_and_flipped_labels_need_twenty() -> None:
    data = evaluated(arms=FILTERS)
    few = data["arm"] == "prefvlm"
    data.loc[few, "vlm_labels"] = 10  # so that about one per run is flipped
    figure = label_accuracy(data, "quick")
    axes = figure.axes[1]
    assert axes.get_title() == "door-close" and names(figure.axes[0]) == ["prefvlm", "adaptive thresholds", "no filter"]
    found = {
        (round(line.get_ydata()[0]), line.get_marker()): line.get_xdata()[0]
        for line in axes.lines
        if line.get_markersize() == 3.6
    }
    zero_shot, adapted, clean, flipped, uncertain = (mark.marker for mark in ACCURACIES.values())
    sorted_row = {zero_shot: 60, adapted: 65, clean: 230 / 3, uncertain: 50}
    expected = {(0, marker): value for marker, value in sorted_row.items()}
    expected |= {(1, marker): value for marker, value in (sorted_row | {flipped: 40}).items()}
    expected |= {(2, marker): sorted_row[marker] for marker in (zero_shot, adapted, clean)}
    assert found == pytest.approx(expected)
    assert [text.get_text() for text in figure.texts[1:]] == [mark.name for mark in ACCURACIES.values()]


def test_labels_of_a_vlm_without_adapters_are_one_mark() -> None:
    data = evaluated(arms=FILTERS)
    simulated = data["arm"] == "no filter"
    data.loc[simulated, "adapted_vlm_accuracy"] = data.loc[simulated, "vlm_accuracy"]
    figure = label_accuracy(data, "quick")
    zero_shot, adapted, *_ = (mark.marker for mark in ACCURACIES.values())
    for axes in figure.axes:
        found = {
            (round(line.get_ydata()[0]), line.get_marker()): line.get_xdata()[0]
            for line in axes.lines
            if line.get_markersize() == 3.6
        }
        assert found[2, "P"] == pytest.approx(60) and (0, "P") not in found
        assert not {(2, zero_shot), (2, adapted)} & set(found) and {(0, zero_shot), (0, adapted)} <= set(found)
    names_of_marks = [text.get_text() for text in figure.texts[1:]]
    assert sorted(names_of_marks) == sorted(["VLM without adapters", *(mark.name for mark in ACCURACIES.values())])


def test_what_cannot_be_drawn_is_named() -> None:
    runs = run_table(evaluated())
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['success'\]; use what stats.run_table"):
        final_success(runs.drop(columns="success"), "quick")
    apart = runs[(runs["arm"] == "sac") == (runs["task"] == "door-close-v3")]
    with pytest.raises(PrefVLMError, match="No arm ran on every task"):
        final_success(apart, "quick")
    with pytest.raises(PrefVLMError, match="evaluations of runs whose VLM labels has no row"):
        label_accuracy(evaluated().drop(columns=list(ACCURACIES)), "quick")
