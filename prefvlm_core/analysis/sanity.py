"""Does the VLM's reward make sense, and how good are its labels? Asked of filmed behaviours, without training a policy.

The frames show Meta-World's scripted experts, good and bad, in the evaluation view; the true reward is the judge.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
import torch
from numpy.typing import NDArray

from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.metaworld import Environment
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.vlm import VisionLanguageModel, load, tinyliv
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.pretraining.demonstrations import (
    FRAME_EVERY,
    TRAJECTORY_STEPS,
    Trajectories,
    film,
    mixed_trajectories,
)
from prefvlm_core.vlm.texts import task_text

Floats = NDArray[np.float32]

HUMAN_LABELS = 50
MODELS = ("tinyliv", "random")
"""The default VLM and, for contrast, the same network untrained."""

_SEGMENT_STEPS = 50
_TEST_PAIRS = 500
_RANDOM_EPISODES = 5  # for inverse dynamics
_ACTION_NOISE = 3.0  # of the noisy expert
_SEED = 20260301  # of everything filmed here; other seeds chose TinyLIV's recipe and filled its model card


@dataclass(frozen=True)
class SanityPlan:
    """What the sanity check looks at."""

    tasks: tuple[str, ...]
    trajectories: int
    """Trajectories of mixed quality per task and draw, at least 12: adapters learn from pairs of two thirds of them and
    are judged on pairs of the last third."""
    draws: int
    """Draws of trajectories, pairs and initial adapters per task, at least 2."""
    stride: int
    """Environment steps between two frames that the VLM sees, a multiple of 5."""


PLANS = {
    "quick": SanityPlan(("window-open-v3", "button-press-v3"), trajectories=24, draws=3, stride=10),
    "laptop": SanityPlan(PAPER_TASKS, trajectories=24, draws=6, stride=10),
    "paper": SanityPlan(PAPER_TASKS, trajectories=60, draws=10, stride=5),
}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: with 2 threads on 2 cores that another process used too, adapters learned 12 to 60 times
    slower (measured)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class RewardCurve:
    """One episode of a behaviour as the VLM and as the environment reward it; F = 40 frames, one every 5 steps."""

    task: str
    behaviour: str
    frames: NDArray[np.uint8]
    """(F, 64, 64, 3), RGB."""
    vlm_rewards: Floats
    """(F,): cosine of the embeddings of frame and task text (PrefVLM §4.1)."""
    true_rewards: NDArray[np.float64]
    """(F,): Meta-World's reward, 0 to 10, of the step that the frame shows."""
    first_success: int | None
    """Step that first met Meta-World's success test, from 1; None without success."""


@_one_thread()
def reward_curves(task: str, model: VisionLanguageModel) -> list[RewardCurve]:
    """Rewards along an expert's, a noisy expert's and a random episode, all three from the same initial state."""
    generator = np.random.default_rng((_SEED, TASKS.index(task)))
    seed = int(generator.integers(2**31))
    behaviours: dict[str, Behavior] = {
        "expert": Expert(task, 0.0, generator),
        "noisy expert": Expert(task, _ACTION_NOISE, generator),
        "random actions": RandomActions(generator),
    }
    environment, renderer = Environment(task, TRAJECTORY_STEPS, goal_visible=True), FrameRenderer(task)
    text = model.encode_text([task_text(task)])[0]
    curves = []
    for name, behaviour in behaviours.items():
        episode = film(environment, renderer, behaviour, seed)
        cosines = model.encode_image(episode.frames) @ text
        rewards = episode.rewards[FRAME_EVERY - 1 :: FRAME_EVERY]
        success = int(episode.successes.argmax()) + 1 if episode.successes.any() else None
        curves.append(RewardCurve(task, name, episode.frames, cosines, rewards, success))
    renderer.close()
    return curves


@dataclass(frozen=True)
class FilmedTask:
    """Episodes of one task."""

    task: str
    mixed: Trajectories
    explored: NDArray[np.uint8]
    """(E, 40, 64, 64, 3): episodes of random actions, the frame after every 5th step."""
    actions: Floats
    """(E, 200, 4)."""


@dataclass(frozen=True)
class SeenTask:
    """What a VLM sees of a filmed task: embeddings of size D."""

    text: Floats
    """(D,)."""
    features: Floats
    """(N, 40, D): trajectories of mixed quality."""
    rewards: NDArray[np.float64]
    """(N, 200): true reward of each step of them."""
    explored: Floats
    """(E, 40, D)."""
    actions: Floats
    """(E, 200, 4)."""


