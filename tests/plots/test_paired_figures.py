"""Figures of paired comparisons: what is drawn equals the tables."""

import numpy as np
import pandas as pd
import pytest
from builders.evaluations import steady
from builders.figures import check_text, footer
from builders.scores import comparison
from matplotlib.axes import Axes

from prefvlm_core.analysis.paired import difference_table, planned_differences, worth_table
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.paired import differences, label_equivalents, planned


def rows(axes: Axes) -> list[tuple[str, float, tuple[float, float]]]:
    """(name, dot, bar) of each row from the top."""
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
    bars = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.0}
    return [(name, dots[index], bars[index]) for index, name in enumerate(names)]


def test_label_equivalents_stand_above_the_budgets_of_pebble() -> None:
    scores = comparison()
    figure = label_equivalents(worth_table(scores), scores, "quick")
    (axes,) = figure.axes
    check_text(figure)
    ((name, dot, bar),) = rows(axes)
    assert name == "ours" and (dot, *bar) == pytest.approx((2, 2, 2))
    assert axes.get_xscale() == "log" and axes.get_xlim()[1] > 5  # where ROVED's claim stands
    score = worth_table(scores)["score"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        f"{number}×B\n{100 * score[index]:.0f} %" for index, number in enumerate((1, 2))
    ]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    (claims,) = [line for line in axes.lines if line.get_marker() == "|"]
    assert list(cross.get_xdata()) == [1] and list(claims.get_xdata()) == [2, 5]
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["≥ 2\n(≥ 2 to ≥ 2)"]
    (arrow,) = [text for text in axes.texts if not text.get_text()]  # to the right: that much or more
    assert arrow.xy[0] > 2 == arrow.get_position()[0]
    assert sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches) == [
        (pytest.approx(axes.get_xlim()[0]), 1),
        (2, pytest.approx(axes.get_xlim()[1])),
    ]


def test_rows_are_sorted_and_an_open_end_at_the_left_is_an_arrow_to_the_left() -> None:
    scores = comparison()
    table = worth_table(scores)
    row = table[table["mean"].notna()].iloc[[0]]
    table = pd.concat([table, row.assign(arm="pebble B", mean=1.0, low=1.0, high=1.4)])
    (axes,) = label_equivalents(table, scores, "quick").axes
    assert [(name, dot) for name, dot, _ in rows(axes)] == [("ours", pytest.approx(2)), ("pebble B", 1)]
    assert [text.get_text() for text in axes.texts if text.get_text()][1] == "≤ 1\n(≤ 1 to 1.4)"
    left = [text for text in axes.texts if not text.get_text() and text.get_position()[1] == 1]
    assert [arrow.xy[0] < 1 for arrow in left] == [True]


def test_differences_are_in_points_beside_the_margin() -> None:
    scores = comparison()
    figure = differences(difference_table(scores, "pebble 2B"), scores, "quick", 0.1)
    (axes,) = figure.axes
    check_text(figure)
    assert [(name, round(dot)) for name, dot, _ in rows(axes)] == [("ours", 0), ("pebble B", -40), ("no human", -50)]
    assert [text.get_text() for text in axes.texts][1] == "−40\n(−40 to −40)"
    (margin,) = axes.patches
    assert np.array(margin.get_bbox()).ravel()[[0, 2]] == pytest.approx((-10, 0))
    assert "difference from pebble 2B (points)" in axes.get_xlabel()


def test_a_bound_that_is_rounded_to_zero_keeps_its_sign() -> None:
    scores = comparison()
    table = difference_table(scores, "pebble 2B")
    near = table.assign(mean=np.where(table["arm"] == "ours", -0.066, table["mean"]), low=-0.147, high=-0.0008)
    (axes,) = differences(near, scores, "quick", 0.1).axes
    assert axes.texts[0].get_text() == "−7\n(−15 to −0)"


def test_few_seeds_are_shown_without_an_interval() -> None:
    scores = comparison()
    scores = scores[scores["seed"] < 4]
    for figure, words in (
        (label_equivalents(worth_table(scores), scores, "quick"), "≥ 2"),
        (differences(difference_table(scores, "pebble 2B"), scores, "quick", 0.1), "+0"),
    ):
        assert words in [text.get_text() for text in figure.axes[0].texts]
        assert "fewer than 5 seeds, no interval" in footer(figure) and "bootstrap" not in footer(figure)


def test_areas_have_units_of_their_own_and_nothing_to_draw_is_said() -> None:
    scores = comparison()
    table = difference_table(scores, "pebble 2B")
    figure = differences(table, scores, "quick", 0.1, measure="log_return_area")
    assert "points" not in figure.axes[0].get_xlabel()
    with pytest.raises(PrefVLMError, match="no arm to draw"):
        differences(table[table["measure"] == "success_area"], scores, "quick", 0.1)


def test_planned_differences_have_a_panel_per_arm_that_others_are_compared_with() -> None:
    successes = {
        "prefvlm": {"a": [0.5] * 5, "b": [0.3] * 5},
        "no filter": {"a": [0.6] * 5, "b": [0.2] * 5},
        "human only": {"a": [0.9] * 5, "b": [0.9] * 5},
        "pictures": {"a": [0.4] * 5, "b": [0.4] * 5},
    }
    against = {"no filter": "prefvlm", "human only": "prefvlm", "pictures": "human only"}
    figure = planned(planned_differences(steady(successes, against)), "laptop")
    check_text(figure)
    above, below = figure.axes
    assert [axes.get_title() for axes in (above, below)] == ["compared with human only", "compared with prefvlm"]
    ((name, mark, bar),) = rows_of(above)
    assert (name, round(mark), [round(end) for end in bar]) == ("pictures", -50, [-50, -50])
    assert [(name, round(mark)) for name, mark, _ in rows_of(below)] == [("human only", 50), ("no filter", 0)]
    assert [text.get_text() for text in below.texts] == ["+50\n(+50 to +50)", "+0\n(+0 to +0)"]
    tasks = [line.get_xdata() for line in below.lines if line.get_markersize() == 2.4]
    assert [sorted(dots.round()) for dots in map(np.array, tasks)] == [[40, 60], [-10, 10]]
    assert above.get_xlim() == below.get_xlim() and "10 pairs of runs" in footer(figure)
    (level,) = below.patches
    assert np.array(level.get_bbox()).ravel()[[0, 2]] == pytest.approx((-10, 10))


def rows_of(axes: Axes) -> list[tuple[str, float, tuple[float, float]]]:
    """As `rows`, of marks as large as those of means."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    marks = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_markersize() == 3.6}
    bars = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.0}
    return [(name, marks[index], bars[index]) for index, name in enumerate(names)]


def test_planned_differences_of_few_seeds_have_no_bars_and_of_no_arm_no_figure() -> None:
    gaps = planned_differences(steady({"x": {"a": [0.1] * 3}, "y": {"a": [0.3] * 3}}, {"y": "x"}))
    figure = planned(gaps, "quick")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["+20"] and "bootstrap" not in footer(figure)
    with pytest.raises(PrefVLMError, match="no row"):
        planned(gaps.iloc[:0], "quick")
