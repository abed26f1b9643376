"""Every figure, of few runs and of many, obeys the rules of a printed page: see `builders.figures.check_rules`."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.backbones import judged
from builders.evaluations import FILTERS, FOUR_TASKS, TASKS, evaluated, label_log, thresholds
from builders.figures import check_rules
from matplotlib.figure import Figure

from prefvlm_core import plots
from prefvlm_core.analysis import backbone_tables, motion, sanity
from prefvlm_core.analysis import stages as stage_tables
from prefvlm_core.analysis.beds import MIXED
from prefvlm_core.analysis.paired import difference_table, planned_differences, run_scores, worth_table
from prefvlm_core.analysis.robustness import CLEAN_SCENE, FACTORS, READERS
from prefvlm_core.analysis.sanity import RewardCurve
from prefvlm_core.analysis.stats import run_table
from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.domains.perturbations import STRENGTHS
from prefvlm_core.plots import backbones, budgets, curves, gains, labels, paired, people, robustness, rows
from prefvlm_core.plots import motion as motion_plots
from prefvlm_core.plots import sanity as sanity_plots
from prefvlm_core.plots import stages as stage_plots
from prefvlm_core.plots import thresholds as maps

ARMS = (
    *(("sac", "sac (true reward)", 0), ("pebble", "pebble (1×B)", 16), ("pebble", "pebble (2×B)", 32)),
    *(("pebble", "pebble (4×B)", 64), ("prefvlm", "prefvlm (1×B)", 16), ("prefvlm-plus", "prefvlm-plus (0.5×B)", 8)),
)
REPLAYS, MIXED_BEDS = (backbone_tables.label_table(judged().labels, *kind) for kind in ((), (MIXED,)))


@functools.cache
def scores(seeds: int) -> pd.DataFrame:
    """The claim's arms, among them some that are worth more and less than PEBBLE's ladder can tell."""
    data = run_scores(evaluated(FOUR_TASKS, [*ARMS, ("prefvlm-adaptive", "prefvlm-adaptive (1×B)", 16)], seeds))
    shift = data["arm"].map({"prefvlm (1×B)": 0.5, "prefvlm-adaptive (1×B)": -0.5}).fillna(0)
    return data.assign(last_three=data["last_three"] + shift)


@functools.cache
def simulated(seeds: int) -> pd.DataFrame:
    """Planned differences of simulated VLMs with every kind of error, with and without the filter, and of real ones,
    from runs without a VLM."""
    kinds, filters = ("simulated", "simulated-segments", "simulated-features"), ("prefvlm", "prefvlm-no-filter")
    settings = list(itertools.product(kinds, filters, (0.7, 0.8, 0.9)))
    settings += [("simulated", "prefvlm-plus", right) for right in (0.7, 0.8, 0.9)]
    named = [(method, f"{method}, {kind} {right}", 100) for kind, method, right in settings]
    named += [("pebble", "human only", 100), ("prefvlm", "TinyLIV", 100), ("prefvlm", "held-out TinyLIV", 100)]
    data = evaluated(TASKS, named, seeds)
    right = data["arm"].str.extract(r"simulated\S* (\S+)$")[0].astype(float)
    vlm = data["arm"].str.extract(r"(simulated\S*) ")[0].fillna("real") + ":"
    against = np.where(data["arm"] == "human only", "", "human only")
    return planned_differences(data.assign(simulated_accuracy=right, vlm=vlm, against=against))


def by_accuracy(seeds: int) -> pd.DataFrame:
    gaps = simulated(seeds)
    gaps = gaps[gaps["vlm"].isin(["simulated:", "real:"])]
    log = [
        label_log([("a", 1.0, 1.0, 0.1, "clean")] * right + [("a", 0.0, 1.0, 0.1, "clean")] * 20, arm=arm)
        for arm, right in {"TinyLIV": 30, "held-out TinyLIV": 60}.items()
    ]
    return backbone_tables.gaps_by_accuracy(gaps, pd.concat(log))


def filtered(seeds: int) -> pd.DataFrame:
    """Planned differences of filters, two arms that others are compared with."""
    data = evaluated(TASKS, [*FILTERS, ("pebble", "human only", 100)], seeds)
    against = {"no filter": "prefvlm", "adaptive thresholds": "prefvlm", "human only": "no filter", "prefvlm": ""}
    return planned_differences(data.assign(against=data["arm"].map(against)))


def budgeted(tasks: tuple[str, ...], seeds: int) -> pd.DataFrame:
    """Planned differences of three budgets."""
    arms = [("prefvlm", f"{family} {budget}", budget) for family in ("plain", "moved") for budget in (8, 16, 32)]
    data = evaluated(tasks, arms, seeds)
    plain = "plain " + data["budget"].astype(str)
    return planned_differences(data.assign(against=np.where(data["arm"] == plain, "", plain)))


def log_of_filters() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    parts = []
    for method, arm, _ in FILTERS:
        numbers = zip(generator.integers(0, 2, 2000), generator.exponential(1.5, 2000), strict=True)
        names = ("clean",) * 3 if arm == "no filter" else ("clean", "uncertain", "flipped")
        log = [(str(int(d * 10) % 2), float(s), 1.0, d, names[min(2, int(d // 2))]) for s, d in numbers]
        parts.append(label_log(log, method, arm))
    return pd.concat(parts)


def changes(draws: int) -> pd.DataFrame:
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, STRENGTHS)]
    table = pd.DataFrame(
        [(*scene, reader) for scene, reader in itertools.product(scenes, READERS)],
        columns=["factor", "strength", "reader"],
    ).assign(draws=draws)
    for measure in ("accuracy", "value_order"):
        change = -np.random.default_rng(0).random(len(table))
        numbers = {"": change, "_low": change - 0.1, "_high": change + 0.1}
        numbers["_each"] = (change + np.linspace(-0.1, 0.1, draws)[:, None]).T.tolist()
        table = table.assign(**{f"{measure}_change{bound}": column for bound, column in numbers.items()})
    return table


def rewards() -> list[RewardCurve]:
    frames, steps = np.zeros((40, 64, 64, 3), np.uint8), np.linspace(0, 1, 40)
    return [
        RewardCurve(task, behavior, frames, np.float32(np.sin(9 * steps)), steps**2, 30)
        for task in FOUR_TASKS
        for behavior in ("expert", "noisy expert", "random actions")
    ]


def accuracies() -> pd.DataFrame:
    cells = itertools.product(("tinyliv", "random"), FOUR_TASKS, range(3))
    table = pd.DataFrame(list(cells), columns=["model", "task", "draw"])
    generator = np.random.default_rng(0)
    numbers = {name: generator.uniform(0.4, 0.9, len(table)) for name in ("zero_shot", "adapted")}
    return sanity.accuracy_table(table.assign(**numbers, value_order=0.5, episode_order=0.5))


def of_motion(seeds: int) -> pd.DataFrame:
    cells = itertools.product(("walker-walk", "cheetah-run"), range(seeds), motion.SHOWN, motion.KINDS, range(2))
    table = pd.DataFrame(list(cells), columns=motion.COLUMNS[:5])
    generator = np.random.default_rng(0)
    return motion.accuracy_table(table.assign(**{name: generator.random(len(table)) for name in motion.READERS}))


def sessions(count: int) -> pd.DataFrame:
    steps = np.arange(5, 101, 5)
    parts = [
        pd.DataFrame({"session": session, "step": steps, "reward": np.sin(steps / (9 + session)), "true_reward": steps})
        for session in range(1, count + 1)
    ]
    return pd.concat(parts).assign(task="drawer-close-v3", profile="quick")


def pictures() -> dict[tuple[str, str], np.ndarray]:
    scenes = [(CLEAN_SCENE, ""), *itertools.product(FACTORS, STRENGTHS)]
    return {scene: np.full((64, 64, 3), 90, np.uint8) for scene in scenes}


def staged(seeds: int) -> pd.DataFrame:
    """Five arms on the mazes with one to four targets, each compared with PEBBLE's with 2B labels."""
    return evaluated(tuple(GOALS), [*ARMS[:3], *ARMS[4:]], seeds, "laptop").assign(against="pebble (2×B)")


