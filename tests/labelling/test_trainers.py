"""What a training tells the people who wait for it, and the line that it prints for them."""

import time
from pathlib import Path

import pytest
from builders.runs import quiet, tiny
from sqlalchemy import select

from prefvlm_core.config.run import Execution
from prefvlm_core.labelling import trainers
from prefvlm_core.labelling.database import TRAINERS
from prefvlm_core.labelling.queue import LabelQueue
from prefvlm_core.labelling.teacher import line_to_paste
from prefvlm_core.labelling.trainers import Heartbeat, seconds_to_session
from prefvlm_core.train import train


class Steps:
    """Stands in for a replay that grows."""

    size = 0


def heard(queue: LabelQueue) -> list[tuple[float | None, int]]:
    """(seconds between the sign of life and the next session, over) of each run."""
    columns = TRAINERS.c.next_at - TRAINERS.c.seen_at, TRAINERS.c.over
    with queue.transaction(reading=True) as connection:
        return [tuple(row) for row in connection.execute(select(*columns))]


@pytest.mark.parametrize(
    ("step", "speed", "seconds"),
    [(0, 10.0, 20.0), (150, 10.0, 5.0), (200, 5.0, 20.0), (299, 1.0, 1.0), (0, 0.0, None), (950, 1.0, None)],
)
def test_the_next_session_is_as_far_as_its_steps(step: int, speed: float, seconds: float | None) -> None:
    config = tiny("pebble", **SESSIONS)
    assert config.first_session_step == 200 and config.total_steps == 1000
    assert seconds_to_session(config, step, speed) == seconds


SESSIONS = {
    "total_steps": 1000,
    "exploration.random_steps": 120,
    "exploration.entropy_steps": 80,
    "feedback.session_every": 100,
}


def test_a_training_says_that_it_lives_until_its_replay_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "BEAT_SECONDS", 0.05)
    queue, steps = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), Steps()
    heartbeat = Heartbeat(queue, tiny("pebble", **SESSIONS), steps)  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while not (heard(queue) and heard(queue)[0][0]):
        steps.size = min(steps.size + 1, 190)
        time.sleep(0.01)
        assert time.monotonic() < deadline
    heartbeat.end()
    assert heard(queue) == [(None, 1)]
    del steps
    time.sleep(0.2)
    with queue.transaction() as connection:
        connection.execute(TRAINERS.delete())
    time.sleep(0.3)
    assert heard(queue) == []


def test_a_resumed_training_says_nothing_of_its_speed_before_it_has_stepped(tmp_path: Path) -> None:
    """Its replay is full of steps that it has not made now."""
    queue, steps = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), Steps()
    steps.size = 150
    Heartbeat(queue, tiny("pebble", **SESSIONS), steps)  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while not heard(queue):
        time.sleep(0.01)
        assert time.monotonic() < deadline
    assert heard(queue) == [(None, 0)]


def test_the_line_to_paste_names_the_queue_and_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_to_paste(Execution(str(tmp_path)))
    assert line == f"from prefvlm_core import Labeller; Labeller('sqlite:///{tmp_path}/labels.sqlite', \"your name\")"
    secret = "postgresql://ann:hunter2@host/labels"
    assert "hunter2" not in line_to_paste(Execution(labels=secret)) and "***@host" in line_to_paste(
        Execution(labels=secret)
    )
    monkeypatch.setenv("QUEUE", secret)
    assert "Labeller('env:QUEUE', " in line_to_paste(Execution(labels="env:QUEUE"))


def test_a_finished_training_asks_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([tiny("pebble", **{"feedback.teacher": "human"})], quiet(tmp_path, label_timeout=0.0))
    assert heard(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")) == [(None, 1)]
    assert "Labeller('sqlite:///" in "".join(capsys.readouterr())
