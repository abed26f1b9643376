"""Meta-World tasks, one by one or many at a time in worker processes.

The goal is hidden and drawn anew at each reset, as in the benchmarks of PEBBLE, RIME and PrefVLM on Meta-World.
"""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import mujoco
import numpy as np
from gymnasium.utils import seeding
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.fast_metaworld import make_task
from prefvlm_core.domains.tasks import ACTION_SIZE, MAX_HORIZON, OBSERVATION_SIZE, check_horizon, check_task

_MOCAP_QUATERNION = (1.0, 0.0, 1.0, 0.0)  # Meta-World never turns the hand
_SNAPSHOT_ROOM = 32  # floats per environment in shared memory; the largest task needs 21
_SCENE_ROOM = 512  # the largest task needs 321


def model_path(task: str) -> str:
    """Where Meta-World keeps the MuJoCo XML file of `task`, with everything that can be seen in it."""
    check_task(task)
    task_class = ALL_V3_ENVIRONMENTS[task]
    return str(task_class.__new__(task_class).model_name)  # a property that reads nothing of the instance


def restore(
    model: mujoco.MjModel, data: mujoco.MjData, snapshot: NDArray[np.float32], scene: NDArray[np.float32]
) -> None:
    """Put a model and its data into the pose held by `Environment.snapshot()` and `Environment.scene()`.

    `model` may be a lighter one for rendering, as long as its bodies, sites and joints are the task's.
    Zeros that pad `snapshot` and `scene` at the end are ignored. Poses of bodies, geoms, sites, cameras and lights
    are those of the recorded step up to float32; velocities, contacts and forces are not restored.
    """
    size = model.nq + 3
    if snapshot.ndim != 1 or snapshot.size < size or scene.ndim != 1 or scene.size < 3 * (model.nbody + model.nsite):
        raise PrefVLMError(
            f"Snapshot {snapshot.shape} and scene {scene.shape} do not fit this model, which needs "
            f"at least ({size},) and ({3 * (model.nbody + model.nsite)},)."
        )
    bodies = 3 * model.nbody
    model.body_pos[:] = scene[:bodies].reshape(-1, 3)
    model.site_pos[:] = scene[bodies : bodies + 3 * model.nsite].reshape(-1, 3)
    data.qpos[:] = snapshot[: model.nq]
    data.mocap_pos[0] = snapshot[model.nq : size]
    data.mocap_quat[0] = _MOCAP_QUATERNION
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


