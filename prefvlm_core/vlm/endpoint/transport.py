"""One HTTP request to an endpoint, by the standard library, and what its failures mean.

Address and key come from environment variables and go nowhere but into the request: not into messages, where what the
server says is shown without them, and not to another host, because no redirect is followed.
"""

from __future__ import annotations

import email.utils
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.parse import SplitResult, urlsplit

from prefvlm_core import __version__
from prefvlm_core.common.errors import PrefVLMError

ADDRESS_VARIABLE = "PREFVLM_ENDPOINT"
KEY_VARIABLE = "PREFVLM_API_KEY"
LARGEST_BODY = 2**20
"""Bytes; a longer response is no answer to such a question."""
_SHORTEST_SECRET = 8  # local servers take keys such as "EMPTY", which may stand in any text
_LONGEST_QUOTE = 200  # characters of what a server says
_AGAIN = (408, 409, 425, 429)  # and all from 500: another time they may go well
_FILTERED = ("content_filter", "content_policy_violation")


class Failed(Exception):
    """Why a request brought no response. `words` complete the sentence "the endpoint …"."""

    def __init__(self, words: str, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(words)
        self.words = words
        self.final = final
        """Whether the same request would fail again."""
        self.wait = wait
        """Seconds that the endpoint asks to wait before the next request."""


def address() -> str:
    """The endpoint's address from `PREFVLM_ENDPOINT`, without the slash at its end.

    Raises `PrefVLMError`, which does not repeat it, unless it is an http(s) address without a user, query or fragment.
    """
    text = os.environ.get(ADDRESS_VARIABLE, "").strip()
    example = "such as http://localhost:8000/v1"
    if not text:
        raise PrefVLMError(
            f"vlm.model names a model behind an endpoint, but {ADDRESS_VARIABLE} is not set; it is to hold the "
            f"endpoint's address, {example}."
        )
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise PrefVLMError(f"The environment variable {ADDRESS_VARIABLE} must hold an http(s) address {example}.")
    if parts.username is not None or parts.password is not None:
        raise PrefVLMError(
            f"The address in {ADDRESS_VARIABLE} holds a user or password; put the key into {KEY_VARIABLE} instead."
        )
    return text.rstrip("/")


def key() -> str:
    """The key from `PREFVLM_API_KEY`; empty where there is none, as local servers need none.

    Raises `PrefVLMError`, which does not repeat it, for characters that no header can hold.
    """
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not re.fullmatch(r"[!-~]*", text):
        raise PrefVLMError(f"The key in {KEY_VARIABLE} must be of printable ASCII characters without spaces.")
    return text


class Transport:
    """Sends requests to the endpoint; from several threads, if need be. `timeout` is in seconds per request."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:  # made for the first request, since it reads certificates
        return urllib.request.build_opener(_EveryStatus)

    def post(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint's response to a request to `chat/completions`. A filter's refusal is a response as well.

        Raises `Failed` where there is none, and `PrefVLMError` for an address or a key that cannot be used.
        """
        where, secret = address(), key()
        headers = {"Content-Type": "application/json", "User-Agent": f"prefvlm/{__version__}"}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        asked = urllib.request.Request(f"{where}/chat/completions", json.dumps(request).encode(), headers)
        failed = None
        try:
            deadline = time.monotonic() + self.timeout
            with self._opener.open(asked, timeout=self.timeout) as response:
                status, replied = response.status, response.headers
                body = _read(response, deadline)
        except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: of a host that is no name
            failed = _not_reached(error, self.timeout)
        if failed is not None:  # raised here, so that it carries no context that holds the request
            raise failed
        content = _parsed(body)
        if status >= 300 and _code(content) not in _FILTERED:
            raise _refused(status, replied, _said(content, body))
        if content is None:
            page = "a web page" if body.lstrip()[:1] == b"<" else "no JSON"
            raise Failed(f"answers with {page}; {ADDRESS_VARIABLE} must end where chat/completions follows, mostly /v1")
        if status >= 300:
            return {"choices": [{"finish_reason": "content_filter"}]}
        if "choices" not in content:  # some gateways say so of errors of theirs
            raise Failed(f"answers with no choices ({_said(content, body)})")
        return content


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    """Returns responses of every status as they are, so that no redirect is followed."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def _read(response: Any, deadline: float) -> bytes:
    """The body of a response. Raises `TimeoutError` after the deadline, and `Failed` if it is too long or cut off."""
    body, whole = b"", response.length
    while whole is None or len(body) < whole:
        if time.monotonic() > deadline:
            raise TimeoutError
        piece = response.read1(2**16)
        if not piece:
            break
        body += piece
        if len(body) > LARGEST_BODY:
            raise Failed(f"answers with more than {LARGEST_BODY} bytes")
    if whole is not None and len(body) < whole:
        raise Failed("broke its answer off")
    return body


def _not_reached(error: Exception, timeout: float) -> Failed:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return Failed(f"gave no answer within {timeout:g} seconds")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failed("shows a certificate that this machine does not trust", final=True)
    words = getattr(cause, "strerror", None) or type(cause).__name__
    return Failed(f"cannot be reached ({without_secrets(words)}); {ADDRESS_VARIABLE} holds its address")


def _refused(status: int, headers: HTTPMessage, said: str) -> Failed:
    """What a status from 300 on means."""
    if status < 400:
        return Failed(
            f"sends elsewhere (HTTP {status}), where the key must not follow; {ADDRESS_VARIABLE} is to hold the final "
            "address",
            final=True,
        )
    quoted = f"HTTP {status}" + (f": {said}" if said else "")
    if status in (401, 403):
        return Failed(f"refuses the key ({quoted}); {KEY_VARIABLE} is to hold a valid one", final=True)
    if status == 404:
        words = f"knows no such model or path ({quoted}); vlm.model names the model, and {ADDRESS_VARIABLE} the address"
        return Failed(words, final=True)
    final = status < 500 and status not in _AGAIN
    return Failed(f"refuses the question ({quoted})" if final else f"failed ({quoted})", final, _wait(headers))


def _wait(headers: HTTPMessage) -> float:
    """The seconds that `Retry-After` asks for, as a number or as a date; 0 where it asks for none."""
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _parsed(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; None if it is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _code(content: dict[str, Any] | None) -> object:
    error = (content or {}).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _said(content: dict[str, Any] | None, body: bytes) -> str:
    """What the server says of an error, short and without secrets; empty for a web page."""
    if content is None:
        text = "" if body.lstrip()[:1] == b"<" else body.decode(errors="replace")
    else:
        error = content.get("error", content.get("message", content.get("detail", "")))
        text = str(error.get("message", "") if isinstance(error, dict) else error)
    text = " ".join(without_secrets(text).split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def without_secrets(text: str) -> str:
    """A text with `***` in place of the key, the address and the host."""
    where, secret = os.environ.get(ADDRESS_VARIABLE, "").strip(), os.environ.get(KEY_VARIABLE, "").strip()
    parts = _split(where)
    host = (parts.hostname or "") if parts else ""
    for hidden in (where.rstrip("/"), secret, host):
        if len(hidden) >= _SHORTEST_SECRET:
            text = text.replace(hidden, "***")
    return text


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None if it has none, or a port that is none."""
    if not re.fullmatch(r"[!-~]+", text):
        return None
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port else None
    except ValueError:
        return None
