"""The batch: the grids and their fleets, notebooks through papermill, and the records that say what is done."""

import errno
import json
import math
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pandas
import pytest
from builders.runs import finish

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments import batch
from prefvlm_core.experiments import plan as experiments
from prefvlm_core.experiments.batch import (
    notebook_step,
    record_path,
    run_notebook,
    table_step,
    update_records,
    write_record,
)
from prefvlm_core.experiments.fleets import FLEET_SIZE, configs_of, fleets, fleets_before, plan, profile_fleets
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.experiments.jobs import Jobs
from prefvlm_core.experiments.plan import evaluations
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RUNNING, RunDirectory
from prefvlm_core.runs.pack import pack

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
EVERY_GRID = [(experiment, profile) for experiment in EXPERIMENTS for profile in PROFILES]


def planned(experiment: str, profile: str) -> list[RunConfig]:
    return configs_of(experiment, profile)


# ---- grids and fleets


def test_every_experiment_has_its_notebook_and_every_notebook_its_experiment() -> None:
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert names == ["00_explore", *sorted(EXPERIMENTS)]  # the first one trains nothing
    for name in EXPERIMENTS:
        assert re.fullmatch(r"[0-9]{2}_[a-z_]+", name), "the Snakefile's pattern for notebooks"
        assert EXPERIMENTS[name].keys() == PROFILES.keys()


@pytest.mark.parametrize(("experiment", "profile"), EVERY_GRID)
def test_planned_runs_are_distinct_and_complete(experiment: str, profile: str) -> None:
    runs = plan(experiment, profile)
    grid = EXPERIMENTS[experiment][profile]
    assert len({run.config.run_id for run in runs}) == len(runs)
    assert len(runs) == sum(len(grid.seeds[: arm.seeds]) for arms in grid.arms.values() for arm in arms)
    assert {run.config.profile for run in runs} == {profile}
    for task in grid.arms:  # within a task a name is that of one arm: each seed once
        names = [(run.arm.display_name(run.config), run.config.seed) for run in runs if run.config.task == task]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("experiment", "profile"), EVERY_GRID)
def test_fleets_hold_every_run_once_and_can_be_trained(experiment: str, profile: str) -> None:
    configs = planned(experiment, profile)
    groups = fleets(configs)
    assert sorted(config.run_id for group in groups.values() for config in group) == sorted(c.run_id for c in configs)
    for name, group in groups.items():
        assert re.fullmatch(r"fleet-[0-9a-f]{8}", name) and 1 <= len(group) <= FLEET_SIZE == 16
        check_compatible(group)


@pytest.mark.parametrize("profile", PROFILES)
def test_sources_of_transfer_are_trained_before(profile: str) -> None:
    planned_fleets = profile_fleets(profile)
    fleet_of = {config.run_id: name for name, fleet in planned_fleets.items() for config in fleet}
    transferred = [run for run in plan("05_transfer", profile) if run.source is not None]
    assert len(transferred) == len(plan("05_transfer", profile)) / 2
    for run in transferred:
        assert run.source is not None and run.config.adapter.source == run.source.run_id
        assert (run.source.seed, run.source.method) == (run.config.seed, run.config.method)
        before = fleets_before(fleet_of[run.config.run_id], profile)
        assert fleet_of[run.source.run_id] in before
        assert fleets_before(fleet_of[run.source.run_id], profile) == []
    order = list(fleets(planned("05_transfer", profile)).values())
    starts = [bool(config.adapter.source) for fleet in order for config in fleet]
    assert starts == sorted(starts)  # those that start from another's adapters come last


def test_fleets_depend_on_the_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = planned("02_learning_curves", "laptop")
    before = fleets(configs)
    for config in configs[::2]:
        finish(tmp_path / "results", config)
    assert fleets(configs) == before and list(fleets(configs)) == list(before)
    other = fleets(configs[:-1])
    assert other.keys() != before.keys()


