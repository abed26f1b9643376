"""Many environments stepped at once by worker processes."""

import contextlib
import multiprocessing
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import usable_cores
from prefvlm_core.domains.domain import Sizes
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.registry import DOMAINS, check_horizon, sizes_of

_NO_GUARD = 78
"""Exit code of a worker that would start a fleet of its own while it imports the script that started it."""


@dataclass(frozen=True)
class Step:
    """The result of one step of a fleet of N environments. The arrays are copies, which the caller may keep.

    Attributes:
        observations: (N, O) float32, cast from the environments' float64.
        rewards: (N,) float32, the true rewards.
        successes: (N,) bool.
        snapshots: (N, S) float32, each `Environment.snapshot()` padded with zeros to that of the fleet's largest task.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float32]
    successes: NDArray[np.bool_]
    snapshots: NDArray[np.float32]


class _SharedArrays:
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
class _Channel:
    """One end of a pipe between two processes."""

    connection: Connection
    patience: float
    """Seconds for which a receiver looks for a message without sleeping."""

    def send(self, message: Any) -> None:
        self.connection.send(message)

    def recv(self) -> Any:
        if self.patience:
            poller, end = select.poll(), time.perf_counter() + self.patience
            poller.register(self.connection, select.POLLIN)
            while not poller.poll(0) and time.perf_counter() < end:
                pass
        return self.connection.recv()

    def close(self) -> None:
        self.connection.close()


def _work(
    indices: list[int],
    tasks: list[str],
    domains: bytes,
    horizon: int,
    action_repeat: int,
    shared: _SharedArrays,
    pipe: _Channel,
) -> None:
    """Run a worker: build its environments, then reset or step all of them at each command until the pipe closes.

    `domains` are those of the user's own by name, as their classes may exist in a notebook only.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    seeds, actions, observations = shared["seeds"], shared["actions"], shared["observations"]
    rewards, successes = shared["rewards"], shared["successes"]
    snapshots, scenes = shared["snapshots"], shared["scenes"]
    task = tasks[0]
    try:
        for name, domain in cloudpickle.loads(domains).items():  # from the process that started this one
            DOMAINS.register(name, domain)
        environments = []
        for task in tasks:
            environments.append(Environment(task, horizon, action_repeat=action_repeat))
        largest = (max(e.snapshot().size for e in environments), max(e.scene().size for e in environments))
        pipe.send(("ready", largest))
        while True:
            command = pipe.recv()
            for index, environment in zip(indices, environments, strict=True):
                task = environment.task
                if command == "reset":
                    observations[index] = environment.reset(int(seeds[index]))
                    scene = environment.scene()
                    scenes[index, : scene.size] = scene
                else:
                    observations[index], rewards[index], successes[index] = environment.step(actions[index])
                snapshot = environment.snapshot()
                snapshots[index, : snapshot.size] = snapshot
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent closed the fleet or died
    except PrefVLMError as error:
        pipe.send(("refused", f"Task '{task}': {error}"))
    except Exception:
        pipe.send(("error", f"in task '{task}':\n{traceback.format_exc()}"))


def _common_sizes(tasks: Sequence[str], sizes: Sequence[Sizes]) -> Sizes:
    """Sizes that hold every one of the tasks, whose observations and actions must be alike."""
    for task, other in zip(tasks, sizes, strict=True):
        if (other.observation, other.action) != (sizes[0].observation, sizes[0].action):
            raise PrefVLMError(
                f"'{tasks[0]}' and '{task}' cannot share a fleet: they have {sizes[0].observation} and "
                f"{other.observation} observations, {sizes[0].action} and {other.action} actions."
            )
    most = max(each.snapshot for each in sizes), max(each.scene for each in sizes)
    return Sizes(sizes[0].observation, sizes[0].action, *most)


def default_workers() -> int:
    """The number of cores that this process may use, less one for the learner, but at least 1."""
    return max(1, usable_cores() - 1)


