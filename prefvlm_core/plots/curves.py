"""Figures of success: learning curves, and where each arm ends.

Evaluations are tidy, one per row, with the columns `stats.EVALUATION_COLUMNS`. `arm` is the name a reader sees, as
"pebble (400 labels)"; its color is that of its `method`, dashes and shade follow its rank within the method.
"""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis import stats
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.plots.style import (
    IN_PERCENT,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    X_TITLES,
    Y_TITLES,
    CurveEnd,
    CurveStyle,
    Spaces,
    count_from_zero,
    curve_styles,
    label_curve_ends,
    make_footer,
    make_panels,
    panel_names,
    project_style,
    show_percent,
    text_width,
    wrapped,
)


@project_style
def learning_curves(
    data: pd.DataFrame, x: str = "step", y: str = "success", width: str = "wide", reference: pd.DataFrame | None = None
) -> Figure:
    """One panel per task, and "all tasks" when there are several, of `y` against `x`.

    Thick line: interquartile mean over seeds at the steps that every seed has; band: 95 % stratified bootstrap interval
    at each point, none with one seed; thin lines: single seeds. "all tasks" pools the runs of all tasks, for the arms
    that ran on every task. Against `human_labels` a point is what a run reached with that many labels: its last
    evaluation before the next label, and at its last label count the mean over the last 10 % of steps (as in
    `summary_table`). Methods that use no labels are a horizontal line from a dot at 0.

    `x` is a key of `X_TITLES`, `y` of `Y_TITLES`, `width` of `WIDTHS`. `reference`, from `reference_curves`, is drawn
    dashed in gray; it needs profile `paper`, x="step" and y="success", because only then are the axes the same.
    Raises PrefVLMError for malformed data, unknown names, a misplaced reference, or runs without a common step.
    """
    values = _values_to_draw(data, x, y, reference)
    tasks, styles = sorted(set(values["task"])), curve_styles(data)
    labels = [wrapped(arm) for arm in styles]
    labels += [] if reference is None else [wrapped(arm) for arm in reference["arm"].unique()]
    height = max(1.2, sum(label.count("\n") + 1 for label in labels) * LINE_HEIGHT)
    seeds = values.groupby(["task", "arm"])["seed"].nunique()
    shown = "thick line: interquartile mean; thin: single seeds"
    shown += "; end: last 10 % of steps" if x == "human_labels" else ""
    footer = make_footer(data["profile"], tasks, seeds, shown, "band")
    spaces = Spaces(before=0.28, after=text_width(labels) + 0.16, left=0.16)
    figure, panels = make_panels(panel_names(values), width, height, spaces, footer)
    for panel in panels:
        pooled = panel.name == stats.ALL_TASKS
        rows = values if pooled else values[values["task"] == panel.name]
        ends = _draw_curves(panel.axes, rows, styles, x, y, len(tasks) if pooled else 1)
        if reference is not None:
            ends += _draw_reference(panel.axes, reference[reference["task"] == panel.name])
        count_from_zero(panel.axes, 5)
        if y in IN_PERCENT:
            show_percent(panel.axes)
        panel.set_axis_titles(X_TITLES[x], Y_TITLES[y])
        label_curve_ends(panel.axes, ends)
    return figure


@project_style
def final_success(table: pd.DataFrame, profile: str, width: str = "wide") -> Figure:
    """Dot and interval per arm, one panel per task, from the rows of `stats.summary_table`.

    Needs the columns task, method, arm, success, success_low, success_high (0..1, bounds nan with one seed), seeds.
    `profile` is named in the footer; `width` is a key of `WIDTHS`. Raises PrefVLMError for missing columns or another
    width.
    """
    missing = {"task", "method", "arm", "success", "success_low", "success_high", "seeds"} - set(table)
    if missing:
        raise PrefVLMError(f"The summary lacks the columns {sorted(missing)}; use the table of stats.summary_table.")
    styles = curve_styles(table)
    labels = [wrapped(arm) for arm in styles]
    height = len(labels) * max(label.count("\n") + 1.5 for label in labels) * LINE_HEIGHT
    tasks = sorted(set(table["task"]) - {stats.ALL_TASKS})
    footer = make_footer([profile], tasks, table["seeds"], "dot: interquartile mean, last 10 % of steps", "bar")
    spaces = Spaces(before=0.1, after=0.16, left=text_width(labels) + 0.08)
    figure, panels = make_panels(panel_names(table), width, height, spaces, footer)
    for panel in panels:
        axes = panel.axes
        for row in table[table["task"] == panel.name].itertuples():
            line, color = list(styles).index(row.arm), styles[row.arm].color
            success, low, high = 100 * row.success, 100 * row.success_low, 100 * row.success_high
            axes.plot([low, high], [line, line], color=color, alpha=0.5, lw=2.5, solid_capstyle="butt")
            axes.plot(success, line, "o", color=color, markersize=3.5, clip_on=False)
            if row.seeds == 1:
                side, text = "left" if success < 50 else "right", "   1 seed, no interval   "
                axes.text(success, line, text, ha=side, va="center", fontsize=5, color="#666666")
        axes.set(xlim=(-2, 102), xticks=range(0, 101, 25), ylim=(len(styles) - 0.4, -0.6))
        panel.name_rows(labels)
        panel.set_axis_titles(Y_TITLES["success"], "")
    return figure