def test_fleets_put_whole_seeds_first_and_keep_incompatible_runs_apart() -> None:
    short = [run_config("drawer-close-v3", "pebble", seed, "quick") for seed in range(20)]
    long = [run_config("drawer-close-v3", "pebble", seed, "quick", {"total_steps": 50_000}) for seed in range(3)]
    groups = list(fleets([*reversed(short), *long, *short]).values())  # every short run is named twice
    assert [[(config.total_steps, config.seed) for config in group] for group in groups] == [
        [(short[0].total_steps, seed) for seed in range(16)],
        [(50_000, seed) for seed in range(3)],
        [(short[0].total_steps, seed) for seed in range(16, 20)],
    ]


@pytest.mark.parametrize(
    ("experiment", "profile", "message"),
    [
        ("02_learning_curve", "quick", "Unknown experiment '02_learning_curve'. Did you mean '02_learning_curves'?"),
        ("02_learning_curves", "labtop", "Unknown profile 'labtop'. Did you mean 'laptop'?"),
    ],
)
def test_unknown_experiments_are_refused(experiment: str, profile: str, message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        plan(experiment, profile)


# ---- evaluations and the table


def test_evaluations_hold_what_is_finished(tmp_path: Path) -> None:
    execution, runs = Execution(results=str(tmp_path)), plan("02_learning_curves", "quick")
    words = (
        f"No run of 02_learning_curves in profile quick is stored below {tmp_path}; train them with: prefvlm experiment"
    )
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        evaluations("02_learning_curves", "quick", execution, train=False)
    finish(tmp_path, runs[0].config)
    finish(tmp_path, runs[-1].config)
    finish(tmp_path, runs[1].config).write_manifest({"status": RUNNING})
    finish(tmp_path, run_config("door-open-v3", "pebble", 0, "quick"))  # of no experiment here
    data = evaluations("02_learning_curves", "quick", execution, train=False)
    assert list(data["run_id"].unique()) == [runs[0].config.run_id, runs[-1].config.run_id]
    assert list(data["arm"].unique()) == [run.arm.display_name(run.config) for run in (runs[0], runs[-1])]
    repeat = PROFILES["quick"]["action_repeat"]
    assert repeat == 5 and list(data["step"]) == [2500, 5000] * 2  # environment steps, of 500 and 1000 actions


def test_evaluations_train_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunConfig] = []

    def train(configs: list[RunConfig], execution: Execution) -> None:
        asked.extend(configs)
        for config in configs:
            finish(Path(execution.results), config)

    monkeypatch.setattr(experiments, "train", train)
    data = evaluations("02_learning_curves", "quick", Execution(results=str(tmp_path)))
    assert sorted(config.run_id for config in asked) == sorted(data["run_id"].unique())
    assert len(asked) == len(planned("02_learning_curves", "quick"))


def test_table(tmp_path: Path) -> None:
    for experiment in EXPERIMENTS:
        for config in planned(experiment, "quick"):
            finish(tmp_path, config, 0.25 if config.method == "sac" else 0.75)
    path, scores, differences, worth, compared = map(Path, table_step("quick", str(tmp_path)))  # there is no labels.csv
    lines = path.read_text().splitlines()
    assert [file.name for file in (path, scores, differences, worth, compared)] == [
        *("table.csv", "scores.csv", "differences.csv", "worth.csv", "planned.csv")
    ]
    assert [line.startswith("experiment,") for line in lines] == [True] + [False] * (len(lines) - 1)
    assert all((",0.2500," if ",sac," in line else ",0.7500,") in line for line in lines[1:])
    assert "drawer-close-v3,prefvlm (32 labels),last_three,0.7500,0.7500,0.7500,0.7500,4" in scores.read_text()
    assert "sac (true reward),pebble (64 labels),last_three,-0.5000,,,4" in differences.read_text()
    assert "pebble (64 labels),last_three,2.0000,0.7500,,,,\n" in worth.read_text()
    (row,) = pandas.read_csv(compared).query("arm == 'no filter' and task == 'all tasks'").to_dict("records")
    assert (row["experiment"], row["against"], row["pairs"]) == ("03_filter_ablation", "prefvlm", 1)
    assert (row["score"], row["mean"]) == (0.75, 0) and math.isnan(row["low"])


