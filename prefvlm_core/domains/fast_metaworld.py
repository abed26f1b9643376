"""Meta-World's tasks at two to four times their speed, bit for bit the same observations, rewards and successes.

Three quarters of the time of a Meta-World step is spent in Python code around the simulator. `make_task` builds a
subclass of the task's class in which that code is replaced; Meta-World itself stays unchanged for everything else in
the process:

- `FastSawyer` reimplements what `SawyerXYZEnv` does in every step and reset;
- the task's own code (rewards, success criteria, resets) is Meta-World's, run with faster versions of the few helpers
  that dominate its time (`FAST_HELPERS`).

Three things are left out because they have no observable effect: geoms that are only visible, cameras and lights; the
settling of the hand in the first of the two passes of each reset, of which only random draws, attributes and changes of
the model persist; and the body accelerations and forces that gymnasium computes after each step.
"""

import math
import types
from functools import cache
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils
from numpy.typing import NDArray

from prefvlm_core.domains.tasks import OBSERVATION_SIZE

_FLOAT64 = np.dtype(np.float64)
_VALUE_AT_MARGIN = 0.1  # the default of Meta-World's `tolerance`, which no task changes
_LONG_TAIL_SCALE = math.sqrt(1 / _VALUE_AT_MARGIN - 1)
_GAUSSIAN_SCALE = float(np.sqrt(-2 * np.log(_VALUE_AT_MARGIN)))


def tolerance(x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", **options: Any) -> Any:
    """`reward_utils.tolerance`, faster for numbers in double precision and either of the two sigmoids in use."""
    lower, upper = bounds
    plain = isinstance(x, float) and isinstance(margin, (float, np.float32)) and isinstance(lower + upper, (int, float))
    if not plain or sigmoid not in ("long_tail", "gaussian") or not margin > 0 or lower > upper or options:
        return reward_utils.tolerance(x, bounds, margin, sigmoid, **options)
    x, margin = float(x), float(margin)  # Python's arithmetic is faster than NumPy's, with the same result
    if lower <= x <= upper:
        return 1.0
    distance = (lower - x if x < lower else x - upper) / margin
    if sigmoid == "gaussian":
        return float(np.exp(-0.5 * (distance * _GAUSSIAN_SCALE) ** 2))
    return float(1 / ((distance * _LONG_TAIL_SCALE) ** 2 + 1))


def norm(x: Any, ord: Any = None, **options: Any) -> Any:
    """`numpy.linalg.norm`, faster for the Euclidean norm of a vector or a number in double precision."""
    if type(x) is np.ndarray and x.ndim == 1 and x.dtype is _FLOAT64 and (ord is None or ord == 2) and not options:
        return np.float64(math.sqrt(x.dot(x)))
    if isinstance(x, float) and ord is None and not options:
        return np.float64(math.sqrt(x * x))
    return np.linalg.norm(x, ord, **options)


class Rotation:
    """The part of `scipy.spatial.transform.Rotation` that tasks use: orthogonal matrix to quaternion (x, y, z, w)."""

    def __init__(self, matrix: NDArray[np.float64]) -> None:
        self._matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.float64]) -> "Rotation":
        return cls(matrix)

    def as_quat(self) -> NDArray[np.float64]:
        """(4,) float64 by Shepperd's method, with SciPy's order of operations, which determines the last bits."""
        m = self._matrix.tolist()
        trace = m[0][0] + m[1][1] + m[2][2]
        decision = (m[0][0], m[1][1], m[2][2], trace)
        largest = decision.index(max(decision))
        quaternion = [0.0] * 4
        if largest == 3:
            quaternion = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + trace]
        else:
            i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
            quaternion[i] = 1 - trace + 2 * m[i][i]
            quaternion[j] = m[j][i] + m[i][j]
            quaternion[k] = m[k][i] + m[i][k]
            quaternion[3] = m[k][j] - m[j][k]
        a, b, c, d = quaternion
        length = math.sqrt(a * a + b * b + c * c + d * d)
        return np.array((a / length, b / length, c / length, d / length))


