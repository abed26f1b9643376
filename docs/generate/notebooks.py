"""A page per notebook: the executed copy where there is one, else the cells as they are in git, each with the stored
figures that it draws.

`make figures PROFILE=laptop` executes the notebooks on the stored runs, which takes minutes; the site itself executes
nothing.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PROFILE = "laptop"
"""The profile whose figures are shown."""
_STORED = f"*Figures: those of the stored runs of profile `{PROFILE}`, as the cells draw them with that profile.*"


def pages() -> dict[str, str]:
    """The notebook that the site shows, as JSON, for each one in `notebooks/`."""
    return {path.stem: json.dumps(_page(path), indent=1) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def _page(path: Path) -> dict[str, Any]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    executed = ROOT / "results" / "notebooks" / f"{path.stem}-{PROFILE}.ipynb"
    if executed.exists():
        copy = json.loads(executed.read_text(encoding="utf-8"))
        if _sources(copy) == _sources(notebook):
            return copy
    figures = {figure.stem.removeprefix(f"{path.stem}_"): figure for figure in _figures(path.stem)}
    title, *others = notebook["cells"]
    cells = [title, _cell("stored", _STORED)] if figures else [title]
    for cell in others:
        cells.append(cell)
        if cell["cell_type"] == "code":
            named = dict.fromkeys(re.findall(r'"(\w+)"', "".join(cell["source"])))
            cells += [_shown(figures.pop(name)) for name in named if name in figures]
    return notebook | {"cells": cells + [_shown(figure) for figure in figures.values()]}


def _sources(notebook: dict[str, Any]) -> list[str]:
    """The cells without the one into which papermill writes parameters."""
    cells = [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in cells]


def _figures(notebook: str) -> list[Path]:
    return sorted((ROOT / "figures" / PROFILE).glob(f"{notebook}_*.png"))


def _shown(figure: Path) -> dict[str, Any]:
    """A cell that shows a figure of the stored runs below the cell that draws it."""
    return _cell(figure.stem[:64], f"![{figure.stem}](../../../figures/{PROFILE}/{figure.name})")


def _cell(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}
