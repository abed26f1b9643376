"""All figures in one style: one colour per method everywhere, labels at the line ends, a footer saying what is shown.

Input is tidy: one row per evaluation with the columns `stats.EVALUATION_COLUMNS`. `curve` is the name a reader sees, as
"pebble (400 labels)"; its colour is that of its `method`, dashes and shade follow its rank within the method.
"""

import json
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
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

from prefvlm_core import __version__, stats
from prefvlm_core.errors import PrefVLMError, unknown_name

# Chosen so that the methods of one figure (main comparison, ablations, other baselines) stay apart for colour-blind
# readers too: tests/test_plots.py measures it. The order is that of the methods in figures.
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
LABEL_SIZE, FOOTER_SIZE = 6.0, 5.5  # points
LINE_HEIGHT = 1.2 * LABEL_SIZE / 72  # inches
TICKS = {"labelsize": 6, "major.size": 2, "major.width": 0.6}  # points
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 7,
    "axes.titlesize": 7,
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


class CurveStyle(NamedTuple):
    """Colour, red, green and blue in 0..1, and matplotlib dash pattern of one curve."""

    color: tuple[float, float, float]
    dashes: Any


class CurveEnd(NamedTuple):
    """Where a drawn curve ends, in data coordinates (x = inf: at the panel's edge), and how it is to be labelled."""

    curve: str
    color: tuple[float, float, float]
    x: float
    y: float


def method_color(method: str) -> str:
    """Colour of a method, "#RRGGBB"; a name not in `METHOD_COLORS` always gets the same one of `FURTHER_COLORS`."""
    return METHOD_COLORS.get(method) or FURTHER_COLORS[zlib.crc32(method.encode()) % len(FURTHER_COLORS)]


def curve_styles(data: pd.DataFrame) -> dict[tuple[str, str], CurveStyle]:
    """Style of each (method, curve) in `data`, in drawing order: known methods first, numbers in names ascending.

    Within a method the first curve is solid in the full colour; later ones are dashed and lighter.
    """
    known = list(METHOD_COLORS)
    pairs = sorted(
        set(zip(data["method"], data["curve"], strict=True)),
        key=lambda pair: (known.index(pair[0]) if pair[0] in known else len(known), pair[0], _natural(pair[1])),
    )
    styles: dict[tuple[str, str], CurveStyle] = {}
    for method, curve in pairs:
        rank = sum(other == method for other, _ in styles)
        white = min(0.18 * rank, 0.45)
        red, green, blue = ((1 - white) * part + white for part in to_rgb(method_color(method)))
        styles[method, curve] = CurveStyle((red, green, blue), DASHES[rank % len(DASHES)])
    return styles


def learning_curves(
    data: pd.DataFrame, x: str = "step", y: str = "success", width: str = "wide", reference: pd.DataFrame | None = None
) -> Figure:
    """One panel per task, and "all tasks" when there are several, of `y` against `x`.

    Thick line: interquartile mean over seeds at the steps that every seed has; band: 95 % stratified bootstrap interval
    at each point, none with one seed; thin lines: single seeds. "all tasks" pools the runs of all tasks, for the curves
    that ran on every task. Against `human_labels` a point is what a run reached with that many labels: its last
    evaluation before the next label, and at its last label count the mean over the last 10 % of steps (as in
    `summary_table`). Methods that use no labels are a horizontal line from a dot at 0.

    `x` is a key of `X_TITLES`, `y` of `Y_TITLES`, `width` of `WIDTHS`. `reference`, from `reference_curves`, is drawn
    dashed in grey; it needs profile `paper`, x="step" and y="success", because only then are the axes the same.
    Raises PrefVLMError for malformed data, unknown names, a misplaced reference, or runs without a common step.
    """
    stats.check_evaluations(data)
    for kind, name, allowed in (("x", x, X_TITLES), ("y", y, Y_TITLES), ("width", width, WIDTHS)):
        if name not in allowed:
            raise unknown_name(kind, name, allowed)
    if reference is not None and (set(data["profile"]) != {"paper"} or (x, y) != ("step", "success")):
        raise PrefVLMError(
            "Reference curves fit only profile 'paper' with x='step', y='success'; leave `reference` out."
        )
    values = data.dropna(subset=[y])
    if values.empty:
        raise PrefVLMError(f"No evaluation has a value of '{y}'; choose another y of {list(Y_TITLES)}.")
    values = values.assign(**{y: values[y] * (100 if y in IN_PERCENT else 1)})
    tasks, styles = sorted(set(values["task"])), curve_styles(data)
    panels = [*tasks, stats.ALL_TASKS] if len(tasks) > 1 else tasks
    labels = [_wrapped(curve) for _, curve in styles]
    labels += [] if reference is None else [_wrapped(curve) for curve in reference["curve"].unique()]
    height = max(1.2, sum(label.count("\n") + 1 for label in labels) * LINE_HEIGHT)
    seeds = values.groupby(["task", "method", "curve"])["seed"].nunique()
    shown = "thick line: interquartile mean; thin: single seeds"
    shown += "; end: last 10 % of steps" if x == "human_labels" else ""
    footer = _footer(data["profile"], tasks, seeds, shown, "band")
    with matplotlib.style.context(["default", STYLE]):
        figure, grid, columns = _panels(panels, WIDTHS[width], height, (0.16, 0.28, _text_width(labels) + 0.16), footer)
        for index, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            rows = values if panel == stats.ALL_TASKS else values[values["task"] == panel]
            ends = _draw_curves(axes, rows, styles, x, y, len(tasks) if panel == stats.ALL_TASKS else 1)
            if reference is not None:
                ends += _draw_reference(axes, reference[reference["task"] == panel])
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
            axes.set_xlim(left=0)
            if y in IN_PERCENT:
                axes.set(ylim=(-3, 103), yticks=range(0, 101, 25))
            axes.set_xlabel(X_TITLES[x] if index + columns >= len(panels) else "")
            axes.set_ylabel(Y_TITLES[y] if index % columns == 0 else "")
            _label_curve_ends(axes, ends)
    return figure


