"""The pair labeller for notebooks: `Labeller()` as the last line of a notebook cell."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from sqlalchemy import URL

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.address import project_queue
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.pair_view import PairView
from prefvlm_core.labelling.queue import AnswerRejected, LabelQueue, Question
from prefvlm_core.labelling.standing import (
    Standing,
    counts_in_words,
    recent_answers,
    standing,
    summary,
    waiting_in_words,
)

REFRESH_SECONDS = 1.0
REPEAT_EVERY = 10
"""After every so many pairs, one that was answered before is asked again."""
RECENT = 8
"""Number of answers that can be revisited by a click."""

_SAID = {"left": "← left is better", "right": "→ right is better", "equal": "↑ equal", "skip": "↓ can't tell"}
_live: weakref.WeakValueDictionary[tuple[str, str], Labeller] = weakref.WeakValueDictionary()
"""The labeller of each queue and person in this kernel."""


class Labeller(PairView):
    """Shows the pairs of a queue, both clips side by side, with keys and buttons to answer them.

    An answer is on the disk before the next pair appears. After a restart of the kernel, run the cell again: the
    labeller goes on where the same person stopped. A thread looks for new pairs, so they also appear while another
    cell runs. It shows nothing that tells how right an answer is before the budget is spent.

    Args:
        url: URL of the queue's database, or `env:NAME` (see `read_address`); training has created the queue. Empty:
            the project's, `results/labels.sqlite` (see `project_queue`).
        annotator: Name of the person who answers.
        agreement: Ask only for second opinions on pairs that others have answered.
        repeat_every: After every so many pairs, ask one again that this person has answered before; 0 for never.
        show_guess: Show the VLM's label with each pair, for a study of what it does to people; the queue notes it with
            every answer (`saw_guess`).

    Raises:
        PrefVLMError: For a name that is not allowed, or if there is no queue or it cannot be reached.
    """

    def __init__(
        self,
        url: str | URL = "",
        annotator: str = "me",
        agreement: bool = False,
        repeat_every: int = REPEAT_EVERY,
        show_guess: bool = False,
    ) -> None:
        self._queue = LabelQueue(url or project_queue(), create=False)
        self._turn = threading.RLock()  # messages, and the thread that looks for pairs, come in their own threads
        self._stopped = threading.Event()
        self._question: Question | None = None
        self._ahead: Question | None = None
        self._run_id, self._failure, self._show_guess = "", "", show_guess
        self._displayed = False
        self.ready = threading.Event()
        """Set once a browser has said that it shows this labeller."""
        self._annotator = Annotator(self._queue, annotator, repeat_every, agreement)
        super().__init__(self.receive)
        key = self._queue.database.name, self._annotator.name
        if (earlier := _live.get(key)) is not None:
            earlier.stop("This labeller goes on below another cell, or where this cell was run again.")
        _live[key] = self
        with self._turn:
            self._next()

    def _repr_mimebundle_(self, **options: Any) -> Any:  # what displays a widget
        if not self._displayed:
            self._displayed = True
            threading.Thread(target=self._refresh, daemon=True).start()
        return super()._repr_mimebundle_(**options)

    def receive(self, message: dict[str, Any]) -> None:
        """Do what the browser asks for; `PairView` lists the messages. What is about another pair than that on screen
        changes nothing."""
        if self._stopped.is_set():
            return
        with self._turn:
            try:
                self._do(message)
            except AnswerRejected as error:
                self._next(str(error))
            except PrefVLMError as error:  # nothing was stored, so the same pair stays to be answered again
                self._show(self._question, str(error))

    def _do(self, message: dict[str, Any]) -> None:
        action = message.get("do")
        if action == "ready":
            self.ready.set()
        elif action in ("undo", "revisit"):
            self._take_back(message.get("id"))
        elif self._question is None or message.get("id") != self._question.answer_id:
            self.show(self._question)  # the browser waits for a reply
        elif action == "answer":
            guessed = self._show_guess and self._question.vlm_label is not None
            self._annotator.answer(self._question, message["choice"], message["seconds"], guessed)
            self._next(said=f"Stored: {_SAID[message['choice']]}")

    def _take_back(self, answer_id: int | None) -> None:
        back = self._annotator.undo(answer_id)
        if back is None:
            return self._show(self._question, "There is no answer to take back.")
        self._ahead = None  # this window still holds the claims, so these pairs come again
        self._show(back, said="Taken back: answer this pair again.")

    def _next(self, problem: str = "", said: str = "") -> None:
        """Show the next pair, which was claimed while its predecessor was on screen, and claim the one after it."""
        question = self._ahead or self._claim()
        self._ahead = None
        self._show(question, problem, said)
        if question is not None and (ahead := self._claim(question)):
            self._ahead = ahead
            self.send_ahead(ahead)

    def _claim(self, *held: Question) -> Question | None:
        try:
            question = self._annotator.claim(held)
        except PrefVLMError as error:
            self._failure = str(error)
            return None
        self._failure = ""
        return question

    def _show(self, question: Question | None, problem: str = "", said: str = "") -> None:
        changed = question is not None or self._question is not None or bool(problem)
        self._question = question
        if question is not None:
            self._run_id = question.run_id
        with self.hold_sync():  # one message, and the pair is on screen before anything is counted
            self.tell(task=question.text if question else "", guess=self._guess(question))
            if changed:
                self.tell(problem=problem, said=said)
                self.show(question)
        self._describe()

    def _describe(self) -> None:
        """Update what stands around the clips."""
        database, name = self._queue.database, self._annotator.name
        try:
            now = standing(database, name, self._run_id if self._question else "")
            recent = recent_answers(database, name, RECENT)
            lines = summary(database, name, now.run_id) if now.spent and self._question is None else []
        except PrefVLMError as error:
            return self.tell(failure=str(error))
        with self.hold_sync():
            self.tell(failure=self._failure)
            self.recent, self.summary = recent, lines
            self.tell(counts=counts_in_words(now), state=self._state(now), done=now.answered, all=now.budget)

    def _state(self, now: Standing) -> str:
        if self._question is None and self._annotator.purpose == "agreement" and not now.spent:
            return "No pair waits for a second opinion of yours. The next ones appear here by themselves."
        return waiting_in_words(now) if self._question is None else ""

    def _guess(self, question: Question | None) -> str:
        if not self._show_guess or question is None:
            return ""
        if question.vlm_label is None:
            return "The VLM was not asked about this pair."
        if question.vlm_label == 0.5:
            return "The VLM finds both equal."
        side = "right" if (question.vlm_label > 0.5) ^ question.swapped else "left"
        return f"The VLM prefers the {side} one."

    def _refresh(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            with self._turn:
                if self._stopped.is_set():
                    return
                if self._question is None:
                    self._next()
                else:
                    self._describe()
                self.beat += 1

    def stop(self, state: str) -> None:
        """Stop taking answers, and show a text in place of a pair."""
        with self._turn:
            self._stopped.set()
            self._question = None
            self.tell(task="", guess="", said="", problem="", failure="", state=state)
            self.show(None)

    def close(self) -> None:
        """Give back every claimed pair that is unanswered, and remove the labeller from the page."""
        if self.comm is not None:  # ipywidgets also closes what failed to open
            self.stop("")
            self._annotator.close()
        super().close()
