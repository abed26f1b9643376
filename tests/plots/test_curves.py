"""Figures: what is drawn equals the numbers, labels neither overlap nor leave the page, files are deterministic."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders.figures import check_text, color_blind_lab, footer, panel_lines
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.colors import to_rgb

from prefvlm_core import __version__
from prefvlm_core.analysis import stats
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import curves as plots
from prefvlm_core.plots import style as plot_style

FIGURE_GROUPS = {
    "main": ["sac", "pebble", "prefvlm", "prefvlm-adaptive", "prefvlm-plus", "vlm-preference", "vlm-reward"],
    "ablations": [
        *("prefvlm", "pebble", "vlm-preference", "prefvlm-no-filter", "prefvlm-random-selection"),
        *("prefvlm-no-adaptation", "prefvlm-no-inverse-dynamics"),
    ],
    "baselines": ["sac", "prefvlm", "prefvlm-plus", "pebble", "surf", "rune", "mrn", "rime", "rlvlmf"],
}
CURVES = [("sac", "sac", 0), ("pebble", "pebble (400 labels)", 400), ("pebble", "pebble (1200 labels)", 1200)]
TASKS = ["door-close-v3", "button-press-v3"]


def runs(
    tasks: list[str] = TASKS,
    curves: list[tuple[str, str, int]] = CURVES,
    seeds: int = 3,
    profile: str = "quick",
    evaluations: int = 6,
) -> pd.DataFrame:
    """Random success; labels rise to the budget in the first half of the evaluations."""
    generator, parts = np.random.default_rng(0), []
    for task, (method, arm, budget), seed in itertools.product(tasks, curves, range(seeds)):
        index = np.arange(1, evaluations + 1)
        labels = np.minimum(budget, budget * index * 2 // evaluations)
        parts.append(
            pd.DataFrame(
                {
                    "profile": profile,
                    "task": task,
                    "method": method,
                    "arm": arm,
                    "seed": seed,
                    "run_id": f"{task}/{arm}/{seed}",
                    "step": 10_000 * index,
                    "success": generator.integers(0, 17, evaluations) / 16,
                    "episode_return": 100.0,
                    "human_labels": labels,
                    "vlm_labels": 2 * labels,
                    "reward_accuracy": np.nan if method == "sac" else 0.75,
                    "seconds": 1.0,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("group", FIGURE_GROUPS)
def test_colors_of_one_figure_stay_apart_for_color_blind_readers(group: str) -> None:
    for one, other in itertools.combinations(FIGURE_GROUPS[group], 2):
        views = zip(
            color_blind_lab(plot_style.METHOD_COLORS[one]),
            color_blind_lab(plot_style.METHOD_COLORS[other]),
            strict=True,
        )
        assert min(np.linalg.norm(a - b) for a, b in views) > 15, (one, other)


def test_every_method_has_one_color_and_unknown_ones_a_stable_one() -> None:
    assert {name for group in FIGURE_GROUPS.values() for name in group} == set(plot_style.METHOD_COLORS)
    assert len(set(plot_style.METHOD_COLORS.values()) | set(plot_style.FURTHER_COLORS)) == 16 + 6
    assert plot_style.method_color("pebble") == "#D55E00"
    assert [plot_style.method_color(name) for name in ("mine", "yours")] == ["#999933", "#CC6677"]


def test_curve_order_and_styles() -> None:
    pairs = [("mine", "mine"), ("pebble", "pebble (1200)"), ("sac", "sac"), ("pebble", "pebble (400)")]
    styles = plot_style.curve_styles(pd.DataFrame(pairs, columns=["method", "arm"]))
    assert list(styles) == ["sac", "pebble (400)", "pebble (1200)", "mine"]
    assert styles["pebble (400)"] == (to_rgb("#D55E00"), "solid")
    lighter, dashes = styles["pebble (1200)"]
    assert dashes == (0, (4, 1.2))
    np.testing.assert_allclose(lighter, 0.82 * np.array(to_rgb("#D55E00")) + 0.18)


def test_spread_by_hand() -> None:
    np.testing.assert_allclose(plot_style.spread([0.5, 0.5], [0.2, 0.2], 0, 1), [0.4, 0.6])
    np.testing.assert_allclose(plot_style.spread([1.0, 0.9], [0.2, 0.2], 0, 1), [0.9, 0.7])
    np.testing.assert_allclose(plot_style.spread([0.9, 0.1, 0.5], [0.1, 0.1, 0.1], 0, 1), [0.9, 0.1, 0.5])
    np.testing.assert_allclose(plot_style.spread([0.5, 0.6], [0.4, 0.2], 0, 1), [0.4, 0.7])
    np.testing.assert_allclose(plot_style.spread([0.3, 0.2], [1.0, 1.0], 0, 1), [1.5, 0.5])  # no room for both


def test_spread_never_overlaps_and_moves_as_little_as_it_can() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        wanted, heights = generator.random(6), generator.uniform(0.02, 0.16, 6)
        centers = plot_style.spread(wanted, heights, 0, 1)
        order = np.argsort(wanted)
        low, high = (centers - heights / 2)[order], (centers + heights / 2)[order]
        assert low[0] >= -1e-9 and high[-1] <= 1 + 1e-9
        assert (low[1:] >= high[:-1] - 1e-9).all()
        # Any other layout in the same order, drawn at random, is further from what was wanted.
        free = np.sort(generator.uniform(0, 1 - heights.sum(), (500, 6)), axis=1)
        others = free + np.cumsum(heights[order]) - heights[order] / 2
        assert ((others - wanted[order]) ** 2).sum(axis=1).min() >= ((centers - wanted) ** 2).sum() - 1e-9


def test_learning_curves_draw_the_interquartile_mean_and_its_band() -> None:
    data = runs(seeds=5)
    figure = plots.learning_curves(data)
    assert [axes.get_title() for axes in figure.axes] == ["button-press", "door-close", "all tasks"]
    lines = panel_lines(figure, "door-close")
    assert len(lines) == 3 * (5 + 1)  # thin ones of each seed, then the thick one, per curve
    thick = lines[5]  # sac comes first
    sac = data[(data["task"] == "door-close-v3") & (data["arm"] == "sac")].pivot(
        index="step", columns="seed", values="success"
    )
    np.testing.assert_array_equal(thick.get_xdata(), sac.index)
    expected = np.sort(100 * sac.to_numpy())[:, 1:4].mean(axis=1)
    np.testing.assert_allclose(np.asarray(thick.get_ydata(), dtype=float), expected)
    band = next(item for item in figure.axes[1].collections if isinstance(item, FillBetweenPolyCollection))
    low, high = stats.stratified_bootstrap_interval(
        100 * sac.loc[30_000].to_numpy(), stats.interquartile_mean, np.random.default_rng(0)
    )
    heights = sorted({y for x, y in band.get_paths()[0].vertices if x == 30_000})
    assert heights == pytest.approx([low, high])


def test_all_tasks_panel_pools_complete_curves_only() -> None:
    data = runs(seeds=2)
    data = data[(data["arm"] != "sac") | (data["task"] == "door-close-v3")]
    (few, many) = panel_lines(plots.learning_curves(data), "all tasks")
    pooled = data[data["arm"] == "pebble (400 labels)"].groupby("step")["success"].apply(list)
    np.testing.assert_allclose(few.get_ydata(), [100 * np.sort(values)[1:3].mean() for values in pooled])
    assert many.get_linestyle() == "--"


def test_learning_curves_against_human_labels() -> None:
    data = runs(["door-close-v3"], seeds=2)  # one task: no "all tasks" panel
    data["success"] = data["step"] / 60_000 + 0.1 * data["seed"] - 0.1
    figure = plots.learning_curves(data, x="human_labels")
    assert [axes.get_title() for axes in figure.axes] == ["door-close"]
    level, dot, _, _, thick, *_ = panel_lines(figure, "door-close")
    np.testing.assert_allclose(level.get_ydata(), 95)  # sac: the mean of the two last values, 90 and 100
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0, pytest.approx(95.0))
    np.testing.assert_array_equal(thick.get_xdata(), [133, 266, 400])
    # Labels are used up at 30 k steps, yet training goes on: with all of them it ends at the last value, not that one.
    np.testing.assert_allclose(thick.get_ydata(), [100 / 6 - 5, 200 / 6 - 5, 95])
    assert thick.get_drawstyle() == "steps-post"


def test_runs_that_used_fewer_labels_count_to_the_end() -> None:
    data = runs(["door-close-v3"], [("pebble", "pebble", 300)], seeds=2)
    data["success"] = 0.2 + 0.4 * data["seed"]
    data.loc[data["seed"] == 1, "human_labels"] = [0, 50, 50, 50, 50, 50]
    thick = panel_lines(plots.learning_curves(data, x="human_labels"), "door-close")[2]
    np.testing.assert_array_equal(thick.get_xdata(), [100, 200, 300])  # below 100 seed 0 has no evaluation
    np.testing.assert_allclose(thick.get_ydata(), [40, 40, 40])


def test_footers_say_what_is_shown() -> None:
    text = footer(plots.learning_curves(runs(seeds=5)))
    assert text.startswith("profile quick (each action held 5 steps) · button-press, door-close · 5 seeds · ")
    unheld = footer(plots.learning_curves(runs(seeds=5).assign(profile="paper")))
    assert unheld.startswith("profile paper · button-press")
    assert "band: 95 % stratified bootstrap interval" in text and text.endswith(__version__)
    assert "narrow" not in text
    one = footer(plots.learning_curves(runs(seeds=1)))
    assert "1 seed · " in one and "1 seed, no interval" in one and "95 %" not in one
    data = runs(seeds=4)
    mixed = footer(plots.learning_curves(data[(data["seed"] == 0) | (data["task"] == "door-close-v3")]))
    assert "1–4 seeds" in mixed and "1 seed, no interval" in mixed and "fewer than 5 seeds" in mixed
    assert "dot: interquartile mean" in footer(plots.final_success(stats.summary_table(data), "laptop"))


def test_values_that_a_method_lacks_are_left_out() -> None:
    figure = plots.learning_curves(runs(), y="reward_accuracy")  # sac has no reward model
    assert "sac" not in [text.get_text() for axes in figure.axes for text in axes.texts]
    np.testing.assert_allclose(panel_lines(figure, "door-close")[3].get_ydata(), 75)
    assert figure.axes[0].get_ylabel() == "reward accuracy (%)"


def test_final_success_draws_dots_and_intervals() -> None:
    table = stats.summary_table(runs(seeds=3))
    figure = plots.final_success(table, "quick")
    assert [axes.get_title() for axes in figure.axes] == ["button-press", "door-close", "all tasks"]
    row = table[(table["task"] == "door-close-v3") & (table["arm"] == "pebble (1200 labels)")].iloc[0]
    bar, dot = (line for line in panel_lines(figure, "door-close") if line.get_ydata()[0] == 2)
    np.testing.assert_allclose(bar.get_xdata(), [100 * row["success_low"], 100 * row["success_high"]])
    assert dot.get_xdata()[0] == pytest.approx(100 * row["success"])
    written = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert written == ["sac", "pebble (400 labels)", "pebble (1200 labels)"]
    alone = plots.final_success(stats.summary_table(runs(["door-close-v3"], seeds=1)), "quick")
    assert [axes.get_title() for axes in alone.axes] == ["door-close"]
    assert [text.get_text().strip() for text in alone.axes[0].texts] == ["1 seed, no interval"] * 3


def long_names() -> list[tuple[str, str, int]]:
    return [(method, f"{method} (400 labels)", 400) for method in FIGURE_GROUPS["ablations"]]


FIGURES = {
    "curves": lambda: plots.learning_curves(runs()),
    "column": lambda: plots.learning_curves(runs(), width="column"),
    "long names": lambda: plots.learning_curves(runs(curves=long_names())),
    "labels": lambda: plots.learning_curves(runs(curves=[*CURVES, *long_names()[3:]]), x="human_labels"),
    "one value": lambda: plots.learning_curves(runs(["door-close-v3"], evaluations=1)),
    "reference": lambda: plots.learning_curves(runs(profile="paper"), reference=plots.reference_curves(TASKS)),
    "return": lambda: plots.learning_curves(runs(), y="episode_return"),
    "final": lambda: plots.final_success(stats.summary_table(runs(curves=long_names())), "quick"),
    "final column": lambda: plots.final_success(stats.summary_table(runs(seeds=1)), "quick", width="column"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_or_leaves_the_page(name: str) -> None:
    figure = FIGURES[name]()
    assert figure.get_figwidth() <= 3.4 + 3.6 * ("column" not in name) + 1e-9
    check_text(figure)


def test_figures_leave_no_trace_in_matplotlib() -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        figure = plots.learning_curves(runs())
        assert figure.axes[0].title.get_fontsize() == 7
        assert mpl.colors.same_color(figure.axes[0].get_facecolor(), "white")
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_saved_files_are_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    data = runs(seeds=2)
    data.to_json(tmp_path / "data.json", orient="records")
    program = (
        "import sys, pandas; from prefvlm_core.plots import style as plot_style, curves as plots; folder = sys.argv[1];"
        "plot_style.save(plots.learning_curves(pandas.read_json(folder + '/data.json')), 'curves', folder + '/other')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment, timeout=120)
    paths = plot_style.save(plots.learning_curves(data), "curves", tmp_path / "made" / "here")
    assert [path.name for path in paths] == ["curves.png", "curves.pdf"]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    assert paths[0].read_bytes().startswith(b"\x89PNG") and paths[1].read_bytes().startswith(b"%PDF")


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
    lines = panel_lines(plots.learning_curves(runs(profile="paper"), reference=reference), "door-close")
    grey = [line for line in lines if line.get_color() == plot_style.REFERENCE_COLOR]
    assert len(grey) == 6 and max(np.max(line.get_ydata()) for line in grey) > 90
    with pytest.raises(PrefVLMError, match="profile 'paper'"):
        plots.learning_curves(runs(), reference=reference)


def test_wrong_arguments_are_named() -> None:
    data = runs()
    with pytest.raises(PrefVLMError, match=r"Unknown x 'steps'\. Did you mean 'step'"):
        plots.learning_curves(data, x="steps")
    with pytest.raises(PrefVLMError, match="Unknown y"):
        plots.learning_curves(data, y="sucess")
    with pytest.raises(PrefVLMError, match="Unknown width"):
        plots.learning_curves(data, width="page")
    with pytest.raises(PrefVLMError, match="No evaluation has a value of 'reward_accuracy'"):
        plots.learning_curves(data[data["method"] == "sac"], y="reward_accuracy")
    with pytest.raises(PrefVLMError, match="share no value of 'step'"):
        plots.learning_curves(data.assign(step=data["step"] + data["seed"]))
    with pytest.raises(PrefVLMError, match="lacks the columns"):
        plots.final_success(data, "quick")
    with pytest.raises(PrefVLMError, match="Unknown width"):
        plots.final_success(stats.summary_table(data), "quick", width="page")
