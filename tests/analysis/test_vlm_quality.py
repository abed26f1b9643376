"""How good a model is as a labeler: each measure against a case that can be worked out by hand, and whole models whose
quality is known because they read the reward off the frame."""

import numpy as np
import pytest
from builders.backbones import SEGMENT, Reader, bed_of
from scipy.special import logit

from prefvlm_core.analysis import vlm_quality as quality
from prefvlm_core.analysis.beds import MIXED, Films
from prefvlm_core.analysis.vlm_quality import ALL, KINDS, LABELS, LARGE_GAP, LATE, NEAR_GOAL
from prefvlm_core.config.run import AdapterConfig

EPISODES, FRAMES = 30, 12
FEW_UPDATES = AdapterConfig(first_updates=1)


@pytest.fixture(scope="module")
def exam():
    return quality.set_exam(bed_of(np.random.default_rng(0).integers(0, 256, (EPISODES, FRAMES))))


# ---- measures


def test_accuracy_counts_pairs_in_the_right_order_and_undecided_ones_half():
    truth = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [5.0, 2.0]])
    returns = np.array([[0.1, 0.2], [0.1, 0.2], [3.0, 3.0], [9.0, -9.0]])  # right, wrong, undecided, right
    assert quality.accuracy(returns, truth) == pytest.approx(2.5 / 4)
    assert np.isnan(quality.accuracy(returns[:0], truth[:0]))


def test_errors_correlate_as_the_formula_of_pearson_says():
    truth, right, wrong = np.tile([0.0, 1.0], (4, 1)), [0.0, 1.0], [1.0, 0.0]
    first = np.array([wrong, wrong, right, right])
    assert quality.error_correlation(first, first, truth) == pytest.approx(1)
    assert quality.error_correlation(first, first[::-1], truth) == pytest.approx(-1)
    assert quality.error_correlation(first, np.array([wrong, right, wrong, right]), truth) == pytest.approx(0)
    # errors 1 1 0 0 and 1 0 0 0: covariance 1/8, standard deviations 1/2 and sqrt(3)/4
    other = np.array([wrong, right, right, right])
    assert quality.error_correlation(first, other, truth) == pytest.approx((1 / 8) / (0.5 * np.sqrt(3) / 4))
    assert np.isnan(quality.error_correlation(first, np.array([right] * 4), truth))


def test_values_that_rise_follow_time():
    assert quality.value_order(np.float32([-1, 0, 5, 6])) == pytest.approx(1)
    assert quality.value_order(np.float32([4, 3, 2, 1])) == pytest.approx(-1)
    assert quality.value_order(np.float32([2, 2, 2])) == 0
    # ranks 2 1 3 4 against 1 2 3 4: 1 - 6 * (1 + 1) / (4 * 15)
    assert quality.value_order(np.float32([2, 1, 3, 4])) == pytest.approx(0.8)


