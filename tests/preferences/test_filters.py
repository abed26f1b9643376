"""Tests of the KL filters: thresholds worked out by hand, disjoint partitions, and calibration on known answers."""

import json
import math

import numpy as np
import pytest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import FilterConfig
from prefvlm_core.preferences.filters import FILTERS, AdaptiveThresholds, Audited, KeepAll, RIMEThresholds, divergence


def test_divergence_is_the_kl_of_the_label() -> None:
    labels, probabilities = np.array([1, 0, 0.5, 0.5]), np.array([0.8, 0.8, 0.5, 0.8])
    expected = [-math.log(0.8), -math.log(0.2), 0.0, 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)]
    assert divergence(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_divergence_is_finite_where_the_reward_model_is_certain() -> None:
    values = divergence(np.array([1, 0, 1, 0]), np.array([0, 1, 1, 0], np.float32))
    assert values == pytest.approx([-math.log(1e-6)] * 2 + [1e-6] * 2, rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0.3], [0.5], "labels 0, 1/2 and 1"),
        ([1], [math.nan], "between 0 and 1"),
        ([1], [1.2], "between 0 and 1"),
        ([1, 0], [0.5], "as many probabilities"),
    ],
)
def test_divergence_refuses_wrong_input(labels: list[float], probabilities: list[float], message: str) -> None:
    with pytest.raises(PrefVLMError, match=message):
        divergence(labels, probabilities)


def test_rime_thresholds_over_three_sessions() -> None:
    kl = RIMEThresholds(FilterConfig(beta_sessions=4))
    values = np.array([0.0, 0.1, 5.0, 12.0])
    assert kl.split(values).uncertain.all() and (kl.lower, kl.upper) == (0, math.inf)

    # rho is 0.2, the deviation of (0.1, 0.2) is 0.05, beta is 3 - 2/4 = 2.5: 1.609438 + 0.1 + 0.125
    kl.observe(np.array([0.1, 0.2]))
    assert kl.lower == pytest.approx(1.834438, abs=1e-6)
    assert kl.upper == pytest.approx(6.907755, abs=1e-6)
    split = kl.split(values)
    assert split.clean.tolist() == [True, True, False, False]
    assert split.flipped.tolist() == [False, False, False, True]
    assert split.uncertain.tolist() == [False, False, True, False]

    # rho is 0.2 + 0.1 (0.6 - 0.2) = 0.24, the deviation of (0.1, 0.2, 0.6) is sqrt(0.14 / 3), beta is 2:
    # 1.427116 + 0.12 + 2 * 0.216025
    kl.observe(np.array([0.6]))
    assert kl.lower == pytest.approx(1.979166, abs=1e-6)

    # rho is 0.24 + 0.1 (0.1 - 0.24) = 0.226, the deviation is sqrt(0.42 / 4 - 0.25²), beta is 1.5:
    # 1.487220 + 0.113 + 1.5 * 0.206155
    kl.observe(np.array([0.1]))
    assert kl.lower == pytest.approx(1.909453, abs=1e-6)


def test_rime_beta_stops_at_its_minimum_and_a_session_without_trusted_labels_changes_nothing_else() -> None:
    kl = RIMEThresholds(FilterConfig(beta_sessions=2))
    kl.observe(np.array([0.1, 0.3]))
    for _ in range(5):
        kl.observe(np.empty(0))
    assert kl.lower == pytest.approx(-math.log(0.3) + 0.15 + 1.0 * 0.1)


@pytest.mark.parametrize("mode", ["rime", "adaptive", "none"])
def test_every_label_is_in_exactly_one_set(mode: str) -> None:
    generator = np.random.default_rng(7)
    for _ in range(40):
        kl = FILTERS[mode](FilterConfig(beta_max=20 * generator.random()))
        for _ in range(int(generator.integers(4))):
            kl.observe(generator.exponential(2, int(generator.integers(20))))
            kl.audit(generator.exponential(2, 8), generator.random(8) < generator.random())
        divergences = generator.exponential(5, int(generator.integers(30)))
        split = kl.split(divergences)
        assert (np.sum(split, axis=0) == 1).all() and all(mask.shape == divergences.shape for mask in split)
        assert (divergences[split.flipped] > kl.upper).all() and (divergences[split.clean] < kl.lower).all()


def test_rime_flips_where_its_thresholds_cross() -> None:
    kl = RIMEThresholds(FilterConfig(beta_max=9.0, beta_min=9.0))
    kl.observe(np.array([0.0, 4.0]))
    assert kl.lower > 15 > kl.upper
    split = kl.split(np.array([3.0, 8.0]))
    assert split.clean.tolist() == [True, False] and split.flipped.tolist() == [False, True]


def test_without_a_filter_everything_is_kept() -> None:
    assert KeepAll(FilterConfig()).split(np.linspace(0, 13.8, 50)).clean.all()


def audited(count: int, intercept: float, slope: float) -> AdaptiveThresholds:
    """A filter after `count` verdicts, with P(right) = sigmoid(intercept + slope * log-odds of the label)."""
    generator = np.random.default_rng(count)
    given = 1 / (1 + np.exp(-generator.normal(0, 3, count)))  # probability the reward model gives each label
    odds = np.log(given / (1 - given))
    right = generator.random(count) < 1 / (1 + np.exp(-intercept - slope * odds))
    kl = AdaptiveThresholds(FilterConfig())
    for part in np.array_split(np.arange(count), 4):
        kl.audit(-np.log(given[part]), right[part])
    return kl


