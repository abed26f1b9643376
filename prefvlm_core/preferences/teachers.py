"""Who answers queries: the protocol `Teacher`, and the scripted teachers of B-Pref. People: `labelling.teacher`.

B-Pref's six teachers (Lee et al. 2021, §3) all compare true returns. Three quirks of the original code are not
reproduced: it multiplies the margin of `skip` and `equal` by its fraction twice after the first session (here once,
always), and counts on at least one label per session (here a session may bring none). It also calls the first of two
exactly equal segments better; Meta-World pays exactly 0 far from the goal, so that on some tasks most early labels
would be noise. Here every teacher answers 1/2. A skipped query has cost the human a look, so it counts against the
budget, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from prefvlm_core.common.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from prefvlm_core.common.registry import Registry
from prefvlm_core.config.groups import FeedbackConfig


@dataclass(frozen=True)
class VLMOpinion:
    """What the VLM and the filter say about n pairs."""

    labels: FloatArray
    """P(second preferred) as the VLM says, (n,); nan where it was not asked, as the divergences then are."""
    divergences: DoubleArray
    """Of these labels from the reward ensemble's opinion, nats, (n,)."""
    partition: IntArray
    """What the filter made of them, index into `log.PARTITIONS`, (n,)."""

    @staticmethod
    def none(count: int) -> VLMOpinion:
        """Of pairs that the VLM was not asked about."""
        unknown = np.full(count, np.nan)
        return VLMOpinion(unknown.astype(np.float32), unknown, np.zeros(count, np.int64))

    def of(self, chosen: BoolArray) -> VLMOpinion:
        """About the `chosen` pairs, (n,) bool."""
        return VLMOpinion(self.labels[chosen], self.divergences[chosen], self.partition[chosen])


@dataclass(frozen=True)
class Query:
    """The pairs (n, 2) of a session, and what a teacher may go by."""

    session: int
    """From 1."""
    starts: IntArray
    """First step of both segments, (n, 2)."""
    rewards: DoubleArray
    """True rewards, (n, 2, length)."""
    recent_return: float
    """Mean true return of recent episodes, scaled to a segment."""
    generator: np.random.Generator
    last: bool
    """Whether no session follows."""
    opinion: VLMOpinion
    """What the VLM and the filter say about the pairs."""


class Answers(NamedTuple):
    """Pairs answered or skipped since the last session; each uses one unit of the budget. With late answers they may
    come from earlier queries."""

    starts: IntArray
    """First step of both segments, (n, 2)."""
    labels: FloatArray
    """P(second segment preferred): 0, 1/2 or 1, (n,)."""
    answered: BoolArray
    """False where the teacher passed, (n,)."""
    vlm_labels: FloatArray
    """As in the query that asked the pair, (n,)."""
    divergences: DoubleArray
    """As in the query that asked the pair, (n,)."""
    waiting: int = 0
    """Pairs that may still be answered in a later session; until then they keep their part of the budget."""


class Teacher(Protocol):
    """Answers the queries of one run."""

    def ask(self, query: Query) -> Answers:
        """What is known about the pairs of `query` now."""


@dataclass(frozen=True)
class ScriptedTeacher:
    """A person as a formula over true rewards; the default is the perfectly rational oracle."""

    rationality: float = float("inf")
    """Inverse temperature of the Bradley–Terry choice; infinite = always the larger return."""
    mistake: float = 0.0
    """Probability that a decided answer is flipped."""
    skip_below: float = 0.0
    """Pass when neither segment exceeds this fraction of the recent return (0 = never pass)."""
    equal_within: float = 0.0
    """Answer 1/2 when the returns differ by less than this fraction of the recent return."""
    discount: float = 1.0
    """Weight of a step relative to the next one (< 1: the end of a segment counts most)."""

    def ask(self, query: Query) -> Answers:
        """See `label`."""
        labels, answered = self.label(query.rewards, query.recent_return, query.generator)
        return Answers(query.starts, labels, answered, query.opinion.labels, query.opinion.divergences)

    def label(
        self, rewards: DoubleArray, recent_return: float, generator: np.random.Generator
    ) -> tuple[FloatArray, BoolArray]:
        """Labels P(second segment preferred) (n,), and False where the teacher passes (n,).

        rewards: true rewards (n, 2, length) of the pairs; recent_return: mean true return of recent episodes, scaled to
        a segment.

        The order of effects is B-Pref's: skip on plain returns, choice on discounted ones, mistakes, then `equal` on
        plain returns (an equal answer is never mistaken).
        """
        length = rewards.shape[-1]
        plain = rewards.sum(-1)
        weighted = (rewards * self.discount ** np.arange(length - 1, -1, -1)).sum(-1)
        difference = weighted[:, 1] - weighted[:, 0]
        if np.isinf(self.rationality):
            second = difference > 0
        else:
            second = generator.random(len(rewards)) < 1 / (
                1 + np.exp(-np.clip(self.rationality * difference, -500, 500))
            )
        second = second ^ (generator.random(len(rewards)) < self.mistake)
        labels = second.astype(np.float32)
        gap = np.abs(plain[:, 1] - plain[:, 0])
        labels[(gap < self.equal_within * recent_return) | (gap == 0)] = 0.5
        answered = (self.skip_below == 0) | (plain.max(-1) > self.skip_below * recent_return)
        return labels, answered


TEACHERS: Registry[Callable[[FeedbackConfig], Teacher]] = Registry(
    "feedback.teacher",
    {
        "oracle": lambda config: ScriptedTeacher(),
        "noisy": lambda config: ScriptedTeacher(rationality=config.teacher_rationality),
        "mistake": lambda config: ScriptedTeacher(mistake=config.teacher_mistake),
        "skip": lambda config: ScriptedTeacher(skip_below=config.teacher_margin),
        "equal": lambda config: ScriptedTeacher(equal_within=config.teacher_margin),
        "myopic": lambda config: ScriptedTeacher(discount=config.teacher_discount),
    },
)
"""`feedback.teacher` -> the teacher, made from the run's `FeedbackConfig`; beside `HUMAN`, who needs a label queue."""
HUMAN = "human"
"""`feedback.teacher` of people, see `labelling.teacher`."""
