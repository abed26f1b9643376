"""Feedback sessions of one run: which pairs are asked, who answers, and what reward learning gets to see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefvlm_core.agent.replay import IntArray, Replay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import RunConfig
from prefvlm_core.preferences.filters import KLFilter, Partition, divergence
from prefvlm_core.preferences.log import LabelLog
from prefvlm_core.preferences.pairs import PreferenceBuffer, preference_probability
from prefvlm_core.preferences.teachers import Query, Teacher
from prefvlm_core.reward import rime, surf
from prefvlm_core.reward.ensemble import RewardEnsemble, RewardLearning
from prefvlm_core.runs.directory import ADAPTERS_FILE
from prefvlm_core.vlm.adapters import AdapterLearning, Adapters
from prefvlm_core.vlm.encoder import VLMTeacher
from prefvlm_core.vlm.simulated import simulated_returns

TIE_MARGIN = 0.5
"""Where the VLM may tie: returns closer than this times the standard deviation of all returns of the session."""


class Feedback:
    """The labels of one run so far, and how the next ones are won.

    Without a VLM every query goes to the human (PEBBLE). With one, the human answers a first session alone; from then
    on the VLM labels pairs, the KL filter sorts its labels, and the human is asked about uncertain ones (PrefVLM §4).
    Human labels are never filtered.
    """

    def __init__(
        self,
        config: RunConfig,
        run: int,
        replay: Replay,
        ensemble: RewardEnsemble,
        vlm: VLMTeacher | None,
        teacher: Teacher,
        generator: np.random.Generator,
        stopwatch: Stopwatch,
        results: str | Path,
    ) -> None:
        self.config = config
        self.run, self.replay, self.ensemble, self.vlm, self.teacher = run, replay, ensemble, vlm, teacher
        self.generator, self.stopwatch = generator, stopwatch
        self.filter = KLFilter(config.filter)
        self.adapters: Adapters | None = None
        if vlm is not None and config.vlm.labels and config.adapter.enabled:
            self.adapters = _adapters(config, vlm.fingerprint(run), len(vlm.text(run)), generator, Path(results))
        self.human = PreferenceBuffer()
        """Pairs with human labels."""
        self.kept = PreferenceBuffer()
        """Pairs that reward learning sees with a label of the VLM, flipped where the filter said so."""
        self.asked_vlm = PreferenceBuffer()
        """Every pair that the VLM was asked about and the human was not, with the VLM's label of the latest session."""
        self.unlabelled: IntArray = np.empty((0, 2), np.int64)
        """SURF: pairs that nobody is asked about, (n, 2)."""
        self.log = LabelLog()
        self.human_labels = 0
        self.waiting_queries = 0
        """Pairs that the human may still answer in a later session; they count against the budget."""
        self.sessions = 0

    def due(self, step: int) -> bool:
        """Whether a session takes place before environment step `step`."""
        since = step - self.config.first_session_step
        if self.config.reward.source != "learned" or since < 0 or since % self.config.feedback.session_every:
            return False
        return self._human_queries() > 0 or self.waiting_queries > 0 or self.config.vlm.labels

    def labelled(self) -> PreferenceBuffer:
        """What reward learning sees now."""
        both = PreferenceBuffer(self.human.starts, self.human.labels)
        both.add(self.kept.starts, self.kept.labels)
        return both

    def session(self) -> dict[str, float]:
        """Win labels; returns columns for metrics.csv."""
        if self.config.vlm.labels and (self.sessions > 0 or not self.config.feedback.budget):
            metrics = self._selective_session()
        else:
            queries = self._human_queries()
            self._ask_human(self._choose(queries))
            if self.config.reward.learning == "surf":
                more = self._draw(queries * self.config.surf.unlabelled_ratio)
                self.unlabelled = np.concatenate((self.unlabelled, more))
            metrics = {}
        metrics |= self._adapt() if self.adapters is not None and len(self.human) else {}
        self.sessions += 1
        return {"sessions": self.sessions} | metrics

    def learn_rewards(self) -> dict[str, float]:
        """Fit the ensemble to the labels, in the way that `reward.learning` names; returns columns for metrics.csv."""
        buffer, length = self.labelled(), self.config.feedback.segment_length
        if self.config.reward.standardise:
            self.ensemble.standardise(self.replay, self.run)
        common = self.ensemble, self.replay, self.run, buffer
        learning: RewardLearning
        metrics: dict[str, float] = {}
        if self.config.reward.learning == "rime":
            truth = self._truth(buffer.starts)
            learning, metrics = rime.learn(*common, truth, length, self.config.rime, self.filter, self.generator)
        elif self.config.reward.learning == "surf":
            pseudo = self.unlabelled, self._truth(self.unlabelled)
            learning, metrics = surf.learn(*common, *pseudo, length, self.config.surf, self.generator)
        else:
            learning = self.ensemble.learn(self.replay, self.run, buffer, length, self.generator)
        return {"reward_epochs": learning.epochs, "reward_training_accuracy": learning.accuracy} | metrics

    def meta_due(self, step: int) -> bool:
        """Whether MRN updates the ensemble through the critic before environment step `step`."""
        every, remain = self.config.mrn.meta_every, self.human_labels < self.config.feedback.budget
        return every > 0 and step % every == 0 and remain and len(self.human) > 0

    def latest(self) -> PreferenceBuffer:
        """The pairs of MRN's outer loss: as many of the newest human labels as a session asks for."""
        count = self.config.feedback.session_queries
        return PreferenceBuffer(self.human.starts[-count:], self.human.labels[-count:])

    def _human_queries(self) -> int:
        feedback = self.config.feedback
        wanted = feedback.session_queries if self.sessions else feedback.first_session_queries
        return min(wanted, feedback.budget - self.human_labels - self.waiting_queries)

    def _draw(self, count: int) -> IntArray:
        feedback = self.config.feedback
        margin = self.config.surf.window if self.config.reward.learning == "surf" else 0
        length = feedback.segment_length + 2 * margin
        return margin + self.replay.draw_segments(self.generator, count, length, feedback.recent_episodes)

    def _choose(self, count: int) -> IntArray:
        """Pairs to ask where no VLM labels any, (count, 2): uniform, or after the first session disputed ones."""
        if self.config.feedback.sampling == "uniform" or self.sessions == 0:
            return self._draw(count)
        return self._most_disputed(count)

    def _most_disputed(self, count: int) -> IntArray:
        """Of `candidates` times as many pairs, the `count` on which the members' probabilities spread most."""
        if count == 0:
            return self._draw(0)
        starts = self._draw(count * self.config.feedback.candidates)
        spread = self._member_probabilities(starts).std(0)
        return starts[torch.topk(spread, count).indices.cpu().numpy()]

    def _ask_human(self, starts: IntArray, **known: NDArray[Any]) -> None:
        """Ask the human about pairs (n, 2); answers join `human`, and show the filter how right the VLM's labels were.
        `known`: what the VLM and the filter say, as `Query` names it."""
        length = self.config.feedback.segment_length
        rewards = self.replay.true_segment_rewards(self.run, starts, length)
        scale = length / self.replay.horizon
        recent_return = self.replay.recent_return(self.run) * scale
        unknown = np.full(len(starts), np.nan, np.float32)
        nothing: dict[str, NDArray[Any]] = {
            "vlm_labels": unknown,
            "divergences": unknown,
            "partition": np.zeros(len(starts), np.int64),
        }
        last = self.replay.size + self.config.feedback.session_every >= self.config.total_steps
        query = Query(self.sessions + 1, starts, rewards, recent_return, self.generator, last, **(nothing | known))
        answers = self.teacher.ask(query)
        asked, labels = answers.starts[answers.answered], answers.labels[answers.answered]
        self.human.add(asked, labels)
        self.human_labels += len(answers.labels)
        self.waiting_queries = answers.waiting
        self.log.add(self.replay.size, self.sessions + 1, "human", asked, labels, self._truth(asked))
        audited = answers.answered & ~np.isnan(answers.vlm_labels)
        if audited.any():
            right = answers.vlm_labels == answers.labels
            self.filter.audit(answers.divergences[audited], right[audited])

    def _truth(self, starts: IntArray) -> NDArray[np.float64]:
        """P(second preferred) of pairs (n, 2) by the true reward: 0, 1/2 or 1, (n,)."""
        returns = self.replay.true_segment_rewards(self.run, starts, self.config.feedback.segment_length).sum(-1)
        return (1 + np.sign(returns[:, 1] - returns[:, 0])) / 2

    def _selective_session(self) -> dict[str, float]:
        """The VLM labels, the filter sorts, the human answers within budget (PrefVLM §4.2–4.3)."""
        selection = self.config.filter.human_selection
        new = self._draw(self.config.vlm.queries)
        pool = np.concatenate((self.asked_vlm.starts, new)) if self.config.vlm.relabel else new
        returns, zero_shot = self._vlm_returns(pool)
        labels = self._vlm_labels(returns)
        divergences = divergence(labels, self._probabilities(pool))
        if self.config.filter.mode == "rime" and len(trusted := self.labelled()):
            self.filter.observe(divergence(trusted.labels, self._probabilities(trusted.starts)))
        partition = self.filter.split(divergences)

        fresh = np.arange(len(pool)) >= len(pool) - len(new)
        truth = self._truth(pool)
        sorted_as = 1 + np.argmax(partition, axis=0)  # index into label_log.PARTITIONS
        columns = labels, truth, divergences, sorted_as
        self.log.add(self.replay.size, self.sessions + 1, "vlm", new, *(column[fresh] for column in columns))
        candidates = {"uncertain": fresh & partition.uncertain, "random": fresh}[selection]
        asked = self._choose_for_human(candidates)
        known = {"vlm_labels": labels[asked], "divergences": divergences[asked], "partition": sorted_as[asked]}
        self._ask_human(pool[asked], **known)
        metrics = self._partition_metrics(truth, zero_shot, labels, partition)

        keep = (partition.clean | partition.flipped) & ~asked
        if self.config.vlm.ties == "drop":
            keep &= labels != 0.5
        values = np.where(partition.flipped, 1 - labels, labels)
        kept = PreferenceBuffer(pool[keep], values[keep].astype(np.float32))
        if self.config.vlm.relabel:
            self.kept, self.asked_vlm = kept, PreferenceBuffer(pool[~asked], labels[~asked])
        else:
            self.kept.add(kept.starts, kept.labels)
            self.asked_vlm.add(pool[~asked], labels[~asked])
        return metrics

    def _vlm_labels(self, returns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Labels (n,) of the VLM's returns (n, 2)."""
        difference = returns[:, 1] - returns[:, 0]
        labels = (difference > 0).astype(np.float32)
        if self.config.vlm.ties != "none":
            labels[np.abs(difference) < TIE_MARGIN * returns.std()] = 0.5
        return labels

    def _vlm_returns(self, starts: IntArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns (n, 2) that the VLM gives to pairs (n, 2): adapted where there are adapters, and zero-shot."""
        if (accuracy := self.config.vlm.simulated_accuracy) is not None:
            simulated = simulated_returns(starts, self._truth(starts), accuracy, self.config.seed)
            return simulated, simulated
        assert self.vlm is not None
        frames = self.vlm.frames(self.run, starts)
        zero_shot = self.vlm.zero_shot_returns(self.run, frames)
        if self.adapters is None:
            return zero_shot, zero_shot
        return np.asarray(self.adapters.returns(self.vlm.text(self.run), frames)), zero_shot

    def _choose_for_human(self, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A uniform choice among `candidates` (n,) within the budgets of session and run: (n,)."""
        where = np.flatnonzero(candidates)
        count = min(len(where), self._human_queries())
        chosen = np.zeros(len(candidates), bool)
        chosen[self.generator.choice(where, count, replace=False)] = True
        return chosen

    def _adapt(self) -> dict[str, float]:
        """Train the adapters on the human's pairs and on the actions between their frames."""
        assert self.vlm is not None and self.adapters is not None
        with self.stopwatch("adapters"):
            decided = self.human.labels != 0.5
            starts, labels = self.human.starts[decided], self.human.labels[decided]
            if not len(starts):
                return {}
            frames = self.vlm.frames(self.run, starts)
            recent = self.asked_vlm.starts[-self.config.vlm.queries :] if len(self.asked_vlm) else starts
            dynamics = self.vlm.dynamics(self.run, recent, self.vlm.frames(self.run, recent))
            learning: AdapterLearning = self.adapters.learn(
                self.vlm.text(self.run), frames, labels, dynamics, self.generator
            )
        return {
            "adapter_preference_loss": learning.preference_loss,
            "adapter_dynamics_loss": learning.dynamics_loss,
            "adapter_accepted": float(learning.accepted),
        }

    def _member_probabilities(self, starts: IntArray) -> torch.Tensor:
        length = self.config.feedback.segment_length
        return preference_probability(self.ensemble.member_returns(self.replay, self.run, starts, length))

    def _probabilities(self, starts: IntArray) -> NDArray[np.float64]:
        """P(second preferred) of pairs (n, 2), mean of the members' (n,)."""
        return self._member_probabilities(starts).double().mean(0).cpu().numpy()

    def _partition_metrics(
        self,
        truth: NDArray[np.float64],
        zero_shot: NDArray[np.float32],
        labels: NDArray[np.float32],
        partition: Partition,
    ) -> dict[str, float]:
        """How good labels were, against the true reward; pairs of equal true return are left out."""

        def accuracy(said: NDArray[Any], where: NDArray[np.bool_]) -> float:
            counted = where & (truth != 0.5)
            return float(np.mean(said[counted] == truth[counted])) if counted.any() else math.nan

        everything = np.ones(len(truth), bool)
        return {
            "vlm_accuracy": accuracy(zero_shot[:, 1] > zero_shot[:, 0], everything),
            "adapted_vlm_accuracy": accuracy(labels, labels != 0.5),
            "vlm_equal_fraction": float(np.mean(labels == 0.5)),
            "clean_accuracy": accuracy(labels, partition.clean & (labels != 0.5)),
            "flipped_accuracy": accuracy(1 - labels, partition.flipped),
            "uncertain_accuracy": accuracy(labels, partition.uncertain),
            "clean_fraction": float(partition.clean.mean()),
            "flipped_fraction": float(partition.flipped.mean()),
            "uncertain_fraction": float(partition.uncertain.mean()),
            "tau_lower": self.filter.lower,
            "tau_upper": self.filter.upper,
        }

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and scalars of a checkpoint."""
        tensors = {} if self.adapters is None else {f"adapters.{k}": v for k, v in self.adapters.state().items()}
        for name in ("human", "kept", "asked_vlm"):
            buffer: PreferenceBuffer = getattr(self, name)
            tensors[f"{name}.starts"] = torch.from_numpy(buffer.starts)
            tensors[f"{name}.labels"] = torch.from_numpy(buffer.labels)
        tensors["log"] = torch.from_numpy(self.log.rows)
        if self.config.reward.learning == "surf":
            tensors["unlabelled"] = torch.from_numpy(self.unlabelled)
        counts = {name: getattr(self, name) for name in ("human_labels", "waiting_queries", "sessions")}
        return tensors, counts | {"filter": self.filter.state()}

    def restore(self, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
        """Inverse of `state`."""
        for name in ("human", "kept", "asked_vlm"):
            setattr(self, name, PreferenceBuffer(*(tensors[f"{name}.{part}"].numpy() for part in ("starts", "labels"))))
        if self.adapters is not None:
            self.adapters.load({name: tensors[f"adapters.{name}"] for name in self.adapters.state()})
        self.log.rows = tensors["log"].numpy()
        if self.config.reward.learning == "surf":
            self.unlabelled = tensors["unlabelled"].numpy()
        self.human_labels, self.sessions = scalars["human_labels"], scalars["sessions"]
        self.waiting_queries = scalars.get("waiting_queries", 0)  # older checkpoints know of none
        self.filter.restore(scalars["filter"])


def _adapters(
    config: RunConfig, backbone: str, dimension: int, generator: np.random.Generator, results: Path
) -> Adapters:
    """Fresh adapters, or those of the run that `adapter.source` names (transfer of PrefVLM and ROVED)."""
    device = torch.device("cpu")
    if not config.adapter.source:
        return Adapters(config.adapter, dimension, generator, device)
    path = results / config.adapter.source / ADAPTERS_FILE
    if not path.exists():
        raise PrefVLMError(f"adapter.source is {config.adapter.source}, but there is no {path}; train that run first.")
    return Adapters.read(path, backbone, config.adapter, dimension, device)
