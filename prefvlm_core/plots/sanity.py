"""Figures of the sanity check: the VLM's reward along trajectories, and its labels before and after adaptation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.sanity import HUMAN_LABELS, RewardCurve
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.labels import ACCURACIES
from prefvlm_core.plots.style import (
    LABEL_SIZE,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    WIDTHS,
    X_TITLES,
    CurveEnd,
    Spaces,
    darker,
    footer_line,
    label_curve_ends,
    make_panels,
    method_color,
    project_style,
    task_title,
    task_titles,
    text_width,
)
from prefvlm_core.vlm.pretraining.recordings import FRAME_EVERY
from prefvlm_core.vlm.texts import task_text

VLM_COLOR, TRUE_COLOR = method_color("vlm-reward"), method_color("sac")  # the methods that learn from these rewards
STRIP_FRAMES = 6
MODEL_TITLES = {"random": "untrained network"}


@project_style
def rewards_along_trajectories(curves: Sequence[RewardCurve], profile: str) -> Figure:
    """One row per task, one column per behaviour: VLM reward and true reward against step, above what the camera saw.

    Both rewards are scaled to 0..1 between their extremes over the row's episodes. Dotted line: first success. Each
    frame is the one at the step under its middle. `curves`: the same behaviours for each task, as they come from
    `sanity.reward_curves`. Raises PrefVLMError without curves, or where a task's rewards are all equal.
    """
    if not curves:
        raise PrefVLMError("There are no reward curves to draw; give those of at least one task.")
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    footer = footer_line(
        f"profile {profile}",
        task_titles(tasks),
        "one episode each, from the same initial state",
        "both rewards scaled between their extremes in the row",
        "VLM reward: cosine of text and frame",
        "dotted: first success",
        "each frame is that of the step under its middle",
    )
    left, gap, right = 0.32, 0.1, text_width(("VLM reward", "true reward")) + 0.16
    columns = len(curves) // len(tasks)
    strip = ((WIDTHS["wide"] - left - right) / columns - gap) / STRIP_FRAMES
    spaces = Spaces(before=gap, left=left, right=right, above=0.2, below=strip, bottom=0.2)
    figure, panels = make_panels([""] * len(curves), "wide", 0.75, spaces, footer, columns)
    vlm, true = (_scaled_by_task(curves, name) for name in ("vlm_rewards", "true_rewards"))
    for index, (panel, episode) in enumerate(zip(panels, curves, strict=True)):
        box, inch = panel.axes.get_position(), 1 / figure.get_figheight()
        frames = figure.add_axes((box.x0, box.y0 - strip * inch, box.width, strip * inch), sharex=panel.axes)
        if panel.leftmost:
            title = f"{task_title(episode.task)}: “{task_text(episode.task)}”"
            figure.text(box.x0, box.y1 + 0.17 * inch, title, va="top", fontweight="bold")
        if index < columns:
            figure.text((box.x0 + box.x1) / 2, 1 - 0.05 * inch, episode.behavior, ha="center", va="top")
        ends = _draw_rewards(panel.axes, vlm[index], true[index], episode.first_success)
        _draw_strip(frames, episode)
        panel.axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1") if panel.leftmost else ("", "", ""))
        panel.axes.set_ylabel("reward, scaled" if panel.leftmost else "")
        frames.set_xlabel(X_TITLES["step"] if panel.lowest else "")
        if index % columns == columns - 1:
            label_curve_ends(panel.axes, ends)
    return figure


@project_style
def label_accuracy_before_and_after(table: pd.DataFrame, profile: str, labels: int = HUMAN_LABELS) -> Figure:
    """One panel per model, one line per task: accuracy of its labels zero-shot and after `labels` human labels.

    `table` is a `sanity.accuracy_table`. Dashed: chance. Raises PrefVLMError for missing columns.
    """
    (_, before, _), (_, after, _) = ACCURACIES["vlm_accuracy"], ACCURACIES["adapted_vlm_accuracy"]
    marks = {"zero_shot": ("zero-shot", "o", before), "adapted": (f"{labels} human labels", "D", after)}
    needed = {"model", "task", "draws"} | {f"{mark}{bound}" for mark in marks for bound in ("", "_low", "_high")}
    check_columns(table, needed, "table of accuracies", "sanity.accuracy_table")
    tasks, models = list(table["task"].unique()), list(table["model"].unique())
    footer = footer_line(
        f"profile {profile}",
        task_titles([task for task in tasks if task != ALL_TASKS]),
        f"{table['draws'].min()} draws of trajectories, pairs and adapters per task",
        "mark: mean",
        "bar: 95 % Student t interval over draws",
        "dashed: chance",
    )
    names = [task_title(task) for task in tasks]
    after_panel = text_width(name for name, _, _ in marks.values()) + 0.14
    spaces = Spaces(before=0.1, after=after_panel, left=text_width(names) + 0.08)
    titles = [MODEL_TITLES.get(model, model) for model in models]
    figure, panels = make_panels(titles, "wide", len(tasks) * 2.8 * LINE_HEIGHT, spaces, footer)
    for panel, model in zip(panels, models, strict=True):
        panel.axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for offset, (column, (name, marker, color)) in zip((-0.2, 0.2), marks.items(), strict=True):
            for row in table[table["model"] == model].to_dict("records"):
                line = tasks.index(row["task"]) + offset
                low, mean, high = (100 * row[f"{column}{bound}"] for bound in ("_low", "", "_high"))
                panel.axes.plot([low, high], [line, line], color=color, alpha=0.45, lw=2.5, solid_capstyle="butt")
                panel.axes.plot(mean, line, marker, color=color, markersize=3.5)
            panel.axes.text(102, offset, name, color=darker(to_rgb(color)), fontsize=LABEL_SIZE, va="center")
        panel.axes.set(xlim=(0, 100), xticks=range(0, 101, 25), ylim=(len(tasks) - 0.4, -0.6))
        panel.name_rows(names)
        panel.axes.set_xlabel("labels that are right (%)")
    return figure


def _scaled_by_task(curves: Sequence[RewardCurve], name: str) -> list[np.ndarray]:
    """Each episode's rewards (F,), scaled so that 0 and 1 are the least and the most in all episodes of its task."""
    scaled = []
    for curve in curves:
        of_task = [getattr(other, name) for other in curves if other.task == curve.task]
        lowest, highest = np.min(of_task), np.max(of_task)
        if highest == lowest:
            raise PrefVLMError(f"All rewards of {curve.task} are {lowest:g}, so there is no scale to draw them on.")
        scaled.append((getattr(curve, name) - lowest) / (highest - lowest))
    return scaled