def _replaced(module: types.ModuleType, **names: Any) -> types.ModuleType:
    """A copy of a module in which some names are replaced."""
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__)
    copy.__dict__.update(names)
    return copy


FAST_HELPERS: dict[str, Any] = {
    "np": _replaced(np, linalg=_replaced(np.linalg, norm=norm)),
    "reward_utils": _replaced(reward_utils, tolerance=tolerance),
    "Rotation": Rotation,
}


def _with_fast_helpers(function: Any) -> Any:
    """A copy of a function that looks up the names in `FAST_HELPERS` there instead of in its own module."""
    if function.__code__.co_freevars == ("func",):  # Meta-World's assert_task_is_set, which `make_task` satisfies once
        function = function.__closure__[0].cell_contents
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **FAST_HELPERS},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class FastSawyer(SawyerXYZEnv):
    """Faster versions of the methods that every task inherits; stands between a task's class and `SawyerXYZEnv`."""

    _simulates_settling = True
    _lowest: NDArray[np.float64]  # bounds of the observation, (39,)
    _highest: NDArray[np.float64]
    _scales: NDArray[np.float32]  # of an action's numbers, (4,)
    _mocap_bounds: tuple[list[float], list[float]]

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        seen_only = [geom for geom in spec.geoms if not (geom.contype or geom.conaffinity or geom.name)]
        for part in (*seen_only, *spec.cameras, *spec.lights):
            part.delete()  # half of the geoms, whose poses every substep would compute
        model = spec.compile()
        data = mujoco.MjData(model)
        self._bodies: dict[str, NDArray[np.float64]] = {}
        self._sites: dict[str, NDArray[np.float64]] = {}
        self._hand = data.body("hand").xpos  # these are views: they follow the simulation
        self._right_claw = data.body("rightclaw").xpos
        self._left_claw = data.body("leftclaw").xpos
        self._right_finger = data.site("rightEndEffector").xpos
        self._left_finger = data.site("leftEndEffector").xpos
        self._mocap_position = data.mocap_pos[0]
        self._mocap_quaternion = data.mocap_quat[0]
        self._control = data.ctrl
        self._pad_geoms = (data.geom("leftpad_geom").id, data.geom("rightpad_geom").id)
        return model, data

    def get_body_com(self, body_name: str) -> NDArray[np.float64]:
        position = self._bodies.get(body_name)
        if position is None:
            position = self._bodies[body_name] = self.data.body(body_name).xpos
        return position

    def _get_site_pos(self, site_name: str) -> NDArray[np.float64]:
        position = self._sites.get(site_name)
        if position is None:
            position = self._sites[site_name] = self.data.site(site_name).xpos
        return position.copy()

    @property
    def tcp_center(self) -> NDArray[np.float64]:
        return (self._right_finger + self._left_finger) / 2.0

    _gripper_caging_reward = _with_fast_helpers(SawyerXYZEnv._gripper_caging_reward)

    def touching_object(self, object_geom_id: int) -> bool:
        data = self.data
        forces = {frozenset((pad, object_geom_id)): 0.0 for pad in self._pad_geoms}
        for contact, pair in enumerate(data.contact.geom.tolist()):
            if frozenset(pair) in forces:
                forces[frozenset(pair)] += data.efc_force[data.contact.efc_address[contact]]
        return all(force > 0 for force in forces.values())

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        self._control[:] = ctrl
        mujoco.mj_step(self.model, self.data, nstep=n_frames)

    def _get_curr_obs_combined_no_goal(self) -> NDArray[np.float64]:
        frame = np.zeros(18)
        frame[:3] = self._hand
        gap = self._right_claw - self._left_claw
        frame[3] = min(max(math.sqrt(gap.dot(gap)) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        if len(positions) == 3:
            frame[4:7], frame[7:11] = positions, quaternions
        else:
            frame[4:7], frame[11:14] = positions[:3], positions[3:]
            frame[7:11], frame[14:18] = quaternions[:4], quaternions[4:]
        return frame

    def _get_obs(self) -> NDArray[np.float64]:
        observation = np.zeros(OBSERVATION_SIZE)
        observation[18:36] = self._prev_obs
        self._prev_obs = observation[:18] = self._get_curr_obs_combined_no_goal()
        if not self._partially_observable:
            observation[36:] = self._get_pos_goal()
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        if self.curr_path_length >= self.max_path_length:
            raise ValueError("You must reset the env manually once truncate==True")
        self.curr_path_length += 1
        # Products are taken in single precision before they are clipped, which gives the same numbers.
        *moves, effort = (action * self._scales).tolist()
        lowest, highest = self._mocap_bounds
        position, largest = self._mocap_position, self._scales.item(0)
        for axis, now in enumerate(position.tolist()):
            moved = now + min(max(moves[axis], -largest), largest)
            position[axis] = min(max(moved, lowest[axis]), highest[axis])
        self._control[0] = effort
        self._control[1] = -effort
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)
        # The step leaves the poses of the previous substep. `mj_kinematics` would update them, but the full forward
        # pass also sets the solver's warm start, which affects the last bits of the next step.
        mujoco.mj_forward(self.model, self.data)

        observation = self._get_obs()
        np.maximum(observation, self._lowest, out=observation)
        np.minimum(observation, self._highest, out=observation)
        reward, info = self.evaluate_state(observation, action)
        return observation, reward, False, self.curr_path_length == self.max_path_length, info

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float64], dict]:
        self.curr_path_length = 0
        self._simulates_settling = False
        self.reset_model()
        mujoco.mj_resetData(self.model, self.data)
        self._simulates_settling = True
        observation = self.reset_model()
        self._prev_obs = observation[:18].copy()
        observation[18:36] = self._prev_obs
        return observation, {}

    def _reset_hand(self, steps: int = 50) -> None:
        if self._simulates_settling:
            self._mocap_position[:] = self.hand_init_pos
            self._mocap_quaternion[:] = (1.0, 0.0, 1.0, 0.0)  # it stays so, since no action turns the hand
            self.do_simulation((-1.0, 1.0), steps * self.frame_skip)
        self.init_tcp = self.tcp_center


