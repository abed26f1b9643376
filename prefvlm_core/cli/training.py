"""Commands that train: runs, experiments, fleets, everything, the VLM that comes with the package, and benchmarks."""

from __future__ import annotations

import time
import typing
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from prefvlm_core.cli.options import Combinations, Profile, Results, Shared
from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name
from prefvlm_core.config.fields import check_number
from prefvlm_core.config.fleets import FLEET_SIZE
from prefvlm_core.config.run import PROCESSES_PER_CORE, Execution


@dataclass(frozen=True)
class Train(Combinations):
    """Train every combination of the given tasks, methods and seeds together. Finished runs are kept, and interrupted
    ones continue from their last checkpoint."""

    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        configs = self.configs()

        from prefvlm_core.experiments.fleets import fleets  # slow to import: a wrong name has been answered by now
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
        from prefvlm_core.experiments.grids import EXPERIMENTS

        EXPERIMENTS.check(self.name)

        from prefvlm_core.experiments.fleets import configs_of  # slow to import, see `Train`
        from prefvlm_core.experiments.plan import train_missing

        train_missing(configs_of(self.name, self.profile), self.execution)
        return 0


@dataclass(frozen=True)
class Fleet:
    """Train the missing runs of one fleet, as each training step of `prefvlm reproduce` does."""

    name: tyro.conf.Positional[str]
    """Fleet, by the name that `prefvlm runs --planned` shows."""
    profile: Profile = "quick"
    fleet_size: int = FLEET_SIZE
    """Number of runs of a fleet at most, as the batch has it to which the fleet belongs."""
    execution: Shared = field(default_factory=Execution)

    def run(self) -> int:
        check_number("fleet_size", self.fleet_size, least=1)

        from prefvlm_core.experiments import batch
        from prefvlm_core.experiments.fleets import profile_fleets
        from prefvlm_core.train import train

        planned = profile_fleets(self.profile, self.fleet_size)
        if self.name not in planned:
            raise unknown_name("fleet", self.name, planned)
        started = time.monotonic()
        made = [str(directory.path) for directory in train(planned[self.name], self.execution)]
        batch.write_record(self.execution.results, self.profile, self.name, time.monotonic() - started, made)
        return 0


@dataclass(frozen=True)
class Plan:
    """Show what a profile costs from its first run to its last: fleets, runs, steps, labels, frames, memory, disk, and
    hours of this machine, after timing each part of a training for a moment."""

    profile: Profile = "quick"
    cores: int = 0
    """Number of cores to use (0 means all of them)."""

    def run(self) -> int:
        from prefvlm_core.common.machine import one_thread, usable_cores
        from prefvlm_core.experiments.calibration import Calibration
        from prefvlm_core.experiments.costs import table_of
        from prefvlm_core.experiments.fleets import profile_fleets

        check_number("cores", self.cores, most=PROCESSES_PER_CORE * usable_cores())
        with one_thread():
            print(table_of(profile_fleets(self.profile).values(), Calibration(), self.cores or usable_cores()))
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Train every missing run of a profile, execute every notebook, and write the figures and tables. Runs that are
    stored are kept, and an interrupted batch continues where it stopped."""

    profile: Profile = "quick"
    cores: int = 0
    """Number of cores to use on this machine (0 means all of them)."""
    results: Results = "results"
    device: typing.Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are trained: cpu, cuda, or auto, which takes cuda where this machine has one, and so is refused
    where jobs run on others."""
    executor: str = "local"
    """Where jobs run: local (on this machine), or slurm, whose settings are in profiles/slurm, as those of any other
    executor of Snakemake may be."""
    vlm_weights: str = ""
    """Checkpoint file of the VLM that the profile's runs need (profile paper: liv)."""
    scratch: str = ""
    """Folder for the embeddings of frames during training, for example env:TMPDIR for the folder that each job finds in
    TMPDIR (empty: among the results)."""
    fleet_size: int = FLEET_SIZE
    """Number of runs that one job trains together, at most. After a change, unfinished runs begin again."""
    notebooks: tuple[str, ...] = ()
    """Execute only these notebooks, and train what they show (default: all of them, and the tables)."""
    snakemake: tyro.conf.Positional[tuple[str, ...]] = ()
    """Options of Snakemake, after two dashes, for example: -- --default-resources slurm_partition=gpu"""

    def __post_init__(self) -> None:
        if self.snakemake and not self.snakemake[0].startswith("-"):
            raise PrefVLMError(
                f"prefvlm reproduce has no place for {shown(self.snakemake[0])}: options of Snakemake begin with a "
                "dash and come after two dashes."
            )

    def run(self) -> int:
        from prefvlm_core.experiments import batch
        from prefvlm_core.experiments.jobs import Jobs

        if self.executor == batch.LOCAL:
            device = Execution(device=self.device).torch_device().type
        elif self.device == "auto":
            raise PrefVLMError(
                f"--executor {self.executor} needs --device cpu or --device cuda, since auto would go by this machine, "
                "which is not the one that trains."
            )
        else:
            device = self.device
        notebooks = " ".join(self.notebooks)
        jobs = Jobs(self.profile, self.results, device, self.vlm_weights, self.scratch, self.fleet_size, notebooks)
        return batch.reproduce(jobs, self.executor, self.cores, self.snakemake)


@dataclass(frozen=True)
class Pretrain:
    """Train TinyLIV, the VLM that comes with the package, from nothing on scripted experts, and print its
    zero-shot accuracy on each task."""

    variant: typing.Literal["tinyliv2", "tinyliv2-heldout", "tinyliv2-indomain", "tinyliv2-maze"] = "tinyliv2"
    """What it is trained on; prefvlm_core/vlm/weights/tinyliv2.md describes the variants."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; all three take 30 to 45 minutes on a free core. A seed whose weights are there is not trained
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
    """Measure speed and memory beside our peers and the limits, print the table and write <results>/bench.json. Let
    nothing else run on the machine meanwhile."""

    results: str = "results"
    """Folder that holds bench.json."""
    only: tuple[str, ...] = ()
    """Measure only these groups, for example environments methods."""
    quick: bool = False
    """Measure less and fewer times, in at most five minutes on two slow cores, and do not write."""

    def run(self) -> int:
        from prefvlm_core.bench import report

        print(report(self.results, self.only, self.quick))
        return 0