def test_audited_doubts_labels_by_how_often_the_human_agrees() -> None:
    """Beta(1, 1) before the first answer; within .55 and .97, labels count for something and never for certain."""
    kl_filter = Audited(FilterConfig(mode="audited"))
    assert kl_filter.reliability == 0.55  # the mean of the prior is 1/2
    kl_filter.audit(np.zeros(8), np.array([True] * 6 + [False] * 2))
    assert kl_filter.reliability == pytest.approx(7 / 10)
    kl_filter.audit(np.zeros(100), np.arange(100) < 80)
    assert kl_filter.reliability == pytest.approx(87 / 110)
    kl_filter.audit(np.zeros(1000), np.ones(1000, bool))
    assert kl_filter.reliability == 0.97
    assert kl_filter.split(np.array([0.0, 5.0, 13.8])).clean.all()
    again = Audited(FilterConfig(mode="audited"))
    again.restore(json.loads(json.dumps(kl_filter.state())))
    assert (again.reliability, again.state()) == (0.97, {"audited": 1108, "right": 1086, "ensemble_right": 1086})


def test_audited_keeps_no_label_of_a_vlm_that_is_right_less_often_than_the_ensemble() -> None:
    """Of a label that the ensemble believes with a probability of .9, the divergence is -ln .9; the human decides."""
    believed, doubted = -math.log(0.9), -math.log(0.1)
    kl_filter = Audited(FilterConfig(mode="audited"))
    assert kl_filter.split(np.array([believed, doubted])).clean.all()  # nobody was right more often yet
    kl_filter.audit(np.array([doubted]), np.array([False]))  # the ensemble was right
    split = kl_filter.split(np.array([believed, doubted]))
    assert split.uncertain.all() and not (split.clean | split.flipped).any()
    kl_filter.audit(np.array([believed, doubted]), np.array([True, True]))  # both were right, then the VLM alone
    assert kl_filter.split(np.array([believed, doubted])).clean.all()


def test_adaptive_finds_the_divergences_at_which_labels_are_nine_to_one_right_or_wrong() -> None:
    kl = audited(4000, intercept=0.8, slope=1.2)
    for threshold, odds in ((kl.lower, math.log(9)), (kl.upper, -math.log(9))):
        assert threshold == pytest.approx(math.log1p(math.exp((0.8 - odds) / 1.2)), rel=0.1)
    split = kl.split(np.array([0.05, 0.7, 4.0]))
    assert np.array(split).T.tolist() == [[True, False, False], [False, False, True], [False, True, False]]


def test_adaptive_trusts_nothing_before_enough_labels_are_audited() -> None:
    kl = AdaptiveThresholds(FilterConfig())
    kl.audit(np.full(9, 0.01), np.full(9, True))
    assert (kl.lower, kl.upper) == (0, math.inf) and kl.split(np.array([0.0, 0.01, 13.0])).uncertain.all()
    kl.audit(np.array([0.01]), np.array([True]))
    assert kl.split(np.array([0.01])).clean.all()


@pytest.mark.parametrize(("accuracy", "lower", "upper"), [(0.99, math.inf, math.inf), (0.6, 0, math.inf), (0.01, 0, 0)])
def test_adaptive_with_an_undecided_reward_model(accuracy: float, lower: float, upper: float) -> None:
    """Every divergence is ln 2, so only the fraction of right labels counts."""
    kl = AdaptiveThresholds(FilterConfig())
    kl.audit(np.full(300, math.log(2)), np.arange(300) < 300 * accuracy)
    assert (kl.lower, kl.upper) == (lower, upper)


def test_adaptive_ignores_a_reward_model_that_is_right_less_often_the_surer_it_is() -> None:
    kl = audited(2000, intercept=0.5, slope=-1.0)
    assert (kl.lower, kl.upper) == (0, math.inf)


@pytest.mark.parametrize("mode", ["rime", "adaptive"])
def test_state_survives_json(mode: str) -> None:
    kl, again = (FILTERS[mode](FilterConfig()) for _ in range(2))
    again.restore(json.loads(json.dumps(kl.state())))
    assert (again.lower, again.upper) == (0, math.inf)
    generator = np.random.default_rng(3)
    for _ in range(3):
        kl.observe(generator.exponential(1, 10))
        divergences = generator.exponential(1, 10)
        kl.audit(divergences, divergences < 1)
    again.restore(json.loads(json.dumps(kl.state())))
    assert (again.lower, again.upper) == (kl.lower, kl.upper) != (0, math.inf)
    for one in (kl, again):
        one.observe(np.array([0.7]))
        one.audit(np.array([0.3]), np.array([True]))
    assert (again.lower, again.upper, again.state()) == (kl.lower, kl.upper, kl.state())


@pytest.mark.parametrize("wrong", [[math.nan], [-0.1], [math.inf], [[0.1]]])
def test_wrong_divergences_are_refused(wrong: list[float]) -> None:
    kl = RIMEThresholds(FilterConfig())
    for use in (lambda: kl.split(np.array(wrong)), lambda: kl.observe(np.array(wrong))):
        with pytest.raises(PrefVLMError, match="finite and 0 or above"):
            use()
    adaptive = AdaptiveThresholds(FilterConfig())
    with pytest.raises(PrefVLMError, match="finite and 0 or above"):
        adaptive.audit(np.array(wrong), np.array([True]))
    with pytest.raises(PrefVLMError, match="2 divergences, but 1"):
        adaptive.audit(np.array([0.1, 0.2]), np.array([True]))