def test_episodes_are_ordered_as_kendall_counts_pairs():
    # of the 6 pairs of 1 2 3 4 and 1 3 2 4, 5 agree and 1 does not
    assert quality.episode_order(np.float32([1, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(4 / 6)
    assert quality.episode_order(np.float32([1, 1]), np.array([1.0, 3])) == 0


def test_calibration_error_is_the_gap_between_confidence_and_frequency():
    differences = np.repeat([logit(0.82), -logit(0.62)], [10, 30])
    truth = np.concatenate([np.arange(10) < 6, np.arange(30) < 9])  # right in 60 %, and in 70 % (the second is worse)
    expected = 10 / 40 * abs(0.6 - 0.82) + 30 / 40 * abs(0.7 - 0.62)
    assert quality.calibration_error(differences, truth) == pytest.approx(expected)
    assert quality.calibration_error(np.array([100.0, -100.0]), np.array([True, False])) == pytest.approx(0)


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_the_scale_of_labels_is_found_again(scale):
    generator = np.random.default_rng(0)
    differences = generator.normal(0, 1 / scale, 20_000)
    truth = generator.random(20_000) < 1 / (1 + np.exp(-scale * differences))
    assert quality.best_scale(differences, truth) == pytest.approx(scale, rel=0.05)
    assert quality.calibration_error(scale * differences, truth) < 0.02 < quality.calibration_error(differences, truth)


def test_segments_are_numbered_episode_by_episode():
    values = np.arange(10.0).reshape(2, 5, 1)
    assert quality.segments(values, 3)[..., 0].tolist() == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [5, 6, 7],
        [6, 7, 8],
        [7, 8, 9],
    ]


# ---- pairs


def test_kinds_of_pairs_are_what_their_names_say(exam):
    episodes = np.arange(EPISODES)
    for asked, numbers in ((exam.of_held_out, episodes[2::3]), (exam.of_all, episodes)):
        windows, rewards = FRAMES - SEGMENT + 1, exam.bed.rewards[numbers]
        truth = np.array([[episode[start : start + SEGMENT].sum() for start in range(windows)] for episode in rewards])
        np.testing.assert_array_equal(asked.truth, truth.ravel())
        gaps = {kind: np.abs(np.diff(asked.truth[asked.pairs[kind]], axis=1)) for kind in KINDS}
        assert all((gap > 0).all() and len(gap) > 1000 for gap in gaps.values())
        assert gaps[LARGE_GAP].min() >= np.median(gaps[ALL])
        assert (asked.truth[asked.pairs[NEAR_GOAL]] >= np.sort(asked.truth)[int(0.75 * (truth.size - 1))]).all()
        late = numbers[asked.pairs[LATE] // windows]
        assert set(np.unique(late)) == {number for number in numbers if number >= 20}


def test_lessons_come_from_other_episodes_and_are_answered_by_the_true_return(exam):
    learned = np.delete(exam.bed.rewards, np.s_[2::3], axis=0)
    windows = FRAMES - SEGMENT + 1
    for pair, answer in zip(exam.lessons[:20], exam.answers[:20], strict=True):
        first, second = (learned[index // windows, index % windows : index % windows + SEGMENT].sum() for index in pair)
        assert answer == (second > first) and first != second
    assert exam.lessons.shape == (250, 2) and exam.lessons.max() < 20 * windows


def test_a_bed_of_mixed_episodes_has_no_late_pairs_and_a_saturated_one_none_near_the_goal():
    rewards = np.random.default_rng(0).integers(0, 256, (EPISODES, FRAMES))
    assert LATE not in quality.set_exam(bed_of(rewards, MIXED)).of_all.pairs
    rewards[:] = 255
    rewards[:, 0] = np.arange(EPISODES)
    saturated = quality.set_exam(bed_of(rewards))
    assert len(saturated.of_all.pairs[NEAR_GOAL]) == 0
    (frozen, *_) = quality.judge(Reader(lambda value: value), saturated, FEW_UPDATES)
    assert np.isnan(frozen[NEAR_GOAL]) and frozen[ALL] == 1


# ---- models of known quality


def row(rows, reader, labels):
    (found,) = [row for row in rows if (row["reader"], row["labels"]) == (reader, labels)]
    return found


def test_a_model_that_reads_the_reward_is_always_right_and_its_opposite_never(exam):
    good, bad = (quality.judge(Reader(function), exam, FEW_UPDATES) for function in (lambda v: v, lambda v: -v))
    assert [row(good, "zero-shot", 0)[kind] for kind in KINDS] == [1, 1, 1, 1]
    assert [row(bad, "zero-shot", 0)[kind] for kind in KINDS] == [0, 0, 0, 0]
    for rows, sign in ((good, 1), (bad, -1)):
        tau = row(rows, "zero-shot", 0)["episode_order"]
        assert tau == pytest.approx(sign, abs=0.02)  # the sums of some episodes differ by less than float32 shows
        assert min(row(rows, "ridge", labels)[ALL] for labels in LABELS) > 0.95  # a probe needs no task
    assert {(r["reader"], r["labels"]) for r in good} == {
        *(("zero-shot", 0),),
        *((reader, labels) for reader in ("adapters", "ridge") for labels in LABELS),
    }


def test_a_model_that_guesses_is_right_in_half_of_the_cases():
    many = quality.set_exam(bed_of(np.random.default_rng(0).integers(0, 256, (900, FRAMES))))
    guesses = np.random.default_rng(1).uniform(-1, 1, many.of_held_out.truth.shape)
    marks = quality._marks(many, "zero-shot", 0, guesses, quality.state_returns(many)[50])
    for kind in KINDS:
        assert marks[kind] == pytest.approx(0.5, abs=0.03)
    assert marks["error_correlation"] == pytest.approx(0, abs=0.05)


def test_what_does_not_learn_is_judged_on_all_episodes():
    """A model that is right in every third episode, which are held out, and wrong in the others."""
    rewards = np.random.default_rng(0).integers(0, 128, (EPISODES, FRAMES))
    rewards[2::3] += 128
    exam = quality.set_exam(bed_of(rewards, MIXED))
    rows = quality.judge(Reader(lambda value: np.where(value >= 0.5, value, -value)), exam)
    returns = np.where(exam.of_all.truth >= 0.5 * 256 * SEGMENT, exam.of_all.truth, -exam.of_all.truth)
    expected = quality.accuracy(returns[exam.of_all.pairs[ALL]], exam.of_all.truth[exam.of_all.pairs[ALL]])
    assert row(rows, "zero-shot", 0)[ALL] == pytest.approx(expected) and expected < 0.9


def test_adapters_learn_to_read_what_the_cosine_does_not_say(exam):
    rows = quality.judge(Reader(lambda value: -value), exam)
    assert row(rows, "zero-shot", 0)[ALL] == 0 and row(rows, "adapters", 50)[ALL] > 0.9


def test_the_state_probe_finds_the_reward_among_other_numbers(exam):
    rows = quality.judge_states(exam)
    assert [r["labels"] for r in rows] == list(LABELS)
    assert rows[0][ALL] < rows[1][ALL] < rows[2][ALL] and rows[2][ALL] > 0.97


def test_the_probe_is_ridge_regression(exam):
    learned, asked = (quality.segments(exam.bed.states[c], SEGMENT).mean(1) for c in (~exam.held_out, exam.held_out))
    scale = learned.std(0)
    differences = np.diff((learned / scale)[exam.lessons[:50]], axis=1)[:, 0].astype(np.float64)
    penalty = quality._RIDGE * (differences**2).sum() / 50
    normal = differences.T @ differences + penalty * np.eye(4)
    weights = np.linalg.solve(normal, differences.T @ (2 * exam.answers[:50] - 1))
    np.testing.assert_allclose(quality.state_returns(exam)[50], (asked / scale) @ weights, rtol=1e-4, atol=1e-5)


def test_errors_of_a_model_that_sees_what_the_state_probe_sees_are_its_own(exam):
    """A model whose score is the state probe's errs with it; one that is right has no error to compare."""
    of_states = quality.state_returns(exam)[50]
    same = quality._marks(exam, "zero-shot", 0, of_states, of_states)
    assert same["error_correlation"] == pytest.approx(1)
    assert same[ALL] == row(quality.judge_states(exam), "ridge", 50)[ALL]


def test_a_film_is_judged_until_its_first_success():
    values = np.array([[10, 20, 30, 40, 5], [40, 30, 20, 10, 90], [1, 2, 3, 4, 5]], np.uint8)
    frames = np.tile(values[..., None, None, None], (1, 1, 16, 16, 3))
    successes = np.zeros((3, 5), bool)
    successes[0, 3:] = successes[1, 3] = True
    films = Films("door-close-v3", frames, successes)
    assert quality.value_orders(Reader(lambda value: value), films) == pytest.approx(
        [1, -1]
    )  # the third never succeeds
