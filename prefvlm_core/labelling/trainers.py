"""Signs of life of a training, in the queue: whether it still runs, and when it will ask next, for people who wait."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref

from prefvlm_core.agent.replay import RunReplay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.labelling.database import TRAINERS
from prefvlm_core.labelling.queue import LabelQueue

BEAT_SECONDS = 5.0


class Heartbeat:
    """Writes to the queue every few seconds, from a thread of its own, that a run is in training.

    It ends when the run's replay is no longer in use, and with the process.
    """

    def __init__(self, queue: LabelQueue, config: RunConfig, replay: RunReplay) -> None:
        self._queue, self._config, self._replay = queue, config, weakref.ref(replay)
        self._over = False
        threading.Thread(target=self._beat, daemon=True).start()

    def end(self) -> None:
        """Tell people that the run asks no more. Raises `PrefVLMError` if the queue cannot be written."""
        self._over = True
        self._tell(None)

    def _beat(self) -> None:
        earlier: tuple[float, int] | None = None  # when the replay held how many steps
        while (replay := self._replay()) is not None:
            now = time.monotonic(), replay.size
            del replay
            # A fleet that was resumed holds steps already, which say nothing of its speed.
            speed = (now[1] - earlier[1]) / (now[0] - earlier[0]) if earlier and now[0] > earlier[0] else 0.0
            with contextlib.suppress(PrefVLMError):  # training itself will meet the error when it asks
                self._tell(seconds_to_session(self._config, now[1], speed))
            earlier = now
            time.sleep(BEAT_SECONDS)

    def _tell(self, seconds: float | None) -> None:
        now = time.time()
        known = {
            "budget": self._config.feedback.budget,
            "seen_at": now,
            "next_at": None if seconds is None or self._over else now + seconds,
            "over": int(self._over),
        }
        with self._queue.transaction() as connection:
            row = TRAINERS.c.run_id == self._config.run_id
            if not connection.execute(TRAINERS.update().where(row).values(**known)).rowcount:
                connection.execute(TRAINERS.insert().values(run_id=self._config.run_id, **known))


def seconds_to_session(config: RunConfig, step: int, speed: float) -> float | None:
    """Seconds until the next feedback session of a run that is at `step` and makes `speed` steps a second.

    None if it makes none, as while it learns rewards, or if there is no further session.
    """
    since, every = step - config.first_session_step, config.feedback.session_every
    due = config.first_session_step if since < 0 else step - since % every + every
    return (due - step) / speed if speed > 0 and due < config.total_steps else None
