"""What the processes of an environment fleet do: each steps its environments, and draws frames."""

from __future__ import annotations

import functools
import multiprocessing
import select
import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.memory import keep_freed_memory
from prefvlm_core.domains.domain import Sizes
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.registry import DOMAINS

if TYPE_CHECKING:
    from prefvlm_core.domains.frames import Renderers, View


class SharedArrays:
    """The arrays shared by the parent and its workers, in anonymous memory: a killed parent leaves nothing behind."""

    def __init__(self, count: int, sizes: Sizes) -> None:
        context = multiprocessing.get_context("spawn")
        self._buffers: dict[str, tuple[Any, str, tuple[int, ...]]] = {}
        for name, dtype, shape in (
            ("seeds", "int64", (count,)),
            ("actions", "float32", (count, sizes.action)),
            ("observations", "float32", (count, sizes.observation)),
            ("rewards", "float32", (count,)),
            ("successes", "bool", (count,)),
            ("snapshots", "float32", (count, sizes.snapshot)),
            ("scenes", "float32", (count, sizes.scene)),
        ):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._buffers[name] = (context.RawArray("b", size), dtype, shape)

    def __getitem__(self, name: str) -> NDArray[Any]:
        buffer, dtype, shape = self._buffers[name]
        return np.frombuffer(buffer, dtype).reshape(shape)


@dataclass(frozen=True)
class Channel:
    """One end of a pipe between two processes."""

    connection: Connection
    patience: float
    """Seconds for which a receiver looks for a message without sleeping."""

    def send(self, message: Any) -> None:
        """Send what can be pickled."""
        self.connection.send(message)

    def recv(self) -> Any:
        """The next message, which is waited for."""
        if self.patience:
            poller, end = select.poll(), time.perf_counter() + self.patience
            poller.register(self.connection, select.POLLIN)
            while not poller.poll(0) and time.perf_counter() < end:
                pass
        return self.connection.recv()

    def comes_within(self, seconds: float) -> bool:
        """Whether a message comes within some seconds, or the other end breaks."""
        return self.connection.poll(seconds)

    def close(self) -> None:
        """Break the pipe."""
        self.connection.close()


class Share(NamedTuple):
    """What one worker is for."""

    indices: list[int]
    """Which environments of the fleet are its own."""
    tasks: list[str]
    """Their tasks."""
    horizon: int
    action_repeat: int


class Pictures(NamedTuple):
    """What a worker is asked to draw: N frames in one view."""

    view: View
    snapshots: NDArray[np.float32]
    scenes: NDArray[np.float32]


class _Worker:
    """The environments of a worker, and the renderers of the views that it was asked for."""

    def __init__(self, share: Share, shared: SharedArrays) -> None:
        self._share = share
        self._seeds, self._actions, self._observations = shared["seeds"], shared["actions"], shared["observations"]
        self._rewards, self._successes = shared["rewards"], shared["successes"]
        self._snapshots, self._scenes = shared["snapshots"], shared["scenes"]
        self._environments: list[Environment] = []
        self.task = share.tasks[0]
        """The one that it is at work on."""

    def open(self) -> tuple[int, int]:
        """Build the environments. Returns the sizes of their largest snapshot and scene."""
        for task in self._share.tasks:
            self.task = task
            environment = Environment(task, self._share.horizon, action_repeat=self._share.action_repeat)
            self._environments.append(environment)
        snapshots, scenes = zip(*((e.snapshot().size, e.scene().size) for e in self._environments), strict=True)
        return max(snapshots), max(scenes)

    def obey(self, command: str | Pictures) -> NDArray[np.uint8] | None:
        """Reset or step all environments, or draw frames (N, size, size, 3) and return them."""
        if isinstance(command, Pictures):
            self.task = command.view.task
            return next(self._renderers.render(*command))  # all at once
        for index, environment in zip(self._share.indices, self._environments, strict=True):
            self.task = environment.task
            if command == "reset":
                self._observations[index] = environment.reset(int(self._seeds[index]))
                scene = environment.scene()
                self._scenes[index, : scene.size] = scene
            else:
                step = environment.step(self._actions[index])
                self._observations[index], self._rewards[index], self._successes[index] = step
            snapshot = environment.snapshot()
            self._snapshots[index, : snapshot.size] = snapshot
        return None

    @functools.cached_property
    def _renderers(self) -> Renderers:
        from prefvlm_core.domains.frames import Renderers  # needs MuJoCo, which most commands do without

        return Renderers()


def work(share: Share, domains: bytes, shared: SharedArrays, pipe: Channel) -> None:
    """Run a worker: build its environments, then obey each command until the pipe closes.

    `domains` are those of the user's own by name, as their classes may exist in a notebook only.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    keep_freed_memory()
    worker = _Worker(share, shared)
    try:
        for name, domain in cloudpickle.loads(domains).items():  # from the process that started this one
            DOMAINS.register(name, domain)
        pipe.send(("ready", worker.open()))
        while True:
            pipe.send(("done", worker.obey(pipe.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent closed the fleet or died
    except PrefVLMError as error:
        pipe.send(("refused", f"Task '{worker.task}': {error}"))
    except Exception:
        pipe.send(("error", f"in task '{worker.task}':\n{traceback.format_exc()}"))
