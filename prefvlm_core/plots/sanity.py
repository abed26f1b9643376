"""Figures of the sanity check: the VLM's reward along trajectories, and its labels before and after adaptation."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core import __version__
from prefvlm_core.analysis.sanity import HUMAN_LABELS, RewardCurve
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots.labels import ACCURACIES
from prefvlm_core.plots.style import (
    FOOTER_SIZE,
    LABEL_SIZE,
    LINE_HEIGHT,
    REFERENCE_COLOR,
    STYLE,
    WIDTHS,
    X_TITLES,
    CurveEnd,
    label_curve_ends,
    make_panels,
    method_color,
    task_title,
    text_width,
)
from prefvlm_core.vlm.pretraining.recordings import FRAME_EVERY
from prefvlm_core.vlm.texts import task_text

VLM_COLOR, TRUE_COLOR = method_color("vlm-reward"), method_color("sac")  # the methods that learn from these rewards
STRIP_FRAMES = 6
MODEL_TITLES = {"random": "untrained network"}


def rewards_along_trajectories(curves: Sequence[RewardCurve], profile: str) -> Figure:
    """One row per task, one column per behaviour: VLM reward and true reward against step, above what the camera saw.

    Both rewards are scaled to 0..1 between their extremes over the row's episodes. Dotted line: first success. Each
    frame is the one at the step under its middle. `curves`: the same behaviours for each task, as they come from
    `sanity.reward_curves`. Raises PrefVLMError without curves, or where a task's rewards are all equal.
    """
    if not curves:
        raise PrefVLMError("There are no reward curves to draw; give those of at least one task.")
    rows = {task: [curve for curve in curves if curve.task == task] for task in dict.fromkeys(c.task for c in curves)}
    footer = _footer(
        profile,
        list(rows),
        "one episode each, from the same initial state",
        "both rewards scaled between their extremes in the row",
        "VLM reward: cosine of text and frame",
        "dotted: first success",
        "each frame is that of the step under its middle",
    )
    width, left, gap, height, title_height = WIDTHS["wide"], 0.42, 0.1, 0.75, 0.2  # inches
    right = text_width(("VLM reward", "true reward")) + 0.16
    columns = max(map(len, rows.values()))
    panel = (width - left - right - (columns - 1) * gap) / columns
    strip = panel / STRIP_FRAMES
    row_height = title_height + height + strip + 0.22
    text = textwrap.fill(footer, int(width * 72 / (0.54 * FOOTER_SIZE)))
    total = 0.2 + len(rows) * row_height + 0.2 + (text.count("\n") + 1) * 1.2 * FOOTER_SIZE / 72
    with matplotlib.style.context(["default", STYLE]):
        figure = plt.figure(figsize=(width, total))
        plt.close(figure)  # as in `make_panels`: notebooks show it once
        figure.text(0.03 / width, 0.03 / total, text, fontsize=FOOTER_SIZE, color="#666666", va="bottom")
        for row, (task, episodes) in enumerate(rows.items()):
            top = total - 0.2 - row * row_height
            title = f"{task_title(task)}: “{task_text(task)}”"
            figure.text(left / width, (top - 0.03) / total, title, va="top", fontweight="bold")
            scaled = zip(
                _between_extremes([episode.vlm_rewards for episode in episodes]),
                _between_extremes([episode.true_rewards for episode in episodes]),
                strict=True,
            )
            for column, (episode, (vlm, true)) in enumerate(zip(episodes, scaled, strict=True)):
                x, y = left + column * (panel + gap), top - title_height - height
                axes = figure.add_axes((x / width, y / total, panel / width, height / total))
                frames = figure.add_axes((x / width, (y - strip) / total, panel / width, strip / total), sharex=axes)
                if row == 0:
                    figure.text((x + panel / 2) / width, 1 - 0.05 / total, episode.behavior, ha="center", va="top")
                ends = _draw_rewards(axes, vlm, true, episode.first_success)
                _draw_strip(frames, episode)
                axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1") if column == 0 else ("", "", ""))
                axes.set_ylabel("reward, scaled" if column == 0 else "")
                frames.set_xlabel(X_TITLES["step"] if row == len(rows) - 1 else "")
                if column == columns - 1:
                    label_curve_ends(axes, ends)
    return figure


def label_accuracy_before_and_after(table: pd.DataFrame, profile: str, labels: int = HUMAN_LABELS) -> Figure:
    """One panel per model, one line per task: accuracy of its labels zero-shot and after `labels` human labels.

    `table` is a `sanity.accuracy_table`. Dashed: chance. Raises PrefVLMError for missing columns.
    """
    (_, before, _), (_, after, _) = ACCURACIES["vlm_accuracy"], ACCURACIES["adapted_vlm_accuracy"]
    marks = {"zero_shot": ("zero-shot", "o", before), "adapted": (f"{labels} human labels", "D", after)}
    needed = {"model", "task", "draws"} | {f"{mark}{bound}" for mark in marks for bound in ("", "_low", "_high")}
    if missing := needed - set(table):
        raise PrefVLMError(
            f"The accuracies lack the columns {sorted(missing)}; use the table of sanity.accuracy_table."
        )
    tasks, models = list(table["task"].unique()), list(table["model"].unique())
    footer = _footer(
        profile,
        [task for task in tasks if task != ALL_TASKS],
        f"{table['draws'].min()} draws of trajectories, pairs and adapters per task",
        "mark: mean",
        "bar: 95 % Student t interval over draws",
        "dashed: chance",
    )
    names = [task_title(task) for task in tasks]
    spaces = (text_width(names) + 0.08, 0.1, text_width(name for name, _, _ in marks.values()) + 0.14)
    titles = [MODEL_TITLES.get(model, model) for model in models]
    with matplotlib.style.context(["default", STYLE]):
        figure, grid, across = make_panels(titles, WIDTHS["wide"], len(tasks) * 2.8 * LINE_HEIGHT, spaces, footer)
        for index, (axes, model) in enumerate(zip(grid, models, strict=True)):
            axes.axvline(50, color=REFERENCE_COLOR, lw=0.6, linestyle=(0, (3, 2)))
            for offset, (column, (name, marker, color)) in zip((-0.2, 0.2), marks.items(), strict=True):
                for row in table[table["model"] == model].to_dict("records"):
                    line = tasks.index(row["task"]) + offset
                    low, mean, high = (100 * row[f"{column}{bound}"] for bound in ("_low", "", "_high"))
                    axes.plot([low, high], [line, line], color=color, alpha=0.45, lw=2.5, solid_capstyle="butt")
                    axes.plot(mean, line, marker, color=color, markersize=3.5)
                dark = tuple(0.8 * part for part in to_rgb(color))  # thin strokes look paler than marks
                axes.text(102, offset, name, color=dark, fontsize=LABEL_SIZE, va="center")
            axes.set(xlim=(0, 100), xticks=range(0, 101, 25), ylim=(len(tasks) - 0.4, -0.6))
            axes.set_yticks(range(len(tasks)), names if index % across == 0 else [""] * len(tasks))
            axes.set_xlabel("labels that are right (%)")
    return figure


def _between_extremes(rewards: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rewards (F,) of several episodes, so that 0 and 1 are the least and the most that any of them has."""
    lowest, highest = np.min(rewards), np.max(rewards)
    if highest == lowest:
        raise PrefVLMError(f"All rewards are {lowest:g}, so there is no scale to draw them on.")
    return [(each - lowest) / (highest - lowest) for each in rewards]


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
    frames[:, :, -1] = 255  # a white line between neighbours
    axes.imshow(np.concatenate(frames, axis=1), extent=(low, high, 0, 1), aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(yticks=(), xticks=np.linspace(low, high, 5)[1:-1])


def _footer(profile: str, tasks: Sequence[str], *parts: str) -> str:
    named = ", ".join(map(task_title, tasks))
    return " · ".join([f"profile {profile}", named, *parts, f"prefvlm\N{NO-BREAK SPACE}{__version__}"])
