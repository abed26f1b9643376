"""Settings of every test, and the browser that several rooms' tests use."""

import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

torch.set_num_threads(1)  # as in training: several test processes on few cores would fight for them


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_to_other_files() -> Iterator[None]:
    """A file's tests end the processes that they start, and take back what the package told these by variables."""
    before = _told()
    yield
    assert not multiprocessing.active_children()
    assert _told() == before


def _told() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PREFVLM")}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from builders.jupyter import CHROMIUM  # needs what only few tests need

    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install prefvlm[browser]")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
