"""Preference data as three tables, whoever made it: clips, pairs of clips, and labels of pairs.

docs/howto/exchange_labels.md describes every column.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.labelling.films import frames_of

_TEXT, _WHOLE, _REAL = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
_STEPS = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
SCHEMAS: dict[str, pyarrow.Schema] = {
    "clips": pyarrow.schema(
        {
            **{"clip": _TEXT, "file": _TEXT, "frames": _WHOLE, "first": _WHOLE, "length": _WHOLE},
            **{"observations": _STEPS, "actions": _STEPS},
        }
    ),
    "pairs": pyarrow.schema(
        {
            **{"pair": _TEXT, "first_clip": _TEXT, "second_clip": _TEXT, "task": _TEXT, "text": _TEXT},
            **{"run_id": _TEXT, "seed": _WHOLE, "session": _WHOLE, "number": _WHOLE, "truth": _REAL},
        }
    ),
    "labels": pyarrow.schema(
        {
            **{"pair": _TEXT, "label": _REAL, "teacher": _TEXT, "annotator": _TEXT, "purpose": _TEXT},
            **{"divergence": _REAL, "partition": _TEXT, "swapped": pyarrow.bool_(), "saw_guess": pyarrow.bool_()},
            **{"seconds": _REAL, "answered_at": pyarrow.timestamp("us", "UTC")},
        }
    ),
}
"""Columns of each table with their types."""
REQUIRED = {
    "clips": ("clip", "file"),
    "pairs": ("pair", "first_clip", "second_clip"),
    "labels": ("pair", "label", "teacher"),
}
"""The columns without which a table says nothing; all others may be missing or empty, and of these only the label: null
means "can't tell"."""
LEAST = {
    "clips": {"frames": 1, "first": 0, "length": 1},
    "pairs": {"seed": 0, "session": 1, "number": 0},
    "labels": {"divergence": 0, "seconds": 0},
}
"""Columns of numbers that are bounded below."""
VLM, SCRIPT = "vlm", "script"
"""Teachers beside "human" and the names of scripted teachers: the VLM, and a script that answered through the queue."""


@dataclass(frozen=True)
class PreferenceData:
    """Clips, pairs and labels, with the columns of `SCHEMAS`.

    Raises `PrefVLMError` for a name that occurs twice or that nothing has, a label outside [0, 1], a number below
    `LEAST`, and observations and actions that do not fit their clip.
    """

    clips: pyarrow.Table
    pairs: pyarrow.Table
    labels: pyarrow.Table
    strips: Mapping[str, bytes]
    """By clip: its frames, see `films.strip`."""

    def __post_init__(self) -> None:
        clips, pairs = (_unique(getattr(self, f"{name}s"), name) for name in ("clip", "pair"))
        for column in ("first_clip", "second_clip"):
            _check_known(self.pairs, "pairs", column, clips)
        _check_known(self.labels, "labels", "pair", pairs)
        for table, column in (("labels", "label"), ("pairs", "truth")):
            for row, value in enumerate(getattr(self, table)[column].to_pylist()):
                if value is not None and not 0 <= value <= 1:
                    raise PrefVLMError(f"{column} in row {row} of {table} is {value}, but must be in [0, 1] or empty.")
        for name, columns in LEAST.items():
            for column, least in columns.items():
                _check_least(getattr(self, name)[column].to_pylist(), least, f"{column} in row {{}} of {name}")
        for row in self.clips.select(["clip", "length", "observations", "actions"]).to_pylist():
            _check_steps(**row)

    def frames(self, clip: str) -> NDArray[np.uint8]:
        """Frames (F, H, W, 3) uint8 RGB of a clip. Raises `PrefVLMError` for a broken strip."""
        return frames_of(self.strips[clip], self._frame_counts[clip], f"The picture of clip {clip}")

    @functools.cached_property
    def _frame_counts(self) -> dict[str, int]:
        return dict(zip(*(self.clips[name].to_pylist() for name in ("clip", "frames")), strict=True))


def table_of(name: str, rows: Iterable[Mapping[str, Any]]) -> pyarrow.Table:
    """The table `name` of `SCHEMAS` with these rows; what a row lacks is null."""
    return pyarrow.Table.from_pylist(list(rows), SCHEMAS[name])


def typed(name: str, table: pyarrow.Table, where: str) -> pyarrow.Table:
    """The columns of `SCHEMAS[name]`, in their order and types, of a table that somebody else wrote.

    Raises `PrefVLMError`, naming the table `where`, for a column that is unknown, missing, or of another type.
    """
    schema = SCHEMAS[name]
    for column in table.column_names:
        if column not in schema.names or table.column_names.count(column) > 1:
            raise unknown_name(f"column of {where}", column, schema.names)
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            if field.name in REQUIRED[name]:
                raise PrefVLMError(f"{where} has no column {field.name}.")
            columns.append(pyarrow.nulls(len(table), field.type))
            continue
        try:
            column = table[field.name].cast(field.type)
        except pyarrow.ArrowException as error:
            said = " ".join(str(error).split())
            raise PrefVLMError(f"Column {field.name} of {where} cannot be read as {field.type}: {said}.") from error
        if column.null_count and field.name in REQUIRED[name] and field.name != "label":
            raise PrefVLMError(f"Column {field.name} of {where} has empty cells.")
        columns.append(column)
    return pyarrow.table(columns, schema)


def _unique(table: pyarrow.Table, name: str) -> set[str]:
    values = table[name].to_pylist()
    if len(set(values)) < len(values):
        twice = next(value for number, value in enumerate(values) if value in values[:number])
        raise PrefVLMError(f"{name}s names {name} '{twice}' twice.")
    return set(values)


def _check_known(table: pyarrow.Table, name: str, column: str, known: set[str]) -> None:
    for row, value in enumerate(table[column].to_pylist()):
        if value not in known:
            raise PrefVLMError(f"{column} in row {row} of {name} is '{value}', which no row of the other table names.")


def _check_least(values: Sequence[float | None], least: int, place: str) -> None:
    for row, value in enumerate(values):
        if value is not None and not least <= value < math.inf:
            raise PrefVLMError(f"{place.format(row)} is {value}, but must be at least {least} or empty.")


def _check_steps(clip: str, length: int | None, **steps: list[list[float]] | None) -> None:
    """Raise `PrefVLMError` unless the observations and the actions of a clip have a row for each of its steps."""
    for name, rows in steps.items():
        if rows is not None and (not rows or len({len(row) for row in rows}) > 1 or length not in (None, len(rows))):
            raise PrefVLMError(f"The {name} of clip '{clip}' are not equally long rows, one for each of its steps.")