def final_success(table: pd.DataFrame, profile: str, width: str = "wide") -> Figure:
    """Dot and interval per curve, one panel per task, from the rows of `stats.summary_table`.

    Needs the columns task, method, curve, success, success_low, success_high (0..1, bounds nan with one seed), seeds.
    `profile` is named in the footer; `width` is a key of `WIDTHS`. Raises PrefVLMError for missing columns or another
    width.
    """
    missing = {"task", "method", "curve", "success", "success_low", "success_high", "seeds"} - set(table)
    if missing:
        raise PrefVLMError(f"The summary lacks the columns {sorted(missing)}; use the table of stats.summary_table.")
    if width not in WIDTHS:
        raise unknown_name("width", width, WIDTHS)
    styles = curve_styles(table)
    tasks = sorted(set(table["task"]) - {stats.ALL_TASKS})
    panels = [*tasks, stats.ALL_TASKS] if len(tasks) > 1 and stats.ALL_TASKS in set(table["task"]) else tasks
    labels = [_wrapped(curve) for _, curve in styles]
    height = len(labels) * max(label.count("\n") + 1.5 for label in labels) * LINE_HEIGHT
    footer = _footer([profile], tasks, table["seeds"], "dot: interquartile mean, last 10 % of steps", "bar")
    with matplotlib.style.context(["default", STYLE]):
        figure, grid, columns = _panels(panels, WIDTHS[width], height, (_text_width(labels) + 0.08, 0.1, 0.16), footer)
        for index, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            for row in table[table["task"] == panel].itertuples():
                line, color = list(styles).index((row.method, row.curve)), styles[row.method, row.curve].color
                success, low, high = 100 * row.success, 100 * row.success_low, 100 * row.success_high
                axes.plot([low, high], [line, line], color=color, alpha=0.5, lw=2.5, solid_capstyle="butt")
                axes.plot(success, line, "o", color=color, markersize=3.5, clip_on=False)
                if row.seeds == 1:
                    side = "left" if success < 50 else "right"
                    axes.text(
                        success, line, "   1 seed, no interval   ", ha=side, va="center", fontsize=5, color="#666666"
                    )
            axes.set(xlim=(-2, 102), xticks=range(0, 101, 25), ylim=(len(styles) - 0.4, -0.6))
            axes.set_yticks(range(len(styles)), labels if index % columns == 0 else [""] * len(styles))
            axes.set_xlabel(Y_TITLES["success"] if index + columns >= len(panels) else "")
    return figure


def reference_curves(tasks: Iterable[str]) -> pd.DataFrame:
    """The successor paper's learning curves on `tasks`: columns task, method, curve, labels, step, success (0..1).

    Own digitisation of the mean lines of ROVED (arXiv 2603.28053), 1 to 2 points of success off; provenance in the file
    `data/reference_curves.json`. Raises PrefVLMError for a task that has no reference curve.
    """
    text = resources.files("prefvlm_core").joinpath("data/reference_curves.json").read_text(encoding="utf-8")
    curves = json.loads(text)["curves"]
    available, wanted = {entry["task"] for entry in curves}, set(tasks)
    for task in sorted(wanted - available):
        raise unknown_name("task with reference curves", task, available)
    points = pd.DataFrame([entry for entry in curves if entry["task"] in wanted]).explode(["steps", "success"])
    points = points.rename(columns={"steps": "step"}).astype({"step": np.int64, "success": np.float64})
    points.insert(2, "curve", points["method"] + " (" + points["labels"].astype(str) + " labels)")
    return points.reset_index(drop=True)


