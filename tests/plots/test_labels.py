"""Figures of what the filter does to labels: what is drawn equals numbers worked out by hand, in awkward data too."""

import math

import matplotlib as mpl
import numpy as np
import pytest
from builders.evaluations import FILTERS, TASKS, evaluated
from builders.evaluations import label_log as labels
from builders.figures import footer
from matplotlib.collections import FillBetweenPolyCollection

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import labels as label_plots

BY_HAND = [
    *[("a", 1.0, 1.0, 0.1, "clean")] * 3,
    *[("a", 0.0, 1.0, 0.2, "clean")] * 1,
    *[("b", 0.0, 0.0, 0.3, "clean")] * 4,
    *[("a", 1.0, 0.0, 4.0, "flipped")] * 2,  # wrong, so right after the flip
    *[("b", 0.0, 0.0, 5.0, "flipped")] * 1,
    *[("b", 1.0, 0.0, 1.0, "uncertain")] * 3,
    *[("b", 1.0, 1.0, 2.0, "uncertain")] * 2,
    *[("a", 1.0, 0.5, 0.1, "clean")] * 5,  # a tie: nobody can be right
    *[("a", 1.0, 0.0, math.nan, "")] * 7,
]


def test_partitions_stack_to_one_hundred() -> None:
    figure = label_plots.partitions(evaluated(TASKS[:1], FILTERS))
    assert [axes.get_title() for axes in figure.axes] == ["door-close\nprefvlm", "door-close\nadaptive thresholds"]
    axes, tops = figure.axes[0], []
    for area in axes.collections:
        assert isinstance(area, FillBetweenPolyCollection)
        tops.append(max(y for x, y in area.get_paths()[0].vertices if x == 40_000))
    np.testing.assert_allclose(tops, [60, 90, 100])
    assert [text.get_text() for text in axes.texts] == ["60 %", "30 %", "10 %"]
    assert [text.get_text() for text in figure.texts[1:]] == ["clean", "uncertain", "flipped"]


def test_divergences_count_right_and_wrong_labels() -> None:
    data = evaluated(TASKS, FILTERS[:1])
    figure = label_plots.divergences(labels(BY_HAND), data)
    (axes,) = figure.axes
    written = [text.get_text() for text in axes.texts]
    assert written == [
        "right",
        "wrong",
        "clean: 12 % wrong of 8",
        "flipped: 33 % wrong of 3",
        "uncertain: 60 % wrong of 5",
    ]
    bars = [patch for patch in axes.patches if isinstance(patch, mpl.patches.Rectangle)]
    assert sum(bar.get_height() for bar in bars) == 10
    tall = {round(bar.get_x(), 3): bar.get_height() for bar in bars if bar.get_height()}
    width = 1.03 * 6.5 / 30
    assert tall == {round(int(at / width) * width, 3): n for at, n in ((0.1, 3), (0.3, 4), (2, 2), (5, 1))}
    lower, upper = (line.get_xdata()[0] for line in axes.lines)
    assert (lower, upper) == (0.5, 6.5)  # the median of 4 to 9
    assert "no dashed line" not in footer(figure)


def test_divergences_without_thresholds_or_wrong_labels() -> None:
    data = evaluated(TASKS, FILTERS[2:])
    right = labels([("a", 1.0, 1.0, 0.1, "clean")] * 3, *FILTERS[2][:2])
    for evaluations in (data, data.drop(columns=["tau_lower", "tau_upper"])):
        figure = label_plots.divergences(right, evaluations)
        (axes,) = figure.axes
        assert "no dashed line: in most evaluations the threshold is 0 or beyond every divergence" in footer(figure)
        assert list(axes.lines) == []
        assert [text.get_text() for text in axes.texts][2:] == [
            "clean: 0 % wrong of 3",
            "flipped: none",
            "uncertain: none",
        ]


def test_wrong_arguments_are_named() -> None:
    data = evaluated(TASKS, FILTERS)
    with pytest.raises(PrefVLMError, match="The VLM's label log has no row"):
        label_plots.divergences(labels(BY_HAND[-7:]), data)
    with pytest.raises(PrefVLMError, match="evaluations of runs whose filter sorts has no row"):
        label_plots.partitions(data[data["arm"] == "no filter"])
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['clean_fraction'\]"):
        label_plots.partitions(data.drop(columns="clean_fraction"))


def test_divergences_of_labels_that_are_all_wrong_are_counted_without_a_warning() -> None:
    wrong = labels([("a", 0.0, 1.0, 0.1, "clean")] * 3)
    (axes,) = label_plots.divergences(wrong, evaluated(TASKS[:1], FILTERS[:1])).axes
    assert axes.get_yscale() == "log" and axes.get_ylim()[1] > 3
