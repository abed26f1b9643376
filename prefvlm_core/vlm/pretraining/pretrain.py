"""Train TinyLIV from scratch and measure the accuracy of its labels: `prefvlm pretrain`.

The objective is LIV's (Ma et al. 2023): VIP's implicit time-contrastive loss with the last frame and with the text as
goals, and InfoNCE between last frames and texts. Deviations from LIV: a batch holds one demonstration of each task (so
that no text is its own negative), InfoNCE has a temperature, words are dropped at random, and the demonstrations are
those of scripted experts in a simulator instead of videos of kitchens.
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
from prefvlm_core.config.fields import LARGEST_SEED, check_number
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.runs.files import write_probe
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.pretraining.demonstrations import View, collect_demonstrations
from prefvlm_core.vlm.pretraining.recordings import (
    Recording,
    record_mixed_behaviors,
    segment_returns,
    segment_sums,
)
from prefvlm_core.vlm.texts import task_text
from prefvlm_core.vlm.tinyliv import TinyLIV, TinyLIVNetwork, random, word_indices, words_of

Variant = Literal["tinyliv", "tinyliv-heldout", "tinyliv-indomain"]


@dataclass(frozen=True)
class Recipe:
    """The data and hyperparameters with which a variant is trained."""

    tasks: tuple[str, ...]
    view: View
    demonstrations: int = 12
    """Expert episodes per task."""
    views_each: int = 2
    """Renderings of each episode, each with its own camera in the view "around"."""
    steps: int = 1000
    learning_rate: float = 1e-3
    discount: float = 0.95
    """γ; LIV uses 0.98 for videos of more frames."""
    negatives: int = 3
    """Transitions of other demonstrations per transition in the VIP loss."""
    temperature: float = 0.3
    """Temperature of InfoNCE; LIV has none."""
    word_dropout: float = 0.1
    """Fraction of words replaced by the unknown word, so that its embedding is learned."""


RECIPES: dict[Variant, Recipe] = {
    "tinyliv": Recipe(TASKS, "around"),
    "tinyliv-heldout": Recipe(tuple(task for task in TASKS if task not in PAPER_TASKS), "evaluation", views_each=1),
    "tinyliv-indomain": Recipe(TASKS, "evaluation", views_each=1),
}


def train(name: str, recipe: Recipe, seed: int) -> TinyLIV:
    """Train a network from scratch, for minutes on one thread. Equal seeds give equal weights on one machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads sum gradients in varying order
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            frames = collect_demonstrations(recipe.tasks, recipe.view, recipe.demonstrations, recipe.views_each, seed)
            return _train_on(name, recipe, frames, np.random.default_rng((seed, 1)))
    finally:
        torch.set_num_threads(threads)


