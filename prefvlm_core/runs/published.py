"""Published tables: the record of finished runs, which git keeps and any program can read.

    results/<profile>/
        runs.csv                                one row per run: name, versions, commit, machine, hashes, config
        metrics/<task>/<method>.csv             one row per evaluation, behind the seed and hash that end the run's name
        labels/<task>/<method>-<seed>.parquet   one row per label, likewise

`pack.py` writes them, everything else reads them as it reads run folders. A run's row in runs.csv holds the hashes of
its metrics and of its labels, and what does not fit them is refused. Rows of the other tables that no run in runs.csv
names are those of a `pack` that was killed, and are passed over.
"""

from __future__ import annotations

import collections
import csv
import functools
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import RETIRED_VALUES, StoredConfig, read_stored_config
from prefvlm_core.config.run import RunConfig, default_fields
from prefvlm_core.runs.rows import cell, rows_hash

if TYPE_CHECKING:  # imported where tables are read: who lists runs has no time for it
    import pandas

RUNS_FILE = "runs.csv"
RUN_KEYS = ("seed", "hash")
"""What ends a run's name, before the columns of metrics and labels."""
FIRST_COLUMNS = ("run_id", "task", "method", "seed", "retired", "step", "success")
LAST_COLUMNS = ("metrics_hash", "labels_hash", "config")
"""Columns of runs.csv that do not come from the run's manifest."""
_FORMER_COLUMNS = ("changes",)  # fields that differed from the profile, which itself changes from release to release


@dataclass(frozen=True)
class PublishedRun:
    """A finished run in the published tables of `folder`."""

    folder: Path
    row: Mapping[str, str]
    """Its row of runs.csv, without the empty cells."""

    @functools.cached_property
    def _stored(self) -> StoredConfig:
        """The config, read; slow where thousands of runs are only listed."""
        stored = read_stored_config(self.row["config"])
        if stored.stored_id != self.row["run_id"]:
            raise PrefVLMError(
                f"{self.folder / RUNS_FILE} is damaged: the config of {self.row['run_id']} belongs to another run."
            )
        return stored

    @functools.cached_property
    def _current(self) -> bool:
        """Whether every field of the config, and its value, still exists."""
        stored = json.loads(self.row["config"])
        gone = any(stored.get(name) in values for name, values in RETIRED_VALUES.items())
        return not gone and stored.keys() <= {"version", *default_fields()}

    @property
    def run_id(self) -> str:
        """The run's name today: another than in the table where a release has translated a field since."""
        return self.row["run_id"] if self._current else self._stored.run_id

    @property
    def config(self) -> RunConfig:
        """The run's config in today's fields."""
        return self._stored.config

    @property
    def retired(self) -> Mapping[str, Any]:
        """Fields of the config that have no meaning any more, with their values."""
        return {} if self._current else self._stored.retired

    @property
    def manifest(self) -> dict[str, str]:
        """What the run was made with, as text by dotted name."""
        return {name: text for name, text in self.row.items() if name not in FIRST_COLUMNS + LAST_COLUMNS}

    @property
    def last_evaluation(self) -> dict[str, float]:
        """`step` and `success` of the last evaluation."""
        return {name: float(self.row.get(name, "nan")) for name in ("step", "success")}

    def metrics(self) -> pandas.DataFrame:
        """Rows of the metrics (n, columns of the file) float64. Raises `PrefVLMError` where they are not those that
        were published, or where runs.csv says otherwise of the last evaluation."""
        _, task, method, name = self.row["run_id"].split("/")
        path = self.folder / "metrics" / task / f"{method}.csv"
        rows = self._checked(_metrics_by_run(path, _version(path)).get(seed_and_hash(name)), "metrics", path)
        for column in self.last_evaluation.keys() & set(rows):
            if cell(rows[column].iloc[-1]) != self.row.get(column, ""):
                raise PrefVLMError(
                    f"{self.folder / RUNS_FILE} is damaged: {column} of {self.row['run_id']} is not the one in {path}; "
                    "restore it."
                )
        return rows

    def labels(self) -> pandas.DataFrame | None:
        """Rows of the label log; None where the run used no labels. Raises `PrefVLMError` as `metrics` does."""
        if "labels_hash" not in self.row:
            return None
        _, task, method, name = self.row["run_id"].split("/")
        path = self.folder / "labels" / task / f"{method}-{self.row['seed']}.parquet"
        return self._checked(_labels_by_run(path, _version(path)).get(seed_and_hash(name)), "labels", path)

    def _checked(self, rows: pandas.DataFrame | None, kind: str, path: Path) -> pandas.DataFrame:
        if rows is None or rows_hash(rows) != self.row[f"{kind}_hash"]:
            raise PrefVLMError(
                f"{path} does not hold the {kind} of {self.row['run_id']} whose hash {self.folder / RUNS_FILE} names; "
                "restore both files."
            )
        return rows