def shares(seeds: int) -> pd.DataFrame:
    """One arm's labels, of which more are right and clean in some runs than in others."""
    runs = itertools.product(GOALS, range(seeds))
    log = [
        label_log([(f"{task}{seed}", 1.0, 1.0, 0.1, "clean")] * (2 + seed % 3) + _UNSURE, task=task).assign(
            seed=seed, run_id=f"{task}{seed}"
        )
        for task, seed in runs
    ]
    return stage_tables.with_stages(stage_tables.label_shares(pd.concat(log).assign(segment_length=10)))


_UNSURE = [("", 0.0, 1.0, 1.0, "uncertain"), ("", 0.0, 1.0, 9.0, "flipped")]


def by_length(seeds: int) -> pd.DataFrame:
    cells = itertools.product(
        ("maze-two-goals", "maze-four-goals"), ("pebble", "prefvlm"), (5, 10, 20), ("success", "labels right")
    )
    rows = [(*cell, seed) for cell in cells if cell[1::2] != ("pebble", "labels right") for seed in range(seeds)]
    table = pd.DataFrame(rows, columns=["task", "method", "segment_length", "measure", "seed"])
    return table.assign(value=np.random.default_rng(0).uniform(0.2, 0.9, len(table)))


FIGURES: dict[str, Callable[[int], Figure]] = {
    "learning_curves, four tasks": lambda seeds: curves.learning_curves(evaluated(FOUR_TASKS, ARMS[:5], seeds)),
    "learning_curves, two tasks": lambda seeds: curves.learning_curves(evaluated(TASKS, ARMS[:5], seeds)),
    "learning_curves, one": lambda seeds: curves.learning_curves(
        evaluated(TASKS[:1], ARMS[:3], seeds), "reward_accuracy"
    ),
    "learning_curves, paper": lambda seeds: curves.learning_curves(
        evaluated(FOUR_TASKS, ARMS[4:5], seeds, "paper"),
        reference=curves.reference_curves(FOUR_TASKS).query("method == 'ROVED'"),
    ),
    "final_success, four tasks": lambda seeds: rows.final_success(
        run_table(evaluated(FOUR_TASKS, ARMS, seeds)), "quick"
    ),
    "final_success, two tasks": lambda seeds: rows.final_success(run_table(evaluated(TASKS, ARMS, seeds)), "quick"),
    "label_accuracy, four tasks": lambda seeds: rows.label_accuracy(evaluated(FOUR_TASKS, FILTERS, seeds), "quick"),
    "label_accuracy, two tasks": lambda seeds: rows.label_accuracy(evaluated(TASKS, FILTERS, seeds), "quick"),
    "success_against_budget, four": lambda seeds: budgets.success_against_budget(
        run_table(evaluated(FOUR_TASKS, ARMS, seeds)), "quick"
    ),
    "success_against_budget, one": lambda seeds: budgets.success_against_budget(
        run_table(evaluated(TASKS[:1], ARMS, seeds)), "quick"
    ),
    "planned": lambda seeds: paired.planned(filtered(seeds), "quick"),
    "gain_against_budget, four": lambda seeds: gains.gain_against_budget(budgeted(FOUR_TASKS, seeds), "quick"),
    "gain_against_budget, one": lambda seeds: gains.gain_against_budget(budgeted(TASKS[:1], seeds), "quick"),
    "gain_against_accuracy": lambda seeds: gains.gain_against_accuracy(
        simulated(seeds).dropna(subset="simulated_accuracy"), "quick"
    ),
    "partitions": lambda seeds: labels.partitions(evaluated(TASKS, FILTERS, seeds)),
    "divergences": lambda seeds: labels.divergences(log_of_filters(), evaluated(TASKS, FILTERS, seeds)),
    "gain_map": lambda seeds: maps.gain_map(planned_differences(thresholds(seeds)), "quick"),
    "kept_labels_map": lambda seeds: maps.kept_labels_map(thresholds(seeds), "quick"),
    "label_equivalents": lambda seeds: paired.label_equivalents(worth_table(scores(seeds)), scores(seeds), "quick"),
    "differences": lambda seeds: paired.differences(
        difference_table(scores(seeds), "pebble (2×B)"), scores(seeds), "quick", 0.1
    ),
    "success_by_stages": lambda seeds: stage_plots.success_by_stages(
        stage_tables.with_stages(run_scores(staged(seeds))), "laptop"
    ),
    "differences_by_stages": lambda seeds: stage_plots.differences_by_stages(
        stage_tables.with_stages(planned_differences(staged(seeds))), "laptop"
    ),
    "labels_by_stages": lambda seeds: stage_plots.labels_by_stages(shares(seeds), "laptop"),
    "success_and_labels_by_segment_length": lambda seeds: stage_plots.success_and_labels_by_segment_length(
        by_length(seeds), "laptop"
    ),
    "worth_of_accuracy": lambda seeds: backbones.worth_of_accuracy(by_accuracy(seeds), "quick"),
    "accuracy_by_model": lambda _: backbones.accuracy_by_model(REPLAYS, "quick"),
    "accuracy_by_kind": lambda _: backbones.accuracy_by_kind(REPLAYS, "quick"),
    "orders": lambda _: backbones.orders(backbone_tables.film_table(judged().films), MIXED_BEDS, "quick"),
    "changes_by_factor": lambda draws: robustness.changes_by_factor(changes(draws), "quick", FOUR_TASKS, "strong"),
    "contact_sheet": lambda _: robustness.contact_sheet(pictures(), "door-close-v3", "strong"),
    "rewards_along_trajectories": lambda _: sanity_plots.rewards_along_trajectories(rewards(), "quick"),
    "label_accuracy_before_and_after": lambda _: sanity_plots.label_accuracy_before_and_after(accuracies(), "quick"),
    "labels_of_motion": lambda seeds: motion_plots.labels_of_motion(of_motion(seeds), "quick"),
    "draw_rewards_along_expert": lambda seeds: people.draw_rewards_along_expert(sessions(min(seeds, 5))),
}
"""What it shows -> the figure, of so many seeds where it shows runs."""
RUNS = (
    *("learning", "final", "label_accuracy,", "success", "partitions", "worth", "draw", "planned", "gain", "kept"),
    *("differences_by", "labels_by"),
)


