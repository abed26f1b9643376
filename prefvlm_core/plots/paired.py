"""Figures of arms compared run by run: what their labels are worth, and how far they end from another arm."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import FEWEST_SEEDS
from prefvlm_core.analysis.paired import DECIDING, MARGIN, MEASURES
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.wording import points, said_equivalent
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import (
    Key,
    Row,
    footer_line,
    interval_below,
    make_panels,
    task_titles,
    text_width,
    wrapped,
)
from prefvlm_core.plots.rows import draw_mark, draw_runs
from prefvlm_core.plots.style import LABEL_SIZE, LINE_HEIGHT, REFERENCE_COLOR, curve_styles, project_style

CLAIMS = (2, 5)
"""How many times its own labels a method's are worth: PrefVLM's paper says 2, ROVED's up to 5."""
_ROW = 2.6 * LINE_HEIGHT


@project_style
def label_equivalents(worth: pd.DataFrame, scores: pd.DataFrame, profile: str, measure: str = DECIDING) -> Figure:
    """With how many labels, in budgets B, PEBBLE scores as each arm does: one row per arm, the best first.

    `worth`: a `paired.worth_table` of `scores`, which are `paired.run_scores`. Cross: the labels that the arm has; thin
    marks: what the papers claim these to be worth (`CLAIMS`). PEBBLE's ladder is all that is known: what ends at the
    shaded part, as an arrow, lies there or beyond. Raises PrefVLMError without an arm.
    """
    check_columns(worth, {"arm", "measure", "labels", "score", "mean", "low", "high", "pairs"}, "table", "worth_table")
    rows = worth[worth["measure"] == measure]
    rungs, rows = (
        rows[rows["mean"].isna()].sort_values("labels"),
        rows.dropna(subset="mean").sort_values("mean", ascending=False),
    )
    first, last = rungs["labels"].iloc[0], rungs["labels"].iloc[-1]
    rows = rows.assign(words=[_words(row, first, last) for row in rows.to_dict("records")])
    key = [
        Key("the arm's own labels", REFERENCE_COLOR, "x"),
        Key(f"papers' claims: {' and '.join(map(str, CLAIMS))} times as many", "#444444", "|"),
    ]
    shown = "B: each task's budget of labels; arrow: or beyond"
    figure, (axes,) = _rows_of_arms({"": rows}, scores, profile, shown, key)
    styles = curve_styles(scores)
    for line, row in enumerate(rows.to_dict("records")):
        claims = [claim * row["labels"] for claim in CLAIMS]
        axes.plot(row["labels"], line + 0.32, "x", color=REFERENCE_COLOR, markersize=3.4)
        axes.plot(claims, [line + 0.32] * len(claims), "|", color="#444444", markersize=5, mew=0.7)
        for bound, end, beyond in (("low", first, 1 / 1.22), ("high", last, 1.22)):
            if math.isclose(row[bound], end, rel_tol=1e-6):
                arrow = {"arrowstyle": "-|>", "color": styles[row["arm"]].color, "lw": 1.0, "mutation_scale": 6}
                arrow |= {"shrinkA": 0, "shrinkB": 0}
                axes.annotate("", (end * beyond, line), (end, line), arrowprops=arrow)
    axes.set_xscale("log", base=2)
    left, right = min(first, rows["labels"].min()) / 1.35, 1.15 * max(last, CLAIMS[-1])
    for start, end in ((left, first), (last, right)):
        axes.axvspan(start, end, color=REFERENCE_COLOR, alpha=0.13, lw=0, zorder=0)
    axes.set_xlim(left, right)
    in_percent = "success" in MEASURES[measure]
    titles = [f"{n:g}×B\n{_shown(score, in_percent)}" for n, score in rungs[["labels", "score"]].to_numpy()]
    axes.set_xticks(rungs["labels"].tolist(), titles)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"labels of PEBBLE, and with them its\n{MEASURES[measure]}")
    return figure


def _words(row: Mapping[str, Any], first: float, last: float) -> str:
    """The estimate and its interval, bounded by the ends of the ladder: "1.4 (≤ 1 to 3.2)"."""

    mean, low, high = (said_equivalent(row[each], first, last, "≤", "≥") for each in ("mean", "low", "high"))
    return mean + ("" if math.isnan(row["low"]) else f"\n({low} to {high})")


def _shown(score: float, in_percent: bool) -> str:
    return f"{100 * score:.0f} %" if in_percent else f"{score:.2f}"


