"""Selection of pairs: how they are drawn, and which of them go to the human."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from prefvlm_core.common.arrays import BoolArray, IntArray
from prefvlm_core.common.registry import Registry
from prefvlm_core.common.seeding import Stream, generator
from prefvlm_core.config.groups import FeedbackConfig
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.filters import Partition

if TYPE_CHECKING:  # names are also checked where torch is not needed
    from torch import Tensor

    from prefvlm_core.agent.replay import RunReplay

Probabilities = Callable[[IntArray], "Tensor"]
"""Maps pairs (n, 2) to P(second preferred) (members, n) by each member of the reward ensemble."""


class PairSource:
    """Draws random pairs of segments from the recent complete episodes of one run."""

    def __init__(self, config: RunConfig, replay: RunReplay, drawn_by: np.random.Generator) -> None:
        self.length, self.margin = config.feedback.segment_length, config.segment_margin
        self.recent_episodes, self.seed = config.feedback.recent_episodes, config.seed
        self.replay, self.generator = replay, drawn_by

    def draw(self, count: int) -> IntArray:
        """First steps (count, 2) of random pairs whose segments have `margin` steps of their episode on both sides."""
        return self._draw(self.generator, count)

    def first(self, count: int) -> IntArray:
        """Pairs (count, 2) of the first session that depend on the run's seed alone, the first ones of any larger
        count."""
        own = generator(self.seed, Stream.FIRST_PAIRS)
        return np.concatenate([self._draw(own, 0), *(self._draw(own, 1) for _ in range(count))])

    def _draw(self, drawn_by: np.random.Generator, count: int) -> IntArray:
        whole = self.length + 2 * self.margin
        return self.margin + self.replay.draw_segments(drawn_by, count, whole, self.recent_episodes)


class Selection(Protocol):
    """Chooses the pairs for the human in a session without labels of the VLM."""

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """First steps (count, 2) of `count` pairs."""
        ...


class UniformSelection:
    """Takes pairs at random (B-Pref's `uniform_sampling`)."""

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """See `Selection.choose`."""
        return pairs.draw(count)


class DisagreementSelection:
    """Takes the `most_disputed` of `count * candidates` random pairs (B-Pref's `disagreement_sampling`)."""

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """See `Selection.choose`."""
        if count == 0:
            return pairs.draw(0)
        starts = self.worth_asking(pairs, pairs.draw(count * self.candidates), count)
        return starts[most_disputed(starts, count, probabilities)]

    def worth_asking(self, pairs: PairSource, starts: IntArray, count: int) -> IntArray:
        """Those of the random pairs `starts` (n, 2), at least `count`, of which the most disputed are taken."""
        return starts


class SameStageSelection(DisagreementSelection):
    """Takes the most disputed of those pairs whose segments lie at a similar time of their episodes.

    In a task of several stages, a segment of a later stage is preferred whatever is done in it, which says nothing of
    how a stage is to be done. STAIR (arXiv 2509.23802) therefore asks about pairs of one stage, by a distance in time
    that it learns from episodes; here that is the difference of their times. Of `count * candidates` random pairs, the
    half with the smallest difference is left for `most_disputed`.
    """

    def worth_asking(self, pairs: PairSource, starts: IntArray, count: int) -> IntArray:
        """See `DisagreementSelection.worth_asking`."""
        apart = np.abs(np.diff(starts % pairs.replay.horizon, axis=1)[:, 0])
        return starts[np.argsort(apart, kind="stable")[: max(count, len(starts) // 2)]]


def most_disputed(starts: IntArray, count: int, probabilities: Probabilities) -> IntArray:
    """Indices (count,) of the pairs `starts` (n, 2) with the largest ensemble disagreement, largest first.

    Disagreement is the standard deviation of the members' P(second preferred).
    """
    import torch

    return torch.topk(probabilities(starts).std(0), count).indices.cpu().numpy()


SELECTIONS: Registry[Callable[[FeedbackConfig], Selection]] = Registry(
    "feedback.sampling",
    {
        "uniform": lambda config: UniformSelection(),
        "disagreement": lambda config: DisagreementSelection(config.candidates),
        "same-stage": lambda config: SameStageSelection(config.candidates),
    },
)
"""Maps `feedback.sampling` to what makes the selection from a run's `FeedbackConfig`."""

HumanSelection = Callable[[Partition, BoolArray], BoolArray]
"""Maps the partition of n labels and the mask (n,) of pairs that are new in this session to the mask (n,) of pairs that
may go to the human."""


def uncertain_pairs(partition: Partition, new: BoolArray) -> BoolArray:
    """The new pairs whose label the filter finds uncertain (PrefVLM §4.3)."""
    return new & partition.uncertain


def uncertain_pairs_of_the_pool(partition: Partition, new: BoolArray) -> BoolArray:
    """All pairs whose label the filter finds uncertain, also those of earlier sessions that nobody was asked about."""
    return partition.uncertain


def any_pairs(partition: Partition, new: BoolArray) -> BoolArray:
    """All new pairs, whatever the filter decides."""
    return new


HUMAN_SELECTIONS: Registry[HumanSelection] = Registry(
    "filter.human_selection",
    {"uncertain": uncertain_pairs, "uncertain-pool": uncertain_pairs_of_the_pool, "random": any_pairs},
)
"""Maps `filter.human_selection` to the function that marks the VLM's pairs that may go to the human."""
