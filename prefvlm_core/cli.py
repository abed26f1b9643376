"""The command line: one dataclass per command, from which its options and its help are generated.

`prefvlm --help` must answer at once, so whatever imports torch, MuJoCo or pandas is imported by the command that needs
it, in its `run`.
"""

from __future__ import annotations

import sys
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from prefvlm_core import __version__
from prefvlm_core.common.console import exit_code
from prefvlm_core.common.errors import PrefVLMError, check_path, unknown_name
from prefvlm_core.config.arguments import parse
from prefvlm_core.config.options import changes_type
from prefvlm_core.config.run import Execution, RunConfig, flatten

DESCRIPTION = """Train robots from a vision-language model's preferences and few human labels.

An open reproduction of PrefVLM (arXiv 2502.01616) and of its baselines.

Type first:
    prefvlm reproduce                        everything, at the smallest scale
    prefvlm train --tasks drawer-close-v3    one run
    prefvlm train --help                     the options of a command
    prefvlm --version                        the version"""

ProfileName = typing.Literal["quick", "laptop", "paper"]
Profile = Annotated[ProfileName, tyro.conf.arg(help="The scale: quick takes minutes, laptop hours, and paper a GPU.")]
Results = Annotated[str, tyro.conf.arg(help="Folder that holds every run.")]
Shared = Annotated[Execution, tyro.conf.arg(name="")]
Changes = changes_type(RunConfig)


@dataclass(frozen=True)
class Train:
    """Train every combination of the given tasks, methods and seeds together. Finished runs are kept, and interrupted
    ones continue from their last checkpoint."""

    tasks: tuple[str, ...]
    """Meta-World tasks, for example drawer-close-v3."""
    methods: tuple[str, ...] = ("pebble",)
    """Methods, for example sac pebble."""
    seeds: tuple[int, ...] = (0,)
    """Seeds (>= 0)."""
    profile: Profile = "quick"
    teacher: str = ""
    """Who answers queries, for example human: short for --feedback.teacher (empty: as the profile and method say)."""
    execution: Shared = field(default_factory=Execution)
    changes: Annotated[Changes, tyro.conf.arg(name="")] = field(default_factory=dict)  # type: ignore[valid-type]

    def run(self) -> int:
        from prefvlm_core.methods import run_config

        changes = flatten(self.changes)
        if self.teacher and changes.setdefault("feedback.teacher", self.teacher) != self.teacher:
            raise PrefVLMError(
                f"--teacher {self.teacher} contradicts --feedback.teacher {changes['feedback.teacher']}; give only one."
            )
        configs = [
            run_config(task, method, seed, self.profile, changes)
            for task in self.tasks
            for method in self.methods
            for seed in self.seeds
        ]
        if not configs:
            raise PrefVLMError("Nothing to train: name at least one task, method and seed.")

        from prefvlm_core.experiments.plan import fleets  # slow to import: a wrong name has been answered by now
        from prefvlm_core.train import train

        for name, fleet in fleets(configs).items():
            for directory in train(fleet, self.execution):
                rows = directory.read_metrics()
                print(f"{directory.path}  success {rows[-1]['success']:.2f}  ({name})")
        return 0


@dataclass(frozen=True)
class Experiment:
    """Train the missing runs of one experiment, which is what one notebook shows."""

    name: tyro.conf.Positional[str]
    """Experiment, for example 02_learning_curves."""
    profile: Profile = "quick"
    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        from prefvlm_core.experiments.plan import configs_of, train_missing

        train_missing(configs_of(self.name, self.profile), self.execution)
        return 0


@dataclass(frozen=True)
class Fleet:
    """Train the missing runs of one fleet, as each training step of `prefvlm reproduce` does."""

    name: tyro.conf.Positional[str]
    """Fleet, by the name that `prefvlm runs --planned` shows."""
    profile: Profile = "quick"
    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        from prefvlm_core.experiments import batch
        from prefvlm_core.experiments.plan import profile_fleets
        from prefvlm_core.train import train

        planned = profile_fleets(self.profile)
        if self.name not in planned:
            raise unknown_name("fleet", self.name, planned)
        started = time.monotonic()
        made = [str(directory.path) for directory in train(planned[self.name], self.execution)]
        batch.write_record(self.execution.results, self.profile, self.name, time.monotonic() - started, made)
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
class Runs:
    """List the stored runs with their status, steps and last success rate."""

    profile: Annotated[ProfileName | None, tyro.conf.arg(metavar="{quick,laptop,paper}", help_behavior_hint="")] = None
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
class Pack:
    """Publish the finished runs as tables below results/<profile>: runs.csv, metrics and labels."""

    profile: Annotated[ProfileName | None, tyro.conf.arg(metavar="{quick,laptop,paper}", help_behavior_hint="")] = None
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


