"""Feedback sessions of one run: which pairs are asked, who answers, and what the preference buffer gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prefvlm_core.config import FeedbackConfig, RunConfig
from prefvlm_core.preferences import PreferenceBuffer, preference_probability
from prefvlm_core.replay import IntArray, Replay
from prefvlm_core.reward import RewardEnsemble
from prefvlm_core.teachers import scripted_teacher


class Feedback:
    """The labels of one run so far, and how the next ones are won."""

    def __init__(self, config: RunConfig) -> None:
        self.config: FeedbackConfig = config.feedback
        self.first_step = config.learning_starts
        self.learned = config.reward.source == "learned"
        self.teacher = scripted_teacher(config.feedback)
        self.buffer = PreferenceBuffer()
        self.human_labels = 0
        self.sessions = 0

    def due(self, step: int) -> bool:
        """Whether a session takes place before environment step `step`."""
        since = step - self.first_step
        return self.learned and since >= 0 and since % self.config.session_every == 0 and self._queries() > 0

    def session(
        self, replay: Replay, run: int, ensemble: RewardEnsemble, generator: np.random.Generator
    ) -> dict[str, float]:
        """Ask the human within the budget and add the answers to the buffer; returns columns for metrics.csv."""
        starts = self._choose(self._queries(), replay, run, ensemble, generator)
        rewards = replay.true_segment_rewards(run, starts, self.config.segment_length)
        segment_share = self.config.segment_length / replay.horizon
        answers = self.teacher.label(rewards, replay.recent_return(run) * segment_share, generator)
        self.buffer.add(starts[answers.answered], answers.labels[answers.answered])
        self.human_labels += len(starts)
        self.sessions += 1
        return {"sessions": self.sessions}

    def _queries(self) -> int:
        wanted = self.config.session_queries if self.sessions else self.config.first_session_queries
        return min(wanted, self.config.budget - self.human_labels)

    def _choose(
        self, count: int, replay: Replay, run: int, ensemble: RewardEnsemble, generator: np.random.Generator
    ) -> IntArray:
        """Pairs to ask, (count, 2): uniform, or those on which the members' probabilities spread most."""
        disputed = self.config.sampling == "disagreement" and self.sessions > 0
        drawn = count * self.config.candidates if disputed else count
        starts = replay.draw_segments(generator, drawn, self.config.segment_length, self.config.recent_episodes)
        if not disputed:
            return starts
        spread = preference_probability(ensemble.member_returns(replay, run, starts, self.config.segment_length)).std(0)
        return starts[torch.topk(spread, count).indices.cpu().numpy()]

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and scalars of a checkpoint."""
        tensors = {"starts": torch.from_numpy(self.buffer.starts), "labels": torch.from_numpy(self.buffer.labels)}
        return tensors, {"human_labels": self.human_labels, "sessions": self.sessions}

    def restore(self, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.buffer = PreferenceBuffer(tensors["starts"].numpy(), tensors["labels"].numpy())
        self.human_labels, self.sessions = scalars["human_labels"], scalars["sessions"]


def reward_accuracy(
    replay: Replay, run: int, ensemble: RewardEnsemble, config: RunConfig, generator: np.random.Generator
) -> float:
    """Fraction of random pairs that the ensemble orders as the true reward does; pairs of equal true return are left
    out."""
    length = config.feedback.segment_length
    starts = replay.draw_segments(generator, config.evaluation.held_out_pairs, length, config.feedback.recent_episodes)
    rewards = replay.true_segment_rewards(run, starts, length).sum(-1)
    truth = rewards[:, 1] - rewards[:, 0]
    returns = ensemble.member_returns(replay, run, starts, length).mean(0).double().cpu().numpy()
    decided = truth != 0
    return float(np.mean(((returns[:, 1] - returns[:, 0]) * truth > 0)[decided])) if decided.any() else float("nan")