def _draw_rewards(axes: Axes, vlm: np.ndarray, true: np.ndarray, first_success: int | None) -> list[CurveEnd]:
    steps = FRAME_EVERY * np.arange(1, len(vlm) + 1)
    ends = []
    for name, values, color, thickness in (
        ("true reward", true, TRUE_COLOR, 0.8),
        ("VLM reward", vlm, VLM_COLOR, 1.5),
    ):
        axes.plot(steps, values, color=color, lw=thickness, clip_on=False)
        ends.append(CurveEnd(name, to_rgb(color), steps[-1], values[-1]))
    if first_success is not None:
        axes.axvline(first_success, color=TRUE_COLOR, lw=0.8, linestyle=":")
    axes.set(xlim=(0, steps[-1]), ylim=(-0.05, 1))
    axes.tick_params(bottom=False, labelbottom=False)
    return ends


def _draw_strip(axes: Axes, episode: RewardCurve) -> None:
    count, (low, high) = len(episode.frames), axes.get_xlim()
    middles = ((np.arange(STRIP_FRAMES) + 0.5) * count / STRIP_FRAMES - 1).round().astype(int)
    frames = episode.frames[middles].copy()
    frames[:, :, -1] = 255  # a white line between two frames
    axes.imshow(np.concatenate(frames, axis=1), extent=(low, high, 0, 1), aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(yticks=(), xticks=np.linspace(low, high, 5)[1:-1])
