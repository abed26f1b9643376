"""Builders that several tests use."""

import itertools

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure


def panel_lines(figure: Figure, title: str) -> list[mpl.lines.Line2D]:
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    return list(axes.lines)


def footer(figure: Figure) -> str:
    (text,) = figure.texts
    return text.get_text().replace("\n", " ")


def color_blind_lab(color: str) -> list[np.ndarray]:
    """CIE L*a*b* of a color as seen with normal, no red and no green cones (Machado et al. 2009, severity 1)."""
    part = np.array(to_rgb(color))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    seen = []
    for view in (np.eye(3), protan, deutan):
        xyz = np.array(to_xyz) @ np.clip(np.array(view) @ linear, 0, 1) / [0.95047, 1, 1.08883]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        seen.append(np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)]))
    return seen


def check_text(figure: Figure) -> None:
    """No text overlaps another or leaves the page."""
    FigureCanvasAgg(figure).draw()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, ticks in ((axes.xaxis, axes.get_xticks()), (axes.yaxis, axes.get_yticks())):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick, at in zip(axis.get_major_ticks(), ticks, strict=True) if low <= at <= high]
    boxes = [(text.get_text(), mpl.text.Text.get_window_extent(text)) for text in texts if text.get_text()]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other_text, other) in itertools.combinations(boxes, 2):
        common_width = min(box.x1, other.x1) - max(box.x0, other.x0)
        common_height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert min(common_width, common_height) < 0.5, (text, other_text)  # pixels: half of one is not seen
