"""The command line as a user meets it: help, errors in one line, and what is listed."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prefvlm_core import __version__, cli
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments import batch
from prefvlm_core.experiments import plan as experiments
from prefvlm_core.experiments.fleets import configs_of, plan, profile_fleets
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import FINISHED, RunDirectory

TASK = "drawer-close-v3"
LOOP = importlib.import_module("prefvlm_core.train")  # `import prefvlm_core.train as` would give the function


@pytest.fixture
def prefvlm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command line in process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(line.split())
        assert isinstance(stopped.value.code, int)
        return (stopped.value.code, *capsys.readouterr())

    return run


def words(text: str) -> str:
    """Text without the frames and line breaks of a help page."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", text).split())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[RunConfig], Execution]]:
    """Nothing is trained: the calls are noted, and the runs stored as if they were finished."""
    calls = []

    def train(configs: list[RunConfig], execution: Execution) -> list[RunDirectory]:
        calls.append((configs, execution))
        directories = [RunDirectory(execution.results, config) for config in configs]
        for directory in directories:
            directory.open()
            others = dict.fromkeys(
                ["success_last_step", "episode_return", "human_labels", "vlm_labels", "reward_accuracy", "seconds"], 1.0
            )
            directory.write_metrics([{"step": step, "success": step / 1000 - 0.25} | others for step in (500, 1000)])
            directory.write_weights({"actor": torch.zeros(1)})
            directory.write_manifest({"status": FINISHED})
        return directories

    monkeypatch.setattr(LOOP, "train", train)
    monkeypatch.setattr(experiments, "train", train)
    return calls


# ---- help


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "train",
            "Actions per episode (with `action_repeat` 1, Meta-World allows at most 500). (default: see prefvlm show)",
        ),
        ("train", "--feedback.budget INT Queries to the human over the whole run, answered or skipped."),
        ("train", "--sac.discount FLOAT Discount factor per action."),
        ("train", "--reward.source {true,learned,vlm} Source of the agent's reward"),
        ("train", "--checkpoint-seconds FLOAT Wall seconds after which the next end of an episode writes a checkpoint"),
        ("fleet", "Fleet, by the name that `prefvlm runs --planned` shows."),
        ("notebook", "Train missing runs first; otherwise draw what is stored. (default: True)"),
        ("figures", "Draw every figure again from the stored runs, without training anything."),
        ("table", "Write the tables of results/<profile> from the stored runs and print table.csv;"),
        ("runs", "--profile {quick,laptop,paper} Only runs of this profile (default: all; with --planned, quick)."),
        ("runs", "--tasks [STR [STR ...]] Only runs of these tasks. (default: all)"),
        ("show", "Nothing is trained."),
        ("list", "{tasks,methods,vlms,teachers,experiments,profiles}"),
        ("reproduce", "quick takes minutes, laptop hours, and paper a GPU. (default: quick)"),
        ("labels", "--results STR Folder that holds every run. (default: results)"),
        ("bench", "Measure speed and memory"),
        ("pretrain", "--seeds [INT [INT ...]] Training seeds; all three take 30 to 45 minutes on a free core."),
    ],
)
def test_help(prefvlm: Any, command: str, told: str) -> None:
    code, out, err = prefvlm(f"{command} --help")
    assert (code, err) == (0, "")
    assert told in words(out)
    assert "None" not in out


def test_every_command_is_listed(prefvlm: Any) -> None:
    code, out, err = prefvlm("--help")
    assert (code, err) == (0, "")
    assert all(re.search(rf"^\W+{command} +[A-Z]", out, re.MULTILINE) for command in cli.COMMANDS)
    assert "prefvlm train --tasks drawer-close-v3" in out
    assert prefvlm("") == (0, out, "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("train --help", 0),
        ("list methods", 0),
        (f"train --tasks {TASK} --methods peble", 2),
        ("experiment 02_learning_curve", 2),
        ("runs --experiment 02_learning_curve", 2),
        ("notebook 02_learning_curve", 2),
    ],
)
def test_help_and_misspelt_names_are_answered_without_slow_imports(line: str, code: int) -> None:
    assert slow_imports(line) == (code, set())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"show --tasks {TASK} --methods prefvlm", 0),
        ("list vlms", 0),
        (f"train --tasks {TASK} --feedback.teacher orcle", 2),
        (f"train --tasks {TASK} --feedback.sampling random", 2),
        (f"train --tasks {TASK} --filter.mode rimes", 2),
        (f"train --tasks {TASK} --reward.learning surfing", 2),
        (f"train --tasks {TASK} --reward.inputs relation", 2),
        (f"train --tasks {TASK} --vlm.model tinylv", 2),
    ],
)
def test_names_in_a_config_are_checked_without_torch(line: str, code: int) -> None:
    returned, imported = slow_imports(line)
    assert returned == code and imported <= {"numpy"}


