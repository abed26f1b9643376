"""The KL filter: which of the vision-language model's labels to keep, which to flip, and which to ask a human about.

PrefVLM (§4.2) splits labels by the Kullback–Leibler divergence between a label and the reward ensemble's opinion, as
RIME's denoiser does (Cheng et al. 2024), and leaves the middle of the range to the human.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from prefvlm_core.common.arrays import BoolArray, DoubleArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import FilterConfig

_SMALLEST_PROBABILITY = 1e-6  # keeps the divergence of a confident reward model finite: at most 13.8
_MAXIMUM_RATE = 0.1  # of the running estimate of the largest trusted divergence (RIME's code)
_PRIOR_VARIANCE = 4.0  # of intercept and slope: with ten labels, all right, the fitted P(right) is 0.93


class Partition(NamedTuple):
    """Three masks (n,), exactly one of them true for each label."""

    clean: BoolArray
    """Kept as it is."""
    flipped: BoolArray
    """Believed wrong: the opposite label is used."""
    uncertain: BoolArray
    """For the human, as far as the budget goes."""


def divergence(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> DoubleArray:
    """KL(label ‖ P) in nats of labels (n,), P(second preferred) 0, 1/2 or 1, under the reward ensemble's P (n,): (n,).

    P is the mean of the members' Bradley–Terry probabilities. For a decided label this is its cross-entropy, -ln P of
    the preferred segment; P is clipped to [1e-6, 1 - 1e-6]. Raises `PrefVLMError` for other labels and for values
    outside 0 to 1.
    """
    label, probability = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if label.ndim != 1 or label.shape != probability.shape:
        raise PrefVLMError(f"divergence needs labels (n,) and as many P, got {label.shape} and {probability.shape}.")
    if not np.isin(label, (0, 0.5, 1)).all():
        raise PrefVLMError("divergence takes labels 0, 1/2 and 1 only.")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise PrefVLMError("The reward ensemble's probabilities must lie between 0 and 1 and not be nan.")
    probability = np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    entropy = np.where(label == 0.5, math.log(2), 0.0)
    return np.maximum(-label * np.log(probability) - (1 - label) * np.log1p(-probability) - entropy, 0.0)


class Filter(Protocol):
    """Splits the labels of one run, and learns from session to session where to split them."""

    uses_trusted: bool
    """Whether `observe` wants to be called."""

    @property
    def lower(self) -> float:
        """Divergence (nats) below which labels are kept: 0 keeps none, infinity all."""
        ...

    @property
    def upper(self) -> float:
        """Divergence (nats) above which labels are flipped: infinity flips none."""
        ...

    def split(self, divergences: DoubleArray) -> Partition:
        """Partition labels by their divergences (n,), with the current thresholds."""
        ...

    def observe(self, trusted: DoubleArray) -> None:
        """Take in the divergences (n,) of the labels that reward learning trusts, once per session."""
        ...

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """Take in what the human said about labels of the VLM: their divergences (n,), and which were right (n,).

        The divergences must come from a reward ensemble that had not learned from the human's answers yet.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, ready for JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        ...


class KeepAll:
    """No filter: every label is kept. Base of the filters that have two thresholds."""

    uses_trusted = False

    def __init__(self, config: FilterConfig) -> None:
        self.config = config

    @property
    def lower(self) -> float:
        """See `Filter`."""
        return math.inf

    @property
    def upper(self) -> float:
        """See `Filter`."""
        return math.inf

    def split(self, divergences: DoubleArray) -> Partition:
        """Kept below `lower`, flipped above `upper`, uncertain between."""
        _check_divergences(divergences)
        flipped = divergences > self.upper
        clean = (divergences < self.lower) & ~flipped  # RIME's lower threshold can exceed the upper one
        return Partition(clean, flipped, ~clean & ~flipped)

    def observe(self, trusted: DoubleArray) -> None:
        """Nothing to learn."""

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """Nothing to learn."""

    def state(self) -> dict[str, Any]:
        """See `Filter`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Filter`."""


