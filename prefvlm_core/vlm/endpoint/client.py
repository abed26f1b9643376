"""Asks an endpoint: from the cache where it can, else with retries, at a limited pace and within limits of cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.limits import EndpointLimits
from prefvlm_core.config.run import Execution
from prefvlm_core.vlm.endpoint.answers import Answer, AnswerCache, Question
from prefvlm_core.vlm.endpoint.transport import Failed, Transport, without_secrets

ATTEMPTS = 6
"""How often a question is sent at most; with `FIRST_PAUSE`, half a minute passes before the last attempt."""
FIRST_PAUSE = 1.0
"""Seconds after the first failure; twice as long after each further one."""
LONGEST_PAUSE = 300.0
"""Seconds; where the endpoint asks to wait longer, as for a daily quota, training stops."""


class Spending:
    """What one run has asked so far, and its limits. Shared by threads."""

    def __init__(self, limits: EndpointLimits, requests: int = 0, tokens: int = 0) -> None:
        self.limits, self.requests, self.tokens = limits, requests, tokens
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count a request that is about to be sent. Raises `PrefVLMError` where a limit is reached."""
        with self._lock:
            for name in ("requests", "tokens"):
                most, spent = getattr(self.limits, f"vlm_max_{name}"), getattr(self, name)
                if most and spent >= most:
                    raise PrefVLMError(
                        f"The run has reached its limit of {most} {name} to the endpoint (vlm_max_{name}); the answers "
                        "so far are kept, so train it again with a higher limit and it goes on."
                    )
            self.requests += 1

    def end(self, answer: Answer) -> None:
        """Count the tokens of an answer. Raises `PrefVLMError` where they are limited, but not counted."""
        if answer.tokens is None and self.limits.vlm_max_tokens:
            raise PrefVLMError(
                "The endpoint does not count tokens, so vlm_max_tokens cannot be kept; set vlm_max_requests instead."
            )
        with self._lock:
            self.tokens += answer.tokens or 0

    def add(self, answer: Answer) -> None:
        """Count an answer from the cache, for which nothing is sent."""
        with self._lock:
            self.requests += 1
            self.tokens += answer.tokens or 0


class Pace:
    """When the next request may be sent: so many per minute, and not while the endpoint wants to be left alone."""

    def __init__(self, per_minute: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._gap, self._clock, self._sleep = 60 / per_minute, clock, sleep
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for the next free moment, and take it."""
        with self._lock:
            now = self._clock()
            moment = max(now, self._next)
            self._next = moment + self._gap
        if moment > now:
            self._sleep(moment - now)

    def pause(self, seconds: float) -> None:
        """Leave the endpoint alone for some time."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


class EndpointClient:
    """Asks the endpoint that `PREFVLM_ENDPOINT` names; the runs of a fleet share one client, and so its pace.

    `clock` and `sleep` are replaced in tests.
    """

    def __init__(
        self,
        execution: Execution,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.execution = execution
        self.cache = AnswerCache(execution.results)
        self._failure: PrefVLMError | None = None
        self._stopped = threading.Event()
        self._pace = Pace(execution.vlm_per_minute, clock, sleep or self._stopped.wait)
        self._transport = Transport(execution.vlm_timeout)

    def ask(self, questions: Sequence[Question], spending: Spending, counted: bool = True) -> list[Answer]:
        """The answer to each question. Those that are not in the cache are sent, each once, several at a time.

        Args:
            questions: Equal ones share an answer.
            spending: The requests and tokens of the run, to which these are added.
            counted: Whether answers from the cache are added too, because the run asks for the first time.

        Raises:
            PrefVLMError: If the endpoint fails, a limit is reached, or an answer cannot be stored. Answers that have
                come by then are kept.
        """
        wanted = {question.key: question for question in questions}
        known = {key: answer for key, question in wanted.items() if (answer := self.cache.read(question))}
        if counted:
            for answer in known.values():
                spending.add(answer)
        if missing := [question for key, question in wanted.items() if key not in known]:
            known |= dict(zip([question.key for question in missing], self._send_all(missing, spending), strict=True))
        return [known[question.key] for question in questions]

    def _send_all(self, questions: Sequence[Question], spending: Spending) -> list[Answer]:
        self._failure = None
        self._stopped.clear()
        workers = ThreadPoolExecutor(self.execution.vlm_parallel)
        try:
            sent = [workers.submit(self._send, question, spending) for question in questions]
            for future in wait(sent, return_when=FIRST_EXCEPTION).done:
                future.result()  # raises the error, if one failed; the others may not have ended
            return [future.result() for future in sent]
        finally:
            self._stopped.set()  # after an interruption too, so that nobody goes on waiting to try again
            workers.shutdown(cancel_futures=True)

    def _send(self, question: Question, spending: Spending) -> Answer:
        try:
            spending.begin()
            answer = Answer.of(self._post(question))
            listed = tuple((without_secrets(token), value) for token, value in answer.first_token)
            answer = self.cache.keep(question, replace(answer, text=without_secrets(answer.text), first_token=listed))
            spending.end(answer)
            return answer
        except PrefVLMError as error:
            self._failure = self._failure or error
            self._stopped.set()  # at once: what fails here fails for the other questions too
            raise

    def _post(self, question: Question) -> dict[str, Any]:
        request = question.request()
        for attempt in range(ATTEMPTS):
            self._pace.wait()
            if self._stopped.is_set():
                raise self._failure or _stopping("was not asked any more")
            try:
                return self._transport.post(request)
            except Failed as failed:
                words, final = failed.words, failed.final
                pause = failed.wait or FIRST_PAUSE * 2**attempt
            if pause > LONGEST_PAUSE:
                words, final = f"{words} and asks to wait {pause:.0f} seconds", True
            if final or attempt == ATTEMPTS - 1:
                break
            self._pace.pause(pause)
            if self.execution.progress:
                tqdm.write(f"The endpoint {words}; next attempt in {pause:.0f} s.")
        raise _stopping(words)


def _stopping(words: str) -> PrefVLMError:
    return PrefVLMError(
        f"The endpoint {words}; whatever it has answered is kept, and training goes on from there when it is started "
        "again."
    )
