"""What the explorers are made of: a figure that is redrawn in place, and tables and sentences beside it.

An image widget needs no extension of the browser's, so the explorers work wherever ipywidgets do: in JupyterLab, VS
Code and Voila.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import ipywidgets
import numpy as np
import pandas
from IPython.display import display
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.plots.style import project_style

WIDTH = 840
"""Of an explorer, pixels."""
_INCHES = 6.2  # of a figure of that width: its text is as large as the notebook's
_DOTS_PER_INCH = 200
SOFT = "color:var(--jp-ui-font-color2, #666)"
_TABLE = Markup('<table style="border-collapse:collapse;line-height:1.6">{rows}</table>')
_ROW = Markup("<tr>{cells}</tr>")
_HEAD = Markup('<th style="padding:0 14px 0 0;text-align:{side};font-weight:600">{text}</th>')
_CELL = Markup('<td style="padding:0 14px 0 0;text-align:{side};font-variant-numeric:tabular-nums">{text}</td>')
_SENTENCE = Markup('<div style="line-height:1.5;{style}">{text}</div>')


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class Explorer:
    """A widget, `view`, that a notebook shows where an explorer is the last line of a cell.

    It is made in the main thread, as cells are.
    """

    view: ipywidgets.Box

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):  # outside of a kernel there is none, and no other thread calls
            self._loop = asyncio.get_running_loop()

    def _ipython_display_(self) -> None:
        display(self.view)

    def _rendered(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """What a function returns that renders frames, called in the main thread: JupyterLab tells of a moved slider in
        another one, and all frames of a process are rendered in one thread."""
        if self._loop is None or threading.current_thread() is threading.main_thread():
            return function(*args, **kwargs)

        async def called() -> Answer:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    def _arrange(self, name: str, rows: Sequence[ipywidgets.Widget]) -> None:
        layout = {"max_width": f"{WIDTH + 24}px", "padding": "8px 12px", "grid_gap": "6px"}
        self.view = ipywidgets.VBox(list(rows), layout=layout)
        self.view.add_class("prefvlm-explorer").add_class(f"prefvlm-{name}")


class Picture:
    """A figure as a widget, `view`. Change what `figure` holds, then call `draw`."""

    @project_style
    def __init__(self, height: float, left: float = 0.45, right: float = 1.0, top: float = 0.14) -> None:
        """`height` of the figure, and the space left free beside and above its axes, inches."""
        self.figure = Figure((_INCHES, height), dpi=_DOTS_PER_INCH)
        self._canvas = FigureCanvasAgg(self.figure)
        bottom = 0.36
        box = left / _INCHES, bottom / height, 1 - (left + right) / _INCHES, 1 - (bottom + top) / height
        self.axes: Axes = self.figure.add_axes(box)
        self.view = ipywidgets.Image(format="png", layout={"width": f"{WIDTH}px", "max_width": "100%"})

    @project_style
    def draw(self) -> None:
        """Show the figure as it is now."""
        self._canvas.draw()
        self.view.value = encode(np.asarray(self._canvas.buffer_rgba())[..., :3])


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (height, width, 3) uint8 RGB as PNG, in the shortest time."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def table_html(table: pandas.DataFrame, side: str = "right") -> str:
    """A table of texts as HTML: its index, then its columns, set to one `side`; every value is escaped."""
    head = [_HEAD.format(side="left", text=""), *(_HEAD.format(side=side, text=name) for name in table.columns)]
    rows = [_ROW.format(cells=Markup("").join(head))]
    for name, values in zip(table.index, table.to_numpy(), strict=True):
        cells = [_HEAD.format(side="left", text=name), *(_CELL.format(side=side, text=value) for value in values)]
        rows.append(_ROW.format(cells=Markup("").join(cells)))
    return str(_TABLE.format(rows=Markup("").join(rows)))


def sentence_html(text: str, soft: bool = False) -> str:
    """A sentence as HTML; `soft` ones, which explain, are gray."""
    return str(_SENTENCE.format(style=SOFT if soft else "", text=text))


def slider(name: str, value: float, least: float, most: float, step: float) -> ipywidgets.FloatSlider:
    """A slider that tells every change at once, with its name in front."""
    return ipywidgets.FloatSlider(
        value,
        min=least,
        max=most,
        step=step,
        description=name,
        readout_format=".2f",
        style={"description_width": "150px"},
        layout={"width": "620px", "max_width": "100%"},
    )


def drop_down(name: str, options: Sequence[object], width: str = "260px") -> ipywidgets.Dropdown:
    """A list to choose from, with its name in front."""
    style, layout = {"description_width": "70px"}, {"width": width}
    return ipywidgets.Dropdown(options=options, description=name, style=style, layout=layout)


def row(*widgets: ipywidgets.Widget) -> ipywidgets.Box:
    """Widgets beside each other, on as many lines as they need."""
    return ipywidgets.HBox(list(widgets), layout={"flex_flow": "row wrap", "align_items": "center"})
