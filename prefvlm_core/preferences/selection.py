"""Which pairs are asked about: where pairs come from, and which of them go to the human."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.common.arrays import BoolArray, IntArray
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import FeedbackConfig
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.filters import Partition

Probabilities = Callable[[IntArray], torch.Tensor]
"""Pairs (n, 2) -> P(second preferred) of each member of the reward ensemble, (members, n)."""


class PairSource:
    """Random pairs of segments of one run, from its recent complete episodes."""

    def __init__(self, config: RunConfig, replay: RunReplay, generator: np.random.Generator) -> None:
        self.length, self.margin = config.feedback.segment_length, config.segment_margin
        self.recent_episodes = config.feedback.recent_episodes
        self.replay, self.generator = replay, generator

    def draw(self, count: int) -> IntArray:
        """First steps (count, 2) of `count` pairs, each segment with `margin` steps of its episode on both sides."""
        whole = self.length + 2 * self.margin
        return self.margin + self.replay.draw_segments(self.generator, count, whole, self.recent_episodes)


class Selection(Protocol):
    """Chooses the pairs that the human is asked about where no VLM labels any."""

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """First steps (count, 2) of `count` pairs."""
        ...


class UniformSelection:
    """Any pairs (B-Pref's `uniform_sampling`)."""

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """See `Selection.choose`."""
        return pairs.draw(count)


class DisagreementSelection:
    """Of `candidates` times as many random pairs, those on which the ensemble's members disagree most (B-Pref's
    `disagreement_sampling`)."""

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates

    def choose(self, pairs: PairSource, count: int, probabilities: Probabilities) -> IntArray:
        """See `Selection.choose`."""
        if count == 0:
            return pairs.draw(0)
        starts = pairs.draw(count * self.candidates)
        disagreement = probabilities(starts).std(0)
        return starts[torch.topk(disagreement, count).indices.cpu().numpy()]


SELECTIONS: Registry[Callable[[FeedbackConfig], Selection]] = Registry(
    "feedback.sampling",
    {
        "uniform": lambda config: UniformSelection(),
        "disagreement": lambda config: DisagreementSelection(config.candidates),
    },
)
"""`feedback.sampling` -> the selection, made from the run's `FeedbackConfig`."""

HumanSelection = Callable[[Partition, BoolArray], BoolArray]
"""Partition of the labels of n pairs, and which pairs are new in this session, (n,) -> the pairs that may go to the
human, (n,)."""


def uncertain_pairs(partition: Partition, new: BoolArray) -> BoolArray:
    """New pairs whose label the filter calls uncertain (PrefVLM §4.3)."""
    return new & partition.uncertain


def any_pairs(partition: Partition, new: BoolArray) -> BoolArray:
    """Any new pairs, whatever the filter says."""
    return new


HUMAN_SELECTIONS: Registry[HumanSelection] = Registry(
    "filter.human_selection", {"uncertain": uncertain_pairs, "random": any_pairs}
)
"""`filter.human_selection` -> which of the VLM's pairs may go to the human."""
