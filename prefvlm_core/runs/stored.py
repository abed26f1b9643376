"""Every stored run, published or in a folder of its own, and their metrics and labels as tidy tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.directory import RunDirectory, misplaced, read_config
from prefvlm_core.runs.published import RUNS_FILE, published_runs

if TYPE_CHECKING:  # imported where tables are read: who lists runs has no time for it
    import pandas


class StoredRun(Protocol):
    """A run as it is stored: a `RunDirectory` or a `PublishedRun`."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def run_id(self) -> str: ...
    @property
    def retired(self) -> Mapping[str, Any]: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def last_evaluation(self) -> Mapping[str, float]: ...
    def metrics(self) -> pandas.DataFrame: ...
    def labels(self) -> pandas.DataFrame | None: ...


def find_runs(results: str | Path, profile: str | None = None) -> list[StoredRun]:
    """Every run stored below `results`, in order of name, retired ones too. Raises `PrefVLMError` for a config that
    cannot be read."""
    runs: dict[str, StoredRun] = {}
    for path in Path(results).glob(f"{profile or '*'}/{RUNS_FILE}"):
        runs |= published_runs(path.parent)
    for path in _config_files(results, profile):
        if str(path.parent.relative_to(results)) not in runs:
            directory = _read_folder(results, path)
            runs.setdefault(directory.run_id, directory)
    return [runs[run_id] for run_id in sorted(runs, key=lambda run_id: run_id.split("/"))]


def find_folders(results: str | Path, profile: str | None = None) -> list[RunDirectory]:
    """Every run folder below `results`, in order of path, those of published runs too. Raises `PrefVLMError` for a
    config that cannot be read or that its folder is not named after."""
    return [_read_folder(results, path) for path in _config_files(results, profile)]


def _config_files(results: str | Path, profile: str | None) -> list[Path]:
    return sorted(Path(results).glob(f"{profile or '*'}/*/*/*/config.json"))


def _read_folder(results: str | Path, path: Path) -> RunDirectory:
    stored = read_config(path)
    directory = RunDirectory(results, stored.config, stored)
    if directory.path != path.parent:
        raise misplaced(path)
    return directory


def load_metrics(runs: Sequence[StoredRun]) -> pandas.DataFrame:
    """Tidy metrics of runs, one row per evaluation, with `profile, task, method, seed, budget, run_id, retired` in
    front.

    `step` counts environment steps, so that runs with and without `action_repeat` compare; stored are the agent's.
    `retired` names fields that a run was trained with and that no longer exist, as "filter.mode=calibrated"; it is
    empty for every other run. Raises `PrefVLMError` for rows that are damaged.
    """
    tables = []
    for run in runs:
        table = run.metrics()
        if not table.empty:
            table = table.assign(step=table["step"] * run.config.action_repeat)
        tables.append((run, table))
    return _together(tables)


def load_labels(runs: Sequence[StoredRun]) -> pandas.DataFrame:
    """Label logs of the runs that have one, one row per label, with the same columns in front as `load_metrics`."""
    logs = [(run, run.labels()) for run in runs]
    return _together((run, log) for run, log in logs if log is not None)


def fields_text(fields: Mapping[str, Any]) -> str:
    """Dotted fields as people read them: "filter.mode=calibrated, filter.soft_labels=True"."""
    return ", ".join(f"{name}={value}" for name, value in sorted(fields.items()))


def _together(tables: Iterable[tuple[StoredRun, pandas.DataFrame]]) -> pandas.DataFrame:
    import pandas

    frames = []
    for run, rows in tables:
        names = {
            "profile": run.config.profile,
            "task": run.config.task,
            "method": run.config.method,
            "seed": run.config.seed,
            "budget": run.config.feedback.budget,
            "run_id": run.run_id,
            "retired": fields_text(run.retired),
        }
        frames.append(pandas.concat([pandas.DataFrame(names, index=rows.index), rows], axis=1))
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()
