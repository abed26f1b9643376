"""Figures about labels: how good the VLM's are, what the filter makes of them, and what the human's are worth.

The filter's partitions have colors of their own, which no method has. Evaluations are those of `plots.curves`, with the
columns of runs whose VLM labels; label rows are those of `analysis.label_quality`.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis import stats
from prefvlm_core.analysis.label_quality import ADAPTIVE, check_columns, decided_vlm_labels, error_rates
from prefvlm_core.plots.style import (
    LABEL_SIZE,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    X_TITLES,
    Y_TITLES,
    CurveEnd,
    CurveStyle,
    Panel,
    Spaces,
    count_from_zero,
    curve_styles,
    darker,
    label_curve_ends,
    make_footer,
    make_panels,
    method_color,
    panel_names,
    project_style,
    show_percent,
    spread,
    task_title,
    text_width,
    wrapped,
)

# Far enough apart for color-blind readers, which tests/plots measures.
PARTITION_COLORS = {"clean": "#228899", "flipped": "#AA3355", "uncertain": "#DDAA33"}
ACCURACIES = {  # column -> name in the figure, color, dashes
    "vlm_accuracy": ("zero-shot VLM", "#9A9A9A", (0, (1, 1))),
    "adapted_vlm_accuracy": ("adapted VLM", "#222222", "solid"),
    "clean_accuracy": ("clean", PARTITION_COLORS["clean"], "solid"),
    "flipped_accuracy": ("flipped", PARTITION_COLORS["flipped"], (0, (4, 1, 1, 1))),
    "uncertain_accuracy": ("uncertain", PARTITION_COLORS["uncertain"], (0, (4, 1.2))),
}
_RIGHT, _WRONG = "#B4BCC6", "#222222"
_LARGEST_DIVERGENCE = 14.0  # nats; the filter's divergences end at -ln 1e-6 = 13.8
_PANEL_HEIGHT = 1.3  # inches


@project_style
def label_accuracy(data: pd.DataFrame, width: str = "wide") -> Figure:
    """One panel per task and arm: accuracy of the VLM's labels, and of each partition's, against environment steps.

    Thick line: mean over the seeds that have a value there (a session that flips nothing has no accuracy of flipped
    labels); thin lines: single seeds. Dashed gray: chance. `data` needs the columns of `stats.EVALUATION_COLUMNS` and
    some of `ACCURACIES` (0..1, nan before the first selective session); arms without any value have no panel.
    `width` is a key of `plots.style.WIDTHS`. Raises PrefVLMError for malformed data, or when no arm has a value.
    """
    columns = [column for column in ACCURACIES if column in data]

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        axes.axhline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        ends = []
        for column in columns:
            name, color, dashes = ACCURACIES[column]
            seeds = 100 * rows.pivot(index="step", columns="seed", values=column).dropna(how="all")
            if seeds.empty:
                continue
            mean, marker = seeds.mean(axis=1), "o" if len(seeds) == 1 else None  # a lone point has no line
            axes.plot(seeds.index, seeds, color=color, alpha=0.3, lw=0.5)
            axes.plot(mean.index, mean, color=color, linestyle=dashes, lw=1.5, marker=marker, markersize=3)
            ends.append(CurveEnd(name, to_rgb(color), mean.index[-1], mean.iloc[-1]))
        show_percent(axes)
        label_curve_ends(axes, ends)

    names = [ACCURACIES[column][0] for column in columns]
    shown = "thick line: mean over seeds; thin: single seeds; flipped labels: after the flip"
    return _over_steps(data, columns, names, "label accuracy (%)", shown, width, draw)


@project_style
def partitions(data: pd.DataFrame, width: str = "wide") -> Figure:
    """One panel per task and arm: clean, uncertain and flipped share of the VLM's labels against environment steps.

    Stacked areas, mean over seeds. `data` as in `label_accuracy`, with the columns `<partition>_fraction` (0..1).
    Raises PrefVLMError for malformed data, or when no arm has a value.
    """
    order = ("clean", "uncertain", "flipped")  # by divergence
    columns = [f"{partition}_fraction" for partition in order]

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        shares = 100 * rows.groupby("step")[columns].mean().dropna()
        axes.stackplot(shares.index, shares.T, colors=[PARTITION_COLORS[name] for name in order], alpha=0.75, lw=0)
        last = shares.iloc[-1].to_numpy()
        middles = np.cumsum(last) - last / 2
        axes.set(ylim=(0, 100), yticks=range(0, 101, 25), xlim=(0, shares.index[-1]))
        label_curve_ends(
            axes,
            [
                CurveEnd(f"{name} {share:.0f} %", to_rgb(PARTITION_COLORS[name]), np.inf, middle)
                for name, share, middle in zip(order, last, middles, strict=True)
                if shares[f"{name}_fraction"].any()
            ],
        )

    names = [f"{name} 100 %" for name in order]
    shown = "areas: mean over seeds; numbers: at the end"
    return _over_steps(data, columns, names, "share of the VLM's labels (%)", shown, width, draw)


def _over_steps(
    data: pd.DataFrame,
    columns: list[str],
    names: list[str],
    y_title: str,
    shown: str,
    width: str,
    draw: Callable[[Axes, pd.DataFrame], None],
) -> Figure:
    """One panel per task and arm that has a value in `columns`, `draw`n against environment steps."""
    stats.check_evaluations(data)
    check_columns(data, set(columns), "evaluations", "experiments.plan.evaluations")
    values = data.dropna(subset=columns, how="all") if columns else data.iloc[:0]
    check_columns(values, set(), "evaluations of runs whose VLM labels", "experiments.plan.evaluations")
    styles, tasks = curve_styles(values), sorted(set(values["task"]))
    groups = {
        (f"{task_title(task)}\n" if len(tasks) > 1 else "") + wrapped(arm): rows
        for task in tasks
        for arm in styles
        if len(rows := values[(values["task"] == task) & (values["arm"] == arm)])
    }
    seeds = values.groupby(["task", "arm"])["seed"].nunique()
    footer = make_footer(values["profile"], tasks, seeds, shown, "")
    spaces = Spaces(before=0.28, after=text_width(map(wrapped, names)) + 0.16, left=0.16)
    figure, panels = make_panels(list(groups), width, _PANEL_HEIGHT, spaces, footer)
    for panel in panels:
        rows = groups[panel.name]
        count_from_zero(panel.axes, 4)
        panel.axes.set_xlim(right=1.02 * rows["step"].max())
        panel.set_axis_titles(X_TITLES["step"], y_title)
        draw(panel.axes, rows)
    return figure


@project_style
def divergences(labels: pd.DataFrame, data: pd.DataFrame, width: str = "wide") -> Figure:
    """One panel per arm: how far right and wrong labels of the VLM diverge from the reward ensemble's opinion.

    Histograms of the divergence (nats) over the labels of all tasks, seeds and sessions, pairs of equal true return
    left out. Counts are on a logarithmic scale, which also shows the few labels that diverge most: where wrong ones
    outnumber right ones, a flip is for the better. Vertical lines: medians over evaluations of the thresholds
    `tau_lower` and `tau_upper` in `data`, where there are such columns, and the median is above 0 and within reach.
    Written beside: each partition's error rate, flipped labels after the flip, and its number of labels.

    `labels` has the columns `label_quality.LABEL_COLUMNS`, `data` is the evaluations of the same runs; `width` is a key
    of `plots.style.WIDTHS`. Raises PrefVLMError for missing columns, or when the VLM gave no label that can be judged.
    """
    rows = decided_vlm_labels(labels)
    styles, tasks = curve_styles(rows), sorted(set(rows["task"]))
    rates = error_rates(labels).set_index("arm")
    legends = [_legend(rates.loc[arm]) for arm in styles]
    thresholds = [_median_thresholds(data[data["arm"] == arm]) for arm in styles]
    end = 1.03 * max([rows["divergence"].max(), *(tau for lines in thresholds for tau in lines.values())])
    seeds = rows.groupby(["task", "arm"])["seed"].nunique()
    shown = (
        "labels of all sessions; dashed: median thresholds, kept below the first, flipped above the second; "
        "% wrong of each partition, flipped after the flip"
    )
    footer = make_footer(rows["profile"], tasks, seeds, shown, "")
    spaces = Spaces(before=0.28, after=text_width(itertools.chain(*legends)) + 0.16, left=0.16)
    titles = [wrapped(arm) for arm in styles]
    figure, panels = make_panels(titles, width, _PANEL_HEIGHT, spaces, footer)
    for panel, arm, lines, legend in zip(panels, styles, thresholds, legends, strict=True):
        draw_histograms(panel.axes, rows[rows["arm"] == arm], np.linspace(0, end, 31).tolist())
        for name, tau in lines.items():
            panel.axes.axvline(tau, color=PARTITION_COLORS[name], lw=1.0, linestyle=(0, (3, 1.5)))
        panel.axes.set_xlim(0, end)
        panel.set_axis_titles("divergence (nats)", "VLM labels")
        for line, (text, color) in enumerate(legend.items()):
            y = 1 - line * 1.3 * LINE_HEIGHT / _PANEL_HEIGHT
            style: dict[str, Any] = {"color": darker(to_rgb(color)), "va": "top", "fontsize": LABEL_SIZE}
            panel.axes.text(1.02, y, text, transform=panel.axes.transAxes, **style)
    return figure


def draw_histograms(axes: Axes, rows: pd.DataFrame, bins: list[float]) -> None:
    """Counts of right labels as areas, of wrong ones as an outline."""
    axes.hist(rows.loc[rows["error"] == 0, "divergence"], bins, color=_RIGHT, log=True)
    axes.hist(rows.loc[rows["error"] == 1, "divergence"], bins, color=_WRONG, histtype="step", lw=1.0, log=True)
    axes.set_ylim(bottom=0.7)


def _median_thresholds(rows: pd.DataFrame) -> dict[str, float]:
    """Partition -> the threshold (nats) at which it begins or ends, where a divergence can lie on both sides."""
    medians = {
        partition: rows[column].median()
        for partition, column in (("clean", "tau_lower"), ("flipped", "tau_upper"))
        if column in rows
    }
    return {partition: tau for partition, tau in medians.items() if 0 < tau < _LARGEST_DIVERGENCE}


def _legend(rates: pd.Series) -> dict[str, str]:
    """Text -> color: the histograms, then each partition's error rate."""
    legend = {"right": _RIGHT, "wrong": _WRONG}
    for partition, color in PARTITION_COLORS.items():
        count = int(rates[f"{partition}_labels"])
        error = f"{100 * rates[f'{partition}_error']:.0f} % of {count:,}" if count else "none"
        legend[f"{partition}: {error}"] = color
    return legend


