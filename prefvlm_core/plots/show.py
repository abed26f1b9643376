"""Figures in notebooks: shown and kept in one step."""

from pathlib import Path

from IPython.display import display
from matplotlib.figure import Figure

from prefvlm_core.plots.style import save


def show(figure: Figure, name: str, folder: str | Path) -> None:
    """Display a figure in the notebook and write it as `folder/name.png` and `folder/name.pdf`."""
    display(figure)
    save(figure, name, folder)
