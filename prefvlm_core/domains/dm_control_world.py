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
        body, what = task.split("-")
        self.env = _imported("suite").load(body, what, task_kwargs={"random": self._random})

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        self._random.seed(seed % 2**32)
        return _flat(self.env.reset().observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`."""
        step = self.env.step(action)
        return _flat(step.observation), float(step.reward), bool(step.reward >= _SUCCESS)

    def snapshot(self) -> NDArray[np.float32]:
        """The positions of the joints (nq,)."""
        return np.asarray(self.env.physics.data.qpos, np.float32).copy()

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
    return np.concatenate([np.ravel(values) for values in observation.values()])
