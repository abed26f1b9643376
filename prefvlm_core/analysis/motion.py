"""What a VLM that compares frames with a text can and cannot do with bodies in motion, and what it gains where it is
shown how frames differ (`vlm.shows`).

SAC learns to walk and to run from the true reward; its replay holds all that a learning agent does, from lying to
walking. The package's own labeling judges pairs of segments of it: by the frozen model, and by adapters that learned
from labels of other episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.analysis.means import mean_of_runs
from prefvlm_core.analysis.sanity import HUMAN_LABELS
from prefvlm_core.analysis.vlm_quality import ALL, LATE, accuracy, pairs_among
from prefvlm_core.analysis.wording import interval, points
from prefvlm_core.common.arrays import DoubleArray, IntArray
from prefvlm_core.common.machine import one_thread
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.profiles import check_profile
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frames import Renderers
from prefvlm_core.domains.registry import sizes_of
from prefvlm_core.methods import run_config
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.vlm.encoder import FleetEncoder, RunEncoder
from prefvlm_core.vlm.labeller import AdaptedVLM, fresh_adapters

MODEL = "tinyliv2"
"""The VLM. It has never seen these bodies: the suite has no expert of which it could learn."""
SHOWN = ("frame", "difference")
"""The values of `vlm.shows`."""
KINDS = (ALL, LATE)
"""Kinds of pairs: any; both segments in the last third of a run's episodes, which differ less in posture."""
READERS = ("zero_shot", "adapted")
COLUMNS = ("task", "seed", "shows", "pairs", "draw", *READERS)

_SEEDS = tuple(range(300, 305))  # of nothing else: no setting was chosen on them
_LESSONS = 2 * HUMAN_LABELS  # segments of each run of which pairs are labeled
_QUESTIONS = 1_000  # pairs of each kind


@dataclass(frozen=True)
class MotionPlan:
    """The size of the measurement."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    """Of the runs of SAC on each task; an interval needs five."""
    draws: int
    """Independent draws of labels, pairs and initial adapters per run."""
    segments: int
    """Segments of each run of which pairs are asked."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields in which the runs differ from the profile."""


_TASKS = ("walker-walk", "cheetah-run")
PLANS = {
    "quick": MotionPlan(_TASKS[:1], _SEEDS[:2], draws=1, segments=60, changes={"total_steps": 1_000}),
    "laptop": MotionPlan(_TASKS, _SEEDS, draws=3, segments=200),
    "paper": MotionPlan(_TASKS, _SEEDS, draws=3, segments=1_000),
}


def replay_configs(profile: str) -> list[RunConfig]:
    """The runs whose replays are judged, one task after the other. Raises `PrefVLMError` for an unknown profile."""
    plan = PLANS[check_profile(profile)]
    changes = {**plan.changes, "sac.temperature_learning_rate": 1e-3}  # as SAC on the true reward has it elsewhere
    return [run_config(task, "sac", seed, profile, changes) for task in plan.tasks for seed in plan.seeds]


class Segments(NamedTuple):
    """Some segments of a run."""

    starts: IntArray
    """Their first steps (M,)."""
    returns: DoubleArray
    """Their true returns (M,)."""
    of_kind: Mapping[str, IntArray]
    """Kind of `KINDS` -> the numbers (m,) of those of which its pairs consist."""


@one_thread()
def measure(directory: RunDirectory) -> pd.DataFrame:
    """One row per kind of pairs, draw and what the VLM is shown of the replay that a run has kept, columns `COLUMNS`.

    Adapters learn from labels of two thirds of the episodes; of every third one, pairs are asked. zero_shot and adapted
    are fractions of these pairs that are ordered as by the true return; "adapted" is the frozen model where
    cross-validation rejects the adapters. The pairs are the same whatever the VLM is shown. Raises `PrefVLMError` where
    the run kept no replay.
    """
    run = directory.config
    plan, replay = PLANS[run.profile], _replay(directory)
    generator, number = np.random.default_rng(run.seed), np.arange(replay.complete_episodes)
    lessons = _segments(run, replay, number[number % 3 != 2], _LESSONS, generator)
    questions = _segments(run, replay, number[number % 3 == 2], plan.segments, generator)
    rows = []
    for shows in SHOWN:
        changes = {**plan.changes, "vlm.model": MODEL, "vlm.shows": shows}
        config = run_config(run.task, "prefvlm", run.seed, run.profile, changes)
        with TemporaryDirectory() as folder, closing(Renderers()) as renderers:
            fleet = FleetEncoder([config], replay, renderers, Path(folder), Stopwatch())
            for draw in range(plan.draws):
                for kind, accuracies in _accuracies(config, fleet.of_run(0), lessons, questions, draw):
                    rows.append((run.task, run.seed, shows, kind, draw, *accuracies))
            fleet.close()
    return pd.DataFrame(rows, columns=COLUMNS)


