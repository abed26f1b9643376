"""Figures of the sanity check: the VLM's reward along trajectories, and its labels before and after adaptation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefvlm_core.analysis.label_quality import check_columns
from prefvlm_core.analysis.sanity import HUMAN_LABELS, RewardCurve
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.layout import (
    Key,
    Row,
    footer_line,
    grid,
    make_panels,
    task_title,
    text_width,
    wrapped,
)
from prefvlm_core.plots.rows import ACCURACIES, draw_mark
from prefvlm_core.plots.style import (
    LABEL_SIZE,
    LINE_HEIGHT,
    PAGE,
    REFERENCE_COLOR,
    X_TITLES,
    method_color,
    project_style,
)
from prefvlm_core.vlm.pretraining.recordings import FRAME_EVERY
from prefvlm_core.vlm.texts import task_text

VLM_COLOR, TRUE_COLOR = method_color("vlm-reward"), method_color("sac")  # the methods that learn from these rewards
STRIP_FRAMES = 6
MODEL_TITLES = {"random": "untrained network"}


@project_style
def rewards_along_trajectories(curves: Sequence[RewardCurve], profile: str) -> Figure:
    """One row per task, one column per behaviour: VLM reward and true reward against step; above them what the camera
    saw on the first behavior's longest way to a success.

    Both rewards are scaled to 0..1 between their extremes over the row's episodes. Dotted line: first success.
    `curves`: the same behaviours for each task, as they come from `sanity.reward_curves`. Raises PrefVLMError without
    curves, or where a task's rewards are all equal.
    """
    if not curves:
        raise PrefVLMError("There are no reward curves to draw; give those of at least one task.")
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    columns = len(curves) // len(tasks)
    pictured = max(curves[::columns], key=lambda curve: curve.first_success or 0)
    footer = footer_line(
        f"profile {profile}",
        "one episode each, of a task from the same initial state",
        "both rewards scaled between their extremes in the row",
        "VLM reward: cosine of text and frame",
        "dotted: first success",
        f"pictures: {task_title(pictured.task)}, {pictured.behavior}",
    )
    left = text_width(map(wrapped, _texts(tasks))) + 0.12
    strip = Row([""], (PAGE - 0.06) / STRIP_FRAMES, columns=1, below=0.2)
    first = Row([episode.behavior for episode in curves[:columns]], 0.4, 0.0, 0.08, below=0.06)
    rows = [strip, first, *[first._replace(names=[""] * columns)] * (len(tasks) - 1)]
    key = [Key("VLM reward", VLM_COLOR, "_"), Key("true reward", TRUE_COLOR, "_")]
    figure, (frames, *panels) = make_panels(rows, footer, left=left, bottom=0.32, key=key)
    _draw_strip(frames.axes, pictured)
    vlm, true = (_scaled_by_task(curves, name) for name in ("vlm_rewards", "true_rewards"))
    for index, (panel, episode) in enumerate(zip(panels, curves, strict=True)):
        _draw_rewards(panel.axes, vlm[index], true[index], episode.first_success)
        panel.axes.set_xlabel(X_TITLES["step"] if panel.lowest and index % columns == columns // 2 else "")
        panel.axes.tick_params(labelbottom=panel.lowest)
        if panel.leftmost:
            _name_task(panel.axes, episode.task)
    return figure


def _texts(tasks: Sequence[str]) -> list[str]:
    """What stands beside the rows: tasks, and how the VLM is told of them."""
    return [text for task in tasks for text in (task_title(task), f"“{task_text(task)}”")]


def _name_task(axes: Axes, task: str) -> None:
    title, text = (wrapped(text) for text in _texts([task]))
    inch = 1 / axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).width
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "fontsize": LABEL_SIZE, "linespacing": 1.1}
    axes.text(-0.06 * inch, 0.95, title, va="top", fontweight="bold", **place)
    axes.text(-0.06 * inch, 0.62, text, va="top", **place)


@project_style
def label_accuracy_before_and_after(table: pd.DataFrame, profile: str, labels: int = HUMAN_LABELS) -> Figure:
    """One panel per model, one row per task: accuracy of its labels zero-shot and after `labels` human labels.

    `table` is a `sanity.accuracy_table`. Tasks are sorted by what the first model learned, all together come last.
    Dashed: chance. Raises PrefVLMError for missing columns.
    """
    (zero_shot, adapted, *_) = ACCURACIES.values()
    marks = {"zero_shot": zero_shot, "adapted": adapted._replace(name=f"after {labels} human labels")}
    needed = {"model", "task", "draws"} | {f"{mark}{bound}" for mark in marks for bound in ("", "_low", "_high")}
    check_columns(table, needed, "table of accuracies", "sanity.accuracy_table")
    models = list(table["model"].unique())
    of_first = table[table["model"] == models[0]].set_index("task")["adapted"]
    tasks = sorted(of_first.index, key=lambda task: (task == ALL_TASKS, -of_first[task]))
    footer = footer_line(
        f"profile {profile}",
        f"{table['draws'].min()} draws of trajectories, pairs and adapters per task",
        "mark: mean",
        "bar: 95 % Student t interval over draws",
        "dashed: chance",
    )
    names, titles = [task_title(task) for task in tasks], [MODEL_TITLES.get(model, model) for model in models]
    rows = grid(titles, len(models), len(tasks) * 2.2 * LINE_HEIGHT, 0.08, 0.1)
    key = [Key(mark.name, mark.color, mark.marker) for mark in marks.values()]
    figure, panels = make_panels(rows, footer, left=text_width(names) + 0.1, key=key)
    for panel, model in zip(panels, models, strict=True):
        panel.axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
        for row in table[table["model"] == model].to_dict("records"):
            for offset, (column, mark) in zip((-0.18, 0.18), marks.items(), strict=True):
                bounds = [100 * row[f"{column}{bound}"] for bound in ("_low", "", "_high")]
                draw_mark(panel.axes, tasks.index(row["task"]) + offset, bounds, mark.color, mark.marker)
        panel.axes.set(xlim=(25, 100), xticks=(25, 50, 75, 100))
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


def _draw_rewards(axes: Axes, vlm: np.ndarray, true: np.ndarray, first_success: int | None) -> None:
    steps = FRAME_EVERY * np.arange(1, len(vlm) + 1)
    axes.plot(steps, true, color=TRUE_COLOR, lw=0.8)
    axes.plot(steps, vlm, color=VLM_COLOR, lw=1.3)
    if first_success is not None:
        axes.axvline(first_success, color=TRUE_COLOR, lw=0.8, linestyle=":")
    axes.set(xlim=(0, steps[-1]), ylim=(-0.05, 1.05), yticks=(), xticks=(0, steps[-1] // 2))


def _draw_strip(axes: Axes, episode: RewardCurve) -> None:
    """The frames of the way, over the whole width of the page, with their steps."""
    box = axes.get_position()
    axes.set_position((0.03 / PAGE, box.y0, 1 - 0.06 / PAGE, box.height))
    shown = _frames_of_way(episode)
    frames = episode.frames[shown].copy()
    frames[:, :, -1] = 255  # a white line between two frames
    axes.imshow(np.concatenate(frames, axis=1), extent=(0, STRIP_FRAMES, 0, 1), aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(yticks=())
    axes.set_xticks(np.arange(STRIP_FRAMES) + 0.5, [f"step {FRAME_EVERY * (index + 1)}" for index in shown])


def _frames_of_way(episode: RewardCurve) -> np.ndarray:
    """Indices (`STRIP_FRAMES`,) of frames at equal distances, from the first to the second one after the first success,
    after which nothing new is seen; to the last one of an episode without success."""
    last = len(episode.frames) - 1
    if episode.first_success is not None:
        last = min(last, max(STRIP_FRAMES - 1, math.ceil(episode.first_success / FRAME_EVERY) + 1))
    return np.linspace(0, last, STRIP_FRAMES).round().astype(int)
