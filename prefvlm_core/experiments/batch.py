"""Batch work: notebooks through papermill, the table, and the record of what each step made.

Snakemake decides what has to be done (see `Snakefile`); each step here leaves one small JSON record in
`results/<profile>/.done/`, which is all that Snakemake watches. Run directories, tables and figures are never declared
to it, since it deletes a step's declared outputs before the step runs.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from filelock import Timeout

from prefvlm_core.analysis.label_quality import judges
from prefvlm_core.analysis.locomotion import planned_by_domain
from prefvlm_core.analysis.paired import (
    difference_table,
    ladder_of,
    run_scores,
    score_table,
    worth_table,
)
from prefvlm_core.analysis.report import KEYS, README_EXPERIMENT, label_errors, with_reference, write_into_texts
from prefvlm_core.analysis.stats import summary_table
from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.common.machine import usable_cores
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.fields import check_number
from prefvlm_core.config.fleets import FLEET_SIZE
from prefvlm_core.config.run import PROCESSES_PER_CORE, Execution
from prefvlm_core.experiments.calibration import Calibration
from prefvlm_core.experiments.children import run_with_children
from prefvlm_core.experiments.costs import table_of
from prefvlm_core.experiments.fleets import experiments_of, profile_fleets
from prefvlm_core.experiments.jobs import Jobs, workflow_profile
from prefvlm_core.experiments.plan import evaluations, finished_runs, label_log
from prefvlm_core.experiments.project import check_notebook
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import write_atomically, write_json, write_probe
from prefvlm_core.runs.locks import file_lock

LOCAL = "local"
"""The executor whose jobs run on this machine."""
SECONDS_TO_CANCEL = 60.0
"""What Snakemake has to take its jobs back from a cluster when the batch is ended."""
KERNEL_STARTS = 3
"""Attempts to start a notebook's kernel, which a busy machine may let time out."""
KERNEL_LIVES = 2
"""Attempts to execute a notebook whose kernel dies at it, as one does that the system kills for its memory."""
KERNELS_AT_A_TIME = 2
"""Notebooks that are drawn side by side; each takes one core and most of a gigabyte."""

BATCH_PARAMETERS = {"07_human_labeling": {"annotator": "script"}}
"""Notebooks that wait for a person, and what lets them run without one."""


@dataclass(frozen=True)
class Record:
    """What a finished batch step left."""

    step: str = ""
    seconds: float = 0.0
    made: tuple[str, ...] = ()


def record_path(results: str | Path, profile: str, step: str) -> Path:
    """Where the record of a finished batch step lies."""
    return Path(results) / profile / ".done" / f"{step}.json"


def write_record(results: str | Path, profile: str, step: str, seconds: float, made: Sequence[str]) -> None:
    """Say that a step is done, what it made and how long it took."""
    write_json(record_path(results, profile, step), {"step": step, "seconds": round(seconds, 1), "made": list(made)})


