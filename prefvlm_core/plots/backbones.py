"""Figures that compare vision-language models as labelers, and show what the accuracy of labels is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefvlm_core.analysis.backbone_tables import TAUGHT
from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.vlm_quality import ALL, LARGE_GAP, LATE, NEAR_GOAL, STATE
from prefvlm_core.plots.layout import (
    Key,
    Panel,
    Row,
    footer_line,
    grid,
    make_footer,
    make_panels,
    show_percent,
    task_titles,
    text_width,
)
from prefvlm_core.plots.rows import ACCURACIES, Mark, draw_mark, draw_runs
from prefvlm_core.plots.sanity import MODEL_TITLES
from prefvlm_core.plots.style import LINE_HEIGHT, REFERENCE_COLOR, method_color, project_style

REAL_COLOR = method_color("vlm-reward")
TITLES = MODEL_TITLES | {STATE: "state, linear probe"}
_KINDS = {ALL: "all pairs", LARGE_GAP: "large differences", LATE: "late in the run", NEAR_GOAL: "near the goal"}
_ROW = 2.4 * LINE_HEIGHT
_OFFSETS = (-0.22, 0.22)  # of the marks from the middle of their row
_ZERO_SHOT, _TAUGHT = (("zero-shot", 0),), (("adapters", TAUGHT), ("ridge", TAUGHT))
MARKS: dict[tuple[tuple[str, int], ...], Mark] = {
    _ZERO_SHOT: ACCURACIES["vlm_accuracy"]._replace(name="zero-shot"),
    _TAUGHT: ACCURACIES["adapted_vlm_accuracy"]._replace(name=f"after {TAUGHT} labels"),
}
"""Readers and numbers of labels, of which the first that a model has is drawn, and their mark."""


@project_style
def accuracy_by_model(table: pd.DataFrame, profile: str) -> Figure:
    """How many labels are right, zero-shot and taught: a row per model, the best taught first.

    `table` is a `backbone_tables.label_table`. Mark: the mean over tasks; dots: the tasks. Raises PrefVLMError for
    missing columns.
    """
    check_columns(table, {"model", "reader", "labels", "task", ALL}, "table", "backbone_tables.label_table")
    return _panels_of_models({"": ALL}, table, profile, dots=True)


@project_style
def accuracy_by_kind(table: pd.DataFrame, profile: str) -> Figure:
    """The same with one panel per kind of pairs, without the tasks."""
    check_columns(table, {"model", "reader", "labels", "task", *_KINDS}, "table", "backbone_tables.label_table")
    return _panels_of_models({title: kind for kind, title in _KINDS.items()}, table, profile, dots=False)


def _panels_of_models(panels: Mapping[str, str], table: pd.DataFrame, profile: str, *, dots: bool) -> Figure:
    """One panel per title: which of the table's columns is drawn."""
    pooled, by_task = table[table["task"] == ALL_TASKS], table[table["task"] != ALL_TASKS]
    taught = {model: _of(pooled, model, _TAUGHT, ALL).max() for model in pooled["model"].unique()}
    models = sorted(taught, key=lambda model: -taught[model])
    footer = footer_line(
        f"profile {profile}",
        task_titles(list(by_task["task"].unique())),
        "replays of SAC and of PEBBLE, one seed",
        f"mark: mean over tasks{'; dots: tasks' if dots else ''}",
        "bar: 95 % Student t interval",
        "dashed: chance",
    )
    names = [TITLES.get(model, model) for model in models]
    rows = grid(list(panels), min(2, len(panels)), len(models) * (1 + 0.2 * dots) * _ROW, 0.08, 0.1)
    key = [Key(mark.name, mark.color, mark.marker) for mark in MARKS.values()]
    figure, drawn = make_panels(rows, footer, left=text_width(names) + 0.1, key=key)
    for panel in drawn:
        column = panels[panel.name]
        panel.axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for (line, model), (offset, (readers, mark)) in _places(models):
            of_model = _of(pooled, model, readers, column)
            if len(of_model):
                low, high = (_of(pooled, model, readers, f"{column}{bound}").item() for bound in ("_low", "_high"))
                bounds = [100 * low, 100 * of_model.item(), 100 * high]
                draw_mark(panel.axes, line + offset, bounds, mark.color, mark.marker)
            if dots:
                of_tasks = 100 * _of(by_task, model, readers, column)
                draw_runs(panel.axes, line + offset, of_tasks.tolist(), mark.color, 0.3)
        panel.axes.set(xlim=(30, 102), xticks=(50, 75, 100))
        panel.name_rows(names)
        panel.set_axis_titles("labels that are right (%)", "")
    return figure


def _places(models: Sequence[str]) -> list[tuple]:
    """((line, model), (offset, (readers, mark))) of every mark."""
    offsets = list(zip(_OFFSETS, MARKS.items(), strict=True))
    return [(place, mark) for place in enumerate(models) for mark in offsets]


def _of(table: pd.DataFrame, model: str, readers: tuple[tuple[str, int], ...], column: str) -> np.ndarray:
    """The column's values for the first of the readers that the model has; empty where it has none."""
    of_model = table[table["model"] == model]
    for reader, labels in readers:
        rows = of_model[(of_model["reader"] == reader) & (of_model["labels"] == labels)]
        if len(rows):
            return rows[column].to_numpy(np.float64)
    return np.empty(0)


