"""The bytes of the published tables, see `published.py`: the same runs give the same bytes, in whatever order they
came."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet

from prefvlm_core.config.retired import RETIRED_FIELDS, read_fields
from prefvlm_core.config.run import CONFIG_VERSION, IDENTITY, RunConfig, default_fields, flatten
from prefvlm_core.runs.checkpoint import fleet_hash
from prefvlm_core.runs.directory import RunDirectory, read_manifest
from prefvlm_core.runs.published import (
    FIRST_COLUMNS,
    LAST_COLUMNS,
    RUN_KEYS,
    PublishedRun,
    seed_and_hash,
)
from prefvlm_core.runs.rows import cell, check_rows, csv_bytes, read_labels, read_metrics, rows_hash
from prefvlm_core.runs.stored import fields_text

_FIRST_METRICS = ("step", "success", "success_last_step", "episode_return")
_FIRST_LABELS = ("step", "session", "teacher", "first", "second", "label", "truth", "divergence", "partition")
_FIRST_OF_MANIFEST = ("status", "seconds", "written", "git_commit")


def row_of_folder(directory: RunDirectory) -> dict[str, str]:
    """The row of runs.csv of a finished run folder, without empty cells."""
    metrics = pandas.DataFrame(read_metrics(directory.path / "metrics.csv"))
    labels = read_labels(directory.path / "labels.csv")
    manifest = read_manifest(directory.path / "manifest.json")
    check_rows(directory.path / "metrics.csv", metrics, manifest.get("metrics_hash"))
    check_rows(directory.path / "labels.csv", labels, manifest.get("labels_hash"))
    fleet = manifest.pop("fleet", None)  # every run of a fleet would repeat the names of all
    row = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in flatten(manifest).items()
        if value is not None
    }
    row |= {name: cell(metrics[name].iloc[-1]) for name in ("step", "success") if name in metrics}
    row |= {
        "fleet_hash": fleet_hash(fleet) if fleet else "",
        "metrics_hash": rows_hash(metrics),
        "labels_hash": "" if labels is None else rows_hash(labels),
    }
    fields = read_fields((directory.path / "config.json").read_text(encoding="utf-8"))
    return _filled(row | _identity(directory.run_id, directory.config, directory.retired, fields))


def row_of_today(run: PublishedRun) -> dict[str, str]:
    """A published row in the fields of this release, without empty cells."""
    fields = read_fields(run.row["config"])
    return _filled(dict(run.row) | _identity(run.run_id, run.config, run.retired, fields))


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in row.items() if text}


def _identity(run_id: str, config: RunConfig, retired: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
    """The cells that follow from a run's config, of which a retired run keeps the `stored` fields."""
    fields = stored if retired else flatten(dataclasses.asdict(config))
    known = default_fields() | RETIRED_FIELDS
    told = {name: value for name, value in fields.items() if name in IDENTITY or value != known[name]}
    text = json.dumps({"version": CONFIG_VERSION} | told, sort_keys=True, separators=(",", ":"))
    return {
        "run_id": run_id,
        "task": config.task,
        "method": config.method,
        "seed": str(config.seed),
        "retired": fields_text(retired),
        "config": text,
    }


def runs_table(rows: Sequence[Mapping[str, str]]) -> bytes:
    """runs.csv with these rows."""
    of_manifest = _in_order(
        {name for row in rows for name in row} - {*FIRST_COLUMNS, *LAST_COLUMNS}, _FIRST_OF_MANIFEST
    )
    return csv_bytes([*FIRST_COLUMNS, *of_manifest, *LAST_COLUMNS], rows)


def metrics_table(metrics: Mapping[str, pandas.DataFrame]) -> bytes:
    """metrics/<task>/<method>.csv of runs, by name, in their order."""
    columns = _in_order({name for rows in metrics.values() for name in rows}, _FIRST_METRICS)
    return csv_bytes(
        [*RUN_KEYS, *columns],
        (_keys(run_id) | row for run_id, rows in metrics.items() for row in rows.to_dict("records")),
    )


def labels_table(labels: Mapping[str, pandas.DataFrame]) -> bytes:
    """labels/<task>/<method>-<seed>.parquet of runs, by name, in their order."""
    parts = [
        pandas.concat([pandas.DataFrame(_keys(run_id), index=rows.index), rows], axis=1)
        for run_id, rows in labels.items()
    ]
    columns = _in_order({name for rows in labels.values() for name in rows}, _FIRST_LABELS)
    table = pandas.concat(parts)[[*RUN_KEYS, *columns]]
    buffer = io.BytesIO()
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pyarrow.parquet.write_table(arrow, buffer, compression="zstd", compression_level=15)
    return buffer.getvalue()


def _keys(run_id: str) -> dict[str, Any]:
    return dict(zip(RUN_KEYS, seed_and_hash(run_id.split("/")[-1]), strict=True))


def _in_order(names: set[str], first: Iterable[str]) -> list[str]:
    """Names of columns, in an order that does not depend on the runs: `first`, then the alphabet."""
    ahead = [name for name in first if name in names]
    return [*ahead, *sorted(names.difference(ahead))]
