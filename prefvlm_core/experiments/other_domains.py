"""The grids of notebooks 11 and 12: navigation, locomotion, and tasks of one to four stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.experiments.arms import Arm, Grid, simulated, small_budget

BUDGETS = {
    "point-maze-u": 16,
    "point-maze-medium": 16,
    "walker-walk": 50,
    **dict.fromkeys(GOALS, 16),
}
"""Task -> label budget B of profile laptop, chosen on seeds 200 to 203 (results/laptop/PLAN.md)."""
TRUE_REWARD = {"sac.temperature_learning_rate": 1e-3}
"""Changes of SAC on the true reward in profile laptop, as in notebook 02."""
LOCOMOTION = ("walker-walk", "cheetah-run")
"""Tasks whose result is the episode's return: the suite knows no success, and a threshold on one step says little."""
_NAVIGATION = ("point-maze-u", "point-maze-medium")
_SEGMENT_TASKS = ("maze-two-goals", "maze-four-goals")
_SEGMENTS = {"half": 5, "double": 20}
"""Lengths of segments beside the default of profile laptop, 10 actions."""
_SEEDS = range(1000, 1010)
_MOTION: dict[str, Any] = {}
"""What PrefVLM's VLM is shown of a body in motion."""


def labeled(labels: int) -> dict[str, int]:
    """Changes of a run of profile laptop with so many human labels, a quarter of which are in the first session."""
    return {"feedback.budget": labels, "feedback.first_session_queries": max(1, labels // 4)}


def _headline(task: str) -> list[Arm]:
    """SAC on the true reward, PEBBLE with B and 2B labels, and PrefVLM with B: with its VLM and with one that is right
    in 80 % of pairs."""
    once, twice = labeled(BUDGETS[task]), labeled(2 * BUDGETS[task])
    return [
        Arm("sac", TRUE_REWARD),
        Arm("pebble", once, "pebble (1×B)", "pebble"),
        Arm("pebble", twice, "pebble (2×B)", "pebble"),
        Arm("prefvlm", once, "prefvlm (1×B)", "prefvlm"),
        Arm("prefvlm-plus", once, "prefvlm-plus (1×B)", "prefvlm-plus"),
        *_simulated(once),
    ]


def _simulated(changes: Mapping[str, Any]) -> list[Arm]:
    """PrefVLM whose VLM is right in 80 % of pairs."""
    (arm,) = (arm for arm in simulated(changes, [0.8]) if arm.family == "prefvlm")
    return [replace(arm, name="VLM 80 % right (1×B)", family="VLM 80 % right")]


def _locomotion(task: str) -> list[Arm]:
    """The same without prefvlm-plus, and what PrefVLM's VLM is shown there."""
    arms = [arm for arm in _headline(task) if arm.method != "prefvlm-plus"]
    return [replace(arm, changes={**arm.changes, **_MOTION}) if arm.name == "prefvlm (1×B)" else arm for arm in arms]


def _stages(task: str) -> list[Arm]:
    """The headline; PEBBLE's pairs drawn uniformly and within a stage; and on two tasks segments of other lengths."""
    arms, once = _headline(task), labeled(BUDGETS[task])
    for sampling in ("uniform", "same-stage"):
        arms.append(_of(Arm("pebble", once | {"feedback.sampling": sampling}), sampling, "selection"))
    if task in _SEGMENT_TASKS:
        for method in ("pebble", "prefvlm"):
            arms += _segments(method, once, _SEGMENTS)
    return arms


def _segments(method: str, changes: Mapping[str, Any], lengths: Mapping[str, int]) -> list[Arm]:
    """A method with segments of other lengths, by their names."""
    return [
        _of(Arm(method, {**changes, "feedback.segment_length": length}), f"{name} segments", "segments")
        for name, length in lengths.items()
    ]


def _of(arm: Arm, what: str, group: str) -> Arm:
    """The arm in one of the figures beside the main ones, named by what is special in it."""
    family = f"{arm.method}, {what}"
    return replace(arm, name=f"{family} (1×B)", family=family, group=group)


_QUICK = {"total_steps": 1_000} | small_budget(40)
"""Runs that show a mechanism at work; their success is no evidence for anything."""


def _quick_headline() -> list[Arm]:
    return [Arm(method, _QUICK, method) for method in ("pebble", "prefvlm")] + _simulated(_QUICK)


def _quick_stages(task: str) -> list[Arm]:
    arms = [*_quick_headline(), _of(Arm("pebble", {**_QUICK, "feedback.sampling": "same-stage"}), "same-stage", "")]
    return arms + _segments("prefvlm", _QUICK, {"half": 5})


_SURF_DMC = {"surf.epochs": 1_000, "surf.unlabelled_ratio": 100}
"""Fields in which SURF's command for walker-walk differs from its own for Meta-World."""
_HAMMER_STEPS = {"total_steps": 2_000_000}
_HAMMER_LABELS = {
    "exploration.entropy_steps": 9_000,
    "feedback.budget": 10_000,
    "feedback.first_session_queries": 50,
    "feedback.session_queries": 50,
    "feedback.session_every": 5_000,
}
"""Hammer as SURF's commands train it; peg-insert-side is given the same."""
_MAZE_STEPS = {"total_steps": 200_000}
_MAZE_LABELS = {"feedback.budget": 100, "feedback.first_session_queries": 25, "feedback.schedule": "even"}


def _paper(
    labels: Mapping[str, Any], surf: Mapping[str, Any] | None = None, steps: Mapping[str, int] | None = None
) -> Sequence[Arm]:
    """SAC on the true reward, and PEBBLE, SURF and PrefVLM with the same labels."""
    learned = {**(steps or {}), **labels}
    return [
        Arm("sac", steps or {}),
        Arm("pebble", learned, "pebble"),
        Arm("surf", {**learned, **(surf or {})}, "surf"),
        Arm("prefvlm", learned, "prefvlm"),
    ]


OTHER_DOMAINS = {
    "quick": Grid({"point-maze-u": _quick_headline()}, [0]),
    "laptop": Grid(
        {task: _headline(task) for task in _NAVIGATION} | {"walker-walk": _locomotion("walker-walk")}, _SEEDS
    ),
    "paper": Grid(
        {task: _paper(_MAZE_LABELS, steps=_MAZE_STEPS) for task in _NAVIGATION}
        | {task: _paper({}, _SURF_DMC) for task in LOCOMOTION},
        range(10),
    ),
}
MULTI_STAGE = {
    "quick": Grid({task: _quick_stages(task) for task in ("maze-one-goal", "maze-two-goals")}, [0]),
    "laptop": Grid({task: _stages(task) for task in GOALS}, _SEEDS),
    "paper": Grid(
        {task: _paper(_MAZE_LABELS, steps=_MAZE_STEPS) for task in GOALS}
        | {task: _paper(_HAMMER_LABELS, steps=_HAMMER_STEPS) for task in ("hammer-v3", "peg-insert-side-v3")},
        range(5),
    ),
}
