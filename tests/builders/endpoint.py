"""A stand-in for an OpenAI-compatible endpoint, which can be told to behave badly."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

KEY = "sk-secret-0123456789abcdef"
Behavior = Callable[[BaseHTTPRequestHandler], None]


class Endpoint(ThreadingHTTPServer):
    """Answers every request by `answer`, except the first ones, with which `misbehaviors` deal in turn."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda request: said("Answer: 1")
        self.misbehaviors: list[Behavior] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        """Path, headers and body of every request, in order."""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up early are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
            behavior = server.misbehaviors.pop(0) if server.misbehaviors else None
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            if behavior is None:
                send(self, 200, server.answer(body))
            else:
                behavior(self)
        finally:
            with server.lock:
                server.at_once -= 1

    def do_GET(self) -> None:
        """What a client would send that follows a redirect."""
        self.server.seen.append((self.path, dict(self.headers), {}))
        send(self, 404, {"error": "no GET"})

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


def said(text: str | None, **message: Any) -> dict[str, Any]:
    """A response whose message has this text; 100 tokens each."""
    return {"choices": [{"message": {"content": text} | message}], "usage": {"total_tokens": 100}}


def listed(**probabilities: float) -> dict[str, Any]:
    """A response that lists log probabilities of first tokens."""
    top = [{"token": token, "logprob": value} for token, value in probabilities.items()]
    response = said("True")
    response["choices"][0]["logprobs"] = {"content": [{"token": "True", "logprob": -0.1, "top_logprobs": top}]}
    return response


def send(
    handler: BaseHTTPRequestHandler, status: int, content: object, headers: Mapping[str, str] | None = None
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, content: object = b"", **headers: str) -> Behavior:
    """Answer with an HTTP status; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: send(handler, code, content, named)


def images(request: Mapping[str, Any]) -> list[np.ndarray]:
    """The images in a request, (height, width, 3) each."""
    parts = request["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    files = [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def brighter(request: Mapping[str, Any]) -> dict[str, Any]:
    """Prefers the brighter of two images, rates one by its brightness, or finds it done the more the brighter it is."""
    light = [float(image.mean()) for image in images(request)]
    if request.get("logprobs"):
        return listed(True_=0.0, **{"True": -light[0], "False": -0.5})
    if len(light) == 1:
        return said(f"It is bright.\nAnswer: {light[0] / 25.6:.2f}")
    return said(f"Compared.\n**Answer: {1 if light[0] > light[1] else 2 if light[1] > light[0] else 0}**")


def text(request: Mapping[str, Any]) -> str:
    """All that a request says, without its images."""
    return "".join(part.get("text", "") for part in request["messages"][0]["content"])
