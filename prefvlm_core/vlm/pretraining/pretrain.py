"""Train TinyLIV from scratch and measure the accuracy of its labels: `prefvlm pretrain`.

The cosine of a frame and its task's text is to fall with the number of steps that a scripted expert needs from there to
success. Pairs of frames of a task are ranked by it with a Bradley–Terry loss, since PrefVLM only compares sums of
cosines, and frames near success are told apart by the texts of their tasks, as in LIV (Ma et al. 2023).
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
from prefvlm_core.common.machine import one_thread
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.fields import LARGEST_SEED, check_number
from prefvlm_core.domains.registry import MAZES
from prefvlm_core.domains.tasks import PAPER_TASKS, TASKS
from prefvlm_core.runs.files import write_probe
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.pretraining.demonstrations import Films, View, collect_films
from prefvlm_core.vlm.pretraining.recordings import (
    Recording,
    record_mixed_behaviors,
    segment_returns,
    segment_sums,
)
from prefvlm_core.vlm.texts import task_text
from prefvlm_core.vlm.tinyliv import TinyLIV, TinyLIVNetwork, random, word_indices, words_of

Variant = Literal["tinyliv2", "tinyliv2-heldout", "tinyliv2-indomain", "tinyliv2-maze"]


@dataclass(frozen=True)
class Recipe:
    """The data and hyperparameters with which a variant is trained."""

    tasks: tuple[str, ...]
    view: View
    judged: tuple[str, ...] = PAPER_TASKS
    """Tasks on which the accuracy of its labels is measured."""
    clean: int = 12
    """Expert episodes per task."""
    recoveries: int = 40
    """Expert episodes per task that begin with a disturbance."""
    looks: int = 1
    """Films of each episode, each from a camera and in a lab of its own if the view is "around"."""
    film_seed: int = 0
    """Draws the films, which all training seeds share."""
    steps: int = 4000
    batch: tuple[int, int] = (16, 8)
    """Tasks of a training step, and frames of each of them."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    tolerance: float = 5.0
    """Difference in steps to success at which the nearer frame is to be preferred with a probability of σ(1)."""
    near: int = 10
    """Steps to success below which a frame is told apart by the texts."""
    naming_weight: float = 0.3
    temperature: float = 0.1
    """Of the softmax over texts."""
    word_dropout: float = 0.1
    """Fraction of words replaced by the unknown word, so that its embedding is learned."""


RECIPES: dict[Variant, Recipe] = {
    "tinyliv2": Recipe(TASKS, "around", looks=2, steps=8000),
    "tinyliv2-heldout": Recipe(tuple(task for task in TASKS if task not in PAPER_TASKS), "evaluation"),
    "tinyliv2-indomain": Recipe(TASKS, "evaluation"),
    "tinyliv2-maze": Recipe(
        MAZES, "changed", judged=MAZES, clean=24, recoveries=80, steps=1200, batch=(len(MAZES), 12)
    ),
}

_FIRST_SCALE, _LARGEST_SCALE = 10.0, 50.0  # of cosines to logits
_LARGEST_SHIFT = 3  # pixels


def train(name: str, recipe: Recipe, films: Films, seed: int) -> TinyLIV:
    """Train a network from scratch on films of the recipe's tasks, for minutes on one thread.

    Equal seeds give equal weights on equal machines. Machines with bfloat16 arithmetic (AVX512-BF16) train in it, twice
    as fast, and so to other weights than those without.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):  # several threads sum gradients in varying order
        torch.manual_seed(seed)
        return _train(name, recipe, films, np.random.default_rng((seed, 1)))


def _train(name: str, recipe: Recipe, films: Films, generator: np.random.Generator) -> TinyLIV:
    texts = [task_text(task) for task in recipe.tasks]
    vocabulary = words_of(texts)
    words, starts = word_indices(texts, vocabulary)
    network = TinyLIVNetwork(len(vocabulary), folded=False)
    log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
    optimizer = torch.optim.AdamW(
        [*network.parameters(), log_scale], recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for _ in tqdm(range(recipe.steps), desc=f"training {name}", unit="update"):
        batch = _sample(films, recipe.batch, generator)
        dropped = torch.from_numpy(generator.random(len(words)) < recipe.word_dropout)
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            frames = network.encode_image(batch.frames.flatten(0, 1)).float()
            named = network.encode_text(words.masked_fill(dropped, 0), starts).float()
        frames = nn.functional.normalize(frames, dim=1).unflatten(0, recipe.batch)
        named = nn.functional.normalize(named, dim=1)
        scale = log_scale.exp().clamp(max=_LARGEST_SCALE)
        scores = (frames * named[batch.tasks, None]).sum(2)
        loss = ranking_loss(scale * scores, batch.remaining, recipe.tolerance)
        loss = loss + recipe.naming_weight * naming_loss(frames @ named.T / recipe.temperature, batch, recipe.near)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return TinyLIV(name, network.eval().fold(), vocabulary)


@dataclass(frozen=True)
class Batch:
    """N frames of each of B tasks."""

    frames: Tensor
    """(B, N, 64, 64, 3) float32 in [0, 255], augmented."""
    remaining: Tensor
    """(B, N) int64: the expert's steps to success."""
    tasks: Tensor
    """(B,) int64: which of the recipe's tasks they are, all different."""