@dataclass(frozen=True)
class Reproduce:
    """Train every missing run of a profile, execute every notebook, and write the figures and tables. Runs that are
    stored are kept, and an interrupted batch continues where it stopped."""

    profile: Profile = "quick"
    cores: int = 0
    """Number of cores to use (0 means all of them)."""
    results: Results = "results"
    device: typing.Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are trained: cpu, cuda, or auto, which takes cuda where there is one."""

    def run(self) -> int:
        from prefvlm_core.experiments import batch

        return batch.reproduce(self.profile, self.results, self.device, self.cores)


@dataclass(frozen=True)
class Labels:
    """Count, compare, export or import the labels that people gave."""

    action: tyro.conf.Positional[typing.Literal["status", "agreement", "export", "import"]]
    """status counts the answers of each run and session; agreement gives the percentage and Cohen's kappa between
    people, with their own repeated answers, with the true reward and with the VLM; export writes a JSONL file, and
    import reads one, from which the same run can be trained again."""
    file: Path = Path("labels.jsonl")
    """Label file to export to or import from."""
    labels: str = ""
    """Database URL of the label queue, or env:NAME for the URL in the environment variable NAME (empty: the SQLite file
    labels.sqlite in the results folder)."""
    results: Results = "results"
    run_id: str = ""
    """Only this run, for status, agreement and export (empty: every run)."""

    def run(self) -> int:
        from prefvlm_core.labelling.actions import perform

        print(perform(self.action, Execution(self.results, labels=self.labels), self.file, self.run_id))
        return 0


@dataclass(frozen=True)
class Pretrain:
    """Train TinyLIV, the VLM that comes with the package, from nothing on Meta-World's scripted experts, and print its
    zero-shot accuracy on each task."""

    variant: typing.Literal["tinyliv2", "tinyliv2-heldout", "tinyliv2-indomain"] = "tinyliv2"
    """What it is trained on; prefvlm_core/vlm/weights/tinyliv2.md describes the variants."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; all three take about half an hour on a free core. A seed whose weights are there is not trained
    again."""
    output: str = "results/tinyliv"
    """Folder for seed<n>/<variant>.safetensors."""
    evaluation_seed: int = 20261125
    """Seed of the trajectories and pairs on which the accuracy is measured."""

    def run(self) -> int:
        from prefvlm_core.vlm.pretraining.pretrain import pretrain

        print(pretrain(self.variant, self.seeds, Path(self.output), self.evaluation_seed))
        return 0


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory, print the table and write <results>/bench.json. Let nothing else run on the machine
    meanwhile."""

    results: str = "results"
    """Folder that holds bench.json."""
    only: tuple[str, ...] = ()
    """Measure only these groups, for example environments methods."""

    def run(self) -> int:
        from prefvlm_core.bench import report

        print(report(self.results, self.only))
        return 0


COMMANDS: dict[str, Callable[..., Any]] = {
    "reproduce": Reproduce,
    "train": Train,
    "runs": Runs,
    "pack": Pack,
    "figures": Figures,
    "table": Table,
    "labels": Labels,
    "experiment": Experiment,
    "notebook": Notebook,
    "fleet": Fleet,
    "pretrain": Pretrain,
    "bench": Bench,
}
"""By name, in the order of the help: what is typed first stands first."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `prefvlm`. The exit code is 2, with one line on stderr, for anything that the user can mend."""
    sys.exit(exit_code(lambda: _run_command(sys.argv[1:] if arguments is None else arguments)))


def _run_command(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit code."""
    if list(arguments) == ["--version"]:
        print(__version__)
        return 0
    command = parse(COMMANDS, arguments or ["--help"], DESCRIPTION)
    for name, folder in (("results", True), ("output", True), ("file", False)):
        if hasattr(command, name):
            check_path(f"--{name}", getattr(command, name), folder)
    return command.run()


if __name__ == "__main__":
    main()
