"""Figures of disturbed scenes: what they look like, and what they do to labels and values."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.robustness import CLEAN_SCENE, FACTORS, HUMAN_LABELS, READERS
from prefvlm_core.analysis.robustness_tables import scene_title
from prefvlm_core.common.arrays import ImageArray
from prefvlm_core.domains.perturbations import INTENSITIES, STRENGTHS
from prefvlm_core.plots.labels import ACCURACIES
from prefvlm_core.plots.style import (
    FOOTER_SIZE,
    LABEL_SIZE,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    WIDTHS,
    Spaces,
    darker,
    footer_line,
    make_panels,
    project_style,
    task_title,
    task_titles,
    text_width,
)

UNITS = {"light_angle": "°", "camera_position": " m", "camera_angle": "°", "noise": " of 255"}
"""Factor -> unit of its intensity; others have none."""
MEASURE_TITLES = {
    "accuracy": ("labels that are right", "change (points)", 100.0),
    "value_order": ("order of values in time", "change of Spearman's ρ", 1.0),
}
"""Measure -> title, title of its axis, and size of that axis' unit."""
READER_STYLES = dict(
    zip(
        READERS,
        (
            ("o", ACCURACIES["vlm_accuracy"][1]),
            ("s", "#CC6677"),
            ("D", ACCURACIES["adapted_vlm_accuracy"][1]),
        ),
        strict=True,
    )
)
"""Reader -> mark and color."""


@project_style
def contact_sheet(pictures: Mapping[tuple[str, str], ImageArray], task: str) -> Figure:
    """The clean scene, then one column per factor and one row per strength, as the VLM sees them.

    `pictures` is what `robustness.pictures` returns.
    """
    strengths, above, gap, below = text_width(STRENGTHS) + 0.05, 0.3, 0.05, 0.13
    side = (WIDTHS["wide"] - strengths) / (1 + len(FACTORS)) - gap
    rows, footer = len(STRENGTHS), 0.16
    width, height = WIDTHS["wide"], above + rows * (side + below) + footer
    figure = plt.figure(figsize=(width, height))
    plt.close(figure)
    words = footer_line(task_title(task), "one draw, 64 pixels", "below each picture: intensity")
    figure.text(0.03 / width, 0.03 / height, words, fontsize=FOOTER_SIZE)
    for (factor, strength), picture in pictures.items():
        column = 0 if factor == CLEAN_SCENE else 1 + FACTORS.index(factor)
        row = 0 if factor == CLEAN_SCENE else STRENGTHS.index(strength)
        x = gap / 2 + column * (side + gap) + (strengths if column else 0)
        y = height - above - row * (side + below) - side
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=(), yticks=())
        axes.set_xlabel(_intensity(factor, strength), fontsize=FOOTER_SIZE, labelpad=1)
        if row == 0:
            axes.set_title(scene_title(factor, "").replace(" ", "\n"), fontsize=LABEL_SIZE)
        if column == 1:
            place = (x - 0.05) / width, (y + side / 2) / height
            figure.text(*place, strength, fontsize=LABEL_SIZE, ha="right", va="center")
    return figure


def _intensity(factor: str, strength: str) -> str:
    if factor not in INTENSITIES:
        return ""
    return f"{INTENSITIES[factor][STRENGTHS.index(strength)]:g}{UNITS.get(factor, '')}"


@project_style
def changes_by_factor(table: pd.DataFrame, profile: str, tasks: Sequence[str]) -> Figure:
    """Per measure and strength a panel with a line per factor: how far each reader is from the clean zero-shot model.

    `table` is a `robustness_tables.change_table`. Raises PrefVLMError for missing columns.
    """
    needed = {f"{measure}_change{bound}" for measure in MEASURE_TITLES for bound in ("", "_low", "_high")}
    check_columns(table, {"factor", "strength", "reader", "draws"} | needed, "table", "robustness_tables.change_table")
    strengths = [strength for strength in STRENGTHS if strength in set(table["strength"])]
    factors = [factor for factor in (CLEAN_SCENE, *FACTORS) if factor in set(table["factor"])]
    footer = footer_line(
        f"profile {profile}",
        task_titles(tasks),
        f"per task {table['draws'].min()} draws of episodes, scene and adapters",
        "mark: mean difference from the zero-shot model in the clean scene of the same draw",
        "bar: 95 % Student t interval over draws",
        f"adapted: by {HUMAN_LABELS} labels",
    )
    names = [scene_title(factor, "") for factor in factors]
    titles = [f"{title}, {strength}" for title, _, _ in MEASURE_TITLES.values() for strength in strengths]
    spaces = Spaces(before=0.1, left=text_width(names) + 0.08, right=text_width(READERS) + 0.32, below=0.15)
    height = len(factors) * 2.6 * LINE_HEIGHT
    figure, panels = make_panels(titles, "wide", height, spaces, footer, len(strengths))
    limits = {measure: _limits(table, measure) for measure in MEASURE_TITLES}
    shown = [(measure, strength) for measure in MEASURE_TITLES for strength in strengths]
    for index, (panel, (measure, strength)) in enumerate(zip(panels, shown, strict=True)):
        scenes = table[table["strength"].isin(("", strength))]
        _draw_changes(panel.axes, scenes, factors, measure)
        panel.name_rows(names)
        panel.axes.set(xlabel=MEASURE_TITLES[measure][1], xlim=limits[measure])
        if index % len(strengths) == len(strengths) - 1:
            _name_readers(panel.axes)
    return figure


def _limits(table: pd.DataFrame, measure: str) -> tuple[float, float]:
    """The same for all strengths: of the changes and their intervals, with a margin."""
    values = MEASURE_TITLES[measure][2] * table[[f"{measure}_change{bound}" for bound in ("", "_low", "_high")]]
    low, high = values.min().min(), values.max().max()
    margin = 0.03 * (high - low)
    return low - margin, high + margin


def _draw_changes(axes: Axes, scenes: pd.DataFrame, factors: Sequence[str], measure: str) -> None:
    """Draw the rows of a `change_table` with one strength."""
    axes.axvline(0, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
    unit = MEASURE_TITLES[measure][2]
    for row in scenes.to_dict("records"):
        line = factors.index(row["factor"]) + 0.27 * (READERS.index(row["reader"]) - 1)
        low, mean, high = (unit * row[f"{measure}_change{bound}"] for bound in ("_low", "", "_high"))
        mark, color = READER_STYLES[row["reader"]]
        axes.plot([low, high], [line, line], color=color, alpha=0.4, lw=1.8, solid_capstyle="butt")
        axes.plot(mean, line, mark, color=color, markersize=3)
    axes.set_ylim(len(factors) - 0.4, -0.6)


def _name_readers(axes: Axes) -> None:
    """Name the marks right of the panel."""
    inch = 1 / axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).width
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    for line, (reader, (mark, color)) in enumerate(READER_STYLES.items()):
        axes.plot(1 + 0.12 * inch, line, mark, color=color, markersize=3, **place)
        axes.text(1 + 0.2 * inch, line, reader, color=darker(to_rgb(color)), fontsize=LABEL_SIZE, va="center", **place)