def published_runs(folder: Path) -> Mapping[str, PublishedRun]:
    """The runs published in `results/<profile>` by their names of today; none where there is no runs.csv. Raises
    `PrefVLMError` for a damaged one."""
    path = folder / RUNS_FILE
    return _runs(folder, _version(path)) if path.exists() else {}


@functools.lru_cache(maxsize=16)
def _runs(folder: Path, version: Hashable) -> Mapping[str, PublishedRun]:
    path = folder / RUNS_FILE
    try:
        with open(path, newline="", encoding="utf-8") as file:
            runs = [PublishedRun(folder, _filled_cells(row)) for row in csv.DictReader(file, strict=True)]
        return {run.run_id: run for run in runs}
    except (csv.Error, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _damaged_table(path, error) from error


def _filled_cells(row: Mapping[str, str]) -> dict[str, str]:
    """A row of runs.csv without its empty cells. Raises ValueError where a cell is missing, or is no number or no run's
    name but should be."""
    if None in row or None in row.values():
        raise ValueError("a row has more or fewer cells than there are columns")
    if missing := {*FIRST_COLUMNS, *LAST_COLUMNS} - row.keys():
        raise ValueError(f"it has no column {min(missing)}")
    if not (row["run_id"] and row["metrics_hash"] and row["config"]):
        raise ValueError("a row has no run_id, metrics_hash or config")
    if row["run_id"].count("/") != 3:
        raise ValueError(f"{row['run_id']} is no run's name")
    seed_and_hash(row["run_id"].split("/")[-1])
    for column in ("step", "success"):
        float(row[column] or "nan")
    return {name: text for name, text in row.items() if text and name not in _FORMER_COLUMNS}


@functools.lru_cache(maxsize=1024)
def _metrics_by_run(path: Path, version: Hashable) -> Mapping[Hashable, pandas.DataFrame]:
    import pandas

    rows = collections.defaultdict(list)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, strict=True):
                key = int(row.pop("seed")), row.pop("hash")
                rows[key].append({name: float(value or "nan") for name, value in row.items()})
        return {key: pandas.DataFrame(of_run) for key, of_run in rows.items()}
    except (csv.Error, KeyError, OSError, TypeError, ValueError) as error:
        raise _damaged_table(path, error) from error


@functools.lru_cache(maxsize=64)  # of many rows where every label of a large budget is logged
def _labels_by_run(path: Path, version: Hashable) -> Mapping[Hashable, pandas.DataFrame]:
    import pyarrow.parquet

    try:
        groups = pyarrow.parquet.read_table(path).to_pandas().groupby(list(RUN_KEYS), sort=False)
        return {key: rows.drop(columns=list(RUN_KEYS)).reset_index(drop=True) for key, rows in groups}
    except (KeyError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise _damaged_table(path, error) from error


def seed_and_hash(name: str) -> tuple[int, str]:
    """Seed and hash of a run, of the last part of its name."""
    seed, _, digest = name.partition("-")
    return int(seed), digest


def _version(path: Path) -> Hashable:
    """What changes whenever the file is replaced; None where there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _damaged_table(path: Path, error: Exception) -> PrefVLMError:
    return PrefVLMError(f"{path} is damaged ({' '.join(str(error).split())}); restore it.")
