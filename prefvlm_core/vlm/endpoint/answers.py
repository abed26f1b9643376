"""Questions to an endpoint, its answers, and the cache that keeps them, so that a run repeats without the endpoint."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from prefvlm_core.common.arrays import ImageArray
from prefvlm_core.runs.files import UNREADABLE, write_atomically, write_probe
from prefvlm_core.runs.locks import file_lock

ANSWERS_FOLDER = "answers"
"""Folder below `Execution.results`."""
LISTED_TOKENS = 20
"""Tokens whose log probabilities are asked for: the most that OpenAI allows and that vLLM lists by default."""
MOST_TOKENS = 10**9
"""A count of tokens from here on is no count."""


@dataclass(frozen=True, eq=False)
class Question:
    """One question to a model: texts with images between them."""

    model: str
    texts: tuple[str, ...]
    """One more than there are images."""
    images: tuple[ImageArray, ...]
    """RGB, (height, width, 3) uint8 each."""
    most_tokens: int
    log_probabilities: bool = False
    asked_by: str = ""
    """run_id of the run before whose training it is asked; empty for questions about segments."""

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that an answer depends on, with hashes in place of the images. Where the endpoint is, is not part
        of it: the same model gives the same answers anywhere."""
        pixels = [[list(image.shape), hashlib.sha256(image.tobytes()).hexdigest()] for image in self.images]
        asked = {"model": self.model, "texts": list(self.texts), "images": pixels} | self._parameters
        return asked | ({"asked_by": self.asked_by} if self.asked_by else {})

    @cached_property
    def key(self) -> str:
        """The SHA-256 of `content`, in hex."""
        return _digest(self.content)

    @property
    def _parameters(self) -> dict[str, Any]:
        listed = {"logprobs": True, "top_logprobs": LISTED_TOKENS} if self.log_probabilities else {}
        return {"temperature": 0, "max_tokens": self.most_tokens} | listed

    def request(self) -> dict[str, Any]:
        """The body of the request to `chat/completions`, with the images as data URLs."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": self.texts[0]}]
        for image, text in zip(self.images, self.texts[1:], strict=True):
            parts += [{"type": "image_url", "image_url": {"url": _data_url(image)}}, {"type": "text", "text": text}]
        return {"model": self.model, "messages": [{"role": "user", "content": parts}]} | self._parameters


@dataclass(frozen=True)
class Answer:
    """What of a response is used."""

    text: str = ""
    refused: bool = False
    """Whether the response itself says so: a `refusal`, or a content filter. Models may also refuse in the text."""
    first_token: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens, with their log probabilities in nats."""
    tokens: int | None = None
    """Tokens of question and answer; None if the endpoint does not count them."""

    @staticmethod
    def of(response: Mapping[str, Any]) -> Answer:
        """The answer in a response; what is missing in it or has another form is left empty."""
        choice = _first(response.get("choices"))
        message = _mapping(choice.get("message"))
        text, usage = message.get("content"), _mapping(response.get("usage")).get("total_tokens")
        return Answer(
            text=text if isinstance(text, str) else "",
            refused=bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter",
            first_token=_listed(_first(_mapping(choice.get("logprobs")).get("content")).get("top_logprobs")),
            tokens=usage if type(usage) is int and 0 <= usage < MOST_TOKENS else None,
        )


class AnswerCache:
    """Answers on disk, one file each, named by the hash of the question; whoever asks the same gets the same.

    A file whose checksum is wrong counts as absent. Where two processes ask the same at once, the first answer stays
    and both use it.
    """

    def __init__(self, results: str | Path) -> None:
        self.folder = Path(results) / ANSWERS_FOLDER
        self._writing = threading.Lock()  # file locks are polled, which threads of one process need not do

    def read(self, question: Question) -> Answer | None:
        """The stored answer; None if there is none."""
        try:
            stored = json.loads(self._path(question).read_bytes())
            if stored["sha256"] != _digest([stored["question"], stored["answer"]]) or stored["question"] != (
                question.content
            ):
                return None
            answer = dict(stored["answer"])
            return Answer(**answer | {"first_token": tuple((token, value) for token, value in answer["first_token"])})
        except UNREADABLE:
            return None

    def keep(self, question: Question, answer: Answer) -> Answer:
        """Store an answer unless there is one already, and return the stored one.

        Raises `PrefVLMError` where the folder cannot be written or the disk is full.
        """
        write_probe(self.folder)
        with self._writing, file_lock(self.folder / ".lock"):
            if (earlier := self.read(question)) is not None:
                return earlier
            content = {"question": question.content, "answer": json.loads(json.dumps(asdict(answer)))}
            checksum = {"sha256": _digest([content["question"], content["answer"]])}
            write_atomically(self._path(question), (json.dumps(content | checksum, indent=1) + "\n").encode())
        return answer

    def _path(self, question: Question) -> Path:
        return self.folder / question.key[:2] / f"{question.key}.json"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _data_url(image: ImageArray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(value: Any) -> Mapping[str, Any]:
    """The first element of a list of mappings; empty if it is none."""
    return _mapping(value[0]) if isinstance(value, list) and value else {}


def _listed(value: Any) -> tuple[tuple[str, float], ...]:
    """The tokens and log probabilities of a `top_logprobs`, without what has another form."""
    entries = [_mapping(entry) for entry in value] if isinstance(value, list) else []
    return tuple((entry["token"], float(entry["logprob"])) for entry in entries if _is_listed(entry))


def _is_listed(entry: Mapping[str, Any]) -> bool:
    value: Any = entry.get("logprob")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(entry.get("token"), str) and number and -1e6 < value < 1e-3  # not nan, hardly above 0
