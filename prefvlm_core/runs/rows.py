"""The rows of a run: metrics, one per evaluation, and labels, one per label; as CSV, and as a hash of their content."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefvlm_core.runs.files import UNREADABLE, damaged

if TYPE_CHECKING:  # imported where tables are read: who lists runs has no time for it
    import pandas

LABEL_TYPES = {
    "step": "int64",
    "session": "int64",
    "teacher": "str",
    "first": "int64",
    "second": "int64",
    "label": "float64",
    "truth": "float64",
    "partition": "str",
}
"""Columns of a label log (see `preferences/log.py`), but for the divergence, and their types."""
IDENTITY_COLUMNS = frozenset({"profile", "task", "method", "seed", "hash", "budget", "run_id", "retired"})
"""What tables of several runs put in front of the columns of metrics and labels."""


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A CSV file with these columns: numbers so that they are read back exactly, nan and what a row lacks empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(row.get(name, "")) for name in columns])
    return text.getvalue().encode()


def cell(value: Any) -> str:
    """A value as text: numbers so that they are read back exactly, nan as nothing."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv; none where there is no file. Raises `PrefVLMError` for a damaged file."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            columns, *lines = csv.reader(file, strict=True)
        rows = [dict(zip(columns, map(number, line), strict=True)) for line in lines]
    except (csv.Error, *UNREADABLE) as error:
        raise damaged(path, error) from error
    if reason := _oddity(columns, rows):
        raise damaged(path, reason)
    return rows


def _oddity(columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str | None:
    """What no metrics have, in words; None for metrics as they should be."""
    if odd := IDENTITY_COLUMNS.intersection(columns):
        return f"a column is named {min(odd)}, as a part of the run's name is"
    if "step" not in columns or "" in columns or len(set(columns)) < len(columns):
        return "it has no column step, two of one name, or one without a name"
    steps = [row["step"] for row in rows]
    if not all(map(math.isfinite, steps)) or any(later <= step for step, later in itertools.pairwise(steps)):
        return "its steps do not increase from row to row"
    return None


def number(text: str) -> float:
    """Inverse of `cell` for a number; exact, as pandas' own parser of decimals was not before its version 3."""
    return float(text or "nan")


def read_labels(path: Path) -> pandas.DataFrame | None:
    """Rows of a labels.csv with the columns `LABEL_TYPES` and `divergence`; None where there is no file. Raises
    `PrefVLMError` for a damaged file."""
    if not path.exists():
        return None
    import numpy as np
    import pandas

    try:
        # pandas' own parser of decimals may be off by one bit, float never is
        exact = {"divergence": number}
        with np.errstate(invalid="ignore"):  # of casts that pandas then finds to be wrong itself
            rows = pandas.read_csv(path, dtype=LABEL_TYPES, converters=exact, keep_default_na=False)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if set(rows.columns) != {*LABEL_TYPES, "divergence"} or not isinstance(rows.index, pandas.RangeIndex):
        raise damaged(path, f"its columns are not {', '.join(LABEL_TYPES)} and divergence")
    return rows


def rows_hash(rows: pandas.DataFrame) -> str:
    """First 16 hex digits of the SHA-256 of the rows: of every column that holds a value, in order of name, the name
    and the values, numbers as little-endian float64 and text as UTF-8."""
    import numpy as np

    numbers = rows.select_dtypes("number")
    values = numbers.to_numpy("<f8")
    missing = np.isnan(values)
    values = np.where(missing, np.nan, values)  # there are many bit patterns that mean nan
    content = {
        name: values[:, index].tobytes() for index, name in enumerate(numbers) if not missing[:, index].all()
    } | {name: "\n".join(rows[name]).encode() for name in rows.columns.difference(numbers.columns)}
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name}\n".encode() + content[name])
    return digest.hexdigest()[:16]


def check_rows(path: Path, rows: pandas.DataFrame | None, named: str | None) -> None:
    """Raise `PrefVLMError` where the rows at `path` do not have the hash that the run's manifest names, if it does."""
    if named is not None and (rows is None or rows_hash(rows) != named):
        raise damaged(path, "its rows are not those whose hash manifest.json names")
