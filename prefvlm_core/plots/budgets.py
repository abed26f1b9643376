"""Figure of success against the label budget, in which the arms of a family differ."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from prefvlm_core.analysis import stats
from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import complete, mean_of_runs, shown_tasks
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import (
    Key,
    make_footer,
    make_panels,
    panels_of_tasks,
    show_percent,
    shows_runs,
)
from prefvlm_core.plots.style import MOST_CURVES, Y_TITLES, CurveStyle, curve_styles, project_style

MEAN_BUDGET = "all tasks: at the mean of their budgets"
_MARKERS = ("o", "D", "s", "^", "v")


@project_style
def success_against_budget(runs: pd.DataFrame, profile: str) -> Figure:
    """Success against the budget of human labels, a line per family of arms; families without labels are levels.

    `runs` is a `stats.run_table`. One or two tasks have a panel each; of three and more small ones stand below one of
    all tasks, where success and budget are the mean of the tasks' means. Mark: mean; bar: its 95 % stratified bootstrap
    interval, from five seeds on; dots: single runs of a task, where there are fewer than 20 seeds. Raises PrefVLMError
    for missing columns and more than `MOST_CURVES` families.
    """
    columns = {"task", "method", "family", "arm", "seed", "success", "budget"}
    check_columns(runs, columns, "table of runs", "stats.run_table")
    runs = runs.assign(x=runs["budget"].where(runs["budget"] > 0))
    styles, tasks = curve_styles(runs, "family"), sorted(set(runs["task"]))
    if len(styles) > MOST_CURVES:
        raise PrefVLMError(
            f"{len(styles)} lines cannot be told apart; choose at most {MOST_CURVES} families of {', '.join(styles)}."
        )
    seeds = runs.groupby(["task", "arm"])["seed"].nunique()
    dots = "; dots: single runs" if shows_runs(seeds) and seeds.max() > 1 else ""
    shown = f"mark: mean{dots}; success: last 10 % of steps"
    shown += f"; {MEAN_BUDGET}" if stats.ALL_TASKS in shown_tasks(runs["task"]) else ""
    footer = make_footer([profile], tasks, seeds, shown, "bar")
    levels = set(styles) - set(runs.dropna(subset="x")["family"])
    key = [
        Key(family, style.color, "_" if family in levels else marker)
        for (family, style), marker in zip(styles.items(), _MARKERS, strict=False)
    ]
    figure, panels = make_panels(panels_of_tasks(tasks, 1.3), footer, left=0.02, key=key)
    for panel in panels:
        pooled = panel.name == stats.ALL_TASKS
        rows = complete(runs, "arm") if pooled else runs[runs["task"] == panel.name]
        means = _means(rows)
        _draw_families(panel.axes, means, styles)
        if dots and not pooled:
            _draw_runs(panel.axes, rows, styles)
        _set_ticks(panel.axes, means["x"].dropna())
        show_percent(panel.axes)
        panel.set_axis_titles("budget of human labels", Y_TITLES["success"])
    return figure


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per family and arm: x (the mean over tasks), and mean, low and high of success in percent."""
    rows = []
    for (family, _), of_arm in runs.groupby(["family", "arm"]):
        x = of_arm.groupby("task")["x"].first().mean()
        rows.append({"family": family, "x": x} | dict(100 * mean_of_runs(of_arm, "success")))
    return pd.DataFrame(rows).sort_values("x")


def _apart(x: pd.Series, rank: int) -> pd.Series:
    """Where a family's marks stand, so that those of several at one number can be told apart."""
    return x * 1.04 ** (rank - 1)


def _draw_families(axes: Axes, means: pd.DataFrame, styles: Mapping[str, CurveStyle]) -> None:
    """A line through the means of each family, or a level where they have no x."""
    for rank, (family, (color, dashes)) in enumerate(styles.items()):
        points = means[means["family"] == family]
        if points["x"].isna().all():
            for level in points["mean"]:
                axes.axhline(level, color=color, linestyle=dashes, lw=0.9)
            continue
        x = _apart(points["x"], rank)
        axes.vlines(x, points["low"], points["high"], color=color, alpha=0.5, lw=1.2)
        axes.plot(x, points["mean"], color=color, linestyle=dashes, lw=1.2)
        axes.plot(x, points["mean"], _MARKERS[rank], color=color, markersize=3.6, zorder=3, clip_on=False)


def _draw_runs(axes: Axes, runs: pd.DataFrame, styles: Mapping[str, CurveStyle]) -> None:
    style: dict[str, Any] = {"alpha": 0.45, "markersize": 2.4, "markeredgewidth": 0, "zorder": 2, "clip_on": False}
    for rank, (family, (color, _)) in enumerate(styles.items()):
        rows = runs[(runs["family"] == family) & runs["x"].notna()]
        axes.plot(_apart(rows["x"], rank), 100 * rows["success"], "o", color=color, **style)


def _set_ticks(axes: Axes, numbers: pd.Series) -> None:
    """A tick at each number, with room at both ends."""
    ticks = sorted(set(numbers.round(1)))
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.25, 1.25 * ticks[-1])
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
