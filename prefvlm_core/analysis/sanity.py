"""Whether the VLM's reward makes sense and how accurate its labels are, measured without training a policy.

The measures use recorded episodes of good and bad behaviors in the evaluation view, and compare with the true reward.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import torch

from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.common.arrays import DoubleArray, FloatArray, ImageArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.tasks import ACTION_SIZE, PAPER_TASKS, TASKS
from prefvlm_core.vlm import VisionLanguageModel, load, tinyliv
from prefvlm_core.vlm.labeller import ADAPTERS
from prefvlm_core.vlm.pretraining.recordings import (
    FRAME_EVERY,
    SEGMENT_FRAMES,
    Recording,
    record,
    record_mixed_behaviors,
    segment_returns,
)

HUMAN_LABELS = 50
MODELS = ("tinyliv", "random")
"""The default VLM and, for contrast, the same network untrained."""

_TEST_PAIRS = 500
_RANDOM_EPISODES = 5  # for inverse dynamics
_ACTION_NOISE = 3.0  # of the noisy expert
_SEED = 20260301  # of everything recorded here; TinyLIV's recipe and model card are based on other seeds


@dataclass(frozen=True)
class SanityPlan:
    """The size of a sanity check."""

    tasks: tuple[str, ...]
    trajectories: int
    """Trajectories of mixed quality per task and draw, at least 12: adapters learn from pairs of two thirds and
    are judged on pairs of the rest."""
    draws: int
    """Independent draws of trajectories, pairs and initial adapters per task, at least 2."""
    stride: int
    """Environment steps from one frame that the VLM sees to the next, a multiple of 5."""


PLANS = {
    "quick": SanityPlan(("window-open-v3", "button-press-v3"), trajectories=24, draws=3, stride=10),
    "laptop": SanityPlan(PAPER_TASKS, trajectories=24, draws=6, stride=10),
    "paper": SanityPlan(PAPER_TASKS, trajectories=60, draws=10, stride=5),
}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread. With 2 threads on 2 cores that another process used too, adapters learned 12 to 60 times
    slower (measured)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class RewardCurve:
    """The VLM's and the true reward along one episode of a behavior, with F = 40 frames, one every 5 steps."""

    task: str
    behavior: str
    frames: ImageArray
    """(F, 64, 64, 3), RGB."""
    vlm_rewards: FloatArray
    """(F,): cosine of the embeddings of frame and task text (PrefVLM §4.1)."""
    true_rewards: DoubleArray
    """(F,): Meta-World's reward, 0 to 10, of the step that the frame shows."""
    first_success: int | None
    """The first step, counted from 1, that met Meta-World's success criterion; None without success."""


@_one_thread()
def reward_curves(task: str, model: VisionLanguageModel) -> list[RewardCurve]:
    """Rewards along an episode of the expert, of a noisy expert and of random actions, from the same initial state."""
    generator = np.random.default_rng((_SEED, TASKS.index(task)))
    seed = int(generator.integers(2**31))
    behaviors: dict[str, Behavior] = {
        "expert": Expert(task, 0.0, generator),
        "noisy expert": Expert(task, _ACTION_NOISE, generator),
        "random actions": RandomActions(generator),
    }
    recording = record(task, ((behavior, seed) for behavior in behaviors.values()))
    text = model.encode_task(task)
    return [
        RewardCurve(
            task=task,
            behavior=name,
            frames=frames,
            vlm_rewards=model.encode_image(frames) @ text,
            true_rewards=rewards[FRAME_EVERY - 1 :: FRAME_EVERY],
            first_success=int(successes.argmax()) + 1 if successes.any() else None,
        )
        for name, frames, rewards, successes in zip(
            behaviors, recording.frames, recording.rewards, recording.successes, strict=True
        )
    ]


class RecordedTask(NamedTuple):
    """Episodes of one task."""

    mixed: Recording
    """Behaviors of mixed quality, whose segments are labeled."""
    explored: Recording
    """Random actions, from which adapters learn inverse dynamics."""


@dataclass(frozen=True)
class EmbeddedTask:
    """A recorded task with its frames and text embedded by a VLM, in D dimensions."""

    text: FloatArray
    """(D,)."""
    features: FloatArray
    """(N, 40, D): frames of the episodes of mixed quality."""
    rewards: DoubleArray
    """(N, 200): true reward of each of their steps."""
    explored: FloatArray
    """(E, 40, D): frames of the episodes of random actions."""
    actions: FloatArray
    """(E, 200, 4): their actions."""


def record_task(task: str, trajectories: int, seed: int) -> RecordedTask:
    """Record new `trajectories` of mixed quality, and episodes of random actions.

    Raises `PrefVLMError` for fewer than 12 trajectories, because the third on which labels are judged would then lack a
    kind of behavior.
    """
    if trajectories < 12:
        raise PrefVLMError(
            f"Labels cannot be judged on {trajectories} trajectories of '{task}', allowed are 12 or more."
        )
    generator = np.random.default_rng(seed)
    explorers = ((RandomActions(generator), int(generator.integers(2**31))) for _ in range(_RANDOM_EPISODES))
    return RecordedTask(explored=record(task, explorers), mixed=record_mixed_behaviors(task, trajectories, seed))


@_one_thread()
def embed(model: VisionLanguageModel, recorded: RecordedTask) -> EmbeddedTask:
    """Embed the frames and the text of a recorded task."""
    features, explored = (
        model.encode_image(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], -1)
        for frames in (recorded.mixed.frames, recorded.explored.frames)
    )
    return EmbeddedTask(
        text=model.encode_task(recorded.mixed.task),
        features=features,
        rewards=recorded.mixed.rewards,
        explored=explored,
        actions=recorded.explored.actions,
    )


