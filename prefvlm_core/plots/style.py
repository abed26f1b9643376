"""How figures look: colors of methods, line styles, the grid of panels, labels at line ends, footers, files."""

import io
import itertools
import re
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

from prefvlm_core import __version__
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import unknown_name
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.runs.files import write_atomically

# Color-blind readers too can tell the methods of one figure apart (main comparison, ablations, other baselines), which
# tests/plots measures. The order is that of the methods in figures.
METHOD_COLORS = {
    "sac": "#000000",
    "pebble": "#D55E00",
    "prefvlm": "#0072B2",
    "prefvlm-adaptive": "#332288",
    "prefvlm-plus": "#663333",
    "vlm-preference": "#33BBEE",
    "vlm-reward": "#009E73",
    "prefvlm-no-filter": "#882255",
    "prefvlm-random-selection": "#661100",
    "prefvlm-no-adaptation": "#EE6677",
    "prefvlm-no-inverse-dynamics": "#B07AA1",
    "surf": "#117733",
    "rune": "#6699CC",
    "mrn": "#AA3377",
    "rime": "#E69F00",
    "rlvlmf": "#004488",
}
FURTHER_COLORS = ("#44AA99", "#999933", "#AA4499", "#7A5195", "#9A6324", "#CC6677")
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
REFERENCE_COLOR = "#8A8A8A"
WIDTHS = {"column": 3.4, "wide": 7.0}  # inches: one column and the text width of a two-column paper
X_TITLES = {"step": "environment steps", "human_labels": "human labels used"}
Y_TITLES = {"success": "success rate (%)", "episode_return": "episode return", "reward_accuracy": "reward accuracy (%)"}
IN_PERCENT = ("success", "reward_accuracy")
TITLE_SIZE, LABEL_SIZE, FOOTER_SIZE = 7.0, 6.0, 5.5  # points
LINE_HEIGHT = 1.2 * LABEL_SIZE / 72  # inches
TICKS = {"labelsize": 6, "major.size": 2, "major.width": 0.6}  # points
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 7,
    "axes.titlesize": TITLE_SIZE,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    **{f"{axis}tick.{name}": size for axis in "xy" for name, size in TICKS.items()},
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # real fonts: text in the .pdf stays searchable, and publishers accept it
}
project_style = matplotlib.style.context(["default", STYLE])
"""Decorator: what the function draws looks the same whatever the user's matplotlib settings are, and leaves them."""


class CurveStyle(NamedTuple):
    """Color (red, green, blue, each 0..1) and matplotlib dash pattern of one curve."""

    color: tuple[float, float, float]
    dashes: Any


class CurveEnd(NamedTuple):
    """Where a drawn curve ends, in data coordinates (x = inf: at the panel's edge), and how it is to be labeled."""

    name: str
    color: tuple[float, float, float]
    x: float
    y: float


def method_color(method: str) -> str:
    """Color of a method, "#RRGGBB"; a method not in `METHOD_COLORS` has one of `FURTHER_COLORS`, always the same."""
    return METHOD_COLORS.get(method) or FURTHER_COLORS[zlib.crc32(method.encode()) % len(FURTHER_COLORS)]


