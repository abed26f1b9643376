"""Tests of the label sources that look at frames: what they judge does not depend on how many pairs they look at."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import AdapterConfig
from prefvlm_core.vlm import labeller
from prefvlm_core.vlm.adapters import Adapters
from prefvlm_core.vlm.labeller import AdaptedVLM, FrozenVLM


class Seen:
    """A stand-in for a run's encoder: segments of 3 frames, whose embeddings are looked up in a table of steps."""

    def __init__(self) -> None:
        self.table = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
        self.text = self.table[0]
        self.replay = SimpleNamespace(rewards=np.zeros(1000))
        self.looked_up: list[int] = []
        """Number of frames of each look-up."""

    def frames(self, starts: IntArray) -> FloatArray:
        frames, shown = self.distinct_frames(starts)
        return frames[shown]

    def distinct_frames(self, starts: IntArray) -> tuple[FloatArray, IntArray]:
        steps = starts[..., None] + np.arange(3)
        distinct, shown = np.unique(steps, return_inverse=True)
        self.looked_up.append(len(distinct))
        return self.table[distinct], shown.reshape(steps.shape)

    def zero_shot_returns(self, frames: FloatArray) -> FloatArray:
        return (frames @ self.text).sum(-1)


def adapted(seen: Seen) -> AdaptedVLM:
    adapters = Adapters(AdapterConfig(hidden=5, output=3), 8, 4, np.random.default_rng(1), torch.device("cpu"))
    adapters.load(adapters.state() | {"accepted": torch.tensor(True)})
    return AdaptedVLM(seen, adapters, Stopwatch())  # type: ignore[arg-type]


def drawn(count: int) -> IntArray:
    return np.random.default_rng(2).integers(0, 997, (count, 2))


@pytest.mark.parametrize("count", [0, 1, 512, 1100])
def test_many_pairs_are_judged_a_bounded_number_at_a_time_and_like_few(count: int) -> None:
    seen, starts = Seen(), drawn(count)
    frozen, learned = FrozenVLM(seen).judge(starts), adapted(seen).judge(starts)  # type: ignore[arg-type]
    by_hand = np.array(
        [[sum(seen.table[start + k] @ seen.text for k in range(3)) for start in pair] for pair in starts]
    )
    np.testing.assert_allclose(frozen.returns, by_hand.reshape(count, 2), rtol=1e-4, atol=1e-4)
    assert max(seen.looked_up, default=0) <= 3 * labeller.CHUNK < 1000
    for same in (frozen.zero_shot, learned.zero_shot):
        np.testing.assert_array_equal(same, frozen.returns)
    whole = adapted(seen).adapters.returns(seen.text, seen.frames(starts))
    np.testing.assert_allclose(learned.returns, whole, rtol=1e-4, atol=1e-4)  # torch rounds by a batch's size
    assert not count or not np.allclose(learned.returns, frozen.returns)


def test_the_frozen_model_judges_each_segment_once_and_adapters_each_frame_once_per_session() -> None:
    seen, starts = Seen(), drawn(4000)
    vlm = adapted(seen)
    first = vlm.judge(starts)
    shown = len(np.unique(starts[..., None] + np.arange(3)))
    edges = 3 * -(-997 // labeller.CHUNK)  # frames that two chunks share
    assert shown <= sum(seen.looked_up) / 2 <= shown + edges
    seen.looked_up.clear()
    again = vlm.judge(np.concatenate((starts[100:], starts[:5])))
    assert shown - 10 <= sum(seen.looked_up) <= shown + edges  # the adapters' alone
    np.testing.assert_array_equal(again.zero_shot, np.concatenate((first.zero_shot[100:], first.zero_shot[:5])))
    seen.looked_up.clear()
    frozen = FrozenVLM(seen)  # type: ignore[arg-type]
    kept = frozen.judge(starts)
    looked_up = sum(seen.looked_up)
    np.testing.assert_array_equal(frozen.judge(starts[::-1]).returns, kept.returns[::-1])
    assert sum(seen.looked_up) == looked_up > 0


def test_a_source_that_starts_anew_judges_like_one_that_goes_on() -> None:
    """As after a resume: what was kept is computed again, to the bit, whatever is asked about with it."""
    seen, starts = Seen(), drawn(900)
    source = adapted(seen)
    source.judge(starts[:300])
    whole, resumed = source.judge(starts), adapted(seen).judge(starts)
    np.testing.assert_array_equal(whole.zero_shot, resumed.zero_shot)
    np.testing.assert_array_equal(whole.returns, resumed.returns)