def film_task(task: str, trajectories: int, seed: int) -> FilmedTask:
    """New `trajectories` of mixed quality, and episodes of random actions from which to learn inverse dynamics.

    Raises PrefVLMError for fewer than 12 trajectories, of which the judged third would lack a kind of behaviour.
    """
    if trajectories < 12:
        raise PrefVLMError(
            f"Labels cannot be judged on {trajectories} trajectories of '{task}', allowed are 12 or more."
        )
    generator = np.random.default_rng(seed)
    environment, renderer = Environment(task, TRAJECTORY_STEPS), FrameRenderer(task)
    episodes = [
        film(environment, renderer, RandomActions(generator), int(generator.integers(2**31)))
        for _ in range(_RANDOM_EPISODES)
    ]
    renderer.close()
    explored, actions = (np.stack([getattr(episode, name) for episode in episodes]) for name in ("frames", "actions"))
    return FilmedTask(task, mixed_trajectories(task, trajectories, seed), explored, actions)


@_one_thread()
def see(model: VisionLanguageModel, filmed: FilmedTask) -> SeenTask:
    """Embed what was filmed."""
    features, explored = (
        model.encode_image(films.reshape(-1, *films.shape[2:])).reshape(*films.shape[:2], -1)
        for films in (filmed.mixed.frames, filmed.explored)
    )
    text = model.encode_text([task_text(filmed.task)])[0]
    return SeenTask(text, features, filmed.mixed.rewards, explored, filmed.actions)


@_one_thread()
def before_and_after(
    seen: SeenTask, stride: int, labels: int, seed: int, config: AdapterConfig | None = None
) -> tuple[float, float]:
    """(zero-shot, adapted): fraction of held-out pairs ordered as the true reward orders them, before and after the
    adapters learned once from `labels` pairs that the true reward labelled.

    "Adapted" is what a run would use: where the guard refuses the adapters, the frozen model. Pairs of equal true
    return are left out. `stride` (a multiple of 5) is the steps between two frames.
    """
    generator = np.random.default_rng(seed)
    split = len(seen.features) * 2 // 3
    frames, truth = _pairs(seen, np.arange(split), labels, stride, generator)
    held_out, held_out_truth = _pairs(seen, np.arange(split, len(seen.features)), _TEST_PAIRS, stride, generator)
    adapters = Adapters(config or AdapterConfig(), len(seen.text), generator, torch.device("cpu"))
    zero_shot = adapters.returns(seen.text, held_out)
    adapters.learn(seen.text, frames, truth, _dynamics(seen, stride), generator)
    adapted = adapters.returns(seen.text, held_out)
    before, after = (
        float(((returns[:, 1] > returns[:, 0]) == held_out_truth).mean()) for returns in (zero_shot, adapted)
    )
    return before, after


def label_accuracies(plan: SanityPlan, labels: int = HUMAN_LABELS) -> pd.DataFrame:
    """One row per task, draw and model of `MODELS`: columns task, model, draw, zero_shot, adapted (0..1).

    Draws are independent: each has trajectories, pairs and adapters of its own, and of the untrained network its own
    random weights. The models see the same frames.
    """
    rows = []
    for task in plan.tasks:
        for draw in range(plan.draws):
            filmed = film_task(task, plan.trajectories, seed=_SEED + draw)
            for name in MODELS:
                model = tinyliv.random(draw) if name == "random" else load(name)
                accuracies = before_and_after(see(model, filmed), plan.stride, labels, draw)
                rows.append((task, name, draw, *accuracies))
    return pd.DataFrame(rows, columns=["task", "model", "draw", "zero_shot", "adapted"])


