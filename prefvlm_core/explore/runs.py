"""Learning curves of an experiment, as one asks for them: tasks, arms, measure, x-axis, smoothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.experiments.batch import experiments_with_runs
from prefvlm_core.experiments.opened import open_experiment
from prefvlm_core.explore.choosing import results_folder
from prefvlm_core.explore.picture import Explorer, Picture, drop_down, row, sentence_html
from prefvlm_core.plots.curves import runs_by_x
from prefvlm_core.plots.layout import CurveEnd, count_from_zero, label_curve_ends, show_percent, task_title
from prefvlm_core.plots.rows import ACCURACIES
from prefvlm_core.plots.style import X_TITLES, Y_TITLES, CurveStyle, curve_styles, project_style

METRICS: Mapping[str, str] = {
    **Y_TITLES,
    **{column: f"right labels, {mark.name} (%)" for column, mark in ACCURACIES.items()},
    "uncertain_fraction": "uncertain labels of the VLM (%)",
}
"""Column of the evaluations -> title of its axis."""
SHOWN_AT_FIRST = 5
"""Arms."""


def curve(evaluations: pandas.DataFrame, x: str, metric: str) -> pandas.DataFrame:
    """A metric of one arm's runs: one column per run (task, seed), index the values of `x` that all runs share.

    Fractions are in percent. Runs without any value of the metric are left out. Against human_labels as in
    `plots.curves.runs_by_x`. Raises `PrefVLMError` where the runs share no value of `x`.
    """
    values = evaluations.dropna(subset=[metric])
    if values.empty:
        return pandas.DataFrame()
    percent = METRICS[metric].endswith("(%)")
    return runs_by_x(values.assign(**{metric: values[metric] * (100 if percent else 1)}), x, metric)


def smoothed(runs: pandas.DataFrame, window: int) -> pandas.DataFrame:
    """Each value as the mean of itself and the `window` - 1 before it, or of as many as there are."""
    return runs.rolling(window, min_periods=1).mean()


def mean_over_tasks(runs: pandas.DataFrame) -> pandas.Series:
    """The mean over tasks of the mean over their seeds, of a `curve`."""
    return runs.T.groupby(level="task").mean().mean()


class CurvePicture:
    """One line per arm, with its name at its end."""

    def __init__(self) -> None:
        self._picture = Picture(height=3.0, right=1.5)
        self.view = self._picture.view

    @project_style
    def show(
        self, curves: Mapping[str, pandas.DataFrame], styles: Mapping[str, CurveStyle], x: str, metric: str, seeds: bool
    ) -> None:
        """Draw `curve`s by the names of their arms; with `seeds`, their single runs too."""
        axes = self._picture.axes
        axes.clear()
        steps: Any = "steps-post" if x == "human_labels" else "default"
        ends = []
        for arm, runs in curves.items():
            (color, dashes), mean = styles[arm], mean_over_tasks(runs)
            if seeds:
                axes.plot(runs.index, runs, color=color, alpha=0.35, lw=0.6, drawstyle=steps)
            unlabeled = x == "human_labels" and mean.index[-1] == 0
            if unlabeled:
                axes.axhline(mean.iloc[-1], color=color, ls=dashes, lw=1.0)
            else:
                axes.plot(mean.index, mean, color=color, ls=dashes, lw=1.6, drawstyle=steps)
                axes.plot(mean.index[-1], mean.iloc[-1], "o", color=color, ms=3, clip_on=False)
            ends.append(CurveEnd(arm, color, np.inf if unlabeled else mean.index[-1], mean.iloc[-1]))
        count_from_zero(axes, 6)
        if METRICS[metric].endswith("(%)"):
            show_percent(axes)
        axes.set_xlabel(X_TITLES[x])
        axes.set_ylabel(METRICS[metric])
        label_curve_ends(axes, ends)
        self._picture.draw()


class RunExplorer(Explorer):
    """The learning curves of the stored runs of a profile's experiments.

    Args:
        profile: Whose runs.
        results: Their folder; empty: the project's.

    Raises:
        PrefVLMError: For an unknown profile, and where no run is stored.
    """

    def __init__(self, profile: str = "laptop", results: str | Path = "") -> None:
        super().__init__()
        self._profile, self._results = profile, str(results_folder(results))
        self._picture = CurvePicture()
        names = experiments_with_runs(profile, self._results)
        self.experiment = drop_down("notebook", names, "270px")
        self.metric, self.x = drop_down("measure", [], "300px"), drop_down("against", [], "240px")
        self.x.options, self.x.value = [(title, name) for name, title in X_TITLES.items()], "step"
        self.tasks, self.arms = (ipywidgets.SelectMultiple(rows=7, layout={"width": "250px"}) for _ in range(2))
        self.arms.layout.width = "350px"
        self.window = ipywidgets.IntSlider(
            1, min=1, max=6, description="smoothing (evaluations)", style={"description_width": "160px"}
        )
        self.seeds = ipywidgets.Checkbox(False, description="single seeds", indent=False)
        self.words = ipywidgets.HTML()
        rows = [row(self.experiment, self.metric, self.x), row(self.tasks, self.arms), row(self.window, self.seeds)]
        self._arrange("runs", [*rows, self._picture.view, self.words])
        self._curve = functools.cache(self._computed)
        self._filling = False
        self.experiment.value = next((name for name in names if name.startswith("02")), names[0])
        self._open()
        self.experiment.observe(lambda _change: self._open(), "value")
        for each in (self.metric, self.x, self.tasks, self.arms, self.window, self.seeds):
            each.observe(lambda _change: self._show(), "value")

    def _open(self) -> None:
        experiment = open_experiment(self.experiment.value, self._profile, False, self._results)
        self._evaluations = data = experiment.evaluations
        self._styles = curve_styles(data)
        self._curve.cache_clear()
        tasks, methods = sorted(set(data["task"])), dict(zip(data["arm"], data["method"], strict=True))
        first = {methods[arm]: arm for arm in reversed(self._styles)}  # of each method, in the order of drawing
        self._filling = True
        self.tasks.options, self.tasks.value = list(zip(map(task_title, tasks), tasks, strict=True)), tuple(tasks)
        self.arms.options = list(self._styles)
        self.arms.value = tuple(reversed(first.values()))[:SHOWN_AT_FIRST]
        measured = [name for name in METRICS if name in data and data[name].notna().any()]
        chosen = self.metric.value
        self.metric.options = [(METRICS[name], name) for name in measured]
        self.metric.value = chosen if chosen in measured else measured[0]
        self._filling = False
        self._show()

    def _computed(self, arm: str, tasks: tuple[str, ...], x: str, metric: str) -> pandas.DataFrame | str:
        """An arm's curve, or why there is none."""
        data = self._evaluations
        rows = data[(data["arm"] == arm) & data["task"].isin(tasks)]
        if rows["task"].nunique() < len(tasks):
            return f"{arm} did not run on every chosen task"
        try:
            runs = curve(rows, x, metric)
        except PrefVLMError as error:
            return str(error)
        return f"{arm} has no such measure" if runs.empty else runs

    def _show(self) -> None:
        if self._filling:
            return
        tasks, x, metric = self.tasks.value, self.x.value, self.metric.value
        curves, said = {}, []
        for arm in self.arms.value if tasks else ():
            found = self._curve(arm, tasks, x, metric)
            if isinstance(found, str):
                said.append(found)
            else:
                curves[arm] = smoothed(found, self.window.value)
        self._picture.show(curves, self._styles, x, metric, self.seeds.value)
        counts = {len(runs.columns) for runs in curves.values()}
        runs = "–".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "no"
        line = f"Lines: mean over {'tasks of the mean over ' if len(tasks) > 1 else ''}seeds, of {runs} runs each."
        left_out = f" Left out: {'; '.join(said)}." if said else ""
        self.words.value = sentence_html(line + left_out, soft=True)