class Environment:
    """One Meta-World task. Episodes depend on the seed given to `reset` alone, not on what was done before.

    Observations, rewards and successes are bit for bit those of a new instance of Meta-World's class, seeded and reset.

    Args:
        task: One of TASKS.
        horizon: Steps per episode; stepping further raises.
        goal_visible: Show the goal in the last three entries of the observation, which are 0 otherwise.
        action_repeat: Meta-World's steps per step, all with the same action; an episode has at most 500 of them.
    """

    def __init__(
        self, task: str, horizon: int = MAX_HORIZON, goal_visible: bool = False, action_repeat: int = 1
    ) -> None:
        check_task(task)
        check_horizon(horizon, action_repeat)
        self.task = task
        self.horizon = horizon
        self.action_repeat = action_repeat
        self._env = env = make_task(task, goal_visible)
        self._pristine_attributes = dict(env.__dict__)
        self._pristine_positions = (env.model.body_pos.copy(), env.model.site_pos.copy())
        self._steps = horizon

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Start the episode named by `seed` (≥ 0) and return its first observation, (39,) float64."""
        if seed < 0:
            raise PrefVLMError(f"reset of '{self.task}' needs a seed of 0 or more, got {seed}.")
        env = self._env
        env.__dict__.clear()
        env.__dict__.update(self._pristine_attributes)
        env.model.body_pos[:], env.model.site_pos[:] = self._pristine_positions
        mujoco.mj_resetData(env.model, env.data)
        mujoco.mj_forward(env.model, env.data)
        env.np_random, _ = seeding.np_random(seed)
        observation, _ = env.reset()
        self._steps = 0
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """Apply an action, (4,) float32 in [-1, 1] (hand displacement x, y, z and gripper effort).

        Returns: observation (39,) float64, Meta-World's reward in [0, 10], whether its success test is met; where the
        action is repeated, the last observation, the mean of the rewards, and whether any repeat met the test.
        """
        if action.shape != (ACTION_SIZE,):
            raise PrefVLMError(f"'{self.task}' needs an action of shape ({ACTION_SIZE},), got {action.shape}.")
        if self._steps >= self.horizon:
            raise PrefVLMError(
                f"'{self.task}' has no step {self._steps + 1} of {self.horizon}: call reset(seed) first."
            )
        self._steps += 1
        action = action.astype(np.float32, copy=False)
        total, success = 0.0, False
        for _ in range(self.action_repeat):
            observation, reward, _, _, info = self._env.step(action)
            total += float(reward)
            success |= bool(info["success"])
        return observation, total / self.action_repeat, success

    def snapshot(self) -> NDArray[np.float32]:
        """Joint positions and mocap position, (nq + 3,) float32: what moves from step to step, for `restore`."""
        data = self._env.data
        return np.concatenate((data.qpos, data.mocap_pos[0]), dtype=np.float32)

    def scene(self) -> NDArray[np.float32]:
        """Positions of bodies and sites in the model, flat float32: what a reset moves, for `restore`."""
        model = self._env.model
        return np.concatenate((model.body_pos, model.site_pos), axis=None, dtype=np.float32)


@dataclass(frozen=True)
class Step:
    """What a fleet of N environments returns for one step; copies, free to keep.

    Attributes:
        observations: (N, 39) float32, Meta-World's float64 ones cast.
        rewards: (N,) float32, Meta-World's reward in [0, 10].
        successes: (N,) bool.
        snapshots: (N, S) float32, `Environment.snapshot()` padded with zeros to the largest task in the fleet.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float32]
    successes: NDArray[np.bool_]
    snapshots: NDArray[np.float32]


class _SharedArrays:
    """The arrays that parent and workers see. The memory is anonymous: a killed parent leaves nothing behind."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._buffers: dict[str, tuple[Any, str, tuple[int, ...]]] = {}
        for name, dtype, shape in (
            ("seeds", "int64", (count,)),
            ("actions", "float32", (count, ACTION_SIZE)),
            ("observations", "float32", (count, OBSERVATION_SIZE)),
            ("rewards", "float32", (count,)),
            ("successes", "bool", (count,)),
            ("snapshots", "float32", (count, _SNAPSHOT_ROOM)),
            ("scenes", "float32", (count, _SCENE_ROOM)),
        ):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._buffers[name] = (context.RawArray("b", size), dtype, shape)

    def __getitem__(self, name: str) -> NDArray[Any]:
        buffer, dtype, shape = self._buffers[name]
        return np.frombuffer(buffer, dtype).reshape(shape)


def _work(
    indices: list[int], tasks: list[str], horizon: int, action_repeat: int, shared: _SharedArrays, pipe: Connection
) -> None:
    """A worker's life: build its environments, then step or reset all of them at each signal until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    seeds, actions, observations = shared["seeds"], shared["actions"], shared["observations"]
    rewards, successes = shared["rewards"], shared["successes"]
    snapshots, scenes = shared["snapshots"], shared["scenes"]
    task = tasks[0]
    try:
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
    except Exception:
        pipe.send(("error", f"in task '{task}':\n{traceback.format_exc()}"))


