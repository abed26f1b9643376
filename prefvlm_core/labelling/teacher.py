"""People as teachers: training posts its queries to the label queue and waits for the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import URL

from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.frame_steps import frame_steps
from prefvlm_core.domains.frames import check_followed
from prefvlm_core.labelling.address import FROM_ENVIRONMENT, read_address, secrets_of, shown
from prefvlm_core.labelling.clips import ClipMaker
from prefvlm_core.labelling.queue import ClosedPair, LabelQueue, Pair, UnansweredPolicy
from prefvlm_core.labelling.trainers import Heartbeat
from prefvlm_core.preferences.log import PARTITIONS
from prefvlm_core.preferences.teachers import HUMAN, TEACHERS, Answers, Query, Teacher
from prefvlm_core.runs.files import write_probe
from prefvlm_core.vlm.texts import task_text

POLL_SECONDS = 0.5
UNDO_SECONDS = 2.0
"""How long training waits after the last answer of a session, during which that answer can still be taken back."""


def queue_url(execution: Execution) -> URL:
    """The URL of the label queue that `execution` names, by default a SQLite file in the results folder.

    Raises the errors of `read_address`.
    """
    if execution.labels:
        return read_address(execution.labels)
    # Not written as a text: a folder may have any character in its name.
    return read_address(URL.create("sqlite", database=str(Path(execution.results).resolve() / "labels.sqlite")))


def open_queue(execution: Execution) -> LabelQueue:
    """The label queue that `execution` names, created if missing; so is the results folder if it holds the queue.

    Raises `PrefVLMError` if the queue cannot be reached or created.
    """
    if not execution.labels:
        write_probe(Path(execution.results))
    return LabelQueue(queue_url(execution))


def check_queue(execution: Execution) -> None:
    """Raise `PrefVLMError` if the label queue that `execution` names cannot be used; the default one may be missing."""
    url = queue_url(execution)
    if execution.labels or Path(str(url.database)).exists():
        LabelQueue(url)


def stored_queue(execution: Execution) -> LabelQueue | None:
    """The label queue that `execution` names, without creating anything; None where its file does not exist.

    Raises `PrefVLMError` if the queue cannot be reached.
    """
    url = queue_url(execution)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return None
    return LabelQueue(url, create=False)


def line_to_paste(execution: Execution) -> str:
    """The Python code that shows the labeller of the queue that `execution` names, without any password."""
    url = queue_url(execution)
    named = execution.labels if execution.labels.startswith(FROM_ENVIRONMENT) else shown(url)
    hint = "  # with the password in place of ***; or put the URL into an environment variable and write env:NAME"
    secret = bool(secrets_of(url)) and named != execution.labels
    return f'from prefvlm_core import Labeller; Labeller({named!r}, "your name"){hint * secret}'


def make_teachers(configs: Sequence[RunConfig], replay: Replay, execution: Execution) -> list[Teacher]:
    """The teacher of each run of a fleet.

    Raises `PrefVLMError` if a run asks people and the queue cannot be reached, or there is no path for its clips.
    """
    people = any(config.feedback.teacher == HUMAN for config in configs)
    queue, clips = (open_queue(execution), ClipMaker(trace=execution.clip_trace)) if people else (None, None)
    for config in configs:
        if execution.clip_trace and config.feedback.teacher == HUMAN:
            check_followed(config.task)
    if people:
        tqdm.write(f"To answer the pairs of this training, run in a notebook:\n{line_to_paste(execution)}")
    teachers: list[Teacher] = []
    for run, config in enumerate(configs):
        if config.feedback.teacher == HUMAN:
            assert queue is not None and clips is not None
            teachers.append(HumanTeacher(config, replay.of_run(run), queue, clips, execution))
        else:
            teachers.append(TEACHERS[config.feedback.teacher](config.feedback))
    return teachers


class HumanTeacher:
    """Posts the pairs of a session and waits until people have answered them, for at most `label_timeout` seconds.

    Pairs that nobody has answered by then are withdrawn for good and use none of the budget. With `late_answers` they
    stay open instead and keep their part of the budget, and only the first session waits, because no reward can be
    learned before it: a later session posts its pairs and continues with the answers given since the previous one. The
    last session posts no pairs, since nobody could answer them in time, and withdraws those that are open.

    The queue identifies a pair by run, session and number, and remembers which session took its answer. A run that is
    killed and resumed, or repeated from imported labels, therefore finds its answers there and asks nothing twice.
    """

    def __init__(
        self, config: RunConfig, replay: RunReplay, queue: LabelQueue, clips: ClipMaker, execution: Execution
    ) -> None:
        self.config, self.replay = config, replay
        self.queue, self.clips = queue, clips
        self.timeout, self.late_answers = execution.label_timeout, execution.late_answers
        self.heartbeat = Heartbeat(queue, config, replay)

    def ask(self, query: Query) -> Answers:
        """See `Teacher.ask`. Raises `PrefVLMError` if the queue holds other segments for these pairs."""
        # A scripted teacher draws whether it errs, and reward learning draws from the same generator afterwards. With
        # the same draw here, equal answers lead to the same run, bit for bit, whoever gives them.
        query.generator.random(len(query.starts))
        waits = query.session == 1 or not self.late_answers
        if waits or not query.last:
            self._post(query)
        closed = self._wait(query.session) if waits else None
        if closed is None:
            unanswered: UnansweredPolicy = "leave" if self.late_answers and not query.last else "withdraw"
            closed = self.queue.take(self.config.run_id, query.session, unanswered)
            assert closed is not None
        if query.last:
            self.heartbeat.end()
        return _answers(closed, self.queue.left_open(self.config.run_id, query.session))

    def _post(self, query: Query) -> None:
        posted = self.queue.posted(self.config.run_id, query.session)
        for number, starts in enumerate(query.starts.tolist()):
            if number not in posted:
                self.queue.post(self._pair(query, number))
            elif posted[number] != tuple(starts):
                raise PrefVLMError(
                    f"{self.queue.database.name} holds other segments for pair {number} of session {query.session} of "
                    f"{self.config.run_id}, so its labels belong to a run that diverged from this one (other labels, "
                    "threads, device or versions); name an empty queue with --labels."
                )

    def _wait(self, session: int) -> list[ClosedPair] | None:
        """The answers of a session, as soon as they are complete; None if the timeout comes first."""
        run_id, begun = self.config.run_id, time.monotonic()
        if waiting := self.queue.unanswered(run_id, session):
            tqdm.write(f"{waiting} pairs are waiting for answers in {self.queue.database.name}")
        while time.monotonic() - begun < self.timeout:
            if self.queue.unanswered(run_id, session):
                time.sleep(POLL_SECONDS)
                continue
            if waiting:
                time.sleep(UNDO_SECONDS)
            closed = self.queue.take(run_id, session, unanswered="wait")
            if closed is not None:
                return closed
        return None

    def _pair(self, query: Query, number: int) -> Pair:
        length = self.config.feedback.segment_length
        first, second = query.starts[number].tolist()
        steps = frame_steps(query.starts[number], length, stride=1)
        snapshots, scenes = self.replay.shown(steps.ravel())
        frames, clip = self.clips.make(
            self.config.task,
            snapshots.reshape(2, length, -1),
            scenes.reshape(2, length, -1)[:, 0],
            self.config.view.perturbation(self.config.seed),
        )
        returns = query.rewards[number].sum(-1)
        return Pair(
            run_id=self.config.run_id,
            session=query.session,
            pair=number,
            budget=self.config.feedback.budget,
            task=self.config.task,
            text=task_text(self.config.task),
            first=first,
            second=second,
            length=length,
            frames=frames,
            clip=clip,
            vlm_label=_none_if_nan(query.opinion.labels[number]),
            divergence=_none_if_nan(query.opinion.divergences[number]),
            partition=PARTITIONS[query.opinion.partition[number]],
            truth=float(1 + np.sign(returns[1] - returns[0])) / 2,
        )


def _none_if_nan(value: float) -> float | None:
    """`value` as the queue stores it."""
    return None if np.isnan(value) else float(value)


def _answers(closed: Sequence[ClosedPair], waiting: int) -> Answers:
    return Answers(
        starts=np.array([(pair.first, pair.second) for pair in closed], np.int64).reshape(-1, 2),
        labels=np.array([0.5 if pair.label is None else pair.label for pair in closed], np.float32),
        answered=np.array([pair.label is not None for pair in closed], bool),
        vlm_labels=np.array([pair.vlm_label for pair in closed], np.float32),  # None becomes nan
        divergences=np.array([pair.divergence for pair in closed], np.float64),
        waiting=waiting,
    )
