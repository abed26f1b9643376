"""The command line, generated from the dataclasses: `prefvlm --help`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.config.run import Execution, RunConfig, flatten
from prefvlm_core.experiments import batch
from prefvlm_core.experiments.plan import configs_of, fleets, profile_fleets, train_missing
from prefvlm_core.labelling.agreement import agreement_table, status_table
from prefvlm_core.labelling.database import Database
from prefvlm_core.labelling.files import export_labels, import_labels
from prefvlm_core.labelling.teacher import queue_url
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RunDirectory, find_runs
from prefvlm_core.train import train

Profile = typing.Literal["quick", "laptop", "paper"]
Device = typing.Literal["auto", "cpu", "cuda"]
Shared = Annotated[Execution, tyro.conf.arg(name="")]


def _changes_type(config: type[Any]) -> Any:
    """The fields of a config dataclass as a dictionary that holds only what the user changes."""
    fields: dict[str, Any] = {}
    texts = _field_docstrings(config)
    for name, kind in typing.get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            fields[name] = _changes_type(typing.cast(type, kind))
        elif name not in ("task", "method", "seed", "profile"):
            hint = "(default: the profile's and method's)"
            fields[name] = Annotated[kind, tyro.conf.arg(help=texts[name], help_behavior_hint=hint)]
    changes = typing.TypedDict(f"{config.__name__}Changes", fields, total=False)  # type: ignore[misc]
    changes.__doc__ = config.__doc__
    return changes


def _field_docstrings(config: type[Any]) -> dict[str, str]:
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]).body
    return {
        first.target.id: second.value.value
        for first, second in itertools.pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name)
        if isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }


Changes = _changes_type(RunConfig)


@dataclass(frozen=True)
class Train:
    """Train runs together (tasks x methods x seeds); what is finished is kept, what was interrupted goes on."""

    tasks: tuple[str, ...]
    """Meta-World tasks, for example drawer-close-v3."""
    methods: tuple[str, ...] = ("pebble",)
    """Methods, for example sac pebble."""
    seeds: tuple[int, ...] = (0,)
    """Seeds (>= 0)."""
    profile: Profile = "quick"
    """Where the defaults come from."""
    teacher: str = ""
    """Short for --feedback.teacher, for example human (empty: the profile's and method's)."""
    execution: Shared = field(default_factory=Execution)
    changes: Annotated[Changes, tyro.conf.arg(name="")] = field(default_factory=dict)  # type: ignore[valid-type]

    def run(self) -> int:
        changes = flatten(self.changes) | ({"feedback.teacher": self.teacher} if self.teacher else {})
        configs = [
            run_config(task, method, seed, self.profile, changes)
            for task in self.tasks
            for method in self.methods
            for seed in self.seeds
        ]
        if not configs:
            raise PrefVLMError("Nothing to train: name at least one task, method and seed.")
        for name, fleet in fleets(configs).items():
            for directory in train(fleet, self.execution):
                rows = directory.read_metrics()
                print(f"{directory.path}  success {rows[-1]['success']:.2f}  ({name})")
        return 0


@dataclass(frozen=True)
class Experiment:
    """Train what is missing of an experiment (one notebook's runs)."""

    name: tyro.conf.Positional[str]
    """Experiment, for example 02_learning_curves."""
    profile: Profile = "quick"
    """quick, laptop or paper."""
    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        train_missing(configs_of(self.name, self.profile), self.execution)
        return 0


@dataclass(frozen=True)
class Fleet:
    """Train what is missing of one of a profile's fleets: one step of the batch."""

    name: tyro.conf.Positional[str]
    """Fleet, by the name that `prefvlm runs --planned` shows."""
    profile: Profile = "quick"
    """quick, laptop or paper."""
    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        planned = profile_fleets(self.profile)
        if self.name not in planned:
            raise unknown_name("fleet", self.name, planned)
        started = time.monotonic()
        made = [str(directory.path) for directory in train(planned[self.name], self.execution)]
        batch.write_record(self.execution.results, self.profile, self.name, time.monotonic() - started, made)
        return 0


@dataclass(frozen=True)
class Notebook:
    """Execute an experiment's notebook through papermill and write its figures."""

    name: tyro.conf.Positional[str]
    """Notebook, for example 02_learning_curves."""
    profile: Profile = "quick"
    """quick, laptop or paper."""
    train: bool = True
    """Train missing runs first; otherwise draw what is stored."""
    results: str = "results"
    """Folder that holds every run."""

    def run(self) -> int:
        started = time.monotonic()
        made = batch.notebook_step(self.name, self.profile, self.results, self.train)
        batch.write_record(self.results, self.profile, self.name, time.monotonic() - started, made)
        return 0


@dataclass(frozen=True)
class Figures:
    """Draw every figure again, as far as runs are stored; trains nothing."""

    profile: Profile = "quick"
    """quick, laptop or paper."""
    results: str = "results"
    """Folder that holds every run."""

    def run(self) -> int:
        for notebook in batch.experiments_with_runs(self.profile, self.results):
            for figure in batch.notebook_step(notebook, self.profile, self.results, train=False):
                print(figure)
        return 0


@dataclass(frozen=True)
class Table:
    """Write results/<profile>/table.csv from the runs that are stored."""

    profile: Profile = "quick"
    """quick, laptop or paper."""
    results: str = "results"
    """Folder that holds every run."""

    def run(self) -> int:
        started = time.monotonic()
        made = batch.table_step(self.profile, self.results)
        batch.write_record(self.results, self.profile, "table", time.monotonic() - started, made)
        print(Path(made[0]).read_text(), end="")
        return 0


@dataclass(frozen=True)
class Runs:
    """List runs with their status."""

    profile: Annotated[Profile | None, tyro.conf.arg(metavar="{quick,laptop,paper}", help_behavior_hint="")] = None
    """Only this profile (default: all; with --planned, quick)."""
    planned: bool = False
    """Also list the runs that the experiments of the profile still lack, by fleet."""
    results: str = "results"
    """Folder that holds every run."""

    def run(self) -> int:
        for directory in find_runs(self.results, self.profile):
            manifest, rows = directory.manifest, directory.read_metrics()
            steps, success = (f"{rows[-1]['step']:.0f}", f"{rows[-1]['success']:.2f}") if rows else ("0", "-")
            status = manifest.get("status", "not started")
            print(f"{status:<12}{steps:>9} steps  success {success:>5}  {directory.config.run_id}")
        if self.planned:
            self._print_planned()
        return 0

    def _print_planned(self) -> None:
        for name, configs in profile_fleets(self.profile or "quick").items():
            missing = [config.run_id for config in configs if not RunDirectory(self.results, config).finished]
            print(f"{name}  {len(configs) - len(missing)} of {len(configs)} runs finished")
            for run_id in missing:
                print(f"    missing  {run_id}")


@dataclass(frozen=True)
class Reproduce:
    """Train what is missing, execute every notebook, write figures and tables. Goes on where it was stopped."""

    profile: Profile = "quick"
    """quick (minutes), laptop (hours) or paper (a GPU)."""
    cores: int = 0
    """Cores to use (0 = all)."""
    results: str = "results"
    """Folder that holds every run."""
    device: Device = "auto"
    """cpu, cuda, or auto (cuda where there is one)."""

    def run(self) -> int:
        return batch.reproduce(self.profile, self.results, self.device, self.cores)


@dataclass(frozen=True)
class Labels:
    """The labels of people: how many there are, how far they agree, and files of them.

    status: answers by run and session. agreement: percent and Cohen's kappa between people, with their own repeats,
    with the true reward and the VLM. export, import: a JSONL file, from which a run can be repeated.
    """

    action: tyro.conf.Positional[typing.Literal["status", "agreement", "export", "import"]]
    """What to do."""
    file: Path = Path("labels.jsonl")
    """Label file, for export and import."""
    labels: str = ""
    """Database URL of the label queue (empty: the SQLite file labels.sqlite in the results folder)."""
    results: str = "results"
    """Folder that holds every run."""
    run_id: str = ""
    """Only this run (status, agreement and export; empty: all)."""

    def run(self) -> int:
        database = Database(queue_url(Execution(self.results, labels=self.labels)))
        if self.action == "export":
            print(f"{export_labels(database, self.file, self.run_id)} answers written to {self.file}")
        elif self.action == "import":
            print(f"{import_labels(database, self.file)} answers added to {database.name}")
        else:
            of = status_table if self.action == "status" else agreement_table
            table = of(database, self.run_id)
            print("There are no answers yet." if table.empty else table.to_string(index=False, float_format="%.2f"))
        return 0


@dataclass(frozen=True)
class Pretrain:
    """Train TinyLIV from nothing on Meta-World's scripted experts and print its zero-shot accuracies per task."""

    variant: typing.Literal["tinyliv", "tinyliv-heldout", "tinyliv-indomain"] = "tinyliv"
    """What it is trained on, see prefvlm_core/vlm/weights/tinyliv.md."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; the weights of the first one are kept. One takes about half an hour on two slow cores."""
    output: Path = Path("results/tinyliv")
    """Folder for <variant>.safetensors."""
    evaluation_seed: int = 20260101
    """Seed of the trajectories and pairs it is judged on."""

    def run(self) -> int:
        from prefvlm_core.vlm.pretraining.pretrain import pretrain

        print(pretrain(self.variant, self.seeds, self.output, self.evaluation_seed))
        return 0


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory, print the table and write <results>/bench.json. Leave the machine alone meanwhile."""

    results: str = "results"
    """Folder that holds bench.json."""
    only: tuple[str, ...] = ()
    """Only these groups, for example environments sac."""

    def run(self) -> int:
        from prefvlm_core.bench import report

        print(report(self.results, self.only))
        return 0


COMMANDS: dict[str, Callable[..., Any]] = {
    "train": Train,
    "experiment": Experiment,
    "fleet": Fleet,
    "notebook": Notebook,
    "figures": Figures,
    "table": Table,
    "runs": Runs,
    "reproduce": Reproduce,
    "bench": Bench,
    "labels": Labels,
    "pretrain": Pretrain,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `prefvlm`. Exit code 2 with one line on stderr for anything the user can mend."""
    try:
        command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="prefvlm", description=__doc__, args=arguments)
        code = command.run()
    except PrefVLMError as error:
        print(f"prefvlm: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("prefvlm: stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        code = 130
    sys.exit(code)
