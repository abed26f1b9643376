"""The worlds of the DeepMind Control suite, and their pictures from the side."""

from __future__ import annotations

import importlib
import os
import posixpath
from types import ModuleType
from unittest import mock

import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.model_drawing import FREE_CAMERA, compiled, pose

_SUCCESS = 0.9


class DMControlWorld:
    """One body; see `domains.domain.World`. A success is a step with a reward of .9 or more."""

    def __init__(self, task: str) -> None:
        self._random = np.random.RandomState(0)
        self._name = task
        body, what = task.split("-")
        self.env = env = _imported("suite").load(body, what, task_kwargs={"random": self._random})
        self._task, self._physics = env.task, env.physics
        self._substeps = round(env.control_timestep() / env.physics.timestep())
        self._model, self._data = env.physics.model.ptr, env.physics.data.ptr
        # Views, which follow the simulation:
        self._positions: NDArray[np.float64] = self._data.qpos
        self._control: NDArray[np.float64] = self._data.ctrl
        self._warnings: NDArray[np.int32] = self._data.warning.number

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        self._random.seed(seed % 2**32)
        return _flat(self.env.reset().observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`."""
        self._control[:] = action
        # As the suite orders the parts of its steps, so that what it observes is of the last position.
        mujoco.mj_step2(self._model, self._data)
        mujoco.mj_step(self._model, self._data, nstep=self._substeps - 1)
        mujoco.mj_step1(self._model, self._data)
        if self._warnings.any():
            raise PrefVLMError(f"The simulation of '{self._name}' has become unstable at {self._data.time:.3f} s.")
        reward = float(self._task.get_reward(self._physics))
        return _flat(self._task.get_observation(self._physics)), reward, reward >= _SUCCESS

    def snapshot(self) -> NDArray[np.float32]:
        """The positions of the joints (nq,)."""
        return self._positions.astype(np.float32)

    def scene(self) -> NDArray[np.float32]:
        """Nothing, as a single 0."""
        return np.zeros(1, np.float32)


def model_from_the_side(task: str) -> mujoco.MjModel:
    """The body for rendering. The suite's camera `side` follows it."""
    xml, files = _imported(f"suite.{task.split('-')[0]}").get_model_and_assets()
    spec = mujoco.MjSpec.from_string(xml.decode(), include={posixpath.normpath(name): files[name] for name in files})
    spec.worldbody.add_camera(name=FREE_CAMERA)
    return compiled(spec)


def restore(
    model: mujoco.MjModel, data: mujoco.MjData, snapshot: NDArray[np.float32], scene: NDArray[np.float32]
) -> None:
    """Put the body where a snapshot (nq,) says; what pads it is ignored. Raises `PrefVLMError` for a smaller one."""
    if snapshot.size < model.nq:
        raise PrefVLMError(f"A snapshot {snapshot.shape} does not fit, it needs ({model.nq},).")
    pose(model, data, snapshot[: model.nq])


def _imported(name: str) -> ModuleType:
    """A module of dm_control, which would try one way to draw after another, warn of a missing screen, and never draws
    here."""
    with mock.patch.dict(os.environ, {"MUJOCO_GL": "disabled"}):
        return importlib.import_module(f"dm_control.{name}")


def _flat(observation: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(list(observation.values()), axis=None)
