"""Figures of results against the number of stages of a task, and against the length of segments."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import mean_of_runs
from prefvlm_core.analysis.paired import DECIDING, MARGIN
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.plots.layout import (
    CurveEnd,
    Key,
    Row,
    footer_line,
    grid,
    label_curve_ends,
    make_footer,
    make_panels,
    show_percent,
    task_titles,
    text_width,
    wrapped,
)
from prefvlm_core.plots.style import (
    MOST_CURVES,
    PARTITION_COLORS,
    REFERENCE_COLOR,
    CurveStyle,
    curve_styles,
    project_style,
)

_STAGES = "stages of the task"
_HEIGHT = 1.3  # inches
_KEPT = CurveStyle(to_rgb("#444444"), "solid")


@project_style
def success_by_stages(scores: pd.DataFrame, profile: str) -> Figure:
    """Success against the number of stages, a line per arm.

    `scores`: rows of `paired.run_scores` with the column `stages`. Line: mean over seeds; bar: its 95 % bootstrap
    interval, from five seeds on. Raises PrefVLMError for missing columns and more than `MOST_CURVES` arms.
    """
    check_columns(scores, {"stages", "task", "arm", "method", "seed", DECIDING}, "scores", "stages.with_stages")
    styles = curve_styles(scores)
    if len(styles) > MOST_CURVES:
        raise PrefVLMError(f"{len(styles)} lines cannot be told apart; choose at most {MOST_CURVES} arms.")
    footer = _footer(scores, profile, "line: mean; success: last three evaluations")
    panels = [Row([""], _HEIGHT, 0.38, text_width(map(wrapped, styles)) + 0.16)]
    figure, (panel,) = make_panels(panels, footer, left=0.02)
    means = _means(scores, "stages", "arm", DECIDING)
    ends = _draw_lines(panel.axes, means, styles)
    show_percent(panel.axes)
    label_curve_ends(panel.axes, ends)
    panel.set_axis_titles(_STAGES, "success rate (%)")
    return figure


@project_style
def differences_by_stages(gaps: pd.DataFrame, profile: str) -> Figure:
    """How much more arms score than the one that they are compared with, against the number of stages.

    `gaps`: rows of `paired.planned_differences` with the column `stages`, compared with one arm. The margin of
    non-inferiority is shaded; bar: 95 % bootstrap interval. Raises PrefVLMError for missing columns, and for several
    arms that others are compared with.
    """
    needed = {"stages", "arm", "method", "against", "mean", "low", "high", "seeds"}
    check_columns(gaps, needed, "table", "stages.with_stages of planned_differences")
    if len(against := set(gaps["against"])) > 1:
        raise PrefVLMError(f"The arms are compared with {' and '.join(sorted(against))}; choose those of one.")
    styles = curve_styles(gaps)
    fewest, most = int(gaps["seeds"].min()), int(gaps["seeds"].max())
    footer = footer_line(
        f"profile {profile}",
        task_titles(_tasks(gaps)),
        f"{fewest if fewest == most else f'{fewest}–{most}'} pairs of runs each",
        "line: mean",
        "bar: 95 % bootstrap interval" if gaps["low"].notna().any() else "fewer than 5 pairs, no interval",
        f"shaded: margin of {100 * MARGIN:g} points, within which an arm is not inferior",
    )
    panels = [Row([""], _HEIGHT, 0.52, text_width(map(wrapped, styles)) + 0.16)]
    figure, (panel,) = make_panels(panels, footer, left=0.02)
    panel.axes.axhspan(-100 * MARGIN, 0, color=REFERENCE_COLOR, alpha=0.15, lw=0, zorder=0)
    panel.axes.axhline(0, color=REFERENCE_COLOR, lw=0.6, zorder=0)
    numbers = 100 * gaps[["mean", "low", "high"]]
    means = numbers.assign(x=gaps["stages"], line=gaps["arm"])
    label_curve_ends(panel.axes, _draw_lines(panel.axes, means, styles))
    panel.set_axis_titles(_STAGES, f"points more than\n{wrapped(against.pop())}")
    return figure


@project_style
def labels_by_stages(shares: pd.DataFrame, profile: str) -> Figure:
    """How many of one arm's VLM labels are right, and what the filter makes of them, against the number of stages.

    `shares`: rows of `stages.label_shares` with the column `stages`. Raises PrefVLMError for missing columns.
    """
    check_columns(shares, {"stages", "arm", "right", "clean_right", *PARTITION_COLORS}, "table", "stages.label_shares")
    footer = _footer(shares, profile, f"labels of {' and '.join(sorted(set(shares['arm'])))}; line: mean over runs")
    partitions = {name: CurveStyle(to_rgb(color), "solid") for name, color in PARTITION_COLORS.items()}
    key = [Key("all labels", _KEPT.color), *(Key(name, style.color) for name, style in partitions.items())]
    panels = [Row(["", ""], _HEIGHT, 0.42, 0.08)]
    figure, (right, sorts) = make_panels(panels, footer, left=0.02, key=key)
    columns = {"right": "all labels", "clean_right": "clean"}
    _draw_lines(right.axes, _tidy_means(shares, columns), {"all labels": _KEPT, "clean": partitions["clean"]})
    _draw_lines(sorts.axes, _tidy_means(shares, {name: name for name in partitions}), partitions)
    for panel, title in ((right, "of these right (%)"), (sorts, "of the VLM's labels (%)")):
        show_percent(panel.axes)
        panel.axes.set(xlabel=_STAGES, ylabel=title)
    right.axes.axhline(50, color=REFERENCE_COLOR, lw=0.6, zorder=0)
    return figure


@project_style
def success_and_labels_by_segment_length(rows: pd.DataFrame, profile: str) -> Figure:
    """Success, and how many of the VLM's labels are right, against the length of segments: a column per task, a line
    per method.

    `rows`: a `stages.by_segment_length`. Raises PrefVLMError without a row.
    """
    check_columns(rows, {"task", "method", "segment_length", "measure", "value"}, "table", "stages.by_segment_length")
    styles, tasks = curve_styles(rows, "method"), _tasks(rows)
    footer = _footer(rows, profile, "line: mean; success: last three evaluations")
    key = [Key(method, style.color) for method, style in styles.items()]
    measures = [measure for measure in ("success", "labels right") if measure in set(rows["measure"])]
    names = [task if measure == measures[0] else "" for measure in measures for task in tasks]
    figure, panels = make_panels(grid(names, len(tasks), 1.0, 0.38, 0.08), footer, left=0.02, key=key)
    for panel, (measure, task) in zip(panels, ((m, t) for m in measures for t in tasks), strict=True):
        shown = rows[(rows["measure"] == measure) & (rows["task"] == task)]
        _draw_lines(panel.axes, _means(shown, "segment_length", "method", "value"), styles)
        show_percent(panel.axes)
        panel.set_axis_titles("actions of a segment", f"{measure} (%)")
    return figure


def _footer(rows: pd.DataFrame, profile: str, shown: str) -> str:
    name = "arm" if "arm" in rows else "method"
    return make_footer([profile], _tasks(rows), rows.groupby(["task", name])["seed"].nunique(), shown, "bar")


def _tasks(rows: pd.DataFrame) -> list[str]:
    """The tasks, by their number of stages."""
    return [task for task in GOALS if task in set(rows["task"])]


def _means(rows: pd.DataFrame, x: str, line: str, value: str) -> pd.DataFrame:
    """One row per line and x, whose runs are of one task: line, x, and mean, low and high in percent."""
    groups = rows.dropna(subset=value).groupby([line, x])
    return pd.DataFrame(
        [{"line": name, "x": number} | dict(100 * mean_of_runs(runs, value)) for (name, number), runs in groups]
    )


def _tidy_means(shares: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """`_means` against stages of several columns, as lines with the names that `columns` gives them."""
    tidy = shares.rename(columns=dict(columns)).melt(["task", "seed", "stages"], list(columns.values()), "line")
    return _means(tidy, "stages", "line", "value")


def _draw_lines(axes: Axes, means: pd.DataFrame, styles: Mapping[str, CurveStyle]) -> list[CurveEnd]:
    """A line through the means of each name in `styles`, with bars for their intervals, a little apart."""
    numbers, ends = sorted(set(means["x"])), []
    step = 0.03 * max(1, numbers[-1] - numbers[0])
    drawn = [name for name in styles if name in set(means["line"])]
    for rank, name in enumerate(drawn):
        points, (color, dashes) = means[means["line"] == name].sort_values("x"), styles[name]
        x = points["x"] + step * (rank - (len(drawn) - 1) / 2) / 2
        axes.vlines(x, points["low"], points["high"], color=color, alpha=0.5, lw=1.2)
        style: dict[str, Any] = {"marker": "o", "markersize": 3.2, "lw": 1.2, "clip_on": False}
        axes.plot(x, points["mean"], color=color, linestyle=dashes, **style)
        ends.append(CurveEnd(str(name), color, float(x.iloc[-1]), float(points["mean"].iloc[-1])))
    axes.set_xticks(numbers)
    axes.set_xlim(numbers[0] - 3 * step, numbers[-1] + 3 * step)
    return ends