@project_style
def labels_against_success(table: pd.DataFrame, profile: str, width: str = "wide") -> Figure:
    """One panel per task, a dot per setting: success against the human labels it spent; adaptive thresholds stand out.

    `table` is a `stats.summary_table`. Dot: interquartile mean of the last 10 % of steps; bar: its 95 % interval, none
    with one seed. Dots that would lie on each other are moved apart sideways. `width` is a key of `plots.style.WIDTHS`.
    Raises PrefVLMError for missing columns or another width.
    """
    _check_summary(table)
    styles = curve_styles(table)
    labels = [wrapped(arm) for arm in styles]
    height = max(_PANEL_HEIGHT, sum(label.count("\n") + 1 for label in labels) * LINE_HEIGHT)
    shown = "dot: interquartile mean, last 10 % of steps; dots with equal label counts are moved apart"
    figure, panels = _success_panels(table, labels, height, profile, width, shown)
    for panel in panels:
        of_panel = table[table["task"] == panel.name].set_index("arm")
        rows = of_panel.reindex([arm for arm in styles if arm in of_panel.index]).reset_index()
        end = 1.15 * max(1.0, rows["human_labels"].max())
        # Moved apart in the order of the settings' names: in the order of success it would look like a trend.
        x = spread(rows["human_labels"].tolist(), [0.015 * end] * len(rows), 0, end)
        ends = []
        for at, row in zip(x, rows.to_dict("records"), strict=True):
            color, low, high = to_rgb(method_color(row["method"])), row["success_low"], row["success_high"]
            marker, size, alpha, bar = ("D", 5.0, 0.9, 1.6) if row["method"] == ADAPTIVE else ("o", 3.0, 0.5, 0.8)
            panel.axes.vlines(at, 100 * low, 100 * high, color=color, alpha=alpha, lw=bar)
            panel.axes.plot(at, 100 * row["success"], marker, color=color, markersize=size, zorder=3, clip_on=False)
            ends.append(CurveEnd(row["arm"], color, at, 100 * row["success"]))
        panel.axes.set_xlim(0, end)
        show_percent(panel.axes)
        panel.set_axis_titles(X_TITLES["human_labels"], Y_TITLES["success"])
        label_curve_ends(panel.axes, ends)
    return figure


