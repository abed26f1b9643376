"""The grids of mazes, legs and stages: what an arm is compared with differs from it in what its name says alone."""

import dataclasses

import pytest

from prefvlm_core.config.run import RunConfig, flatten
from prefvlm_core.experiments.fleets import plan
from prefvlm_core.experiments.other_domains import BUDGETS

EXPERIMENTS = ("11_other_domains", "12_multi_stage")


def configs(experiment: str, profile: str, task: str) -> dict[str, RunConfig]:
    """The runs of the first seed on a task, by the name of their arm."""
    planned = [run for run in plan(experiment, profile) if run.config.task == task]
    return {
        run.arm.display_name(run.config): run.config for run in planned if run.config.seed == planned[0].config.seed
    }


def changed(one: RunConfig, other: RunConfig) -> set[str]:
    first, second = (flatten(dataclasses.asdict(config)) for config in (one, other))
    return {name for name in first if first[name] != second[name]}


@pytest.mark.parametrize("task", ["maze-one-goal", "maze-two-goals"])
def test_segments_and_selections_differ_from_their_arm_in_nothing_else(task: str) -> None:
    arms = configs("12_multi_stage", "laptop", task)
    for run in plan("12_multi_stage", "laptop"):
        if run.config.task != task or run.arm.group == "" or run.config.seed != 1000:
            continue
        field = {"segments": "feedback.segment_length", "selection": "feedback.sampling"}[run.arm.group]
        assert changed(run.config, arms[run.arm.against]) == {field}, run.arm.name
    assert {config.feedback.segment_length for config in arms.values()} == {5, 10, 20}
    assert {config.feedback.sampling for config in arms.values()} == {"uniform", "disagreement", "same-stage"}


def test_tasks_that_are_not_learned_have_the_headline_and_five_seeds() -> None:
    runs = [
        run for run in plan("12_multi_stage", "laptop") if run.config.task in ("maze-three-goals", "maze-four-goals")
    ]
    assert {run.arm.group for run in runs} == {""} and {run.config.seed for run in runs} == set(range(1000, 1005))
    assert {run.config.method for run in runs} == {"sac", "pebble", "prefvlm", "prefvlm-plus"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_budgets_of_profile_laptop(experiment: str) -> None:
    runs = plan(experiment, "laptop")
    assert {run.config.task for run in runs} <= set(BUDGETS)
    assert {run.config.seed for run in runs} == set(range(1000, 1010))
    for run in runs:
        share = {"sac": 0, "pebble (2×B)": 2}.get(run.arm.name or run.config.method, 1)
        assert run.config.feedback.budget == share * BUDGETS[run.config.task]
        assert run.config.feedback.paired_start and run.config.feedback.schedule == "even"
        assert bool(run.arm.against) is (share != 2)


def test_a_simulated_vlm_differs_in_its_labels_alone() -> None:
    arms = configs("11_other_domains", "laptop", "point-maze-u")
    assert changed(arms["VLM 80 % right (1×B)"], arms["prefvlm (1×B)"]) == {"vlm.model", "adapter.enabled"}
    walker = configs("11_other_domains", "laptop", "walker-walk")
    assert walker["prefvlm (1×B)"].vlm.shows == "difference" and "prefvlm-plus (1×B)" not in walker
    medium = configs("11_other_domains", "laptop", "point-maze-medium")
    assert {config.total_steps for config in (*walker.values(), *medium.values())} == {12_000}


def test_profile_paper_has_the_published_settings_of_locomotion_and_hammer() -> None:
    """Numbers of B-Pref's and SURF's commands."""
    arms = configs("11_other_domains", "paper", "walker-walk")
    pebble, surf = arms["pebble"], arms["surf"]
    for config in (pebble, surf, arms["prefvlm"]):
        assert (config.total_steps, config.horizon, config.action_repeat) == (500_000, 1_000, 1)
        assert (config.feedback.budget, config.feedback.session_queries) == (100, 10)
        assert (config.feedback.session_every, config.first_session_step) == (20_000, 10_000)
        assert (config.sac.width, config.sac.batch_size, config.sac.actor_learning_rate) == (1_024, 1_024, 5e-4)
    assert (pebble.reward.max_epochs, surf.surf.epochs, surf.surf.unlabelled_ratio) == (50, 1_000, 100)
    assert len({run.config.seed for run in plan("11_other_domains", "paper")}) == 10
    hammer = configs("12_multi_stage", "paper", "hammer-v3")["surf"]
    assert (hammer.total_steps, hammer.feedback.budget, hammer.feedback.session_queries) == (2_000_000, 10_000, 50)
    assert (hammer.feedback.session_every, hammer.surf.epochs, hammer.first_session_step) == (5_000, 20, 10_000)
