"""Simulated VLMs: they know the true reward and err with a given probability. They show what the method does with a
better or a worse VLM, and with errors of one kind or another.

The errors of `simulated` are independent of each other and of what a segment looks like, and those of real models are
neither. The other kinds add an error to the true rank of each segment and order a pair by the two sums, so they never
contradict themselves. In `simulated-segments` the error of every segment is its own; in `simulated-features` it is a
smooth function of what is seen, so that similar segments are misjudged alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.stats import rankdata

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.common.arrays import DoubleArray, FloatArray, IntArray
from prefvlm_core.common.seeding import Stream, generator
from prefvlm_core.config.run import RunConfig

CALIBRATION_PAIRS = 20_000
"""Random pairs on which the weight of errors is set: the accuracy then has a standard error of 0.35 points or less."""
FREQUENCIES = 64
"""Number of cosines whose sum is the error of `simulated-features`."""
LENGTH_SCALE = 1.0
"""Distance over which the error of `simulated-features` changes, in multiples of a typical observation from the mean.
At 1, its errors correlate with those of the reward ensemble about as TinyLIV's do (tools/simulated_errors.py)."""
SMALLEST_SCALE = 0.05
"""Smallest standard deviation by which an observation's entry (meters, or part of a quaternion) is divided."""


class SimulatedModel(Protocol):
    """Judges pairs of one run."""

    def returns(self, starts: IntArray) -> FloatArray:
        """Returns (n, 2) that order pairs `starts` (n, 2).

        They depend on the pair, the run's seed and the replay so far, not on the other pairs.
        """


def simulated_returns(starts: IntArray, truth: DoubleArray, accuracy: float, seed: int) -> FloatArray:
    """Returns (n, 2) that order a pair as the true reward does with probability `accuracy`, else the other way round.

    True ties are ordered either way with equal probability. The order of a pair depends only on the pair and `seed`.

    Args:
        starts: First steps of the pairs' segments, (n, 2).
        truth: P(second preferred) by the true reward, 0, 1/2 or 1, (n,).
        accuracy: Probability of the true order.
        seed: Seed of the run.
    """
    drawn = [generator(seed, Stream.SIMULATED_VLM, *map(int, pair)).random(2) for pair in starts]
    right, coin = np.array(drawn).reshape(-1, 2).T
    second = np.where(truth == 0.5, coin < 0.5, (right < accuracy) == (truth == 1))
    return np.stack((np.zeros(len(starts)), np.where(second, 1, -1)), axis=1).astype(np.float32)


class PairErrors:
    """Misjudges each pair with the same probability, whatever it shows (see `simulated_returns`)."""

    def __init__(self, config: RunConfig, replay: RunReplay, accuracy: float) -> None:
        self.replay, self.accuracy = replay, accuracy
        self.seed, self.length = config.seed, config.feedback.segment_length

    def returns(self, starts: IntArray) -> FloatArray:
        """See `SimulatedModel`."""
        truth = self.replay.true_labels(starts, self.length)
        return simulated_returns(starts, truth, self.accuracy, self.seed)


class ScoredSegments(ABC):
    """Scores each segment by its rank among the true returns of all segments so far, and an error that never changes.

    The rank, rather than the return, spreads errors over near and distant pairs, and holds back the drift of the scale
    as the policy improves. The weight of the error is set anew whenever pairs are judged: on random pairs of recent
    episodes, which depend on nothing but the seed and the replay, the order is then right as often as it should be.
    """

    def __init__(self, config: RunConfig, replay: RunReplay, accuracy: float) -> None:
        self.config, self.replay, self.accuracy = config, replay, accuracy
        self.length = config.feedback.segment_length

    @abstractmethod
    def errors(self) -> DoubleArray:
        """Errors (episodes, starts) of all segments of complete episodes, by episode and first step in it."""

    def returns(self, starts: IntArray) -> FloatArray:
        """See `SimulatedModel`."""
        replay, feedback = self.replay, self.config.feedback
        rewards = replay.true_rewards[: replay.complete_episodes * replay.horizon].double().cpu().numpy()
        returns = self.segment_sums(rewards.reshape(-1, replay.horizon))
        truth, errors = rankdata(returns).reshape(returns.shape) / returns.size, self.errors()
        drawing = generator(self.config.seed, Stream.SIMULATED_VLM, 1)
        pairs = replay.draw_segments(drawing, CALIBRATION_PAIRS, self.length, feedback.recent_episodes)
        calibration = np.divmod(pairs, replay.horizon)
        angle = error_angle(truth[calibration], errors[calibration], self.accuracy)
        scores = np.cos(angle) * truth + np.sin(angle) * errors
        return scores[np.divmod(starts, replay.horizon)].astype(np.float32)

    def segment_sums(self, values: DoubleArray) -> DoubleArray:
        """Sums (episodes, starts) over all segments of values (episodes, horizon) of steps."""
        return np.lib.stride_tricks.sliding_window_view(values, self.length, axis=1).sum(-1)


