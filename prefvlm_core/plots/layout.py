"""Where things stand on a figure's page: the grid of panels, names at line ends, the key, the footer."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

from prefvlm_core import __version__
from prefvlm_core.analysis.means import FEWEST_SEEDS, FEWEST_TASKS
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.domains.registry import DOMAINS
from prefvlm_core.plots.style import (
    FOOTER_SIZE,
    LABEL_SIZE,
    LINE_HEIGHT,
    MOST_DOTS,
    PAGE,
    TITLE_SIZE,
    Color,
    text_color,
)

_MARGIN = 0.03
"""Inches that text keeps from the page's edges."""


class CurveEnd(NamedTuple):
    """Where a drawn curve ends, in data coordinates (x = inf: at the panel's edge), and how it is to be labeled."""

    name: str
    color: Color
    x: float
    y: float


class Key(NamedTuple):
    """A mark that the line above the panels names."""

    name: str
    color: str | Color
    marker: str = "o"


class Row(NamedTuple):
    """Panels that stand side by side."""

    names: Sequence[str]
    height: float
    """Of its panels, in inches."""
    before: float = 0.0
    """Inches left of each panel for what stands there."""
    after: float = 0.0
    """Inches right of each panel."""
    columns: int = 0
    """Into which the width is divided; 0: as many as there are panels."""
    below: float = 0.2
    """Inches below the panels, for their ticks."""


class Panel(NamedTuple):
    """One panel of a figure and its place in the grid."""

    axes: Axes
    name: str
    leftmost: bool
    lowest: bool
    """No panel is below it."""

    def set_axis_titles(self, x: str, y: str) -> None:
        """Write the titles of the axes at the left and lower edges of the grid only."""
        self.axes.set_xlabel(x if self.lowest else "")
        self.axes.set_ylabel(y if self.leftmost else "")

    def name_rows(self, names: Sequence[str]) -> None:
        """Name the heights 0, 1, … at the left edge of the grid; elsewhere they only get ticks."""
        self.axes.set_yticks(range(len(names)), names if self.leftmost else [""] * len(names))
        self.axes.set_ylim(len(names) - 0.4, -0.6)


def grid(names: Sequence[str], columns: int, height: float, before: float = 0.0, after: float = 0.0) -> list[Row]:
    """Rows of `columns` panels each; the last one may have fewer."""
    starts = range(0, len(names), columns)
    return [Row(names[start : start + columns], height, before, after, columns) for start in starts]


def make_panels(
    rows: Sequence[Row],
    footer: str,
    *,
    left: float = 0.0,
    right: float = 0.0,
    bottom: float = 0.22,
    key: Sequence[Key] = (),
) -> tuple[Figure, list[Panel]]:
    """Figure with a key, its panels, each titled with its name, and a footer.

    `left`, `right`: inches beside all panels; `bottom`: above the footer. A name may have several lines. To be called
    in a function with `project_style`.
    """
    text = textwrap.fill(footer, int(PAGE * 72 / (0.55 * FOOTER_SIZE)))
    titles = [max(name.count("\n") + 1 if name else 0 for name in row.names) * 1.2 * TITLE_SIZE / 72 for row in rows]
    lines = _lines_of_key(key)
    above = len(lines) * 1.3 * LINE_HEIGHT + (0.05 if key else 0.0)
    grid_height = sum(title + 0.08 + row.height + row.below for title, row in zip(titles, rows, strict=True))
    total = above + grid_height + bottom + (text.count("\n") + 1) * 1.2 * FOOTER_SIZE / 72 + _MARGIN
    # Made by pyplot, so that notebooks can show it, and closed there, so that they do so once.
    figure = plt.figure(figsize=(PAGE, total))
    plt.close(figure)
    style: dict[str, Any] = {"fontsize": FOOTER_SIZE, "color": "#555555", "va": "bottom"}
    figure.text(_MARGIN / PAGE, _MARGIN / total, text, **style)
    _draw_key(figure, lines)
    panels, top = [], total - above
    for index, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top -= title + 0.08 + row.height
        column_width = (PAGE - left - right) / (row.columns or len(row.names))
        for column, name in enumerate(row.names):
            x, width = left + column * column_width + row.before, column_width - row.before - row.after
            place = (x / PAGE, top / total, width / PAGE, row.height / total)
            lowest = index == len(rows) - 1 or column >= len(rows[index + 1].names)
            panels.append(Panel(figure.add_axes(place, title=task_title(name)), name, column == 0, lowest))
        top -= row.below
    return figure, panels


def _lines_of_key(key: Sequence[Key]) -> list[list[tuple[float, Key]]]:
    """The key's entries with their distance (inches) from the left edge, as many on a line as fit."""
    lines: list[list[tuple[float, Key]]] = []
    x = PAGE
    for entry in key:
        width = text_width([entry.name]) + 0.24
        if x + width > PAGE + 0.12:
            lines.append([])
            x = 0.08
        lines[-1].append((x, entry))
        x += width
    return lines


def _draw_key(figure: Figure, lines: Sequence[Sequence[tuple[float, Key]]]) -> None:
    height = figure.get_figheight()
    for index, line in enumerate(lines):
        y = 1 - (0.03 + (1.3 * index + 0.5) * LINE_HEIGHT) / height
        for x, entry in line:
            mark = Line2D([x / PAGE], [y], marker=entry.marker, color=entry.color, markersize=4, lw=0)
            figure.add_artist(mark)
            style: dict[str, Any] = {"color": text_color(entry.color), "fontsize": LABEL_SIZE, "va": "center"}
            figure.text((x + 0.07) / PAGE, y, entry.name, **style)


