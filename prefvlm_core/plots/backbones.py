"""Figures that compare vision-language models as labelers, and show what the accuracy of labels is worth."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis.backbone_tables import TAUGHT
from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.vlm_quality import ALL, LARGE_GAP, LATE, NEAR_GOAL, STATE
from prefvlm_core.plots.labels import ACCURACIES
from prefvlm_core.plots.sanity import MODEL_TITLES
from prefvlm_core.plots.style import (
    LABEL_SIZE,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    CurveEnd,
    Spaces,
    darker,
    footer_line,
    label_curve_ends,
    make_panels,
    method_color,
    project_style,
    show_percent,
    task_titles,
    text_width,
    wrapped,
)

REAL_COLOR = method_color("vlm-reward")
TITLES = MODEL_TITLES | {STATE: "linear probe of the state"}
_KINDS = {ALL: "all pairs", LARGE_GAP: "large differences", LATE: "late in the run", NEAR_GOAL: "near the goal"}
_COLORS = [ACCURACIES[name][1] for name in ("vlm_accuracy", "adapted_vlm_accuracy")]
_ROW = 2.4 * LINE_HEIGHT
_OFFSETS = (-0.22, 0.22)  # of the marks from the middle of their row


class Mark(NamedTuple):
    """How one reader of a model's embeddings is drawn."""

    name: str
    readers: tuple[tuple[str, int], ...]
    """Readers and numbers of labels; the first that a model has is drawn."""
    marker: str
    color: str


MARKS = (
    Mark("zero-shot", (("zero-shot", 0),), "o", ACCURACIES["vlm_accuracy"][1]),
    Mark(
        f"after {TAUGHT} labels", (("adapters", TAUGHT), ("ridge", TAUGHT)), "D", ACCURACIES["adapted_vlm_accuracy"][1]
    ),
)


@project_style
def accuracy_by_task(table: pd.DataFrame, profile: str) -> Figure:
    """One panel per task and one of all tasks, if there are several, a row per model: how many labels are right,
    zero-shot and taught.

    `table` is a `backbone_tables.label_table`. Raises PrefVLMError for missing columns.
    """
    check_columns(table, {"model", "reader", "labels", "task", ALL}, "table", "backbone_tables.label_table")
    names = table["task"].unique()
    tasks = [task for task in names if task != ALL_TASKS or len(names) > 2]
    panels = {str(task): (table[table["task"] == task], ALL) for task in tasks}
    return _rows_of_models(panels, table, profile)


@project_style
def accuracy_by_kind(table: pd.DataFrame, profile: str) -> Figure:
    """The same with one panel per kind of pairs, over all tasks."""
    check_columns(table, {"model", "reader", "labels", "task", *_KINDS}, "table", "backbone_tables.label_table")
    pooled = table[table["task"] == ALL_TASKS]
    return _rows_of_models({title: (pooled, kind) for kind, title in _KINDS.items()}, table, profile)


def _rows_of_models(panels: Mapping[str, tuple[pd.DataFrame, str]], table: pd.DataFrame, profile: str) -> Figure:
    """One panel per title: the rows of a table, and which of its columns is drawn."""
    models = list(table["model"].unique())
    tasks = [task for task in table["task"].unique() if task != ALL_TASKS]
    footer = footer_line(
        f"profile {profile}",
        task_titles(tasks),
        "replays of SAC and of PEBBLE, one seed",
        "bar: 95 % Student t interval",
        "dashed: chance",
    )
    names = [TITLES.get(model, model) for model in models]
    spaces = Spaces(before=0.1, left=text_width(names) + 0.02, right=text_width(mark.name for mark in MARKS) + 0.12)
    figure, drawn = make_panels(list(panels), "wide", len(models) * _ROW, spaces, footer, len(panels))
    for panel in drawn:
        rows, column = panels[panel.name]
        panel.axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for offset, mark in zip(_OFFSETS, MARKS, strict=True):
            _draw_mark(panel.axes, rows, column, mark, models, offset)
        panel.axes.set(xlim=(30, 100), xticks=(50, 75, 100), ylim=(len(models) - 0.4, -0.6))
        panel.name_rows(names)
        panel.axes.set_xlabel("labels right (%)")
    for offset, mark in zip(_OFFSETS, MARKS, strict=True):
        color = darker(to_rgb(mark.color))
        figure.axes[-1].text(103, offset, mark.name, color=color, fontsize=LABEL_SIZE, va="center")
    return figure


def _draw_mark(axes: Axes, rows: pd.DataFrame, column: str, mark: Mark, models: Sequence[str], offset: float) -> None:
    """One reader's mean and interval of every model that has it."""
    found = rows.set_index(["model", "reader", "labels"])
    for line, model in enumerate(models):
        has = [(model, *reader) for reader in mark.readers if (model, *reader) in found.index]
        if has:
            low, mean, high = (100 * found.loc[has[0], f"{column}{bound}"] for bound in ("_low", "", "_high"))
            axes.plot([low, high], [line + offset] * 2, color=mark.color, alpha=0.45, lw=2.0, solid_capstyle="butt")
            axes.plot(mean, line + offset, mark.marker, color=mark.color, markersize=3.2)


