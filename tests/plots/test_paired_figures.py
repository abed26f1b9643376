"""Figures of paired comparisons: what is drawn equals the tables."""

import numpy as np
import pytest
from builders.figures import check_text
from builders.scores import comparison
from matplotlib.axes import Axes

from prefvlm_core.analysis.paired import difference_table, worth_table
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.paired import differences, label_equivalents


def rows(axes: Axes) -> list[tuple[str, float, tuple[float, float]]]:
    """(name, dot, bar) of each row from the top."""
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
    bars = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.5}
    return [(name, dots[index], bars[index]) for index, name in enumerate(names)]


def test_label_equivalents_stand_above_the_budgets_of_pebble() -> None:
    scores = comparison()
    figure = label_equivalents(worth_table(scores), scores, "quick")
    (axes,) = figure.axes
    check_text(figure)
    ((name, dot, bar),) = rows(axes)
    assert name == "ours" and (dot, *bar) == pytest.approx((2, 2, 2))
    assert axes.get_xscale() == "log" and axes.get_xlim() == pytest.approx((1, 2))
    score = worth_table(scores)["score"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        f"{number}×B\n{100 * score[index]:.0f} %" for index, number in enumerate((1, 2))
    ]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1]


def test_differences_are_in_points_beside_the_margin() -> None:
    scores = comparison()
    figure = differences(difference_table(scores, "pebble 2B"), scores, "quick", 0.1)
    (axes,) = figure.axes
    check_text(figure)
    assert [(name, round(dot)) for name, dot, _ in rows(axes)] == [("ours", 0), ("pebble B", -40), ("no human", -50)]
    (margin,) = axes.patches
    assert np.array(margin.get_bbox()).ravel()[[0, 2]] == pytest.approx((-10, 0))
    assert "difference from pebble 2B (points)" in axes.get_xlabel()


def test_areas_have_units_of_their_own_and_nothing_to_draw_is_said() -> None:
    scores = comparison()
    table = difference_table(scores, "pebble 2B")
    figure = differences(table, scores, "quick", 0.1, measure="log_return_area")
    assert "points" not in figure.axes[0].get_xlabel()
    with pytest.raises(PrefVLMError, match="no arm to draw"):
        differences(table[table["measure"] == "success_area"], scores, "quick", 0.1)
