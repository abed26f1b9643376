"""Commands that show, draw or publish what is stored."""

from __future__ import annotations

import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from prefvlm_core.cli.options import AnyProfile, Profile, Results
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import check_task

ALL = tyro.conf.arg(help_behavior_hint="(default: all)")
Status = typing.Literal["finished", "running", "not-started", "retired"]


@dataclass(frozen=True)
class Runs:
    """List the stored runs: their status, length, last success rate and name, and in which fields they differ from most
    of the runs of their task and method."""

    tasks: Annotated[tuple[str, ...], ALL] = ()
    """Only runs of these tasks."""
    methods: Annotated[tuple[str, ...], ALL] = ()
    """Only runs of these methods."""
    seeds: Annotated[tuple[int, ...], ALL] = ()
    """Only runs of these seeds."""
    profile: AnyProfile = None
    """Only runs of this profile (default: all; with --planned, quick)."""
    status: Annotated[tuple[Status, ...], ALL] = ()
    """Only stored runs with this status; running is what was begun and is not finished."""
    experiment: Annotated[str, ALL] = ""
    """Only runs of this experiment, for example 02_learning_curves, with the names of their arms."""
    planned: bool = False
    """List as well, fleet by fleet, the runs that the experiments of the profile still lack."""
    results: Results = "results"

    def run(self) -> int:
        self._check_names()
        if not self.planned and not Path(self.results).is_dir():
            raise PrefVLMError(f"There is no folder {self.results}; --results names the one that holds the runs.")

        from prefvlm_core.runs.listing import run_lines, status_of
        from prefvlm_core.runs.stored import find_runs

        arms = self._arms()
        stored = find_runs(self.results, self.profile)
        listed = [
            run
            for run in stored
            if self._wants(run.config, run.run_id, arms) and (not self.status or status_of(run) in self.status)
        ]
        if listed:
            print(*run_lines(listed, arms), sep="\n")
        else:
            none = f"None of the {len(stored)} runs fits that are" if stored else "No run is"
            print(f"{none} stored below {Path(self.results).resolve()}.")
        if self.planned:
            from prefvlm_core.experiments.plan import planned_lines

            def wanted(config: RunConfig) -> bool:
                return self._wants(config, config.run_id, arms)

            print(*planned_lines(self.profile or "quick", self.results, wanted), sep="\n")
        return 0

    def _check_names(self) -> None:
        for task in self.tasks:
            check_task(task)
        if self.experiment:
            from prefvlm_core.experiments.grids import EXPERIMENTS

            EXPERIMENTS.check(self.experiment)

    def _arms(self) -> dict[str, str] | None:
        """The names of the arms of an experiment's runs by run_id, "" of those whose adapters others start from."""
        if not self.experiment:
            return None
        from prefvlm_core.experiments.plan import arm_names

        return arm_names(self.experiment, self.profile)

    def _wants(self, config: RunConfig, run_id: str, arms: Mapping[str, str] | None) -> bool:
        return (
            (not self.tasks or config.task in self.tasks)
            and (not self.methods or config.method in self.methods)
            and (not self.seeds or config.seed in self.seeds)
            and (arms is None or run_id in arms)
        )


@dataclass(frozen=True)
class Figures:
    """Draw every figure again from the stored runs, without training anything."""

    profile: Profile = "quick"
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.common.progress import tqdm
        from prefvlm_core.experiments import batch

        for drawn in batch.draw_figures(self.profile, self.results):
            tqdm.write("\n".join(drawn))
        return 0


@dataclass(frozen=True)
class Table:
    """Write the tables of results/<profile> from the stored runs and print table.csv; for profile laptop, also write
    the texts that are made from them: README.md, NOTES.md and pages of docs."""

    profile: Profile = "quick"
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.experiments import batch

        started = time.monotonic()
        made = batch.table_step(self.profile, self.results)
        batch.write_record(self.results, self.profile, "table", time.monotonic() - started, made)
        print(Path(made[0]).read_text(encoding="utf-8"), end="")
        return 0


@dataclass(frozen=True)
class Notebook:
    """Execute one experiment's notebook with papermill, which writes its figures."""

    name: tyro.conf.Positional[str]
    """Notebook, for example 02_learning_curves or notebooks/02_learning_curves.ipynb."""
    profile: Profile = "quick"
    train: bool = True
    """Train missing runs first; otherwise draw what is stored."""
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.experiments.project import check_notebook

        name = self.name.removeprefix("notebooks/").removesuffix(".ipynb")
        check_notebook(Path("notebooks") / f"{name}.ipynb")

        from prefvlm_core.experiments import batch  # slow to import: a wrong name has been answered by now

        started = time.monotonic()
        made = batch.notebook_step(name, self.profile, self.results, self.train, progress=True)
        batch.write_record(self.results, self.profile, name, time.monotonic() - started, made)
        return 0


@dataclass(frozen=True)
class Pack:
    """Publish the finished runs as tables below results/<profile>: runs.csv, metrics and labels."""

    profile: AnyProfile = None
    """Publish only the runs of this profile (default: all of them)."""
    results: Results = "results"
    merge: tuple[Path, ...] = ()
    """Other results folders, whose runs are added, for example those of another machine."""
    remove_folders: bool = False
    """Remove what the tables hold from the run folders, once it was read back. Weights and adapters stay."""

    def run(self) -> int:
        from prefvlm_core.runs.pack import pack

        for folder in self.merge:
            if not folder.is_dir():
                raise PrefVLMError(f"There is no folder {folder}; --merge names other results folders.")
        for packed in pack(self.results, self.profile, self.merge, self.remove_folders):
            print(packed)
        return 0
