"""Tests of the label sources that look at frames: what they judge does not depend on how many pairs they look at."""

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
        self.table = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
        self.text = self.table[0]
        self.most = 0

    def frames(self, starts: IntArray) -> FloatArray:
        self.most = max(self.most, len(starts))
        return self.table[starts[..., None] + np.arange(3)]

    def zero_shot_returns(self, frames: FloatArray) -> FloatArray:
        return (frames @ self.text).sum(-1)


def adapted(seen: Seen) -> AdaptedVLM:
    adapters = Adapters(AdapterConfig(hidden=5, output=3), 8, 4, np.random.default_rng(1), torch.device("cpu"))
    adapters.load(adapters.state() | {"accepted": torch.tensor(True)})
    return AdaptedVLM(seen, adapters, Stopwatch())  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 512, 1100])
def test_many_pairs_are_judged_a_bounded_number_at_a_time_and_like_few(count: int) -> None:
    seen = Seen()
    starts = np.random.default_rng(2).integers(0, 37, (count, 2))
    frozen, learned = FrozenVLM(seen).judge(starts), adapted(seen).judge(starts)  # type: ignore[arg-type]
    by_hand = np.array(
        [[sum(seen.table[start + k] @ seen.text for k in range(3)) for start in pair] for pair in starts]
    )
    np.testing.assert_allclose(frozen.returns, by_hand.reshape(count, 2), rtol=1e-4, atol=1e-4)
    assert seen.most == min(count, labeller._CHUNK) and labeller._CHUNK < 1100
    for same in (frozen.zero_shot, learned.zero_shot):
        np.testing.assert_array_equal(same, frozen.returns)
    whole = adapted(seen).adapters.returns(seen.text, seen.frames(starts))
    np.testing.assert_array_equal(learned.returns, whole)
    assert not count or not np.allclose(learned.returns, frozen.returns)
