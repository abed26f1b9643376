"""Figures of gains: what is drawn is what the table of planned differences holds."""

import numpy as np
import pandas as pd
import pytest
from builders.evaluations import steady
from builders.figures import check_text, footer
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from prefvlm_core.analysis.paired import planned_differences
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.gains import gain_against_accuracy, gain_against_budget


def lines(axes: Axes) -> list[np.ndarray]:
    """Points (n, 2) of the curves."""
    return [line.get_xydata() for line in axes.lines if line.get_markersize() == 3.6]


def transferred() -> pd.DataFrame:
    """Transfer gains 10, 20 and 30 points with 16, 8 and 4 labels, on one task, and as much with 4 times the labels on
    the two others."""
    gains = {1: 0.1, 2: 0.2, 4: 0.3}
    plain = {f"plain {share}": {task: [0.2, 0.3, 0.4, 0.5, 0.6] for task in "abc"} for share in gains}
    moved = {
        f"moved {share}": {task: [0.2 + gain, 0.3 + gain, 0.4 + gain, 0.5 + gain, 0.6 + gain] for task in "abc"}
        for share, gain in gains.items()
    }
    data = steady(plain | moved, {f"moved {share}": f"plain {share}" for share in gains})
    share = data["arm"].str.split().str[1].astype(int)
    budget = np.where(data["task"] == "a", 16, 64) / share
    return planned_differences(data.assign(budget=budget, method="prefvlm"))


def test_gains_stand_above_the_budget_of_each_task_and_above_their_mean_budget() -> None:
    figure = gain_against_budget(transferred(), "laptop")
    together, *tasks = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["all tasks", "a", "b", "c"]
    np.testing.assert_allclose(lines(together), [[[12, 30], [24, 20], [48, 10]]])
    np.testing.assert_allclose(lines(tasks[0]), [[[4, 30], [8, 20], [16, 10]]])
    np.testing.assert_allclose(lines(tasks[1]), [[[16, 30], [32, 20], [64, 10]]])
    assert [label.get_text() for label in tasks[0].get_xticklabels()] == ["4", "8", "16"]
    assert {axes.get_ylim() for axes in figure.axes} == {together.get_ylim()}
    (bars,) = tasks[0].collections
    assert [segment[:, 1].round().tolist() for segment in bars.get_segments()] == [[30, 30], [20, 20], [10, 10]]
    assert "5–15 pairs of runs" in footer(figure) and "all tasks: at the mean of their budgets" in footer(figure)
    check_text(figure)


def simulated() -> pd.DataFrame:
    """Simulated VLMs 70 and 90 % right, whose gain is 10 points more with the filter, and has a sign for each kind of
    error."""
    signs = {"simulated": 1, "simulated-segments": -1, "simulated-features": 0.5}
    columns = {}
    successes = {"human only": {"a": [0.5] * 5, "b": [0.5] * 5}}
    for kind, sign in signs.items():
        for method, extra in (("prefvlm", 0.1), ("prefvlm-no-filter", 0.0)):
            for right in (0.7, 0.9):
                arm = f"{kind} {method} {right}"
                columns[arm] = {"method": method, "vlm": f"{kind}:{right:g}", "simulated_accuracy": right}
                successes[arm] = {task: [0.5 + sign * (right - 0.5) + extra] * 5 for task in "ab"}
    data = steady(successes, dict.fromkeys(columns, "human only"))
    about = pd.DataFrame(columns).T.reindex(data["arm"]).reset_index(drop=True)
    data["method"] = about["method"].fillna("pebble")
    return planned_differences(
        data.assign(vlm=about["vlm"].fillna(""), simulated_accuracy=about["simulated_accuracy"].astype(float))
    )


def test_gains_of_simulated_vlms_have_a_panel_per_kind_of_error_and_a_line_per_method() -> None:
    figure = gain_against_accuracy(simulated(), "laptop")
    check_text(figure)
    assert [axes.get_title() for axes in figure.axes] == [
        f"errors by\n{kind}" for kind in ("pairs", "segments", "features")
    ]
    for axes, sign in zip(figure.axes, (1, -1, 0.5), strict=True):
        filtered, unfiltered = (np.array(line) for line in lines(axes))
        np.testing.assert_allclose(filtered[:, 1], [100 * sign * 0.2 + 10, 100 * sign * 0.4 + 10])
        np.testing.assert_allclose(unfiltered[:, 1], [100 * sign * 0.2, 100 * sign * 0.4])
        assert abs(filtered[:, 0] - (70, 90)).max() < 1 > abs(unfiltered[:, 0] - (70, 90)).max()
        assert list(axes.get_xticks()) == [70, 90]
    colors = [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if line.get_markersize() == 3.6]
    assert colors == ["#0072B2", "#882255"]
    assert [text.get_text() for text in figure.texts[1:]] == ["prefvlm", "prefvlm-no-filter"]


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['budget'\]; use what paired.planned_differences"):
        gain_against_budget(transferred().drop(columns="budget"), "quick")
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['simulated_accuracy', 'vlm'\]"):
        gain_against_accuracy(transferred(), "quick")
