"""People as teachers: training posts its queries to the label queue and waits; a script can stand in for a person."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from prefvlm_core.agent.replay import Replay, RunReplay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.labelling.clips import ClipMaker
from prefvlm_core.labelling.queue import Annotator, LabelQueue, Missing, Pair, Taken
from prefvlm_core.preferences.log import PARTITIONS
from prefvlm_core.preferences.teachers import HUMAN, TEACHERS, Answers, Query, Teacher
from prefvlm_core.vlm.texts import task_text

POLL_SECONDS = 0.5
UNDO_SECONDS = 2.0
"""Training takes a session so long after its last answer, in which that one can still be taken back."""

_TRAIN = """
import json, sys
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.train import train
train([RunConfig.from_json(sys.argv[1])], Execution(**json.loads(sys.argv[2])))
"""


def queue_url(execution: Execution) -> str:
    """URL of the label queue that `execution` names; by default a SQLite file in the results folder, which is made."""
    if execution.labels:
        return execution.labels
    folder = Path(execution.results).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'labels.sqlite'}"


def make_teachers(configs: Sequence[RunConfig], replay: Replay, execution: Execution) -> list[Teacher]:
    """The teacher of each run of a fleet. Raises `PrefVLMError` where people are to be asked and the queue cannot be
    reached."""
    people = any(config.feedback.teacher == HUMAN for config in configs)
    queue, clips = (LabelQueue(queue_url(execution)), ClipMaker()) if people else (None, None)
    teachers: list[Teacher] = []
    for run, config in enumerate(configs):
        if config.feedback.teacher == HUMAN:
            assert queue is not None and clips is not None
            teachers.append(HumanTeacher(config, replay.of_run(run), queue, clips, execution))
        else:
            teachers.append(TEACHERS[config.feedback.teacher](config.feedback))
    return teachers


class HumanTeacher:
    """Posts the pairs of a session and waits until people have answered them, or `label_timeout` seconds.

    What nobody has answered by then is withdrawn for good and costs nothing of the budget. With `late_answers` it stays
    open instead and counts against the budget, and only the first session waits, since there is no reward to learn
    before: a later one posts its pairs and goes on with the answers given since the one before it. The last session
    posts none, which nobody could answer in time, and withdraws what is open.

    The queue knows a pair by run, session and number, and which session took its answer, so a run that is killed and
    resumed, or repeated from imported labels, finds the answers there and asks nothing twice.
    """

    def __init__(
        self, config: RunConfig, replay: RunReplay, queue: LabelQueue, clips: ClipMaker, execution: Execution
    ) -> None:
        self.config, self.replay = config, replay
        self.queue, self.clips = queue, clips
        self.timeout, self.late_answers = execution.label_timeout, execution.late_answers

    def ask(self, query: Query) -> Answers:
        """See `Query`; raises `PrefVLMError` where the queue holds other segments under the names of these pairs."""
        # A scripted teacher draws whether it errs, and reward learning draws from the same generator afterwards: with a
        # draw here too, the same answers lead to the same run, bit for bit, whoever gives them.
        query.generator.random(len(query.starts))
        waits = query.session == 1 or not self.late_answers
        if waits or not query.last:
            self._post(query)
        taken = self._wait(query.session) if waits else None
        if taken is None:
            missing: Missing = "leave" if self.late_answers and not query.last else "withdraw"
            taken = self.queue.take(self.config.run_id, query.session, missing)
            assert taken is not None
        return _answers(taken, self.queue.left_open(self.config.run_id, query.session))

    def _post(self, query: Query) -> None:
        posted = self.queue.posted(self.config.run_id, query.session)
        for number, starts in enumerate(query.starts.tolist()):
            if number not in posted:
                self.queue.post(self._pair(query, number))
            elif posted[number] != tuple(starts):
                raise PrefVLMError(
                    f"{self.queue.database.name} holds other segments for pair {number} of session {query.session} of "
                    f"{self.config.run_id}: its labels belong to a run that took another course (other threads, device "
                    "or versions); name an empty queue with --labels."
                )

    def _wait(self, session: int) -> list[Taken] | None:
        """The answers once all are there; None where the time is over before."""
        run_id, begun = self.config.run_id, time.monotonic()
        if waiting := self.queue.unanswered(run_id, session):
            tqdm.write(f"{waiting} pairs wait for answers in {self.queue.database.name}")
        while time.monotonic() - begun < self.timeout:
            if self.queue.unanswered(run_id, session):
                time.sleep(POLL_SECONDS)
                continue
            if waiting:
                time.sleep(UNDO_SECONDS)
            taken = self.queue.take(run_id, session, missing="wait")
            if taken is not None:
                return taken
        return None

    def _pair(self, query: Query, number: int) -> Pair:
        length, horizon = self.config.feedback.segment_length, self.replay.horizon
        first, second = query.starts[number].tolist()
        episodes, within = np.divmod(query.starts[number], horizon)
        steps = within[:, None] + np.arange(1, length + 1)  # a step's snapshot shows what the action did
        snapshots = self.replay.snapshots[episodes[:, None], steps]
        frames, clip = self.clips.make(self.config.task, snapshots, self.replay.scenes[episodes])
        returns = query.rewards[number].sum(-1)
        return Pair(
            self.config.run_id,
            query.session,
            number,
            self.config.feedback.budget,
            self.config.task,
            task_text(self.config.task),
            first,
            second,
            length,
            frames,
            clip,
            None if np.isnan(query.opinion.labels[number]) else float(query.opinion.labels[number]),
            None if np.isnan(query.opinion.divergences[number]) else float(query.opinion.divergences[number]),
            PARTITIONS[query.opinion.partition[number]],
            float(1 + np.sign(returns[1] - returns[0])) / 2,
        )


def _answers(taken: Sequence[Taken], waiting: int) -> Answers:
    return Answers(
        np.array([(one.first, one.second) for one in taken], np.int64).reshape(-1, 2),
        np.array([0.5 if one.label is None else one.label for one in taken], np.float32),
        np.array([one.label is not None for one in taken], bool),
        np.array([one.vlm_label for one in taken], np.float32),  # None becomes nan
        np.array([one.divergence for one in taken], np.float64),
        waiting,
    )


def train_in_background(config: RunConfig, execution: Execution) -> subprocess.Popen[bytes]:
    """Train a run in a process that outlives this one; its output goes to `<results>/logs/<hash>.log`.

    Starting it again is safe: a finished run is left alone, one in training is locked, a killed one goes on.
    """
    log = Path(execution.results) / "logs" / f"{config.hash}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _TRAIN, config.to_json(), json.dumps(dataclasses.asdict(execution))]
    with log.open("ab") as output:
        # A session of its own: a restart of the notebook's kernel ends every process of the kernel's group.
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def annotate_by_script(
    queue: LabelQueue, name: str, process: subprocess.Popen[bytes], mistake: float = 0.0, seed: int = 0
) -> int:
    """Answer as the true reward says until `process`, a training, has ended; returns the number of answers.

    mistake: probability of the opposite answer. It goes through the queue exactly as a person does.
    """
    annotator, generator, given = Annotator(queue, name), np.random.default_rng(seed), 0
    while True:
        ended = process.poll() is not None
        question = annotator.claim()
        if question is None and ended:
            if process.returncode:
                raise PrefVLMError(f"Training ended with exit code {process.returncode}; see its log in results/logs.")
            return given
        if question is None:
            time.sleep(0.1)
            continue
        annotator.answer(question, _true_choice(question.truth, question.swapped, generator.random() < mistake), 0.1)
        given += 1


def _true_choice(truth: float | None, swapped: bool, mistaken: bool) -> str:
    if truth is None:
        return "skip"
    if truth == 0.5:
        return "equal"
    return "left" if (truth == 0) ^ swapped ^ mistaken else "right"