def read_record(path: Path) -> Record:
    """Inverse of `write_record`; an empty record where there is none or a broken one, so that its step is repeated."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(str(values["step"]), float(values["seconds"]), tuple(map(str, values["made"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Record()


def update_records(results: str | Path, profile: str, fleet_size: int = FLEET_SIZE) -> None:
    """Remove records that are broken or whose runs or files are no longer there, so that the batch makes them again,
    and write those of fleets whose runs are all there, as published ones are in a fresh clone."""
    fleets = profile_fleets(profile, fleet_size)
    for name, fleet in fleets.items():
        path = record_path(results, profile, name)
        if not all(RunDirectory(results, config).finished for config in fleet):
            path.unlink(missing_ok=True)
        elif read_record(path).step != name:
            write_record(results, profile, name, 0.0, [])
    for path in sorted((Path(results) / profile / ".done").glob("*.json")):
        record = read_record(path)
        stale = path.stem not in fleets and not all(Path(made).exists() for made in record.made)
        if stale or record.step != path.stem:
            path.unlink()


def parameters_of(notebook: Path) -> list[str]:
    """The names in the cell `parameters` of a notebook. Raises `PrefVLMError` where there is no such file."""
    import papermill

    check_notebook(notebook)
    return list(papermill.inspect_notebook(str(notebook)))


def run_notebook(notebook: Path, parameters: Mapping[str, Any], output: Path, progress: bool = False) -> None:
    """Execute a notebook through papermill into `output`, which appears only when it is complete. `progress`: whether a
    bar shows the cells that are done.

    Raises `PrefVLMError` for a parameter that the notebook does not have (papermill itself would only warn), and for a
    cell that failed, naming the partial copy to look at.
    """
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    known = parameters_of(notebook)
    for name in parameters:
        if name not in known:
            raise unknown_name(f"parameter of {notebook.name}", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"partial-{output.name}")
    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            _execute(notebook, parameters, partial, progress)
            break
        except papermill.PapermillExecutionError as error:
            where = f"{notebook.name} failed in cell In [{error.exec_count}]"
            raise PrefVLMError(f"{where}: {error.ename}: {error.evalue} (see {partial}).") from error
        except NoSuchKernel as error:
            raise PrefVLMError("There is no Jupyter kernel 'python3'; install prefvlm[notebooks].") from error
        except RuntimeError as error:  # of jupyter_client for a kernel that did not start, of nbclient for a dead one
            if attempt == (KERNEL_LIVES if isinstance(error, DeadKernelError) else KERNEL_STARTS):
                raise PrefVLMError(
                    f"The kernel of {notebook.name} did not start or died, {attempt} times: {error}."
                ) from error
            time.sleep(attempt)
    partial.replace(output)


def _execute(notebook: Path, parameters: Mapping[str, Any], output: Path, progress: bool) -> None:
    """One attempt, over sockets in a folder of its own: other users can read what goes over TCP, about which the kernel
    would warn, and another process may take a port first."""
    import papermill
    from traitlets.config import Config

    from prefvlm_core.experiments.kernels import BatchKernelManager

    with tempfile.TemporaryDirectory() as folder:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            dict(parameters),
            kernel_name="python3",
            progress_bar={"desc": notebook.stem} if progress else False,
            log_output=True,
            resources={"metadata": {"path": str(notebook.parent)}},  # papermill's `cwd` would move this process there
            kernel_manager_class=BatchKernelManager,
            config=Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / "kernel")}}),
        )


def figure_files(figures: str | Path, profile: str, notebook: str) -> list[Path]:
    """Figures that a notebook draws in a profile, as far as they exist: `<figures>/<profile>/<notebook>*`."""
    return sorted((Path(figures) / profile).glob(f"{notebook}*"))


def notebook_step(notebook: str, profile: str, results: str, train: bool, progress: bool = False) -> list[str]:
    """Execute one notebook for a profile, with those of the batch's parameters that it has; returns the figures it
    drew. `progress`: as `run_notebook`."""
    stored, figures = Path(results).resolve(), Path("figures").resolve()
    parameters = {"profile": profile, "results": str(stored), "figures": str(figures), "train": train}
    parameters |= BATCH_PARAMETERS.get(notebook, {})
    before = time.time()
    output, source = stored / "notebooks" / f"{notebook}-{profile}.ipynb", Path("notebooks") / f"{notebook}.ipynb"
    own = parameters_of(source)  # 00_explore, which trains nothing and draws into no file, has only the first two
    run_notebook(source, {name: value for name, value in parameters.items() if name in own}, output, progress)
    made = [path for path in figure_files(figures, profile, notebook) if path.stat().st_mtime >= before - 1]
    return [str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path) for path in made]


def draw_figures(profile: str, results: str) -> Iterator[list[str]]:
    """Execute the notebook of every experiment that has finished runs, without training; yields what each drew."""
    experiments = experiments_with_runs(profile, results)
    with ProcessPoolExecutor(KERNELS_AT_A_TIME) as pool:
        drawn = pool.map(functools.partial(notebook_step, profile=profile, results=results, train=False), experiments)
        yield from tqdm(drawn, desc="figures", unit="notebook", total=len(experiments))


def experiments_with_runs(profile: str, results: str | Path) -> list[str]:
    """Experiments that have at least one finished run. Raises `PrefVLMError` where none has."""
    found = [experiment for experiment in experiments_of(profile) if finished_runs(experiment, profile, results)]
    if not found:
        raise PrefVLMError(
            f"No run of profile {profile} is stored below {Path(results).resolve()}; "
            f"train them with: prefvlm reproduce --profile {profile}"
        )
    return found


def table_step(profile: str, results: str) -> list[str]:
    """Write the tables of `report.KEYS` to `results/<profile>/`, as far as runs are stored, and README.md and NOTES.md
    anew from their templates.

    Raises `PrefVLMError` where no run is.
    """
    folder = Path(results) / profile
    tables: dict[str, list[pandas.DataFrame]] = {name: [] for name in KEYS}
    for experiment in tqdm(experiments_with_runs(profile, results), desc="tables", unit="experiment", delay=5):
        data = evaluations(experiment, profile, Execution(results), train=False)
        summary, labels = summary_table(data), label_log(experiment, profile, Execution(results))
        tables["table"].append(with_reference(summary) if profile == "paper" else summary)
        tables["labels"].append(label_errors(labels) if len(labels) else labels)
        tables["planned"].append(planned_by_domain(data))
        for name in ("table", "labels", "planned"):
            tables[name][-1].insert(0, "experiment", experiment)
        if experiment == README_EXPERIMENT:
            scores = run_scores(data[data["group"] == ""])
            tables["scores"].append(score_table(scores))
            tables["differences"] += [difference_table(scores, arm) for arm in sorted(scores["arm"].unique())]
            tables["judges"] += [judges(labels)] if len(labels) else []
            if len(ladder_of(scores)) > 1:
                tables["worth"].append(worth_table(scores))
    for name, parts in tables.items():
        if rows := [part for part in parts if len(part)]:
            table = pandas.concat(rows).round(9)  # so that the last digit of means does not hang on how they are summed
            text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
            write_atomically(folder / f"{name}.csv", text.encode())
    texts = write_into_texts(Path("README.md"), folder)
    return [*(str(folder / f"{name}.csv") for name in KEYS if (folder / f"{name}.csv").exists()), *map(str, texts)]


def reproduce(jobs: Jobs, executor: str = LOCAL, cores: int = 0, options: Sequence[str] = ()) -> int:
    """What `jobs` ask for and is not there yet, through Snakemake; prints what was made. Returns the exit code.

    `executor`: local, for at most `cores` jobs at a time on this machine (0: as many as it has cores), or the name of
    one that has a folder in profiles/. `options`: passed on to Snakemake. Whatever ends this process ends the batch,
    also the jobs that a cluster has. Raises `PrefVLMError` where another batch is at work on the same profile and
    results.
    """
    if not Path("Snakefile").exists():
        raise PrefVLMError("There is no Snakefile here; run this in a checkout of prefvlm.")
    check_number("cores", cores, most=PROCESSES_PER_CORE * usable_cores())
    command = [sys.executable, "-m", "snakemake", "--config", *jobs.config]
    # After a kill there is a lock and half a step: runs have locks of their own, and every step can be repeated.
    command += ["--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "--quiet", "rules"]
    if executor == LOCAL:
        command += ["--cores", str(cores or "all")]
    else:
        command += ["--workflow-profile", str(workflow_profile(executor))]
    with _one_batch(Path(jobs.results) / jobs.profile / ".done"):
        update_records(jobs.results, jobs.profile, jobs.fleet_size)
        print(cost_of_missing(jobs))
        started = time.time()
        code = run_with_children([*command, *options], os.environ, 0 if executor == LOCAL else SECONDS_TO_CANCEL)
        print(_made(jobs.results, jobs.profile, started))
    return code


def cost_of_missing(jobs: Jobs) -> str:
    """What the runs of a batch cost that are not finished, as far as that can be counted without timing anything."""
    missing = [
        [config for config in jobs.fleets[fleet] if not RunDirectory(jobs.results, config).finished]
        for fleet in jobs.trained
    ]
    if not any(missing):
        return "Every run of the batch is finished."
    table = table_of(filter(None, missing), Calibration())
    return f"To be trained (how many hours it takes here: prefvlm plan --profile {jobs.profile}):\n{table}"


@contextmanager
def _one_batch(records: Path) -> Iterator[None]:
    """Hold the folder of records for this batch. Raises `PrefVLMError` where another one does, and where it cannot be
    locked."""
    write_probe(records)
    try:
        with file_lock(records / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise PrefVLMError(
            f"Another `prefvlm reproduce` is at work on {records.parent}; wait for it, or end it first."
        ) from error


def _made(results: str | Path, profile: str, started: float) -> str:
    """The table of the steps that are done and, below it, the logs of those that failed since `started`."""
    lines, folder = [f"\n{'step':<28}{'time':>8}   made"], Path(results) / profile / ".done"
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        minutes, seconds = divmod(round(record.seconds), 60)
        age = f"{minutes}:{seconds:02d}" if path.stat().st_mtime >= started else "before"
        lines.append(f"{record.step:<28}{age:>8}   {_shortened(record.made)}")
    minutes, seconds = divmod(round(time.time() - started), 60)
    lines.append(f"{'all':<28}{f'{minutes}:{seconds:02d}':>8}")
    for log in sorted(folder.glob("*.log")):
        if log.stat().st_mtime >= started and not log.with_suffix(".json").exists():
            said = log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "nothing")
            lines.append(f"{log.stem} failed, see {log}: {last.split(chr(13))[-1].strip()}")
    return "\n".join(lines)


def _shortened(made: Sequence[str]) -> str:
    return ", ".join(made) if len(made) <= 3 else f"{made[0]}, … ({len(made)} in all)"
