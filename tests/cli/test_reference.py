"""`prefvlm list` and `prefvlm show`: what there is, and what a run would do."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.registries import restored_registries

from prefvlm_core import METHODS, PROFILES, TEACHERS, VLMS, cli, run_config
from prefvlm_core.config.groups import SIMULATED_VLMS
from prefvlm_core.config.profiles import SUMMARIES
from prefvlm_core.config.run import IDENTITY, default_fields
from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.experiments.grids import EXPERIMENTS
from prefvlm_core.preferences.teachers import HUMAN
from prefvlm_core.vlm.texts import task_text

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = {
    "tasks": {*TASKS, "point-maze-u", "point-maze-medium", *GOALS, "walker-walk", "cheetah-run"},
    "methods": set(METHODS),
    "vlms": {*VLMS, "endpoint:", *(f"{kind}:" for kind in SIMULATED_VLMS)},
    "teachers": {*TEACHERS, HUMAN},
    "experiments": set(EXPERIMENTS),
    "profiles": set(PROFILES),
}
PLUGIN = """
from prefvlm_core import METHODS, TEACHERS, Method

METHODS.register("mine", Method("A method of my own", {"filter.alpha": 0.125}))
TEACHERS.register("my-teacher", TEACHERS["oracle"])
"""


@pytest.fixture
def prefvlm(capsys: pytest.CaptureFixture[str]):
    """Runs a command line in process and returns its lines."""

    def run(line: str) -> list[str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(line.split())
        out, err = capsys.readouterr()
        assert (stopped.value.code, err) == (0, "")
        return out.splitlines()

    return run


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The name of a module of the user's in the working directory."""
    (tmp_path / "names_of_mine.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with restored_registries():
        yield "names_of_mine"
    sys.modules.pop("names_of_mine")


def listed(lines: list[str]) -> dict[str, str]:
    """Summaries by name."""
    return {name: " ".join(words) for name, *words in map(str.split, lines)}


# ---- list


@pytest.mark.parametrize("what", NAMES)
def test_every_name_is_listed_once_with_a_line(prefvlm: Any, what: str) -> None:
    lines = prefvlm(f"list {what}")
    assert listed(lines).keys() == NAMES[what] and len(lines) == len(NAMES[what])
    assert all(listed(lines).values()) and max(map(len, lines)) <= 150


def test_the_lines_are_those_of_the_package(prefvlm: Any) -> None:
    tasks, methods = listed(prefvlm("list tasks")), listed(prefvlm("list methods"))
    assert {name for name, text in tasks.items() if text.endswith("(in the papers)")} == set(PAPER_TASKS)
    assert all(text.startswith(task_text(name)) for name, text in tasks.items())
    assert methods == {name: method.summary for name, method in METHODS.items()}


def test_experiments_are_described_as_their_notebooks_are(prefvlm: Any) -> None:
    for name, summary in listed(prefvlm("list experiments")).items():
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        title = cells[0]["source"][0].strip()
        assert title.partition(": ")[2] == summary


def test_profiles_say_how_long_a_run_is(prefvlm: Any) -> None:
    lines = listed(prefvlm("list profiles"))
    assert list(lines) == list(SUMMARIES)
    for name, line in lines.items():
        config = run_config("drawer-close-v3", "pebble", 0, name)
        assert f"{config.total_steps} actions" in line and f"{config.feedback.budget} queries" in line
    assert "3000 actions held for 5 environment steps each, 15000 in all" in lines["quick"]
    assert "1000000 actions of one environment step each" in lines["paper"]


def test_names_of_a_users_own_are_listed(prefvlm: Any, plugin: str) -> None:
    assert listed(prefvlm(f"list methods --plugin {plugin}"))["mine"] == "A method of my own"
    assert listed(prefvlm(f"list teachers --plugin {plugin}"))["my-teacher"] == ""


# ---- show


def table(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Value and source by field."""
    start = next(number for number, line in enumerate(lines) if line.startswith("field "))
    assert lines[start].split() == ["field", "value", "from"]
    rows = [line.split() for line in lines[start + 1 :]]
    assert len({row[0] for row in rows}) == len(rows)
    return {name: (value, source) for name, value, source in rows}


def test_show_gives_every_field_with_its_value_and_source(prefvlm: Any) -> None:
    changes = {"feedback.budget": 200, "filter.alpha": 0.25, "vlm.labels": False}
    options = "--feedback.budget 200 --filter.alpha 0.25 --vlm.no-labels --adapter.no-enabled"
    lines = prefvlm(f"show --profile laptop --tasks door-open-v3 --methods prefvlm --seeds 7 {options}")
    config = run_config("door-open-v3", "prefvlm", 7, "laptop", changes | {"adapter.enabled": False})
    assert lines[0] == f"run {config.run_id}"
    assert lines[1].strip() == METHODS["prefvlm"].summary
    assert lines[2].strip().endswith("30000 in all; 200 queries to the oracle")
    shown = table(lines)
    assert shown.keys() == default_fields().keys() - set(IDENTITY)
    assert shown["feedback.budget"] == ("200", "you")
    assert shown["filter.alpha"] == ("0.25", "you")
    assert shown["vlm.labels"] == ("False", "you")  # the method's would be True
    assert shown["feedback.sampling"] == ("uniform", "method")
    assert shown["sac.width"] == ("128", "profile")
    assert shown["sac.discount"] == ("0.99", "default")
    assert shown["adapter.source"] == ("''", "default")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_source_is_the_last_that_names_the_field(prefvlm: Any, profile: str) -> None:
    for method, recipe in METHODS.items():
        shown = table(prefvlm(f"show --tasks sweep-into-v3 --methods {method} --profile {profile}"))
        of_method = recipe.changes | ({} if profile == "paper" else recipe.small)
        for name, (value, source) in shown.items():
            if name in of_method:
                assert (value, source) == (str(of_method[name]), "method")
            elif name in PROFILES[profile]:
                assert (value, source) == (str(PROFILES[profile][name]), "profile")
            else:
                assert (value, source) == (str(default_fields()[name]) or "''", "default")


def test_show_takes_what_train_takes(prefvlm: Any, plugin: str) -> None:
    lines = prefvlm(f"show --tasks push-v3 --methods mine sac --seeds 0 1 --teacher my-teacher --plugin {plugin}")
    changes = {"feedback.teacher": "my-teacher"}
    runs = [
        run_config("push-v3", method, seed, "quick", changes).run_id for method in ("mine", "sac") for seed in (0, 1)
    ]
    assert [line.removeprefix("run ") for line in lines if line.startswith("run ")] == runs
    assert lines[2].endswith("queries to the my-teacher") and lines.count("") == 2 * len(runs) - 1
    assert sum(line.endswith("; no human") for line in lines) == 2  # those of sac


def test_show_refuses_what_train_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ("--methods peble", "--feedback.teacher orcle", "--vlm.model tinylv", "--seeds -1", "--methods"):
        said = []
        for command in ("train", "show"):
            with pytest.raises(SystemExit) as stopped:
                cli.main([command, "--tasks", "push-v3", *options.split()])
            out, err = capsys.readouterr()
            assert (stopped.value.code, out) == (2, "")
            said.append(err.replace(f"Nothing to {command}", "Nothing"))
        assert said[0] == said[1]
