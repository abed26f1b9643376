"""Train TinyLIV from nothing and measure how well it labels: `prefvlm pretrain`.

Trained with LIV's objective (Ma et al. 2023): VIP's implicit time-contrastive loss towards the last frame and towards
the text, and InfoNCE between last frames and texts. Differences from LIV: one film of each task per batch (so that no
text is its own negative), InfoNCE with a temperature, words dropped at random, and films of a simulator's scripted
experts where LIV has videos of kitchens.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.runs.directory import write_probe
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.pretraining.demonstrations import (
    FRAME_EVERY,
    Demonstrations,
    Trajectories,
    View,
    collect_demonstrations,
    mixed_trajectories,
)
from prefvlm_core.vlm.texts import TASK_TEXTS
from prefvlm_core.vlm.tinyliv import TinyLIV, TinyLIVNetwork, random, word_indices, words_of

Variant = Literal["tinyliv", "tinyliv-heldout", "tinyliv-indomain"]

_SEGMENT_FRAMES = 10  # segments of 50 steps, the paper's length


@dataclass(frozen=True)
class Recipe:
    """What a variant is trained on, and how."""

    tasks: tuple[str, ...]
    view: View
    demonstrations: int = 12
    """Expert episodes of each task."""
    views_each: int = 2
    """Films of each episode, each with its own camera in the view "around"."""
    steps: int = 1000
    learning_rate: float = 1e-3
    discount: float = 0.95
    """γ; LIV has 0.98 for videos of more frames."""
    negatives: int = 3
    """Shuffled transitions per transition in the VIP loss."""
    temperature: float = 0.3
    """Of InfoNCE; LIV has none."""
    word_dropout: float = 0.1
    """Share of words that are replaced by the unknown one, so that this one is learned."""


RECIPES: dict[Variant, Recipe] = {
    "tinyliv": Recipe(TASKS, "around"),
    "tinyliv-heldout": Recipe(tuple(task for task in TASKS if task not in PAPER_TASKS), "evaluation", views_each=1),
    "tinyliv-indomain": Recipe(TASKS, "evaluation", views_each=1),
}


def train(name: str, recipe: Recipe, seed: int) -> TinyLIV:
    """A network trained from nothing on one thread: equal seeds give equal weights on one machine. Minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads add up gradients in an order that varies
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            films = collect_demonstrations(recipe.tasks, recipe.view, recipe.demonstrations, recipe.views_each, seed)
            return _train_on(name, recipe, films, np.random.default_rng((seed, 1)))
    finally:
        torch.set_num_threads(threads)


