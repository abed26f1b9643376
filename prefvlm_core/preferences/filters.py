"""The KL filter: which labels of the vision-language model to keep, which to flip, and which to leave to the human.

PrefVLM (§4.2) splits labels by the Kullback–Leibler divergence of a label from the reward ensemble's prediction, as
RIME's denoiser does (Cheng et al. 2024), and leaves the middle of the range to the human.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from prefvlm_core.common.arrays import BoolArray, DoubleArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import FilterConfig

_SMALLEST_PROBABILITY = 1e-6  # keeps the divergence finite, at most 13.8, where the reward model is certain
_MAXIMUM_RATE = 0.1  # update rate of the running estimate of the largest trusted divergence (RIME's code)
_PRIOR_VARIANCE = 4.0  # of intercept and slope; after ten correct labels, the fitted P(correct) is 0.93


class Partition(NamedTuple):
    """The filter's decision about n labels: three masks (n,), exactly one of which is true for each label."""

    clean: BoolArray
    """Labels to keep as they are."""
    flipped: BoolArray
    """Labels believed to be wrong, whose opposite is used."""
    uncertain: BoolArray
    """Labels that are not used; the human may be asked about their pairs within the budget."""


def divergence(labels: ArrayLike, probabilities: ArrayLike) -> DoubleArray:
    """KL(label ‖ P) in nats, (n,), of labels from the reward ensemble's prediction P.

    For a label 0 or 1 this is the cross-entropy, -ln P of the preferred segment. P is clipped to [1e-6, 1 - 1e-6].

    Args:
        labels: P(second preferred), 0, 1/2 or 1, (n,).
        probabilities: P, the mean over the members of their Bradley–Terry P(second preferred), (n,).

    Raises `PrefVLMError` for other shapes, other labels, and probabilities that are nan or outside 0 to 1.
    """
    label, probability = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if label.ndim != 1 or label.shape != probability.shape:
        raise PrefVLMError(
            f"divergence needs labels (n,) and as many probabilities, got {label.shape} and {probability.shape}."
        )
    if not np.isin(label, (0, 0.5, 1)).all():
        raise PrefVLMError("divergence takes labels 0, 1/2 and 1 only.")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise PrefVLMError("The reward ensemble's probabilities must lie between 0 and 1 and must not be nan.")
    probability = np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    entropy = np.where(label == 0.5, math.log(2), 0.0)
    return np.maximum(-label * np.log(probability) - (1 - label) * np.log1p(-probability) - entropy, 0.0)