def _train_on(name: str, recipe: Recipe, demonstrations: NDArray[np.uint8], generator: np.random.Generator) -> TinyLIV:
    texts = [task_text(task) for task in recipe.tasks]
    vocabulary = words_of(texts)
    network = TinyLIVNetwork(len(vocabulary), folded=False)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    words, starts = word_indices(texts, vocabulary)
    for _ in range(recipe.steps):
        frames = torch.from_numpy(_sample(demonstrations, generator))
        dropped = torch.from_numpy(generator.random(len(words)) < recipe.word_dropout)
        frames_embedded = nn.functional.normalize(network.encode_image(frames.flatten(0, 1)), dim=1)
        texts_embedded = nn.functional.normalize(network.encode_text(words.masked_fill(dropped, 0), starts), dim=1)
        loss = liv_loss(frames_embedded.unflatten(0, frames.shape[:2]), texts_embedded, recipe, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return TinyLIV(name, network.eval().fold(), vocabulary)


def _sample(demonstrations: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Frames of one demonstration per task: a random start, two successive frames not before it, and the last one.

    demonstrations: (K, D, T, 64, 64, 3), as `collect_demonstrations` returns them. Returns (4, K, 64, 64, 3).
    """
    tasks, count, length = demonstrations.shape[:3]
    chosen = demonstrations[np.arange(tasks), [generator.choice(count) for _ in range(tasks)]]
    first = generator.integers(0, length - 1, tasks)
    now = generator.integers(first, length - 1)
    return np.stack([chosen[np.arange(tasks), step] for step in (first, now, now + 1, np.full_like(now, length - 1))])


def liv_loss(frames: Tensor, texts: Tensor, recipe: Recipe, generator: np.random.Generator) -> Tensor:
    """LIV's loss of B demonstrations.

    Args:
        frames: Embeddings (4, B, D) of the first, current, next and last frame, of length 1.
        texts: Embeddings (B, D) of the tasks' texts, of length 1.
        recipe: Discount, number of negatives and temperature.
        generator: Draws the negatives.
    """
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
    """(1-γ) E[-V(o_0)] + log E[exp(1 - γ V(o_t+1) + V(o_t))] with V = cos/(1-γ), and the second term for the negatives.

    The negatives are transitions of other demonstrations. The 1 is minus the reward of -1 at each step before the goal.
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
    """A model's labels of P random pairs of segments of one task, compared with the true returns."""

    correct: NDArray[np.bool_]
    """(P,): whether the model prefers the segment of larger true return."""
    episodes: NDArray[np.int64]
    """(P, 2): index of the episode to which each segment belongs."""


def zero_shot_labels(model: VisionLanguageModel, recording: Recording, pairs: int, seed: int) -> ZeroShotLabels:
    """Label random pairs of 50-step segments by the sum of cosines between every 5th frame and the task's text.

    Pairs of equal true return are left out, so that P may be smaller than `pairs`.
    """
    generator = np.random.default_rng(seed)
    count, length = recording.frames.shape[:2]
    cosines = model.encode_image(recording.frames.reshape(-1, *recording.frames.shape[2:])) @ model.encode_task(
        recording.task
    )
    scores = segment_sums(cosines.reshape(count, length))
    returns = segment_returns(recording.rewards)
    chosen = generator.integers(0, count, (pairs, 2))
    starts = generator.integers(0, scores.shape[1], (pairs, 2))
    true, guess = (np.diff(values[chosen, starts], axis=1)[:, 0] for values in (returns, scores))
    decided = true != 0
    return ZeroShotLabels((guess > 0)[decided] == (true > 0)[decided], chosen[decided])


def accuracy_interval(
    labels: list[ZeroShotLabels], count: int, generator: np.random.Generator, resamples: int = 2000
) -> tuple[float, float, float]:
    """(mean, low, high): the mean accuracy, and its 95 % bootstrap interval over training seeds and episodes.

    `labels` holds one entry per training seed, each of the same pairs of `count` episodes. A resample weights a pair by
    the product of how often its two episodes are drawn, since pairs that share an episode are not independent.
    """
    correct = np.stack([entry.correct for entry in labels]).astype(float)
    first, second = labels[0].episodes.T
    drawn = generator.multinomial(count, np.full(count, 1 / count), resamples)
    weights = (drawn[:, first] * drawn[:, second]).astype(float)
    seeds = generator.integers(0, len(labels), (resamples, len(labels)))
    per_seed = weights @ correct.T / weights.sum(1, keepdims=True)
    means = np.take_along_axis(per_seed, seeds, axis=1).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(correct.mean()), float(low), float(high)


def accuracy_table(
    models: dict[str, list[VisionLanguageModel]], evaluation_seed: int, episodes: int = 100, pairs: int = 2000
) -> str:
    """Markdown table of zero-shot accuracies in % with 95 % intervals; each variant has one model per training seed."""
    rows = {name: [f"| {name} |"] for name in models}
    means: dict[str, list[float]] = {name: [] for name in models}
    for task in PAPER_TASKS:
        recording = record_mixed_behaviors(task, episodes, evaluation_seed)
        for name, trained in models.items():
            labels = [zero_shot_labels(model, recording, pairs, evaluation_seed) for model in trained]
            mean, low, high = accuracy_interval(labels, episodes, np.random.default_rng(evaluation_seed))
            means[name].append(mean)
            rows[name].append(f" {100 * mean:.0f} ({100 * low:.0f}–{100 * high:.0f}) |")
    head = "| variant | " + " | ".join(task.removesuffix("-v3") for task in PAPER_TASKS) + " | mean |"
    body = ["".join(row) + f" {100 * np.mean(means[name]):.1f} |" for name, row in rows.items()]
    return "\n".join([head, "|---" * (len(PAPER_TASKS) + 2) + "|", *body])


def pretrain(variant: Variant, seeds: Sequence[int], output: Path, evaluation_seed: int) -> str:
    """Train a variant of TinyLIV once per seed, and compare its zero-shot accuracies with those of untrained networks.

    Args:
        variant: One of `RECIPES`.
        seeds: Training seeds; the weights of the first are saved as `output/<variant>.safetensors`.
        output: The folder for the weights.
        evaluation_seed: Draws the episodes and pairs on which the networks are judged.

    Returns:
        The Markdown table of `accuracy_table`.

    Raises:
        PrefVLMError: Without a seed, for a negative one, or if nothing can be written to `output`.
    """
    if not seeds:
        raise PrefVLMError("pretrain needs at least one training seed, got none.")
    for seed in (*seeds, evaluation_seed):
        check_number("A seed", seed, most=LARGEST_SEED)
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