def accuracy_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """One row per model and task, and, of several tasks, one per model with task "all tasks": means and 95 % intervals.

    Columns: model, task, draws (per task), and of each of zero_shot, adapted and gain (adapted - zero_shot of a draw)
    the mean over draws with `_low` and `_high`, Student's t interval cut to what is possible: it is exact for normal
    values even with few draws, where a bootstrap interval is too narrow. "all tasks" is the mean of the tasks' means,
    whose draws are independent. Raises PrefVLMError with fewer than 2 draws of a task.
    """
    values = accuracies.assign(gain=accuracies["adapted"] - accuracies["zero_shot"])
    rows = []
    for model, of_model in values.groupby("model", sort=False):
        tasks = list(of_model["task"].unique())
        for name, included in [*((task, [task]) for task in tasks), *([(ALL_TASKS, tasks)] if len(tasks) > 1 else [])]:
            draws = of_model[of_model["task"].isin(included)].groupby("task")
            if draws.size().min() < 2:
                raise PrefVLMError(f"There is 1 draw of {name}; an interval needs at least 2.")
            quantile = scipy.stats.t.ppf(0.975, (draws.size() - 1).sum())
            row: dict[str, object] = {"model": model, "task": name, "draws": draws.size().min()}
            for column, least in (("zero_shot", 0.0), ("adapted", 0.0), ("gain", -1.0)):
                mean = draws[column].mean().mean()
                margin = quantile * np.sqrt((draws[column].sem() ** 2).sum()) / len(included)
                row |= {column: mean}
                row |= {f"{column}_low": max(mean - margin, least), f"{column}_high": min(mean + margin, 1.0)}
            rows.append(row)
    return pd.DataFrame(rows)


def curves_in_words(curves: Sequence[RewardCurve]) -> str:
    """Per task, as Markdown: how far the VLM's reward goes with the true one, and what it gives to each behaviour."""
    lines = []
    for task in dict.fromkeys(curve.task for curve in curves):
        of_task = [curve for curve in curves if curve.task == task]
        vlm, true = (
            np.concatenate([getattr(curve, name) for curve in of_task]) for name in ("vlm_rewards", "true_rewards")
        )
        means = ", ".join(f"{curve.behaviour} {curve.vlm_rewards.mean():z.2f}" for curve in of_task)
        agreement = scipy.stats.spearmanr(vlm, true).statistic
        lines.append(f"- **{task}**: rank correlation with the true reward {agreement:z.2f}; mean VLM reward: {means}.")
    return "\n".join(lines)


def accuracies_in_words(table: pd.DataFrame, labels: int = HUMAN_LABELS) -> str:
    """What an `accuracy_table` says, as Markdown, in its last row of each model: all tasks, or the only one."""
    lines = []
    for row in table.groupby("model", sort=False).tail(1).to_dict("records"):
        before, after, gain = (
            f"{100 * row[name]:z.0f}{unit} ({100 * row[f'{name}_low']:z.0f} to {100 * row[f'{name}_high']:z.0f})"
            for name, unit in (("zero_shot", " %"), ("adapted", " %"), ("gain", " points"))
        )
        certain = "" if row["gain_low"] > 0 or row["gain_high"] < 0 else ", which may be chance"
        lines.append(
            f"- **{row['model']}**, {row['task']}: {before} of its labels are right zero-shot and {after} after "
            f"{labels} human labels; the difference is {gain}{certain}."
        )
    return "\n".join(lines)


def _pairs(
    seen: SeenTask, trajectories: NDArray[np.int64], count: int, stride: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Frames (count, 2, F, D) of random pairs of segments, and P(second preferred) (count,) by their true returns."""
    length, skip = _SEGMENT_STEPS // FRAME_EVERY, stride // FRAME_EVERY
    rewards = seen.rewards.reshape(len(seen.rewards), -1, FRAME_EVERY).sum(-1)
    returns = np.lib.stride_tricks.sliding_window_view(rewards, length, axis=1).sum(-1)
    chosen = generator.choice(trajectories, (4 * count, 2))
    starts = generator.integers(0, returns.shape[1], (4 * count, 2))
    difference = np.diff(returns[chosen, starts], axis=1)[:, 0]
    kept = np.flatnonzero(difference)[:count]
    steps = starts[kept, :, None] + np.arange(skip - 1, length, skip)
    return seen.features[chosen[kept, :, None], steps], (difference[kept] > 0).astype(np.float32)


def _dynamics(seen: SeenTask, stride: int) -> tuple[Floats, Floats, Floats]:
    """Frames `stride` steps apart, and the mean action between them."""
    skip = stride // FRAME_EVERY
    frames = seen.explored[:, skip - 1 :: skip]
    actions = seen.actions.reshape(len(seen.actions), -1, stride, 4).mean(2)[:, 1:]
    size = frames.shape[-1]
    return frames[:, :-1].reshape(-1, size), frames[:, 1:].reshape(-1, size), actions.reshape(-1, 4)
