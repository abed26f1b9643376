"""Which pairs the human is asked about, against sorting by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prefvlm_core.preferences.selection import DisagreementSelection, SameStageSelection

HORIZON, COUNT, CANDIDATES = 40, 6, 10


class Pairs:
    """A `PairSource` that remembers what it drew."""

    replay = SimpleNamespace(horizon=HORIZON)

    def draw(self, count: int) -> np.ndarray:
        self.drawn = np.random.default_rng(count).integers(0, 30 * HORIZON, (count, 2))
        return self.drawn


def disagreement(starts: np.ndarray) -> np.ndarray:
    """A number for each pair, which is what two members' probabilities .5 ± it disagree by."""
    return (starts.sum(1) * 7919 % 1000) / 2500


def probabilities(starts: np.ndarray) -> torch.Tensor:
    spread = torch.from_numpy(disagreement(starts))
    return torch.stack((0.5 - spread, 0.5 + spread))


def test_same_stage_asks_the_most_disputed_half_that_is_near_in_time() -> None:
    pairs: Any = Pairs()
    chosen = SameStageSelection(CANDIDATES).choose(pairs, COUNT, probabilities)
    drawn = pairs.drawn
    apart = np.array([abs(a % HORIZON - b % HORIZON) for a, b in drawn])
    order = sorted(range(len(drawn)), key=lambda index: (apart[index], index))[: len(drawn) // 2]
    best = sorted(order, key=lambda index: -disagreement(drawn[index : index + 1])[0])[:COUNT]
    assert {tuple(pair) for pair in chosen} == {tuple(drawn[index]) for index in best}
    far = DisagreementSelection(CANDIDATES).choose(pairs, COUNT, probabilities)
    assert np.abs(np.diff(far % HORIZON)).mean() > np.abs(np.diff(chosen % HORIZON)).mean()


@pytest.mark.parametrize("selection", [SameStageSelection, DisagreementSelection])
def test_no_pair_is_asked_where_none_is_due_and_all_where_there_is_no_choice(selection: Any) -> None:
    pairs: Any = Pairs()
    assert selection(CANDIDATES).choose(pairs, 0, probabilities).shape == (0, 2)
    chosen = selection(1).choose(pairs, COUNT, probabilities)
    assert sorted(map(tuple, chosen)) == sorted(map(tuple, pairs.drawn))