# ---- records


def test_stale_records_are_dropped(tmp_path: Path) -> None:
    groups = fleets(planned("02_learning_curves", "quick"))
    (name, group), *_ = groups.items()
    figure = tmp_path / "figure.png"
    figure.write_text("")
    made = [str(finish(tmp_path, config).path) for config in group]
    write_record(tmp_path, "quick", name, 1.26, made)
    write_record(tmp_path, "quick", "02_learning_curves", 2, [str(figure)])
    write_record(tmp_path, "quick", "table", 3, [str(tmp_path / "gone.csv")])
    assert json.loads(record_path(tmp_path, "quick", name).read_text()) == {"step": name, "seconds": 1.3, "made": made}

    def kept() -> set[str]:
        update_records(tmp_path, "quick")
        return {path.stem for path in (tmp_path / "quick" / ".done").iterdir()}

    assert kept() == {name, "02_learning_curves"}
    RunDirectory(tmp_path, group[0]).write_manifest({"status": RUNNING})  # the folder is there, the run is not complete
    assert kept() == {"02_learning_curves"}
    figure.unlink()
    assert kept() == set()
    update_records(tmp_path / "nowhere", "quick")
    assert not (tmp_path / "nowhere").exists()


def test_fleets_of_published_runs_are_done_without_a_record_of_their_training(tmp_path: Path) -> None:
    (name, group), (other, half), *_ = profile_fleets("quick").items()
    for config in [*group, *half[:-1]]:
        finish(tmp_path, config)
    pack(tmp_path, remove_folders=True)
    update_records(tmp_path, "quick")
    assert record_path(tmp_path, "quick", name).exists() and not record_path(tmp_path, "quick", other).exists()


# ---- notebooks


def notebook(path: Path, *cells: str) -> Path:
    """A notebook with parameters `profile` and `number`, and then `cells`."""
    parameters = nbformat.v4.new_code_cell('profile = "quick"\nnumber = 1', metadata={"tags": ["parameters"]})
    written = nbformat.v4.new_notebook(cells=[parameters, *map(nbformat.v4.new_code_cell, cells)])
    written.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(written, path)
    return path


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """papermill that fails to start a kernel as often as the list says, and then only copies."""
    import papermill

    failures: list[Exception] = []

    def execute(source: str, target: str, *_: Any, **__: Any) -> None:
        if failures:
            raise failures.pop()
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(batch.time, "sleep", lambda _: None)
    return failures


def test_a_notebook_runs_with_its_parameters_in_its_folder(tmp_path: Path) -> None:
    source = notebook(tmp_path / "a.ipynb", "import os\nprint(profile, number, os.getcwd())")
    output = tmp_path / "out" / "a-paper.ipynb"
    run_notebook(source, {"profile": "paper"}, output)
    (printed,) = nbformat.read(output, 4).cells[-1].outputs
    assert printed.text == f"paper 1 {tmp_path}\n"
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert nbformat.read(source, 4).cells[-1].outputs == []


def test_notebooks_run_side_by_side_without_a_word_of_their_kernels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    sources = [notebook(folder / "a.ipynb", "import os, time\ntime.sleep(1)\nprint(os.getcwd())") for folder in folders]
    here = Path.cwd()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(run_notebook, sources, [{}, {}], [folder / "out.ipynb" for folder in folders]))
    printed = [nbformat.read(folder / "out.ipynb", 4).cells[-1].outputs[0].text for folder in folders]
    assert printed == [f"{folder}\n" for folder in folders] and Path.cwd() == here
    assert capfd.readouterr() == ("", "")
    assert [path.name for folder in folders for path in sorted(folder.iterdir())] == ["a.ipynb", "out.ipynb"] * 2