def _replay(directory: RunDirectory) -> Replay:
    """The replay that a run has kept, as of a fleet of one."""
    config, kept = directory.config, directory.read_replay()
    replay = Replay(
        1,
        config.total_steps,
        config.horizon,
        observation_size=kept["observations"].shape[-1],
        action_size=kept["actions"].shape[-1],
        snapshot_size=kept["snapshots"].shape[-1],
        scene_size=kept["scenes"].shape[-1],
        device=torch.device("cpu"),
    )
    replay.append_piece({name: tensor[None] for name, tensor in kept.items()})
    return replay


def _segments(
    run: RunConfig, replay: Replay, episodes: IntArray, count: int, generator: np.random.Generator
) -> Segments:
    """Random segments of some episodes (n,)."""
    rewards, length = replay.true_rewards[0].numpy().astype(np.float64), run.feedback.segment_length
    chosen = generator.choice(episodes, count)
    starts = chosen * run.horizon + generator.integers(0, run.horizon - length + 1, count)
    returns = rewards[starts[:, None] + np.arange(length)].sum(1)
    late = np.flatnonzero(chosen >= replay.complete_episodes * 2 / 3)
    return Segments(starts, returns, {ALL: np.arange(count), LATE: late})


def _accuracies(
    config: RunConfig, encoder: RunEncoder, lessons: Segments, questions: Segments, draw: int
) -> Iterator[tuple[str, list[float]]]:
    """Kind of pairs and the accuracy of each of `READERS`, after adapters learned from `HUMAN_LABELS` labels."""
    generator = np.random.default_rng((config.seed, draw))
    pairs = pairs_among(lessons.returns, lessons.of_kind[ALL], HUMAN_LABELS, generator)
    asked = {kind: pairs_among(questions.returns, questions.of_kind[kind], _QUESTIONS, generator) for kind in KINDS}
    answers = (np.diff(lessons.returns[pairs], axis=1)[:, 0] > 0).astype(np.float32)
    action_size = sizes_of(config.task).action
    vlm = AdaptedVLM(encoder, fresh_adapters(config.adapter, len(encoder.text), action_size, generator), Stopwatch())
    vlm.adapt(PreferenceBuffer(lessons.starts[pairs], answers), np.empty((0, 2), np.int64), generator)
    for kind, chosen in asked.items():
        judged, truth = vlm.judge(questions.starts[chosen]), questions.returns[chosen]
        yield kind, [accuracy(returns.astype(np.float64), truth) for returns in (judged.zero_shot, judged.returns)]


def accuracy_table(measured: pd.DataFrame) -> pd.DataFrame:
    """One row per task, kind of pairs and what the VLM is shown, from the rows of `measure`.

    Columns: task, pairs, shows, seeds, and for each of zero_shot, adapted, gain (adapted - zero_shot of a run) and
    over_frames (adapted, less what the same run has with frames) the mean over runs, `_low` and `_high`: the 95 %
    bootstrap interval over runs, nan with fewer than five (`means.mean_of_runs`).
    """
    runs = measured.groupby(["task", "pairs", "shows", "seed"], sort=False)[list(READERS)].mean().reset_index()
    frames = runs[runs["shows"] == "frame"].set_index(["task", "pairs", "seed"])["adapted"]
    runs = runs.join(frames.rename("frames"), on=["task", "pairs", "seed"])
    runs = runs.assign(gain=runs["adapted"] - runs["zero_shot"], over_frames=runs["adapted"] - runs["frames"])
    rows = []
    for (task, pairs, shows), of_runs in runs.groupby(["task", "pairs", "shows"], sort=False):
        row: dict[str, object] = {"task": task, "pairs": pairs, "shows": shows, "seeds": len(of_runs)}
        for name in (*READERS, "gain", "over_frames"):
            mean = mean_of_runs(of_runs, name)
            row |= {name: mean["mean"], f"{name}_low": mean["low"], f"{name}_high": mean["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def motion_in_words(table: pd.DataFrame) -> str:
    """Markdown that states an `accuracy_table`, one line per task and kind of pairs."""
    lines = []
    for (task, pairs), rows in table.groupby(["task", "pairs"], sort=False):
        of = rows.set_index("shows").to_dict("index")
        said = [
            f"{name}s {interval(of[name], 'zero_shot')} % zero-shot and {interval(of[name], 'adapted')} % adapted"
            for name in SHOWN
        ]
        gained = of["difference"]
        low, high = gained["over_frames_low"], gained["over_frames_high"]
        certain = "" if low > 0 or high < 0 else ", which may be chance"
        lines.append(
            f"- **{task}**, {pairs} pairs: of {'; of '.join(said)}. Shown differences, adapters gain "
            f"{points(gained, 'over_frames')} points{certain}."
        )
    return "\n".join(lines)
