"""Many environments stepped at once by worker processes, which draw frames as well."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import usable_cores
from prefvlm_core.domains.domain import Sizes
from prefvlm_core.domains.registry import DOMAINS, check_horizon, sizes_of
from prefvlm_core.domains.workers import Channel, Pictures, Share, SharedArrays, work

if TYPE_CHECKING:
    from prefvlm_core.domains.frames import View

_NO_GUARD = 78
"""Exit code of a worker that would start a fleet of its own while it imports the script that started it."""
_DRAWN_AT_ONCE = 256
"""Frames that all workers together draw at once, while those before them are embedded: enough for a batch of any
model, and 40 MB at 224 pixels."""
_LONGEST_DRAWING = 300.0
"""Seconds after which workers that draw are taken to hang. Even on a loaded machine they need a tenth of it."""


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
        self._shared = SharedArrays(len(tasks), self.sizes)
        self._waiting = False
        self._processes = []
        self._pipes: list[Channel] = []
        context = multiprocessing.get_context("spawn")
        domains = cloudpickle.dumps(DOMAINS.added(tasks))
        for worker in range(self.workers):
            indices = list(range(worker, len(tasks), self.workers))
            ours, theirs = (Channel(end, self._patience) for end in context.Pipe())
            share = Share(indices, [tasks[i] for i in indices], horizon, action_repeat)
            process = context.Process(target=work, args=(share, domains, self._shared, theirs), daemon=True)
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
        self._send(["reset"] * self.workers)
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
        self._send(["step"] * self.workers)

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

    def render(
        self, view: View, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8]]:
        """See `domains.frames.FrameSource`. The workers share the frames of each part, and draw the next part while
        the caller works on the one before it; no other call is allowed until the last one has come."""
        starts = range(0, max(1, len(snapshots)), _DRAWN_AT_ONCE)

        def begin(first: int) -> None:
            part = slice(first, first + _DRAWN_AT_ONCE)
            shares = (np.array_split(rows[part], self.workers) for rows in (snapshots, scenes))
            self._send([Pictures(view, *share) for share in zip(*shares, strict=True)])

        begin(0)
        for _, following in itertools.zip_longest(starts, starts[1:]):
            self._check_drawing()
            frames = np.concatenate(self._collect())
            if following is not None:
                begin(following)
            yield frames

    def _check_drawing(self) -> None:
        """Wait for the frames of every worker, at the most so long that none can still be at work."""
        if not all(pipe.comes_within(_LONGEST_DRAWING) for pipe in self._pipes):
            self.close()
            raise PrefVLMError(
                f"The {self.workers} processes that draw frames have not answered for {_LONGEST_DRAWING:.0f} seconds. "
                "Where several processes cannot draw on the GPU, set MUJOCO_GL=osmesa to draw on the processor."
            )

    @property
    def scenes(self) -> NDArray[np.float32]:
        """(N, C) float32: each `Environment.scene()` since the last reset, padded with zeros to the largest task's."""
        return self._shared["scenes"][:, : self._scene_size].copy()

    @property
    def snapshots(self) -> NDArray[np.float32]:
        """(N, S) float32: each current `Environment.snapshot()`, padded with zeros to the largest task's."""
        return self._shared["snapshots"][:, : self._snapshot_size].copy()

    def copies(self, count: int) -> EnvironmentFleet:
        """`count` environments for each of these, one after the other, that reset and step apart from them.

        They are started at the first call, and end with this fleet.
        """
        if count not in self._copies:
            tasks = [task for task in self.tasks for _ in range(count)]
            self._copies[count] = EnvironmentFleet(
                tasks, self.horizon, self._workers, self._action_repeat, self._patience
            )
        return self._copies[count]

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

    def __enter__(self) -> EnvironmentFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, commands: Sequence[str | Pictures]) -> None:
        """Send each worker its command, whose answer `_collect` takes."""
        if not self._pipes:
            raise PrefVLMError("This fleet is closed.")
        if self._waiting:
            raise PrefVLMError("This fleet is still at work: call step_wait first.")
        for pipe, command in zip(self._pipes, commands, strict=True):
            with contextlib.suppress(BrokenPipeError):  # a worker that died is reported by _collect
                pipe.send(command)
        self._waiting = True

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
