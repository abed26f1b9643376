"""Whatever is typed or passed by mistake is answered in a sentence that names it, and leaves nothing on the disk.

One table per door: the command line, Python, the parameters of notebooks, environment variables, and make's variables.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefvlm_core import METHODS, Execution, evaluations, register_task_text, run_config, train
from prefvlm_core.cli import main
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.perturbations import Perturbation
from prefvlm_core.domains.registry import meant_task
from prefvlm_core.domains.tasks import TASKS
from prefvlm_core.experiments.opened import open_experiment
from prefvlm_core.vlm import load

ROOT = Path(__file__).parents[1]
TASK = "drawer-close-v3"
RUN = f"train --tasks {TASK} --no-progress"


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert [str(path) for path in tmp_path.rglob("*")] == []


# ---- the command line

COMMAND_LINES = {
    # names
    "trian": "Unknown command 'trian'. Did you mean 'train'?",
    "Train": "Unknown command 'Train'. Did you mean 'train'?",
    "train": "prefvlm train needs --tasks: Tasks",
    "train --tasks": "name at least one task",
    f"train --tasks {TASK} --methods": "name at least one task, method and seed",
    f"train --tasks {TASK} --seeds": "name at least one task, method and seed",
    "train --tasks drawer-clos-v3": "Did you mean 'drawer-close-v3'?",
    "train --tasks drawer-close-v2": "Did you mean 'drawer-close-v3'?",
    "train --tasks metaworld_drawer-open-v2": "Did you mean 'drawer-open-v3'?",
    "train --tasks drawer-close-v3,drawer-open-v3": "separate them by spaces: drawer-close-v3 drawer-open-v3",
    "train --tasks button-press-v2;sweep-into": "separate them by spaces: button-press-v3 sweep-into-v3",
    "train --tasks quadruped-walk": "Unknown task 'quadruped-walk'. Allowed:",
    "train --tasks drawer-shut": "Unknown task 'drawer-shut'. Allowed:",
    "train --tasks door": "Unknown task 'door'. Allowed:",
    f"train --tasks {TASK} ../../etc": "Unknown task '../../etc'. Allowed:",
    "train --task door-open-v3": "Unknown option of prefvlm train '--task'. Did you mean '--tasks'?",
    f"{RUN} --methods peble": "Unknown method 'peble'. Did you mean 'pebble'?",
    f"{RUN} --methods ../pebble": "Unknown method '../pebble'.",
    f"{RUN} --method pebble": "Did you mean '--methods'?",
    f"{RUN} --profile quik": "Unknown --profile 'quik'. Did you mean 'quick'?",
    f"{RUN} --profile Quick": "Unknown --profile 'Quick'. Did you mean 'quick'?",
    f"{RUN} --teacher humann": "Unknown feedback.teacher 'humann'.",
    f"{RUN} --feedback.teacher Oracle": "Unknown feedback.teacher 'Oracle'. Did you mean 'oracle'?",
    f"{RUN} --feedback.sampling random": "Unknown",
    f"{RUN} --filter.mode rimes": "Did you mean 'rime'?",
    f"{RUN} --filter.human-selection certain": "Did you mean 'uncertain'?",
    f"{RUN} --reward.learning surfing": "Did you mean 'surf'?",
    f"{RUN} --reward.source tru": "Unknown --reward.source 'tru'. Did you mean 'true'?",
    f"{RUN} --vlm.ties maybe": "Unknown --vlm.ties 'maybe'. Allowed:",
    f"{RUN} --plugin no_such_module": "There is no module 'no_such_module'",
    f"{RUN} --plugin a/b.py": "plugin takes a module's name",
    # numbers
    f"{RUN} --seeds -1": "seed must be at least 0, got -1.",
    f"{RUN} --seeds 0,1": "--seeds takes whole numbers with spaces between them, like 0 1, got '0,1'.",
    f"{RUN} --seeds 0-4": "--seeds takes whole numbers with spaces between them, like 0 1, got '0-4'.",
    f"{RUN} --seeds 1.0": "--seeds takes whole numbers with spaces between them, like 0 1, got '1.0'.",
    f"{RUN} --seeds {2**63}": f"seed must be at most {2**63 - 1}",
    f"{RUN} --seeds {10**40}": f"seed must be at most {2**63 - 1}",
    f"{RUN} --seeds nan": "--seeds takes whole numbers with spaces between them, like 0 1, got 'nan'.",
    f"{RUN} --total-steps 1e6": "--total-steps takes one whole number, got '1e6'.",
    f"{RUN} --total-steps 0": "total_steps must be at least 1, got 0.",
    f"{RUN} --total-steps 4001": "total_steps must be a multiple of horizon 50, got 4001.",
    f"{RUN} --total-steps {10**12}": "needs about 264 TB of memory, most of it for the replay (total_steps)",
    f"{RUN} --total-steps {10**18}": "total_steps must be at most 1000000000000000",
    f"{RUN} --horizon 0": "horizon must be at least 1, got 0.",
    f"{RUN} --horizon 101": "horizon is 101 and action_repeat 5",
    f"{RUN} --action-repeat {10**9}": "Meta-World's episodes allow 1 to 500 environment steps in all",
    f"{RUN} --sac.width {10**9}": "of memory, most of it for the agent's networks (sac.width, sac.hidden_layers)",
    f"{RUN} --sac.width {10**10}": "sac.width must be at most 1000000000",
    f"{RUN} --sac.hidden-layers {10**6}": "sac.hidden_layers must be at most 100",
    f"{RUN} --sac.batch-size {10**9}": "most of it for the agent's batches (sac.batch_size, sac.width",
    f"{RUN} --sac.batch-size {10**10}": "sac.batch_size must be at most 1000000000",
    f"{RUN} --sac.batch-size 0": "sac.batch_size must be at least 1, got 0.",
    f"{RUN} --sac.discount 1.5": "sac.discount must be at most 1, got 1.5.",
    f"{RUN} --sac.discount nan": "sac.discount must be finite, got nan.",
    f"{RUN} --sac.actor-learning-rate inf": "sac.actor_learning_rate must be finite, got inf.",
    f"{RUN} --sac.actor-learning-rate -1": "sac.actor_learning_rate must be above 0, got -1.0.",
    f"{RUN} --sac.initial-temperature 0": "sac.initial_temperature must be above 0, got 0.0.",
    f"{RUN} --sac.target-rate 0": "sac.target_rate must be above 0, got 0.0.",
    f"{RUN} --reward.width {10**9}": "most of it for the reward ensemble (reward.members, reward.width",
    f"{RUN} --reward.members 0": "reward.members must be at least 1, got 0.",
    f"{RUN} --reward.members {10**6}": "reward.members must be at most 1000",
    f"{RUN} --reward.stop-accuracy 97": "reward.stop_accuracy must be at most 1, got 97.0.",
    f"{RUN} --feedback.budget -1": "feedback.budget must be at least 0, got -1.",
    f"{RUN} --feedback.budget 0": "feedback.budget is 0 and vlm.labels is off",
    f"{RUN} --feedback.budget 10": "feedback.first_session_queries must be 1 to feedback.budget 10, got 16.",
    f"{RUN} --feedback.budget many": "--feedback.budget takes one whole number, got 'many'.",
    f"{RUN} --feedback.segment-length 51": "feedback.segment_length must be at most horizon 50, got 51.",
    f"{RUN} --feedback.segment-length 0": "feedback.segment_length must be at least 1, got 0.",
    f"{RUN} --feedback.candidates {10**9}": "most of it for the candidate pairs (feedback.candidates",
    f"{RUN} --feedback.teacher-mistake 20": "feedback.teacher_mistake must be at most 1, got 20.0.",
    f"{RUN} --evaluation.every 70": "evaluation.every must be a multiple of horizon 50, got 70.",
    f"{RUN} --evaluation.held-out-pairs {10**9}": "most of it for the evaluation's pairs (evaluation.held_out_pairs",
    f"{RUN} --methods prefvlm --adapter.folds 1": "adapter.folds must be at least 2, got 1.",
    f"{RUN} --methods prefvlm --adapter.hidden {10**9}": "most of it for the adapters (adapter.hidden",
    f"{RUN} --methods prefvlm --vlm.queries {10**9}": "most of it for the pairs of the VLM (vlm.queries",
    f"{RUN} --methods prefvlm --vlm.frame-stride 3": "vlm.frame_stride 3 must divide horizon 50.",
    f"{RUN} --methods surf --surf.crop 30": "surf.crop 30 must be below feedback.segment_length 10",
    f"{RUN} --exploration.random-steps 0 --exploration.entropy-steps 0": "must cover one episode (50 actions)",
    f"{RUN} --exploration.random-steps 4000": "total_steps 3000 must exceed the 4250 actions of exploration",
    # models, adapters, devices and queues, which are checked before a folder is made
    f"{RUN} --methods prefvlm --vlm.model LIVE": "Unknown vision-language model 'LIVE'.",
    f"{RUN} --methods prefvlm --vlm.model ''": "Unknown vision-language model ''.",
    f"{RUN} --methods prefvlm --vlm.model simulated:2": "vlm.model simulated:2 must name a probability",
    f"{RUN} --methods prefvlm --vlm.model simulated:nan": "vlm.model simulated:nan must name a probability",
    f"{RUN} --methods prefvlm --vlm.model simulated-feature:0.8": "Did you mean 'simulated-features'?",
    f"{RUN} --methods prefvlm --vlm.model simulated-features:0.8": "gives no embeddings, so it can neither be adapted",
    f"{RUN} --methods prefvlm --vlm-weights nothing.pt": "'tinyliv2' comes with the package and takes no weights file",
    f"{RUN} --methods prefvlm --adapter.source quick/a": "adapter.source is quick/a, but there is no results/quick/a",
    f"{RUN} --methods prefvlm --adapter.source ../../x": "adapter.source is ../../x, but there is no",
    f"{RUN} --adapter.source quick/a": "adapter.source is quick/a, but the run trains no adapters",
    f"{RUN} --methods vlm-reward --vlm.model simulated:0.8": "gives no embeddings",
    f"{RUN} --methods prefvlm --vlm.model endpoint:": "vlm.model endpoint: must name a model",
    f"{RUN} --methods prefvlm --vlm.model endpoint:a": "gives no embeddings, so it can neither be adapted nor reward",
    f"{RUN} --methods vlm-reward --vlm.model endpoint:a": "gives no embeddings, so it can neither be adapted",
    f"{RUN} --methods vlm-preference --vlm.model endpoint:a": "can find segments equal; set vlm.ties to drop or keep.",
    f"{RUN} --methods rlvlmf --vlm.model endpoint:a": "PREFVLM_ENDPOINT is not set; it is to hold the endpoint",
    f"{RUN} --methods prefvlm --reward.learning surf": "learns from human labels only",
    f"{RUN} --device gpu": "Unknown device 'gpu'. Did you mean 'cpu'?",
    f"{RUN} --device cuda:1": "Unknown device 'cuda:1'. Did you mean 'cuda'?",
    f"{RUN} --device mps": "Unknown device 'mps'.",
    f"{RUN} --teacher human --labels nonsense": "The database URL cannot be read",
    f"{RUN} --teacher human --labels sqlite:///no/such/folder/x.sqlite": "label queue",
    # how it is run
    f"{RUN} --threads 0": "threads must be at least 1, got 0.",
    f"{RUN} --threads 1000000": "threads must be at most ",
    f"{RUN} --workers -1": "workers must be at least 0, got -1.",
    f"{RUN} --workers 1000000": "workers must be at most ",
    f"{RUN} --workers two": "--workers takes one whole number, got 'two'.",
    f"{RUN} --checkpoint-seconds nan": "checkpoint_seconds must be finite, got nan.",
    f"{RUN} --checkpoint-seconds inf": "checkpoint_seconds must be finite, got inf.",
    f"{RUN} --checkpoint-seconds -5": "checkpoint_seconds must be at least 0, got -5.0.",
    f"{RUN} --label-timeout -1": "label_timeout must be at least 0 seconds, got -1.0.",
    f"{RUN} --label-timeout nan": "label_timeout must be at least 0 seconds, got nan.",
    f"{RUN} --results ''": "results must name a folder, got ''.",
    f"{RUN} --results /etc/passwd": "results is '/etc/passwd', but /etc/passwd is a file, not a folder.",
    f"{RUN} --results /etc/passwd/runs": "/etc/passwd is a file, not a folder.",
    f"{RUN} --results {'x' * 300}": "cannot be used: File name too long.",
    f"{RUN} --results /proc/runs": "/proc",
    # other commands
    "experiment 02_learning_curve": "Did you mean '02_learning_curves'?",
    "experiment": "prefvlm experiment needs a name",
    "experiment 02_learning_curves --results ''": "results must name a folder, got ''.",
    "fleet fleet-00000000": "Unknown fleet 'fleet-00000000'.",
    "notebook 02_learning_curves": "There is no folder notebooks",
    "notebook 02_learning_curves --results ''": "--results must name a folder, got ''.",
    "reproduce": "There is no Snakefile here",
    "reproduce --results ''": "--results must name a folder, got ''.",
    "reproduce --cores many": "--cores takes one whole number, got 'many'.",
    "reproduce --executor slurm": "--executor slurm needs --device cpu or --device cuda, since auto",
    "reproduce --fleet-size 0": "fleet_size must be at least 1, got 0.",
    "reproduce --notebooks 2": "Unknown notebook '2'.",
    "fleet fleet-00000000 --fleet-size 0": "fleet_size must be at least 1, got 0.",
    "reproduce --device tpu": "Unknown --device 'tpu'. Did you mean 'cpu'?",
    "runs --results none": "There is no folder none; --results names the one that holds the runs.",
    "runs --results ''": "--results must name a folder, got ''.",
    "runs --bogus": "Unknown option of prefvlm runs '--bogus'.",
    "table --results none": "No run of profile quick is stored below",
    "table --profile papers": "Unknown --profile 'papers'. Did you mean 'paper'?",
    "figures --results none": "No run of profile quick is stored below",
    "figures --results ''": "--results must name a folder, got ''.",
    "pack --results none": "none",
    "pack --merge none": "There is no folder none; --merge names other results folders.",
    "labels": "prefvlm labels needs one of status, agreement, export, import.",
    "labels count": "Unknown action of prefvlm labels 'count'. Allowed:",
    "labels export --file ''": "--file must name a file, got '.'.",
    "pretrain --seeds": "pretrain needs at least one training seed",
    "pretrain --seeds -1": "A seed must be at least 0, got -1.",
    f"pretrain --seeds {2**64}": f"A seed must be at most {2**63 - 1}",
    "pretrain --evaluation-seed -1": "A seed must be at least 0, got -1.",
    "pretrain --output ''": "--output must name a folder",
    "pretrain --variant tinylivv": "Unknown --variant 'tinylivv'. Did you mean 'tinyliv2'?",
    "pretrain --variant tinyliv": "Unknown --variant 'tinyliv'.",  # the first generation is kept, but not trained again
    "bench --only speed": "Unknown benchmark group 'speed'.",
    "bench --results ''": "--results must name a folder, got ''.",
}


@pytest.mark.parametrize(("line", "words"), COMMAND_LINES.items())
def test_the_command_line(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["" if word == "''" else word for word in line.split()])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert words in err
    assert err.startswith("prefvlm: ") and err.count("\n") == 1


# ---- Python

PYTHON: dict[str, tuple[Callable[[], object], str]] = {
    "no task": (lambda: run_config(None, "pebble", 0, "quick"), "task must be of type str, got None."),  # type: ignore[arg-type]
    "a list": (lambda: run_config([TASK], "pebble", 0, "quick"), "task must be of type str"),  # type: ignore[arg-type]
    "a line": (lambda: run_config("a\nb", "pebble", 0, "quick"), r"Unknown task 'a\nb'."),
    "no method": (lambda: run_config(TASK, None, 0, "quick"), "Unknown method None."),  # type: ignore[arg-type]
    "no profile": (lambda: run_config(TASK, "sac", 0, None), "Unknown profile None."),  # type: ignore[arg-type]
    "profiles": (lambda: run_config(TASK, "sac", 0, ["quick"]), "Unknown profile ['quick']."),  # type: ignore[arg-type]
    "seed 0.5": (lambda: run_config(TASK, "sac", 0.5, "quick"), "seed must be of type int, got 0.5."),  # type: ignore[arg-type]
    "a changed text": (lambda: run_config(TASK, "sac", 0, "quick", "x"), "changes must be a dictionary"),  # type: ignore[arg-type]
    "a group": (lambda: run_config(TASK, "sac", 0, "quick", {"sac": {"width": 3}}), "Unknown parameter 'sac'."),
    "no width": (lambda: run_config(TASK, "sac", 0, "quick", {"sac.width": None}), "sac.width must be of type int"),
    "an array": (lambda: run_config(TASK, "sac", 0, "quick", {"sac.width": np.ones(2)}), "sac.width must be of type"),
    "infinite": (lambda: run_config(TASK, "sac", 0, "quick", {"sac.discount": np.inf}), "sac.discount must be finite"),
    "10^400": (lambda: run_config(TASK, "sac", 0, "quick", {"sac.discount": 10**400}), "sac.discount must be at most"),
    "10^5000": (lambda: run_config(TASK, "sac", 10**5000, "quick"), "a number of thousands of digits"),
    "no list": (lambda: train(run_config(TASK, "sac", 0, "quick")), "Training takes a list of what run_config"),  # type: ignore[arg-type]
    "names": (lambda: train(["pebble"]), "Training takes a list of what run_config returns, got ['pebble']."),  # type: ignore[list-item]
    "no runs": (lambda: train([]), "A fleet needs at least one run."),
    "twice": (
        lambda: train([run_config(TASK, "sac", 0, "quick")] * 2),
        "The same run is asked for twice",
    ),
    "a folder": (lambda: train([run_config(TASK, "sac", 0, "quick")], "results"), "execution must be an Execution"),  # type: ignore[arg-type]
    "a number": (lambda: Execution(results=3), "results must be of type str, got 3."),  # type: ignore[arg-type]
    "blank": (lambda: Execution(results="  "), "results must name a folder, got '  '."),
    "NUL": (lambda: Execution(results="a\0b"), r"results must name a folder, got 'a\x00b'."),
    "threads": (lambda: Execution(threads=1.5), "threads must be of type int, got 1.5."),  # type: ignore[arg-type]
    "an experiment": (lambda: evaluations(None, "quick"), "Unknown experiment None."),  # type: ignore[arg-type]
    "experiments": (lambda: evaluations(["02"], "quick"), "Unknown experiment ['02']."),  # type: ignore[arg-type]
    "a text": (lambda: register_task_text("drawer-open", "x"), "Did you mean 'drawer-open-v3'?"),
    "no text": (lambda: register_task_text(TASK, " "), "The text of 'drawer-close-v3' is empty"),
    "a name": (lambda: METHODS.register("a/b", METHODS["sac"]), "A method needs a printable name"),
    "a taken name": (lambda: METHODS.register("sac", METHODS["sac"]), "comes with the package"),
    "a model": (lambda: load("tinylive"), "Unknown vision-language model 'tinylive'. Did you mean 'tinyliv'?"),
    "a model's file": (lambda: load("random", "x.pt"), "takes no weights file, but got x.pt."),
    "a world": (lambda: Environment("drawer_open"), "Did you mean 'drawer-open-v3'?"),
    "a long episode": (lambda: Environment(TASK, 501), "1 to 500 environment steps in all"),
    "an episode's seed": (lambda: Environment(TASK).reset(-1), "needs a seed of 0 or more, got -1."),
    "no worlds": (lambda: EnvironmentFleet([], 50, 1), "`tasks` is empty"),
    "no workers": (lambda: EnvironmentFleet([TASK], 50, 0), "workers is 0, but a fleet needs at least 1."),
    "a camera": (lambda: FrameRenderer(TASK, camera="corner9"), "Unknown camera 'corner9'."),
    "large frames": (lambda: FrameRenderer(TASK, 10**6), "allowed are 16 to 1024"),
    "noise": (lambda: Perturbation(noise=np.nan), "Perturbation.noise is nan"),
}


@pytest.mark.parametrize("case", PYTHON)
def test_python(case: str) -> None:
    call, words = PYTHON[case]
    with pytest.raises(PrefVLMError) as refused:
        call()
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ---- parameters of notebooks, which papermill passes on

PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "no profile": ({"profile": None}, "Unknown profile None."),
    "a number": ({"profile": 3}, "Unknown profile 3."),
    "profiles": ({"profile": ["quick"]}, "Unknown profile ['quick']."),
    "another case": ({"profile": "Laptop"}, "Did you mean 'laptop'?"),
    "an experiment": ({"name": "2_learning_curves"}, "Did you mean '02_learning_curves'?"),
    "training": ({"train": "yes"}, "train is 'yes'; allowed are True, False and None"),
    "training 1": ({"train": 1}, "train is 1; allowed are True, False and None"),
    "no results": ({"results": None}, "results must be a text, empty for the project's own, got None."),
    "blank results": ({"results": " "}, "results must name a folder, got ' '."),
    "results in a file": ({"results": __file__}, "is a file, not a folder."),
    "no figures": ({"figures": 0}, "figures must be a text, empty for the project's own, got 0."),
    "figures in a file": ({"figures": __file__}, "is a file, not a folder."),
    "labels": ({"labels": ["sqlite:///x"]}, "labels must be a text"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_of_notebooks(case: str) -> None:
    changed, words = PARAMETERS[case]
    with pytest.raises(PrefVLMError) as refused:
        open_experiment(**{"name": "02_learning_curves", "profile": "quick"} | changed)
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ---- the environment


def prefvlm(*arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[bytes]:
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])
    return subprocess.run(
        [sys.executable, *python, "-m", "prefvlm_core", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp1252", "utf-8"])
def test_a_console_that_cannot_show_a_character_shows_a_question_mark(encoding: str) -> None:
    for arguments in (("--help",), ("train", "--help")):
        finished = prefvlm(*arguments, PYTHONIOENCODING=encoding)
        assert (finished.returncode, finished.stderr) == (0, b"")
        assert b"prefvlm" in finished.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {"MUJOCO_GL": "nonsense"},
        {"MUJOCO_GL": "osmesa"},
        {"PYTHONWARNINGS": "error"},
        {"COLUMNS": "many"},
        {"XDG_CACHE_HOME": ""},
        {"PYTHONHASHSEED": "7"},
    ],
    ids=str,
)
def test_commands_that_draw_nothing_work_in_odd_environments(environment: dict[str, str]) -> None:
    for arguments, said in (
        (("runs", "--results", "."), b"No run is stored below"),
        (("fleet", "fleet-0"), b"Unknown fleet 'fleet-0'"),
    ):
        finished = prefvlm(*arguments, **environment)
        assert finished.stdout.startswith(said) or finished.stderr.startswith(b"prefvlm: " + said)
        assert finished.stderr.count(b"\n") == finished.returncode // 2  # no more than its sentence


@pytest.mark.parametrize("variable", ["TQDM_NCOLS=x", "TQDM_BAR_FORMAT={banana}", "TQDM_MININTERVAL="])
def test_what_tqdm_cannot_use_is_named(variable: str) -> None:
    name, _, value = variable.partition("=")
    finished = prefvlm("fleet", "fleet-0", **{name: value})
    assert (finished.returncode, finished.stdout, finished.stderr.count(b"\n")) == (2, b"", 1)
    assert f"what its environment variables hold ({name}): ".encode() in finished.stderr


@pytest.mark.parametrize("variable", ["TQDM_DISABLE=banana", "TQDM_FILE=x", "OMP_NUM_THREADS=x", "TMPDIR=/none"])
def test_other_variables_of_libraries_do_no_harm(variable: str) -> None:
    name, _, value = variable.partition("=")
    finished = prefvlm("fleet", "fleet-0", **{name: value})
    assert finished.returncode == 2 and b"Traceback" not in finished.stderr
    assert b"prefvlm: Unknown fleet 'fleet-0'" in finished.stderr


def test_files_are_read_and_written_in_utf_8() -> None:
    finished = prefvlm("runs", "--results", str(ROOT / "results"), python=("-X", "warn_default_encoding"))
    assert finished.returncode == 0 and b"prefvlm_core" not in finished.stderr
    missing = re.compile(r"\.(?:read|write)_text\((?![^()]*(?:\([^()]*\))?[^()]*encoding)")
    for path in (ROOT / "prefvlm_core").rglob("*.py"):
        assert not missing.search(path.read_text(encoding="utf-8")), path


def test_output_that_nobody_reads_is_not_worth_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])
    finished = subprocess.run(
        [sys.executable, "-m", "prefvlm_core", "runs", "--results", "."],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["list tasks", "--help"])
def test_output_that_cannot_be_written_is_told(line: str, unbuffered: str) -> None:
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "prefvlm_core", *line.split()]
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert finished.returncode == 2
    assert finished.stderr == "prefvlm: The output cannot be written: No space left on device.\n"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    "variable",
    [
        "PROFILE=quik",
        "PROFILE=",
        "PROFILE=quick laptop",
        "VENV=",
        "VENV=/",
        "VENV=a b",
        "VENV=.",
        "PYTHON=",
        "PYTHON=a b",
    ],
)
def test_variables_of_make(variable: str) -> None:
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    finished = subprocess.run(  # as from a shell, although `make test` may be running this
        ["make", "-f", str(ROOT / "Makefile"), "reproduce", variable], capture_output=True, text=True, env=outside
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    name, _, value = variable.partition("=")
    assert f"{name} is '{value}'" in finished.stderr and finished.stderr.count("\n") == 1


def test_a_script_without_its_guard_is_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("script")
    script = folder / "script.py"
    script.write_text(
        "from prefvlm_core import Execution, run_config, train\n"
        f"train([run_config('{TASK}', 'sac', 0, 'quick')], Execution(results='runs', progress=False))\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])
    finished = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1 and finished.stderr.count("Traceback") == 1
    assert 'put what it does below the line `if __name__ == "__main__":`.' in finished.stderr.splitlines()[-1]


# ---- names of tasks

OTHER_NAMES = [
    "{base}-v1", "{base}-v2", "{base}", "metaworld_{base}-v2", "metaworld-{base}", "meta_world/{base}", "mw-{base}",
    "{base}-v2-goal-observable", "{base}-v2-goal-hidden", "MT1/{base}-v2", "ML1-{base}", "sawyer_{base}", "env:{base}",
]  # fmt: skip


def shapes(name: str) -> list[str]:
    return [name, name.replace("-", "_"), name.upper(), name.title(), name.replace("-", " "), f" {name} "]


@pytest.mark.parametrize("task", TASKS)
def test_names_of_other_projects_lead_to_the_same_task(task: str) -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    base = task.removesuffix("-v3")
    others = [shape for pattern in OTHER_NAMES for shape in shapes(pattern.format(base=base))]
    others += [base.replace("-", ""), base.title().replace("-", ""), " ".join(reversed(base.split("-")))]
    assert {name: meant_task(name) for name in others} == dict.fromkeys(others, task)
    of_the_class = ALL_V3_ENVIRONMENTS[task].__name__
    for version in ("V1", "V2", "V3", ""):
        assert meant_task(of_the_class.replace("V3", version)) in (task, "")


@pytest.mark.parametrize(
    "name",
    ["drawer-shut", "door", "drawer", "window", "mt10", "ML45", "fish-swim", "humanoid_run", "push-front", "-v2", "",
     "handle-push", "door-shut", "plate-slide-front", "faucet-turn", "coffee", "lift", "kitchen-v0", "metaworld"],
)  # fmt: skip
def test_names_that_may_mean_another_task_lead_to_none(name: str) -> None:
    assert meant_task(name) == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_letter_too_few_or_too_many_leads_to_no_other_task(task: str) -> None:
    base = task.removesuffix("-v3")
    typed = [base[:i] + base[i + 1 :] for i in range(len(base))] + [f"{base[:i]}x{base[i:]}" for i in range(len(base))]
    assert {meant_task(name) for name in typed if name not in {t.removesuffix("-v3") for t in TASKS}} <= {task, ""}
