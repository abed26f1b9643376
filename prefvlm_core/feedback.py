"""Feedback sessions of one run: which pairs are asked, who answers, and which labels reward learning uses.

Read `Feedback.session` from top to bottom to follow one session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.common.arrays import BoolArray, IntArray
from prefvlm_core.common.seeding import Generators, Stream, generator
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.common.tensors import copy_tensors
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.labelling.teacher import make_teachers
from prefvlm_core.preferences.budget import Budget
from prefvlm_core.preferences.filters import FILTERS, divergence
from prefvlm_core.preferences.labels import RunLabels
from prefvlm_core.preferences.pairs import PreferenceBuffer
from prefvlm_core.preferences.pool import LabelledPool
from prefvlm_core.preferences.selection import HUMAN_SELECTIONS, SELECTIONS, PairSource, UniformSelection, most_disputed
from prefvlm_core.preferences.teachers import Query, Teacher, VLMOpinion
from prefvlm_core.reward.ensemble import RewardEnsemble, RunEnsemble, reward_accuracy
from prefvlm_core.reward.learners import LEARNERS
from prefvlm_core.reward.learning import Learning, LearningSetting
from prefvlm_core.vlm import asks_endpoint, uses_vlm
from prefvlm_core.vlm.encoder import FleetEncoder
from prefvlm_core.vlm.endpoint.client import EndpointClient
from prefvlm_core.vlm.endpoint.source import EndpointVLM
from prefvlm_core.vlm.endpoint.strips import StripMaker
from prefvlm_core.vlm.labeller import LabelSource, labels_of, make_label_source


class Feedback:
    """The labels of one run so far, and how the next ones are collected.

    Without a VLM, every query goes to the human (PEBBLE). With a VLM, the human alone labels the pairs of the first
    session. From then on the VLM labels pairs, the KL filter sorts its labels, and the human is asked about uncertain
    ones (PrefVLM §4). Human labels are never filtered. `stream` is the generator of all random choices but those of
    adapters, which draw from `adapter_stream`.
    """

    def __init__(
        self,
        config: RunConfig,
        replay: RunReplay,
        ensemble: RunEnsemble,
        vlm: LabelSource | None,
        teacher: Teacher,
        stream: np.random.Generator,
        adapter_stream: np.random.Generator,
    ) -> None:
        self.config, self.length = config, config.feedback.segment_length
        self.replay, self.ensemble, self.vlm, self.teacher = replay, ensemble, vlm, teacher
        self.generator, self.adapter_generator = stream, adapter_stream
        self.budget = Budget(config)
        self.filter = FILTERS[config.filter.mode](config.filter)
        self.selection = SELECTIONS[config.feedback.sampling](config.feedback)
        self.human_selection = HUMAN_SELECTIONS[config.filter.human_selection]
        self.pairs = PairSource(config, replay, stream)
        self.learner = LEARNERS[config.reward.learning](LearningSetting(config, ensemble, replay, self.pairs, stream))
        self.labels = RunLabels()
        self.sessions = 0
        self.asked = 0
        """Number of pairs that the human was asked about in the latest session without labels of the VLM."""

    def due(self, step: int) -> bool:
        """Whether a session takes place before step `step`."""
        since = step - self.config.first_session_step
        if self.config.reward.source != "learned" or since < 0 or since % self.config.feedback.session_every:
            return False
        return self._queries() > 0 or self.budget.waiting > 0 or self.vlm is not None

    def session(self) -> dict[str, float]:
        """Hold one session, which collects labels. Returns columns for metrics.csv."""
        metrics: dict[str, float] = {}
        if self.vlm is None or (self.sessions == 0 and self.config.feedback.budget):
            self._ask_human(self._select())
        else:
            pool = self._label(self.vlm, self._draw())
            self._log(pool)
            asked = self._choose_for_human(pool.starts, self.human_selection(pool.partition, pool.new))
            self._ask_human(pool.starts[asked], VLMOpinion(pool.labels, pool.divergences, pool.sorted_as).of(asked))
            metrics |= self.vlm.columns() | pool.metrics(self.filter)
            self._keep(pool, ~asked)
        if self.vlm is not None and len(self.labels.human):
            recent = self.labels.asked_vlm.starts[-self.config.vlm.queries :]
            metrics |= self.vlm.adapt(self.labels.human, recent, self.adapter_generator)
        self.sessions += 1
        return {"sessions": self.sessions} | metrics

    def learn_rewards(self) -> Learning[dict[str, float]]:
        """Fit the ensemble to the labels and relabel the replay. Its outcome: columns for metrics.csv."""
        if self.config.reward.standardise:
            self.ensemble.standardise(self.replay)
        labels = self.labels.for_learning(self.config.reward.stop_on == "human", self.filter.reliability)
        learning = yield from self.learner.learn(labels, self.asked)
        self.ensemble.relabel(self.replay)
        metrics = {"reward_epochs": learning.epochs, "reward_training_accuracy": learning.accuracy}
        return metrics | dict(learning.metrics)

    def meta_due(self, step: int) -> bool:
        """Whether MRN updates the ensemble through the critic before step `step`."""
        every, remain = self.config.mrn.meta_every, self.budget.spent < self.config.feedback.budget
        return every > 0 and step % every == 0 and remain and len(self.labels.human) > 0

    def latest(self) -> PreferenceBuffer:
        """The pairs of MRN's outer loss: `feedback.session_queries` of the newest human labels."""
        return self.labels.newest_human(self.config.feedback.session_queries)

    def _queries(self) -> int:
        """Number of pairs about which the human may be asked at this step."""
        since = self.replay.size - self.config.first_session_step
        return self.budget.queries(since // self.config.feedback.session_every)

    def _select(self) -> IntArray:
        """Pairs (count, 2) for the human in a session without labels of the VLM.

        The first session takes random pairs, because the ensemble has learned nothing yet.
        """
        self.asked = self._queries()
        if self.config.feedback.paired_start and not self.sessions:
            return self.pairs.first(self.asked)
        selection = self.selection if self.sessions else UniformSelection()
        return selection.choose(self.pairs, self.asked, self._member_probabilities)

    def _draw(self) -> IntArray:
        """The pairs (n, 2) for the VLM: those of earlier sessions, if they are labeled again, followed by new ones."""
        new = self.pairs.draw(self.config.vlm.queries)
        earlier = self.labels.asked_vlm.starts if self.config.vlm.relabel else self.labels.asked_vlm.starts[:0]
        return np.concatenate((earlier, new))

    def _label(self, vlm: LabelSource, starts: IntArray) -> LabelledPool:
        """Label pairs (n, 2) by the VLM, and sort the labels by the filter (PrefVLM §4.2); unanswered ones drop out."""
        new = np.arange(len(starts)) >= len(starts) - self.config.vlm.queries
        judgement = vlm.judge(starts)
        answered = judgement.answered
        starts, judgement = starts[answered], judgement.of(answered)
        labels = labels_of(judgement.returns, self.config.vlm.ties)
        trusted = self.labels.for_learning() if self.filter.uses_trusted else PreferenceBuffer()
        members = self._member_probabilities(np.concatenate((starts, trusted.starts)))
        probabilities = members.double().mean(0).cpu().numpy()
        divergences = divergence(labels, probabilities[: len(starts)])
        if len(trusted):
            self.filter.observe(divergence(trusted.labels, probabilities[len(starts) :]))
        return LabelledPool(
            starts=starts,
            new=new[answered],
            labels=labels,
            zero_shot=judgement.zero_shot,
            divergences=divergences,
            partition=self.filter.split(divergences),
            truth=self.replay.true_labels(starts, self.length),
        )

    def _log(self, pool: LabelledPool) -> None:
        """Log the VLM's labels of the new pairs as they were given, before any flip."""
        new = pool.new
        self.labels.log.add(
            self.replay.size,
            self.sessions + 1,
            "vlm",
            pool.starts[new],
            labels=pool.labels[new],
            truth=pool.truth[new],
            divergences=pool.divergences[new],
            partition=pool.sorted_as[new],
        )

    def _choose_for_human(self, starts: IntArray, candidates: BoolArray) -> BoolArray:
        """Mask (n,) of the pairs `starts` (n, 2) to ask about: as many `candidates` (n,) as the budget allows."""
        where = np.flatnonzero(candidates)
        count = min(len(where), self._queries())
        if self.config.filter.human_order == "disagreement":
            chosen = where[most_disputed(starts[where], count, self._member_probabilities)]
        else:
            chosen = self.generator.choice(where, count, replace=False)
        return np.isin(np.arange(len(starts)), chosen)

    def _ask_human(self, starts: IntArray, opinion: VLMOpinion | None = None) -> None:
        """Ask the human about pairs (n, 2), log the answers, and show the filter which VLM labels were right."""
        query = Query(
            session=self.sessions + 1,
            starts=starts,
            rewards=self.replay.true_segment_rewards(starts, self.length),
            recent_return=self.replay.recent_return() * (self.length / self.replay.horizon),
            generator=self.generator,
            last=self.replay.size + self.config.feedback.session_every >= self.config.total_steps,
            opinion=opinion or VLMOpinion.none(len(starts)),
        )
        answers = self.teacher.ask(query)
        asked, labels = answers.starts[answers.answered], answers.labels[answers.answered]
        self.labels.human.add(asked, labels)
        self.budget.spend(len(answers.labels), answers.waiting)
        truth = self.replay.true_labels(asked, self.length)
        self.labels.log.add(self.replay.size, self.sessions + 1, "human", asked, labels, truth)
        audited = answers.answered & ~np.isnan(answers.vlm_labels)
        if audited.any():
            right = answers.vlm_labels == answers.labels
            self.filter.audit(answers.divergences[audited], right[audited])

    def _keep(self, pool: LabelledPool, unasked: BoolArray) -> None:
        """Give reward learning the labels that the filter keeps or flips, except for pairs that the human was asked."""
        keep = (pool.partition.clean | pool.partition.flipped) & unasked
        if self.config.vlm.ties == "drop":
            keep &= pool.labels != 0.5
        if self.config.vlm.relabel:
            self.labels.forget_vlm()
        self.labels.kept.add(pool.starts[keep], pool.used_labels[keep])
        self.labels.asked_vlm.add(pool.starts[unasked], pool.labels[unasked])

    def _member_probabilities(self, starts: IntArray) -> Tensor:
        return self.ensemble.member_probabilities(self.replay, starts, self.length)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and values of a checkpoint."""
        tensors = {f"labels.{name}": tensor for name, tensor in self.labels.tensors().items()}
        tensors |= {f"learner.{name}": tensor for name, tensor in self.learner.tensors().items()}
        tensors |= {f"vlm.{name}": tensor for name, tensor in (self.vlm.state() if self.vlm else {}).items()}
        values = {"budget": self.budget.values(), "filter": self.filter.state(), "learner": self.learner.values()}
        return tensors, values | {"sessions": self.sessions, "asked": self.asked}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.labels.restore({name: tensors[f"labels.{name}"] for name in self.labels.tensors()})
        learned = {name: tensors[f"learner.{name}"] for name in self.learner.tensors()}
        self.learner.restore(learned, values["learner"])
        if self.vlm is not None:
            copy_tensors(tensors, {f"vlm.{name}": tensor for name, tensor in self.vlm.state().items()})
        self.budget.restore(values["budget"])
        self.filter.restore(values["filter"])
        self.sessions, self.asked = values["sessions"], values["asked"]


def evaluation_columns(feedback: Feedback, step: int) -> dict[str, float]:
    """Columns for metrics.csv at an evaluation: the labels so far and how many are right, and the learned reward's
    accuracy on held-out pairs and standard deviation."""
    config, replay, labels = feedback.config, feedback.replay, feedback.labels
    accuracy = float("nan")
    if feedback.sessions:
        held_out = generator(config.seed, Stream.HELD_OUT, step)
        accuracy = reward_accuracy(replay, feedback.ensemble, config, held_out)
    return {
        "human_labels": feedback.budget.spent,
        "vlm_labels": len(labels.kept),
        "human_label_accuracy": _accuracy(labels.human, replay, feedback.length),
        "vlm_label_accuracy": _accuracy(labels.kept, replay, feedback.length),
        "reward_accuracy": accuracy,
        "reward_std": float(replay.rewards[: replay.size].std()),
    }


def _accuracy(buffer: PreferenceBuffer, replay: RunReplay, length: int) -> float:
    """Fraction of labels that the true reward would give too, without its ties and labels 1/2; nan if all are."""
    truth = replay.true_labels(buffer.starts, length)
    decided = (truth != 0.5) & (buffer.labels != 0.5)
    return float(np.mean(buffer.labels[decided] == truth[decided])) if decided.any() else float("nan")


def make_feedback(
    configs: Sequence[RunConfig],
    replay: Replay,
    ensemble: RewardEnsemble,
    encoder: FleetEncoder,
    generators: Generators,
    stopwatch: Stopwatch,
    execution: Execution,
) -> list[Feedback]:
    """The feedback sessions of every run of a fleet, each with its own label source, teacher and random stream."""
    teachers = make_teachers(configs, replay, execution)
    client = EndpointClient(execution)
    feedback = []
    for run, (config, teacher) in enumerate(zip(configs, teachers, strict=True)):
        seen, stream = replay.of_run(run), generators[Stream.FEEDBACK][run]
        adapter_stream = generators[Stream.ADAPTERS][run] if config.feedback.paired_start else stream
        vlm: LabelSource | None
        if asks_endpoint(config):
            vlm = EndpointVLM(config, StripMaker(encoder, run, config), client, stopwatch)
        else:
            run_encoder = encoder.of_run(run) if uses_vlm(config) else None
            vlm = make_label_source(config, seen, run_encoder, adapter_stream, stopwatch, Path(execution.results))
        feedback.append(Feedback(config, seen, ensemble.of_run(run), vlm, teacher, stream, adapter_stream))
    return feedback
