"""How figures look: colors of methods, line styles, sizes, contrast, files."""

import io
import itertools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prefvlm_core.runs.files import write_atomically

Color = tuple[float, float, float]
"""Red, green and blue, each 0..1."""
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
PARTITION_COLORS = {"clean": "#228899", "flipped": "#AA3355", "uncertain": "#DDAA33"}
"""Of the filter's partitions, which no method has."""
FURTHER_COLORS = ("#44AA99", "#999933", "#AA4499", "#7A5195", "#9A6324", "#CC6677")
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
REFERENCE_COLOR = "#8A8A8A"
PAGE = 85 / 25.4
"""Width of every figure in inches: one column of a two-column paper."""
MOST_CURVES = 5
"""In one panel; more cannot be told apart."""
MOST_DOTS = 20
"""Seeds of an arm; with fewer the single runs are drawn as dots."""
X_TITLES = {"step": "environment steps", "human_labels": "human labels used"}
Y_TITLES = {
    "success": "success rate (%)",
    "episode_return": "episode return",
    "reward_accuracy": "reward accuracy (%)",
    "adapted_vlm_accuracy": "labels right (%)",
}
IN_PERCENT = ("success", "reward_accuracy", "adapted_vlm_accuracy")
TITLE_SIZE, LABEL_SIZE, FOOTER_SIZE = 7.0, 6.0, 6.0  # points; nothing on the page is smaller than 6
CONTRAST = 4.5
"""Least contrast of text and its ground (Web Content Accessibility Guidelines 2.2, level AA)."""
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
    """Color and matplotlib dash pattern of one curve."""

    color: Color
    dashes: Any


def method_color(method: str) -> str:
    """Color of a method, "#RRGGBB"; a method not in `METHOD_COLORS` has one of `FURTHER_COLORS`, always the same."""
    return METHOD_COLORS.get(method) or FURTHER_COLORS[zlib.crc32(method.encode()) % len(FURTHER_COLORS)]


def contrast(color: Sequence[float], ground: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """Contrast ratio (1..21) of two colors: that of their relative luminances, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(color), _luminance(ground)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: Sequence[float]) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def text_color(color: str | Color) -> Color:
    """Color of text beside marks of this color: darker, as thin strokes look paler, until it can be read on white."""
    red, green, blue = to_rgb(color)
    part = 0.8
    while contrast((part * red, part * green, part * blue)) < CONTRAST:
        part *= 0.95
    return part * red, part * green, part * blue


def curve_styles(data: pd.DataFrame, name: str = "arm") -> dict[str, CurveStyle]:
    """Style of each arm (or `family`, if that is `name`) in `data`, in the order of drawing: by method, the known ones
    first, then by name, numbers in it ascending.

    Within a method the first curve, the one with the method's own name or one that begins with it if there is one, is
    solid in the full color; later ones are dashed and lighter.
    """
    known, styles = list(METHOD_COLORS), dict[str, CurveStyle]()
    pairs = sorted(
        set(zip(data["method"], data[name], strict=True)),
        key=lambda pair: (
            *(known.index(pair[0]) if pair[0] in known else len(known), pair[0]),
            *(pair[1] != pair[0], not pair[1].startswith(pair[0]), _natural(pair[1])),
        ),
    )
    for method, curves in itertools.groupby(pairs, key=lambda pair: pair[0]):
        for rank, (_, curve) in enumerate(curves):
            white = min(0.18 * rank, 0.45)
            red, green, blue = ((1 - white) * part + white for part in to_rgb(method_color(method)))
            styles[curve] = CurveStyle((red, green, blue), DASHES[rank % len(DASHES)])
    return styles


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


def _natural(name: str) -> list[Any]:
    """Sort key by which "400 labels" comes before "1200 labels"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