def panels_of_tasks(tasks: Iterable[str], height: float, names: Iterable[str] = ()) -> list[Row]:
    """A panel per task with room for `names` at its right, side by side without names; of three tasks or more small
    ones below a panel of all of them."""
    shown, labels = sorted(set(tasks)), [wrapped(name) for name in names]
    after = text_width(labels) + 0.16 if labels else 0.06
    if len(shown) < FEWEST_TASKS:
        return grid(shown, 1 if labels else len(shown), height, 0.38, after)
    return [Row([ALL_TASKS], height, 0.38, after), *grid(shown, 2, 0.6 * height, 0.38, 0.06)]


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> np.ndarray:
    """Centers (labels,) of labels with these heights, closest to `wanted` (least squares) without overlap.

    They keep the order of `wanted` and lie in [low, high], above which labels reach that do not fit into it.
    """
    order = np.argsort(wanted, kind="stable")
    height = np.asarray(heights, dtype=np.float64)[order]
    offset = np.cumsum(height) - height / 2  # centers of the labels stacked from 0
    # No overlap means: center minus stacked offset never falls. The closest such sequence is an isotonic regression.
    base = isotonic_regression(np.asarray(wanted, dtype=np.float64)[order] - offset).x
    centers = np.empty(len(order))
    centers[order] = np.clip(base, low, max(low, high - height.sum())) + offset
    return centers


def label_curve_ends(axes: Axes, ends: Sequence[CurveEnd]) -> None:
    """Write each curve's name right of the panel, joined to the curve's end by a hairline."""
    panel = axes.get_window_extent().transformed(axes.get_figure().dpi_scale_trans.inverted())  # type: ignore[union-attr]
    (low, high), right = axes.get_ylim(), axes.get_xlim()[1]
    line = LINE_HEIGHT * (high - low) / panel.height
    texts = [wrapped(end.name) for end in ends]
    centers = spread([end.y for end in ends], [line * (text.count("\n") + 1) for text in texts], low, high)
    for text, end, center in zip(texts, ends, centers, strict=True):
        axes.annotate(
            text,
            (min(end.x, right), end.y),
            (1 + 0.1 / panel.width, center),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=text_color(end.color),
            fontsize=LABEL_SIZE,
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.color,
                "lw": 0.4,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def make_footer(profiles: Iterable[str], tasks: Sequence[str], seeds: pd.Series, shown: str, interval: str) -> str:
    """What a figure shows, in a line; `interval` names the mark of the bootstrap interval, "" for none."""
    fewest, most = int(seeds.min()), int(seeds.max())
    parts = [
        f"profile {', '.join(_profile_title(profile, tasks) for profile in sorted(set(profiles)))}",
        task_titles(tasks),
        f"{fewest if fewest == most else f'{fewest}–{most}'} {'seed' if most == 1 else 'seeds'}",
        shown,
        f"{interval}: 95 % stratified bootstrap interval of the mean" if interval and most >= FEWEST_SEEDS else "",
        f"none with fewer than {FEWEST_SEEDS} seeds" if interval and fewest < FEWEST_SEEDS <= most else "",
        f"fewer than {FEWEST_SEEDS} seeds, no interval" if interval and 1 < most < FEWEST_SEEDS else "",
        "mechanism, one seed: no evidence of success" if most == 1 else "",
    ]
    return footer_line(*parts)


def shows_runs(seeds: pd.Series) -> bool:
    """Whether the runs are few enough to be drawn one by one."""
    return int(seeds.min()) < MOST_DOTS


def footer_line(*parts: str) -> str:
    """What a figure shows, in a line: the parts that are not empty, and the version that drew it."""
    return " · ".join([*filter(None, parts), f"prefvlm\N{NO-BREAK SPACE}{__version__}"])


def task_titles(tasks: Sequence[str]) -> str:
    """The tasks as a footer names them."""
    return ", ".join(map(task_title, tasks))


def _profile_title(profile: str, tasks: Sequence[str]) -> str:
    """The profile, and for how many steps it holds each action in the tasks' domains, which may differ in that."""
    domains = [domain for domain in DOMAINS.values() if not domain.tasks.keys().isdisjoint(tasks)]
    fields = [PROFILES.get(profile, {}) | dict(domain.profiles.get(profile, {})) for domain in domains]
    repeats = sorted({changed.get("action_repeat", 1) for changed in fields})
    return profile if repeats in ([], [1]) else f"{profile} (each action held {' or '.join(map(str, repeats))} steps)"


def count_from_zero(axes: Axes, most_ticks: int) -> None:
    """Let x, a count, start at 0, and write its ticks short, as 5 k."""
    axes.xaxis.set_major_locator(MaxNLocator(most_ticks, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_xlim(left=0)


def show_percent(axes: Axes) -> None:
    """Let y run from 0 to 100 %, with room for marks at both ends."""
    axes.set(ylim=(-3, 103), yticks=range(0, 101, 25))


def thousands(value: float, _position: int) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"


def task_title(task: str) -> str:
    return task.removesuffix("-v3")


def wrapped(name: str) -> str:
    """`name` on lines of at most 22 characters, broken before a parenthesis where there is one."""
    parts = name.replace(" (", "\n(").split("\n") if len(name) > 22 else [name]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 22))


def interval_below(words: str) -> str:
    """An estimate as `analysis.wording` writes it, with the interval on a line of its own."""
    return words.replace(" (", "\n(")


def text_width(texts: Iterable[str]) -> float:
    """Width in inches of the widest line among `texts`, written as labels are."""
    font = FontProperties(family="DejaVu Sans")
    lines = [line for text in texts for line in text.split("\n")]
    return max(TextPath((0, 0), line, size=LABEL_SIZE, prop=font).get_extents().width for line in lines) / 72