class Filter(Protocol):
    """Splits the labels of one run by their divergences, and adapts its thresholds from session to session."""

    uses_trusted: bool
    """Whether the filter learns from `observe`; if not, it need not be called."""

    @property
    def lower(self) -> float:
        """Divergence (nats) below which labels are kept; 0 keeps none and infinity keeps all."""
        ...

    @property
    def upper(self) -> float:
        """Divergence (nats) above which labels are flipped; infinity flips none."""
        ...

    @property
    def reliability(self) -> float | None:
        """Probability with which a label that is kept is right, if reward learning is to doubt it (see
        `bradley_terry_loss`); None if it takes labels at their word."""
        ...

    def split(self, divergences: DoubleArray) -> Partition:
        """Partition labels by their divergences (n,) with the current thresholds."""
        ...

    def observe(self, trusted: DoubleArray) -> None:
        """Learn from the divergences (n,) of the labels that reward learning trusts. Called once per session."""
        ...

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """Learn from labels of the VLM that the human has checked: their divergences (n,), and which were right (n,).

        The divergences must come from a reward ensemble that had not yet learned from the human's answers.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The filter's state for a checkpoint, in types that JSON holds."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        ...


class KeepAll:
    """No filtering: every label is kept. Also the base class of the filters with two thresholds."""

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

    @property
    def reliability(self) -> float | None:
        """See `Filter`."""
        return None

    def split(self, divergences: DoubleArray) -> Partition:
        """See `Filter`: kept below `lower`, flipped above `upper`, uncertain in between."""
        _check_divergences(divergences)
        flipped = divergences > self.upper
        clean = (divergences < self.lower) & ~flipped  # RIME's lower threshold can exceed the upper one
        return Partition(clean, flipped, ~clean & ~flipped)

    def observe(self, trusted: DoubleArray) -> None:
        """Do nothing."""

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """See `Filter`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Filter`."""


class Audited(KeepAll):
    """Keeps the VLM's labels as long as the human finds it right at least as often as the reward ensemble, and has
    reward learning doubt them by how often the human found them wrong: an addition to the paper, without a threshold.

    Who is right less often than the one it teaches has nothing to teach: then no label is kept. The reliability is the
    mean of a Beta distribution that was uniform before the first answer, limited so that labels always count for
    something and never for certain. It is unbiased if the human answers random pairs.
    """

    LIMITS = 0.55, 0.97

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self._audited, self._right, self._ensemble_right = 0, 0, 0

    @property
    def lower(self) -> float:
        """See `Filter`."""
        return math.inf if self._right >= self._ensemble_right else 0.0

    @property
    def reliability(self) -> float:
        """See `Filter`."""
        return float(np.clip((1 + self._right) / (2 + self._audited), *self.LIMITS))

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """See `Filter`. Below ln 2, the ensemble agrees with the VLM."""
        _check_divergences(divergences)
        self._audited += len(right)
        self._right += int(np.sum(right))
        self._ensemble_right += int(np.sum((divergences < math.log(2)) == right))

    def state(self) -> dict[str, Any]:
        """See `Filter`."""
        return {"audited": self._audited, "right": self._right, "ensemble_right": self._ensemble_right}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Filter`."""
        self._audited, self._right = int(state["audited"]), int(state["right"])
        self._ensemble_right = int(state["ensemble_right"])


class RIMEThresholds(KeepAll):
    """RIME's thresholds: a lower one of -ln(rho) + alpha rho + beta_t s, and a fixed upper one.

    rho is a running estimate of the largest trusted divergence. It starts at the largest one of the first session;
    RIME's code starts at 0 and therefore trusts everything at first. s is the standard deviation of all trusted
    divergences, as in RIME's paper; its code takes their variance and limits beta_t s to 3. beta_t falls linearly from
    beta_max to beta_min.
    """

    uses_trusted = True

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self.sessions = 0
        """Number of calls of `observe`."""
        self._trusted = np.zeros(3)
        """The number of trusted divergences so far, their sum, and the sum of their squares."""
        self._rho = 0.0

    @property
    def lower(self) -> float:
        """See `Filter`. Nothing is kept before the first trusted label."""
        if not self._trusted[0]:
            return 0.0
        config = self.config
        decay = (config.beta_max - config.beta_min) * self.sessions / config.beta_sessions
        beta = max(config.beta_min, config.beta_max - decay)
        count, total, squares = self._trusted
        deviation = math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
        rho = max(self._rho, _SMALLEST_PROBABILITY)
        return -math.log(rho) + config.alpha * rho + beta * deviation

    @property
    def upper(self) -> float:
        """See `Filter`. Nothing is flipped before the first trusted label."""
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
    """Thresholds learned from the human's labels, so that none is tuned per task: an addition to the paper.

    The human's labels show which of the VLM's labels were right. A logistic regression of this outcome on the log-odds
    that the reward ensemble gave the VLM's label calibrates both: the intercept is the log-odds of the VLM being right
    where the ensemble is undecided, and the slope is the weight that the ensemble's confidence deserves. The slope is
    at least 0, so the probabilities `confidence` of being right and of being wrong correspond to one threshold of the
    divergence each.
    """

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self._audited, self._right = np.empty(0), np.empty(0)
        self._intercept, self._slope = 0.0, 0.0

    @property
    def lower(self) -> float:
        """See `Filter`. Nothing is kept before `adaptive_minimum` labels have been checked."""
        return self._divergence_where(self.config.confidence) if self._enough_audited else 0.0

    @property
    def upper(self) -> float:
        """See `Filter`. Nothing is flipped before `adaptive_minimum` labels have been checked."""
        return self._divergence_where(1 - self.config.confidence) if self._enough_audited else math.inf

    def audit(self, divergences: DoubleArray, right: BoolArray) -> None:
        """See `Filter`."""
        _check_divergences(divergences)
        if len(divergences) != len(right):
            raise PrefVLMError(
                f"audit needs a verdict per divergence, got {len(divergences)} divergences, but {len(right)} verdicts."
            )
        self._audited = np.concatenate((self._audited, divergences))
        self._right = np.concatenate((self._right, right))
        self._calibrate()

    @property
    def _enough_audited(self) -> bool:
        return len(self._audited) >= self.config.adaptive_minimum

    def _calibrate(self) -> None:
        """Fit the most probable intercept and slope under a weak Gaussian prior."""
        from scipy.optimize import minimize  # scipy is slow to import, and names are also checked without it
        from scipy.special import expit

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
        """Divergence above which the fitted probability of being right is below `probability`.

        It is infinity where the probability is nowhere below, and 0 where it is everywhere.
        """
        from scipy.special import logit

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
    "filter.mode", {"rime": RIMEThresholds, "adaptive": AdaptiveThresholds, "audited": Audited, "none": KeepAll}
)
"""Maps `filter.mode` to what makes the filter from a run's `FilterConfig`."""


def _check_divergences(divergences: DoubleArray) -> None:
    if divergences.ndim != 1 or not (np.isfinite(divergences) & (divergences >= 0)).all():
        raise PrefVLMError("The filter takes divergences of shape (n,), all of them finite and 0 or above.")


def _log_odds(divergences: DoubleArray) -> DoubleArray:
    """ln(P / (1 - P)) for the probability P that the reward ensemble gave to labels, whose divergences are -ln P."""
    return -np.log(np.expm1(np.maximum(divergences, _SMALLEST_PROBABILITY)))
