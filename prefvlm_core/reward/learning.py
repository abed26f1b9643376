"""How a reward ensemble learns from the labels of a session: the protocol of reward learners, and PEBBLE's learner.

A learner is a generator that yields the minibatches from which its run learns, and is sent what came of each. So the
runs of a fleet, each of which learns for as long as it needs, can take their steps together (`learn_together`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.config.run import RewardConfig, RunConfig
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.preferences.selection import PairSource
from prefvlm_core.reward.ensemble import Minibatch, RewardEnsemble, RunEnsemble

_AT_ONCE = 16
"""Runs that learn by the same operations. At the papers' scale, each takes about 0.4 GB for its gradients."""
Outcome = TypeVar("Outcome")
Learning = Generator[Minibatch, Tensor, Outcome]
"""Yields minibatches of one run, is sent (members, n) as `RewardEnsemble.learn` returns it for each, and returns the
outcome."""


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

    def one_pass(self, buffer: PreferenceBuffer, learning_rate_scale: float = 1.0) -> Learning[float]:
        """See `one_pass`."""
        length = self.config.feedback.segment_length
        return one_pass(buffer, self.config.reward, length, self.generator, self.replay.device, learning_rate_scale)


class RewardLearner(ABC):
    """Fits the ensemble of one run to its labels in each session. One that keeps something between sessions overrides
    the rest too."""

    @abstractmethod
    def learn(self, buffer: PreferenceBuffer, asked: int) -> Learning[RewardLearning]:
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

    def learn(self, buffer: PreferenceBuffer, asked: int) -> Learning[RewardLearning]:
        """See `RewardLearner.learn`."""
        config = self.setting.config.reward
        accuracy, epochs = float("nan"), 0
        while len(buffer) and epochs < config.max_epochs:
            epochs += 1
            accuracy = yield from self.setting.one_pass(buffer)
            if accuracy > config.stop_accuracy:
                break
        return RewardLearning(epochs, accuracy)


def one_pass(
    buffer: PreferenceBuffer,
    config: RewardConfig,
    length: int,
    generator: np.random.Generator,
    device: torch.device,
    learning_rate_scale: float = 1.0,
) -> Learning[float]:
    """One pass of the members over the labels (at least one) of segments of `length` steps, each in its own order.

    Its outcome is the training accuracy: the fraction of labels other than 1/2 with which a member agreed just before
    it learned from them, mean over members, among the pairs on which learning is judged; nan if all of these are 1/2.
    """
    starts = torch.from_numpy(buffer.starts).to(device)
    labels = torch.from_numpy(buffer.labels).to(device)
    reliability = None if buffer.reliability is None else torch.from_numpy(buffer.reliability).to(device)
    order = np.stack([generator.permutation(len(buffer)) for _ in range(config.members)])
    judged = len(buffer) if buffer.judged is None else buffer.judged
    correct = torch.zeros((), device=device)
    for chosen in torch.from_numpy(order).to(device).split(config.batch_size, dim=1):
        trusted = None if reliability is None else reliability[chosen]
        margin = yield Minibatch(starts[chosen], labels[chosen], trusted, length, learning_rate_scale)
        correct += ((margin * (labels[chosen] - 0.5) > 0) & (chosen < judged)).sum()
    decided = int((buffer.labels[:judged] != 0.5).sum()) * config.members
    return float(correct) / decided if decided else float("nan")


def learn_together(
    ensemble: RewardEnsemble, replay: Replay, learnings: Mapping[int, Learning[Outcome]], at_once: bool = False
) -> dict[int, Outcome]:
    """Let each of some runs of a fleet learn to its end. Returns the outcomes.

    With `at_once`, runs whose next minibatches are of one kind learn from them by the same operations, as a GPU does
    best; the others of the fleet then change a run by float rounding.
    """
    wanted, outcomes = {}, {}

    def advance(run: int, step: Callable[[], Minibatch]) -> None:
        try:
            wanted[run] = step()
        except StopIteration as end:
            wanted.pop(run, None)
            outcomes[run] = end.value

    for run, learning in learnings.items():
        advance(run, learning.__next__)
    while wanted:
        groups: dict[object, list[int]] = {}
        for run, minibatch in wanted.items():
            groups.setdefault(minibatch.kind if at_once else run, []).append(run)
        for group in groups.values():
            for first in range(0, len(group), _AT_ONCE):
                runs = group[first : first + _AT_ONCE]
                margins = ensemble.learn(replay, {run: wanted[run] for run in runs})
                for run, margin in zip(runs, margins, strict=True):
                    advance(run, partial(learnings[run].send, margin))
    return outcomes


MakeLearner = Callable[[LearningSetting], RewardLearner]
"""Makes a learner for one run; see `reward.learners.LEARNERS`."""
