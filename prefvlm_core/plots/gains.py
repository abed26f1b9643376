"""Figures of what arms gain over those that they are compared with, against a number in which they differ."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import shown_tasks
from prefvlm_core.analysis.paired import DECIDING, MARGIN, MEASURES
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.plots.budgets import MEAN_BUDGET
from prefvlm_core.plots.layout import Key, Row, footer_line, make_panels, panels_of_tasks
from prefvlm_core.plots.style import REFERENCE_COLOR, method_color, project_style

MARKERS = {"prefvlm": "o", "prefvlm-no-filter": "s", "prefvlm-plus": "^", "prefvlm-adaptive": "v"}
_ERRORS = {"simulated": "pairs", "simulated-segments": "segments", "simulated-features": "features"}
"""Kinds of simulated VLMs, and what one of their errors belongs to."""
_COLUMNS = {"task", "method", "mean", "low", "high", "pairs"}


@project_style
def gain_against_budget(gaps: pd.DataFrame, profile: str) -> Figure:
    """What arms gain against the budget of human labels: a panel per task or, of three tasks and more, small ones below
    one of all tasks, whose budget is the mean of theirs.

    `gaps` is a `paired.planned_differences`. Mark: mean difference in points; bar: its interval; what lies within the
    shaded margin is level. Raises PrefVLMError for missing columns.
    """
    check_columns(gaps, _COLUMNS | {"budget"}, "table of differences", "paired.planned_differences")
    tasks = sorted(set(gaps["task"]) - {ALL_TASKS})
    footer = gains_footer(gaps, profile, MEAN_BUDGET if ALL_TASKS in shown_tasks(gaps["task"]) else "")
    figure, panels = make_panels(panels_of_tasks(tasks, 1.3), footer, left=0.06)
    for panel in panels:
        rows = gaps[gaps["task"] == panel.name].sort_values("budget")
        draw_gains(panel.axes, rows["budget"], rows)
        draw_ground(panel.axes, gaps)
        panel.axes.set_xscale("log", base=2)
        panel.axes.set_xlim(rows["budget"].min() / 1.25, 1.25 * rows["budget"].max())
        panel.axes.set_xticks(rows["budget"].tolist(), [f"{budget:.0f}" for budget in rows["budget"]])
        panel.axes.xaxis.set_minor_locator(NullLocator())
        panel.set_axis_titles("budget of human labels", "gain (points)")
    return figure


@project_style
def gain_against_accuracy(gaps: pd.DataFrame, profile: str) -> Figure:
    """What a simulated VLM gains against how often it is right, all tasks together: a panel per kind of its errors, a
    line per method.

    `gaps` is a `paired.planned_differences` of arms with a simulated VLM; the rest is as in `gain_against_budget`.
    """
    columns = _COLUMNS | {"vlm", "simulated_accuracy"}
    check_columns(gaps, columns, "table of differences", "paired.planned_differences")
    pooled = gaps[gaps["task"] == ALL_TASKS].sort_values("simulated_accuracy")
    kinds = [kind for kind in _ERRORS if kind in set(pooled["vlm"].str.partition(":")[0])]
    methods = [method for method in MARKERS if method in set(pooled["method"])]
    key = [Key(method, method_color(method), MARKERS[method]) for method in methods]
    panel_row = Row([f"errors by\n{_ERRORS[kind]}" for kind in kinds], 1.4, 0.06, 0.06)
    figure, panels = make_panels([panel_row], gains_footer(pooled, profile), left=0.36, key=key)
    right = (100 * pooled["simulated_accuracy"]).round()
    for panel, kind in zip(panels, kinds, strict=True):
        of_kind = pooled[pooled["vlm"].str.partition(":")[0] == kind]
        for apart, method in enumerate(methods):
            rows = of_kind[of_kind["method"] == method]
            draw_gains(panel.axes, right[rows.index] + apart - 0.5 * (len(methods) - 1), rows)
        draw_ground(panel.axes, pooled)
        panel.axes.set(xlim=(right.min() - 5, right.max() + 5), xticks=sorted(set(right)))
        panel.axes.tick_params(labelleft=panel.leftmost)
        panel.set_axis_titles("VLM right (%)", "gain over no VLM (points)")
    return figure


def draw_gains(axes: Axes, x: pd.Series, rows: pd.DataFrame) -> None:
    """The differences of one method, in points, and their bars, faintly joined; nothing where there are no rows."""
    for method, of_method in rows.groupby("method"):
        color, at = method_color(str(method)), x[of_method.index]
        axes.vlines(at, 100 * of_method["low"], 100 * of_method["high"], color=color, alpha=0.5, lw=1.2)
        marker = MARKERS.get(str(method), "o")
        axes.plot(at, 100 * of_method["mean"], color=color, alpha=0.35, lw=0.7)
        axes.plot(at, 100 * of_method["mean"], marker, color=color, markersize=3.6)


def draw_ground(axes: Axes, gaps: pd.DataFrame) -> None:
    """Shade what is level, and let y hold every interval of `gaps`."""
    axes.axhspan(-100 * MARGIN, 100 * MARGIN, color=REFERENCE_COLOR, alpha=0.15, lw=0, zorder=0)
    axes.axhline(0, color=REFERENCE_COLOR, lw=0.6, zorder=0)
    bounds = 100 * gaps[["mean", "low", "high"]].to_numpy()
    axes.set_ylim(min(-15.0, np.nanmin(bounds) - 3), max(15.0, np.nanmax(bounds) + 3))


def gains_footer(gaps: pd.DataFrame, profile: str, shown: str = "") -> str:
    """What a figure of gains shows, in a line."""
    fewest, most = gaps["pairs"].min(), gaps["pairs"].max()
    return footer_line(
        f"profile {profile}",
        f"{fewest if fewest == most else f'{fewest}–{most}'} pairs of runs",
        f"{MEASURES[DECIDING]}: paired difference",
        "bar: 95 % stratified bootstrap interval" if gaps["low"].notna().any() else "",
        f"shaded: level, within ±{100 * MARGIN:g} points",
        shown,
    )
