"""Label figures and tables: what is drawn and said equals numbers worked out by hand, in awkward data too."""

import itertools
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from builders.figures import check_text, color_blind_lab, footer, panel_lines
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection, LineCollection

from prefvlm_core.analysis import label_quality as label_stats
from prefvlm_core.analysis import stats
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import labels as label_plots
from prefvlm_core.plots import style as plot_style

FILTERS = [("prefvlm", "prefvlm"), ("prefvlm-adaptive", "adaptive thresholds"), ("prefvlm-no-filter", "no filter")]
TASKS = ("door-close-v3", "button-press-v3")


def runs(
    arms: Sequence[tuple[str, str]] = FILTERS, tasks: Sequence[str] = TASKS, seeds: int = 3, evaluations: int = 6
) -> pd.DataFrame:
    """Success rises with the seed; the VLM labels from the second evaluation on; nothing of "no filter" is sorted."""
    parts = []
    for task, (method, arm), seed in itertools.product(tasks, arms, range(seeds)):
        index = np.arange(1, evaluations + 1)
        sessions = np.where(index > min(1, evaluations - 1), 1.0, np.nan)
        kept_all = arm == "no filter"
        parts.append(
            pd.DataFrame(
                {
                    "profile": "quick",
                    "task": task,
                    "method": method,
                    "arm": arm,
                    "seed": seed,
                    "budget": 100,
                    "run_id": f"{task}/{arm}/{seed}",
                    "step": 10_000 * index,
                    "success": 0.2 + 0.1 * seed,
                    "episode_return": 100.0,
                    "human_labels": 20 * index,
                    "vlm_labels": 40 * index,
                    "reward_accuracy": 0.75,
                    "seconds": 1.0,
                    "vlm_accuracy": 0.6 * sessions,
                    "adapted_vlm_accuracy": (0.6 + 0.05 * seed) * sessions,
                    "clean_accuracy": (0.6 + 0.1 * seed**2) * sessions,
                    "flipped_accuracy": np.nan if kept_all or seed else 0.4 * sessions,
                    "uncertain_accuracy": np.nan if kept_all else 0.5 * sessions,
                    "clean_fraction": (1.0 if kept_all else 0.5 + 0.1 * seed) * sessions,
                    "flipped_fraction": (0.0 if kept_all else 0.1) * sessions,
                    "uncertain_fraction": (0.0 if kept_all else 0.4 - 0.1 * seed) * sessions,
                    "tau_lower": (math.inf if kept_all else 0.5) * sessions,
                    "tau_upper": math.inf if kept_all else 3.0 + index,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def labels(rows: Sequence[tuple[object, ...]], method: str = "prefvlm", arm: str = "prefvlm") -> pd.DataFrame:
    """Rows of (run, label, truth, divergence, partition); partition "" is the human's."""
    table = pd.DataFrame(rows, columns=["run_id", "label", "truth", "divergence", "partition"])
    table["teacher"] = np.where(table["partition"] == "", "human", "vlm")
    return table.assign(profile="quick", task="door-close-v3", method=method, arm=arm, seed=table["run_id"])


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


def test_error_rates_by_hand() -> None:
    (row,) = label_stats.error_rates(labels(BY_HAND)).to_dict("records")
    assert (row["method"], row["arm"], row["labels"]) == ("prefvlm", "prefvlm", 16)
    assert row["error"] == pytest.approx(6 / 16)
    assert [row[f"{name}_labels"] for name in ("clean", "flipped", "uncertain")] == [8, 3, 5]
    assert [row[f"{name}_error"] for name in ("clean", "flipped", "uncertain")] == pytest.approx([1 / 8, 1 / 3, 3 / 5])
    assert row["clean_ratio"] == pytest.approx((1 / 8) / (6 / 16))
    # Resamples of two runs: a twice (ratio 1/4 over 3/6), b twice (no clean error), or both as they are.
    assert (row["clean_ratio_low"], row["clean_ratio_high"]) == pytest.approx((0, 0.5))


def test_ties_that_the_vlm_says_count_as_half_wrong() -> None:
    (row,) = label_stats.error_rates(labels([("a", 0.5, 1.0, 1.0, "clean"), ("a", 1.0, 1.0, 1.0, "clean")])).to_dict(
        "records"
    )
    assert row["error"] == row["clean_error"] == 0.25 and row["clean_ratio"] == 1


def test_ratio_interval_resamples_runs_within_tasks() -> None:
    generator = np.random.default_rng(4)
    rows = []
    for run, wrong in enumerate([0.1, 0.3, 0.2, 0.4]):
        for partition, rate in (("clean", wrong), ("uncertain", 0.5)):
            truth = generator.integers(0, 2, 200).astype(float)
            said = np.where(generator.random(200) < rate, 1 - truth, truth)
            rows += [(str(run), label, true, 1.0, partition) for label, true in zip(said, truth, strict=True)]
    table = labels(rows)
    table["task"] = np.where(table["run_id"].isin(["0", "1"]), "door-close-v3", "button-press-v3")
    (row,) = label_stats.error_rates(table).to_dict("records")
    table["wrong"] = table["label"] != table["truth"]
    per_run = {run: of_run for run, of_run in table.groupby("run_id")}
    ratios, chosen = [], [("0", "1"), ("2", "3")]
    for draws in itertools.product(*(pair for pair in chosen for _ in pair)):
        sample = pd.concat([per_run[run] for run in draws])
        ratios.append(sample[sample["partition"] == "clean"]["wrong"].mean() / sample["wrong"].mean())
    assert len(ratios) == 16  # all resamples are equally likely
    assert row["clean_ratio_low"] == pytest.approx(min(ratios))  # each of the two ends has probability 1 / 16
    assert row["clean_ratio_high"] == pytest.approx(max(ratios))


def test_rates_that_cannot_be_told_are_nan() -> None:
    none_wrong = label_stats.error_rates(labels([("a", 1.0, 1.0, 0.1, "clean"), ("b", 0.0, 0.0, 0.9, "uncertain")]))
    none_clean = label_stats.error_rates(labels([("a", 1.0, 0.0, 1.0, "uncertain"), ("b", 1.0, 0.0, 1.0, "uncertain")]))
    for rates in (none_wrong, none_clean):
        assert rates[["flipped_error", "clean_ratio", "clean_ratio_low"]].isna().all(axis=None)
        assert "cannot be compared" in label_stats.error_rates_in_words(rates)
        assert "flipped: no label" in label_stats.error_rates_in_words(rates)
    one = label_stats.error_rates(labels([row for row in BY_HAND if row[0] == "a"]))
    assert one["clean_ratio"].notna().all() and one["clean_ratio_low"].isna().all()


def test_error_correlations_by_hand() -> None:
    both, vlm, ensemble = (
        ("a", 0.0, 1.0, 0.1, "clean"),
        ("a", 0.0, 1.0, 2.0, "uncertain"),
        ("b", 0.0, 0.0, 2.0, "flipped"),
    )
    rows = [both] * 2 + [vlm, ensemble] + [("b", 1.0, 1.0, 0.1, "clean")] * 4
    ties = [("a", 0.5, 1.0, 0.1, "clean"), ("a", 1.0, 0.5, 0.1, "clean")]
    assert label_stats.error_correlations(labels(rows + ties)).to_dict() == {
        "prefvlm": pytest.approx((2 * 4 - 1 * 1) / (3 * 5))  # phi of the table with 2, 1, 1 and 4 pairs
    }
    assert label_stats.error_correlations(labels(rows[-4:])).isna().all()


def test_who_is_right_by_hand() -> None:
    """A divergence above ln 2 means that the ensemble gives the VLM's label less than 1/2."""
    table = label_stats.judges(labels([*BY_HAND, ("a", 0.5, 1.0, 0.1, "clean")])).set_index(["task", "partition"])
    everything = table.loc[("all tasks", "all")]
    assert (everything["labels"], everything["share"], everything["vlm"]) == (16, 1, pytest.approx(10 / 16))
    assert everything["ensemble"] == pytest.approx((7 + 2 + 3) / 16), "of the clean, the flipped and the uncertain"
    assert everything["agree"] == pytest.approx(8 / 16)
    uncertain = table.loc[("door-close-v3", "uncertain")]
    assert (uncertain["share"], uncertain["vlm"], uncertain["ensemble"], uncertain["agree"]) == pytest.approx(
        (5 / 16, 2 / 5, 3 / 5, 0)
    )
    assert len(table) == 2 * 4


def test_error_rates_in_words() -> None:
    assert label_stats.error_rates_in_words(label_stats.error_rates(labels(BY_HAND))) == (
        "- **prefvlm**: the VLM is wrong in 38 % of 16 labels; clean: 12 % of 8 labels; "
        "flipped: 33 % of 3 labels after the flip; uncertain: 60 % of 5 labels. Clean labels are wrong 0.33 times "
        "(0.00 to 0.50) as often as all: the filter earns its place (at most 0.5)."
    )
    useless = labels([("a", 1.0, 1.0, 1.0, name) for name in label_stats.PARTITIONS] * 3 + BY_HAND[3:4] * 2)
    assert "Clean labels are wrong 2.20 times (no interval) as often as all: the filter does not earn its place" in (
        label_stats.error_rates_in_words(label_stats.error_rates(useless))
    )
    kept = labels([row for row in BY_HAND if row[-1] == "clean"])
    assert label_stats.error_rates_in_words(label_stats.error_rates(kept)).endswith(
        "uncertain: no label. Every label is kept: there is no filter to judge."
    )


def summary(rows: Sequence[tuple[str, str, str, float, float]]) -> pd.DataFrame:
    """`summary_table` rows of (task, method, arm, human_labels, success), intervals of 0.1 to both sides."""
    table = pd.DataFrame(rows, columns=["task", "method", "arm", "human_labels", "success"])
    return table.assign(success_low=table["success"] - 0.1, success_high=table["success"] + 0.1, seeds=5)


SETTINGS = [
    ("door-close-v3", "prefvlm", "alpha 0.5, upper 6.9", 100, 0.6),
    ("door-close-v3", "prefvlm", "alpha 0.3, upper 6.9", 100, 0.8),
    ("door-close-v3", "prefvlm", "alpha 0.3, upper 2.0", 40, 0.3),
    ("door-close-v3", "prefvlm-adaptive", "adaptive", 90, 0.7),
]


def test_thresholds_in_words() -> None:
    pooled = [(stats.ALL_TASKS, *row[1:]) for row in SETTINGS]
    assert label_stats.thresholds_in_words(summary(SETTINGS)) == (
        "- **door-close-v3**: adaptive reaches 70 % (60 to 80) with 90 labels of the human; "
        "the best of 3 set by hand 80 % (70 to 90) with 100 labels of the human: alpha 0.3, upper 6.9; "
        "the worst 30 % (20 to 40) with 40 labels of the human: alpha 0.3, upper 2.0; adaptive is ahead of 2 of 3."
    )
    two = summary([*SETTINGS, ("button-press-v3", *SETTINGS[3][1:]), *pooled])
    said = label_stats.thresholds_in_words(two).split("\n")
    assert [line.split("**")[1] for line in said] == ["door-close-v3", "button-press-v3", stats.ALL_TASKS]
    alone = label_stats.thresholds_in_words(summary(SETTINGS[3:]).assign(seeds=1, success_low=np.nan))
    assert alone == "- **door-close-v3**: adaptive reaches 70 % (one seed) with 90 labels of the human."
    assert label_stats.thresholds_in_words(summary(SETTINGS[:1])).startswith("- **door-close-v3**: the best of 1")


def transfer(successes: dict[str, dict[int, float]], task: str = "door-close-v3") -> pd.DataFrame:
    """A summary of budgets and success by family."""
    points = [(family, budget, success) for family, of_it in successes.items() for budget, success in of_it.items()]
    rows = [(task, "prefvlm", f"{family} ({budget} labels)", budget, success) for family, budget, success in points]
    families, budgets, _ = zip(*points, strict=True)
    return summary(rows).assign(family=families, budget=budgets)


def test_partition_colors_stay_apart_for_color_blind_readers() -> None:
    colors = {color for _, color, _ in label_plots.ACCURACIES.values()}
    assert set(label_plots.PARTITION_COLORS.values()) < colors and len(colors) == 5
    for one, other in itertools.combinations(sorted(colors), 2):
        views = zip(color_blind_lab(one), color_blind_lab(other), strict=True)
        assert min(np.linalg.norm(a - b) for a, b in views) > 15, (one, other)


def test_label_accuracy_draws_means_over_the_seeds_that_have_a_value() -> None:
    figure = label_plots.label_accuracy(runs())
    titles = [f"{task}\n{arm}" for task in ("button-press", "door-close") for _, arm in FILTERS]
    assert [axes.get_title() for axes in figure.axes] == titles
    thick = [line for line in panel_lines(figure, "door-close\nprefvlm") if line.get_linewidth() == 1.5]
    heights = [set(np.round(np.asarray(line.get_ydata(), dtype=float), 6)) for line in thick]
    assert heights == [{60}, {65}, {76.666667}, {40}, {50}]  # flipped: of seed 0 alone
    np.testing.assert_array_equal(thick[0].get_xdata(), np.arange(20_000, 60_001, 10_000))
    kept = [text.get_text() for text in figure.axes[2].texts]
    assert kept == ["zero-shot VLM", "adapted VLM", "clean"]
    assert "95 %" not in footer(figure) and "thin: single seeds" in footer(figure)


def test_partitions_stack_to_one_hundred() -> None:
    figure = label_plots.partitions(runs(tasks=TASKS[:1]))
    axes = figure.axes[0]
    tops = []
    for area in axes.collections:
        assert isinstance(area, FillBetweenPolyCollection)
        tops.append(max(y for x, y in area.get_paths()[0].vertices if x == 40_000))
    np.testing.assert_allclose(tops, [60, 90, 100])
    assert [text.get_text() for text in axes.texts] == ["clean 60 %", "uncertain 30 %", "flipped 10 %"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["clean 100 %"]


def test_divergences_count_right_and_wrong_labels() -> None:
    data = runs(FILTERS[:1])
    figure = label_plots.divergences(labels(BY_HAND), data)
    (axes,) = figure.axes
    written = [text.get_text() for text in axes.texts]
    assert written == ["right", "wrong", "clean: 12 % of 8", "flipped: 33 % of 3", "uncertain: 60 % of 5"]
    bars = [patch for patch in axes.patches if isinstance(patch, mpl.patches.Rectangle)]
    assert sum(bar.get_height() for bar in bars) == 10
    tall = {round(bar.get_x(), 3): bar.get_height() for bar in bars if bar.get_height()}
    width = 1.03 * 6.5 / 30
    assert tall == {round(int(at / width) * width, 3): n for at, n in ((0.1, 3), (0.3, 4), (2, 2), (5, 1))}
    lower, upper = (line.get_xdata()[0] for line in axes.lines)
    assert (lower, upper) == (0.5, 6.5)  # the median of 4 to 9


def test_divergences_without_thresholds_or_wrong_labels() -> None:
    data = runs(FILTERS[2:])
    right = labels([("a", 1.0, 1.0, 0.1, "clean")] * 3, *FILTERS[2])
    for evaluations in (data, data.drop(columns=["tau_lower", "tau_upper"])):
        (axes,) = label_plots.divergences(right, evaluations).axes
        assert list(axes.lines) == []
        assert [text.get_text() for text in axes.texts][2:] == ["clean: 0 % of 3", "flipped: none", "uncertain: none"]


def test_labels_against_success_keeps_dots_apart_and_adaptive_ones_big() -> None:
    (axes,) = label_plots.labels_against_success(summary(SETTINGS), "quick").axes
    dots = {round(line.get_ydata()[0]): line for line in axes.lines}
    assert dots[70].get_marker() == "D" and dots[70].get_markersize() > dots[80].get_markersize()
    x = {success: dot.get_xdata()[0] for success, dot in dots.items()}
    assert x[30] == pytest.approx(40) and x[70] == pytest.approx(90)
    assert x[60] - x[80] == pytest.approx(0.015 * 115) and (x[60] + x[80]) / 2 == pytest.approx(100)
    bars = [item.get_segments()[0] for item in axes.collections if isinstance(item, LineCollection)]
    np.testing.assert_allclose(sorted(bar[:, 1].tolist() for bar in bars), [[20, 40], [50, 70], [60, 80], [70, 90]])


def test_success_against_budget_draws_a_line_per_arm() -> None:
    table = transfer({"without transfer": {100: 0.8, 50: 0.6}, "with transfer": {100: 0.7, 50: 0.8, 25: 0.4}})
    (axes,) = label_plots.success_against_budget(table, "quick").axes
    with_line, _, without_line, _ = axes.lines
    np.testing.assert_allclose(with_line.get_xdata(), [25, 50, 100])
    np.testing.assert_allclose(with_line.get_ydata(), [40, 80, 70])
    np.testing.assert_allclose(without_line.get_ydata(), [60, 80])
    assert without_line.get_linestyle() == "--" and list(axes.get_xticks()) == [25, 50, 100]


def test_success_against_budget_pools_at_the_mean_budget() -> None:
    data = runs([("prefvlm", "with transfer (100 labels)")]).assign(family="with transfer")
    uneven = data.assign(budget=np.where(data["task"] == TASKS[0], 50, 100))
    (*_, pooled) = label_plots.success_against_budget(stats.summary_table(uneven), "quick").axes
    assert pooled.get_title() == stats.ALL_TASKS and list(pooled.get_xticks()) == [75]


def test_success_against_accuracy_draws_lines_and_levels() -> None:
    points = [("prefvlm", 0.7, 0.2), ("prefvlm", 1.0, 0.9), ("no filter", 0.7, 0.1), ("human only", math.nan, 0.5)]
    rows = [("door-close-v3", "prefvlm", f"{family} {right}", 50, success) for family, right, success in points]
    families, accuracies, _ = zip(*points, strict=True)
    table = summary(rows).assign(family=families, simulated_accuracy=accuracies)
    (axes,) = label_plots.success_against_accuracy(table, "quick").axes
    lines = {tuple(np.round(np.asarray(line.get_ydata(), float), 6)): line for line in axes.lines}
    np.testing.assert_allclose(lines[20, 90].get_xdata(), [70, 100])
    assert (50, 50) in lines  # a level: no VLM is simulated there
    assert axes.get_xlim()[0] == 67 and list(axes.get_xticks()) == [70, 100]
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['simulated_accuracy'\]"):
        label_plots.success_against_accuracy(summary(rows), "quick")


def test_one_seed_and_one_evaluation_are_drawn() -> None:
    data = runs(seeds=1, evaluations=1)
    for figure in (label_plots.label_accuracy(data), label_plots.partitions(data)):
        assert len(figure.axes) == 6
    table = stats.summary_table(runs([("prefvlm", "with transfer (100 labels)")], seeds=1))
    for figure in (
        label_plots.labels_against_success(table, "quick"),
        label_plots.success_against_budget(table.assign(family="with transfer"), "quick"),
    ):
        assert "1 seed, no interval" in footer(figure)
        FigureCanvasAgg(figure).draw()


def long_log() -> pd.DataFrame:
    rows = [(str(index), *row[1:]) for index in range(2) for row in BY_HAND for _ in range(150)]
    return pd.concat([labels(rows, *pair) for pair in FILTERS])


def thirteen() -> pd.DataFrame:
    settings = [f"alpha {alpha}, beta {beta}, upper 6.9" for alpha in (0.25, 0.5) for beta in range(6)]
    rows = [(task, "prefvlm", name, 100, 0.5) for task in (*TASKS, stats.ALL_TASKS) for name in settings]
    return summary([*rows, *[(task, "prefvlm-adaptive", "adaptive", 100, 0.5) for task in (*TASKS, stats.ALL_TASKS)]])


FIGURES = {
    "accuracy": lambda: label_plots.label_accuracy(runs()),
    "accuracy column": lambda: label_plots.label_accuracy(runs(), "column"),
    "partitions": lambda: label_plots.partitions(runs(tasks=TASKS[:1])),
    "divergences": lambda: label_plots.divergences(long_log(), runs()),
    "divergences column": lambda: label_plots.divergences(long_log(), runs(), "column"),
    "sensitivity": lambda: label_plots.labels_against_success(thirteen(), "laptop"),
    "sensitivity column": lambda: label_plots.labels_against_success(thirteen(), "laptop", "column"),
    "transfer": lambda: label_plots.success_against_budget(
        transfer({"without transfer": {100: 0.8, 50: 0.8}, "with transfer": {100: 0.8, 25: 0.4}}), "quick"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_or_leaves_the_page(name: str) -> None:
    figure = FIGURES[name]()
    assert figure.get_figwidth() <= 3.4 + 3.6 * ("column" not in name) + 1e-9
    check_text(figure)


def test_the_arm_named_as_its_method_comes_first() -> None:
    pairs = [("prefvlm", "held-out TinyLIV"), ("prefvlm", "prefvlm"), ("prefvlm", "random VLM")]
    styles = plot_style.curve_styles(pd.DataFrame(pairs, columns=["method", "arm"]))
    assert list(styles) == ["prefvlm", "held-out TinyLIV", "random VLM"]
    assert styles["prefvlm"].dashes == "solid"


def test_wrong_arguments_are_named() -> None:
    data = runs()
    with pytest.raises(PrefVLMError, match=r"The label log lacks the columns \['divergence'\]"):
        label_stats.error_rates(labels(BY_HAND).drop(columns="divergence"))
    with pytest.raises(PrefVLMError, match="The VLM's label log has no row"):
        label_plots.divergences(labels(BY_HAND[-7:]), data)
    with pytest.raises(PrefVLMError, match="evaluations of runs whose VLM labels has no row"):
        label_plots.label_accuracy(data.drop(columns=list(label_plots.ACCURACIES)))
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['clean_fraction'\]"):
        label_plots.partitions(data.drop(columns="clean_fraction"))
    with pytest.raises(PrefVLMError, match="Unknown width 'page'"):
        label_plots.label_accuracy(data, "page")
    with pytest.raises(PrefVLMError, match=r"lacks the columns \['budget', 'family'\]; use what stats.summary_table"):
        label_plots.success_against_budget(summary(SETTINGS), "quick")