def check_main_guard() -> None:
    """End this process if it is a worker that imports the script of its parent, and so would run the script again.

    The parent then says what the script lacks. To be called at the start of whatever may start a fleet.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself finds it out
        sys.exit(_NO_GUARD)


class EnvironmentFleet:
    """N environments stepped in lock step by worker processes, each of which steps its share one after the other.

    The results are the same for any number of workers. Workers are spawned, so a script that creates a fleet needs the
    usual `if __name__ == "__main__":` guard. They end when the fleet is closed or when this process ends for whatever
    reason. A `PrefVLMError` in a worker closes the fleet and is raised here, with the task's name in front; any other
    exception closes it too and becomes a `RuntimeError` that names the task and holds the worker's traceback.

    Args:
        tasks: One task name per environment; names may repeat.
        horizon: Steps per episode.
        workers: Number of worker processes, at least 1; no more than N are started.
        action_repeat: The domain's steps per step of this environment.
        patience: Seconds for which a process that waits for another keeps its core busy instead of sleeping, where
            every process has a core of its own. Waking up can take several times as long as a step.

    Raises:
        PrefVLMError: For an unknown task, no task, no worker, tasks of different sizes, an episode longer than a
            domain's longest, and a script without the guard.
    """

    def __init__(
        self, tasks: Sequence[str], horizon: int, workers: int, action_repeat: int = 1, patience: float = 0.0
    ) -> None:
        check_main_guard()
        wanted = [sizes_of(task) for task in tasks]
        if not tasks:
            raise PrefVLMError("A fleet needs at least one task, but `tasks` is empty.")
        if workers < 1:
            raise PrefVLMError(f"workers is {workers}, but a fleet needs at least 1.")
        for task in tasks:
            check_horizon(task, horizon, action_repeat)
        self.sizes = _common_sizes(tasks, wanted)
        self.tasks = tuple(tasks)
        self.horizon = horizon
        self.workers = min(workers, len(tasks))
        self._workers, self._action_repeat = workers, action_repeat
        self._patience = patience if workers < usable_cores() else 0.0
        self._copies: dict[int, EnvironmentFleet] = {}
        self._shared = _SharedArrays(len(tasks), self.sizes)
        self._waiting = False
        self._processes = []
        self._pipes: list[_Channel] = []
        context = multiprocessing.get_context("spawn")
        domains = cloudpickle.dumps(DOMAINS.added(tasks))
        for worker in range(self.workers):
            indices = list(range(worker, len(tasks), self.workers))
            ours, theirs = (_Channel(end, self._patience) for end in context.Pipe())
            own = [tasks[i] for i in indices]
            arguments = (indices, own, domains, horizon, action_repeat, self._shared, theirs)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that the pipe breaks when either process ends
            self._processes.append(process)
            self._pipes.append(ours)
        sizes = self._collect()
        self._snapshot_size = max(snapshot for snapshot, _ in sizes)
        self._scene_size = max(scene for _, scene in sizes)

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Reset environment i with seeds[i] (≥ 0) and return the first observations, (N, O) float32."""
        if len(seeds) != len(self.tasks) or min(seeds) < 0:
            raise PrefVLMError(f"reset needs {len(self.tasks)} seeds of 0 or more, one per environment, got {seeds}.")
        self._shared["seeds"][:] = seeds
        self._send("reset")
        self._collect()
        return self._shared["observations"].copy()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Start one step with actions (N, A) float32. Returns immediately; `step_wait` returns the result."""
        if actions.shape != (len(self.tasks), self.sizes.action) or not np.isfinite(actions).all():
            raise PrefVLMError(
                f"step_async needs finite actions of shape ({len(self.tasks)}, {self.sizes.action}), "
                f"got shape {actions.shape}, finite: {bool(np.isfinite(actions).all())}."
            )
        self._shared["actions"][:] = actions
        self._send("step")
        self._waiting = True

    def step_wait(self) -> Step:
        """Wait for the step that `step_async` started and return its result."""
        if not self._waiting:
            raise PrefVLMError("step_wait was called without a step_async before it.")
        self._collect()
        shared = self._shared
        return Step(
            shared["observations"].copy(),
            shared["rewards"].copy(),
            shared["successes"].copy(),
            shared["snapshots"][:, : self._snapshot_size].copy(),
        )

    @property
    def scenes(self) -> NDArray[np.float32]:
        """(N, C) float32: each `Environment.scene()` since the last reset, padded with zeros to the largest task's."""
        return self._shared["scenes"][:, : self._scene_size].copy()

    @property
    def snapshots(self) -> NDArray[np.float32]:
        """(N, S) float32: each current `Environment.snapshot()`, padded with zeros to the largest task's."""
        return self._shared["snapshots"][:, : self._snapshot_size].copy()

    def copies(self, count: int) -> "EnvironmentFleet":
        """`count` environments for each of these, one after the other, that reset and step apart from them.

        They are started at the first call, and end with this fleet, which a `count` of 1 gives itself.
        """
        if count > 1 and count not in self._copies:
            tasks = [task for task in self.tasks for _ in range(count)]
            self._copies[count] = EnvironmentFleet(
                tasks, self.horizon, self._workers, self._action_repeat, self._patience
            )
        return self if count == 1 else self._copies[count]

    def close(self) -> None:
        """End the workers. Closing a fleet again is harmless."""
        for fleet in self._copies.values():
            fleet.close()
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def __enter__(self) -> "EnvironmentFleet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, command: str) -> None:
        if not self._pipes:
            raise PrefVLMError("This fleet is closed.")
        if self._waiting:
            raise PrefVLMError(f"{command} was called during a step: call step_wait first.")
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):  # a worker that died is reported by _collect
                pipe.send(command)

    def _collect(self) -> list[Any]:
        """Wait for every worker's answer; at the first failure, end all workers and raise it."""
        answers = []
        for worker, pipe in enumerate(self._pipes):
            try:
                kind, answer = pipe.recv()
            except (EOFError, ConnectionResetError):
                self._processes[worker].join(timeout=5)
                if self._processes[worker].exitcode == _NO_GUARD:
                    self.close()
                    raise PrefVLMError(
                        "The processes that step the environments import your script, which would train again there: "
                        'put what it does below the line `if __name__ == "__main__":`.'
                    ) from None
                kind, answer = "error", f"with tasks {self.tasks[worker :: self.workers]}: its process died."
            if kind == "refused":
                self.close()
                raise PrefVLMError(answer)
            if kind == "error":
                self.close()
                raise RuntimeError(f"Environment worker {worker} failed {answer}")
            answers.append(answer)
        self._waiting = False
        return answers
