"""Figures of the filter's thresholds: a map of alpha and beta for each upper threshold."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.means import mean_of_runs
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import Row, make_footer, make_panels
from prefvlm_core.plots.style import LABEL_SIZE, Color, contrast, project_style

_CELL = 0.46  # inches
_COLORS = seaborn.color_palette("crest", as_cmap=True)
_SETTING = ["upper", "alpha", "beta"]


@project_style
def success_map(runs: pd.DataFrame, profile: str) -> Figure:
    """Where every setting of the thresholds ends: success, and the human labels spent.

    `runs` is a `stats.run_table` with the thresholds; a row of cells per alpha, a column per beta, a map per upper
    threshold, and a cell for thresholds that nobody sets (nan). In each: the mean over runs (of tasks, of their means),
    the range of the runs, and the mean number of human labels. Raises PrefVLMError for missing columns, and where no
    thresholds are set.
    """
    check_columns(runs, {"success"}, "table of runs", "stats.run_table")
    return _map(runs.assign(value=100 * runs["success"]), "success: mean (range of runs), last 10 % of steps", profile)


@project_style
def kept_labels_map(data: pd.DataFrame, profile: str) -> Figure:
    """How many of the labels that the filter keeps are right at the end of the run, setting by setting, and the human
    labels spent. `data` is evaluations; the rest is as in `success_map`."""
    check_columns(data, {"clean_accuracy", "step", "run_id"}, "evaluations", "experiments.plan.evaluations")
    last = data.sort_values("step").dropna(subset="clean_accuracy").groupby("run_id").tail(1)
    shown = "labels that the filter keeps and that are right: mean (range of runs)"
    return _map(last.assign(value=100 * last["clean_accuracy"]), shown, profile, least=50)


def _map(runs: pd.DataFrame, shown: str, profile: str, least: float = 0.0) -> Figure:
    check_columns(runs, {"task", "seed", "arm", "human_labels", *_SETTING}, "table of runs", "stats.run_table")
    by_hand = runs.dropna(subset=_SETTING)
    if by_hand.empty:
        raise PrefVLMError("No run has thresholds set by hand, so there is no map to draw; choose arms that have.")
    alphas, betas = (sorted(by_hand[name].unique()) for name in ("alpha", "beta"))
    maps = {f"upper threshold {upper:.1f}": rows for upper, rows in by_hand.groupby("upper")}
    others = dict(iter(runs[runs["upper"].isna()].groupby("arm")))
    rows = [Row([name], len(alphas) * _CELL, below=0.36) for name in maps]
    rows += [Row([f"{name} thresholds"], 0.8 * _CELL, columns=1, below=0.05) for name in others]
    seeds = runs.groupby(["task", "arm"])["seed"].nunique()
    footer = make_footer([profile], sorted(set(runs["task"])), seeds, f"{shown}; below it: human labels", "")
    figure, panels = make_panels(rows, footer, left=0.42, right=0.05, bottom=0.1)
    for panel, of_map in zip(panels, [*maps.values(), *others.values()], strict=True):
        cells = list(of_map.groupby(["alpha", "beta"], dropna=False))
        shape = (len(alphas), len(betas)) if panel.name in maps else (1, 1)
        grid = np.full(shape, np.nan)
        for (alpha, beta), of_cell in cells:
            place = (alphas.index(alpha), betas.index(beta)) if panel.name in maps else (0, 0)
            grid[place] = mean_of_runs(of_cell, "value")["mean"]
            _write(panel.axes, place, of_cell, _COLORS((grid[place] - least) / (100 - least))[:3])
        panel.axes.imshow(grid, cmap=_COLORS, vmin=least, vmax=100, aspect="auto")
        panel.axes.grid(False)
        panel.axes.spines[:].set_visible(False)
        panel.axes.set(xticks=[], yticks=[])
        if panel.name in maps:
            panel.axes.set_xticks(range(len(betas)), [f"beta {beta:g}" for beta in betas])
            panel.axes.set_yticks(range(len(alphas)), [f"alpha\n{alpha:g}" for alpha in alphas])
    return figure


def _write(axes: Axes, place: tuple[int, int], runs: pd.DataFrame, ground: Color) -> None:
    """The numbers of a cell, in black or white, whichever is told better from its color."""
    color = max(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), key=lambda text: contrast(text, ground))
    mean = mean_of_runs(runs, "value")["mean"]
    low, high = runs["value"].min(), runs["value"].max()
    spread = f" ({low:.0f}–{high:.0f})" if len(runs) > 1 else ""
    text = f"{mean:.0f} %{spread}\n{runs['human_labels'].mean():.0f} labels"
    axes.text(place[1], place[0], text, color=color, fontsize=LABEL_SIZE, ha="center", va="center", linespacing=1.3)