def numbers_of_seeds(name: str) -> tuple[int, ...]:
    """One, so few that there is no interval, and so many that single runs are not drawn."""
    if name in ("label_equivalents", "differences"):
        return (1, 4, 5)
    if name == "changes_by_factor":
        return (2, 4)
    return (1, 4, 20) if name.startswith(RUNS) else (4,)


@pytest.mark.parametrize(("name", "seeds"), [(name, seeds) for name in FIGURES for seeds in numbers_of_seeds(name)])
def test_every_figure_obeys_the_rules(name: str, seeds: int) -> None:
    check_rules(FIGURES[name](seeds))


def test_every_function_that_makes_a_figure_is_tested() -> None:
    drawing = set()
    for path in Path(plots.__path__[0]).glob("*.py"):
        module = import_module(f"prefvlm_core.plots.{path.stem}") if path.stem != "__init__" else plots
        for name, function in inspect.getmembers(module, inspect.isfunction):
            made_here = function.__module__ == module.__name__ and not name.startswith("_")
            if made_here and inspect.signature(function).return_annotation in (Figure, "Figure"):
                drawing.add(name)
    assert drawing == {name.partition(",")[0] for name in FIGURES}


def test_the_rules_find_what_breaks_them() -> None:
    figure = FIGURES["learning_curves, one"](1)
    axes = figure.axes[0]
    broken = {
        "too small": lambda: axes.texts[0].set_fontsize(5),
        "too pale": lambda: axes.texts[0].set_color("#999999"),
        "six curves": lambda: [axes.plot([20_000, 30_000], [20, level]) for level in (10, 30, 40, 50, 60, 90)],
        "over data": lambda: axes.text(30_000, 75, "over the curves " * 2),
        "too wide": lambda: figure.set_figwidth(7.0),
    }
    check_rules(figure)
    for name, change in broken.items():
        figure = FIGURES["learning_curves, one"](1)
        axes = figure.axes[0]
        change()
        with pytest.raises(AssertionError):
            check_rules(figure)
            pytest.fail(name)
    figure = FIGURES["final_success, two tasks"](4)
    figure.axes[0].set_yticks(range(len(ARMS) + 1), [*"abcdef", "an empty row"])
    figure.axes[0].set_ylim(len(ARMS) + 0.6, -0.6)
    with pytest.raises(AssertionError):
        check_rules(figure)
    assert math.isclose(figure.get_figwidth(), 85 / 25.4)