@cache
def _fast_class(task: str) -> type[FastSawyer]:
    original = ALL_V3_ENVIRONMENTS[task]
    members: dict[str, Any] = {}
    for name, member in vars(original).items():
        if name.startswith("__"):
            continue
        if isinstance(member, types.FunctionType):
            members[name] = _with_fast_helpers(member)
        elif isinstance(member, staticmethod):
            members[name] = staticmethod(_with_fast_helpers(member.__func__))
        elif isinstance(member, property):
            members[name] = property(_with_fast_helpers(member.fget))
    return type(f"Fast{original.__name__}", (original, FastSawyer), members)


def make_task(task: str, goal_visible: bool) -> FastSawyer:
    """Create an environment of `task`, such as "door-close-v3", that draws its goal from `np_random` at each reset.

    Unless `goal_visible`, the last three entries of the observation are 0.
    """
    environment = _fast_class(task)()
    environment._set_task_called = True
    environment._freeze_rand_vec = False
    environment.seeded_rand_vec = True
    environment._partially_observable = not goal_visible
    environment.__dict__.pop("sawyer_observation_space", None)  # its cached bounds hide the goal
    space = environment.sawyer_observation_space
    environment._lowest, environment._highest = space.low.astype(np.float64), space.high.astype(np.float64)
    environment._scales = np.array((*[environment.action_scale] * 3, 1), np.float32)
    environment._mocap_bounds = environment.mocap_low.tolist(), environment.mocap_high.tolist()
    return environment