class RIMEThresholds(KeepAll):
    """RIME's thresholds: lower = -ln(rho) + alpha rho + beta_t s, upper fixed.

    rho is a running estimate of the largest trusted divergence; it starts at the first session's, where RIME's code
    starts at 0 and so trusts everything at first. s is the standard deviation of all trusted divergences, as in RIME's
    paper; its code takes their variance, and at most 3 for beta_t s. beta_t falls linearly from beta_max to beta_min.
    """

    uses_trusted = True

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self.sessions = 0
        """How often trusted divergences were observed."""
        self._trusted = np.zeros(3)
        """Number of trusted divergences so far, their sum, and the sum of their squares."""
        self._rho = 0.0

    @property
    def lower(self) -> float:
        """See `Filter`; nothing is kept before the first trusted label."""
        if not self._trusted[0]:
            return 0.0
        config = self.config
        fallen = (config.beta_max - config.beta_min) * self.sessions / config.beta_sessions
        beta = max(config.beta_min, config.beta_max - fallen)
        count, total, squares = self._trusted
        spread = math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
        rho = max(self._rho, _SMALLEST_PROBABILITY)
        return -math.log(rho) + config.alpha * rho + beta * spread

    @property
    def upper(self) -> float:
        """See `Filter`; nothing is flipped before the first trusted label."""
        return self.config.upper if self._trusted[0] else math.inf

    def observe(self, trusted: DoubleArray) -> None:
        """See `Filter`."""
        _check_divergences(trusted)
        self.sessions += 1
        if len(trusted):
            largest = float(np.max(trusted))
            self._rho = self._rho + _MAXIMUM_RATE * (largest - self._rho) if self._trusted[0] else largest
            self._trusted += [len(trusted), np.sum(trusted), np.sum(np.square(trusted))]

    def state(self) -> dict[str, Any]:
        """See `Filter`."""
        return {"sessions": self.sessions, "trusted": self._trusted.tolist(), "rho": self._rho}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Filter`."""
        self.sessions, self._rho = int(state["sessions"]), float(state["rho"])
        self._trusted = np.array(state["trusted"], np.float64)


class AdaptiveThresholds(KeepAll):
    """Our answer to a question that the paper leaves open: thresholds that nobody tunes per task.

    The human's labels also tell which of the VLM's were right. A logistic regression of "was right" on the log-odds
    that the reward ensemble gave the label calibrates both at once: its intercept is the log-odds of the VLM being
    right where the reward ensemble has no opinion, its slope how far the ensemble's confidence can be taken at its
    word. The slope is kept at 0 or above, so that the two probabilities of interest (`confidence` right, `confidence`
    wrong) are two thresholds of the divergence.
    """

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self._audited, self._right = np.empty(0), np.empty(0)
        self._intercept, self._slope = 0.0, 0.0

    @property
    def lower(self) -> float:
        """See `Filter`; nothing is kept before `adaptive_minimum` labels were audited."""
        return self._divergence_where(self.config.confidence) if self._enough_audited else 0.0

    @property
    def upper(self) -> float:
        """See `Filter`; nothing is flipped before `adaptive_minimum` labels were audited."""
        return self._divergence_where(1 - self.config.confidence) if self._enough_audited else math.inf

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """See `Filter`."""
        _check_divergences(divergences)
        if len(divergences) != len(right):
            raise PrefVLMError(f"audit got {len(divergences)} divergences, but {len(right)} verdicts.")
        self._audited = np.concatenate((self._audited, divergences))
        self._right = np.concatenate((self._right, right))
        self._calibrate()

    @property
    def _enough_audited(self) -> bool:
        return len(self._audited) >= self.config.adaptive_minimum

    def _calibrate(self) -> None:
        """Most probable intercept and slope under a weak Gaussian prior."""
        odds = _log_odds(self._audited)
        features = np.stack((np.ones_like(odds), odds), axis=1)

        def loss(weights: DoubleArray) -> tuple[float, DoubleArray]:
            predicted = features @ weights
            penalty = weights @ weights / 2 / _PRIOR_VARIANCE
            value = np.sum(np.logaddexp(0, predicted) - self._right * predicted) + penalty
            return float(value), (expit(predicted) - self._right) @ features + weights / _PRIOR_VARIANCE

        fit = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(None, None), (0, None)])
        self._intercept, self._slope = (float(value) for value in fit.x)

    def _divergence_where(self, probability: float) -> float:
        """Divergence at which the fitted probability of being right falls below `probability` (0 or inf: nowhere)."""
        surplus = self._intercept - float(logit(probability))
        if not self._slope:
            return math.inf if surplus >= 0 else 0.0
        return float(np.logaddexp(0, surplus / self._slope))

    def state(self) -> dict[str, Any]:
        """See `Filter`."""
        return {"audited": self._audited.tolist(), "right": self._right.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Filter`."""
        self._audited, self._right = (np.array(state[name], np.float64) for name in ("audited", "right"))
        self._calibrate()


FILTERS: Registry[Callable[[FilterConfig], Filter]] = Registry(
    "filter.mode", {"rime": RIMEThresholds, "adaptive": AdaptiveThresholds, "none": KeepAll}
)
"""`filter.mode` -> the filter, made from the run's `FilterConfig`."""


def _check_divergences(divergences: DoubleArray) -> None:
    if divergences.ndim != 1 or not (np.isfinite(divergences) & (divergences >= 0)).all():
        raise PrefVLMError("The filter takes divergences of shape (n,), all of them finite and 0 or above.")


def _log_odds(divergences: DoubleArray) -> DoubleArray:
    """ln P / (1 - P) of the probability P that the reward ensemble gives labels of these divergences -ln P."""
    return -np.log(np.expm1(np.maximum(divergences, _SMALLEST_PROBABILITY)))
