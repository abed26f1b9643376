"""A page per notebook: the executed copy where there is one, else the cells as they are in git, and the stored figures.

`make figures PROFILE=laptop` executes the notebooks on the stored runs, which takes minutes; the site itself executes
nothing.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PROFILE = "laptop"
"""The profile whose figures are shown."""


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
    figures = sorted((ROOT / "figures" / PROFILE).glob(f"{path.stem}_*.png"))
    notebook["cells"] += [_cell("shown-about", _about(figures)), *map(_figure, figures)]
    return notebook


def _sources(notebook: dict[str, Any]) -> list[str]:
    """The cells without the one into which papermill writes parameters."""
    cells = [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in cells]


def _about(figures: list[Path]) -> str:
    if not figures:
        return "## Figures\n\nThis notebook stores no figure: it is for your own hands."
    return f"## Figures\n\nWhat these cells draw from the stored runs of profile `{PROFILE}`."


def _figure(path: Path) -> dict[str, Any]:
    name = path.stem.rpartition("_")[2]
    return _cell(f"figure-{name}", f"### {name.capitalize()}\n\n![{name}](../../../figures/{PROFILE}/{path.name})")


def _cell(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}
