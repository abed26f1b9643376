"""Meta-World tasks as environments whose episodes depend on a seed alone, and snapshots that restore their poses.

The goal is hidden and drawn anew at each reset, as in the benchmarks of PEBBLE, RIME and PrefVLM on Meta-World.
"""

import mujoco
import numpy as np
from gymnasium.utils import seeding
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.fast_metaworld import make_task
from prefvlm_core.domains.model_drawing import pose
from prefvlm_core.domains.registry import check_task

_MOCAP_QUATERNION = (1.0, 0.0, 1.0, 0.0)  # Meta-World never turns the hand


def model_path(task: str) -> str:
    """The path of Meta-World's MuJoCo XML file for `task`, which holds everything that is visible in it."""
    check_task(task)
    task_class = ALL_V3_ENVIRONMENTS[task]
    return str(task_class.__new__(task_class).model_name)  # a property that does not use the instance


def between_the_fingers(data: mujoco.MjData) -> NDArray[np.float64]:
    """The point (3,) between the fingers of the gripper, m."""
    return np.mean([data.site(finger).xpos for finger in ("rightEndEffector", "leftEndEffector")], axis=0)


def restore(
    model: mujoco.MjModel, data: mujoco.MjData, snapshot: NDArray[np.float32], scene: NDArray[np.float32]
) -> None:
    """Bring a model and its data into the pose recorded by `Environment.snapshot()` and `Environment.scene()`.

    The poses of bodies, geoms, sites, cameras and lights are those of the recorded step up to float32 rounding;
    velocities, contacts and forces are not restored.

    Args:
        model: The task's model, or a lighter one for rendering with the same bodies, sites and joints.
        data: Data of that model.
        snapshot: (S,) float32; zeros that pad it at the end are ignored.
        scene: (C,) float32; zeros that pad it at the end are ignored.

    Raises:
        PrefVLMError: If snapshot or scene are smaller than this model needs.
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
    data.mocap_pos[0] = snapshot[model.nq : size]
    data.mocap_quat[0] = _MOCAP_QUATERNION
    pose(model, data, snapshot[: model.nq])


class MetaworldWorld:
    """One Meta-World task; see `domains.domain.World`.

    Observations (39,), rewards in [0, 10] and successes are bit for bit those of a new instance of Meta-World's class,
    seeded and reset. Unless `goal_visible`, the last three entries of an observation are 0.
    """

    def __init__(self, task: str, goal_visible: bool) -> None:
        self.env = env = make_task(task, goal_visible)
        self._joints, self._mocap_position = env.data.qpos, env.data.mocap_pos[0]  # views: they follow the simulation
        self._pristine_attributes = dict(env.__dict__)
        self._pristine_positions = (env.model.body_pos.copy(), env.model.site_pos.copy())

    def reset(self, seed: int) -> NDArray[np.float64]:
        """See `World`."""
        env = self.env
        env.__dict__.clear()
        env.__dict__.update(self._pristine_attributes)
        env.model.body_pos[:], env.model.site_pos[:] = self._pristine_positions
        mujoco.mj_resetData(env.model, env.data)
        mujoco.mj_forward(env.model, env.data)
        env.np_random, _ = seeding.np_random(seed)
        observation, _ = env.reset()
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """See `World`. Actions are hand displacement in x, y and z, and gripper effort."""
        observation, reward, _, _, info = self.env.step(action)
        return observation, float(reward), bool(info["success"])

    def snapshot(self) -> NDArray[np.float32]:
        """Joint positions and mocap position, (nq + 3,) float32: what changes from step to step, for `restore`."""
        snapshot = np.empty(len(self._joints) + 3, np.float32)
        snapshot[:-3], snapshot[-3:] = self._joints, self._mocap_position
        return snapshot

    def scene(self) -> NDArray[np.float32]:
        """Positions of bodies and sites in the model, flat float32: what changes at a reset, for `restore`."""
        model = self.env.model
        return np.concatenate((model.body_pos, model.site_pos), axis=None, dtype=np.float32)
