"""Success against a number: means in their places, single runs as dots, levels for what has no number."""

import numpy as np
import pytest
from builders.evaluations import FOUR_TASKS, TASKS, evaluated
from builders.figures import footer
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from prefvlm_core.analysis.stats import run_table
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.budgets import success_against_budget

ARMS = [("sac", "sac", 0), *(("pebble", f"pebble ({labels})", labels) for labels in (20, 40, 80))]
ARMS += [("prefvlm", "prefvlm (20)", 20)]


def line_of(axes: Axes, color: str, marker: str = "None") -> Line2D:
    (line,) = [line for line in axes.lines if to_hex(line.get_color()).upper() == color and line.get_marker() == marker]
    return line


def test_one_task_shows_means_runs_and_a_level() -> None:
    runs = run_table(evaluated(TASKS[:1], ARMS, seeds=3))
    figure = success_against_budget(runs, "quick")
    (axes,) = figure.axes
    means = 100 * runs.groupby("arm")["success"].mean()
    pebble = line_of(axes, "#D55E00")
    np.testing.assert_allclose(pebble.get_xdata(), [20, 40, 80])
    np.testing.assert_allclose(pebble.get_ydata(), [means[f"pebble ({labels})"] for labels in (20, 40, 80)])
    assert line_of(axes, "#000000").get_ydata()[0] == pytest.approx(means["sac"])
    dots = [line for line in axes.lines if line.get_markersize() == 2.4]
    assert [len(line.get_xdata()) for line in dots] == [0, 9, 3]  # sac's level has none
    np.testing.assert_allclose(
        sorted(dots[2].get_ydata()), sorted(100 * runs[runs["arm"] == "prefvlm (20)"]["success"])
    )
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [20, 40, 80]
    assert [text.get_text() for text in figure.texts[1:]] == ["sac", "pebble", "prefvlm"]
    assert "all tasks" not in footer(figure)


def test_all_tasks_stand_at_their_mean_budget() -> None:
    runs = run_table(evaluated(FOUR_TASKS, ARMS[1:4], seeds=6))
    runs["budget"] = runs["budget"].where(runs["task"] != TASKS[0], 3 * runs["budget"])
    figure = success_against_budget(runs, "quick")
    above, *below = figure.axes
    assert "all tasks: at the mean of their budgets" in footer(figure)
    assert above.get_title() == "all tasks" and len(below) == 4
    assert list(above.get_xticks()) == [30, 60, 120]  # (3 + 1 + 1 + 1) / 4 times 20, 40 and 80
    expected = runs.groupby(["arm", "task"])["success"].mean().groupby("arm").mean()
    assert line_of(above, "#D55E00").get_ydata()[0] == pytest.approx(100 * expected["pebble (20)"])
    (bars,) = above.collections
    low, high = bars.get_segments()[0][:, 1]
    assert low < 100 * expected["pebble (20)"] < high
    assert not [line for line in above.lines if line.get_markersize() == 2.4]


def test_what_cannot_be_drawn_is_named() -> None:
    runs = run_table(evaluated(TASKS, ARMS))
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['budget'\]; use what stats.run_table"):
        success_against_budget(runs.drop(columns="budget"), "quick")
    many = [(method, method, 10) for method in ("pebble", "prefvlm", "surf", "rune", "mrn", "rime")]
    with pytest.raises(PrefVLMError, match="6 lines cannot be told apart; choose at most 5 families"):
        success_against_budget(run_table(evaluated(TASKS, many)), "quick")
