"""Properties that hold for whatever input: buffers, filters, registries, replay indices, and labels beside curves."""

import json

import numpy as np
import pytest
from builders.refusals import is_one_line
from builders.rewards import CPU
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prefvlm_core.agent.replay import Replay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import FilterConfig
from prefvlm_core.domains.frame_steps import frame_steps, has_frame
from prefvlm_core.plots.layout import spread
from prefvlm_core.preferences.filters import FILTERS, divergence
from prefvlm_core.preferences.labels import RunLabels
from prefvlm_core.preferences.pairs import PreferenceBuffer

LABELS = st.sampled_from((0.0, 0.5, 1.0))
PAIRS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), LABELS), max_size=8)
DIVERGENCES = st.lists(st.floats(0, 14) | st.just(0.0) | st.floats(0, 1e-300), max_size=12).map(np.array)


def pairs_of(triples) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(triples, np.float64).reshape(-1, 3)
    return table[:, :2].astype(np.int64), table[:, 2]


# ---- preference buffers ----


@given(st.lists(PAIRS, max_size=5))
def test_a_buffer_holds_what_was_added_in_order(parts):
    buffer = PreferenceBuffer()
    for part in parts:
        buffer.add(*pairs_of(part))
    starts, labels = pairs_of([triple for part in parts for triple in part])
    assert len(buffer) == len(labels) and buffer.labels.dtype == np.float32
    np.testing.assert_array_equal(buffer.starts, starts)
    np.testing.assert_array_equal(buffer.labels, labels)


@given(PAIRS, PAIRS, st.integers(0, 20))
def test_labels_come_back_from_a_checkpoint_and_the_newest_are_the_last(human, kept, count):
    labels, copy = RunLabels(), RunLabels()
    labels.human.add(*pairs_of(human))
    labels.kept.add(*pairs_of(kept))
    labels.log.add(100, 1, "human", *pairs_of(human), pairs_of(human)[1])
    copy.restore(labels.tensors())
    for name in ("human", "kept", "asked_vlm"):
        np.testing.assert_array_equal(getattr(copy, name).starts, getattr(labels, name).starts)
        np.testing.assert_array_equal(getattr(copy, name).labels, getattr(labels, name).labels)
    np.testing.assert_array_equal(copy.for_learning().labels, pairs_of(human + kept)[1])
    np.testing.assert_array_equal(copy.log.rows, labels.log.rows)
    newest, last = labels.newest_human(count), pairs_of(human[max(0, len(human) - count) :])
    np.testing.assert_array_equal(newest.starts, last[0])
    np.testing.assert_array_equal(newest.labels, last[1])


# ---- filters ----

CONFIGS = st.builds(
    FilterConfig,
    alpha=st.floats(0, 2),
    beta_max=st.floats(0, 5),
    beta_min=st.floats(0, 5),
    beta_sessions=st.integers(1, 30),
    upper=st.floats(0.01, 14),
    confidence=st.floats(0.5, 0.999),
    adaptive_minimum=st.integers(1, 12),
)


@pytest.mark.parametrize("mode", FILTERS)
@given(
    config=CONFIGS,
    history=st.lists(DIVERGENCES, max_size=4),
    right=st.lists(st.booleans(), min_size=12, max_size=12),
    asked=DIVERGENCES,
)
def test_a_filter_puts_each_label_into_exactly_one_set_in_order(mode, config, history, right, asked):
    chosen = FILTERS[mode](config)
    for divergences in history:
        chosen.observe(divergences)
        chosen.audit(divergences, np.array(right[: len(divergences)], bool))
    clean, flipped, uncertain = chosen.split(asked)
    assert ((clean.astype(int) + flipped + uncertain) == 1).all()
    assert not np.isnan([chosen.lower, chosen.upper]).any() and chosen.upper >= 0
    assert (asked[clean] < chosen.lower).all() and (asked[flipped] > chosen.upper).all()
    assert (asked[uncertain] >= min(chosen.lower, chosen.upper)).all() and (asked[uncertain] <= chosen.upper).all()
    if clean.any() and flipped.any():
        assert asked[clean].max() < asked[flipped].min()
    again = FILTERS[mode](config)
    again.restore(json.loads(json.dumps(chosen.state())))
    assert (again.lower, again.upper) == (chosen.lower, chosen.upper)
    np.testing.assert_array_equal(again.split(asked), (clean, flipped, uncertain))


