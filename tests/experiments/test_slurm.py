"""A batch on a real SLURM, on this machine: cancelled and hanging jobs, and those of a lost node, end as others do."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest
from builders.runs import SMALL, content_hash, quiet

from prefvlm_core.config.run import RunConfig
from prefvlm_core.experiments.batch import read_record, record_path
from prefvlm_core.methods import run_config
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.train import train

ROOT = Path(__file__).parents[2]
SHORT = SMALL | {"total_steps": 1_000, "feedback.session_every": 200, "feedback.budget": 40}
GRID = f"""
from prefvlm_core.config.run import Execution
from prefvlm_core.experiments.arms import Arm
from prefvlm_core.experiments.grids import EXPERIMENTS, Grid
for grids in EXPERIMENTS.values():
    del grids["quick"]
arms = [Arm("pebble", {SHORT}), Arm("prefvlm", {SHORT})]
EXPERIMENTS["02_learning_curves"]["quick"] = Grid({{"button-press-v3": arms}}, [0])
check = Execution.__post_init__
def save_often(execution):
    object.__setattr__(execution, "checkpoint_seconds", 0.0)
    check(execution)
Execution.__post_init__ = save_often
"""
"""What every Python process of the batch does first: profile quick is two short runs, and every episode is saved."""
CONFIGS = [run_config("button-press-v3", method, 0, "quick", SHORT) for method in ("pebble", "prefvlm")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands find a cluster of two nodes, n1 and n2."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="no SLURM plugin: pip install prefvlm[slurm]")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=path)]:
        pytest.skip(f"no {missing[0]}: apt-get install munge slurmctld slurmd slurm-client")
    script = [str(ROOT / "tools" / "slurm_on_localhost.sh"), "sh", "-c", "echo $SLURM_CONF $PATH; cat"]
    process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    yield dict(os.environ) | dict(zip(("SLURM_CONF", "PATH"), process.stdout.readline().split(), strict=True))
    process.stdin.close()  # ends `cat`, and with it the cluster
    assert process.wait(120) == 0
    process.stdout.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose profile quick is small, with a notebook that draws nothing."""
    for name in ("Snakefile", "profiles", "prefvlm_core"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "sitecustomize.py").write_text(GRID, encoding="utf-8")
    parameters = nbformat.v4.new_code_cell(
        'profile = results = figures = ""\ntrain = False', metadata={"tags": ["parameters"]}
    )
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell("print(profile)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "02_learning_curves.ipynb")
    return tmp_path


@dataclass
class Job:
    """A job that SLURM has, of one run."""

    number: str
    node: str


@dataclass
class Watched:
    """What happens to the fleet of one run."""

    checkout: Path
    environment: dict[str, str]
    config: RunConfig
    fleet: str
    batch: subprocess.Popen[bytes]

    def step(self) -> int:
        """The step of the last checkpoint."""
        checkpoint = FleetCheckpoint(self.checkout / "results", [self.config.run_id]).file
        return int(read_tensors(checkpoint).metadata["step"]) if checkpoint.exists() else 0

    def job(self) -> Job | None:
        """The job that trains it now."""
        return next(iter(self.jobs("running")), None)

    def after(self, job: Job) -> Job:
        """The job that went on where another ended."""
        return next(each for each in self.jobs("all") if int(each.number) > int(job.number))

    def jobs(self, states: str) -> list[Job]:
        """Its jobs in these states, in the order in which SLURM took them."""
        listed = asked(self.environment, "squeue", "--noheader", f"--states={states}", "--sort=i", "--format=%i|%k|%N")
        jobs = [line.split("|") for line in listed.splitlines() if self.fleet in line]
        return [Job(number, node) for number, _, node in jobs]

    def running_past(self, step: int) -> Job:
        """Wait for a checkpoint later than `step`, and return the job that goes on from there."""
        wait_for(lambda: self.batch.poll() is not None or (self.step() > step and self.job() is not None))
        job = self.job()
        assert job is not None, (self.checkout / "said").read_text(encoding="utf-8")
        return job

    def first_step(self, job: Job) -> int:
        """The step at which a job began, by the first state of its progress bar."""
        (log,) = self.checkout.glob(f".snakemake/slurm_logs/rule_fleet/{self.fleet}/{job.number}.log")
        shown = re.search(r"1 runs:[^|]*\|[^|]*\| (\d+)/1000", log.read_text(encoding="utf-8"))
        assert shown is not None
        return int(shown[1])


def asked(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def state_of(environment: dict[str, str], job: Job) -> str:
    found = re.search(r"JobState=(\w+)", asked(environment, "scontrol", "show", "job", job.number))
    assert found is not None
    return found[1]


def processes_of(fleet: str) -> list[psutil.Process]:
    """The processes that train a fleet."""
    listed = psutil.process_iter(["cmdline"])
    return [
        each
        for each in listed
        if {"fleet", fleet} <= set(each.info["cmdline"] or []) and "--results" in each.info["cmdline"]
    ]


@pytest.mark.slow
def test_a_batch_survives_a_cancelled_job_a_hanging_one_and_a_lost_node(
    cluster: dict[str, str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = cluster | {"PYTHONPATH": os.pathsep.join([str(checkout / "startup"), str(ROOT)])}
    command = [sys.executable, "-m", "prefvlm_core", "reproduce", "--executor", "slurm", "--device", "cpu"]
    command += ["--fleet-size", "1", "--notebooks", "02_learning_curves"]
    command += ["--", "--slurm-init-seconds-before-status-checks", "2", "--default-resources", "slurm_partition=local"]
    batch = begin(command, checkout, environment)
    try:
        first, second = watched(checkout, environment, batch)
        ended = first.running_past(0)
        batch.terminate()
        assert batch.wait(120) == 143
        assert asked(environment, "squeue", "--noheader", "--states=pending,running") == ""
        at_end = first.step()

        first.batch = second.batch = batch = begin(command, checkout, environment)
        cancelled = first.running_past(at_end)
        asked(environment, "scancel", cancelled.number)
        lost = second.running_past(0)
        asked(environment, "scontrol", "update", f"nodename={lost.node}", "state=down", "reason=test")
        wait_for(lambda: state_of(environment, lost) == "NODE_FAIL")
        at_first, at_second = first.step(), second.step()

        hanging = first.running_past(at_first)
        for process in processes_of(first.fleet):
            process.send_signal(signal.SIGSTOP)
        stopped_at = first.step()
        asked(environment, "scontrol", "update", f"jobid={hanging.number}", "timelimit=1")
        wait_for(lambda: state_of(environment, hanging) == "TIMEOUT")

        assert batch.wait(900) == 0, (checkout / "said").read_text()
    finally:
        batch.terminate()
        batch.wait()
    outcomes = [
        ("ended batch", state_of(environment, ended), at_end, first.first_step(first.after(ended))),
        ("cancelled", state_of(environment, cancelled), at_first, first.first_step(first.after(cancelled))),
        ("hanging", state_of(environment, hanging), stopped_at, first.first_step(first.after(hanging))),
        ("lost node", state_of(environment, lost), at_second, second.first_step(second.after(lost))),
    ]
    with capsys.disabled():
        print("\n", *outcomes, sep="\n")
    assert [state for _, state, _, _ in outcomes] == ["CANCELLED", "CANCELLED", "TIMEOUT", "NODE_FAIL"]
    assert [begun for *_, begun in outcomes] == [saved for *_, saved, _ in outcomes] and at_end > 0 < at_second
    assert {record_path(checkout / "results", "quick", name).exists() for name in (first.fleet, second.fleet)} == {True}
    assert read_record(record_path(checkout / "results", "quick", "02_learning_curves")).step == "02_learning_curves"
    on_cluster = [content_hash(RunDirectory(checkout / "results", config)) for config in CONFIGS]
    alone = [content_hash(*train([config], quiet(checkout / "alone"))) for config in CONFIGS]
    assert on_cluster == alone


def begin(command: list[str], checkout: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (checkout / "said").open("a") as said:
        return subprocess.Popen(command, cwd=checkout, env=environment, stdout=said, stderr=said)


def watched(checkout: Path, environment: dict[str, str], batch: subprocess.Popen[bytes]) -> list[Watched]:
    """The two fleets, by the command that asks for their names in the small profile."""
    code = (
        "from prefvlm_core.experiments.fleets import profile_fleets\n"
        "print(*(f'{name} {config.run_id}' for name, (config,) in profile_fleets('quick', 1).items()), sep='\\n')"
    )
    names = asked(environment, sys.executable, "-c", code).split()
    fleet_of = dict(zip(names[1::2], names[::2], strict=True))
    return [Watched(checkout, environment, config, fleet_of[config.run_id], batch) for config in CONFIGS]
