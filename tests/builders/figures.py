"""Builders that several tests use."""

import itertools

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure


def panel_lines(figure: Figure, title: str) -> list[mpl.lines.Line2D]:
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    return list(axes.lines)


def footer(figure: Figure) -> str:
    text, *_ = figure.texts  # the key comes after it
    return text.get_text().replace("\n", " ")


def color_blind_lab(color: str | tuple[float, ...]) -> list[np.ndarray]:
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


def shown_texts(figure: Figure) -> list[mpl.text.Text]:
    """Every text that is seen, once the figure was drawn."""
    FigureCanvasAgg(figure).draw()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, ticks in ((axes.xaxis, axes.get_xticks()), (axes.yaxis, axes.get_yticks())):
            low, high = sorted(axis.get_view_interval())
            labels = [tick.label1 for tick in axis.get_major_ticks()]
            texts += [
                label for label, at in zip(labels, ticks, strict=True) if low <= at <= high and label.get_visible()
            ]
    return [text for text in texts if text.get_text().strip()]


def check_text(figure: Figure) -> None:
    """No text overlaps another or leaves the page."""
    boxes = [(text.get_text(), mpl.text.Text.get_window_extent(text)) for text in shown_texts(figure)]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other_text, other) in itertools.combinations(boxes, 2):
        common_width = min(box.x1, other.x1) - max(box.x0, other.x0)
        common_height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert min(common_width, common_height) < 0.5, (text, other_text)  # pixels: half of one is not seen


def check_rules(figure: Figure) -> None:
    """What a reviewer expects of any figure: one column wide, text of at least 6 pt that can be told from its ground
    and covers no data, at most five curves in a panel, no row without a mark."""
    assert abs(figure.get_figwidth() * 25.4 - 85) < 1e-6
    check_text(figure)
    grounds = {text: _cell_color(axes, text) for axes in figure.axes if axes.images for text in axes.texts}
    for text in shown_texts(figure):
        assert text.get_fontsize() >= 6, text.get_text()
        ratio = contrast_by_hand(to_rgb(text.get_color()), grounds.get(text, (1, 1, 1)))
        assert ratio >= 4.5, (text.get_text(), ratio)
    for axes in figure.axes:
        assert len(curves_of(axes)) <= 5, axes.get_title()
        check_no_data_below_text(axes)
        check_every_row_has_a_mark(axes)


def contrast_by_hand(text: tuple[float, ...], ground: tuple[float, ...]) -> float:
    """Contrast of WCAG 2.2, by way of CIE L* (D65): its Y is the relative luminance."""
    luminance = []
    for color in (text, ground):
        lightness = color_blind_lab(color)[0][0]
        luminance.append(((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3)
    return (max(luminance) + 0.05) / (min(luminance) + 0.05)


def _cell_color(axes: Axes, text: mpl.text.Text) -> tuple[float, ...]:
    """Color of the cell of a map on which a text is written."""
    (image,) = axes.images
    column, row = (round(number) for number in text.get_position())
    return tuple(image.cmap(image.norm(image.get_array()[row, column]))[:3])


def curves_of(axes: Axes) -> list[mpl.lines.Line2D]:
    """Lines that are neither marks nor straight up or across."""
    found = []
    for line in axes.lines:
        x, y = (np.unique(np.asarray(values, float)) for values in line.get_data())
        if line.get_linestyle() != "None" and len(x) > 1 and len(y) > 1:
            found.append(line)
    return found


def drawn_points(axes: Axes) -> np.ndarray:
    """Pixels (n, 2) on lines and marks, at most three apart."""
    points = []
    for line in axes.lines:
        corners = line.get_transform().transform(np.column_stack([np.asarray(v, float) for v in line.get_data()]))
        corners = corners[np.isfinite(corners).all(axis=1)]
        points.append(corners)
        if line.get_linestyle() != "None":
            for start, end in itertools.pairwise(corners):
                steps = int(np.abs(end - start).max() // 3) + 2
                points.append(np.linspace(start, end, steps))
    return np.concatenate([*points, np.empty((0, 2))])


def check_no_data_below_text(axes: Axes) -> None:
    points = drawn_points(axes)
    for text in axes.texts:
        if text.get_text().strip():
            box = mpl.text.Text.get_window_extent(text)
            inside = (points > (box.x0, box.y0)).all(axis=1) & (points < (box.x1, box.y1)).all(axis=1)
            assert not inside.any(), text.get_text()


def check_every_row_has_a_mark(axes: Axes) -> None:
    """Rows are the whole numbers of an axis that runs down."""
    low, high = axes.get_ylim()
    if axes.images or low < high:
        return
    marks = np.concatenate([np.column_stack([np.asarray(v, float) for v in line.get_data()]) for line in axes.lines])
    marked = set(marks[np.isfinite(marks).all(axis=1), 1].round().astype(int))
    assert marked >= set(np.asarray(axes.get_yticks(), int)), axes.get_title()
