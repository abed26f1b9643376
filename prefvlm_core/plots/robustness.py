"""Figures of disturbed scenes: what they look like, and what they do to labels and values."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.robustness import CLEAN_SCENE, FACTORS, HUMAN_LABELS, READERS, ZERO_SHOT
from prefvlm_core.analysis.robustness_tables import scene_title
from prefvlm_core.common.arrays import ImageArray
from prefvlm_core.domains.perturbations import INTENSITIES, STRENGTHS
from prefvlm_core.plots.layout import (
    Key,
    footer_line,
    grid,
    make_panels,
    task_title,
    task_titles,
    text_width,
)
from prefvlm_core.plots.rows import ACCURACIES, Mark, draw_mark, draw_runs
from prefvlm_core.plots.style import FOOTER_SIZE, LINE_HEIGHT, PAGE, REFERENCE_COLOR, project_style

UNITS = {"light_angle": "°", "camera_position": " m", "camera_angle": "°", "noise": " of 255"}
"""Factor -> unit of its intensity; others have none."""
MEASURE_TITLES = {
    "accuracy": ("labels that are right", "change (points)", 100.0),
    "value_order": ("order of values in time", "change of ρ", 1.0),
}
"""Measure -> title, title of its axis, and size of that axis' unit."""
READER_MARKS = {
    reader: mark._replace(name=reader)
    for reader, mark in zip(
        READERS,
        (ACCURACIES["vlm_accuracy"], Mark("", "#CC6677", "s"), ACCURACIES["adapted_vlm_accuracy"]),
        strict=True,
    )
}
FEWEST_DRAWS = 4
"""Of all tasks together, from which on changes have an interval: of two it reaches beyond all that can be."""
_COLUMNS = 4  # of pictures


@project_style
def contact_sheet(pictures: Mapping[tuple[str, str], ImageArray], task: str, strength: str) -> Figure:
    """The clean scene, then one picture per factor at a strength, as the VLM sees them.

    `pictures` is what `robustness.pictures` returns.
    """
    shown = {factor: picture for (factor, at), picture in pictures.items() if at in ("", strength)}
    side = PAGE / _COLUMNS - 0.06
    rows = [row._replace(below=0.22) for row in grid(list(shown), _COLUMNS, side, 0.03, 0.03)]
    footer = footer_line(task_title(task), strength, "one draw, 64 pixels", "below each picture: intensity")
    figure, panels = make_panels(rows, footer, bottom=0.02)
    for panel in panels:
        panel.axes.imshow(shown[panel.name], interpolation="nearest", aspect="auto")
        panel.axes.set(xticks=(), yticks=(), title=scene_title(panel.name, ""))
        panel.axes.set_xlabel(_intensity(panel.name, strength), fontsize=FOOTER_SIZE, labelpad=1)
    return figure


def _intensity(factor: str, strength: str) -> str:
    if factor not in INTENSITIES:
        return ""
    return f"{INTENSITIES[factor][STRENGTHS.index(strength)]:g}{UNITS.get(factor, '')}"


@project_style
def changes_by_factor(table: pd.DataFrame, profile: str, tasks: Sequence[str], strength: str) -> Figure:
    """Per measure a panel with a row per factor at a strength, the costliest for zero-shot labels last: how far each
    reader is from the clean zero-shot model. Fewer than `FEWEST_DRAWS` of all tasks are dots, and there are no
    bars, which would hide the marks.

    `table` is a `robustness_tables.change_table`. Raises PrefVLMError for missing columns.
    """
    needed = {f"{measure}_change{bound}" for measure in MEASURE_TITLES for bound in ("", "_low", "_high", "_each")}
    check_columns(table, {"factor", "strength", "reader", "draws"} | needed, "table", "robustness_tables.change_table")
    scenes = table[table["strength"].isin(("", strength))]
    cost = scenes[scenes["reader"] == ZERO_SHOT].set_index("factor")["accuracy_change"]
    factors = [CLEAN_SCENE, *sorted(set(FACTORS) & set(cost.index), key=lambda factor: (-cost[factor], factor))]
    footer = footer_line(
        f"profile {profile}",
        task_titles(tasks),
        f"{strength} disturbances",
        f"per task {table['draws'].min()} draws of episodes, scene and adapters",
        "mark: mean difference from the zero-shot model in the clean scene of the same draw",
        "bar: 95 % Student t interval over draws" if _has_intervals(table) else "dots: draws",
        f"adapted: by {HUMAN_LABELS} labels",
    )
    names = [scene_title(factor, "") for factor in factors]
    titles = [title for title, _, _ in MEASURE_TITLES.values()]
    rows = grid(titles, len(titles), len(factors) * 2.6 * LINE_HEIGHT, 0.08, 0.08)
    key = [Key(mark.name, mark.color, mark.marker) for mark in READER_MARKS.values()]
    figure, panels = make_panels(rows, footer, left=text_width(names) + 0.1, key=key)
    for panel, measure in zip(panels, MEASURE_TITLES, strict=True):
        _draw_changes(panel.axes, scenes, factors, measure)
        panel.name_rows(names)
        panel.axes.set_xlabel(MEASURE_TITLES[measure][1])
    return figure


def _draw_changes(axes: Axes, scenes: pd.DataFrame, factors: Sequence[str], measure: str) -> None:
    """Draw the rows of a `change_table` with one strength."""
    axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
    unit, has_intervals = MEASURE_TITLES[measure][2], _has_intervals(scenes)
    for row in scenes.to_dict("records"):
        line = factors.index(row["factor"]) + 0.27 * (READERS.index(row["reader"]) - 1)
        bounds = [unit * row[f"{measure}_change{bound}"] for bound in ("_low", "", "_high")]
        mark = READER_MARKS[row["reader"]]
        if not has_intervals:
            bounds[0] = bounds[2] = np.nan
            draw_runs(axes, line, [unit * change for change in row[f"{measure}_change_each"]], mark.color, 0.0)
        draw_mark(axes, line, bounds, mark.color, mark.marker)


def _has_intervals(table: pd.DataFrame) -> bool:
    """Whether there are draws enough, of all tasks together."""
    return bool(table["accuracy_change_each"].map(len).min() >= FEWEST_DRAWS)
