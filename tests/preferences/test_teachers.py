"""Tests of B-Pref's six teachers against answers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from prefvlm_core.config.run import FeedbackConfig
from prefvlm_core.preferences.teachers import TEACHERS, ScriptedTeacher

# The returns are (3, 6), (6, 3), (4, 4), (1, 0) and (5.0, 5.4).
REWARDS = np.array(
    [
        [[1, 1, 1], [2, 2, 2]],
        [[2, 2, 2], [1, 1, 1]],
        [[4, 0, 0], [0, 0, 4]],
        [[1, 0, 0], [0, 0, 0]],
        [[5, 0, 0], [5.4, 0, 0]],
    ]
)


def answer(teacher: str, recent_return: float = 10.0, seed: int = 0, rewards=REWARDS, **changes):
    config = dataclasses.replace(FeedbackConfig(teacher=teacher), **changes)
    teacher = TEACHERS[config.teacher](config)
    assert isinstance(teacher, ScriptedTeacher)
    return teacher.label(rewards, recent_return, np.random.default_rng(seed))


def test_oracle_prefers_the_larger_return_and_answers_one_half_for_a_tie() -> None:
    labels, answered = answer("oracle")
    assert labels.tolist() == [1, 0, 0.5, 0, 1] and answered.all()


def test_skip_passes_where_neither_segment_is_good_enough() -> None:
    labels, answered = answer("skip", teacher_margin=0.4)
    assert answered.tolist() == [True, True, False, False, True]  # neither exceeds 4 = 0.4 * 10
    assert labels.tolist() == [1, 0, 0.5, 0, 1]


def test_equal_answers_one_half_within_the_margin() -> None:
    labels, answered = answer("equal", teacher_margin=0.1)
    assert labels.tolist() == [1, 0, 0.5, 0, 0.5] and answered.all()  # returns that differ by less than 1 = 0.1 * 10


def test_margin_is_applied_once() -> None:
    labels, *_ = answer("equal", recent_return=100.0, teacher_margin=0.1)
    assert labels.tolist() == [0.5] * 5


def test_myopic_weighs_the_end_of_a_segment_most() -> None:
    rewards = REWARDS.copy()
    rewards[2] = [[3.9, 0, 0], [0, 0, 3.8]]
    labels, *_ = answer("myopic", rewards=rewards, teacher_discount=0.5)
    assert labels.tolist() == [1, 0, 1, 0, 1]  # the third pair: 3.9 * 0.25 against 3.8 * 1


def test_noisy_follows_the_bradley_terry_probability() -> None:
    pairs = np.repeat(np.array([[[0.0], [np.log(3)]]]), 20_000, axis=0)
    assert answer("noisy", rewards=pairs)[0].mean() == pytest.approx(0.75, abs=0.01)
    assert answer("noisy", rewards=pairs, teacher_rationality=2.0)[0].mean() == pytest.approx(0.9, abs=0.01)


def test_noisy_is_rational_and_does_not_overflow_with_huge_returns() -> None:
    assert answer("noisy", rewards=np.array([[[0.0], [1e6]], [[1e6], [0.0]]]))[0].tolist() == [1, 0]


def test_mistake_flips_its_fraction_of_the_answers() -> None:
    pairs = np.repeat(np.array([[[0.0], [1.0]]]), 20_000, axis=0)
    assert answer("mistake", rewards=pairs, teacher_mistake=0.2)[0].mean() == pytest.approx(0.8, abs=0.01)


def test_the_answers_follow_from_the_generator() -> None:
    pairs = np.random.default_rng(5).normal(size=(50, 2, 4))
    first, second = (answer("noisy", rewards=pairs, seed=3)[0] for _ in range(2))
    assert (first == second).all() and (first != answer("noisy", rewards=pairs, seed=4)[0]).any()
