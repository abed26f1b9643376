"""How good a vision-language model is as a labeler, on recorded episodes: its labels, its values and its confidence.

Nothing here knows which model it judges: it takes what `VisionLanguageModel` gives for each frame. A *segment return*
is 50 times the mean cosine of the segment's frames and the task, whatever the stride (PrefVLM §4.1, as in
`vlm.adapters`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats

from prefvlm_core.analysis.beds import REPLAY, Bed, Films
from prefvlm_core.common.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from prefvlm_core.common.machine import one_thread
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.vlm import VisionLanguageModel
from prefvlm_core.vlm.adaptation import RETURN_SCALE
from prefvlm_core.vlm.frame_pairs import FramePairs
from prefvlm_core.vlm.labeller import fresh_adapters

LABELS = (10, 50, 250)
"""How many labels of an oracle the readers learn from."""
STATE = "state"
"""The name of the probe that sees the state instead of frames, a reference."""
ALL, LATE, NEAR_GOAL, LARGE_GAP = KINDS = ("all", "late", "near_goal", "large_gap")
"""Kinds of pairs: any; both segments in the last third of a run's episodes; both in the top quarter of true return;
the half of all that differ most in true return."""

_PAIRS = 4000  # of each kind, at most
_RIDGE = 0.1  # penalty, in units of the mean squared length of a difference; chosen on the replays of CHOOSING_SEED
_BINS = 10


# ---- measures


def accuracy(returns: DoubleArray, truth: DoubleArray) -> float:
    """Fraction of pairs that are ordered as by the true returns, from returns (n, 2) and true returns (n, 2).

    Pairs of equal returns count half; those of equal true returns must have been left out. Nan without a pair.
    """
    return float(1 - _errors(returns, truth).mean()) if len(truth) else np.nan


def error_correlation(returns: DoubleArray, others: DoubleArray, truth: DoubleArray) -> float:
    """Pearson correlation of the errors that two labelers make on the same pairs: 0 where one tells nothing about the
    other, 1 where they err together. Arguments as in `accuracy`; nan where one labeler is always right or wrong."""
    errors = np.stack([_errors(returns, truth), _errors(others, truth)])
    return float(np.asarray(np.corrcoef(errors))[0, 1]) if len(truth) and errors.std(axis=1).all() else np.nan


def value_order(values: FloatArray) -> float:
    """Spearman's rank correlation of values (F,) along a film and time: the VOC of GVL (Ma et al. 2024, §4.2).

    1 for values that only rise; 0 for values that are all equal.
    """
    return float(scipy.stats.spearmanr(values, np.arange(len(values))).statistic) if np.ptp(values) else 0.0


def episode_order(scores: FloatArray, qualities: DoubleArray) -> float:
    """Kendall's tau-b of a model's scores of episodes (N,) and their true qualities (N,); 0 if either are all equal."""
    return float(scipy.stats.kendalltau(scores, qualities).statistic) if np.ptp(scores) and np.ptp(qualities) else 0.0


def calibration_error(differences: DoubleArray, second_better: BoolArray) -> float:
    """Expected calibration error (0..1) of P(second preferred) = sigmoid(R2 - R1), for differences of returns (n,).

    The confidence in the preferred segment, 1/2 to 1, is compared with how often that segment is the better one by the
    true returns, in 10 bins of equal width, weighted by their pairs (Guo et al. 2017, §2).
    """
    confidence = scipy.special.expit(np.abs(differences))
    right = (differences > 0) == second_better
    bins = np.minimum((confidence - 0.5) * 2 * _BINS, _BINS - 1).astype(int)
    gaps = np.bincount(bins, right, _BINS) - np.bincount(bins, confidence, _BINS)
    return float(np.abs(gaps).sum() / len(differences))


def best_scale(differences: DoubleArray, second_better: BoolArray) -> float:
    """The factor c ≥ 0.001 with which sigmoid(c (R2 - R1)) makes labels most likely; arguments as above."""
    signed = np.where(second_better, differences, -differences)
    loss = lambda log: -scipy.special.log_expit(np.exp(log) * signed).mean()  # noqa: E731
    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded").x))


def _errors(returns: DoubleArray, truth: DoubleArray) -> DoubleArray:
    """0 right, 1 wrong, 1/2 undecided, (n,)."""
    agreement = np.sign((returns[:, 1] - returns[:, 0]) * (truth[:, 1] - truth[:, 0]))
    return np.asarray((1 - agreement) / 2)


# ---- what a model is asked on a bed


class Questions(NamedTuple):
    """Pairs of segments on which a labeler is judged; segments are numbered episode by episode."""

    truth: DoubleArray
    """True returns (M,) of the segments."""
    pairs: Mapping[str, IntArray]
    """Kind of `KINDS` -> pairs (n, 2); there are no late ones in a bed that is no replay."""


class Exam(NamedTuple):
    """A bed, the pairs that a labeler may learn from and those it is judged on, the same for every model."""

    bed: Bed
    held_out: BoolArray
    """(N,): every third episode; what learns is judged on pairs of these and learns from pairs of the others."""
    lessons: IntArray
    """(250, 2): pairs of segments, numbered within the episodes that are learned from, that an oracle labels."""
    answers: FloatArray
    """(250,): P(second preferred), 0 or 1."""
    of_held_out: Questions
    of_all: Questions
    """For what does not learn: near the goal are few episodes, and a third of them say little."""


def set_exam(bed: Bed) -> Exam:
    """Draw the pairs of a bed, always the same."""
    generator = np.random.default_rng(0)
    number = np.arange(len(bed.rewards))
    held_out = number % 3 == 2
    learned = _segment_sums(bed.rewards[~held_out], bed.segment)
    lessons = pairs_among(learned, np.arange(len(learned)), max(LABELS), generator)
    answers = (np.diff(learned[lessons], axis=1)[:, 0] > 0).astype(np.float32)
    asked = (_ask(bed, number[chosen], generator) for chosen in (held_out, np.full_like(held_out, True)))
    return Exam(bed, held_out, lessons, answers, *asked)


def _ask(bed: Bed, episodes: IntArray, generator: np.random.Generator) -> Questions:
    """Pairs of segments of some episodes."""
    truth = _segment_sums(bed.rewards[episodes], bed.segment)
    of_segment = episodes.repeat(len(truth) // len(episodes))
    among = {ALL: np.full(len(truth), True)}
    if bed.kind == REPLAY:
        among[LATE] = of_segment >= len(bed.rewards) * 2 / 3
    among[NEAR_GOAL] = truth >= np.quantile(truth, 0.75)
    pairs = {kind: pairs_among(truth, np.flatnonzero(chosen), _PAIRS, generator) for kind, chosen in among.items()}
    gaps = np.abs(np.diff(truth[pairs[ALL]], axis=1)[:, 0])
    return Questions(truth, pairs | {LARGE_GAP: pairs[ALL][gaps >= np.median(gaps)]})


def segments(values: FloatArray, length: int) -> FloatArray:
    """Every segment (M, length, X) of `length` frames in episodes of values (N, F, X), episode by episode."""
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=1)  # (N, W, X, length)
    return np.asarray(windows.swapaxes(2, 3).reshape(-1, length, values.shape[2]))


def _segment_sums(rewards: DoubleArray, length: int) -> DoubleArray:
    """True returns (M,) of every segment, from the rewards of frames (N, F)."""
    return np.lib.stride_tricks.sliding_window_view(rewards, length, axis=1).sum(2).ravel()


def pairs_among(returns: DoubleArray, among: IntArray, count: int, generator: np.random.Generator) -> IntArray:
    """At most `count` random pairs (n, 2) of segments `among` those with returns (M,), without pairs of equal ones."""
    pairs = generator.choice(among, (2 * count, 2))
    return pairs[returns[pairs[:, 0]] != returns[pairs[:, 1]]][:count]


# ---- how it answers


@one_thread()
def judge(model: VisionLanguageModel, exam: Exam, config: AdapterConfig | None = None) -> list[dict[str, object]]:
    """One row per reader of the model's embeddings and number of labels.

    Readers are `zero-shot` (the cosine with the task), `ridge` (a linear probe that sees no task) and, on replays,
    `adapters` (the package's, which fall back to the frozen model where they are rejected; on mixed episodes the sanity
    check judges them). Columns: reader, labels, one per kind of
    `KINDS` (0..1, the fraction of labels that are right, of zero-shot on all episodes, of what learned on those held
    out; nan without a pair), error_correlation (with the state probe
    that learned from as many labels, 50 for zero-shot, over all pairs; nan in beds without states), calibration_error
    (of returns as they are), and for zero-shot alone scaled_calibration_error (with the one scale that suits the 50
    labels best) and episode_order (over all N episodes, by their mean cosine and true return).
    """
    bed, text = exam.bed, model.encode_task(exam.bed.task)
    features = model.encode_image(bed.frames.reshape(-1, *bed.frames.shape[2:])).reshape(*bed.frames.shape[:2], -1)
    of_states = state_returns(exam)
    rows = [_zero_shot(exam, features, text, of_states.get(LABELS[1]))]
    learned, asked = (segments(features[chosen], bed.segment) for chosen in (~exam.held_out, exam.held_out))
    for labels in LABELS:
        rows.append(_marks(exam, "ridge", labels, ridge_returns(exam, learned, asked, labels), of_states.get(labels)))
        if bed.kind == REPLAY:
            adapted = _adapted_returns(exam, text, features, labels, config or AdapterConfig())
            rows.append(_marks(exam, "adapters", labels, adapted, of_states.get(labels)))
    return rows


@one_thread()
def value_orders(model: VisionLanguageModel, films: Films) -> list[float]:
    """`value_order` of the cosines along each film in which the expert succeeds, from its start to the success."""
    text, orders = model.encode_task(films.task), []
    for frames, successes in zip(films.frames, films.successes, strict=True):
        if successes.any():
            orders.append(value_order(model.encode_image(frames[: successes.argmax() + 1]) @ text))
    return orders


def judge_states(exam: Exam) -> list[dict[str, object]]:
    """The rows of the state probe, with the columns of `judge`; none in beds without states."""
    return [_marks(exam, "ridge", labels, returns, None) for labels, returns in state_returns(exam).items()]


def state_returns(exam: Exam) -> dict[int, DoubleArray]:
    """Number of labels -> returns (M,) of a linear probe of the states; none in beds without states."""
    states, length = exam.bed.states, exam.bed.segment
    if states is None:
        return {}
    learned, asked = (segments(states[chosen], length) for chosen in (~exam.held_out, exam.held_out))
    return {labels: ridge_returns(exam, learned, asked, labels) for labels in LABELS}


def ridge_returns(exam: Exam, learned: FloatArray, held_out: FloatArray, labels: int) -> DoubleArray:
    """Returns (M,) of held-out segments (M, L, X) that a linear reward gives them, learned by ridge regression from the
    first lessons on segments (K, L, X): the label, -1 or 1, from the difference of the means of the frames."""
    inputs, asked = learned.mean(1, dtype=np.float64), held_out.mean(1, dtype=np.float64)
    scale = inputs.std(0)
    inputs, asked = (each / np.where(scale > 1e-6, scale, np.inf) for each in (inputs, asked))
    differences = np.diff(inputs[exam.lessons[:labels]], axis=1)[:, 0]
    products = differences @ differences.T
    penalty = _RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    weights = differences.T @ scipy.linalg.solve(products + penalty, 2.0 * exam.answers[:labels] - 1, assume_a="pos")
    return np.asarray(asked @ weights)


def _adapted_returns(
    exam: Exam, text: FloatArray, features: FloatArray, labels: int, config: AdapterConfig
) -> DoubleArray:
    """Returns (M,) of the held-out segments by adapters that learned from the first lessons."""
    generator, bed = np.random.default_rng(labels), exam.bed
    adapters = fresh_adapters(config, len(text), exam.bed.actions.shape[-1], generator)
    films, actions = features[~exam.held_out], bed.actions[~exam.held_out]
    before, after = (films[:, part].reshape(-1, films.shape[-1]) for part in (np.s_[:-1], np.s_[1:]))
    dynamics = before, after, actions[:, 1:].reshape(-1, actions.shape[-1])
    pairs = segments(films, bed.segment)[exam.lessons[:labels]]
    adapters.learn(text, FramePairs.of(pairs), exam.answers[:labels], dynamics, generator)
    asked = segments(features[exam.held_out], bed.segment)
    return adapters.returns(text, np.repeat(asked[:, None], 2, axis=1))[:, 0].astype(np.float64)


def _zero_shot(exam: Exam, features: FloatArray, text: FloatArray, of_states: DoubleArray | None) -> dict[str, object]:
    """The row of the cosine as it is, whose accuracies are those of all episodes."""
    length, taught, cosines = exam.bed.segment, LABELS[1], (features @ text)[..., None]
    learned, asked, everything = (
        RETURN_SCALE * segments(cosines[chosen], length).mean((1, 2))
        for chosen in (~exam.held_out, exam.held_out, np.full_like(exam.held_out, True))
    )
    differences = np.diff(learned[exam.lessons[:taught]], axis=1)[:, 0]
    scale = best_scale(differences, exam.answers[:taught] > 0.5)
    row = _marks(exam, "zero-shot", 0, asked, of_states, scale)
    score = episode_order(cosines.mean((1, 2)), exam.bed.rewards.sum(1))
    return row | _accuracies(exam.of_all, everything) | {"episode_order": score}


def _accuracies(questions: Questions, returns: DoubleArray) -> dict[str, float]:
    """Kind of pairs -> accuracy of returns (M,)."""
    pairs = {kind: questions.pairs.get(kind, np.empty((0, 2), np.int64)) for kind in KINDS}
    return {kind: accuracy(returns[chosen], questions.truth[chosen]) for kind, chosen in pairs.items()}


def _marks(
    exam: Exam, reader: str, labels: int, returns: DoubleArray, of_states: DoubleArray | None, scale: float = np.nan
) -> dict[str, object]:
    """The row of one reader from its returns (M,) of the held-out segments."""
    pairs = exam.of_held_out.pairs[ALL]
    asked, truth = returns[pairs], exam.of_held_out.truth[pairs]
    differences, better = np.diff(asked, axis=1)[:, 0], np.diff(truth, axis=1)[:, 0] > 0
    correlation = np.nan if of_states is None else error_correlation(asked, of_states[pairs], truth)
    return {
        "reader": reader,
        "labels": labels,
        **_accuracies(exam.of_held_out, returns),
        "error_correlation": correlation,
        "calibration_error": np.nan if reader == "ridge" else calibration_error(differences, better),
        "scaled_calibration_error": calibration_error(scale * differences, better) if scale > 0 else np.nan,
    }
