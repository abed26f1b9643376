"""Executes the shipped notebooks, and reads what they showed and computed."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_DUMP = """
for _name, _value in list(globals().items()):
    if isinstance(_value, __import__("pandas").DataFrame) and not _name.startswith("_"):
        _value.to_json(f"{folder}/{{_name}}.json", orient="table", double_precision=15)
"""


@dataclass(frozen=True)
class Executed:
    """A notebook after its last cell."""

    cells: list[Any]
    folder: Path
    """Holds `<variable>.json` of every table in the notebook's variables, and its figures by profile."""

    def table(self, variable: str) -> pandas.DataFrame:
        return pandas.read_json(self.folder / f"{variable}.json", orient="table", precise_float=True)

    def outputs(self) -> list[Any]:
        return [output for cell in self.cells if cell.cell_type == "code" for output in cell.outputs]

    def said(self) -> str:
        """The Markdown that cells displayed."""
        return "\n".join(
            output.data["text/markdown"] for output in self.outputs() if "text/markdown" in output.get("data", {})
        )

    def printed(self) -> str:
        return "".join(
            output.text for output in self.outputs() if output.output_type == "stream" and output.name == "stdout"
        )

    def pictures(self) -> dict[str, int]:
        """Heading -> number of pictures that the cells below it displayed."""
        pictures, heading = dict[str, int](), ""
        for cell in self.cells:
            if cell.cell_type == "markdown":
                heading = cell.source.splitlines()[0].lstrip("# ")
                pictures[heading] = 0
            else:
                pictures[heading] = pictures.get(heading, 0) + sum(
                    "image/png" in output.get("data", {}) for output in cell.outputs
                )
        return pictures


def execute(name: str, folder: Path, parameters: Mapping[str, Any], first: str = "") -> Executed:
    """Execute a shipped notebook with papermill, called in `folder`, and draw its figures, if it has any, there.

    `first` is code that runs below the notebook's parameters. Raises AssertionError with what papermill said where a
    cell fails.
    """
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    setup = next(index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    if "figures = " in notebook.cells[setup].source:
        parameters = {"figures": folder, **parameters}
    notebook.cells.insert(setup + 1, nbformat.v4.new_code_cell(first))
    notebook.cells.append(nbformat.v4.new_code_cell(_DUMP.format(folder=folder)))
    nbformat.write(notebook, folder / "source.ipynb")
    options = [text for key, value in parameters.items() for text in ("-p", key, str(value))]
    command = [sys.executable, "-m", "papermill", "source.ipynb", "executed.ipynb", "--no-progress-bar", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return Executed(nbformat.read(folder / "executed.ipynb", as_version=4).cells, folder)
