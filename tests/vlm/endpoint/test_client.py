"""An endpoint that behaves badly: what is tried again, what is said, and that the key goes nowhere else."""

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.endpoint import KEY, Behavior, Endpoint, images, listed, running, said, send, status, text
from builders.refusals import is_one_line
from builders.runs import quiet

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.endpoint import client as client_module
from prefvlm_core.vlm.endpoint.answers import Answer, AnswerCache, Question
from prefvlm_core.vlm.endpoint.client import ATTEMPTS, EndpointClient, Pace, Spending


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []  # type: ignore[var-annotated]

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with running() as server:
        monkeypatch.setenv("PREFVLM_ENDPOINT", server.address)
        monkeypatch.setenv("PREFVLM_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield server


def question(number: int = 0, **changes: Any) -> Question:
    pixels = np.full((2, 3, 3), number, np.uint8)
    return Question(**{"model": "tiny", "texts": ("before", "after"), "images": (pixels,), "most_tokens": 5} | changes)


def ask(folder: Path, *questions: Question, when: Time | None = None, **limits: Any) -> list[Answer]:
    when = when or Time()
    execution = quiet(folder, **{"vlm_timeout": 5.0} | limits)
    return EndpointClient(execution, when.clock, when.sleep).ask(questions or [question()], Spending(execution))


def refusal(folder: Path, **limits: Any) -> str:
    """The sentence with which asking fails. Nothing of the error may hold the key."""
    with pytest.raises(PrefVLMError) as caught:
        ask(folder, **limits)
    assert is_one_line(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_the_request_is_what_openai_describes(endpoint: Endpoint, tmp_path: Path) -> None:
    first, second = np.arange(18, dtype=np.uint8).reshape(2, 3, 3), np.zeros((2, 3, 3), np.uint8)
    asked = question(texts=("a", "b", "c"), images=(first, second), log_probabilities=True)
    ask(tmp_path, asked)
    path, headers, body = endpoint.seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    shown = images(body)
    assert np.array_equal(shown[0], first) and np.array_equal(shown[1], second) and text(body) == "abc"
    assert {name: body[name] for name in body if name != "messages"} == {
        "model": "tiny", "temperature": 0, "max_tokens": 5, "logprobs": True, "top_logprobs": 20
    }  # fmt: skip
    assert [part["type"] for part in body["messages"][0]["content"]] == [
        "text",
        "image_url",
        "text",
        "image_url",
        "text",
    ]


def test_without_a_key_none_is_sent(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFVLM_API_KEY")
    assert ask(tmp_path)[0].text == "Answer: 1"
    assert "Authorization" not in endpoint.seen[0][1]


# ---- failures that pass


def cut(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


def cut_in_chunks(handler: Any) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'5\r\n{"a":\r\n')
    handler.close_connection = True


def hang_up(handler: Any) -> None:
    handler.close_connection = True


PASSING: dict[str, Callable[[Any], None]] = {
    "500": status(500, {"error": {"message": "out of memory"}}),
    "503 without a body": status(503),
    "garbage": status(200, b'{"choices": [}'),
    "no text at all": status(200, b"\xff\xfe\x00\x01garbage"),
    "a list": status(200, [1, 2]),
    "an error under 200": status(200, {"error": {"code": 502, "message": "no provider"}}),
    "deeply nested": status(200, b"[" * 100_000),
    "a page": status(200, b"<!DOCTYPE html><html>Sign in to the network</html>"),
    "cut": cut,
    "cut in chunks": cut_in_chunks,
    "hung up": hang_up,
    "huge": status(200, b'{"a": "' + b"x" * 2**21 + b'"}'),
    "too many": status(429, {"error": {"message": "slow down"}}),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again(kind: str, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [PASSING[kind]] * 2
    when = Time()
    assert ask(tmp_path, when=when)[0].text == "Answer: 1"
    assert len(endpoint.seen) == 3 and when.slept == [1, 2]


SENTENCES = {
    "500": "The endpoint failed (HTTP 500: out of memory); whatever it has answered is kept",
    "garbage": "The endpoint answers with no JSON; PREFVLM_ENDPOINT must end where chat/completions follows,",
    "an error under 200": "The endpoint answers with no choices (no provider);",
    "a page": "The endpoint answers with a web page; PREFVLM_ENDPOINT must end where",
    "cut": "The endpoint broke its answer off;",
    "huge": "The endpoint answers with more than 1048576 bytes;",
    "hung up": "The endpoint cannot be reached (RemoteDisconnected); PREFVLM_ENDPOINT holds its address;",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_what_does_not_pass_is_told_in_a_sentence(kind: str, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [PASSING[kind]] * 10
    assert SENTENCES[kind] in refusal(tmp_path)
    assert len(endpoint.seen) == ATTEMPTS


def test_pauses_double(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(500)] * (ATTEMPTS - 1)
    when = Time()
    ask(tmp_path, when=when)
    assert when.slept == [1, 2, 4, 8, 16]


def test_an_endpoint_slower_than_the_timeout_is_asked_again(endpoint: Endpoint, tmp_path: Path) -> None:
    released = threading.Event()
    endpoint.misbehaviors = [lambda handler: released.wait(10)]
    try:
        assert ask(tmp_path, vlm_timeout=0.2)[0].text == "Answer: 1"
        assert len(endpoint.seen) == 2
    finally:
        released.set()


def test_a_trickle_ends_at_the_timeout_too(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while time.monotonic() < until:
            handler.wfile.write(b" ")  # ends with an error as soon as the client hangs up
            time.sleep(0.02)

    until = time.monotonic() + 10
    endpoint.misbehaviors = [trickle] * 2
    monkeypatch.setattr(client_module, "ATTEMPTS", 2)
    assert "The endpoint gave no answer within 0.3 seconds;" in refusal(tmp_path, vlm_timeout=0.3)
    assert time.monotonic() < until


def test_no_endpoint_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        monkeypatch.setenv("PREFVLM_ENDPOINT", server.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    said = refusal(tmp_path)
    assert "cannot be reached (Connection refused)" in said and str(server.server_port) not in said


# ---- failures that stay


STAYING = {
    401: "The endpoint refuses the key (HTTP 401: no); PREFVLM_API_KEY is to hold a valid one;",
    403: "The endpoint refuses the key (HTTP 403: no); PREFVLM_API_KEY is to hold a valid one;",
    404: "knows no such model or path (HTTP 404: no); vlm.model names the model, and PREFVLM_ENDPOINT the address;",
    400: "The endpoint refuses the question (HTTP 400: no);",
    413: "The endpoint refuses the question (HTTP 413: no);",
}


@pytest.mark.parametrize("code", STAYING)
def test_what_would_fail_again_is_asked_once(code: int, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(code, {"error": {"message": "no"}})]
    assert STAYING[code] in refusal(tmp_path)
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "body", [{"error": "no"}, {"message": "no"}, {"detail": "no"}, b"no\n", {"error": {"message": " no "}}]
)
def test_messages_of_every_kind_of_server_are_read(body: object, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(404, body)]
    assert "(HTTP 404: no)" in refusal(tmp_path)


@pytest.mark.parametrize("body", [b"<html>404</html>", {"error": None, "x": 1}, {"error": {"code": 5}}, b""])
def test_errors_without_a_message_are_told(body: object, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(404, body)]
    assert "(HTTP 404" in refusal(tmp_path)


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_filter_that_stops_a_question_is_a_refusal(code: str, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(400, {"error": {"code": code, "message": "The prompt was filtered."}})]
    assert ask(tmp_path) == [Answer(refused=True)]


def test_a_long_message_is_cut(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(400, {"error": {"message": "x\n" * 5000}})]
    assert len(refusal(tmp_path)) < 400


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(code: int, endpoint: Endpoint, tmp_path: Path) -> None:
    with running() as thief:
        endpoint.misbehaviors = [status(code, Location=thief.address + "/chat/completions")]
        assert f"sends elsewhere (HTTP {code}), where the key must not follow" in refusal(tmp_path)
        assert thief.seen == [] and len(endpoint.seen) == 1


def test_the_key_is_nowhere(endpoint: Endpoint, tmp_path: Path) -> None:
    """Even where a server echoes it, in an error, in an answer and as a token."""
    endpoint.misbehaviors = [status(401, {"error": {"message": f"Incorrect API key {KEY} at {endpoint.address}"}})]
    assert "Incorrect API key *** at ***" in refusal(tmp_path)
    echo = listed(**{KEY: -1.0})
    echo["choices"][0]["message"]["content"] = f"{KEY}\nAnswer: 2"
    endpoint.answer = lambda request: echo
    ask(tmp_path)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"Answer: 2" in file for file in files)
    assert not any(KEY.encode() in file or str(endpoint.server_port).encode() in file for file in files)


@pytest.mark.parametrize("key", ["sk-secret\nX-Evil: 1", "sk secret", "sk-sécret"])
def test_a_key_that_fits_no_header_is_not_repeated(
    key: str, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFVLM_API_KEY", key)
    said = refusal(tmp_path)
    assert said.startswith("The key in PREFVLM_API_KEY must be of printable ASCII") and "cret" not in said


ADDRESSES = {
    "": "vlm.model names a model behind an endpoint, but PREFVLM_ENDPOINT is not set",
    "localhost:8000/v1": "PREFVLM_ENDPOINT must hold an http(s) address such as http://localhost:8000/v1.",
    "file:///etc/passwd": "must hold an http(s) address",
    "http://": "must hold an http(s) address",
    "http://host:port/v1": "must hold an http(s) address",
    "http://host:99999/v1": "must hold an http(s) address",
    "http://[::1/v1": "must hold an http(s) address",
    "http://host /v1": "must hold an http(s) address",
    "http://host/v1?key=hidden-key": "must hold an http(s) address",
    "http://me:hidden-key@host/v1": "holds a user or password; put the key into PREFVLM_API_KEY instead.",
    "http://a..b/v1": "cannot be reached",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_are_none(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFVLM_ENDPOINT", address)
    said = refusal(tmp_path)
    assert ADDRESSES[address] in said and "hidden-key" not in said
    assert list(tmp_path.iterdir()) == []


# ---- pace and limits


@pytest.mark.parametrize(("header", "waits"), [("7", 7), ("0.5", 0.5), ("soon", 1), ("-3", 1), ("nan", 1), ("", 1)])
def test_retry_after_is_honored(header: str, waits: float, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(429, Retry_After=header)]
    when = Time()
    ask(tmp_path, when=when)
    assert when.slept == [waits]


def test_retry_after_may_be_a_date(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=60)))]
    when = Time()
    ask(tmp_path, when=when)
    assert 50 < when.slept[0] <= 60


def test_a_quota_of_hours_stops_the_training(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(429, Retry_After="7200")]
    assert "and asks to wait 7200 seconds; whatever it has answered is kept" in refusal(tmp_path)
    assert len(endpoint.seen) == 1


def test_requests_keep_the_pace() -> None:
    when = Time()
    pace, moments = Pace(30, when.clock, when.sleep), []
    for _ in range(3):
        pace.wait()
        moments.append(when.now)
    pace.pause(10)
    pace.wait()
    assert [*moments, when.now] == [0, 2, 4, 14]


def test_so_many_requests_run_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        together.wait(10)  # breaks, and fails the test, unless three requests are there at the same time
        return said(text(request))

    endpoint.answer = answer
    questions = [question(texts=(str(number), "")) for number in range(9)]
    answers = ask(tmp_path, *[question(n, texts=(str(n), "")) for n in range(len(questions))], vlm_parallel=3)
    assert [one.text for one in answers] == [str(n) for n in range(9)]  # in the order of the questions
    assert endpoint.most_at_once == 3


def test_equal_questions_are_sent_once(endpoint: Endpoint, tmp_path: Path) -> None:
    assert len(ask(tmp_path, question(1), question(2), question(1))) == 3
    assert len(endpoint.seen) == 2


def test_a_limit_of_requests_stops_and_goes_on(endpoint: Endpoint, tmp_path: Path) -> None:
    questions = [question(n) for n in range(5)]
    with pytest.raises(
        PrefVLMError, match=r"^The run has reached its limit of 3 requests .*vlm_max_requests.*goes on\.$"
    ):
        ask(tmp_path, *questions, vlm_max_requests=3, vlm_parallel=1)
    assert len(endpoint.seen) == 3
    with pytest.raises(PrefVLMError, match="limit of 3 requests"):  # the stored ones count
        ask(tmp_path, *questions, vlm_max_requests=3)
    assert len(endpoint.seen) == 3
    assert len(ask(tmp_path, *questions, vlm_max_requests=5)) == 5 and len(endpoint.seen) == 5
    assert len(ask(tmp_path, *questions, vlm_max_requests=1)) == 5  # nothing needs to be sent
    assert len(endpoint.seen) == 5


def test_a_limit_of_tokens_stops(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(PrefVLMError, match="reached its limit of 250 tokens"):
        ask(tmp_path, *[question(n) for n in range(5)], vlm_max_tokens=250, vlm_parallel=1)
    assert len(endpoint.seen) == 3  # of 100 tokens each


@pytest.mark.parametrize(
    "usage", [None, {}, {"total_tokens": "5"}, {"total_tokens": -1}, {"total_tokens": 10**400}, []]
)
def test_a_limit_of_tokens_needs_a_count(usage: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda request: said("Answer: 1") | {"usage": usage}
    with pytest.raises(PrefVLMError, match="does not count tokens, so vlm_max_tokens cannot be kept"):
        ask(tmp_path, vlm_max_tokens=10)
    assert ask(tmp_path)[0].tokens is None


def test_one_failure_stops_the_others(endpoint: Endpoint, tmp_path: Path) -> None:
    """A wrong key must not be tried with every question, nor may those that wait to try again hold the sentence up."""
    both = threading.Barrier(2)

    def together(behavior: Behavior) -> Behavior:
        return lambda handler: both.wait(10) is not None and behavior(handler)

    endpoint.misbehaviors = [together(status(500, Retry_After="200")), together(status(401)), *[status(401)] * 50]
    execution = quiet(tmp_path, vlm_parallel=2)
    begun = time.monotonic()
    with pytest.raises(PrefVLMError, match="refuses the key"):
        EndpointClient(execution).ask([question(n) for n in range(50)], Spending(execution))
    assert time.monotonic() - begun < 60 and len(endpoint.seen) == 2


# ---- the cache


def test_answers_are_kept_and_found_without_the_endpoint(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answer = lambda request: listed(True_=-3.0)
    asked = question(log_probabilities=True)
    first = ask(tmp_path, asked)
    monkeypatch.delenv("PREFVLM_ENDPOINT")
    monkeypatch.delenv("PREFVLM_API_KEY")
    assert ask(tmp_path, asked) == first and first[0].first_token == (("True_", -3.0),)
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"texts": ("before", "after ")},
        {"images": (np.zeros((3, 2, 3), np.uint8),)},
        {"images": (np.ones((2, 3, 3), np.uint8),)},
        {"most_tokens": 6},
        {"log_probabilities": True},
        {"asked_by": "quick/x"},
    ],
)
def test_another_question_is_asked_anew(changes: dict[str, Any], endpoint: Endpoint, tmp_path: Path) -> None:
    ask(tmp_path, question())
    ask(tmp_path, question(**changes))
    assert len(endpoint.seen) == 2


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda stored: b"",
    "half": lambda stored: stored[: len(stored) // 2],
    "other answer": lambda stored: stored.replace(b"Answer: 1", b"Answer: 2"),
    "a list": lambda stored: b"[]",
    "no text": lambda stored: b"\xff\xff",
    "another field": lambda stored: json.dumps(json.loads(stored) | {"answer": {"more": 1}}).encode(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_entry_is_asked_anew(kind: str, endpoint: Endpoint, tmp_path: Path) -> None:
    ask(tmp_path)
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_bytes()
    path.write_bytes(BROKEN[kind](whole))
    assert ask(tmp_path)[0].text == "Answer: 1"
    assert len(endpoint.seen) == 2 and path.read_bytes() == whole


def test_an_entry_under_another_name_is_not_taken(endpoint: Endpoint, tmp_path: Path) -> None:
    ask(tmp_path, question(1))
    (path,) = tmp_path.rglob("*.json")
    other = AnswerCache(tmp_path)._path(question(2))
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(path.read_bytes())
    ask(tmp_path, question(2))
    assert len(endpoint.seen) == 2


def test_the_first_answer_stays(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    assert cache.keep(question(), Answer("one")) == Answer("one")
    assert AnswerCache(tmp_path).keep(question(), Answer("two")) == Answer("one") == cache.read(question())


def test_what_was_answered_before_a_failure_is_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    def two_then_none(handler: Any) -> None:
        send(handler, 200, said("Answer: 1"))

    endpoint.misbehaviors = [two_then_none, two_then_none, status(401)]
    with pytest.raises(PrefVLMError, match="refuses the key"):
        ask(tmp_path, *[question(n) for n in range(4)], vlm_parallel=1)
    assert len(endpoint.seen) == 3
    ask(tmp_path, *[question(n) for n in range(4)])
    assert len(endpoint.seen) == 5
