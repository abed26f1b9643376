"""Progress bars: while people are waited for, no time passes for them."""

import importlib
import io
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from builders.runs import quiet, tiny
from tqdm.std import tqdm

from prefvlm_core import train
from prefvlm_core.common import progress
from prefvlm_core.common.progress import paused

HOUR = 3600.0
LOOP = importlib.import_module("prefvlm_core.train")  # `import prefvlm_core.train as` would give the function


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Seconds that pass only when they are added; tqdm's clock and ours."""
    seconds = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
    monkeypatch.setattr(progress.time, "time", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(("wait", "elapsed"), [(paused, 20.0), (lambda bar: nullcontext(), HOUR + 20.0)])
def test_waiting_counts_neither_as_speed_nor_as_time(clock: list[float], wait, elapsed: float) -> None:
    shown = io.StringIO()
    with tqdm(total=100, mininterval=0, miniters=1, file=shown, ncols=80) as bar:
        for number in range(20):
            if number == 10:
                with wait(bar):
                    clock[0] += HOUR
            clock[0] += 1.0
            bar.update()
        assert bar.format_dict["elapsed"] == elapsed
        rate = bar.format_dict["rate"]
    last = shown.getvalue().split("\r")[-1]
    if wait is paused:
        assert rate == pytest.approx(1.0)
        assert "[00:20<01:20,  1.00it/s]" in last
    else:  # what tqdm makes of an hour without an update
        assert rate < 0.1 and not re.search("<01:20", last)


def test_a_hidden_bar_can_wait_too(clock: list[float]) -> None:
    with tqdm(total=1, disable=True) as bar, paused(bar):
        clock[0] += HOUR


@pytest.mark.parametrize(("teacher", "waits"), [("oracle", False), ("human", True)])
def test_training_waits_for_people_alone(
    teacher: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    def noted(bar: tqdm) -> AbstractContextManager[None]:
        bars.append(bar)
        return paused(bar)

    monkeypatch.setattr(LOOP, "paused", noted)
    short = {"total_steps": 150, "evaluation.every": 150, "evaluation.final_episodes": 1}
    config = tiny("pebble", **{"feedback.teacher": teacher} | short)
    train([config], quiet(tmp_path, label_timeout=0.0))
    assert bool(bars) == waits and len(set(map(id, bars))) == waits
