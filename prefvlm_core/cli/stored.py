"""Commands that show, draw or publish what is stored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from prefvlm_core.cli.options import AnyProfile, Profile, Results
from prefvlm_core.common.errors import PrefVLMError


@dataclass(frozen=True)
class Runs:
    """List the stored runs with their status, steps and last success rate."""

    profile: AnyProfile = None
    """List only the runs of this profile (default: all of them; with --planned, those of quick)."""
    planned: bool = False
    """List as well, fleet by fleet, the runs that the experiments of the profile still lack."""
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.runs.stored import run_lines

        if not self.planned and not Path(self.results).is_dir():
            raise PrefVLMError(f"There is no folder {self.results}; --results names the one that holds the runs.")
        lines = list(run_lines(self.results, self.profile))
        print(*lines or [f"No run is stored below {Path(self.results).resolve()}."], sep="\n")
        if self.planned:
            from prefvlm_core.experiments.plan import planned_lines

            print(*planned_lines(self.profile or "quick", self.results), sep="\n")
        return 0


@dataclass(frozen=True)
class Figures:
    """Draw every figure again from the stored runs, without training anything."""

    profile: Profile = "quick"
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.experiments import batch

        for drawn in batch.draw_figures(self.profile, self.results):
            print(*drawn, sep="\n", flush=True)
        return 0


@dataclass(frozen=True)
class Table:
    """Compute results/<profile>/table.csv from the stored runs and print it."""

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
    """Notebook, for example 02_learning_curves."""
    profile: Profile = "quick"
    train: bool = True
    """Train missing runs first; otherwise draw what is stored."""
    results: Results = "results"

    def run(self) -> int:
        from prefvlm_core.experiments import batch

        started = time.monotonic()
        made = batch.notebook_step(self.name, self.profile, self.results, self.train)
        batch.write_record(self.results, self.profile, self.name, time.monotonic() - started, made)
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