@pytest.mark.parametrize("exists", [False, True])
def test_a_failing_cell_is_named_and_nothing_is_overwritten(tmp_path: Path, exists: bool) -> None:
    source = notebook(tmp_path / "a.ipynb", "print(1)", "raise ValueError(f'number {number} is odd')")
    output = tmp_path / "out.ipynb"
    if exists:
        output.write_text("a good one")
    words = f"a.ipynb failed in cell In [4]: ValueError: number 3 is odd (see {tmp_path}/partial-out.ipynb)."
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        run_notebook(source, {"number": 3}, output)
    assert output.exists() == exists and (not exists or output.read_text() == "a good one")
    (failed,) = [
        cell for cell in nbformat.read(tmp_path / "partial-out.ipynb", 4).cells if cell.source.startswith("raise")
    ]
    assert failed.execution_count == 4 and failed.outputs[0].evalue == "number 3 is odd"


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path: Path, no_kernel: list[Any]) -> None:
    source = notebook(tmp_path / "a.ipynb")
    words = "Unknown parameter of a.ipynb 'profil'. Did you mean 'profile'? Allowed: number, profile."
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        run_notebook(source, {"profil": "quick"}, tmp_path / "out" / "a.ipynb")
    assert not (tmp_path / "out").exists()


def test_a_notebook_that_is_not_there(tmp_path: Path) -> None:
    notebook(tmp_path / "01_first.ipynb")
    with pytest.raises(PrefVLMError, match=r"Unknown notebook '01_frist'. Did you mean '01_first'"):
        run_notebook(tmp_path / "01_frist.ipynb", {}, tmp_path / "out.ipynb")
    with pytest.raises(PrefVLMError, match=r"There is no folder .*; run this in the folder that holds notebooks/"):
        run_notebook(tmp_path / "notebooks" / "01_first.ipynb", {}, tmp_path / "out.ipynb")


def test_a_kernel_that_does_not_start_is_tried_again(tmp_path: Path, no_kernel: list[Any]) -> None:
    source, output = notebook(tmp_path / "a.ipynb"), tmp_path / "out.ipynb"
    no_kernel += [RuntimeError("Kernel died before replying to kernel_info")] * 2
    run_notebook(source, {}, output)
    assert output.exists() and not no_kernel
    output.write_text("a good one")
    no_kernel += [RuntimeError("Kernel died before replying to kernel_info")] * 3
    words = "The kernel of a.ipynb did not start or died, 3 times: Kernel died before replying to kernel_info."
    with pytest.raises(PrefVLMError, match=re.escape(words)):
        run_notebook(source, {}, output)
    assert output.read_text() == "a good one" and not no_kernel


def test_a_missing_kernel_says_what_to_install(tmp_path: Path, no_kernel: list[Any]) -> None:
    from jupyter_client.kernelspec import NoSuchKernel

    no_kernel.append(NoSuchKernel("python3"))
    with pytest.raises(PrefVLMError, match=r"There is no Jupyter kernel 'python3'; install prefvlm\[notebooks\]."):
        run_notebook(notebook(tmp_path / "a.ipynb"), {}, tmp_path / "out.ipynb")


