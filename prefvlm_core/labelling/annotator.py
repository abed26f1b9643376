"""One person at one window: which question comes next."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.names import check_name
from prefvlm_core.labelling.queue import LabelQueue, Question


class Annotator:
    """Claims pairs for one person at one window, answers them, and takes answers back.

    A new window takes over the claims of the same person's other windows.

    Args:
        queue: The queue that holds the pairs.
        name: Name of the person; see `check_name` for the names that are allowed and for the error.
        repeat_every: Every so many questions, one that this person has answered before is asked again, which measures
            how consistent the person is. Training does not use these answers. 0 for no repeats; a negative number
            raises `PrefVLMError`.
        agreement: Ask only for second opinions on pairs that others have answered.
    """

    def __init__(self, queue: LabelQueue, name: str, repeat_every: int = 0, agreement: bool = False) -> None:
        if repeat_every < 0:
            raise PrefVLMError(f"repeat_every must be at least 0, got {repeat_every}.")
        self.queue, self.name, self.window = queue, check_name(name), secrets.token_hex(16)
        self.repeat_every, self.purpose = repeat_every, "agreement" if agreement else "label"
        self._claimed = 0
        queue.adopt(self.name, self.window)

    def claim(self, held: Sequence[Question] = ()) -> Question | None:
        """The next question that is not among those already `held`; None if there is nothing to do at the moment."""
        ids = [question.answer_id for question in held]
        question = None
        if self.repeat_every and (self._claimed + 1) % self.repeat_every == 0:
            question = self.queue.claim(self.name, self.window, "repeat", ids)
        question = question or self.queue.claim(self.name, self.window, self.purpose, ids)
        self._claimed += question is not None
        return question

    def answer(self, question: Question, choice: str, seconds: float, saw_guess: bool = False) -> None:
        """Answer a claimed question; see `LabelQueue.answer`."""
        self.queue.answer(question, self.window, choice, seconds, saw_guess)

    def undo(self, answer_id: int | None = None) -> Question | None:
        """Take an answer back, by default the last one; see `LabelQueue.undo`."""
        return self.queue.undo(self.name, self.window, answer_id)

    def close(self) -> None:
        """Give back every claimed question that is unanswered."""
        self.queue.release(self.window)
