"""The grids of notebooks 11 and 12: navigation, locomotion, and tasks of one to four stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefvlm_core.domains.dm_control import LOCOMOTION
from prefvlm_core.domains.maze_goals import GOALS
from prefvlm_core.experiments.arms import Arm, Grid, simulated, small_budget

BUDGETS = {
    "point-maze-u": 8,
    "point-maze-medium": 32,
    "walker-walk": 64,
    "maze-one-goal": 8,
    "maze-two-goals": 64,
    "maze-three-goals": 8,
    "maze-four-goals": 8,
}
"""Task -> label budget B of profile laptop, chosen on seeds 200 to 203 (results/laptop/PLAN.md)."""
_RIGHT = "VLM 80 % right"
HEADLINE = ("sac", "pebble", "surf", "prefvlm", _RIGHT)
"""Families of arms that figures of all arms show."""
_NAVIGATION = ("point-maze-u", "point-maze-medium")
_LONGER = {"point-maze-medium": {"total_steps": 12_000, "feedback.session_every": 500, "evaluation.every": 1_000}}
"""Task -> changes of profile laptop where SAC on the true reward needs more actions, in as many sessions."""
_LEARNED = ("maze-one-goal", "maze-two-goals")
"""The tasks of a series of stages that PEBBLE learns with any of the pilot's budgets."""
_TWICE = "pebble (2×B)"
_SEEDS = range(1000, 1010)
_MOTION = {"vlm.shows": "difference"}
"""What PrefVLM's VLM is shown of a body in motion: no single frame shows that it moves."""


def true_reward(task: str) -> dict[str, Any]:
    """Changes of SAC on the true reward in profile laptop, as in notebook 02."""
    return _LONGER.get(task, {}) | {"sac.temperature_learning_rate": 1e-3}


def labeled(task: str, labels: int) -> dict[str, Any]:
    """Changes of a run of profile laptop with so many human labels, a quarter of which are in the first session."""
    return _LONGER.get(task, {}) | small_budget(labels)


def _headline(task: str) -> list[Arm]:
    """SAC on the true reward, PEBBLE with B and 2B labels, and PrefVLM with B, to be as good as the latter."""
    once, twice = (labeled(task, share * BUDGETS[task]) for share in (1, 2))
    arms = [Arm("sac", true_reward(task), against=_TWICE), Arm("pebble", twice, _TWICE, "pebble")]
    return [*arms, *_with_one_budget(once, _TWICE)]


def _with_one_budget(once: Mapping[str, Any], against: str) -> list[Arm]:
    """PEBBLE, and PrefVLM with its VLM and with one that is right in 80 % of pairs."""
    (right,) = (arm for arm in simulated(once, [0.8]) if arm.family == "prefvlm")
    arms = [Arm(method, once, f"{method} (1×B)", method) for method in ("pebble", "prefvlm", "prefvlm-plus")]
    arms.append(replace(right, name=f"{_RIGHT} (1×B)", family=_RIGHT))
    return [replace(arm, against=against) if arm.name != against else arm for arm in arms]


def _locomotion(task: str) -> list[Arm]:
    """The same without prefvlm-plus, and what PrefVLM's VLM is shown there."""
    arms = [arm for arm in _headline(task) if arm.method != "prefvlm-plus"]
    return [replace(arm, changes={**arm.changes, **_MOTION}) if arm.family == "prefvlm" else arm for arm in arms]


def _stages(task: str) -> list[Arm]:
    """The headline; on tasks that are learned PEBBLE's pairs drawn uniformly and within a stage, and segments of other
    lengths; on the others five seeds."""
    if task not in _LEARNED:
        return [replace(arm, seeds=5) for arm in _headline(task)]
    once = labeled(task, BUDGETS[task])
    return [
        *_headline(task),
        *_selections(once, ("uniform", "same-stage")),
        *_segments(once, {"half": 5, "double": 20}),
    ]


def _selections(once: Mapping[str, Any], samplings: Sequence[str]) -> list[Arm]:
    """PEBBLE with pairs drawn otherwise than by disagreement."""
    return [_changed("pebble", {**once, "feedback.sampling": each}, each, "selection") for each in samplings]


def _segments(once: Mapping[str, Any], lengths: Mapping[str, int]) -> list[Arm]:
    """PEBBLE and PrefVLM with segments of other lengths than 10 actions."""
    return [
        _changed(method, {**once, "feedback.segment_length": length}, f"{name} segments", "segments")
        for method in ("pebble", "prefvlm")
        for name, length in lengths.items()
    ]


def _changed(method: str, changes: Mapping[str, Any], what: str, group: str) -> Arm:
    """A method in which one thing is changed, compared with the method itself."""
    family = f"{method}, {what}"
    return Arm(method, changes, f"{family} (1×B)", family, group, f"{method} (1×B)")


_QUICK = {"total_steps": 1_000} | small_budget(16)
"""Runs that show a mechanism at work; their success is no evidence for anything."""


def _quick_stages() -> list[Arm]:
    arms = _with_one_budget(_QUICK, "pebble (1×B)")
    return [*arms, *_selections(_QUICK, ["same-stage"]), *_segments(_QUICK, {"half": 5})]


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
        Arm("sac", steps or {}, against="pebble"),
        Arm("pebble", learned, "pebble"),
        Arm("surf", {**learned, **(surf or {})}, "surf", against="pebble"),
        Arm("prefvlm", learned, "prefvlm", against="pebble"),
    ]


OTHER_DOMAINS = {
    "quick": Grid({"point-maze-u": _with_one_budget(_QUICK, "pebble (1×B)")}, [0]),
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
    "quick": Grid({task: _quick_stages() for task in ("maze-one-goal", "maze-two-goals")}, [0]),
    "laptop": Grid({task: _stages(task) for task in GOALS}, _SEEDS),
    "paper": Grid(
        {task: _paper(_MAZE_LABELS, steps=_MAZE_STEPS) for task in GOALS}
        | {task: _paper(_HAMMER_LABELS, steps=_HAMMER_STEPS) for task in ("hammer-v3", "peg-insert-side-v3")},
        range(5),
    ),
}