@project_style
def orders(films: pd.DataFrame, mixed: pd.DataFrame, profile: str) -> Figure:
    """Two panels, a row per model, the best first: how its values follow time in expert films, and how its scores rank
    episodes.

    `films` is a `backbone_tables.film_table`, `mixed` a `label_table` of mixed episodes. Raises PrefVLMError for
    missing columns.
    """
    check_columns(films, {"model", "value_order"}, "table of films", "backbone_tables.film_table")
    check_columns(mixed, {"model", "reader", "task", "episode_order"}, "table", "backbone_tables.label_table")
    frozen = mixed[(mixed["task"] == ALL_TASKS) & (mixed["reader"] == "zero-shot")]
    models = films.sort_values("value_order", ascending=False)["model"].tolist()
    panels = {"time in expert films\n(Spearman's ρ)": (films, "value_order")}
    panels["return of episodes\n(Kendall's τ)"] = (frozen, "episode_order")
    footer = footer_line(
        f"profile {profile}",
        task_titles([task for task in mixed["task"].unique() if task != ALL_TASKS]),
        f"{films['films'].iloc[0]} films, from the start to the first success",
        "episodes of mixed quality",
        "zero-shot",
        "bar: 95 % Student t interval",
        "dashed: no relation",
    )
    names, mark = [TITLES.get(model, model) for model in models], ACCURACIES["adapted_vlm_accuracy"]
    rows = grid(list(panels), 2, len(models) * 0.75 * _ROW, 0.08, 0.1)
    figure, drawn = make_panels(rows, footer, left=text_width(names) + 0.1)
    for panel in drawn:
        values, column = panels[panel.name]
        panel.axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for line, model in enumerate(models):
            (row,) = values[values["model"] == model].to_dict("records")
            draw_mark(panel.axes, line, [row[f"{column}{bound}"] for bound in ("_low", "", "_high")], mark.color)
        panel.axes.set(xlim=(-0.4, 1.02), xticks=(0, 0.5, 1))
        panel.name_rows(names)
        panel.axes.set_xlabel("rank correlation")
    return figure


@project_style
def worth_of_accuracy(runs: pd.DataFrame, profile: str) -> Figure:
    """Success against how often labels are right, a panel per task: simulated VLMs as lines, real ones as diamonds,
    which the rows below name.

    `runs` is a `backbone_tables.runs_by_accuracy`. Success is the mean over the run. Raises PrefVLMError for missing
    columns.
    """
    check_columns(runs, {"arm", "accuracy", "simulated_accuracy", "area_under_curve"}, "runs", "runs_by_accuracy")
    real = runs[runs["simulated_accuracy"].isna() & runs["accuracy"].notna()]
    tasks, simulated = sorted(set(runs["task"])), runs.dropna(subset="simulated_accuracy")
    names = real.groupby("arm")["accuracy"].mean().sort_values(ascending=False).index.tolist()
    styles = dict(zip(simulated["family"], map(method_color, simulated["method"]), strict=True))
    seeds = runs.groupby(["task", "arm"])["seed"].nunique()
    shown = "success: mean over the run; mark: mean of the runs; dots: single runs of simulated VLMs"
    shown += "; a real VLM stands at the accuracy of its labels in these runs"
    footer = make_footer([profile], tasks, seeds, shown, "")
    left = text_width(names) + 0.1
    rows = [Row(tasks, 1.4, 0.06, 0.1, below=0.0), Row([""] * len(tasks), len(names) * 0.7 * _ROW, 0.06, 0.1)]
    key = [Key(f"{family}, simulated VLM", color) for family, color in styles.items()]
    key += [Key("real VLMs", REAL_COLOR, "D"), Key("no VLM", REFERENCE_COLOR, "_")]
    figure, panels = make_panels(rows, footer, left=left, key=key)
    for above, below, task in zip(panels[: len(tasks)], panels[len(tasks) :], tasks, strict=True):
        _draw_worth(above.axes, runs[runs["task"] == task], styles)
        _name_real(above.axes, below, real[real["task"] == task], names)
        if not above.leftmost:
            above.axes.tick_params(labelleft=False)
        above.set_axis_titles("", "success (%)")
    return figure


def _draw_worth(axes: Axes, runs: pd.DataFrame, styles: Mapping[str, str]) -> None:
    """Lines of simulated VLMs, and the level that is reached without any, of one task."""
    axes.axhline(100 * runs.loc[runs["accuracy"].isna(), "area_under_curve"].mean(), color=REFERENCE_COLOR, lw=0.9)
    for apart, (family, color) in enumerate(styles.items()):
        rows = runs[(runs["family"] == family) & runs["simulated_accuracy"].notna()]
        x = 100 * rows["accuracy"] - 0.8 * apart  # dots stay apart
        axes.plot(x, 100 * rows["area_under_curve"], "o", color=color, alpha=0.45, markersize=2.4, mew=0)
        means = (100 * rows["area_under_curve"]).groupby(x).mean()
        axes.plot(means.index, means, "-o", color=color, lw=1.2, markersize=3.6)
    show_percent(axes)


def _name_real(above: Axes, panel: Panel, real: pd.DataFrame, names: Sequence[str]) -> None:
    """The diamonds of real VLMs on one task, and below each the row of its name."""
    for arm, rows in real.groupby("arm"):
        x, y, line = 100 * rows["accuracy"].iloc[0], 100 * rows["area_under_curve"].mean(), names.index(arm)
        above.plot(x, y, "D", color=REAL_COLOR, markersize=3.6, zorder=3)
        above.plot([x, x], [-3, y], color=REAL_COLOR, lw=0.5, ls=":", zorder=1)
        panel.axes.plot([x, x], [-1, line], color=REAL_COLOR, lw=0.5, ls=":", zorder=1)
        panel.axes.plot(x, line, "D", color=REAL_COLOR, markersize=3.6)
    panel.name_rows(names)
    for axes in (above, panel.axes):
        axes.set(xlim=(40, 102), xticks=range(40, 101, 20))
    above.tick_params(labelbottom=False)
    panel.set_axis_titles("labels right (%)", "")
