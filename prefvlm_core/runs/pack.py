"""`prefvlm pack`: finished run folders become published tables (see `published.py`), those of two machines one set.

The tables are a function of the runs in them: packing in any order, twice, or after a kill gives the same bytes. They
are written before runs.csv names their rows, and a folder loses its files only after the tables were read back.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas
from filelock import Timeout

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import FINISHED, RunDirectory, read_manifest
from prefvlm_core.runs.files import remove_temporary_files, write_atomically, write_probe
from prefvlm_core.runs.locks import file_lock
from prefvlm_core.runs.published import RUNS_FILE, PublishedRun, published_runs, seed_and_hash
from prefvlm_core.runs.rows import read_labels, read_metrics
from prefvlm_core.runs.stored import find_folders
from prefvlm_core.runs.tables import labels_table, metrics_table, row_of_folder, row_of_today, runs_table

PACKED_FILES = ("manifest.json", "metrics.csv", "labels.csv", "config.json")
"""What the tables hold of a run folder, in the order of removal: without a manifest a folder claims nothing, and with a
config it is found again after a kill."""


@dataclass(frozen=True)
class Packed:
    """What `pack` did to one profile."""

    profile: str
    runs: int
    """Runs that are in the tables now."""
    added: int
    """Those of them that were not there before."""
    removed: int
    """Run folders whose packed files were removed."""

    def __str__(self) -> str:
        removed = f", folders cleared: {self.removed}" if self.removed else ""
        return f"{self.profile}: runs published: {self.runs}, new: {self.added}{removed}"


@dataclass(frozen=True)
class FolderRun:
    """A finished run in a folder of its own, with the row of runs.csv that it gets."""

    path: Path
    row: Mapping[str, str]

    def metrics(self) -> pandas.DataFrame:
        """Rows of its metrics.csv."""
        return pandas.DataFrame(read_metrics(self.path / "metrics.csv"))

    def labels(self) -> pandas.DataFrame | None:
        """Rows of its labels.csv; None where there is none."""
        return read_labels(self.path / "labels.csv")


Run = PublishedRun | FolderRun


def pack(
    results: str | Path, profile: str | None = None, merge: Sequence[Path] = (), remove_folders: bool = False
) -> list[Packed]:
    """Publish the finished runs below `results`, and those that the other results folders `merge` hold in tables or
    folders, and read everything back.

    With `remove_folders`, the files of `results` that the tables hold are then removed; weights and adapters stay.
    Raises `PrefVLMError` where there is no run, where one is stored twice with different content, or where a table is
    damaged; then nothing was changed.
    """
    sources = [Path(results), *merge]
    for source in sources:
        if not source.is_dir():
            raise PrefVLMError(f"There is no results folder {source}.")
    packed = [_pack_profile(sources, name, remove_folders) for name in PROFILES if profile in (None, name)]
    if not any(done.runs for done in packed):
        where = ", ".join(str(source / (profile or "")) for source in sources)
        raise PrefVLMError(f"There is no finished run to publish below {where}.")
    return [done for done in packed if done.runs]


def _pack_profile(sources: Sequence[Path], profile: str, remove_folders: bool) -> Packed:
    if not any((source / profile).is_dir() for source in sources):
        return Packed(profile, 0, 0, 0)
    folder = sources[0] / profile
    write_probe(folder)
    with file_lock(folder / ".lock"):
        for place in (folder, *folder.glob("metrics/*"), *folder.glob("labels/*")):
            remove_temporary_files(place)
        runs = _runs(sources, profile)
        before = published_runs(folder).keys()
        _write_tables(folder, runs)
        _check_tables(folder, runs)
        removed = sum(_remove(directory) for directory in find_folders(sources[0], profile)) if remove_folders else 0
    return Packed(profile, len(runs), len(runs.keys() - before), removed)


def _runs(sources: Sequence[Path], profile: str) -> dict[str, Run]:
    """Every run to be in the tables by name, in their order. Raises `PrefVLMError` for a run with two contents."""
    found: dict[str, Run] = {}
    for source in sources:
        runs: list[Run] = [
            PublishedRun(run.folder, row_of_today(run)) for run in published_runs(source / profile).values()
        ]
        folders = [directory for directory in find_folders(source, profile) if _complete(directory, source)]
        for run in [*runs, *(FolderRun(directory.path, row_of_folder(directory)) for directory in folders)]:
            run_id = run.row["run_id"]
            if found.setdefault(run_id, run).row != run.row:
                raise PrefVLMError(
                    f"{run_id} is stored twice with different content, the second time below {source}; move one of the "
                    "two away."
                )
    return {run_id: found[run_id] for run_id in sorted(found, key=_order)}


def _order(run_id: str) -> tuple[str, str, int, str]:
    _, task, method, name = run_id.split("/")
    return task, method, *seed_and_hash(name)


def _complete(directory: RunDirectory, results: Path) -> bool:
    """Whether a folder holds a finished run, and nothing is left of a fleet killed while it declared its runs
    finished."""
    manifest = read_manifest(directory.path / "manifest.json")
    fleet = manifest.get("fleet")
    return manifest.get("status") == FINISHED and not (fleet and FleetCheckpoint(results, fleet).file.exists())


def _write_tables(folder: Path, runs: Mapping[str, Run]) -> None:
    for (task, method), group in itertools.groupby(runs.values(), key=lambda run: (run.row["task"], run.row["method"])):
        of_method = {run.row["run_id"]: run for run in group}
        metrics = {run_id: run.metrics() for run_id, run in of_method.items()}
        _replace(folder / "metrics" / task / f"{method}.csv", metrics_table(metrics))
        for seed, of_seed in itertools.groupby(of_method.values(), key=lambda run: run.row["seed"]):
            labels = {run.row["run_id"]: rows for run in of_seed if (rows := run.labels()) is not None}
            if labels:
                _replace(folder / "labels" / task / f"{method}-{seed}.parquet", labels_table(labels))
    _replace(folder / RUNS_FILE, runs_table([run.row for run in runs.values()]))


def _replace(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _check_tables(folder: Path, runs: Mapping[str, Run]) -> None:
    """Raise `PrefVLMError` unless the tables hold exactly these runs, each with the content its row names."""
    published = published_runs(folder)
    if {run_id: run.row for run_id, run in published.items()} != {run_id: run.row for run_id, run in runs.items()}:
        raise PrefVLMError(f"{folder / RUNS_FILE} was not stored as it was written; pack again.")
    for run in published.values():
        run.metrics()
        run.labels()


def _remove(directory: RunDirectory) -> bool:
    """Remove the packed files of a folder whose run is published, and the folder where nothing else is in it.

    A folder with a manifest that is not `finished` holds something else, and one that is in use stays until next time.
    """
    manifest = read_manifest(directory.path / "manifest.json")
    if directory.published is None or manifest.get("status", FINISHED) != FINISHED:
        return False
    try:
        with file_lock(directory.lock, timeout=0):
            for name in PACKED_FILES:
                (directory.path / name).unlink(missing_ok=True)
            directory.lock.unlink()
    except Timeout:
        return False
    with suppress(OSError):  # as long as something is left in one of them
        for folder in (directory.path, *list(directory.path.parents)[:2]):
            folder.rmdir()
    return True