@project_style
def success_against_budget(table: pd.DataFrame, profile: str, width: str = "wide") -> Figure:
    """One panel per task, and "all tasks" when there are several, a line per family of arms: success against the budget
    of human labels.

    `table` is a `stats.summary_table`. Dot: interquartile mean of the last 10 % of steps; bar: its 95 % interval, none
    with one seed. `width` is a key of `plots.style.WIDTHS`. Raises PrefVLMError for missing columns or another width.
    """
    titles = ("budget of human labels", "budget of human labels, mean over tasks")
    return _success_against(table, "budget", titles, 0, profile, width)


@project_style
def success_against_accuracy(table: pd.DataFrame, profile: str, width: str = "wide") -> Figure:
    """One panel per task, and "all tasks" when there are several: success against how often a simulated VLM is right.

    Arms whose VLM is not simulated are horizontal lines. The rest is as in `success_against_budget`.
    """
    check_columns(table, {"simulated_accuracy"}, "summary", "stats.summary_table")
    percent = table.assign(simulated_accuracy=(100 * table["simulated_accuracy"]).round())
    title, start = "labels of the VLM that are right (%)", percent["simulated_accuracy"].min() - 3
    return _success_against(percent, "simulated_accuracy", (title, title), start, profile, width)


def _success_against(
    table: pd.DataFrame, x: str, x_titles: tuple[str, str], start: float, profile: str, width: str
) -> Figure:
    """Success against the column `x` of `table`, from `start` on; a line per family, horizontal where x is nan.

    `x_titles`: of a task, and of all tasks.
    """
    _check_summary(table)
    check_columns(table, {"family", x}, "summary", "stats.summary_table")
    styles = curve_styles(table, "family")
    labels = [wrapped(family) for family in styles]
    shown = "dot: interquartile mean, last 10 % of steps"
    figure, panels = _success_panels(table, labels, _PANEL_HEIGHT, profile, width, shown)
    for panel in panels:
        rows = table[table["task"] == panel.name].sort_values(x)
        apart = 0.012 * (rows[x].max() - start)  # bars stay apart
        ends = _draw_lines(panel.axes, rows, x, styles, apart)
        panel.axes.set_xticks(ticks := sorted(set(rows[x].dropna())), [f"{tick:.0f}" for tick in ticks])
        show_percent(panel.axes)
        panel.axes.set_xlim(start, rows[x].max() + 5 * apart)
        panel.set_axis_titles(x_titles[panel.name == stats.ALL_TASKS], Y_TITLES["success"])
        label_curve_ends(panel.axes, ends)
    return figure