@_one_thread()
def before_and_after(
    embedded: EmbeddedTask, stride: int, labels: int, seed: int, config: AdapterConfig | None = None
) -> tuple[float, float]:
    """Accuracy of a VLM's labels of held-out pairs, before and after its adapters learn once.

    The adapters learn from `labels` pairs that the true reward has labeled. Pairs of equal true return are left out.

    Args:
        embedded: The task.
        stride: Environment steps from one frame to the next, a multiple of 5.
        labels: Number of labeled pairs.
        seed: Draws the pairs and the initial adapters.
        config: Configuration of the adapters.

    Returns:
        (zero-shot, adapted): fractions of pairs that are ordered as by the true reward. "Adapted" is what a run would
        use, hence the frozen model if cross-validation rejects the adapters.
    """
    generator = np.random.default_rng(seed)
    learned, judged = np.split(np.arange(len(embedded.features)), [len(embedded.features) * 2 // 3])
    frames, truth = _pairs(embedded, learned, labels, stride, generator)
    held_out, held_out_truth = _pairs(embedded, judged, _TEST_PAIRS, stride, generator)
    config = config or AdapterConfig()
    adapters = ADAPTERS[config.kind](config, len(embedded.text), generator, torch.device("cpu"))
    zero_shot = adapters.returns(embedded.text, held_out)
    adapters.learn(embedded.text, frames, truth, _dynamics(embedded, stride), generator)
    adapted = adapters.returns(embedded.text, held_out)
    before, after = (
        float(((returns[:, 1] > returns[:, 0]) == held_out_truth).mean()) for returns in (zero_shot, adapted)
    )
    return before, after


def label_accuracies(plan: SanityPlan, labels: int = HUMAN_LABELS) -> pd.DataFrame:
    """One row per task, draw and model of `MODELS`, with columns task, model, draw, zero_shot and adapted (0..1).

    Draws are independent: each has its own trajectories, pairs, adapters and random weights of the untrained network.
    All models see the same frames.
    """
    rows = []
    for task in plan.tasks:
        for draw in range(plan.draws):
            recorded = record_task(task, plan.trajectories, seed=_SEED + draw)
            for name in MODELS:
                model = tinyliv.random(draw) if name == "random" else load(name)
                accuracies = before_and_after(embed(model, recorded), plan.stride, labels, draw)
                rows.append((task, name, draw, *accuracies))
    return pd.DataFrame(rows, columns=["task", "model", "draw", "zero_shot", "adapted"])


def accuracy_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Means over draws and 95 % intervals, one row per model and task, and one for "all tasks" if there are several.

    Columns: model, task, draws (per task), and for each of zero_shot, adapted and gain (adapted - zero_shot of a draw)
    the mean, `_low` and `_high`. The interval is Student's t interval, clipped to the possible range: it is exact for
    normal values even with few draws, for which a bootstrap interval is too narrow. "all tasks" is the mean of the
    tasks' means, whose draws are independent. Raises `PrefVLMError` for fewer than 2 draws of a task.
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
    """Markdown, one line per task: rank correlation of VLM and true reward, and mean VLM reward of each behavior."""
    lines = []
    for task in dict.fromkeys(curve.task for curve in curves):
        of_task = [curve for curve in curves if curve.task == task]
        vlm, true = (
            np.concatenate([getattr(curve, name) for curve in of_task]) for name in ("vlm_rewards", "true_rewards")
        )
        means = ", ".join(f"{curve.behavior} {curve.vlm_rewards.mean():z.2f}" for curve in of_task)
        agreement = scipy.stats.spearmanr(vlm, true).statistic
        lines.append(f"- **{task}**: rank correlation with the true reward {agreement:z.2f}; mean VLM reward: {means}.")
    return "\n".join(lines)


def accuracies_in_words(table: pd.DataFrame, labels: int = HUMAN_LABELS) -> str:
    """Markdown that states the last row of each model in an `accuracy_table`: of all tasks, or of the only task."""
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
    embedded: EmbeddedTask, trajectories: IntArray, count: int, stride: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Frames (count, 2, F, D) of random pairs of segments, and P(second preferred) (count,) by their true return."""
    returns = segment_returns(embedded.rewards)
    chosen = generator.choice(trajectories, (4 * count, 2))
    starts = generator.integers(0, returns.shape[1], (4 * count, 2))
    difference = np.diff(returns[chosen, starts], axis=1)[:, 0]
    kept = np.flatnonzero(difference)[:count]
    skip = stride // FRAME_EVERY
    steps = starts[kept, :, None] + np.arange(skip - 1, SEGMENT_FRAMES, skip)
    return embedded.features[chosen[kept, :, None], steps], (difference[kept] > 0).astype(np.float32)


def _dynamics(embedded: EmbeddedTask, stride: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Embeddings (m, D) of frames, (m, D) of those `stride` steps later, and (m, 4) the mean actions between them."""
    skip = stride // FRAME_EVERY
    frames = embedded.explored[:, skip - 1 :: skip]
    actions = embedded.actions.reshape(len(embedded.actions), -1, stride, ACTION_SIZE).mean(2)[:, 1:]
    size = frames.shape[-1]
    return frames[:, :-1].reshape(-1, size), frames[:, 1:].reshape(-1, size), actions.reshape(-1, ACTION_SIZE)
