"""Who answers queries: the protocol `Teacher`, and the scripted teachers of B-Pref (people: `labelling.teacher`).

B-Pref's six teachers (Lee et al. 2021, §3) all compare true returns. Deliberate deviations from its code:

- After the first session, it multiplies the margin of `skip` and `equal` by its fraction twice; here always once.
- It relies on at least one label per session; here a session may bring none.
- It prefers the first of two segments with exactly equal returns. Meta-World pays exactly 0 far from the goal, so on
  some tasks most early labels would be noise; here every teacher answers 1/2.

As in B-Pref, a skipped query counts against the budget, because the human has looked at it.
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
    """The VLM's labels of n pairs, and the filter's decisions about them."""

    labels: FloatArray
    """P(second preferred) by the VLM, (n,); nan where it was not asked."""
    divergences: DoubleArray
    """Divergences of these labels from the reward ensemble's prediction, in nats, (n,); nan where it was not asked."""
    partition: IntArray
    """The filter's decisions, as indices into `log.PARTITIONS`, (n,); 0 where the VLM was not asked."""

    @staticmethod
    def none(count: int) -> VLMOpinion:
        """The opinion about `count` pairs for which the VLM was not asked."""
        unknown = np.full(count, np.nan)
        return VLMOpinion(unknown.astype(np.float32), unknown, np.zeros(count, np.int64))

    def of(self, chosen: BoolArray) -> VLMOpinion:
        """The opinion about the pairs that the mask `chosen` (n,) marks."""
        return VLMOpinion(self.labels[chosen], self.divergences[chosen], self.partition[chosen])


@dataclass(frozen=True)
class Query:
    """The pairs about which a session asks, and what teachers need to answer."""

    session: int
    """Number of the session, from 1."""
    starts: IntArray
    """First steps of both segments, (n, 2)."""
    rewards: DoubleArray
    """True rewards of both segments, (n, 2, length)."""
    recent_return: float
    """Mean true return of recent episodes, scaled to the length of a segment."""
    generator: np.random.Generator
    """Source of a teacher's random choices."""
    last: bool
    """Whether this is the last session of the run."""
    opinion: VLMOpinion
    """What the VLM and the filter decided about the pairs."""


class Answers(NamedTuple):
    """Pairs answered or skipped since the last session; each uses one unit of the budget. With late answers they may
    come from earlier queries."""

    starts: IntArray
    """First steps of both segments, (n, 2)."""
    labels: FloatArray
    """P(second segment preferred), 0, 1/2 or 1, (n,)."""
    answered: BoolArray
    """Whether the teacher answered instead of skipping the pair, (n,)."""
    vlm_labels: FloatArray
    """The VLM's labels in the query that asked about the pair, (n,)."""
    divergences: DoubleArray
    """The divergences in the query that asked about the pair, (n,)."""
    waiting: int = 0
    """Number of pairs that may still be answered in a later session; they use their part of the budget already."""


class Teacher(Protocol):
    """Answers the queries of one run."""

    def ask(self, query: Query) -> Answers:
        """The answers available now: those to `query` and, with late answers, to earlier queries."""


@dataclass(frozen=True)
class ScriptedTeacher:
    """A person simulated from true rewards. By default, the perfectly rational oracle."""

    rationality: float = float("inf")
    """Inverse temperature of the Bradley–Terry choice; if infinite, always the larger return."""
    mistake: float = 0.0
    """Probability of the opposite answer."""
    skip_below: float = 0.0
    """Fraction of the recent return; a pair is skipped if neither segment's return exceeds it (0: never)."""
    equal_within: float = 0.0
    """Fraction of the recent return; the answer is 1/2 if the returns differ by less."""
    discount: float = 1.0
    """Weight of a step relative to the next one; below 1, the end of a segment counts most."""

    def ask(self, query: Query) -> Answers:
        """See `Teacher`; all pairs are answered or skipped at once."""
        labels, answered = self.label(query.rewards, query.recent_return, query.generator)
        return Answers(query.starts, labels, answered, query.opinion.labels, query.opinion.divergences)

    def label(
        self, rewards: DoubleArray, recent_return: float, generator: np.random.Generator
    ) -> tuple[FloatArray, BoolArray]:
        """Labels P(second segment preferred) (n,), and whether the teacher answers instead of skipping (n,).

        The order of effects is B-Pref's: pairs are skipped by plain returns, chosen by discounted ones, then mistaken,
        and finally answered 1/2 by plain returns, so such an answer is never mistaken.

        Args:
            rewards: True rewards of both segments, (n, 2, length).
            recent_return: Mean true return of recent episodes, scaled to the length of a segment.
            generator: Source of choices and mistakes.
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


HUMAN = "human"
"""The `feedback.teacher` that stands for people, see `labelling.teacher`."""

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
    {
        "oracle": "always prefers the segment of larger true return",
        "noisy": "prefers it the more probably the larger the difference is (--feedback.teacher-rationality)",
        "mistake": "the oracle, but wrong with a probability of --feedback.teacher-mistake",
        "skip": "the oracle, but skips pairs of two low returns (--feedback.teacher-margin)",
        "equal": "the oracle, but answers 1/2 where the returns are close (--feedback.teacher-margin)",
        "myopic": "the oracle, but the end of a segment counts most (--feedback.teacher-discount)",
        HUMAN: "people, who answer in a notebook or a script while the run waits (docs/howto/label.md)",
    },
)
"""Maps `feedback.teacher` to what makes the teacher from a run's `FeedbackConfig`. `HUMAN` needs a label queue as well
and is not among them."""