@project_style
def differences(
    table: pd.DataFrame, scores: pd.DataFrame, profile: str, margin: float, measure: str = DECIDING
) -> Figure:
    """How much more each arm scores than another one, one row per arm, the best first; the margin of non-inferiority is
    shaded.

    `table`: a `paired.difference_table` of `scores`; success and `margin` (0..1) are shown in points. Raises
    PrefVLMError without an arm.
    """
    check_columns(table, {"arm", "against", "measure", "mean", "low", "high", "pairs"}, "table", "difference_table")
    rows = table[table["measure"] == measure].sort_values("mean", ascending=False)
    unit = 100 if "success" in MEASURES[measure] else 1
    words = [(points if unit == 100 else _of_area)(row) for row in rows.to_dict("records")]
    rows = rows.assign(**{column: unit * rows[column] for column in ("mean", "low", "high")})
    shown = f"shaded: margin of {unit * margin:g} points, within which an arm is not inferior"
    figure, (axes,) = _rows_of_arms({"": rows.assign(words=list(map(interval_below, words)))}, scores, profile, shown)
    axes.axvspan(-unit * margin, 0, color=REFERENCE_COLOR, alpha=0.15, lw=0, zorder=0)
    axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, zorder=0)
    axes.set_xlabel(
        f"{MEASURES[measure]}:\ndifference from {rows['against'].iloc[0]}{' (points)' if unit == 100 else ''}"
    )
    return figure


@project_style
def planned(gaps: pd.DataFrame, profile: str) -> Figure:
    """How far each arm ends from the one that it is compared with: one row per arm, the best first, and a panel per arm
    that others are compared with.

    `gaps`: a `paired.planned_differences`, shown in points. Mark: all tasks together; dots: the tasks. What lies within
    the shaded margin is level. Raises PrefVLMError without an arm.
    """
    columns = {"task", "arm", "method", "against", "mean", "low", "high", "pairs"}
    check_columns(gaps, columns, "table of differences", "paired.planned_differences")
    words = [interval_below(points(row)) for row in gaps.to_dict("records")]
    shown = gaps.assign(words=words, **{column: 100 * gaps[column] for column in ("mean", "low", "high")})
    pooled = shown[shown["task"] == ALL_TASKS].sort_values("mean", ascending=False)
    panels = {f"compared with {against}": rows for against, rows in pooled.groupby("against")}
    by_task = shown[shown["task"] != ALL_TASKS]
    said = [f"shaded: level, within ±{100 * MARGIN:g} points", "dots: tasks" if by_task["task"].nunique() > 1 else ""]
    figure, drawn = _rows_of_arms(panels, by_task, profile, "; ".join(filter(None, said)))
    bounds = shown[["mean", "low", "high"]].to_numpy()
    limits = min(-15.0, np.nanmin(bounds) - 3), max(15.0, np.nanmax(bounds) + 3)
    styles = curve_styles(pooled)
    for axes, rows in zip(drawn, panels.values(), strict=True):
        for line, arm in enumerate(rows["arm"] if "dots: tasks" in said else ()):
            single = by_task.loc[by_task["arm"] == arm, "mean"].tolist()
            draw_runs(axes, line, single, styles[arm].color, 0.6)
        axes.axvspan(-100 * MARGIN, 100 * MARGIN, color=REFERENCE_COLOR, alpha=0.15, lw=0, zorder=0)
        axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, zorder=0)
        axes.set_xlim(limits)
    drawn[-1].set_xlabel(f"{MEASURES[DECIDING]}:\ndifference (points)")
    return figure


def _of_area(row: Mapping[Any, Any]) -> str:
    """As `wording.points`, of areas, which are no fractions."""
    between = "" if math.isnan(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
    return f"{row['mean']:+z.2f}{between}".replace("-", "−")


def _rows_of_arms(
    panels: Mapping[str, pd.DataFrame], scores: pd.DataFrame, profile: str, shown: str, key: Sequence[Key] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel per table, by its title: of each row the mean and the interval, its arm at the left and
    its `words` at the right. `scores` has the tasks and the methods of the arms."""
    rows = pd.concat(panels.values()) if panels else pd.DataFrame()
    if rows.empty:
        raise PrefVLMError("There is no arm to draw; train some with the seeds of those that they are compared with.")
    styles = curve_styles(scores)
    fewest, most = int(rows["pairs"].min()), int(rows["pairs"].max())
    footer = footer_line(
        f"profile {profile}",
        task_titles(sorted(set(scores["task"]))),
        f"{fewest if fewest == most else f'{fewest}–{most}'} pairs of runs",
        "mark: mean",
        "bar: 95 % stratified bootstrap interval"
        if rows["low"].notna().any()
        else f"fewer than {FEWEST_SEEDS} seeds, no interval",
        shown,
    )
    after, below = text_width(rows["words"]) + 0.12, 0.2 if len(panels) > 1 else 0.35
    grid = [Row([title], _ROW * len(table), 0.0, after, below=below) for title, table in panels.items()]
    left = text_width([wrapped(arm) for arm in rows["arm"]]) + 0.14
    figure, drawn = make_panels(grid, footer, left=left, bottom=0.25 if len(panels) == 1 else 0.4, key=key)
    for panel, table in zip(drawn, panels.values(), strict=True):
        for line, row in enumerate(table.itertuples()):
            draw_mark(panel.axes, line, (row.low, row.mean, row.high), styles[row.arm].color)
            place: dict[str, Any] = {
                "transform": panel.axes.get_yaxis_transform(),
                "fontsize": LABEL_SIZE,
                "va": "center",
            }
            panel.axes.text(1.03, line, row.words, linespacing=1.1, **place)
        panel.name_rows([wrapped(arm) for arm in table["arm"]])
    return figure, [panel.axes for panel in drawn]
