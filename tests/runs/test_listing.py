"""What tells the listed runs apart."""

from pathlib import Path

from builders.runs import finish

from prefvlm_core.config.run import RunConfig
from prefvlm_core.methods import run_config
from prefvlm_core.runs.listing import run_lines, status_of, telling_fields
from prefvlm_core.runs.stored import find_runs

TASK = "drawer-close-v3"


def told(results: Path, configs: list[RunConfig]) -> list[str]:
    """What is told of each config's run once all are stored."""
    for config in configs:
        finish(results, config)
    fields = telling_fields(find_runs(results))
    assert len(fields) == len(configs)
    return [fields[config.run_id] for config in configs]


def config(seed: int = 0, method: str = "prefvlm", task: str = TASK, **changes: object) -> RunConfig:
    return run_config(task, method, seed, "quick", {name.replace("__", "."): value for name, value in changes.items()})


def test_runs_that_differ_in_their_names_need_no_more(tmp_path: Path) -> None:
    runs = [config(0), config(1), config(method="sac"), config(task="door-close-v3", filter__alpha=0.25)]
    assert told(tmp_path, runs) == ["", "", "", ""]


def test_what_differs_from_most_is_told(tmp_path: Path) -> None:
    others = [
        config(0, filter__alpha=0.25),
        config(0, vlm__model="random", filter__upper=2.0),
        config(1, sac__width=64),
    ]
    assert told(tmp_path, [config(0), config(1), config(2), *others]) == [
        *("", "", ""),
        "filter.alpha=0.25",
        "vlm.model=random",  # with the same upper threshold as no other run
        "sac.width=64",
    ]


def test_of_fields_that_vary_together_the_first_is_told(tmp_path: Path) -> None:
    def ladder(budget: int, teacher: str = "oracle") -> RunConfig:
        schedule = {"feedback__first_session_queries": budget // 5, "feedback__session_queries": budget // 10}
        return config(feedback__budget=budget, feedback__teacher=teacher, **schedule)

    runs = [ladder(100), ladder(200), ladder(200, "mistake"), ladder(200, "skip")]
    assert told(tmp_path, runs) == ["feedback.budget=100", "", "feedback.teacher=mistake", "feedback.teacher=skip"]


def test_two_fields_are_told_where_it_takes_both(tmp_path: Path) -> None:
    runs = [config(filter__alpha=alpha, filter__upper=upper) for alpha in (0.25, 0.5) for upper in (2.0, 6.0)]
    runs += [config(1, filter__alpha=0.5, filter__upper=6.0)]
    texts = told(tmp_path, runs)
    assert texts == ["filter.alpha=0.25, filter.upper=2", "filter.alpha=0.25", "filter.upper=2", "", ""]


def test_length_is_given_in_actions_and_environment_steps(tmp_path: Path) -> None:
    repeated, single = config(), config(1, action_repeat=1, horizon=50)
    for one in (repeated, single):
        finish(tmp_path, one)
    runs = find_runs(tmp_path)
    assert [status_of(run) for run in runs] == ["finished", "finished"]
    actions = {run.run_id: round(run.last_evaluation["step"]) for run in runs}
    header, *lines = run_lines(runs)
    assert header.startswith("status        actions   env steps  success  run")
    for line, run in zip(lines, runs, strict=True):
        _, acted, stepped, *_ = line.split()
        assert int(acted) == actions[run.run_id] > 0
        assert int(stepped) == int(acted) * run.config.action_repeat
