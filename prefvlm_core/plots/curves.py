"""Learning curves: a measure of success or of learning against environment steps.

Evaluations are tidy, one per row, with the columns `stats.EVALUATION_COLUMNS`. `arm` is the name a reader sees, as
"pebble (400 labels)"; its color is that of its `method`, dashes and shade follow its rank within the method.
"""

import json
from collections.abc import Iterable, Mapping
from importlib import resources

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis import stats
from prefvlm_core.analysis.means import FEWEST_SEEDS, FEWEST_TASKS, complete, mean_over_tasks
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.plots.layout import (
    CurveEnd,
    count_from_zero,
    label_curve_ends,
    make_footer,
    make_panels,
    panels_of_tasks,
    show_percent,
)
from prefvlm_core.plots.style import (
    IN_PERCENT,
    MOST_CURVES,
    REFERENCE_COLOR,
    X_TITLES,
    Y_TITLES,
    CurveStyle,
    curve_styles,
    project_style,
)


@project_style
def learning_curves(data: pd.DataFrame, y: str = "success", reference: pd.DataFrame | None = None) -> Figure:
    """`y` against environment steps: a panel per task, or of three tasks and more a large one of all above small ones.

    Line: mean over seeds at the steps that every seed has, of all tasks the mean of the tasks' means (of arms that ran
    on each); band: its 95 % stratified bootstrap interval at each point. With fewer than five seeds there is no band,
    and the single runs of one or two tasks are dots. `y` is a key of `Y_TITLES`. `reference`, from `reference_curves`,
    is drawn dashed in gray on the tasks; it needs profile `paper` and y="success", because only then are the axes the
    same. Raises PrefVLMError for malformed data, unknown names, more than `MOST_CURVES` curves, a misplaced reference,
    or runs without a common step.
    """
    values = _values_to_draw(data, y, reference)
    tasks, styles = sorted(set(values["task"])), curve_styles(values)
    names = [*styles, *([] if reference is None else reference.groupby("task")["arm"].unique().max())]
    if len(names) > MOST_CURVES:
        raise PrefVLMError(
            f"{len(names)} curves cannot be told apart; choose at most {MOST_CURVES} of {', '.join(names)}."
        )
    seeds = values.groupby(["task", "arm"])["seed"].nunique()
    large = len(tasks) < FEWEST_TASKS
    shown = "line: mean" + ("; dots: single runs" if large and seeds.min() < FEWEST_SEEDS and seeds.max() > 1 else "")
    shown += "; dashed gray: the paper's own curves" if reference is not None else ""
    footer = make_footer(data["profile"], tasks, seeds, shown, "band")
    figure, panels = make_panels(panels_of_tasks(tasks, 1.3, names), footer, left=0.02)
    for panel in panels:
        pooled = panel.name == stats.ALL_TASKS
        rows = complete(values, "arm") if pooled else of_task(values, panel.name)
        ends = _draw_curves(panel.axes, rows, styles, y, dots=large and not pooled)
        ends += [] if reference is None else _draw_reference(panel.axes, of_task(reference, panel.name))
        count_from_zero(panel.axes, 5 if large or pooled else 3)
        if y in IN_PERCENT:
            show_percent(panel.axes)
        panel.set_axis_titles(X_TITLES["step"], Y_TITLES[y])
        if pooled or large:
            label_curve_ends(panel.axes, ends)
    return figure


