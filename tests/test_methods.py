"""Names in configs: a wrong one is answered alike at every door, and a user's own passes through all of them."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.registries import REGISTRIES, restored_registries
from builders.runs import TINY, quiet

from prefvlm_core import METHODS, TEACHERS, Arm, Execution, Grid, Method, cli, evaluations, run_config, train
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import replace
from prefvlm_core.experiments.background import train_in_background
from prefvlm_core.experiments.fleets import experiments_of, plan, profile_fleets
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.preferences.teachers import ScriptedTeacher
from prefvlm_core.runs.directory import RunDirectory

TASK = "drawer-close-v3"
LOOP = importlib.import_module("prefvlm_core.train")  # `import prefvlm_core.train as` would give the function
PLAN = importlib.import_module("prefvlm_core.experiments.plan")
WRONG = [
    ("METHODS", "method", "peble", "Unknown method 'peble'. Did you mean 'pebble'? Allowed: "),
    ("TEACHERS", "feedback.teacher", "orcle", "Unknown feedback.teacher 'orcle'. Did you mean 'oracle'? Allowed: "),
    ("SELECTIONS", "feedback.sampling", "unifrm", "Unknown feedback.sampling 'unifrm'. Did you mean 'uniform'? "),
    ("HUMAN_SELECTIONS", "filter.human_selection", "rndom", "Unknown filter.human_selection 'rndom'. Did you mean "),
    ("FILTERS", "filter.mode", "rme", "Unknown filter.mode 'rme'. Did you mean 'rime'? Allowed: "),
    (
        "FILTERS",
        "filter.mode",
        "calibrated",
        "Unknown filter.mode 'calibrated'. Did you mean 'audited'? Allowed: ",
    ),  # of an earlier release
    ("HUMAN_SELECTIONS", "filter.human_selection", "disagreement", "Unknown filter.human_selection 'disagreement'. "),
    ("LEARNERS", "reward.learning", "plan", "Unknown reward.learning 'plan'. Did you mean 'plain'? Allowed: "),
    ("REWARD_INPUTS", "reward.inputs", "relation", "Unknown reward.inputs 'relation'. Did you mean 'relations'? "),
    ("VLMS", "vlm.model", "tinylv", "Unknown vision-language model 'tinylv'. Did you mean 'tinyliv'? Allowed: "),
]
EACH_NAME = pytest.mark.parametrize(("field", "name", "message"), [case[1:] for case in WRONG])


@pytest.fixture
def registries() -> Iterator[None]:
    with restored_registries():
        yield


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


# ---- wrong names


def test_every_registry_is_tried() -> None:
    assert {case[0] for case in WRONG} | {"EXPERIMENTS", "DOMAINS"} == REGISTRIES.keys()


def test_run_config_suggests_a_method() -> None:
    with pytest.raises(PrefVLMError) as raised:
        run_config(TASK, "peble", 0, "quick")
    assert str(raised.value).startswith("Unknown method 'peble'. Did you mean 'pebble'? Allowed: ")


@EACH_NAME
def test_an_experiment_suggests_a_name_before_its_first_fleet(
    field: str, name: str, message: str, registries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    monkeypatch.setattr(
        importlib.import_module("prefvlm_core.experiments.plan"), "train", lambda *of: trained.append(of)
    )
    arms = [Arm("sac", {"horizon": 100}), Arm(name) if field == "method" else Arm("pebble", {field: name})]
    EXPERIMENTS.register("my_question", {"quick": Grid({TASK: arms}, [0])})
    with pytest.raises(PrefVLMError) as raised:
        evaluations("my_question", "quick", quiet(tmp_path / "results"))
    assert str(raised.value).startswith(message)
    assert not trained and not list(tmp_path.iterdir())


@EACH_NAME
def test_train_suggests_a_name_before_it_writes(field: str, name: str, message: str, tmp_path: Path) -> None:
    config = replace(run_config(TASK, "pebble", 0, "quick"), {field: name})
    with pytest.raises(PrefVLMError) as raised:
        train([config], quiet(tmp_path / "results"))
    assert str(raised.value).startswith(message)
    assert not list(tmp_path.iterdir())


@EACH_NAME
def test_the_command_line_suggests_a_name_before_it_writes(
    field: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = "--methods" if field == "method" else f"--{field}"
    code = run_command("train", "--tasks", TASK, "--results", str(tmp_path / "results"), option, name)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith(f"prefvlm: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---- names of a user's own


def test_a_learner_of_ones_own_may_learn_from_labels_of_the_vlm() -> None:
    base = run_config(TASK, "prefvlm", 0, "quick")
    assert replace(base, {"reward.learning": "mine"}).vlm.labels
    with pytest.raises(PrefVLMError, match=r"reward\.learning surf learns from human labels only"):
        replace(base, {"reward.learning": "surf"})


def test_a_grid_or_method_that_is_registered_anew_is_planned_anew(registries: None) -> None:
    def grid(*methods: str) -> dict[str, Grid]:
        return {"quick": Grid({TASK: [Arm(method) for method in methods]}, [0])}

    METHODS.register("mine", Method("mine", {"feedback.budget": 100}))
    EXPERIMENTS.register("my_question", grid("mine"))
    (first,) = plan("my_question", "quick")
    fleets = profile_fleets("quick")
    assert profile_fleets("quick") is fleets  # remembered
    METHODS.register("mine", Method("mine", {"feedback.budget": 200}))
    (second,) = plan("my_question", "quick")
    assert (first.config.feedback.budget, second.config.feedback.budget) == (100, 200)
    EXPERIMENTS.register("my_question", grid("mine", "sac"))
    assert [run.config.method for run in plan("my_question", "quick")] == ["mine", "sac"]
    planned = [config for fleet in profile_fleets("quick").values() for config in fleet]
    assert second.config in planned and first.config not in planned


def test_an_experiment_may_lack_a_profile(registries: None) -> None:
    EXPERIMENTS.register("my_question", {"quick": Grid({TASK: [Arm("sac")]}, [0])})
    assert "my_question" in experiments_of("quick") and "my_question" not in experiments_of("paper")
    assert set(experiments_of("paper")) == set(EXPERIMENTS) - {"my_question"}
    with pytest.raises(PrefVLMError, match=r"Unknown profile of my_question 'paper'\. Allowed: quick\."):
        plan("my_question", "paper")
    with pytest.raises(PrefVLMError, match=r"Unknown profile 'quik'\. Did you mean 'quick'"):
        plan("my_question", "quik")
    with pytest.raises(PrefVLMError, match=r"Unknown experiment 'my_questio'\. Did you mean 'my_question'"):
        plan("my_questio", "quick")


PLUGIN = """
from prefvlm_core import EXPERIMENTS, METHODS, TEACHERS, Arm, Grid, Method
from prefvlm_core.preferences.teachers import ScriptedTeacher
from prefvlm_core.runs.directory import RunDirectory