def save(figure: Figure, name: str, folder: str | Path) -> tuple[Path, Path]:
    """Write `folder/name.png` (200 dpi) and `folder/name.pdf`, same bytes for the same figure; return both paths."""
    png, pdf = (Path(folder) / f"{name}.{ending}" for ending in ("png", "pdf"))
    png.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(["default", STYLE]):
        figure.savefig(png, dpi=200, metadata={"Software": None})
        figure.savefig(pdf, metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return png, pdf


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> np.ndarray:
    """Centres, `(labels,)`, as close to `wanted` as can be (least squares) without overlap of labels of these heights.

    Keeps the order of `wanted` and stays in [low, high]; labels that are together higher than that stand out above it.
    """
    order = np.argsort(wanted, kind="stable")
    height = np.asarray(heights, dtype=np.float64)[order]
    offset = np.cumsum(height) - height / 2  # centres of the labels stacked from 0
    # No overlap means: centre minus stacked offset never falls. The closest such sequence is an isotonic regression.
    base = isotonic_regression(np.asarray(wanted, dtype=np.float64)[order] - offset).x
    centres = np.empty(len(order))
    centres[order] = np.clip(base, low, max(low, high - height.sum())) + offset
    return centres


def _draw_curves(
    axes: Axes, values: pd.DataFrame, styles: Mapping[tuple[str, str], CurveStyle], x: str, y: str, tasks: int
) -> list[CurveEnd]:
    """Draw the curves that ran on at least `tasks` tasks."""
    ends = []
    drawstyle: Any = "steps-post" if x == "human_labels" else "default"
    for (method, curve), (color, dashes) in styles.items():
        rows = values[(values["method"] == method) & (values["curve"] == curve)]
        if rows["task"].nunique() < tasks:
            continue
        runs = _runs_by_x(rows, x, y)
        position, centre = runs.index.to_numpy(), stats.interquartile_mean(runs)
        low, high = _bootstrap_band(runs)
        unlabelled = x == "human_labels" and position[-1] == 0
        if unlabelled:
            axes.axhline(centre[-1], color=color, linestyle=dashes, lw=0.9)
            axes.axhspan(low[-1], high[-1], color=color, alpha=0.07, lw=0)
        else:
            if tasks == 1:
                axes.plot(position, runs, color=color, alpha=0.3, lw=0.5, drawstyle=drawstyle)
            axes.plot(position, centre, color=color, linestyle=dashes, lw=1.5, drawstyle=drawstyle)
            step: Any = "post" if x == "human_labels" else None
            axes.fill_between(position, low, high, color=color, alpha=0.15, lw=0, step=step)
        if x == "human_labels" or len(position) == 1:  # a step's last value, or a lone one, has no width
            axes.vlines(position[-1], low[-1], high[-1], color=color, lw=0.8)
            axes.plot(position[-1], centre[-1], "o", color=color, markersize=3.5, clip_on=False, zorder=3)
        ends.append(CurveEnd(curve, color, np.inf if unlabelled else position[-1], centre[-1]))
    return ends


def _runs_by_x(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Values of one curve: index = the values of x that all runs share, columns = (task, seed)."""
    ordered, run = rows.sort_values("step"), ["task", "seed"]
    if x == "step":
        table = ordered.pivot(index=x, columns=run, values=y).dropna()
    else:
        table = ordered.groupby([*run, x], as_index=False)[y].last().pivot(index=x, columns=run, values=y)
        for key, evaluations in ordered.groupby(run):
            table.loc[evaluations[x].iloc[-1], key] = stats.last_tenth(evaluations["step"], evaluations[y])
        table = table.ffill().dropna()
    if table.empty:
        raise PrefVLMError(f"The runs of '{rows['curve'].iloc[0]}' share no value of '{x}'; evaluate them at the same.")
    return table


def _bootstrap_band(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    tasks = runs.columns.get_level_values("task")
    per_task = [runs.loc[:, tasks == task].to_numpy() for task in tasks.unique()]
    # The same draws at every point: neighbouring points differ by the data, not by chance.
    band = [
        stats.stratified_bootstrap_interval(
            [seeds[row] for seeds in per_task], stats.interquartile_mean, np.random.default_rng(0)
        )
        for row in range(len(runs))
    ]
    low, high = np.array(band).T
    return low, high


def _draw_reference(axes: Axes, reference: pd.DataFrame) -> list[CurveEnd]:
    ends = []
    for curve, rows in reference.groupby("curve"):
        success = 100 * rows["success"]
        axes.plot(rows["step"], success, color=REFERENCE_COLOR, linestyle=(0, (3, 2)), lw=0.7, zorder=1.5)
        ends.append(CurveEnd(str(curve), to_rgb(REFERENCE_COLOR), rows["step"].iloc[-1], success.iloc[-1]))
    return ends


def _label_curve_ends(axes: Axes, ends: Sequence[CurveEnd]) -> None:
    """Write each curve's name right of the panel, joined to the curve's end by a hairline."""
    panel = axes.get_window_extent().transformed(axes.get_figure().dpi_scale_trans.inverted())  # type: ignore[union-attr]
    (low, high), right = axes.get_ylim(), axes.get_xlim()[1]
    line = LINE_HEIGHT * (high - low) / panel.height
    texts = [_wrapped(end.curve) for end in ends]
    centres = spread([end.y for end in ends], [line * (text.count("\n") + 1) for text in texts], low, high)
    for text, end, centre in zip(texts, ends, centres, strict=True):
        axes.annotate(
            text,
            (min(end.x, right), end.y),
            (1 + 0.1 / panel.width, centre),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=tuple(0.8 * part for part in end.color),  # thin strokes look paler than lines
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


def _panels(
    titles: Sequence[str], width: float, height: float, spaces: tuple[float, float, float], footer: str
) -> tuple[Figure, list[Axes], int]:
    """Figure with titled panels `height` inches high, at most `width` inches wide, and its number of columns.

    `spaces` stay free, in inches: left of all panels, left of each panel, right of each panel.
    """
    margin, before, after = spaces
    columns = max(1, min(len(titles), int((width - margin) / (before + 1.1 + after))))
    rows = -(-len(titles) // columns)
    panel_width = min((width - margin) / columns - before - after, 3.2)
    width = margin + columns * (before + panel_width + after)
    text = textwrap.fill(footer, int(width * 72 / (0.54 * FOOTER_SIZE)))
    row_height = height + 0.42
    total = 0.25 + rows * row_height + (text.count("\n") + 1) * 1.2 * FOOTER_SIZE / 72
    # Made by pyplot, so that notebooks can show it, and closed there, so that they do so once.
    figure = plt.figure(figsize=(width, total))
    plt.close(figure)
    figure.text(0.03 / width, 0.03 / total, text, fontsize=FOOTER_SIZE, color="#666666", va="bottom")
    grid = []
    for index, title in enumerate(titles):
        left = margin + (index % columns) * (before + panel_width + after) + before
        top = total - (index // columns) * row_height - 0.2
        box = (left / width, (top - height) / total, panel_width / width, height / total)
        grid.append(figure.add_axes(box, title=_title(title)))
    return figure, grid, columns


def _footer(profiles: Iterable[str], tasks: Sequence[str], seeds: pd.Series, shown: str, interval: str) -> str:
    fewest, most = int(seeds.min()), int(seeds.max())
    parts = [
        f"profile {', '.join(sorted(set(profiles)))}",
        ", ".join(map(_title, tasks)),
        f"{fewest if fewest == most else f'{fewest}–{most}'} {'seed' if most == 1 else 'seeds'}",
        shown,
        f"{interval}: 95 % stratified bootstrap interval" if most > 1 else "",
        "too narrow with fewer than 5 seeds" if most > 1 and fewest < 5 else "",
        "1 seed, no interval" if fewest == 1 else "",
        f"prefvlm\N{NO-BREAK SPACE}{__version__}",
    ]
    return " · ".join(part for part in parts if part)


def _thousands(value: float, _position: int) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"


def _title(task: str) -> str:
    return task.removesuffix("-v3")


def _natural(name: str) -> list[Any]:
    """Sort key by which "400 labels" comes before "1200 labels"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _wrapped(curve: str) -> str:
    """`curve` on lines of at most 22 characters, broken before a parenthesis where there is one."""
    parts = curve.replace(" (", "\n(").split("\n") if len(curve) > 22 else [curve]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 22))


def _text_width(texts: Iterable[str]) -> float:
    """Width in inches of the widest line among `texts`, written as labels are."""
    font = FontProperties(family="DejaVu Sans")
    lines = [line for text in texts for line in text.split("\n")]
    return max(TextPath((0, 0), line, size=LABEL_SIZE, prop=font).get_extents().width for line in lines) / 72