def of_task(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """The rows of one task."""
    return rows[rows["task"] == task]


def reference_curves(tasks: Iterable[str]) -> pd.DataFrame:
    """The successor paper's learning curves on `tasks`: columns task, method, arm, labels, step, success (0..1).

    Our own digitization of the mean lines of ROVED (arXiv 2603.28053), accurate to 1 to 2 points of success;
    `analysis/reference_curves.json` names the sources. Raises PrefVLMError for a task that has no reference curve.
    """
    text = resources.files("prefvlm_core.analysis").joinpath("reference_curves.json").read_text(encoding="utf-8")
    curves = json.loads(text)["curves"]
    available, wanted = {entry["task"] for entry in curves}, set(tasks)
    for task in sorted(wanted - available):
        raise unknown_name("task with reference curves", task, available)
    points = pd.DataFrame([entry for entry in curves if entry["task"] in wanted]).explode(["steps", "success"])
    points = points.rename(columns={"steps": "step"}).astype({"step": np.int64, "success": np.float64})
    points.insert(2, "arm", points["method"] + " (" + points["labels"].astype(str) + " labels)")
    return points.reset_index(drop=True)


def _values_to_draw(data: pd.DataFrame, y: str, reference: pd.DataFrame | None) -> pd.DataFrame:
    """The evaluations that have a value of `y`, in percent where it is a fraction; refuses what cannot be drawn."""
    stats.check_evaluations(data)
    if y not in Y_TITLES:
        raise unknown_name("y", y, Y_TITLES)
    if reference is not None and (set(data["profile"]) != {"paper"} or y != "success"):
        raise PrefVLMError("Reference curves fit only profile 'paper' with y='success'; leave `reference` out.")
    values = data.dropna(subset=[y]) if y in data else data.iloc[:0]
    if values.empty:
        raise PrefVLMError(f"No evaluation has a value of '{y}'; choose another y of {list(Y_TITLES)}.")
    return values.assign(**{y: values[y] * (100 if y in IN_PERCENT else 1)})


def _draw_curves(
    axes: Axes, values: pd.DataFrame, styles: Mapping[str, CurveStyle], y: str, *, dots: bool
) -> list[CurveEnd]:
    """Draw the arms that `values` hold."""
    ends = []
    for arm in [arm for arm in styles if arm in set(values["arm"])]:
        color, dashes = styles[arm]
        runs = runs_by_x(values[values["arm"] == arm], "step", y)
        curve, x = mean_over_tasks(runs), runs.index.to_numpy()
        axes.fill_between(x, curve["low"], curve["high"], color=color, alpha=0.15, lw=0)
        if dots and curve["low"].isna().all() and runs.shape[1] > 1:
            axes.plot(x, runs, "o", color=color, alpha=0.35, markersize=1.6, markeredgewidth=0, clip_on=False)
        marker = "o" if len(x) == 1 else None  # a lone point has no line
        axes.plot(x, curve["mean"], color=color, linestyle=dashes, lw=1.3, marker=marker, markersize=3)
        ends.append(CurveEnd(arm, color, x[-1], curve["mean"].iloc[-1]))
    return ends


def runs_by_x(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Values of one arm: index = the values of x that all runs share, columns = (task, seed).

    Against human_labels a point is what a run reached with that many labels: its last evaluation before the next label,
    and at its last label count the mean over the last 10 % of steps, as in `stats.summary_table`.
    """
    ordered, run = rows.sort_values("step"), ["task", "seed"]
    if x == "step":
        table = ordered.pivot(index=x, columns=run, values=y).dropna()
    else:
        table = ordered.groupby([*run, x], as_index=False)[y].last().pivot(index=x, columns=run, values=y)
        for key, evaluations in ordered.groupby(run):
            table.loc[evaluations[x].iloc[-1], key] = stats.last_tenth(evaluations["step"], evaluations[y])
        table = table.ffill().dropna()
    if table.empty:
        raise PrefVLMError(f"The runs of '{rows['arm'].iloc[0]}' share no value of '{x}'; evaluate them at the same.")
    return table


def _draw_reference(axes: Axes, reference: pd.DataFrame) -> list[CurveEnd]:
    ends = []
    for arm, rows in reference.groupby("arm"):
        success = 100 * rows["success"]
        axes.plot(rows["step"], success, color=REFERENCE_COLOR, linestyle=(0, (3, 2)), lw=0.7, zorder=1.5)
        ends.append(CurveEnd(str(arm), to_rgb(REFERENCE_COLOR), rows["step"].iloc[-1], success.iloc[-1]))
    return ends