@project_style
def orders(films: pd.DataFrame, mixed: pd.DataFrame, profile: str) -> Figure:
    """Two panels, a row per model: how its values follow time in expert films, and how its scores rank episodes.

    `films` is a `backbone_tables.film_table`, `mixed` a `label_table` of mixed episodes. Raises PrefVLMError for
    missing columns.
    """
    check_columns(films, {"model", "value_order"}, "table of films", "backbone_tables.film_table")
    check_columns(mixed, {"model", "reader", "task", "episode_order"}, "table", "backbone_tables.label_table")
    frozen = mixed[(mixed["task"] == ALL_TASKS) & (mixed["reader"] == "zero-shot")]
    models = list(films["model"])
    panels = {
        "value and time in expert films (VOC, Spearman's ρ)": (films, "value_order"),
        "score and true return of episodes (Kendall's τ)": (frozen, "episode_order"),
    }
    footer = footer_line(
        f"profile {profile}",
        task_titles([task for task in mixed["task"].unique() if task != ALL_TASKS]),
        f"{films['films'].iloc[0]} films, from the start to the first success",
        "episodes of mixed quality",
        "zero-shot",
        "bar: 95 % Student t interval",
        "dashed: no relation",
    )
    names = [TITLES.get(model, model) for model in models]
    spaces = Spaces(before=0.3, left=text_width(names) - 0.18, after=0.1)
    figure, drawn = make_panels(list(panels), "wide", len(models) * _ROW, spaces, footer, 2)
    for panel in drawn:
        rows, column = panels[panel.name]
        panel.axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for line, model in enumerate(models):
            (row,) = rows[rows["model"] == model].to_dict("records")
            color = MARKS[1].color
            panel.axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [line] * 2, color=color, alpha=0.45, lw=2.0)
            panel.axes.plot(row[column], line, "o", color=color, markersize=3.2)
        panel.axes.set(xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1), ylim=(len(models) - 0.4, -0.6))
        panel.name_rows(names)
        panel.axes.set_xlabel("rank correlation")
    return figure


@project_style
def worth_of_accuracy(arms: pd.DataFrame, human_only: float, table: pd.DataFrame, profile: str) -> Figure:
    """Success against how often labels are right: simulated VLMs as lines, real ones as diamonds; below, on the same
    axis, how often the models at hand are right.

    `arms` is a `backbone_tables.arms_by_accuracy`, `human_only` the success (0..1) without a VLM, `table` a
    `backbone_tables.label_table` of replays. Success is the mean over the run. Raises PrefVLMError for missing columns.
    """
    check_columns(arms, {"arm", "accuracy", "simulated_accuracy", "area_under_curve"}, "arms", "arms_by_accuracy")
    pooled = table[table["task"] == ALL_TASKS]
    models = [model for model in pooled["model"].unique() if model != STATE]
    names, height = [TITLES.get(model, model) for model in models], len(models) * 0.8 * _ROW
    footer = footer_line(
        f"profile {profile}",
        "success: mean over the run, interquartile mean over runs",
        "bar: 95 % bootstrap interval",
        "diamonds above: real VLMs, at the accuracy of their labels in these runs",
        f"below: the models at hand on replays of real training, circle: zero-shot, diamond: after {TAUGHT} labels",
    )
    ends = [wrapped(name) for name in [*_families(arms).values(), *arms["arm"], "no VLM"]]
    spaces = Spaces(left=text_width(names) + 0.12, right=text_width(ends) + 0.16, below=height + 0.1)
    figure, (panel,) = make_panels([""], "column", 1.9, spaces, footer, 1)
    box, inch = panel.axes.get_position(), 1 / figure.get_figheight()
    below = figure.add_axes((box.x0, box.y0 - (height + 0.08) * inch, box.width, height * inch))
    _draw_worth(panel.axes, arms, human_only)
    for offset, mark in zip(_OFFSETS, MARKS, strict=True):
        _draw_mark(below, pooled, ALL, mark, models, offset)
    below.set(xlim=(40, 101), xticks=range(40, 101, 20), ylim=(len(models) - 0.4, -0.6))
    below.set_yticks(range(len(models)), names)
    below.set_xlabel("labels right (%)")
    return figure


def _families(arms: pd.DataFrame) -> dict[str, str]:
    """Family of arms with simulated VLMs -> its name in the figure."""
    return {
        family: f"{family}, simulated VLM" for family in arms.dropna(subset="simulated_accuracy")["family"].unique()
    }


def _draw_worth(axes: Axes, arms: pd.DataFrame, human_only: float) -> None:
    """Lines of simulated VLMs, diamonds of real ones, and what is reached without any."""
    ends = [CurveEnd("no VLM", to_rgb(REFERENCE_COLOR), np.inf, 100 * human_only)]
    axes.axhline(100 * human_only, color=REFERENCE_COLOR, lw=0.9)
    for apart, (family, name) in enumerate(_families(arms).items()):
        rows = arms[(arms["family"] == family) & arms["simulated_accuracy"].notna()].sort_values("accuracy")
        color = method_color(rows["method"].iloc[0])
        low, y, high = (100 * rows[f"area_under_curve{bound}"] for bound in ("_low", "", "_high"))
        x = 100 * rows["accuracy"] - 0.8 * apart  # bars stay apart
        axes.vlines(x, low, high, color=color, alpha=0.45, lw=1)
        axes.plot(x, y, "-o", color=color, lw=1.2, markersize=3)
        ends.append(CurveEnd(name, to_rgb(color), x.iloc[-1], y.iloc[-1]))
    for row in arms[arms["simulated_accuracy"].isna()].to_dict("records"):
        x, y = 100 * row["accuracy"], 100 * row["area_under_curve"]
        axes.plot(x, y, "D", color=REAL_COLOR, markersize=3.5, zorder=3)
        ends.append(CurveEnd(row["arm"], to_rgb(REAL_COLOR), x, y))
    axes.set(xlim=(40, 101), ylabel="mean success over the run (%)")
    axes.set_xticks(range(40, 101, 20), [""] * 4)
    show_percent(axes)
    label_curve_ends(axes, ends)
