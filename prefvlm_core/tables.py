"""The table of results as people read it: in README.md, and beside the papers' own numbers in profile `paper`."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pandas

from prefvlm_core.store import write_atomically

README_EXPERIMENT = "02_learning_curves"
"""The experiment whose rows README.md shows."""
REFERENCE_METHODS = {"prefvlm": "ROVED", "pebble": "PEBBLE", "surf": "SURF", "mrn": "MRN", "vlm-reward": "LIV"}
"""Our methods -> names in the digitised curves of ROVED."""
_BLOCK = re.compile(r"(<!-- table of profile (\w+), written by `prefvlm table` -->\n).*?(<!-- end of table -->)", re.S)


def with_reference(table: pandas.DataFrame) -> pandas.DataFrame:
    """A `summary_table` with the papers' numbers: columns paper_success, paper_area_under_curve (0..1, nan where ROVED
    shows no such curve) and paper_labels, of its curve with the nearest label budget."""
    text = resources.files("prefvlm_core").joinpath("data/reference_curves.json").read_text(encoding="utf-8")
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
    """The rows of `table.csv` as a Markdown table: success and area in percent, with the 95 % interval."""
    lines = ["| task | curve | human labels | success % (95 % interval) | area under curve % | seeds |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for row in table.itertuples():
        interval = "" if np.isnan(row.success_low) else f" ({100 * row.success_low:.0f}–{100 * row.success_high:.0f})"
        success, area = f"{100 * row.success:.0f}{interval}", f"{100 * row.area_under_curve:.0f}"
        lines.append(f"| {row.task} | {row.curve} | {row.human_labels:.0f} | {success} | {area} | {row.seeds} |")
    return "\n".join(lines) + "\n"


def shown_in(readme: str) -> tuple[str, str] | None:
    """Profile and text of the table between README's two marker comments, if they are there."""
    found = _BLOCK.search(readme)
    return None if found is None else (found[2], found[0].removeprefix(found[1]).removesuffix(found[3]))


def readme_table(path: Path) -> str:
    """What README.md shows of a stored `table.csv`."""
    table = pandas.read_csv(path)
    return markdown(table[table["experiment"] == README_EXPERIMENT])


def write_into_readme(readme: Path, profile: str, path: Path) -> bool:
    """Bring README's table up to date with a profile's `table.csv`, where README shows that profile; says whether."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    shown = shown_in(text)
    if shown is None or shown[0] != profile:
        return False
    table = readme_table(path)
    write_atomically(readme, _BLOCK.sub(lambda found: found[1] + table + found[3], text).encode())
    return True
