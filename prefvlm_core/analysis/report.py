"""Stored results as people read them: tables, README's table, and every number of README.md and NOTES.md.

In prose, a number stands before a comment that says which one it is, and `prefvlm table` writes it:

    84<!-- table | 02_learning_curves | button-press-v3 | prefvlm (200 labels) | success --> %

The first field is a file of `results/<profile>/` (see `KEYS`), the last a column, those between name the row.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pandas

from prefvlm_core.analysis.label_quality import error_rates
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.directory import write_atomically

README_EXPERIMENT = "02_learning_curves"
"""The experiment whose rows README.md shows."""
REFERENCE_METHODS = {"prefvlm": "ROVED", "pebble": "PEBBLE", "surf": "SURF", "mrn": "MRN", "vlm-reward": "LIV"}
"""Our methods -> names in the digitised curves of ROVED."""
KEYS = {
    "table": ["experiment", "task", "curve"],
    "labels": ["experiment", "task", "curve"],
    "improvement": ["task", "curve", "against"],
}
"""Files of `results/<profile>/`, without .csv, and the columns that name a row: `stats.summary_table`,
`label_stats.error_rates` by task, `stats.improvement_table`."""
_AS_IT_IS = ("human_labels", "vlm_labels", "seeds", "labels")
_RATIOS = ("clean_ratio", "clean_ratio_low", "clean_ratio_high")
_NUMBER = re.compile(r"(?:[\d.]+|nan)(?=<!-- (\w+) \| (.+?) \| (\w+) -->)")
_BLOCK = re.compile(r"(<!-- table of profile (\w+), written by `prefvlm table` -->\n).*?(<!-- end of table -->)", re.S)


def with_reference(table: pandas.DataFrame) -> pandas.DataFrame:
    """A `summary_table` with the papers' numbers: columns paper_success, paper_area_under_curve (0..1, nan where ROVED
    shows no such curve) and paper_labels, of its curve with the nearest label budget."""
    text = resources.files("prefvlm_core.analysis").joinpath("reference_curves.json").read_text(encoding="utf-8")
    summaries = json.loads(text)["summaries"]
    columns = {"success": "paper_success", "area_under_curve": "paper_area_under_curve", "labels": "paper_labels"}
    rows = []
    for row in table.itertuples():
        name = REFERENCE_METHODS.get(row.method)
        known = [entry for entry in summaries if entry["task"] == row.task and entry["method"] == name]
        rows.append(min(known, key=lambda entry: abs(entry["labels"] - row.human_labels)) if known else {})
    paper = pandas.DataFrame(rows, index=table.index, columns=list(columns)).rename(columns=columns)
    return pandas.concat([table, paper.astype(float)], axis=1)


def markdown(table: pandas.DataFrame) -> str:
    """The rows of `table.csv` as a Markdown table: success and area in percent, with their 95 % intervals."""
    lines = ["| task | curve | human labels | success % (95 % interval) | area under curve % (95 % interval) | seeds |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for row in table.to_dict("records"):
        cells = []
        for measure in ("success", "area_under_curve"):
            low, high = row[f"{measure}_low"], row[f"{measure}_high"]
            interval = "" if np.isnan(low) else f" ({100 * low:.0f}–{100 * high:.0f})"
            cells.append(f"{100 * row[measure]:.0f}{interval}")
        lines.append(
            f"| {row['task']} | {row['curve']} | {row['human_labels']:.0f} | {' | '.join(cells)} | {row['seeds']} |"
        )
    return "\n".join(lines) + "\n"


def shown_in(readme: str) -> tuple[str, str] | None:
    """Profile and text of the table between README's two marker comments, if they are there."""
    found = _BLOCK.search(readme)
    return None if found is None else (found[2], found[0].removeprefix(found[1]).removesuffix(found[3]))


def readme_table(path: Path) -> str:
    """What README.md shows of a stored `table.csv`."""
    table = pandas.read_csv(path)
    return markdown(table[table["experiment"] == README_EXPERIMENT])


def label_errors(labels: pandas.DataFrame) -> pandas.DataFrame:
    """`label_stats.error_rates` of each task in a label log, one row per task and curve; none without labels of the
    VLM."""
    by_task = labels[labels["teacher"] == "vlm"].groupby("task")
    tables = {str(task): error_rates(rows) for task, rows in by_task}
    return pandas.concat(tables, names=["task", ""]).reset_index("task") if tables else pandas.DataFrame()


def with_numbers(text: str, folder: Path) -> str:
    """`text` with every tagged number as it is stored in `folder`: fractions in percent, without decimals.

    Raises `PrefVLMError` for a tag that names no stored number.
    """
    tables = {
        name: pandas.read_csv(path).set_index(keys).sort_index()
        for name, keys in KEYS.items()
        if (path := folder / f"{name}.csv").exists()
    }

    def stored(found: re.Match[str]) -> str:
        file, row, column = found.groups()
        try:
            value = float(tables[file].loc[tuple(row.split(" | ")), column])
        except (KeyError, TypeError) as error:
            raise PrefVLMError(f"{folder} holds no number '{file} | {row} | {column}'.") from error
        if column in _RATIOS:
            return f"{value:.2f}"
        return f"{value if column in _AS_IT_IS else 100 * value:.0f}"

    return _NUMBER.sub(stored, text)


def write_into_texts(readme: Path, folder: Path) -> list[Path]:
    """Bring README.md, where it shows the profile whose results lie in `folder`, and the folder's NOTES.md up to date;
    returns those that are there."""
    notes, written = folder / "NOTES.md", []
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    shown = shown_in(text)
    if shown is not None and shown[0] == folder.name:
        table = readme_table(folder / "table.csv")
        text = _BLOCK.sub(lambda found: found[1] + table + found[3], text)
        write_atomically(readme, with_numbers(text, folder).encode())
        written.append(readme)
    if notes.exists():
        write_atomically(notes, with_numbers(notes.read_text(encoding="utf-8"), folder).encode())
        written.append(notes)
    return written
