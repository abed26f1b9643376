"""What a line of a label file may hold: the declaration that is checked when labels are read and when they are written.

A line is one pair, with everything known about it and every answer to it. Its fields are described where the queue
stores them, in `database.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from prefvlm_core.domains.registry import check_task
from prefvlm_core.labelling.names import check_characters, check_name
from prefvlm_core.labelling.queue import CHOICES, OF_NO_RUN, PURPOSES, label_of
from prefvlm_core.preferences.log import PARTITIONS

FORMAT = 1
_LARGEST = 2**31 - 1  # PostgreSQL's largest integer
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_SHOWN = 60  # characters of a wrong value that a message repeats


def _one_of(allowed: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{_short(value)} is not among {', '.join(repr(name) for name in allowed)}")
        return value

    return AfterValidator(check)


def _same(check: Callable[[str], Any]) -> AfterValidator:
    """The value itself, unless `check` raises an error or returns another one."""

    def checked(value: str) -> str:
        if check(value) not in (None, value):
            raise ValueError("there may be no spaces around it")
        return value

    return AfterValidator(checked)


def _check_run_id(run_id: str) -> None:
    if not {"", ".", ".."}.isdisjoint(run_id.split("/")):
        raise ValueError(f"{_short(run_id)} is no name of a run such as quick/door-open-v3/pebble/0-1a2b3c4d")


def _check_format(number: int) -> int:
    if number != FORMAT:
        raise ValueError(f"{number} is not the format that this package reads, which is {FORMAT}")
    return number


def _check_truth(truth: float) -> float:
    if truth not in (0, 0.5, 1):
        raise ValueError(f"{truth} is none of 0, 0.5 and 1")
    return truth


def _check_time(time: datetime) -> datetime:
    if not _EARLIEST <= time < _LATEST:
        raise ValueError(f"{time} lies before {_EARLIEST.year} or after {_LATEST.year}")
    return time


Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Number = Annotated[int, Field(ge=1, le=_LARGEST)]
Flag = Annotated[int, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Time = Annotated[AwareDatetime, AfterValidator(_check_time)]
Name = Annotated[str, _same(check_name)]


def _words(longest: int) -> Any:
    return Annotated[str, Field(min_length=1, max_length=longest), _same(check_characters)]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class AnswerLine(_Line):
    """One answer to a pair."""

    purpose: Annotated[str, _one_of(PURPOSES)]
    annotator: Name
    swapped: Flag
    choice: Annotated[str, _one_of(CHOICES)]
    label: Probability | None
    seconds: Amount
    claimed_at: Time
    answered_at: Time
    number: Number
    undone: Count
    saw_guess: Flag = 0  # files of earlier releases do not say; their labellers hid the guess behind a button

    @model_validator(mode="after")
    def _label_is_that_of_the_choice(self) -> AnswerLine:
        if self.label != (expected := label_of(self.choice, bool(self.swapped))):
            meant = "null" if expected is None else expected
            raise ValueError(f"label is {self.label}, but '{self.choice}' with swapped {self.swapped} means {meant}")
        return self


class PairLine(_Line):
    """One line: a pair of segments that was answered or withdrawn."""

    format: Annotated[int, AfterValidator(_check_format)]
    run_id: Annotated[_words(300), _same(_check_run_id)]  # type: ignore[valid-type]
    session: Number
    pair: Count
    budget: Number
    task: Annotated[str, _same(check_characters)]
    text: _words(2000)  # type: ignore[valid-type]
    first: Count
    second: Count
    length: Number
    vlm_label: Probability | None
    divergence: Amount | None
    partition: Annotated[str, _one_of(PARTITIONS)]
    truth: Annotated[float, AfterValidator(_check_truth)] | None
    posted_at: Time
    closed_at: Time | None
    last_session: Count
    frames: Annotated[int, Field(ge=1, le=1000)]
    answers: Annotated[list[AnswerLine], Field(max_length=1000)]

    @field_validator("task")
    @classmethod
    def _task_of_a_run_is_known(cls, task: str, info: ValidationInfo) -> str:
        if not str(info.data.get("run_id")).startswith(OF_NO_RUN):
            check_task(task)
        return task

    @model_validator(mode="after")
    def _fields_agree(self) -> PairLine:
        if self.pair >= self.budget:
            raise ValueError(f"pair is {self.pair}, but is counted from 0 and must be below budget {self.budget}")
        if 0 < self.last_session < self.session or (self.closed_at and not self.last_session):
            raise ValueError(
                f"last_session is {self.last_session}, but session {self.session} posted the pair, so a session from "
                f"{self.session} on has taken it (0: none, if closed_at is null)"
            )
        purposes = [answer.purpose for answer in self.answers]
        if purposes.count("label") > 1:
            raise ValueError("answers holds two of purpose 'label', but one person's label is used")
        if len({(answer.annotator, answer.purpose) for answer in self.answers}) < len(purposes):
            raise ValueError("answers holds two of the same annotator and purpose")
        if "label" not in purposes and self.closed_at is None:
            raise ValueError("answers holds none of purpose 'label' and closed_at is null, so the pair is still open")
        return self


def complaint(error: ValidationError) -> str:
    """What is wrong first, without a full stop: the field, its value and what is allowed."""
    first = error.errors(include_url=False)[0]
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]]
    field, said = "".join(parts).removeprefix("."), first["msg"]
    if first["type"] == "value_error":
        said = said.removeprefix("Value error, ").removesuffix(".")
        return f"{field}: {said}" if field else said
    if first["type"] == "json_invalid":
        return f"it is not one JSON object ({said.removeprefix('Invalid JSON: ')})"
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "extra_forbidden":
        return f"{_short(field)} is no field of a label file"
    expected = " ".join(["it", *said.split()[1:]])
    return f"{field or 'the line'} is {_short(first['input'])}, but {expected}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
