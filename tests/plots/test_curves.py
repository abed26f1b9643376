"""Learning curves: what is drawn equals the numbers, and what cannot be drawn is refused."""

import numpy as np
import pytest
from builders.evaluations import CURVES, FOUR_TASKS, TASKS, evaluated
from builders.figures import footer, panel_lines
from matplotlib.collections import FillBetweenPolyCollection

from prefvlm_core import __version__
from prefvlm_core.analysis import stats
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import curves as plots
from prefvlm_core.plots import style as plot_style


def test_the_line_is_the_mean_over_seeds_and_the_band_its_interval() -> None:
    data = evaluated(seeds=6)
    figure = plots.learning_curves(data)
    assert [axes.get_title() for axes in figure.axes] == ["button-press", "door-close"]
    lines = panel_lines(figure, "door-close")
    assert len(lines) == 3  # one per arm, and with six seeds no dots
    sac = data[(data["task"] == "door-close-v3") & (data["arm"] == "sac")].pivot(
        index="step", columns="seed", values="success"
    )
    np.testing.assert_array_equal(lines[0].get_xdata(), sac.index)
    np.testing.assert_allclose(lines[0].get_ydata(), 100 * sac.mean(axis=1))
    band = next(item for item in figure.axes[1].collections if isinstance(item, FillBetweenPolyCollection))
    low, high = stats.stratified_bootstrap_interval(100 * sac.loc[30_000].to_numpy(), np.mean, np.random.default_rng(0))
    heights = sorted({y for x, y in band.get_paths()[0].vertices if x == 30_000})
    assert heights == pytest.approx([low, high])


def test_few_runs_are_dots_without_a_band() -> None:
    data = evaluated(seeds=3)
    figure = plots.learning_curves(data)
    dots = [line for line in panel_lines(figure, "door-close") if line.get_marker() == "o"]
    assert len(dots) == 3 * 3  # arms x seeds
    sac = data[(data["task"] == "door-close-v3") & (data["arm"] == "sac")]
    drawn = np.concatenate([line.get_ydata() for line in dots[:3]])
    np.testing.assert_allclose(sorted(drawn), sorted(100 * sac["success"]))
    bands = [item for item in figure.axes[1].collections if isinstance(item, FillBetweenPolyCollection)]
    assert all(np.isnan(band.get_paths()[0].vertices[:, 1]).all() for band in bands if len(band.get_paths()))


def test_of_four_tasks_the_mean_of_their_means_stands_above_and_arms_of_some_tasks_are_not_in_it() -> None:
    data = evaluated(FOUR_TASKS, seeds=2)
    data = data[(data["arm"] != "sac") | (data["task"] == "door-close-v3")]
    data = data[(data["task"] != "door-close-v3") | (data["seed"] == 0)]  # one run counts like two
    figure = plots.learning_curves(data)
    above, *below = figure.axes
    assert above.get_title() == "all tasks" and len(below) == 4
    few, many = above.lines
    pooled = data[data["arm"] == "pebble (400 labels)"].groupby(["task", "step"])["success"].mean()
    np.testing.assert_allclose(few.get_ydata(), 100 * pooled.groupby("step").mean())
    assert many.get_linestyle() == "--"
    assert [text.get_text() for text in above.texts] == ["pebble (400 labels)", "pebble (1200 labels)"]
    assert len(panel_lines(figure, "door-close")) == 3 and not any(axes.texts for axes in below)


def test_footers_say_what_is_shown() -> None:
    text = footer(plots.learning_curves(evaluated(seeds=5)))
    assert text.startswith("profile quick (each action held 5 steps) · button-press, door-close · 5 seeds · line: mean")
    assert footer(plots.learning_curves(evaluated(profile="paper"))).startswith("profile paper · button-press")
    assert "band: 95 % stratified bootstrap interval of the mean" in text and text.endswith(__version__)
    assert "dots" not in text and "fewer" not in text
    one = footer(plots.learning_curves(evaluated(seeds=1)))
    assert "1 seed · " in one and "mechanism, one seed: no evidence of success" in one and "95 %" not in one
    data = evaluated(seeds=6)
    mixed = footer(plots.learning_curves(data[(data["seed"] == 0) | (data["task"] == "door-close-v3")]))
    assert "1–6 seeds" in mixed and "none with fewer than 5 seeds" in mixed and "dots: single runs" in mixed


def test_values_that_a_method_lacks_are_left_out() -> None:
    figure = plots.learning_curves(evaluated(), y="reward_accuracy")  # sac has no reward model
    assert "sac" not in [text.get_text() for axes in figure.axes for text in axes.texts]
    np.testing.assert_allclose(panel_lines(figure, "door-close")[0].get_ydata(), 75)
    assert figure.axes[0].get_ylabel() == "reward accuracy (%)"