def _draw_lines(
    axes: Axes, rows: pd.DataFrame, x: str, styles: Mapping[str, CurveStyle], apart: float
) -> list[CurveEnd]:
    """Success of each family against the column `x`; points at the same x are drawn `apart` from each other."""
    ends, drawn = [], Counter[float]()
    for family, (color, dashes) in styles.items():
        points = rows[rows["family"] == family]
        if points.empty:
            continue
        success = 100 * points["success"]
        if points[x].isna().all():
            axes.axhline(success.iloc[0], color=color, linestyle=dashes, lw=0.9)
            ends.append(CurveEnd(family, color, np.inf, success.iloc[0]))
            continue
        at = points[x] + apart * points[x].map(dict(drawn)).fillna(0)
        drawn.update(points[x])
        axes.vlines(at, 100 * points["success_low"], 100 * points["success_high"], color=color, alpha=0.6, lw=1)
        axes.plot(at, success, color=color, linestyle=dashes, lw=1.2)
        filling = color if dashes == "solid" else "white"
        axes.plot(at, success, "o", color=color, markerfacecolor=filling, markersize=3.5, zorder=3)
        ends.append(CurveEnd(family, color, at.iloc[-1], success.iloc[-1]))
    return ends


def _success_panels(
    table: pd.DataFrame, labels: Sequence[str], height: float, profile: str, width: str, shown: str
) -> tuple[Figure, Iterator[Panel]]:
    """One panel per task of a `stats.summary_table`, with room for `labels` at the right."""
    tasks = sorted(set(table["task"]) - {stats.ALL_TASKS})
    footer = make_footer([profile], tasks, table["seeds"], shown, "bar")
    spaces = Spaces(before=0.28, after=text_width(labels) + 0.16, left=0.16)
    return make_panels(panel_names(table), width, height, spaces, footer)


def _check_summary(table: pd.DataFrame) -> None:
    columns = {"task", "method", "arm", "human_labels", "success", "success_low", "success_high", "seeds"}
    check_columns(table, columns, "summary", "stats.summary_table")
