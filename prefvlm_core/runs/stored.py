"""Every stored run, and their metrics and labels as tidy tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas

from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.directory import RunDirectory, misplaced, read_config


def find_runs(results: str | Path, profile: str | None = None) -> list[RunDirectory]:
    """Every run stored below `results`, in order of path. Raises `PrefVLMError` for a config that cannot be read."""
    pattern = f"{profile or '*'}/*/*/*/config.json"
    directories = []
    for path in sorted(Path(results).glob(pattern)):
        stored = read_config(path)
        if Path(results) / stored.stored_id != path.parent:
            raise misplaced(path)
        directories.append(RunDirectory(results, stored.config))
        directories[-1].path = path.parent
    return directories


def load_metrics(directories: Sequence[RunDirectory]) -> pandas.DataFrame:
    """Tidy metrics of runs, one row per evaluation, with `profile, task, method, seed, budget, run_id` in front.

    `step` counts environment steps, so that runs with and without `action_repeat` compare; stored are the agent's.
    """
    tables = []
    for directory in directories:
        table = pandas.DataFrame(directory.read_metrics())
        if not table.empty:
            table["step"] *= directory.config.action_repeat
        tables.append((directory.config, table))
    return _together(tables)


def load_labels(directories: Sequence[RunDirectory]) -> pandas.DataFrame:
    """Label logs of the runs that have one, one row per label, with the same columns in front as `load_metrics`."""
    paths = [(directory.config, directory.path / "labels.csv") for directory in directories]
    return _together(
        (config, pandas.read_csv(path, keep_default_na=False, na_values={"divergence": [""]}))
        for config, path in paths
        if path.exists()
    )


def _together(tables: Iterable[tuple[RunConfig, pandas.DataFrame]]) -> pandas.DataFrame:
    frames = []
    for config, frame in tables:
        names = {
            "profile": config.profile,
            "task": config.task,
            "method": config.method,
            "seed": config.seed,
            "budget": config.feedback.budget,
            "run_id": config.run_id,
        }
        for position, (name, value) in enumerate(names.items()):
            frame.insert(position, name, value)
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()