def test_against_labels_a_point_is_what_a_run_reached_with_them() -> None:
    data = evaluated(["door-close-v3"], CURVES[1:2], seeds=2)
    data["success"] = data["step"] / 60_000 + 0.1 * data["seed"] - 0.1
    runs = plots.runs_by_x(data, "human_labels", "success")
    np.testing.assert_array_equal(runs.index, [133, 266, 400])
    # Labels are used up at 30 k steps, yet training goes on: with all of them it ends at the last value, not that one.
    np.testing.assert_allclose(runs.mean(axis=1), [1 / 6 - 0.05, 2 / 6 - 0.05, 0.95])
    data["success"] = 0.2 + 0.4 * data["seed"]
    data.loc[data["seed"] == 1, "human_labels"] = [0, 50, 50, 50, 50, 50]
    runs = plots.runs_by_x(data, "human_labels", "success")
    np.testing.assert_array_equal(runs.index, [133, 266, 400])  # below 133 seed 0 has no evaluation
    np.testing.assert_allclose(runs.mean(axis=1), 0.4)


def test_reference_curves_agree_with_the_separately_tabulated_area() -> None:
    # Mean success over the horizon in percent, digitized at all points, by task: ROVED, PEBBLE, PEBBLE, SURF, MRN, LIV.
    area = {
        "window-open-v3": (48, 37, 57, 36, 31, 5),
        "window-close-v3": (58, 50, 70, 41, 47, 4),
        "door-open-v3": (39, 28, 41, 29, 13, 1),
        "door-close-v3": (84, 63, 87, 71, 69, 16),
        "drawer-open-v3": (46, 2, 44, 11, 15, 0),
        "drawer-close-v3": (89, 64, 81, 72, 68, 17),
        "button-press-v3": (40, 21, 46, 30, 30, 1),
        "sweep-into-v3": (16, 2, 22, 9, 5, 1),
    }
    table = plots.reference_curves(area)
    assert list(table.columns) == ["task", "method", "arm", "labels", "step", "success"]
    assert len(table.groupby(["task", "arm"])) == 8 * 6 + 2
    assert table["success"].between(0, 1).all() and table["step"].between(50_000, 985_000).all()
    for task, expected in area.items():
        of_task = table[(table["task"] == task) & (table["method"] != "ROVED + transfer")]
        curves = [rows for _, rows in of_task.groupby("arm", sort=False)]
        measured = [stats.area_under_curve([0, *rows["step"]], [0, *rows["success"]]) for rows in curves]
        np.testing.assert_allclose(100 * np.array(measured), expected, atol=3.1)  # the file holds few points per curve


def test_reference_curves_have_the_papers_budgets_and_no_missing_points() -> None:
    table = plots.reference_curves(["drawer-open-v3", "door-open-v3"])
    budgets = table.groupby("task")["arm"].unique()
    assert list(budgets["drawer-open-v3"]) == [
        *("ROVED (5000 labels)", "PEBBLE (15000 labels)", "PEBBLE (25000 labels)"),
        *("SURF (5000 labels)", "MRN (5000 labels)", "LIV (0 labels)", "ROVED + transfer (2500 labels)"),
    ]
    unread = table[(table["task"] == "door-open-v3") & (table["arm"] == "PEBBLE (1000 labels)")]
    assert 200_000 not in set(unread["step"]) and len(unread) == 9
    with pytest.raises(PrefVLMError, match=r"'door-opn-v3'. Did you mean 'door-open-v3'"):
        plots.reference_curves(["door-opn-v3"])


def test_reference_curves_are_drawn_for_profile_paper_only() -> None:
    reference = plots.reference_curves(["door-close-v3"])
    own = reference[reference["method"] == "ROVED"]
    data = evaluated(profile="paper")
    lines = panel_lines(plots.learning_curves(data, reference=own), "door-close")
    (gray,) = [line for line in lines if line.get_color() == plot_style.REFERENCE_COLOR]
    assert np.max(gray.get_ydata()) > 90
    with pytest.raises(PrefVLMError, match="profile 'paper'"):
        plots.learning_curves(evaluated(), reference=own)
    with pytest.raises(PrefVLMError, match="9 curves cannot be told apart; choose at most 5"):
        plots.learning_curves(data, reference=reference)


def test_wrong_arguments_are_named() -> None:
    data = evaluated()
    with pytest.raises(PrefVLMError, match="Unknown y"):
        plots.learning_curves(data, y="sucess")
    with pytest.raises(PrefVLMError, match="No evaluation has a value of 'reward_accuracy'"):
        plots.learning_curves(data[data["method"] == "sac"], y="reward_accuracy")
    with pytest.raises(PrefVLMError, match="share no value of 'step'"):
        plots.learning_curves(data.assign(step=data["step"] + data["seed"]))
    six = [("pebble", f"pebble ({labels} labels)", labels) for labels in range(100, 700, 100)]
    with pytest.raises(PrefVLMError, match="6 curves cannot be told apart; choose at most 5 of pebble"):
        plots.learning_curves(evaluated(TASKS, six))