@given(st.lists(st.tuples(LABELS, st.floats(0, 1)), max_size=10))
def test_divergences_are_finite_and_fall_as_the_ensemble_agrees(pairs):
    table = np.array(pairs, np.float64).reshape(-1, 2)
    labels, probabilities = table.T
    found = divergence(labels, probabilities)
    assert (found >= 0).all() and (found <= 13.82).all()
    np.testing.assert_allclose(divergence(1 - labels, 1 - probabilities), found, atol=1e-9)  # the sides do not matter
    closer = probabilities + (labels - probabilities) / 2
    assert (divergence(labels, closer) <= found + 1e-9).all()


# ---- registries ----

NAMES = st.text(max_size=12) | st.sampled_from((".", "..", "a:b", "a:", ":", "a\\b", "a\nb", "a\0b", "simulated:", "ä"))


@given(st.lists(NAMES, max_size=6))
def test_a_registry_answers_to_what_it_accepted_and_to_nothing_else(names):
    registry: Registry[int] = Registry("thing", {"packaged": 0, "family:": 1})
    accepted: dict[str, int] = {}
    for number, name in enumerate(names):
        try:
            registry.register(name, number)
            accepted[name] = number
        except PrefVLMError as error:
            assert is_one_line(error)
    everything = {"packaged": 0, "family:": 1} | accepted
    assert dict(registry) == everything
    for name in names:
        family, _, member = name.partition(":")
        found = name if name in everything else f"{family}:" if family and member else None
        assert (name in registry) == (found in everything)
        if name in registry:
            assert registry[name] == everything[found]
        else:
            with pytest.raises(PrefVLMError) as told:
                registry[name]
            assert is_one_line(told.value)
    for name in accepted:
        assert name.isprintable() and name not in (".", "..") and not set(name) & set("/\\")


# ---- replay and frames ----


@given(st.data())
def test_segments_lie_inside_recent_complete_episodes_and_their_frames_inside_them(data):
    horizon, episodes, recent = (data.draw(st.integers(1, most)) for most in (30, 6, 8))
    stride = data.draw(st.sampled_from([n for n in range(1, horizon + 1) if horizon % n == 0]))
    length = data.draw(st.sampled_from(range(stride, horizon + 1, stride)))
    replay = Replay(1, episodes * horizon + horizon, horizon, 1, 1, 1, 1, CPU)
    replay.size = episodes * horizon + data.draw(st.integers(0, horizon - 1))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    starts = replay.of_run(0).draw_segments(generator, data.draw(st.integers(0, 20)), length, recent)
    last = starts + length - 1
    assert (starts // horizon == last // horizon).all()
    assert (starts // horizon < episodes).all() and (starts // horizon >= max(0, episodes - recent)).all()
    frames = frame_steps(starts, length, stride)
    assert frames.shape == (*starts.shape, length // stride)
    assert all(has_frame(step, stride) for step in frames.ravel())
    assert (frames >= starts[..., None]).all() and (frames <= last[..., None]).all()
    steps = replay.of_run(0).segment_steps(starts, length).numpy()
    np.testing.assert_array_equal((steps[..., 0], steps[..., -1]), (starts, last))


# ---- labels beside curves ----


@given(
    st.integers(0, 7).flatmap(
        lambda count: st.tuples(
            arrays.arrays(np.float64, count, elements=st.floats(-1e3, 1e3)),
            arrays.arrays(np.float64, count, elements=st.floats(0.01, 10)),
        )
    ),
    st.floats(-100, 100),
    st.floats(0, 200),
)
def test_spread_labels_do_not_overlap_keep_their_order_and_stay_inside(ends, low, room):
    wanted, heights = ends
    high = low + room
    centers = spread(wanted, heights, low, high)
    assert centers.shape == wanted.shape and np.isfinite(centers).all()
    order = np.argsort(wanted, kind="stable")
    lower, upper = (centers - heights / 2)[order], (centers + heights / 2)[order]
    assert (lower[1:] >= upper[:-1] - 1e-6).all()
    assert (lower >= low - 1e-6).all()
    assume(heights.sum() <= room)
    assert (upper <= high + 1e-6).all()
    free = (wanted - heights / 2 >= low).all() and (wanted + heights / 2 <= high).all()
    gaps = np.diff(wanted[order]) >= (heights[order][1:] + heights[order][:-1]) / 2
    if free and gaps.all():
        np.testing.assert_allclose(centers, wanted, atol=1e-6)
