"""Whether the VLM's reward makes sense and how accurate its labels are, measured without training a policy.

The measures use recorded episodes of good and bad behaviors in the evaluation view, and compare with the true reward.
"""

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from prefvlm_core.analysis.beds import expert_films
from prefvlm_core.analysis.sanity_plans import UNTRAINED, SanityPlan
from prefvlm_core.analysis.stats import ALL_TASKS, student_interval
from prefvlm_core.analysis.vlm_quality import episode_order, value_orders
from prefvlm_core.analysis.wording import interval, points
from prefvlm_core.common.arrays import DoubleArray, FloatArray, ImageArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import one_thread
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.domains.experts import Behavior, Expert, RandomActions
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.registry import task_number
from prefvlm_core.vlm import VisionLanguageModel, load, tinyliv
from prefvlm_core.vlm.frame_pairs import FramePairs
from prefvlm_core.vlm.labeller import fresh_adapters
from prefvlm_core.vlm.pretraining.recordings import (
    FRAME_EVERY,
    RECORDED_STEPS,
    SEGMENT_FRAMES,
    Episodes,
    Recording,
    at_frames,
    play,
    play_mixed_behaviors,
    record,
    segment_returns,
)

HUMAN_LABELS = 50
_TEST_PAIRS = 500
_RANDOM_EPISODES = 5  # for inverse dynamics
_FILMS = 3  # of the expert, per task and draw
ACTION_NOISE = 3.0
"""Of the noisy expert."""
_SEED = 20260301  # of everything recorded here; TinyLIV's recipe and model card are based on other seeds


@dataclass(frozen=True)
class RewardCurve:
    """The VLM's and the true reward along one episode of a behavior, with F frames, one every 5 steps."""

    task: str
    behavior: str
    frames: ImageArray
    """(F, 64, 64, 3), RGB."""
    vlm_rewards: FloatArray
    """(F,): cosine of the embeddings of frame and task text (PrefVLM §4.1)."""
    true_rewards: DoubleArray
    """(F,): The true reward of the step that the frame shows."""
    first_success: int | None
    """The first step, counted from 1, that met the task's success criterion; None without success."""


