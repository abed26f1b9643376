"""The figure of bodies in motion: labels of a VLM that is shown frames, and of one that is shown how they differ."""

import itertools

import pandas as pd
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.motion import HUMAN_LABELS, KINDS, MODEL, READERS, SHOWN
from prefvlm_core.plots.layout import Key, footer_line, grid, make_panels, text_width
from prefvlm_core.plots.rows import ACCURACIES, draw_mark
from prefvlm_core.plots.style import LINE_HEIGHT, REFERENCE_COLOR, project_style

_ZERO_SHOT, _ADAPTED, *_ = ACCURACIES.values()
READER_MARKS = dict(zip(READERS, (_ZERO_SHOT, _ADAPTED._replace(name=f"after {HUMAN_LABELS} labels")), strict=True))
"""Column of the table -> how it is drawn."""


@project_style
def labels_of_motion(table: pd.DataFrame, profile: str) -> Figure:
    """One panel per task, one row per kind of pairs and what the VLM is shown: labels that are right, zero-shot and
    after adapters learned.

    `table` is a `motion.accuracy_table`. Dashed: chance. Raises PrefVLMError for missing columns.
    """
    needed = {f"{reader}{bound}" for reader in READERS for bound in ("", "_low", "_high")}
    check_columns(table, {"task", "pairs", "shows", "seeds"} | needed, "table", "motion.accuracy_table")
    tasks, rows = list(table["task"].unique()), list(itertools.product(KINDS, SHOWN))
    with_intervals = table["zero_shot_low"].notna().any()
    footer = footer_line(
        f"profile {profile}",
        f"{MODEL} on replays of SAC, {table['seeds'].min()} runs per task",
        "late: both segments in the last third of a run",
        "mark: mean over runs",
        "bar: 95 % bootstrap interval over runs" if with_intervals else "too few runs for an interval",
        "dashed: chance",
    )
    names = [f"{shows}s, {kind} pairs" for kind, shows in rows]
    panels_of = grid(tasks, len(tasks), len(rows) * 2.2 * LINE_HEIGHT, 0.08, 0.1)
    key = [Key(mark.name, mark.color, mark.marker) for mark in READER_MARKS.values()]
    figure, panels = make_panels(panels_of, footer, left=text_width(names) + 0.1, key=key)
    for panel in panels:
        panel.axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for row in table[table["task"] == panel.name].to_dict("records"):
            line = rows.index((row["pairs"], row["shows"]))
            for offset, (reader, mark) in zip((-0.18, 0.18), READER_MARKS.items(), strict=True):
                bounds = [100 * row[f"{reader}{bound}"] for bound in ("_low", "", "_high")]
                draw_mark(panel.axes, line + offset, bounds, mark.color, mark.marker)
        panel.axes.set(xlim=(0, 100), xticks=(0, 50, 100))
        panel.name_rows(names)
        panel.axes.set_xlabel("right labels (%)")
    return figure
