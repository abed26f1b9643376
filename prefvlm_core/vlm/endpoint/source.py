"""The label source that asks a model behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.common.arrays import ImageArray, IntArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.vlm.endpoint.answers import Answer, Question
from prefvlm_core.vlm.endpoint.client import EndpointClient, Spending
from prefvlm_core.vlm.endpoint.prompts import is_refusal, log_probability, preferred, prompt_of, rating
from prefvlm_core.vlm.endpoint.strips import StripMaker, strip
from prefvlm_core.vlm.labeller import Judgement, LabelSource
from prefvlm_core.vlm.texts import task_text

PAIRS_AT_ONCE = 32
"""Pairs whose strips are in memory at the same time."""
_READERS = {"pair": preferred, "rating": rating, "done": log_probability}


@dataclass(frozen=True)
class Counts:
    """What became of questions."""

    requests: int = 0
    """Questions, whether answered by the endpoint or from the cache."""
    tokens: int = 0
    """Tokens of these questions and answers, as the endpoint counts them."""
    refused: int = 0
    malformed: int = 0
    """Answers that could not be read."""
    contradicted: int = 0
    """Pairs of which the model preferred the first segment, or the second, in both orders."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(own + its for own, its in zip(astuple(self), astuple(other), strict=True)))


class _Verdict(NamedTuple):
    returns: tuple[float, float]
    """Of both segments; nan without an answer."""
    counts: Counts


class EndpointVLM(LabelSource):
    """Judges pairs by what a model behind an endpoint says of them (see `prompts`).

    `pair`: a pair is shown in both orders, so that a model that prefers a place gives ties, not labels. The first
    segment's return is 0 and the second's is the mean of both answers, -1 to 1. Equal strips are a tie without a
    question. `rating` and `done`: the return of a segment is its rating or its log probability. A pair of which an
    answer is missing, because the model refused or its answer cannot be read, has no returns (nan).
    """

    def __init__(self, config: RunConfig, strips: StripMaker, client: EndpointClient, stopwatch: Stopwatch) -> None:
        self.config, self.strips, self.client, self.stopwatch = config, strips, client, stopwatch
        self._verdicts: dict[tuple[int, int], _Verdict] = {}
        self._totals = torch.zeros(len(fields(Counts)), dtype=torch.int64)

    def judge(self, starts: IntArray) -> Judgement:
        """See `LabelSource`. Raises the errors of `EndpointClient.ask`."""
        new = starts[-self.config.vlm.queries :]
        total = Counts(*self._totals.tolist())
        spending = Spending(self.client.execution, total.requests, total.tokens)
        self._ask(starts[: len(starts) - len(new)], spending, counted=False)  # asked before: after a restart only
        self._ask(new, spending, counted=True)
        for first, second in new.tolist():
            total += self._verdicts[first, second].counts
        self._totals.copy_(torch.tensor(astuple(total)))
        returns = [self._verdicts[first, second].returns for first, second in starts.tolist()]
        judged = np.array(returns, np.float32).reshape(-1, 2)
        return Judgement(judged, judged)

    def columns(self) -> dict[str, float]:
        """See `LabelSource`: the counts of the run so far."""
        names = [f"vlm_{field.name}" for field in fields(Counts)]
        return dict(zip(names, map(float, self._totals.tolist()), strict=True))

    def state(self) -> dict[str, Tensor]:
        """See `LabelSource`."""
        return {"endpoint_totals": self._totals}

    def _ask(self, starts: IntArray, spending: Spending, counted: bool) -> None:
        """Fill `_verdicts` for pairs `starts` (n, 2)."""
        unknown = [pair for pair in dict.fromkeys(map(tuple, starts.tolist())) if pair not in self._verdicts]
        for first in range(0, len(unknown), PAIRS_AT_ONCE):
            pairs = unknown[first : first + PAIRS_AT_ONCE]
            shown = self.strips.make(np.array(pairs, np.int64).ravel())
            asked = [self._questions(*shown[place : place + 2]) for place in range(0, len(shown), 2)]
            with self.stopwatch("endpoint"):
                answers = iter(self.client.ask([question for group in asked for question in group], spending, counted))
            for pair, group in zip(pairs, asked, strict=True):
                self._verdicts[pair] = self._verdict([next(answers) for _ in group])

    def _questions(self, first: ImageArray, second: ImageArray) -> list[Question]:
        """What is asked about a pair of strips."""
        if self.config.vlm.question != "pair":
            return [question_of(self.config, [first]), question_of(self.config, [second])]
        if np.array_equal(first, second):
            return []
        return [question_of(self.config, [first, second]), question_of(self.config, [second, first])]

    def _verdict(self, answers: Sequence[Answer]) -> _Verdict:
        """What the answers to `_questions` mean."""
        read = [_READERS[self.config.vlm.question](answer) for answer in answers]
        refused = sum(value is None and is_refusal(answer) for value, answer in zip(read, answers, strict=True))
        missing = sum(value is None for value in read)
        said = [value for value in read if value is not None]
        counts = Counts(len(answers), sum(answer.tokens or 0 for answer in answers), refused, missing - refused)
        if missing:
            return _Verdict((np.nan, np.nan), counts)
        if self.config.vlm.question != "pair":
            return _Verdict((said[0], said[1]), counts)
        if not said:
            return _Verdict((0.0, 0.0), counts)
        contradicted = Counts(contradicted=int(said[0] == said[1] != 0))
        return _Verdict((0.0, (said[0] - said[1]) / 2), counts + contradicted)


def question_of(config: RunConfig, strips: Sequence[ImageArray], asked_by: str = "") -> Question:
    """The question of a run about one strip, or about two."""
    prompt = prompt_of(config)
    texts = tuple(text.replace("{task}", task_text(config.task)) for text in prompt.texts)
    model = config.vlm.endpoint
    assert model is not None
    return Question(model, texts, tuple(strips), prompt.most_tokens, prompt.log_probabilities, asked_by)


def check_endpoint(config: RunConfig, execution: Execution) -> None:
    """Ask the endpoint about a gray strip, as a run will about segments.

    Raises `PrefVLMError` if it cannot be reached, refuses the key or the model, takes no images, or gives no log
    probabilities where they are needed. The answer is cached by run, so that a run is checked once, and one that
    repeats from the cache needs no endpoint.
    """
    size, prompt = config.vlm.strip_pixels, prompt_of(config)
    gray = strip(np.full((config.vlm.strip_frames, size, size, 3), 128, np.uint8))
    question = question_of(config, [gray] * (len(prompt.texts) - 1), asked_by=config.run_id)
    client = EndpointClient(execution)
    answer = client.ask([question], Spending(execution), counted=False)[0]
    if prompt.log_probabilities and not answer.first_token:
        raise PrefVLMError(
            f"The endpoint gives no log probabilities (top_logprobs) for {config.vlm.model}, which vlm.question "
            f"{config.vlm.question} needs; use pair or rating."
        )
    if not answer.text and not answer.refused and not prompt.log_probabilities:
        raise PrefVLMError(
            f"{config.vlm.model} gives an empty answer within {prompt.most_tokens} tokens; if it thinks before it "
            "answers, switch that off where it is served."
        )
