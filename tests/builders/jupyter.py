"""A real JupyterLab with the labeller in a headless chromium, and a person's hands."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nbformat
import numpy as np
import pytest
from sqlalchemy import select

from prefvlm_core.labelling.clips import encode
from prefvlm_core.labelling.database import ANSWERS, PAIRS
from prefvlm_core.labelling.queue import LabelQueue, Pair, label_of

_OF_PLAYWRIGHT = map(str, Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or next(_OF_PLAYWRIGHT, None)
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "equal": "ArrowUp", "skip": "ArrowDown", "undo": "Backspace"}
SOONEST_MS = 250
"""As in pair_view.js: sooner counts as a double press."""
SIZE = 120
"""Height and width of `drawn_clip`, pixels."""
PATIENCE = 300
"""Seconds; the machine may be busy."""


def drawn_clip(number: int, frames: int = 10) -> bytes:
    """Two squares: the first segment's is red and stands at a place of the pair, the second's is blue and moves."""
    sheet = np.full((frames, 2, SIZE, SIZE, 3), 230, np.uint8)
    for frame in range(frames):
        for side, color in enumerate(((200, 60, 60), (60, 60, 200))):
            left = 5 + frame * 7 if side else 5 + number * 3 % 60
            sheet[frame, side, 45:70, left : left + 25] = color
    return encode(sheet)


def post(
    queue: LabelQueue, count: int, clips: list[tuple[int, bytes]] | None = None, text: str = "push and close a drawer"
) -> None:
    for number in range(count):
        frames, clip = clips[number % len(clips)] if clips else (10, drawn_clip(number))
        known = {"vlm_label": 1.0, "truth": float(number % 2)}
        queue.post(Pair("run", 1, number, count, "drawer-close-v3", text, 0, 90, 20, frames, clip, **known))


def labels(queue: LabelQueue) -> list[tuple[int, str]]:
    """(pair, choice) of the answers that training would use, in the order in which they were given."""
    query = select(PAIRS.c.pair, ANSWERS.c.choice, ANSWERS.c.label, ANSWERS.c.swapped).join(ANSWERS)
    given = ANSWERS.c.training == 1, ANSWERS.c.choice.is_not(None)
    with queue.transaction(reading=True) as connection:
        rows = connection.execute(query.where(*given).order_by(ANSWERS.c.number)).all()
    assert all(row.label == label_of(row.choice, bool(row.swapped)) for row in rows)
    return [(row.pair, row.choice) for row in rows]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class JupyterLab:
    """A server of our own."""

    folder: Path
    port: int
    token: str

    def write(self, name: str, *cells: str) -> str:
        """Write a notebook and return its address."""
        write_notebook(self.folder / f"{name}.ipynb", *cells)
        return f"http://127.0.0.1:{self.port}/lab/tree/{name}.ipynb?reset&token={self.token}"

    def ask(self, path: str, method: str = "GET") -> Any:
        url = f"http://127.0.0.1:{self.port}/api/{path}?token={self.token}"
        with urlopen(Request(url, method=method)) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self) -> None:
        for kernel in self.ask("kernels"):
            self.ask(f"kernels/{kernel['id']}", "DELETE")


def write_notebook(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[JupyterLab]:
    """Serve `folder`."""
    lab = JupyterLab(folder, free_port(), secrets.token_hex(8))
    settings = [f"--ServerApp.port={lab.port}", f"--IdentityProvider.token={lab.token}"]
    settings += [f"--ServerApp.root_dir={folder}", "--no-browser", "--allow-root", "--ServerApp.port_retries=0"]
    settings += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly", "--ServerApp.disable_check_xsrf=True"]
    with served(folder, "jupyterlab", settings, lambda: lab.ask("status")):
        yield lab


@contextlib.contextmanager
def voila(notebook: Path) -> Iterator[str]:
    """Serve a notebook as a page, and say at which address. Skips the test where Voila is missing."""
    pytest.importorskip("voila", reason="no voila: pip install voila")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    settings = [str(notebook), f"--port={port}", "--no-browser"]
    with served(notebook.parent, "voila", settings, lambda: urlopen(f"{address}voila/static/voila.js").read()):
        yield address


def without_network(page: Any) -> Any:
    """The page, which from now on reaches this machine alone."""
    page.context.route(lambda url: "//127.0.0.1:" not in url, lambda route: route.abort())
    return page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(folder: Path, module: str, settings: list[str], ask: Callable[[], Any]) -> Iterator[None]:
    """A server in a process of its own, from its first answer to `ask`."""
    private = {name: str(folder / ".jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    package = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    with (folder / "jupyter.log").open("wb") as log:
        command = [sys.executable, "-m", module, *settings]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | private | {"PYTHONPATH": package})
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                ask()
                break
            assert server.poll() is None, (folder / "jupyter.log").read_text()
            time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait(30)


def run_cell(page: Any, cell: int = 0) -> None:
    """Run a cell; JupyterLab runs nothing while the kernel is starting (its issue 8490)."""
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").nth(cell).click()
    page.keyboard.press("Control+Enter")


def wait_for(page: Any, condition: str) -> None:
    """Until a JavaScript condition on `it`, the last labeller of the page, holds."""
    last = "[...document.querySelectorAll('.prefvlm-labeller')].at(-1)"
    page.wait_for_function(f"(() => {{ const it = {last}; return it && {condition}; }})()")


def wait_for_pair(page: Any) -> None:
    wait_for(page, "it.dataset.state === 'asking' && it.dataset.shown > 0")


def shown(page: Any) -> int:
    return int(page.locator(".prefvlm-labeller").last.get_attribute("data-shown"))


def answer(page: Any, choice: str, click: bool = False) -> int:
    """Give an answer as a person does and wait for the next pair; returns the milliseconds until it was on screen."""
    before = shown(page)
    page.wait_for_timeout(SOONEST_MS + 50)
    if click:
        page.locator(f".prefvlm-labeller .{choice}").last.click()
    else:
        page.keyboard.press(KEYS[choice])
    wait_for(page, f"it.dataset.shown > {before}")
    return int(page.locator(".prefvlm-labeller").last.get_attribute("data-milliseconds"))
