"""Figures of what the filter makes of the VLM's labels: its partitions, and the divergences that it judges by.

Evaluations are those of `plots.curves`, with the columns of runs whose VLM labels; label rows are those of
`analysis.label_quality`.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis import stats
from prefvlm_core.analysis.label_quality import check_columns, decided_vlm_labels, error_rates
from prefvlm_core.plots.layout import (
    CurveEnd,
    Key,
    count_from_zero,
    grid,
    label_curve_ends,
    make_footer,
    make_panels,
    task_title,
    text_width,
    wrapped,
)
from prefvlm_core.plots.style import (
    LABEL_SIZE,
    LINE_HEIGHT,
    PARTITION_COLORS,
    X_TITLES,
    curve_styles,
    project_style,
    text_color,
)

_RIGHT, _WRONG = "#B4BCC6", "#222222"
_LARGEST_DIVERGENCE = 14.0  # nats; the filter's divergences end at -ln 1e-6 = 13.8
_PANEL_HEIGHT = 0.9  # inches
_ORDER = ("clean", "uncertain", "flipped")  # by divergence


@project_style
def partitions(data: pd.DataFrame) -> Figure:
    """One panel per task and arm: clean, uncertain and flipped share of the VLM's labels against environment steps.

    Stacked areas, mean over seeds; numbers: shares at the end. `data` needs the columns of `stats.EVALUATION_COLUMNS`
    and `<partition>_fraction` (0..1, nan before the first selective session). Arms whose filter keeps every label, or
    that have none, are left out. Raises PrefVLMError for malformed data, or when no arm has a share to show.
    """
    columns = [f"{partition}_fraction" for partition in _ORDER]
    stats.check_evaluations(data)
    check_columns(data, set(columns), "evaluations", "experiments.plan.evaluations")
    values = data.dropna(subset=columns)
    sorting = values[["clean_fraction"]].lt(1).groupby([values["task"], values["arm"]]).transform("any")
    values = values[sorting["clean_fraction"]]
    check_columns(values, set(), "evaluations of runs whose filter sorts", "experiments.plan.evaluations")
    groups = {
        f"{task_title(task)}\n{wrapped(arm)}": rows
        for arm in curve_styles(values)
        for task, rows in values[values["arm"] == arm].groupby("task")
    }
    seeds = values.groupby(["task", "arm"])["seed"].nunique()
    shown = "areas: mean over seeds; numbers: at the end"
    tasks = sorted(set(values["task"]))
    footer = make_footer(values["profile"], tasks, seeds, shown, "")
    key = [Key(name, PARTITION_COLORS[name], "s") for name in _ORDER]
    rows = grid(list(groups), 2, _PANEL_HEIGHT, 0.36, text_width(["100 %"]) + 0.14)
    figure, panels = make_panels(rows, footer, left=0.02, key=key)
    for panel in panels:
        count_from_zero(panel.axes, 2)
        panel.set_axis_titles(X_TITLES["step"], "VLM's labels (%)")
        _draw_shares(panel.axes, 100 * groups[panel.name].groupby("step")[columns].mean())
    return figure


def _draw_shares(axes: Axes, shares: pd.DataFrame) -> None:
    """Stack the shares (percent, one column per partition) over their index, the step."""
    axes.stackplot(shares.index, shares.T, colors=[PARTITION_COLORS[name] for name in _ORDER], alpha=0.75, lw=0)
    last = shares.iloc[-1].to_numpy()
    middles = np.cumsum(last) - last / 2
    axes.set(ylim=(0, 100), yticks=range(0, 101, 50), xlim=(0, shares.index[-1]))
    ends = [
        CurveEnd(f"{share:.0f} %", to_rgb(PARTITION_COLORS[name]), np.inf, middle)
        for name, share, middle in zip(_ORDER, last, middles, strict=True)
        if shares[f"{name}_fraction"].any()
    ]
    label_curve_ends(axes, ends)


@project_style
def divergences(labels: pd.DataFrame, data: pd.DataFrame) -> Figure:
    """One panel per arm: how far right and wrong labels of the VLM diverge from the reward ensemble's opinion.

    Histograms of the divergence (nats) over the labels of all tasks, seeds and sessions, pairs of equal true return
    left out. Counts are on a logarithmic scale, which also shows the few labels that diverge most: where wrong ones
    outnumber right ones, a flip is for the better. Vertical lines: medians over evaluations of the thresholds
    `tau_lower` and `tau_upper` in `data`, where there are such columns, and the median is above 0 and within reach.
    Written beside: each partition's error rate, flipped labels after the flip, and its number of labels.

    `labels` has the columns `label_quality.LABEL_COLUMNS`, `data` is the evaluations of the same runs. Raises
    PrefVLMError for missing columns, or when the VLM gave no label that can be judged.
    """
    rows = decided_vlm_labels(labels)
    styles, tasks = curve_styles(rows), sorted(set(rows["task"]))
    rates = error_rates(labels).set_index("arm")
    legends = [_legend(rates.loc[arm]) for arm in styles]
    thresholds = [_median_thresholds(data[data["arm"] == arm]) for arm in styles]
    end = 1.03 * max([rows["divergence"].max(), *(tau for lines in thresholds for tau in lines.values())])
    seeds = rows.groupby(["task", "arm"])["seed"].nunique()
    shown = (
        "labels of all sessions; dashed: median thresholds, kept below the first, flipped above the second; "
        "flipped labels are judged after the flip"
    )
    if not all(thresholds):
        shown += "; no dashed line: in most evaluations the threshold is 0 or beyond every divergence"
    footer = make_footer(rows["profile"], tasks, seeds, shown, "")
    room = text_width(text for legend in legends for text in legend) + 0.1
    figure, panels = make_panels(grid(list(styles), 1, _PANEL_HEIGHT, 0.4, room), footer, left=0.02)
    for panel, arm, lines, legend in zip(panels, styles, thresholds, legends, strict=True):
        draw_histograms(panel.axes, rows[rows["arm"] == arm], np.linspace(0, end, 31).tolist())
        for name, tau in lines.items():
            panel.axes.axvline(tau, color=PARTITION_COLORS[name], lw=1.0, linestyle=(0, (3, 1.5)))
        panel.axes.set_xlim(0, end)
        panel.set_axis_titles("divergence (nats)", "VLM labels")
        for line, (text, color) in enumerate(legend.items()):
            y = 1 - line * 1.3 * LINE_HEIGHT / _PANEL_HEIGHT
            style: dict[str, Any] = {"color": text_color(color), "va": "top", "fontsize": LABEL_SIZE}
            panel.axes.text(1.02, y, text, transform=panel.axes.transAxes, **style)
    return figure


def draw_histograms(axes: Axes, rows: pd.DataFrame, bins: list[float]) -> None:
    """Counts of right labels as areas, of wrong ones as an outline."""
    right, wrong = (rows.loc[rows["error"] == error, "divergence"] for error in (0, 1))
    if len(right):  # matplotlib warns of a logarithmic axis without data
        axes.hist(right, bins, color=_RIGHT, log=True)
    if len(wrong):
        axes.hist(wrong, bins, color=_WRONG, histtype="step", lw=1.0, log=True)
    axes.set_ylim(bottom=0.7)


def _median_thresholds(rows: pd.DataFrame) -> dict[str, float]:
    """Partition -> the threshold (nats) at which it begins or ends, where a divergence can lie on both sides."""
    medians = {
        partition: rows[column].median()
        for partition, column in (("clean", "tau_lower"), ("flipped", "tau_upper"))
        if column in rows
    }
    return {partition: tau for partition, tau in medians.items() if 0 < tau < _LARGEST_DIVERGENCE}


def _legend(rates: pd.Series) -> dict[str, str]:
    """Text -> color: the histograms, then each partition's error rate."""
    legend = {"right": _RIGHT, "wrong": _WRONG}
    for partition, color in PARTITION_COLORS.items():
        count = int(rates[f"{partition}_labels"])
        error = f"{100 * rates[f'{partition}_error']:.0f} % wrong of {count:,}" if count else "none"
        legend[f"{partition}: {error}"] = color
    return legend
