"""Figures that compare vision-language models as labelers, and show what the accuracy of labels is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prefvlm_core.analysis.backbone_tables import TAUGHT
from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.vlm_quality import ALL, LARGE_GAP, LATE, NEAR_GOAL, STATE
from prefvlm_core.plots.gains import MARKERS, draw_gains, draw_ground, gains_footer
from prefvlm_core.plots.layout import (
    Key,
    Row,
    footer_line,
    grid,
    make_panels,
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
        "bar: 95 % Student t interval over each task's two replays, not over tasks",
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
        "bar: 95 % Student t interval over each task's films or draws, not over tasks",
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
def worth_of_accuracy(gaps: pd.DataFrame, profile: str) -> Figure:
    """What a VLM gains over none against how often its labels are right, all tasks together: simulated VLMs as lines,
    real ones as diamonds, which the rows below name.

    `gaps` is a `backbone_tables.gaps_by_accuracy`. Raises PrefVLMError for missing columns.
    """
    check_columns(
        gaps, {"arm", "method", "accuracy", "simulated_accuracy", "mean", "low", "high"}, "gaps", "gaps_by_accuracy"
    )
    real = gaps[gaps["simulated_accuracy"].isna()].sort_values("accuracy", ascending=False)
    simulated = gaps.dropna(subset="simulated_accuracy").sort_values("accuracy")
    names = real["arm"].tolist()
    rows = [Row([""], 1.4, below=0.0), Row([""], len(names) * 0.7 * _ROW)]
    key = [
        Key(f"{method}, simulated VLM", method_color(method), MARKERS[method])
        for method in simulated["method"].unique()
    ]
    shown = "a real VLM stands at the accuracy of its labels in these runs"
    footer = gains_footer(gaps, profile, shown)
    figure, (above, below) = make_panels(
        rows, footer, left=max(text_width(names), 0.4) + 0.14, right=0.1, key=[*key, Key("real VLMs", REAL_COLOR, "D")]
    )
    draw_gains(above.axes, 100 * simulated["accuracy"], simulated)
    draw_ground(above.axes, gaps)
    bottom = above.axes.get_ylim()[0]
    for line, row in enumerate(real.itertuples()):
        x = 100 * row.accuracy
        above.axes.vlines(x, 100 * row.low, 100 * row.high, color=REAL_COLOR, alpha=0.5, lw=1.2)
        above.axes.plot(x, 100 * row.mean, "D", color=REAL_COLOR, markersize=3.6, zorder=3)
        above.axes.plot([x, x], [bottom, 100 * row.mean], color=REAL_COLOR, lw=0.5, ls=":", zorder=1)
        below.axes.plot([x, x], [-1, line], color=REAL_COLOR, lw=0.5, ls=":", zorder=1)
        below.axes.plot(x, line, "D", color=REAL_COLOR, markersize=3.6)
    below.name_rows(names)
    for axes in (above.axes, below.axes):
        axes.set(xlim=(40, 102), xticks=range(40, 101, 20))
    above.axes.tick_params(labelbottom=False)
    above.axes.set_ylabel("gain over no VLM (points)")
    below.axes.set_xlabel("labels right (%)")
    return figure