TEACHERS.register("hasty", lambda config: ScriptedTeacher(discount=0.5))
METHODS.register("hasty-pebble", Method("PEBBLE with a hasty human", {"feedback.teacher": "hasty"}))
EXPERIMENTS.register("hasty_humans", {"quick": Grid({"drawer-close-v3": [Arm("hasty-pebble")]}, [0, 1])})
"""


TASK_OF_ITS_OWN = """
from prefvlm_core import DOMAINS
from prefvlm_core.domains.metaworld_domain import Metaworld


class Mine(Metaworld):
    title, tasks, main_tasks = "Mine", {"my-drawer": "close my drawer"}, ()

    def world(self, task, goal_visible):
        return super().world("drawer-close-v3", goal_visible)


DOMAINS.register("mine", Mine())
"""


@pytest.fixture
def plugin(registries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory, which nobody has imported."""
    (tmp_path / "hasty_names.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "hasty_names"
    sys.modules.pop("hasty_names", None)


@pytest.mark.parametrize(
    "line",
    [
        f"train --tasks {TASK} --methods hasty-pebble --seeds 0 1",
        f"train --tasks {TASK} --methods hasty-pebble --seeds 0 1 --feedback.teacher hasty",
        "experiment hasty_humans",
    ],
)
def test_the_command_line_trains_what_a_plugin_names(plugin: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    for module in (LOOP, PLAN):
        monkeypatch.setattr(module, "train", lambda configs, execution: asked.extend(configs) or [])
    assert run_command(*line.split(), "--plugin", plugin) == 0
    assert [(config.method, config.feedback.teacher, config.seed) for config in asked] == [
        ("hasty-pebble", "hasty", 0),
        ("hasty-pebble", "hasty", 1),
    ]


def test_a_plugin_that_does_not_exist_is_named(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("hasty_name", "hasty_names.py", "./hasty_names", "nowhere.hasty_names"):
        assert run_command("train", "--tasks", TASK, "--plugin", name) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"prefvlm: There is no module '{name}' on the Python path or in {Path.cwd()}; ")
        assert out == "" and err.count("\n") == 1


def test_what_a_plugin_lacks_itself_is_not_hidden(plugin: str) -> None:
    Path("hasty_names.py").write_text("import a_module_that_nobody_has")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        Execution(plugin=plugin)


def test_training_in_another_process_finds_a_plugins_names(plugin: str) -> None:
    execution = quiet(Path("results"), plugin=plugin)
    config = run_config(TASK, "hasty-pebble", 0, "quick", TINY | {"total_steps": 150})
    process = train_in_background(config, execution)
    log = Path("results/logs") / f"{config.hash}.log"
    assert process.wait(timeout=120) == 0, log.read_text()
    manifest = RunDirectory("results", config).manifest
    assert (manifest["status"], manifest["plugin"]) == ("finished", plugin)


def test_training_in_another_process_finds_a_plugins_task(plugin: str) -> None:
    Path(f"{plugin}.py").write_text(PLUGIN + TASK_OF_ITS_OWN)
    execution = quiet(Path("results"), plugin=plugin)
    config = run_config("my-drawer", "pebble", 0, "quick", TINY | {"total_steps": 150})
    process = train_in_background(config, execution)
    log = Path("results/logs") / f"{config.hash}.log"
    assert process.wait(timeout=120) == 0, log.read_text()
    assert RunDirectory("results", config).finished


def test_a_stored_run_is_readable_without_its_plugin(plugin: str) -> None:
    TEACHERS.register("gone", lambda config: ScriptedTeacher())
    config = run_config(TASK, "pebble", 0, "quick", TINY | {"total_steps": 150, "feedback.teacher": "gone"})
    train([config], quiet(Path("results")))
    read = [sys.executable, "-m", "prefvlm_core", "runs", "--results", "results"]
    listed = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[1].startswith("finished") and config.run_id in listed