def _train_on(name: str, recipe: Recipe, films: Demonstrations, generator: np.random.Generator) -> TinyLIV:
    texts = [TASK_TEXTS[task] for task in recipe.tasks]
    vocabulary = words_of(texts)
    network = TinyLIVNetwork(len(vocabulary), folded=False)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    words, starts = word_indices(texts, vocabulary)
    films_of_task = [np.flatnonzero(films.tasks == TASKS.index(task)) for task in recipe.tasks]
    for _ in range(recipe.steps):
        frames = torch.from_numpy(_sample(films, films_of_task, generator))
        dropped = torch.from_numpy(generator.random(len(words)) < recipe.word_dropout)
        frames_embedded = nn.functional.normalize(network.encode_image(frames.flatten(0, 1)), dim=1)
        texts_embedded = nn.functional.normalize(network.encode_text(words.masked_fill(dropped, 0), starts), dim=1)
        loss = liv_loss(frames_embedded.unflatten(0, frames.shape[:2]), texts_embedded, recipe, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return TinyLIV(name, network.eval().fold(), vocabulary)


def _sample(
    films: Demonstrations, films_of_task: list[NDArray[np.int64]], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """One film of each task, (4, tasks, 64, 64, 3): a first frame, two neighbours not before it, and the last frame."""
    film = np.array([generator.choice(choices) for choices in films_of_task])
    last = films.frames.shape[1] - 1
    first = generator.integers(0, last, len(film))
    now = generator.integers(first, last)
    return np.stack([films.frames[film, index] for index in (first, now, now + 1, np.full_like(now, last))])


def liv_loss(frames: Tensor, texts: Tensor, recipe: Recipe, generator: np.random.Generator) -> Tensor:
    """LIV's loss of B films. frames: (4, B, D) first, now, next and last frame; texts: (B, D); all of length 1."""
    first, now, following, last = frames
    shuffles = [torch.from_numpy(generator.permutation(len(last))) for _ in range(recipe.negatives)]
    vip = sum(_vip_loss(first, now, following, goal, shuffles, recipe.discount) for goal in (last, texts))
    logits = last @ texts.T / recipe.temperature
    target = torch.arange(len(last))
    contrast = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2
    return vip + contrast


def _vip_loss(
    first: Tensor, now: Tensor, following: Tensor, goal: Tensor, shuffles: list[Tensor], discount: float
) -> Tensor:
    """(1-γ) E[-V(o_0)] + log E[exp(1 - γ V(o_t+1) + V(o_t))], with V = cos/(1-γ), and the log again for other films.

    The 1 is minus the reward -1 of every step before the goal.
    """

    def value(frame: Tensor) -> Tensor:
        return (frame * goal).sum(1) / (1 - discount)

    def log_mean_exp(errors: Tensor) -> Tensor:
        return errors.logsumexp(0) - math.log(len(errors))

    loss = -(1 - discount) * value(first).mean() + log_mean_exp(1 - discount * value(following) + value(now))
    others = [1 - discount * value(following[shuffle]) + value(now[shuffle]) for shuffle in shuffles]
    return loss + log_mean_exp(torch.cat(others))


@dataclass(frozen=True)
class ZeroShotLabels:
    """A model's labels for P random pairs of segments of one task, against the true returns."""

    correct: NDArray[np.bool_]
    """(P,): the model prefers the segment of larger true return."""
    trajectories: NDArray[np.int64]
    """(P, 2): which trajectory each segment is from."""


def zero_shot_labels(
    model: VisionLanguageModel, task: str, trajectories: Trajectories, pairs: int, seed: int
) -> ZeroShotLabels:
    """Label `pairs` random pairs of 50-step segments by the sum of cosines between every 5th frame and the task's text.

    Pairs of equal true return are left out, so P may be smaller than `pairs`.
    """
    generator = np.random.default_rng(seed)
    count, length = trajectories.frames.shape[:2]
    cosines = (
        model.encode_image(trajectories.frames.reshape(-1, *trajectories.frames.shape[2:]))
        @ model.encode_text([TASK_TEXTS[task]]).T
    )
    scores = _window_sums(cosines.reshape(count, length))
    returns = _window_sums(trajectories.rewards.reshape(count, length, FRAME_EVERY).sum(2))
    chosen = generator.integers(0, count, (pairs, 2))
    starts = generator.integers(0, scores.shape[1], (pairs, 2))
    true, guess = (np.diff(values[chosen, starts], axis=1)[:, 0] for values in (returns, scores))
    decided = true != 0
    return ZeroShotLabels((guess > 0)[decided] == (true > 0)[decided], chosen[decided])


def _window_sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums over windows of 10 along axis 1: (N, L) to (N, L - 9)."""
    return np.lib.stride_tricks.sliding_window_view(values, _SEGMENT_FRAMES, axis=1).sum(2, dtype=np.float64)


def accuracy_interval(
    labels: list[ZeroShotLabels], count: int, generator: np.random.Generator, resamples: int = 2000
) -> tuple[float, float, float]:
    """(mean, low, high): mean accuracy, and its 95 % bootstrap interval over training seeds and trajectories.

    `labels` holds one entry per training seed, for the same `count` trajectories and pairs. A pair counts as often as
    its two trajectories are drawn together, since pairs that share a trajectory are not independent.
    """
    correct = np.stack([entry.correct for entry in labels]).astype(float)
    first, second = labels[0].trajectories.T
    drawn = generator.multinomial(count, np.full(count, 1 / count), resamples)
    weights = (drawn[:, first] * drawn[:, second]).astype(float)
    seeds = generator.integers(0, len(labels), (resamples, len(labels)))
    per_seed = weights @ correct.T / weights.sum(1, keepdims=True)
    means = np.take_along_axis(per_seed, seeds, axis=1).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(correct.mean()), float(low), float(high)


def accuracy_table(
    models: dict[str, list[VisionLanguageModel]], evaluation_seed: int, trajectories: int = 100, pairs: int = 2000
) -> str:
    """Markdown table of zero-shot accuracies in %, with 95 % intervals; a variant has one model per training seed."""
    rows = {name: [f"| {name} |"] for name in models}
    means: dict[str, list[float]] = {name: [] for name in models}
    for task in PAPER_TASKS:
        seen = mixed_trajectories(task, trajectories, evaluation_seed)
        for name, trained in models.items():
            labels = [zero_shot_labels(model, task, seen, pairs, evaluation_seed) for model in trained]
            mean, low, high = accuracy_interval(labels, trajectories, np.random.default_rng(evaluation_seed))
            means[name].append(mean)
            rows[name].append(f" {100 * mean:.0f} ({100 * low:.0f}–{100 * high:.0f}) |")
    head = "| variant | " + " | ".join(task.removesuffix("-v3") for task in PAPER_TASKS) + " | mean |"
    body = ["".join(row) + f" {100 * np.mean(means[name]):.1f} |" for name, row in rows.items()]
    return "\n".join([head, "|---" * (len(PAPER_TASKS) + 2) + "|", *body])


def pretrain(variant: Variant, seeds: Sequence[int], output: Path, evaluation_seed: int) -> str:
    """Train a variant of TinyLIV once per seed, keep the first seed's weights as `output/<variant>.safetensors`, and
    return its zero-shot accuracies beside those of untrained networks (`accuracy_table`).

    `evaluation_seed` draws the trajectories and pairs it is judged on. Raises `PrefVLMError` without a seed.
    """
    if not seeds:
        raise PrefVLMError("pretrain needs at least one training seed, got none.")
    write_probe(output)
    models: list[VisionLanguageModel] = []
    for seed in seeds:
        start = time.perf_counter()
        trained = train(variant, RECIPES[variant], seed)
        print(f"{variant}, training seed {seed}: {(time.perf_counter() - start) / 60:.1f} min", flush=True)
        if seed == seeds[0]:
            trained.save(output / f"{variant}.safetensors")
        models.append(trained)
    return accuracy_table({"random": [random(seed) for seed in seeds], variant: models}, evaluation_seed)