def _sample(films: Films, size: tuple[int, int], generator: np.random.Generator) -> Batch:
    """Draw tasks without replacement, and frames of each: from all its films or, in half of the cases, from one."""
    task_count, film_count, length = films.remaining.shape
    tasks = generator.permutation(task_count)[: size[0]]
    film = generator.integers(0, film_count, size)
    one = generator.random(size[0]) < 0.5
    film[one] = film[one, :1]
    drawn = tasks[:, None], film, generator.integers(0, length, size)
    frames = augmented(films.frames[drawn].reshape(-1, *films.frames.shape[3:]), generator)
    remaining = torch.from_numpy(films.remaining[drawn])
    return Batch(torch.from_numpy(frames).unflatten(0, size), remaining, torch.from_numpy(tasks))


def augmented(frames: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.float32]:
    """Shift each frame (N, S, S, 3) by up to 3 pixels, repeating its edge, and change its colors and brightness."""
    count, size = frames.shape[:2]
    edge = ((0, 0), (_LARGEST_SHIFT, _LARGEST_SHIFT), (_LARGEST_SHIFT, _LARGEST_SHIFT), (0, 0))
    padded = np.pad(frames, edge, mode="edge")
    corners = generator.integers(0, 2 * _LARGEST_SHIFT + 1, (count, 2))
    cut = [frame[top : top + size, left : left + size] for frame, (top, left) in zip(padded, corners, strict=True)]
    shifted = np.stack(cut).astype(np.float32)
    gain = generator.uniform(0.75, 1.25, (count, 1, 1, 3)) * generator.uniform(0.8, 1.2, (count, 1, 1, 1))
    return np.clip(shifted * gain.astype(np.float32), 0, 255)


def ranking_loss(scores: Tensor, remaining: Tensor, tolerance: float) -> Tensor:
    """Cross entropy of all pairs of frames of a task, between the softened order in time and a Bradley–Terry model.

    Args:
        scores: Scaled cosines (B, N) of the frames of B tasks with their tasks' texts.
        remaining: Steps to success (B, N).
        tolerance: Of two frames whose steps differ by so many, the nearer one is the better with probability σ(1).
    """
    first, second = torch.triu_indices(remaining.shape[1], remaining.shape[1], 1)
    target = ((remaining[:, second] - remaining[:, first]) / tolerance).sigmoid()
    return nn.functional.binary_cross_entropy_with_logits(scores[:, first] - scores[:, second], target)


def naming_loss(logits: Tensor, batch: Batch, near: int) -> Tensor:
    """Cross entropy of the texts (B, N, K) of frames that have fewer than `near` steps left, 0 if there are none."""
    chosen = batch.remaining < near
    tasks = batch.tasks[:, None].expand_as(chosen)[chosen]
    return nn.functional.cross_entropy(logits[chosen], tasks, reduction="sum") / max(len(tasks), 1)


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
    models: dict[str, list[VisionLanguageModel]],
    tasks: Sequence[str],
    evaluation_seed: int,
    episodes: int = 100,
    pairs: int = 2000,
) -> str:
    """Markdown table of zero-shot accuracies in % with 95 % intervals; each variant has one model per training seed."""
    rows = {name: [f"| {name} |"] for name in models}
    means: dict[str, list[float]] = {name: [] for name in models}
    for task in tqdm(tasks, desc="accuracy", unit="task"):
        recording = record_mixed_behaviors(task, episodes, evaluation_seed)
        for name, trained in models.items():
            labels = [zero_shot_labels(model, recording, pairs, evaluation_seed) for model in trained]
            mean, low, high = accuracy_interval(labels, episodes, np.random.default_rng(evaluation_seed))
            means[name].append(mean)
            rows[name].append(f" {100 * mean:.0f} ({100 * low:.0f}–{100 * high:.0f}) |")
    head = "| variant | " + " | ".join(task.removesuffix("-v3") for task in tasks) + " | mean |"
    body = ["".join(row) + f" {100 * np.mean(means[name]):.1f} |" for name, row in rows.items()]
    return "\n".join([head, "|---" * (len(tasks) + 2) + "|", *body])


def pretrain(variant: Variant, seeds: Sequence[int], output: Path, evaluation_seed: int) -> str:
    """Train a variant of TinyLIV once per seed, and compare its zero-shot accuracies with those of untrained networks.

    Args:
        variant: One of `RECIPES`.
        seeds: Training seeds; the weights of each are saved as `output/seed<n>/<variant>.safetensors`. A seed whose
            weights are already there is not trained again.
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
    paths = {seed: output / f"seed{seed}" / f"{variant}.safetensors" for seed in seeds}
    if missing := {seed: path for seed, path in paths.items() if not path.exists()}:
        _train_and_save(variant, missing)
    models: list[VisionLanguageModel] = [TinyLIV.load(path) for path in paths.values()]
    return accuracy_table(
        {"random": [random(seed) for seed in paths], variant: models}, RECIPES[variant].judged, evaluation_seed
    )


def _train_and_save(variant: Variant, paths: dict[int, Path]) -> None:
    """Train one network for each seed in `paths`, all on the same films."""
    recipe, start = RECIPES[variant], time.perf_counter()
    films = collect_films(recipe.tasks, recipe.view, recipe.clean, recipe.recoveries, recipe.looks, recipe.film_seed)
    print(f"{variant}, films: {(time.perf_counter() - start) / 60:.1f} min", flush=True)
    for seed, path in paths.items():
        start = time.perf_counter()
        train(variant, recipe, films, seed).save(path)
        print(f"{variant}, training seed {seed}: {(time.perf_counter() - start) / 60:.1f} min", flush=True)