class SegmentErrors(ScoredSegments):
    """The error of each segment is its own, whatever it shows: an independent normal variable."""

    def errors(self) -> DoubleArray:
        """See `ScoredSegments`. Later episodes do not change what is drawn for earlier ones."""
        drawing = generator(self.config.seed, Stream.SIMULATED_VLM)
        drawn = drawing.standard_normal((self.replay.complete_episodes, self.replay.horizon))
        return drawn[:, : self.replay.horizon - self.length + 1]


class FeatureErrors(ScoredSegments):
    """The error of a segment is the sum of a smooth random function of the observations after its actions.

    The function is drawn from a Gaussian process whose kernel is Gaussian, by random Fourier features (Rahimi and Recht
    2007). Observations are standardized by the mean and standard deviation over the run's exploration, so that the
    function stays the same for the whole run.
    """

    def __init__(self, config: RunConfig, replay: RunReplay, accuracy: float) -> None:
        super().__init__(config, replay, accuracy)
        drawing, size = generator(config.seed, Stream.SIMULATED_VLM), replay.observations.shape[-1]
        self.frequencies = drawing.standard_normal((size, FREQUENCIES)) / (LENGTH_SCALE * np.sqrt(size))
        self.phases = drawing.uniform(0, 2 * np.pi, FREQUENCIES)

    def errors(self) -> DoubleArray:
        """See `ScoredSegments`."""
        observations = self.replay.observations[: self.replay.complete_episodes].cpu().numpy()
        explored = observations[: self.config.first_session_step // self.replay.horizon].astype(np.float64)
        mean, deviation = explored.mean((0, 1)), np.maximum(explored.std((0, 1)), SMALLEST_SCALE)
        # One episode at a time: memory stays small, and rounding does not depend on how many there are.
        values = [
            np.cos((episode[1:] - mean) / deviation @ self.frequencies + self.phases).sum(-1)
            for episode in observations
        ]
        return self.segment_sums(np.stack(values))


def error_angle(truth: DoubleArray, errors: DoubleArray, accuracy: float) -> float:
    """The angle a (radians) at which cos(a) truth + sin(a) errors order a fraction `accuracy` of pairs as truth does.

    As the angle grows from 0 to pi, each pair passes once from right to wrong, so the wanted angle is a quantile of
    those at which they do. Pairs of equal truth are left out.

    Args:
        truth: What the pairs' segments are worth, (n, 2).
        errors: Errors about them, (n, 2), in any unit.
        accuracy: Fraction of pairs to be ordered rightly, 0..1.
    """
    gap, shift = (np.diff(values, axis=1)[:, 0] for values in (truth, errors))
    turns = np.arctan2(np.abs(gap), -np.sign(gap) * shift)[gap != 0]
    return float(np.quantile(np.append(turns, 0.0), 1 - accuracy))  # the 0 makes an accuracy of 1 exact


SIMULATED: dict[str, Callable[[RunConfig, RunReplay, float], SimulatedModel]] = {
    "simulated": PairErrors,
    "simulated-segments": SegmentErrors,
    "simulated-features": FeatureErrors,
}
"""Maps each of `config.groups.SIMULATED_VLMS` to what makes the model from a run's config, replay and accuracy."""