@one_thread()
def reward_curves(task: str, model: VisionLanguageModel, steps: int = RECORDED_STEPS) -> list[RewardCurve]:
    """Rewards along an episode of the expert, of a noisy expert and of random actions, from the same initial state, of
    `steps` environment steps each."""
    generator = np.random.default_rng((_SEED, task_number(task)))
    seed = int(generator.integers(2**31))
    behaviors: dict[str, Behavior] = {
        "expert": Expert(task, 0.0, generator),
        "noisy expert": Expert(task, ACTION_NOISE, generator),
        "random actions": RandomActions(task, generator),
    }
    recording = record(task, ((behavior, seed) for behavior in behaviors.values()), tinyliv.FRAME_SIZE, steps)
    text = model.encode_task(task)
    return [
        RewardCurve(
            task=task,
            behavior=name,
            frames=frames,
            vlm_rewards=model.encode_image(frames) @ text,
            true_rewards=at_frames(rewards),
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
    """What `play_task` plays, in the evaluation view."""
    played = play_task(task, trajectories, seed)
    with closing(FrameRenderer(task, tinyliv.FRAME_SIZE)) as renderer:
        return RecordedTask(played.mixed.seen_by(renderer), played.explored.seen_by(renderer))


class PlayedTask(NamedTuple):
    """The episodes of a `RecordedTask` before they are rendered."""

    mixed: Episodes
    explored: Episodes


def play_task(task: str, trajectories: int, seed: int) -> PlayedTask:
    """Play new `trajectories` of mixed quality, and episodes of random actions.

    Raises `PrefVLMError` for fewer than 12 trajectories, because the third on which labels are judged would then lack a
    kind of behavior.
    """
    if trajectories < 12:
        raise PrefVLMError(
            f"Labels cannot be judged on {trajectories} trajectories of '{task}', allowed are 12 or more."
        )
    generator = np.random.default_rng(seed)
    explorers = ((RandomActions(task, generator), int(generator.integers(2**31))) for _ in range(_RANDOM_EPISODES))
    return PlayedTask(explored=play(task, explorers), mixed=play_mixed_behaviors(task, trajectories, seed))


@one_thread()
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


@one_thread()
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
    frames, truth = draw_pairs(embedded, learned, labels, stride, generator)
    held_out, held_out_truth = draw_pairs(embedded, judged, _TEST_PAIRS, stride, generator)
    adapters = fresh_adapters(config or AdapterConfig(), len(embedded.text), embedded.actions.shape[-1], generator)
    zero_shot = adapters.returns(embedded.text, held_out)
    adapters.learn(embedded.text, FramePairs.of(frames), truth, dynamics(embedded, stride), generator)
    adapted = adapters.returns(embedded.text, held_out)
    before, after = (
        float(((returns[:, 1] > returns[:, 0]) == held_out_truth).mean()) for returns in (zero_shot, adapted)
    )
    return before, after


ACCURACY_COLUMNS = ("task", "model", "draw", "zero_shot", "adapted", "value_order", "episode_order")
"""Columns of `label_accuracies`; checks that were stored before there were the last two hold nan in them."""


def label_accuracies(plan: SanityPlan, labels: int = HUMAN_LABELS) -> pd.DataFrame:
    """One row per task, draw and model of the plan: the accuracy of its labels and the order of its values.

    Columns: task, model, draw, zero_shot and adapted (0..1, see `before_and_after`), value_order (-1..1, the VOC: mean
    rank correlation of value and time along 3 expert episodes, until success) and episode_order (-1..1, Kendall's tau
    of the mean value and the true return of the trajectories).

    Draws are independent: each has its own trajectories, pairs, adapters and random weights of the untrained network.
    All models see the same frames.
    """
    rows = []
    draws = list(itertools.product(plan.tasks, range(plan.draws)))
    for task, draw in tqdm(draws, desc="accuracy of labels", unit="draw"):
        recorded = record_task(task, plan.trajectories, _SEED + draw)
        films = expert_films(task, draw, _FILMS, tinyliv.FRAME_SIZE, plan.film_steps)
        for name in plan.models:
            model = tinyliv.random(draw) if name == UNTRAINED else load(name)
            embedded = embed(model, recorded)
            scores = (embedded.features @ embedded.text).mean(1)
            orders = np.mean(value_orders(model, films)), episode_order(scores, embedded.rewards.sum(1))
            rows.append((task, name, draw, *before_and_after(embedded, plan.stride, labels, draw), *orders))
    return pd.DataFrame(rows, columns=list(ACCURACY_COLUMNS))


_LEAST = {"zero_shot": 0.0, "adapted": 0.0, "gain": -1.0, "value_order": -1.0, "episode_order": -1.0}


def accuracy_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Means over draws and 95 % intervals, one row per model and task, and one for "all tasks" if there are several.

    Columns: model, task, draws (per task), and for each of zero_shot, adapted, gain (adapted - zero_shot of a draw),
    value_order and episode_order the mean, `_low` and `_high`. The interval is `stats.student_interval`, clipped to the
    possible range. "all tasks" is the mean of the tasks' means, whose draws are independent. Raises `PrefVLMError` for
    fewer than 2 draws of a task.
    """
    values = accuracies.assign(gain=accuracies["adapted"] - accuracies["zero_shot"])
    rows = []
    for model, of_model in values.groupby("model", sort=False):
        tasks = list(of_model["task"].unique())
        for name, included in [*((task, [task]) for task in tasks), *([(ALL_TASKS, tasks)] if len(tasks) > 1 else [])]:
            draws = of_model[of_model["task"].isin(included)].groupby("task")
            if draws.size().min() < 2:
                raise PrefVLMError(f"There is 1 draw of {name}; an interval needs at least 2.")
            row: dict[str, object] = {"model": model, "task": name, "draws": draws.size().min()}
            for column, least in _LEAST.items():
                mean, low, high = student_interval([values for _, values in draws[column]])
                row |= {column: mean, f"{column}_low": max(low, least), f"{column}_high": min(high, 1.0)}
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
        certain = "" if row["gain_low"] > 0 or row["gain_high"] < 0 else ", which may be chance"
        lines.append(
            f"- **{row['model']}**, {row['task']}: {interval(row, 'zero_shot')} % of its labels are right zero-shot "
            f"and {interval(row, 'adapted')} % after {labels} human labels: {points(row, 'gain')} points{certain}."
        )
    return "\n".join(lines)


def orders_by_task(table: pd.DataFrame) -> pd.DataFrame:
    """The orders of an `accuracy_table`: one row per task, with 95 % intervals; cells are empty where they were not
    measured."""
    columns = {}
    for model, rows in table.groupby("model", sort=False):
        for name, title in (("value_order", "VOC"), ("episode_order", "Kendall's τ")):
            cells = [
                "" if np.isnan(mean) else f"{mean:z.2f} ({low:z.2f} to {high:z.2f})"
                for mean, low, high in rows[[name, f"{name}_low", f"{name}_high"]].to_numpy()
            ]
            columns[f"{title}, {model}"] = pd.Series(cells, index=rows["task"])
    return pd.DataFrame(columns)


def orders_in_words(table: pd.DataFrame) -> str:
    """Markdown that states the orders of the last row of each model in an `accuracy_table`, or that there are none."""
    if table["value_order"].isna().all():
        return "- The order of values was not measured when this check was stored; `train = True` measures it."
    return "\n".join(
        f"- **{row['model']}**, {row['task']}: values follow time along an expert's episode with ρ = "
        f"{row['value_order']:z.2f}, and rank episodes of mixed quality with τ = {row['episode_order']:z.2f}."
        for row in table.groupby("model", sort=False).tail(1).to_dict("records")
    )


def draw_pairs(
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


def dynamics(embedded: EmbeddedTask, stride: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Embeddings (m, D) of frames, (m, D) of those `stride` steps later, and (m, A) the mean actions between them."""
    skip = stride // FRAME_EVERY
    frames = embedded.explored[:, skip - 1 :: skip]
    actions = embedded.actions.reshape(len(embedded.actions), -1, stride, embedded.actions.shape[-1]).mean(2)[:, 1:]
    return np.concatenate(frames[:, :-1]), np.concatenate(frames[:, 1:]), np.concatenate(actions)