def test_runs_are_listed_without_torch_and_pandas(trained: list[Any], tmp_path: Path) -> None:
    LOOP.train([run_config(TASK, "sac", 0, "quick")], Execution(results=str(tmp_path)))
    assert slow_imports(f"runs --results {tmp_path}") == (0, set())


def slow_imports(line: str) -> tuple[int, set[str]]:
    """The exit code of a command line, and what it imports that takes long."""
    program = """
import sys
from prefvlm_core.cli import main
try:
    main(sys.argv[1:])
finally:
    slow = {"torch", "numpy", "pandas", "metaworld", "mujoco", "gymnasium", "matplotlib", "sqlalchemy", "snakemake"}
    print("imported:", *sorted(slow & set(sys.modules)), file=sys.stderr)
"""
    finished = subprocess.run([sys.executable, "-c", program, *line.split()], capture_output=True, text=True)
    imported, *names = finished.stderr.splitlines()[-1].split()
    assert imported == "imported:"
    return finished.returncode, set(names)


@pytest.mark.parametrize("module", ["prefvlm_core", "prefvlm_core.cli"])
def test_the_package_can_be_run_as_a_module(module: str) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        finished = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
        return finished.returncode, finished.stdout, finished.stderr

    assert run("--version") == (0, f"{__version__}\n", "")
    code, out, err = run("trian")
    assert (code, out) == (2, "")
    assert err.startswith("prefvlm: Unknown command 'trian'. Did you mean 'train'?") and err.count("\n") == 1


# ---- errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "Unknown command 'trian'. Did you mean 'train'?"),
        ("train --tasks drawer-clos-v3", "Unknown task 'drawer-clos-v3'. Did you mean 'drawer-close-v3'?"),
        (f"train --tasks {TASK} --methods peble", "Unknown method 'peble'. Did you mean 'pebble'?"),
        (f"train --tasks {TASK} --seeds -1", "seed must be at least 0, got -1."),
        (f"train --tasks {TASK} --feedback.budget -1", "feedback.budget must be at least 0, got -1."),
        (f"train --tasks {TASK} --horizon 101", "horizon is 101 and action_repeat 5, but Meta-World's episodes allow"),
        (f"train --tasks {TASK} --device gpu", "Unknown device 'gpu'. Did you mean 'cpu'?"),
        (f"train --tasks {TASK} --threads 0", "threads must be at least 1, got 0."),
        ("train --tasks", "Nothing to train: name at least one task, method and seed."),
        ("experiment 02_learning_curve", "Unknown experiment '02_learning_curve'. Did you mean '02_learning_curves'?"),
        ("fleet fleet-00000000", "Unknown fleet 'fleet-00000000'."),
        ("notebook 02_learning_curve", "Unknown notebook '02_learning_curve'. Did you mean '02_learning_curves'?"),
        ("notebook notebooks/02_learning_curve.ipynb", "Unknown notebook '02_learning_curve'. Did you mean '02_lear"),
        ("runs --results nowhere", "There is no folder nowhere; --results names the one that holds the runs."),
        ("runs --tasks drawer-clos-v3", "Unknown task 'drawer-clos-v3'. Did you mean 'drawer-close-v3'?"),
        ("runs --experiment 02_learning", "Unknown experiment '02_learning'. Did you mean '02_learning_curves'?"),
        ("show --tasks drawer-clos-v3", "Unknown task 'drawer-clos-v3'. Did you mean 'drawer-close-v3'?"),
        ("--verson", "Unknown option of prefvlm '--verson'. Did you mean '--version'?"),
        ("table --results nowhere", "No run of profile quick is stored below "),
        ("figures --results nowhere", "No run of profile quick is stored below "),
    ],
)
def test_errors_are_one_line(
    prefvlm: Any, trained: list[Any], monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    code, out, err = prefvlm(line)
    assert (code, out) == (2, "")
    assert err.startswith(f"prefvlm: {message}") and err.endswith("\n") and err.count("\n") == 1
    assert not trained


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f"train --tasks {TASK} --feedback.budgt 3",
            "Did you mean '--feedback.budget'? Allowed: ",
        ),
        (f"train --tasks {TASK} --feedback.budget many", "--feedback.budget takes one whole number, got 'many'."),
        (
            f"train --tasks {TASK} --reward.source tru",
            "Unknown --reward.source 'tru'. Did you mean 'true'?",
        ),
        (
            f"train --tasks {TASK} --profile quik",
            "'quik'. Did you mean 'quick'? Allowed: laptop, paper",
        ),
        ("train", "prefvlm train needs --tasks: Tasks"),
        (
            "table --workers 3",
            "Unknown option of prefvlm table",
        ),  # an option that would do nothing is none
    ],
)
def test_wrong_options(prefvlm: Any, line: str, message: str) -> None:
    code, out, err = prefvlm(line)
    assert (code, out) == (2, "")
    assert message in words(err)


