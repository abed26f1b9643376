"""Figures with a row per arm: dots for single runs, a mark for their mean, a bar for its interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefvlm_core.analysis import stats
from prefvlm_core.analysis.label_quality import accuracies_at_end, check_columns
from prefvlm_core.analysis.means import complete, mean_of_runs, shown_tasks
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import Key, grid, make_footer, make_panels, shows_runs, text_width, wrapped
from prefvlm_core.plots.style import (
    LINE_HEIGHT,
    PARTITION_COLORS,
    REFERENCE_COLOR,
    Y_TITLES,
    Color,
    curve_styles,
    method_color,
    project_style,
)


class Mark(NamedTuple):
    """How one number of a row is drawn."""

    name: str
    color: str | Color
    marker: str = "o"


ACCURACIES = {  # column -> mark
    "vlm_accuracy": Mark("zero-shot VLM", "#9A9A9A"),
    "adapted_vlm_accuracy": Mark("adapted VLM", "#222222", "D"),
    "clean_accuracy": Mark("clean", PARTITION_COLORS["clean"], "s"),
    "flipped_accuracy": Mark("flipped", PARTITION_COLORS["flipped"], "v"),
    "uncertain_accuracy": Mark("uncertain", PARTITION_COLORS["uncertain"], "^"),
}

_UNADAPTED = Mark("VLM without adapters", "#555555", "P")
"""In place of the first two of `ACCURACIES`, which are one."""


def draw_mark(axes: Axes, line: float, bounds: Sequence[float], color: str | Color, marker: str = "o") -> None:
    """A mark at the middle of (low, mean, high), and a bar from the first to the last, none where they are nan."""
    low, mean, high = bounds
    axes.plot([low, high], [line, line], color=color, alpha=0.45, lw=2.0, solid_capstyle="butt")
    axes.plot(mean, line, marker, color=color, markersize=3.6, clip_on=False, zorder=3)


def draw_runs(axes: Axes, line: float, values: Sequence[float], color: str | Color, height: float) -> None:
    """Small dots, spread over `height` in the given order, so that equal values can be counted."""
    y = line + height * (np.arange(len(values)) - (len(values) - 1) / 2) / max(len(values), 5)
    style: dict[str, Any] = {"color": color, "alpha": 0.45, "markersize": 2.4, "markeredgewidth": 0}
    axes.plot(values, y, "o", clip_on=False, zorder=2, **style)


@project_style
def final_success(runs: pd.DataFrame, profile: str) -> Figure:
    """Where every arm ends: a row per arm, the best first; a panel per task or, of three tasks and more, of their mean.

    `runs` is a `stats.run_table`; arms that did not run on every task are left out. Dots: single runs where an arm has
    fewer than 20 seeds, of several tasks' mean the tasks' means; mark: mean, of tasks the mean of their means; bar: its
    95 % stratified bootstrap interval, from five seeds on. `profile` is named in the footer. Raises PrefVLMError for
    missing columns, and where no arm ran on every task.
    """
    check_columns(runs, {"task", "method", "arm", "seed", "success"}, "table of runs", "stats.run_table")
    shared = complete(runs, "arm")
    if shared.empty:
        raise PrefVLMError("No arm ran on every task, so there are none to compare; train the same arms on each.")
    values = shared.assign(row=shared["arm"], mark=shared["method"], value=100 * shared["success"])
    styles = curve_styles(shared)
    order = values.groupby(["row", "task"])["value"].mean().groupby("row").mean()
    names = sorted(styles, key=lambda arm: (-order[arm], list(styles).index(arm)))
    marks = {method: Mark(method, method_color(method)) for method in shared["method"].unique()}
    left_out = sorted(set(runs["arm"]) - set(shared["arm"]))
    shown = "success: last 10 % of steps"
    shown += f"; not on every task, left out: {', '.join(left_out)}" if left_out else ""
    return _draw(values, names, marks, profile, shown, Y_TITLES["success"], one_mark=True)


@project_style
def label_accuracy(data: pd.DataFrame, profile: str) -> Figure:
    """How often the VLM's labels are right at the end of a run, as a whole and in each of the filter's partitions: a
    row per arm, a panel per task or, of three tasks and more, of their mean. Of an arm whose VLM has no adapters, zero-
    shot and adapted labels are one mark.

    `data` is evaluations of runs whose VLM labels. Flipped labels are drawn only where there are
    `label_quality.ENOUGH_LABELS` of them. Dots and marks as in `final_success`. Raises PrefVLMError for malformed data,
    or when no arm has a value.
    """
    values = accuracies_at_end(data, list(ACCURACIES))
    check_columns(values, set(), "evaluations of runs whose VLM labels", "experiments.plan.evaluations")
    values = values.assign(row=values["arm"], value=100 * values["value"], mark=_marks(values))
    values = values[values["mark"] != ""]
    order = values[values["mark"].isin(["adapted_vlm_accuracy", "unadapted"])].groupby("arm")["value"].mean()
    names = sorted(curve_styles(values), key=lambda arm: -order.get(arm, 0.0))
    zero_shot, *others = ACCURACIES.items()
    drawn = [zero_shot, ("unadapted", _UNADAPTED), *others]
    marks = {column: mark for column, mark in drawn if column in set(values["mark"])}
    shown = "labels of the whole run, judged at its end; flipped ones after the flip; dashed: chance"
    return _draw(values, names, marks, profile, shown, "labels that are right (%)", chance=50)


def _marks(values: pd.DataFrame) -> pd.Series:
    """The mark of each value: "unadapted" for adapted labels that are as right as zero-shot ones in every run of their
    arm, and "" for the latter, which are the same labels."""
    runs = values.pivot(index=["arm", "task", "seed"], columns="mark", values="value")
    zero_shot, adapted = (runs.get(column, pd.Series(np.nan, runs.index)) for column in list(ACCURACIES)[:2])
    same = values["arm"].map(zero_shot.eq(adapted).groupby("arm").all())
    names = {"adapted_vlm_accuracy": "unadapted", "vlm_accuracy": ""}
    return values["mark"].where(~same, values["mark"].replace(names))


def _draw(
    values: pd.DataFrame,
    names: Sequence[str],
    marks: Mapping[str, Mark],
    profile: str,
    shown: str,
    title: str,
    *,
    one_mark: bool = False,
    chance: float | None = None,
) -> Figure:
    """Draw the `value`s, in percent, of each `row`, `mark`, task and seed; with `one_mark` each row has one of them."""
    labels, panels = [wrapped(name) for name in names], shown_tasks(values["task"])
    seeds = values.groupby(["task", "row"])["seed"].nunique()
    pooled, offsets = panels == [stats.ALL_TASKS], dict.fromkeys(marks, 0.0)
    if not one_mark:
        offsets = dict(zip(marks, np.linspace(-0.32, 0.32, len(marks)), strict=True))
    dots = "dots: tasks; " if pooled else "dots: single runs; " if shows_runs(seeds) and seeds.max() > 1 else ""
    footer = make_footer([profile], sorted(set(values["task"])), seeds, f"{dots}mark: mean; {shown}", "bar")
    line = max(label.count("\n") + 1.5 for label in labels)
    if not one_mark:
        line = max(line, 2.5, 0.72 * len(marks))
    columns = len(panels)
    rows = grid(panels, columns, len(labels) * line * LINE_HEIGHT, 0.08, 0.1)
    key = [] if one_mark else [Key(mark.name, mark.color, mark.marker) for mark in marks.values()]
    figure, drawn = make_panels(rows, footer, left=text_width(labels) + 0.1, key=key)
    for panel in drawn:
        of_panel = values if pooled else values[values["task"] == panel.name]
        if chance is not None:
            panel.axes.axvline(chance, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for (row, mark), of_row in of_panel.groupby(["row", "mark"]):
            at, style = names.index(row) + offsets[mark], marks[mark]
            if pooled or shows_runs(seeds):
                single = of_row.groupby("task")["value"].mean() if pooled else of_row.sort_values("seed")["value"]
                draw_runs(panel.axes, at, single.tolist(), style.color, 0.6 / (1 if one_mark else len(marks)))
            mean = mean_of_runs(of_row, "value")
            draw_mark(panel.axes, at, mean[["low", "mean", "high"]].tolist(), style.color, style.marker)
        panel.axes.set(xlim=(-2, 102), xticks=range(0, 101, 50 if columns > 1 else 25), xlabel=title)
        panel.name_rows(labels)
    return figure
