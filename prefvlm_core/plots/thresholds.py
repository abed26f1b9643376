"""Figures of the filter's thresholds: a map of alpha and beta for each upper threshold."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import mean_of_runs
from prefvlm_core.analysis.paired import DECIDING, MEASURES, direction
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.analysis.wording import points
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import Row, footer_line, interval_below, make_footer, make_panels, task_titles
from prefvlm_core.plots.style import LABEL_SIZE, Color, contrast, project_style

_CELL = 0.46  # inches
_PALE = 0.3
"""Part of its color that a difference has whose interval does not exclude 0."""
_KEPT_COLOR = "#3A9A9A"  # so light that black can be read on it
_SETTING = ["upper", "alpha", "beta"]


@project_style
def gain_map(gaps: pd.DataFrame, profile: str) -> Figure:
    """How far every setting of the thresholds ends from the arm that it is compared with, in points with the interval.

    `gaps` is a `paired.planned_differences` of arms with thresholds; a row of cells per alpha, a column per beta, a map
    per upper threshold. Bold and in full color: the interval excludes 0. Raises PrefVLMError for missing columns, and
    where no thresholds are set.
    """
    columns = {"task", "against", "mean", "low", "high", "pairs"}
    check_columns(gaps, columns, "table of differences", "paired.planned_differences")
    pooled = gaps[gaps["task"] == ALL_TASKS]
    decided = np.array([direction(row) in ("above", "below") for row in pooled.to_dict("records")])
    cells = pooled.assign(
        value=100 * pooled["mean"] * np.where(decided, 1, _PALE),
        words=[interval_below(points(row)) for row in pooled.to_dict("records")],
        weight=np.where(decided, "bold", "normal"),
    )
    footer = footer_line(
        f"profile {profile}",
        task_titles(sorted(set(gaps["task"]) - {ALL_TASKS})),
        f"{pooled['pairs'].min()} pairs of runs",
        f"{MEASURES[DECIDING]}: difference from {' and '.join(pooled['against'].unique())}, in points",
        "95 % stratified bootstrap interval; bold and in full color: it excludes 0",
    )
    most = max(20.0, 100 * pooled["mean"].abs().max())
    return _maps(cells, footer, seaborn.color_palette("vlag", as_cmap=True), -most, most)


@project_style
def kept_labels_map(data: pd.DataFrame, profile: str) -> Figure:
    """How many of the labels that the filter keeps are right at the end of the run, setting by setting, how many of all
    it keeps, and the human labels spent: the mean over runs (of tasks, of their means), the range of the runs of the
    first, and the mean number of labels.

    `data` is evaluations with the thresholds; beside a map per upper threshold there is a cell for thresholds that
    nobody sets (nan). Raises PrefVLMError for missing columns, and where no thresholds are set.
    """
    columns = {"clean_accuracy", "clean_fraction", "step", "run_id", "task", "seed", "arm", "human_labels", *_SETTING}
    check_columns(data, columns, "evaluations", "experiments.plan.evaluations")
    sorts = data.sort_values("step").dropna(subset="clean_fraction")
    last, judged = (rows.groupby("run_id").tail(1) for rows in (sorts, sorts.dropna(subset="clean_accuracy")))
    cells = [
        {**runs.iloc[0][["arm", *_SETTING]], "value": _mean(runs, "clean_accuracy")}
        | {"words": _words(runs, last[last["arm"] == arm])}
        for arm, runs in judged.groupby("arm")
    ]
    shown = (
        "labels that the filter keeps at the end and that are right: mean (range of runs); below it: how many it keeps"
    )
    if len(judged) < len(last):
        shown += "; right in those runs alone whose filter keeps any"
    footer = make_footer(
        [profile], sorted(set(last["task"])), last.groupby(["task", "arm"])["seed"].nunique(), shown, ""
    )
    palette = seaborn.light_palette(_KEPT_COLOR, as_cmap=True)
    return _maps(pd.DataFrame(cells).assign(weight="normal"), footer, palette, 50, 100)


def _words(judged: pd.DataFrame, runs: pd.DataFrame) -> str:
    low, high = 100 * judged["clean_accuracy"].min(), 100 * judged["clean_accuracy"].max()
    spread = f" ({low:.0f}–{high:.0f})" if len(judged) > 1 else ""
    kept = f"keeps {_mean(runs, 'clean_fraction'):.0f} %"
    return f"{_mean(judged, 'clean_accuracy'):.0f} %{spread}\n{kept}\n{runs['human_labels'].mean():.0f} human labels"


def _mean(runs: pd.DataFrame, fraction: str) -> float:
    """In percent."""
    return float(100 * mean_of_runs(runs, fraction)["mean"])


def _maps(cells: pd.DataFrame, footer: str, palette: Colormap, low: float, high: float) -> Figure:
    """A map per upper threshold, and a cell per arm without one; `cells` has a row per arm: the thresholds, the value,
    and the words in the cell."""
    check_columns(cells, set(_SETTING), "table of arms", "paired.planned_differences")
    by_hand = cells.dropna(subset=_SETTING)
    if by_hand.empty:
        raise PrefVLMError("No run has thresholds set by hand, so there is no map to draw; choose arms that have.")
    alphas, betas = (sorted(by_hand[name].unique()) for name in ("alpha", "beta"))
    maps = {f"upper threshold {upper:.1f}": rows for upper, rows in by_hand.groupby("upper")}
    others = {f"{arm} thresholds": row for arm, row in cells[cells["upper"].isna()].groupby("arm")}
    rows = [Row([name], len(alphas) * _CELL, below=0.36) for name in maps]
    rows += [Row([name], 0.8 * _CELL, columns=1, below=0.05) for name in others]
    figure, panels = make_panels(rows, footer, left=0.42, right=0.05, bottom=0.1)
    for panel, shown in zip(panels, [*maps.values(), *others.values()], strict=True):
        grid = np.full((len(alphas), len(betas)) if panel.name in maps else (1, 1), np.nan)
        for row in shown.itertuples():
            place = (alphas.index(row.alpha), betas.index(row.beta)) if panel.name in maps else (0, 0)
            grid[place] = row.value
            _write(panel.axes, place, row, palette((row.value - low) / (high - low))[:3])
        panel.axes.imshow(grid, cmap=palette, vmin=low, vmax=high, aspect="auto")
        panel.axes.grid(False)
        panel.axes.spines[:].set_visible(False)
        panel.axes.set(xticks=[], yticks=[])
        if panel.name in maps:
            panel.axes.set_xticks(range(len(betas)), [f"beta {beta:g}" for beta in betas])
            panel.axes.set_yticks(range(len(alphas)), [f"alpha\n{alpha:g}" for alpha in alphas])
    return figure


def _write(axes: Axes, place: tuple[int, int], row: Any, ground: Color) -> None:
    """The words of a cell, in black or white, whichever is told better from its color."""
    color = max(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), key=lambda text: contrast(text, ground))
    style: dict[str, Any] = {"fontsize": LABEL_SIZE, "ha": "center", "va": "center", "linespacing": 1.3}
    axes.text(place[1], place[0], row.words, color=color, weight=row.weight, **style)
