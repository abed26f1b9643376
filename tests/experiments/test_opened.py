"""An experiment opened by its notebook: where it looks, what it says is missing, when it trains."""

import re
from pathlib import Path

import pytest
from builders.runs import finish
from matplotlib.figure import Figure

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.experiments import plan, project
from prefvlm_core.experiments.fleets import configs_of
from prefvlm_core.experiments.opened import SECONDS_PER_ACTION, OpenExperiment, open_experiment
from prefvlm_core.experiments.project import project_folder
from prefvlm_core.runs.stored import load_metrics

ROOT = Path(__file__).parents[2]
NAME = "08_noisy_teacher"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The runs that were trained, which takes no time here."""
    asked: list[RunConfig] = []

    def train(configs: list[RunConfig], execution: Execution) -> None:
        for config in configs:
            finish(Path(execution.results), config)
        asked.extend(configs)

    monkeypatch.setattr(plan, "train", train)
    return asked


def at(folder: Path, profile: str = "laptop", train: bool | None = None) -> OpenExperiment:
    return open_experiment(NAME, profile, train, str(folder), str(folder / "figures"))


def test_folders_are_those_of_the_project_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = open_experiment(NAME, "laptop")
    assert project_folder() == ROOT
    assert (experiment.execution.results, experiment.figures) == (str(ROOT / "results"), ROOT / "figures" / "laptop")
    given = at(tmp_path, "paper")
    assert (given.execution.results, given.figures) == (str(tmp_path), tmp_path / "figures" / "paper")


def test_there_is_something_to_draw_once_a_run_is_finished_or_will_be(tmp_path: Path) -> None:
    assert not at(tmp_path).has_runs and at(tmp_path, train=True).has_runs
    finish(tmp_path, configs_of(NAME, "laptop")[0])
    assert at(tmp_path).has_runs


def test_an_installed_package_looks_around_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "PACKAGE", tmp_path / "site-packages" / "prefvlm_core")
    below = tmp_path / "checkout" / "notebooks" / "mine"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(PrefVLMError, match=re.escape(f"There is no checkout of prefvlm around {below};")):
        project_folder()
    (tmp_path / "checkout" / "prefvlm_core").mkdir()
    assert project_folder() == tmp_path / "checkout"
    monkeypatch.chdir(tmp_path / "checkout")
    assert project_folder() == tmp_path / "checkout"


def test_the_status_says_what_is_missing_and_for_how_long_it_would_train(tmp_path: Path) -> None:
    configs = configs_of(NAME, "laptop")
    finish(tmp_path, configs[0])
    missing = len(configs) - 1
    minutes = round(sum(config.total_steps for config in configs[1:]) * SECONDS_PER_ACTION["laptop"] / 60)
    assert at(tmp_path).status == (
        f"{missing} of {len(configs)} runs of {NAME} in profile laptop are missing and left out. Training them takes "
        f"about {minutes} min of one core: set train = True, or run `prefvlm experiment {NAME} --profile laptop`."
    )
    assert f"are missing and will be trained, which takes about {minutes} min" in at(tmp_path, train=True).status
    hours = open_experiment("02_learning_curves", "laptop", results=str(tmp_path)).status
    compared = configs_of("02_learning_curves", "laptop")
    expected = round(sum(config.total_steps for config in compared) * SECONDS_PER_ACTION["laptop"] / 3600)
    assert expected > 2 and f"about {expected} hours of one core" in hours
    assert "8 million actions, whose time has not been measured in this profile" in at(tmp_path, "paper").status
    for config in configs[1:]:
        finish(tmp_path, config)
    assert at(tmp_path).status == f"All {len(configs)} runs of {NAME} in profile laptop are stored."


@pytest.mark.parametrize(
    ("profile", "train", "trains"),
    [("quick", None, True), ("laptop", None, False), ("quick", False, False), ("laptop", True, True)],
)
def test_only_quick_trains_unasked(
    tmp_path: Path, trained: list[RunConfig], profile: str, train: bool | None, trains: bool
) -> None:
    configs = configs_of(NAME, profile)
    finish(tmp_path, configs[0])
    experiment = at(tmp_path, profile, train)
    assert not trained, "opening an experiment trains nothing"
    assert experiment.evaluations["run_id"].nunique() == (len(configs) if trains else 1)
    assert len(trained) == (len(configs) if trains else 0)
    assert experiment.labels.empty


def test_one_seed_compares_no_success(tmp_path: Path) -> None:
    assert at(tmp_path).compares_success and not at(tmp_path, "quick").compares_success
    assert open_experiment("02_learning_curves", "quick", results=str(tmp_path)).compares_success  # four seeds


def test_runs_bring_their_arm(tmp_path: Path) -> None:
    config = configs_of(NAME, "laptop")[0]
    directory = finish(tmp_path, config)
    rows = at(tmp_path).evaluations
    assert set(rows["arm"]) == {"pebble"} and set(rows["human"]) == {"mistake"} and set(rows["vlm"]) == {""}
    assert len(rows) == len(load_metrics([directory])) and set(rows["budget"]) == {config.feedback.budget}


def test_a_figure_is_shown_and_saved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[object] = []
    monkeypatch.setattr("prefvlm_core.plots.show.display", displayed.append)
    figure = Figure()
    at(tmp_path).show(figure, "steps")
    assert displayed == [figure]
    names = [f"{NAME}_steps.pdf", f"{NAME}_steps.png"]
    assert sorted(path.name for path in (tmp_path / "figures" / "laptop").iterdir()) == names


@pytest.mark.parametrize(
    ("name", "profile", "train", "message"),
    [
        (NAME, "laptop", "no", "train is 'no'; allowed are True, False and None (train in profile quick only)."),
        (NAME, "laptop", 0, "train is 0; allowed are True, False and None"),
        (NAME, "labtop", None, "Unknown profile 'labtop'. Did you mean 'laptop'?"),
        ("08_noisy", "laptop", None, "Unknown experiment '08_noisy'. Did you mean '08_noisy_teacher'?"),
    ],
)
def test_what_a_notebook_cannot_be_given_is_refused(name: str, profile: str, train: bool, message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        open_experiment(name, profile, train)