def test_outside_a_checkout(prefvlm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert prefvlm("reproduce") == (2, "", "prefvlm: There is no Snakefile here; run this in a checkout of prefvlm.\n")
    code, out, err = prefvlm("notebook 02_learning_curves")
    assert (code, out) == (2, "")
    assert err == "prefvlm: There is no folder notebooks; run this in the folder that holds notebooks/.\n"
    assert not list(tmp_path.iterdir())


def test_a_keyboard_interrupt_says_how_to_go_on(prefvlm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LOOP, "train", interrupted)
    code, out, err = prefvlm(f"train --tasks {TASK} --results {tmp_path}")
    assert (code, out) == (130, "")
    assert err == "prefvlm: stopped; the same command goes on from the last checkpoint.\n"


# ---- commands


def test_train_asks_for_the_product_of_tasks_methods_and_seeds(
    prefvlm: Any, trained: list[Any], tmp_path: Path
) -> None:
    line = f"train --tasks {TASK} door-open-v3 --methods sac pebble --seeds 0 1 1 --results {tmp_path}"
    line += " --no-progress --workers 3 --sac.width 64 --feedback.teacher skip"
    code, out, err = prefvlm(line)
    assert (code, err) == (0, "")
    ((configs, execution),) = trained
    changes = {"sac.width": 64, "feedback.teacher": "skip"}
    expected = {
        run_config(task, method, seed, "quick", changes).run_id
        for task in (TASK, "door-open-v3")
        for method in ("sac", "pebble")
        for seed in (0, 1)
    }
    assert len(configs) == 8 and {config.run_id for config in configs} == expected
    assert execution == Execution(results=str(tmp_path), progress=False, workers=3)
    assert out.splitlines()[0].startswith(f"{tmp_path}/{configs[0].run_id}  success 0.75  (fleet-")


def test_experiment_trains_one_fleet_and_leaves_its_record(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    name, fleet = next(iter(profile_fleets("quick").items()))
    assert prefvlm(f"fleet {name} --results {tmp_path}")[0] == 0
    assert [configs for configs, _ in trained] == [fleet]
    record = json.loads(batch.record_path(tmp_path, "quick", name).read_text())
    assert record["step"] == name
    assert record["made"] == [str(RunDirectory(tmp_path, config).path) for config in fleet]


def test_runs_lists_what_is_stored_and_what_is_missing(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    assert prefvlm(f"runs --results {tmp_path}") == (0, f"No run is stored below {tmp_path}.\n", "")
    planned = profile_fleets("quick")
    (name, fleet), *_ = planned.items()
    LOOP.train(fleet[:1], Execution(results=str(tmp_path)))
    fresh = RunDirectory(tmp_path, fleet[1])
    fresh.open()
    code, out, _ = prefvlm(f"runs --results {tmp_path} --planned")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["status", "actions", "env", "steps", "success", "run", "differs", "in"]
    assert lines[1].split() == ["finished", "1000", "5000", "0.75", fleet[0].run_id]
    assert lines[2].split() == ["not-started", "0", "0", "-", fleet[1].run_id]
    assert f"{name}  1 of {len(fleet)} runs finished" in lines
    missing = [line.split()[1] for line in lines if line.startswith("    missing")]
    runs = {config.run_id for experiment in EXPERIMENTS for config in configs_of(experiment, "quick")}
    assert set(missing) == runs - {fleet[0].run_id}


def test_runs_lists_what_is_asked_for(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    runs = [
        run_config(task, method, seed, profile)
        for task in (TASK, "door-close-v3")
        for method in ("sac", "prefvlm")
        for seed in (0, 1)
        for profile in ("quick", "laptop")
    ]
    for run in runs:
        LOOP.train([run], Execution(results=str(tmp_path)))
    begun = RunDirectory(tmp_path, run_config(TASK, "surf", 0, "quick"))
    begun.open()
    begun.write_manifest({"status": "running"})

    def listed(options: str) -> set[str]:
        code, out, err = prefvlm(f"runs --results {tmp_path} {options}")
        assert (code, err) == (0, "")
        return {word for line in out.splitlines() for word in line.split() if word.count("/") == 3}

    def names(**wanted: Any) -> set[str]:
        return {run.run_id for run in runs if all(getattr(run, name) in allowed for name, allowed in wanted.items())}

    assert listed("") == names() | {begun.run_id}
    assert listed(f"--tasks {TASK} --methods sac --seeds 1") == names(task=[TASK], method=["sac"], seed=[1])
    assert listed("--tasks door-close-v3 window-open-v3 --profile laptop") == names(
        task=["door-close-v3"], profile=["laptop"]
    )
    assert listed("--status running retired") == {begun.run_id}
    assert listed("--status finished --methods surf sac") == names(method=["sac"])
    shown = {run.run_id for run in configs_of("02_learning_curves", "quick")} & names()
    assert listed("--experiment 02_learning_curves --profile quick") == shown != set()
    code, out, _ = prefvlm(f"runs --results {tmp_path} --methods rime")
    assert (code, out) == (0, f"None of the {len(runs) + 1} runs fits that are stored below {tmp_path}.\n")


def test_runs_names_the_arms_of_an_experiment(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    assert prefvlm(f"experiment 05_transfer --results {tmp_path}")[0] == 0
    code, out, _ = prefvlm(f"runs --results {tmp_path} --experiment 05_transfer")
    header, *lines = out.splitlines()
    assert code == 0 and header.split()[-3:] == ["arm", "differs", "in"]
    arms = {run.config.run_id: run.arm.display_name(run.config) for run in plan("05_transfer", "quick")}
    sources = {run.source.run_id for run in plan("05_transfer", "quick") if run.source}
    assert len(lines) == len(arms.keys() | sources) and sources
    for line in lines:
        _, _, _, _, run_id, *told = line.split()
        assert " ".join(told).startswith(arms.get(run_id, "")) and (run_id in arms or not told)


def test_runs_may_be_read_in_part(trained: list[Any], tmp_path: Path) -> None:
    for seed in range(3):
        LOOP.train([run_config(TASK, "sac", seed, "quick")], Execution(results=str(tmp_path)))
    command = f"{sys.executable} -m prefvlm_core runs --results {tmp_path} | head -1; exit ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert finished.returncode in (0, 141) and finished.stderr == ""
    assert finished.stdout.startswith("status ") and finished.stdout.count("\n") == 1


def test_pack_publishes_what_is_finished(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    assert prefvlm(f"pack --results {tmp_path}")[:2] == (2, "")
    assert prefvlm(f"train --tasks {TASK} --methods sac pebble --results {tmp_path}")[0] == 0
    listed = prefvlm(f"runs --results {tmp_path}")
    said = "quick: runs published: 2, new: 2, folders cleared: 2\n"
    assert prefvlm(f"pack --results {tmp_path} --remove-folders") == (0, said, "")
    assert prefvlm(f"runs --results {tmp_path}") == listed and listed[1].count("finished ") == 2
    said = "laptop: runs published: 1, new: 1\n"
    assert prefvlm(f"train --tasks {TASK} --profile laptop --results {tmp_path / 'other'}")[0] == 0
    assert prefvlm(f"pack --profile laptop --results {tmp_path} --merge {tmp_path / 'other'}") == (0, said, "")


def drawn_figure(notebook: str, **_: Any) -> list[str]:
    """In place of `batch.notebook_step`, which is called in another process."""
    return [f"{notebook}.png"]


def test_table_and_figures_show_what_is_stored(
    prefvlm: Any, trained: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(batch, "notebook_step", drawn_figure)
    assert prefvlm(f"experiment 02_learning_curves --results {tmp_path}")[0] == 0
    code, out, _ = prefvlm(f"table --results {tmp_path}")
    assert code == 0 and {row.split(",")[0] for row in out.splitlines()[1:]} == {"02_learning_curves"}
    code, out, err = prefvlm(f"figures --results {tmp_path}")
    assert (code, out) == (0, "02_learning_curves.png\n")
    assert "figures: 100%" in err and "1/1" in err  # the bar


def test_table_is_written_and_shown(prefvlm: Any, trained: list[Any], tmp_path: Path) -> None:
    for experiment in EXPERIMENTS:
        assert prefvlm(f"experiment {experiment} --results {tmp_path}")[0] == 0
    code, out, err = prefvlm(f"table --results {tmp_path}")
    assert code == 0 and "prefvlm:" not in err  # a slow machine shows a bar
    header, *rows = out.splitlines()
    assert header.startswith("experiment,") and (tmp_path / "quick" / "table.csv").read_text() == out
    tasks = {f"{e},{run.config.task}" for e in EXPERIMENTS for run in plan(e, "quick")}
    assert {",".join(row.split(",")[:2]) for row in rows if ",all tasks," not in row} == tasks
    assert all(",0.7500," in row for row in rows)
    assert json.loads(batch.record_path(tmp_path, "quick", "table").read_text())["made"] == [
        f"{tmp_path}/quick/table.csv",
        f"{tmp_path}/quick/scores.csv",
        f"{tmp_path}/quick/differences.csv",
        f"{tmp_path}/quick/worth.csv",
        f"{tmp_path}/quick/planned.csv",
    ]
