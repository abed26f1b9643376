"""How a reward ensemble learns from the labels of a session: the protocol of reward learners, and PEBBLE's learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.preferences.selection import PairSource
from prefvlm_core.reward.ensemble import RunEnsemble


@dataclass(frozen=True)
class RewardLearning:
    """The outcome of reward learning in one session."""

    epochs: int
    """Passes over the labels."""
    accuracy: float
    """Training accuracy (fraction) of the last pass, mean over members, without pairs labeled 1/2; nan if no other
    labels were learned from."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further columns for metrics.csv."""


@dataclass(frozen=True)
class LearningSetting:
    """What a reward learner works with, all of one run. `pairs` draws unlabeled pairs."""

    config: RunConfig
    ensemble: RunEnsemble
    replay: RunReplay
    pairs: PairSource
    generator: np.random.Generator


class RewardLearner(ABC):
    """Fits the ensemble of one run to its labels in each session. One that keeps something between sessions overrides
    the rest too."""

    @abstractmethod
    def learn(self, buffer: PreferenceBuffer, asked: int) -> RewardLearning:
        """Learn from all labels so far; `asked` is the number of queries that the human was asked in this session."""

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint needs besides the ensemble's own."""
        return {}

    def values(self) -> dict[str, Any]:
        """Further state that a checkpoint needs, in types that JSON holds."""
        return {}

    def restore(  # noqa: B027 -- nothing to restore unless something is kept
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Inverse of `tensors` and `values`."""


class PlainLearner(RewardLearner):
    """PEBBLE's learner: passes over the labels, each member in its own order, until `stop_accuracy` or `max_epochs`.

    The original code leaves the accuracy undefined if there are no labels; here nothing is learned then.
    """

    def __init__(self, setting: LearningSetting) -> None:
        self.setting = setting
        self.length = setting.config.feedback.segment_length

    def learn(self, buffer: PreferenceBuffer, asked: int) -> RewardLearning:
        """See `RewardLearner.learn`."""
        setting, config = self.setting, self.setting.config.reward
        accuracy, epochs = float("nan"), 0
        while len(buffer) and epochs < config.max_epochs:
            epochs += 1
            accuracy = setting.ensemble.epoch(setting.replay, buffer, self.length, setting.generator)
            if accuracy > config.stop_accuracy:
                break
        return RewardLearning(epochs, accuracy)


MakeLearner = Callable[[LearningSetting], RewardLearner]
"""Makes a learner for one run; see `reward.learners.LEARNERS`."""
