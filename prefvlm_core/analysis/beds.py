"""Beds: recorded episodes with true rewards, on which vision-language models are judged.

Two kinds: episodes of *mixed* quality, made by scripted experts and random actions, and *replays* of real training,
which hold what a learning agent really does. Models must be chosen on other seeds than those reported here: replays of
`CHOOSING_SEED` are for choosing, those of `REPORTING_SEED` for reporting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefvlm_core.common.arrays import BoolArray, DoubleArray, FloatArray, ImageArray
from prefvlm_core.config.profiles import FIRST_EDITION, check_profile
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import task_number
from prefvlm_core.domains.relations import HAND, OBJECT
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import train
from prefvlm_core.vlm.pretraining.recordings import (
    RECORDED_STEPS,
    SEGMENT_FRAMES,
    at_frames,
    expert_episodes,
    record,
    record_mixed_behaviors,
)

CHOOSING_SEED, REPORTING_SEED = 200, 201
MIXED, REPLAY = "mixed", "replay"
"""The kinds of beds."""

_SEED = 20260401  # of the mixed beds and expert films; no model is trained or chosen on it
_SEGMENT_FRAMES = 5  # of a replay
_EXPERT_NOISE = 0.2


@dataclass(frozen=True)
class Bed:
    """N episodes of one task with F frames each, in the evaluation view; a frame stands for the steps since the one
    before it."""

    kind: str
    """`MIXED` or `REPLAY`."""
    task: str
    draw: str
    """Which of several independent beds of a kind and a task: a number, or the method whose replay it is."""
    frames: ImageArray
    """(N, F, size, size, 3), RGB."""
    rewards: DoubleArray
    """(N, F): sum of the true rewards of the steps that a frame stands for."""
    states: FloatArray | None
    """(N, F, O + 1): the observation of what a frame shows, and the distance from hand to object in it, meters; None
    where observations were not recorded. Without the distance, a linear probe has little to go by."""
    actions: FloatArray
    """(N, F, A): mean action of these steps."""
    segment: int
    """Frames in a segment."""


@dataclass(frozen=True)
class Films:
    """N episodes of a task's scripted expert, with F frames each."""

    task: str
    frames: ImageArray
    """(N, F, size, size, 3), RGB."""
    successes: BoolArray
    """(N, F): whether the step that a frame shows meets the task's success criterion."""


@dataclass(frozen=True)
class BedPlan:
    """The size of the beds of a profile."""

    tasks: tuple[str, ...]
    draws: int
    """Mixed beds per task, at least 2."""
    episodes: int
    """Episodes of a mixed bed, at least 12."""
    films: int
    """Expert films per task and draw."""
    steps: int
    """Steps of the runs whose replays are kept."""
    budgets: tuple[int, ...]
    """Labels of the run of PEBBLE on each task; in profile laptop twice its B."""
    profile_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields in which the runs' profile differs from today's."""


_TASKS = ("door-close-v3", "button-press-v3", "window-open-v3", "window-close-v3")
PLANS = {
    "quick": BedPlan(("button-press-v3",), draws=2, episodes=12, films=2, steps=900, budgets=(60,)),
    "laptop": BedPlan(
        _TASKS,
        draws=3,
        episodes=24,
        films=5,
        steps=3_100,
        budgets=(100, 200, 200, 200),
        profile_changes=FIRST_EDITION,
    ),
    "paper": BedPlan(_TASKS, draws=3, episodes=60, films=10, steps=50_000, budgets=(1_000,) * 4),
}


def plan_of(profile: str) -> BedPlan:
    """The beds of a profile. Raises `PrefVLMError` for an unknown one."""
    return PLANS[check_profile(profile)]


def replay_configs(profile: str, seed: int = REPORTING_SEED) -> list[RunConfig]:
    """The runs whose replays are kept: on each task SAC on the true reward, and PEBBLE with standardized inputs."""
    plan, configs = plan_of(profile), []
    for task, budget in zip(plan.tasks, plan.budgets, strict=True):
        first = budget // 5
        learning = {
            "feedback.budget": budget,
            "feedback.first_session_queries": first,
            "feedback.session_queries": -(-(budget - first) // 12),
            "reward.standardise": True,
        }
        for method, fields in (("sac", {}), ("pebble", learning)):
            changes = {"total_steps": plan.steps} | fields
            configs.append(run_config(task, method, seed, profile, changes, plan.profile_changes))
    return configs


def kept_replays(profile: str, execution: Execution, seed: int = REPORTING_SEED) -> list[RunDirectory]:
    """The runs of `replay_configs`, in the results folder `<results>/<profile>/replays`; what is missing is trained."""
    folder = Path(execution.results) / profile / "replays"
    return train(replay_configs(profile, seed), dataclasses.replace(execution, results=str(folder), keep_replay=True))


def replay_bed(directory: RunDirectory, size: int) -> Bed:
    """What a run has seen, from its kept replay, with frames of `size` pixels, 5 in each segment.

    Raises `PrefVLMError` where the run kept no replay.
    """
    config, kept = directory.config, {name: tensor.numpy() for name, tensor in directory.read_replay().items()}
    episodes, horizon = len(kept["scenes"]), config.horizon
    stride = config.feedback.segment_length // _SEGMENT_FRAMES
    frames, shown = horizon // stride, kept["snapshots"][:, stride::stride]
    renderer = FrameRenderer(config.task, size)
    pictures = renderer.render(shown.reshape(-1, shown.shape[-1]), np.repeat(kept["scenes"], frames, axis=0))
    renderer.close()
    states = kept["observations"][:, stride::stride]
    distances = np.linalg.norm(states[..., HAND] - states[..., OBJECT], axis=2, keepdims=True)
    return Bed(
        kind=REPLAY,
        task=config.task,
        draw=config.method,
        frames=pictures.reshape(episodes, frames, *pictures.shape[1:]),
        rewards=kept["true_rewards"].astype(np.float64).reshape(episodes, frames, -1).sum(2),
        states=np.concatenate((states, distances), axis=2),
        actions=_mean_actions(kept["actions"].reshape(episodes, horizon, -1), frames),
        segment=_SEGMENT_FRAMES,
    )


def mixed_bed(task: str, draw: int, episodes: int, size: int) -> Bed:
    """Episodes of mixed quality (`recordings.record_mixed_behaviors`), with segments of 50 environment steps."""
    recorded = record_mixed_behaviors(task, episodes, _SEED + draw, size)
    return Bed(
        kind=MIXED,
        task=task,
        draw=str(draw),
        frames=recorded.frames,
        rewards=recorded.rewards.reshape(*recorded.frames.shape[:2], -1).sum(2),
        states=None,
        actions=_mean_actions(recorded.actions, recorded.frames.shape[1]),
        segment=SEGMENT_FRAMES,
    )


def expert_films(task: str, draw: int, count: int, size: int, steps: int = RECORDED_STEPS) -> Films:
    """Episodes of `steps` environment steps of the expert with a little noise."""
    generator = np.random.default_rng((_SEED, draw, task_number(task)))
    recorded = record(task, expert_episodes(task, _EXPERT_NOISE, count, generator), size, steps)
    return Films(task, recorded.frames, at_frames(recorded.successes))


def _mean_actions(actions: FloatArray, frames: int) -> FloatArray:
    """Mean actions (N, F, A) of the steps that each frame stands for, of actions (N, H, A)."""
    return actions.reshape(len(actions), frames, -1, actions.shape[-1]).mean(2)
