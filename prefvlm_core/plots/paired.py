"""Figures of arms compared run by run: what their labels are worth, and how far they end from another arm."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.paired import DECIDING, MEASURES
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.style import (
    LINE_HEIGHT,
    REFERENCE_COLOR,
    Spaces,
    curve_styles,
    footer_line,
    make_panels,
    project_style,
    task_titles,
    text_width,
    wrapped,
)

_ROW = 2.4 * LINE_HEIGHT


@project_style
def label_equivalents(worth: pd.DataFrame, scores: pd.DataFrame, profile: str, measure: str = DECIDING) -> Figure:
    """With how many labels, in budgets B, PEBBLE scores as each arm does: one row per arm.

    `worth`: a `paired.worth_table` of `scores`, which are `paired.run_scores`. A cross shows how many labels the arm
    has itself. An estimate at the edge of the panel means that much or beyond. Raises PrefVLMError without an arm.
    """
    check_columns(worth, {"arm", "measure", "labels", "score", "mean", "low", "high", "pairs"}, "table", "worth_table")
    rows = worth[worth["measure"] == measure]
    rungs, rows = (
        rows[rows["mean"].isna()].sort_values("labels"),
        rows.dropna(subset="mean").sort_values("mean", ascending=False),
    )
    figure, axes = _rows_of_arms(rows, scores, profile, "cross: labels that the arm has")
    axes.plot(rows["labels"], range(len(rows)), "x", color=REFERENCE_COLOR, markersize=4, clip_on=False)
    axes.set_xscale("log", base=2)
    numbers = list(rungs["labels"])
    axes.set_xlim(numbers[0], numbers[-1])
    in_percent = "success" in MEASURES[measure]
    titles = [f"{number:g}×B\n{_shown(score, in_percent)}" for number, score in rungs[["labels", "score"]].to_numpy()]
    axes.set_xticks(numbers, titles)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"labels of PEBBLE, and with them its\n{MEASURES[measure]}")
    return figure


def _shown(score: float, in_percent: bool) -> str:
    return f"{100 * score:.0f} %" if in_percent else f"{score:.2f}"


@project_style
def differences(
    table: pd.DataFrame, scores: pd.DataFrame, profile: str, margin: float, measure: str = DECIDING
) -> Figure:
    """How much more each arm scores than another one, one row per arm; the margin of non-inferiority is shaded.

    `table`: a `paired.difference_table` of `scores`; success and `margin` (0..1) are shown in points. Raises
    PrefVLMError without an arm.
    """
    check_columns(table, {"arm", "against", "measure", "mean", "low", "high", "pairs"}, "table", "difference_table")
    rows = table[table["measure"] == measure].sort_values("mean", ascending=False)
    unit = 100 if "success" in MEASURES[measure] else 1
    rows = rows.assign(**{column: unit * rows[column] for column in ("mean", "low", "high")})
    figure, axes = _rows_of_arms(rows, scores, profile, f"shaded: margin of {unit * margin:g} points")
    axes.axvspan(-unit * margin, 0, color=REFERENCE_COLOR, alpha=0.15, lw=0, zorder=0)
    axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, zorder=0)
    axes.set_xlabel(
        f"{MEASURES[measure]}:\ndifference from {rows['against'].iloc[0]}{' (points)' if unit == 100 else ''}"
    )
    return figure


def _rows_of_arms(rows: pd.DataFrame, scores: pd.DataFrame, profile: str, shown: str) -> tuple[Figure, Axes]:
    """A figure with the mean and the interval of each row, named by its arm."""
    if rows.empty:
        raise PrefVLMError("There is no arm to draw; train some with the seeds of those that they are compared with.")
    styles, labels = curve_styles(scores), [wrapped(arm) for arm in rows["arm"]]
    fewest, most = int(rows["pairs"].min()), int(rows["pairs"].max())
    footer = footer_line(
        f"profile {profile}",
        task_titles(sorted(set(scores["task"]))),
        f"{fewest if fewest == most else f'{fewest}–{most}'} pairs of runs",
        "dot: mean",
        "bar: 95 % stratified bootstrap interval",
        shown,
    )
    spaces = Spaces(before=0.1, after=0.2, left=text_width(labels) + 0.1, below=0.15)
    figure, panels = make_panels([""], "column", _ROW * len(labels), spaces, footer)
    panel = next(panels)
    for line, row in enumerate(rows.itertuples()):
        color = styles[row.arm].color
        panel.axes.plot([row.low, row.high], [line, line], color=color, alpha=0.5, lw=2.5, solid_capstyle="butt")
        panel.axes.plot(row.mean, line, "o", color=color, markersize=3.5, clip_on=False)
    panel.name_rows(labels)
    panel.axes.set_ylim(len(labels) - 0.4, -0.6)
    return figure, panel.axes