def reference_curves(tasks: Iterable[str]) -> pd.DataFrame:
    """The successor paper's learning curves on `tasks`: columns task, method, arm, labels, step, success (0..1).

    Our own digitization of the mean lines of ROVED (arXiv 2603.28053), accurate to 1 to 2 points of success;
    `analysis/reference_curves.json` names the sources. Raises PrefVLMError for a task that has no reference curve.
    """
    text = resources.files("prefvlm_core.analysis").joinpath("reference_curves.json").read_text(encoding="utf-8")
    curves = json.loads(text)["curves"]
    available, wanted = {entry["task"] for entry in curves}, set(tasks)
    for task in sorted(wanted - available):
        raise unknown_name("task with reference curves", task, available)
    points = pd.DataFrame([entry for entry in curves if entry["task"] in wanted]).explode(["steps", "success"])
    points = points.rename(columns={"steps": "step"}).astype({"step": np.int64, "success": np.float64})
    points.insert(2, "arm", points["method"] + " (" + points["labels"].astype(str) + " labels)")
    return points.reset_index(drop=True)


def _values_to_draw(data: pd.DataFrame, x: str, y: str, reference: pd.DataFrame | None) -> pd.DataFrame:
    """The evaluations that have a value of `y`, in percent where it is a fraction; refuses what cannot be drawn."""
    stats.check_evaluations(data)
    for kind, name, allowed in (("x", x, X_TITLES), ("y", y, Y_TITLES)):
        if name not in allowed:
            raise unknown_name(kind, name, allowed)
    if reference is not None and (set(data["profile"]) != {"paper"} or (x, y) != ("step", "success")):
        raise PrefVLMError(
            "Reference curves fit only profile 'paper' with x='step', y='success'; leave `reference` out."
        )
    values = data.dropna(subset=[y])
    if values.empty:
        raise PrefVLMError(f"No evaluation has a value of '{y}'; choose another y of {list(Y_TITLES)}.")
    return values.assign(**{y: values[y] * (100 if y in IN_PERCENT else 1)})


def _draw_curves(
    axes: Axes, values: pd.DataFrame, styles: Mapping[str, CurveStyle], x: str, y: str, tasks: int
) -> list[CurveEnd]:
    """Draw the arms that ran on at least `tasks` tasks."""
    ends = []
    drawstyle: Any = "steps-post" if x == "human_labels" else "default"
    for arm, (color, dashes) in styles.items():
        rows = values[values["arm"] == arm]
        if rows["task"].nunique() < tasks:
            continue
        runs = runs_by_x(rows, x, y)
        position, center = runs.index.to_numpy(), stats.interquartile_mean(runs)
        low, high = _bootstrap_band(runs)
        unlabeled = x == "human_labels" and position[-1] == 0
        if unlabeled:
            axes.axhline(center[-1], color=color, linestyle=dashes, lw=0.9)
            axes.axhspan(low[-1], high[-1], color=color, alpha=0.07, lw=0)
        else:
            if tasks == 1:
                axes.plot(position, runs, color=color, alpha=0.3, lw=0.5, drawstyle=drawstyle)
            axes.plot(position, center, color=color, linestyle=dashes, lw=1.5, drawstyle=drawstyle)
            step: Any = "post" if x == "human_labels" else None
            axes.fill_between(position, low, high, color=color, alpha=0.15, lw=0, step=step)
        if x == "human_labels" or len(position) == 1:  # a step's last value, or a lone one, has no width
            axes.vlines(position[-1], low[-1], high[-1], color=color, lw=0.8)
            axes.plot(position[-1], center[-1], "o", color=color, markersize=3.5, clip_on=False, zorder=3)
        ends.append(CurveEnd(arm, color, np.inf if unlabeled else position[-1], center[-1]))
    return ends


def runs_by_x(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Values of one arm: index = the values of x that all runs share, columns = (task, seed)."""
    ordered, run = rows.sort_values("step"), ["task", "seed"]
    if x == "step":
        table = ordered.pivot(index=x, columns=run, values=y).dropna()
    else:
        table = ordered.groupby([*run, x], as_index=False)[y].last().pivot(index=x, columns=run, values=y)
        for key, evaluations in ordered.groupby(run):
            table.loc[evaluations[x].iloc[-1], key] = stats.last_tenth(evaluations["step"], evaluations[y])
        table = table.ffill().dropna()
    if table.empty:
        raise PrefVLMError(f"The runs of '{rows['arm'].iloc[0]}' share no value of '{x}'; evaluate them at the same.")
    return table


def _bootstrap_band(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    tasks = runs.columns.get_level_values("task")
    per_task = [runs.loc[:, tasks == task].to_numpy() for task in tasks.unique()]
    # The same draws at every point: neighbouring points differ by the data, not by chance.
    band = [
        stats.stratified_bootstrap_interval(
            [seeds[row] for seeds in per_task], stats.interquartile_mean, np.random.default_rng(0)
        )
        for row in range(len(runs))
    ]
    low, high = np.array(band).T
    return low, high


def _draw_reference(axes: Axes, reference: pd.DataFrame) -> list[CurveEnd]:
    ends = []
    for arm, rows in reference.groupby("arm"):
        success = 100 * rows["success"]
        axes.plot(rows["step"], success, color=REFERENCE_COLOR, linestyle=(0, (3, 2)), lw=0.7, zorder=1.5)
        ends.append(CurveEnd(str(arm), to_rgb(REFERENCE_COLOR), rows["step"].iloc[-1], success.iloc[-1]))
    return ends