def darker(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """Color of text beside marks of this color: thin strokes look paler than marks."""
    red, green, blue = color
    return 0.8 * red, 0.8 * green, 0.8 * blue


def curve_styles(data: pd.DataFrame, name: str = "arm") -> dict[str, CurveStyle]:
    """Style of each arm (or `family`, if that is `name`) in `data`, in the order of drawing: by method, the known ones
    first, then by name, numbers in it ascending.

    Within a method the first curve, the one with the method's own name if there is one, is solid in the full color;
    later ones are dashed and lighter.
    """
    known, styles = list(METHOD_COLORS), dict[str, CurveStyle]()
    pairs = sorted(
        set(zip(data["method"], data[name], strict=True)),
        key=lambda pair: (
            *(known.index(pair[0]) if pair[0] in known else len(known), pair[0]),
            *(pair[1] != pair[0], _natural(pair[1])),
        ),
    )
    for method, curves in itertools.groupby(pairs, key=lambda pair: pair[0]):
        for rank, (_, curve) in enumerate(curves):
            white = min(0.18 * rank, 0.45)
            red, green, blue = ((1 - white) * part + white for part in to_rgb(method_color(method)))
            styles[curve] = CurveStyle((red, green, blue), DASHES[rank % len(DASHES)])
    return styles


def panel_names(data: pd.DataFrame) -> list[str]:
    """Tasks of evaluations or of a `stats.summary_table`, and "all tasks" where some arm ran on all of several."""
    by_task = data[data["task"] != ALL_TASKS]
    tasks = sorted(set(by_task["task"]))
    return [*tasks, ALL_TASKS] if 1 < len(tasks) == by_task.groupby("arm")["task"].nunique().max() else tasks


@project_style
def save(figure: Figure, name: str, folder: str | Path) -> tuple[Path, Path]:
    """Write `folder/name.png` (200 dpi) and `folder/name.pdf` and return both paths. Equal figures give equal bytes.

    Raises `PrefVLMError` where the disk is full or the folder cannot be written; a figure that was there stays.
    """
    png, pdf = (Path(folder) / f"{name}.{ending}" for ending in ("png", "pdf"))
    content = io.BytesIO(), io.BytesIO()
    figure.savefig(content[0], format="png", dpi=200, metadata={"Software": None})
    figure.savefig(content[1], format="pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})
    write_atomically(png, content[0].getvalue())
    write_atomically(pdf, content[1].getvalue())
    return png, pdf


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
            color=darker(end.color),
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


def page_width(name: str) -> float:
    """Width in inches of a key of `WIDTHS`. Raises PrefVLMError for another name."""
    if name not in WIDTHS:
        raise unknown_name("width", name, WIDTHS)
    return WIDTHS[name]


class Spaces(NamedTuple):
    """Inches that panels leave free for what stands beside, above and below them."""

    before: float = 0.0
    """Left of each panel."""
    after: float = 0.0
    """Right of each panel."""
    left: float = 0.0
    """Left of all panels."""
    right: float = 0.0
    """Right of all panels."""
    above: float = 0.0
    """Above all panels, besides their titles."""
    below: float = 0.0
    """Below each panel, besides its ticks."""
    bottom: float = 0.25
    """Below all panels, above the footer."""


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


def make_panels(
    names: Sequence[str], width: str, height: float, spaces: Spaces, footer: str, columns: int | None = None
) -> tuple[Figure, Iterator[Panel]]:
    """Figure with a footer, and its panels: one per name, row by row, titled with it, added as they are asked for.

    `width` is a key of `WIDTHS`, which the figure does not exceed; panels are `height` inches high. A name may have
    several lines. Without `columns` there are as many as fit, spread evenly over the rows. To be called in
    a function with `project_style`. Raises PrefVLMError for another width.
    """
    widest, margins = page_width(width), spaces.left + spaces.right
    fitting = max(1, min(len(names), int((widest - margins) / (spaces.before + 1.1 + spaces.after))))
    rows = -(-len(names) // (columns or fitting))
    columns = columns or -(-len(names) // rows)  # four panels in two rows are 2 + 2, not 3 + 1
    panel_width = min((widest - margins) / columns - spaces.before - spaces.after, 3.2)
    column_width = spaces.before + panel_width + spaces.after
    further_lines = max(name.count("\n") for name in names) * 1.2 * TITLE_SIZE / 72
    row_height = height + spaces.below + 0.42 + further_lines
    page = spaces.left + columns * column_width + spaces.right
    text = textwrap.fill(footer, int(page * 72 / (0.54 * FOOTER_SIZE)))
    total = spaces.bottom + rows * row_height + spaces.above + (text.count("\n") + 1) * 1.2 * FOOTER_SIZE / 72
    # Made by pyplot, so that notebooks can show it, and closed there, so that they do so once.
    figure = plt.figure(figsize=(page, total))
    plt.close(figure)
    figure.text(0.03 / page, 0.03 / total, text, fontsize=FOOTER_SIZE, color="#666666", va="bottom")

    def add_panels() -> Iterator[Panel]:
        for index, name in enumerate(names):
            row, column = divmod(index, columns)
            x = spaces.left + column * column_width + spaces.before
            y = total - spaces.above - row * row_height - 0.2 - further_lines - height
            axes = figure.add_axes((x / page, y / total, panel_width / page, height / total), title=task_title(name))
            yield Panel(axes, name, column == 0, index + columns >= len(names))

    return figure, add_panels()


def make_footer(profiles: Iterable[str], tasks: Sequence[str], seeds: pd.Series, shown: str, interval: str) -> str:
    """What a figure shows, in a line; `interval` names the mark of the bootstrap interval, "" for none."""
    fewest, most = int(seeds.min()), int(seeds.max())
    parts = [
        f"profile {', '.join(map(_profile_title, sorted(set(profiles))))}",
        task_titles(tasks),
        f"{fewest if fewest == most else f'{fewest}–{most}'} {'seed' if most == 1 else 'seeds'}",
        shown,
        f"{interval}: 95 % stratified bootstrap interval" if interval and most > 1 else "",
        "too narrow with fewer than 5 seeds" if interval and most > 1 and fewest < 5 else "",
        "1 seed, no interval" if interval and fewest == 1 else "",
    ]
    return footer_line(*parts)


def footer_line(*parts: str) -> str:
    """What a figure shows, in a line: the parts that are not empty, and the version that drew it."""
    return " · ".join([*filter(None, parts), f"prefvlm\N{NO-BREAK SPACE}{__version__}"])


def task_titles(tasks: Sequence[str]) -> str:
    """The tasks as a footer names them."""
    return ", ".join(map(task_title, tasks))


def _profile_title(profile: str) -> str:
    repeat = PROFILES.get(profile, {}).get("action_repeat", 1)
    return profile if repeat == 1 else f"{profile} (each action held {repeat} steps)"


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


def _natural(name: str) -> list[Any]:
    """Sort key by which "400 labels" comes before "1200 labels"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def wrapped(name: str) -> str:
    """`name` on lines of at most 22 characters, broken before a parenthesis where there is one."""
    parts = name.replace(" (", "\n(").split("\n") if len(name) > 22 else [name]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 22))


def text_width(texts: Iterable[str]) -> float:
    """Width in inches of the widest line among `texts`, written as labels are."""
    font = FontProperties(family="DejaVu Sans")
    lines = [line for text in texts for line in text.split("\n")]
    return max(TextPath((0, 0), line, size=LABEL_SIZE, prop=font).get_extents().width for line in lines) / 72