def default_workers() -> int:
    """One worker process per core this process may use, less one for the learner; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


class EnvironmentFleet:
    """N environments stepped in lock step by worker processes, each stepping its share in turn.

    Results are the same for any number of workers. Workers are spawned, so a script that makes a fleet needs the usual
    `if __name__ == "__main__":` guard; they end when the fleet is closed or this process ends, however it ends.
    An exception in a worker ends the fleet and is raised here as RuntimeError with the task's name and the traceback.

    Args:
        tasks: One task name per environment; names may repeat.
        horizon: Steps per episode.
        workers: Worker processes, at least 1; more than N are not started.
        action_repeat: Meta-World's steps per step; an episode has at most 500 of them.
    """

    def __init__(self, tasks: Sequence[str], horizon: int, workers: int, action_repeat: int = 1) -> None:
        for task in tasks:
            check_task(task)
        if not tasks:
            raise PrefVLMError("A fleet needs at least one task, but `tasks` is empty.")
        if workers < 1:
            raise PrefVLMError(f"workers is {workers}, but a fleet needs at least 1.")
        check_horizon(horizon, action_repeat)
        self.tasks = tuple(tasks)
        self.horizon = horizon
        self.workers = min(workers, len(tasks))
        self._shared = _SharedArrays(len(tasks))
        self._waiting = False
        self._processes = []
        self._pipes: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        for worker in range(self.workers):
            indices = list(range(worker, len(tasks), self.workers))
            ours, theirs = context.Pipe()
            arguments = (indices, [tasks[i] for i in indices], horizon, action_repeat, self._shared, theirs)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that the worker's end breaks when either process ends
            self._processes.append(process)
            self._pipes.append(ours)
        sizes = self._collect()
        self._snapshot_size = max(snapshot for snapshot, _ in sizes)
        self._scene_size = max(scene for _, scene in sizes)

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Reset environment i with seeds[i] (≥ 0); returns the first observations, (N, 39) float32."""
        if len(seeds) != len(self.tasks) or min(seeds) < 0:
            raise PrefVLMError(f"reset needs {len(self.tasks)} seeds of 0 or more, one per environment, got {seeds}.")
        self._shared["seeds"][:] = seeds
        self._send("reset")
        self._collect()
        return self._shared["observations"].copy()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Start one step with actions (N, 4) float32; returns at once, `step_wait` returns the result."""
        if actions.shape != (len(self.tasks), ACTION_SIZE) or not np.isfinite(actions).all():
            raise PrefVLMError(
                f"step_async needs finite actions of shape ({len(self.tasks)}, {ACTION_SIZE}), "
                f"got shape {actions.shape}, finite: {bool(np.isfinite(actions).all())}."
            )
        self._shared["actions"][:] = actions
        self._send("step")
        self._waiting = True

    def step_wait(self) -> Step:
        """Wait for the step started by `step_async` and return it."""
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
        """(N, C) float32: `Environment.scene()` since the last reset, padded with zeros to the largest task."""
        return self._shared["scenes"][:, : self._scene_size].copy()

    @property
    def snapshots(self) -> NDArray[np.float32]:
        """(N, S) float32: `Environment.snapshot()` now, padded with zeros; right after `reset` the first frames'."""
        return self._shared["snapshots"][:, : self._snapshot_size].copy()

    def close(self) -> None:
        """End the workers. Closing twice is harmless."""
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
            raise PrefVLMError(f"{command} was called while a step is under way: call step_wait first.")
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError):  # a worker that died is reported by _collect
                pipe.send(command)

    def _collect(self) -> list[Any]:
        """Wait for every worker's answer; on the first failure end all workers and raise it."""
        answers = []
        for worker, pipe in enumerate(self._pipes):
            try:
                kind, answer = pipe.recv()
            except (EOFError, ConnectionResetError):
                kind, answer = "error", f"with tasks {self.tasks[worker :: self.workers]}: its process died."
            if kind == "error":
                self.close()
                raise RuntimeError(f"Environment worker {worker} failed {answer}")
            answers.append(answer)
        self._waiting = False
        return answers