@pytest.mark.parametrize("experiment", ["00_explore", *EXPERIMENTS])
def test_every_notebook_takes_the_parameters_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_kernel: list[Any], experiment: str
) -> None:
    """Those of an experiment take all of them, the explorers the two that they have. Figures are those of this step:
    other notebooks' and older ones are not claimed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    folder = tmp_path / "figures" / "quick"
    folder.mkdir(parents=True)
    for name in (f"{experiment}_old.png", f"{experiment}_new.png", "99_other_new.png"):
        (folder / name).touch()
    os.utime(folder / f"{experiment}_old.png", (0, 0))
    given: list[dict[str, Any]] = []
    run = batch.run_notebook
    monkeypatch.setattr(batch, "run_notebook", lambda path, own, *rest: (given.append(own), run(path, own, *rest)))
    assert notebook_step(experiment, "quick", "results", train=False) == [f"figures/quick/{experiment}_new.png"]
    everything = {"profile": "quick", "results": str(tmp_path / "results"), "figures": str(tmp_path / "figures")}
    everything |= {"train": False} | batch.BATCH_PARAMETERS.get(experiment, {})
    expected = dict(list(everything.items())[:2]) if experiment == "00_explore" else everything
    assert given == [expected]
    assert (tmp_path / "results" / "notebooks" / f"{experiment}-quick.ipynb").exists()


def test_reproduce_asks_snakemake_for_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Snakefile").touch()
    calls: list[list[str]] = []

    def run(command: list[str], environment: dict[str, str], patience: float) -> int:
        calls.append(command)
        assert patience == 0
        write_record("my results", "laptop", "table", 61, ["a", "b", "c", "d"])
        failed = record_path("my results", "laptop", "fleet-00000000").with_suffix(".log")
        failed.write_text("1 runs: 10%\r1 runs: 20%\rprefvlm: No space.\n", encoding="utf-8")
        return 3

    write_record("my results", "laptop", "02_learning_curves", 5, ["gone.png"])
    monkeypatch.setattr(batch, "run_with_children", run)
    assert batch.reproduce(Jobs("laptop", "my results"), cores=2, options=["--dry-run"]) == 3
    (command,) = calls
    assert command[1:6] == ["-m", "snakemake", "--config", "profile=laptop", "results=my results"]
    assert command[-3:] == ["--cores", "2", "--dry-run"]
    out = capsys.readouterr().out
    assert re.search(r"^table +1:01   a, … \(4 in all\)$", out, re.MULTILINE)
    assert "02_learning_curves" not in out  # its figure was gone, and Snakemake did not make it again
    assert out.endswith("fleet-00000000 failed, see my results/laptop/.done/fleet-00000000.log: prefvlm: No space.\n")


@pytest.mark.parametrize(
    "broken",
    [b"", b"garbage", b"[]", b"{}", b'{"made": null}', b"\xff\xfe", b'{"step": "table", "made": []}', b"[" * 10**5],
)
def test_a_broken_record_is_a_stale_one(tmp_path: Path, broken: bytes) -> None:
    (name, fleet), *_ = profile_fleets("quick").items()
    for config in fleet:
        finish(tmp_path, config)
    for step in ("table", "02_learning_curves", name):
        write_record(tmp_path, "quick", step, 1, [])
        record_path(tmp_path, "quick", step).write_bytes(broken)
    update_records(tmp_path, "quick")
    assert [path.stem for path in (tmp_path / "quick" / ".done").iterdir()] == [name]  # its runs are all there
    assert batch.read_record(record_path(tmp_path, "quick", name)).step == name


def test_a_kernel_that_dies_is_tried_once_more(tmp_path: Path, no_kernel: list[Any]) -> None:
    from nbclient.exceptions import DeadKernelError

    source = notebook(tmp_path / "a.ipynb")
    no_kernel.append(DeadKernelError("Kernel died"))
    run_notebook(source, {}, tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").exists()
    no_kernel += [DeadKernelError("Kernel died")] * 2
    with pytest.raises(PrefVLMError, match=r"The kernel of a.ipynb did not start or died, 2 times: Kernel died."):
        run_notebook(source, {}, tmp_path / "out.ipynb")
    assert not no_kernel


@pytest.mark.skipif(os.name == "nt", reason="locks are others on Windows")
def test_records_that_cannot_be_locked_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", without)
    words = f"The folder {tmp_path} cannot be locked ({os.strerror(errno.ENOLCK)}), so two processes could write to it"
    with pytest.raises(PrefVLMError, match=re.escape(words)), batch._one_batch(tmp_path):
        pass
