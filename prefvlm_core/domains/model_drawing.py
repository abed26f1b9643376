"""Draws poses of a MuJoCo model, fast enough to show every frame of a run to a model."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.domain import Camera
from prefvlm_core.domains.gl import gl_context
from prefvlm_core.domains.perturbations import Perturbation
from prefvlm_core.domains.scenery import Scenery

FREE_CAMERA = "free"
"""The camera of a model that a `Camera` moves to its place."""

_FLOOR = 0  # the number of its geom in every task
_HIDDEN_EFFECTS = ("SHADOW", "REFLECTION", "HAZE", "FOG")

Restore = Callable[[mujoco.MjModel, mujoco.MjData, NDArray[np.float32], NDArray[np.float32]], None]
"""Brings a model and its data into the pose that a snapshot (S,) and a scene (C,) hold."""
Followed = Callable[[mujoco.MjData], NDArray[np.float64]]
"""Where in a pose is what a path follows, (3,) in m."""


class _Still(NamedTuple):
    """What stands still in an episode, drawn alone, bottom row first."""

    seen_from: NDArray[np.float64]
    """Positions of bodies, sites, lights and camera, which determine the picture."""
    pixels: NDArray[np.uint8]
    depth: NDArray[np.float32]
    floor: NDArray[np.float32]
    """Depth (size, size) of the floor alone."""
    opaque: bool
    """Whether nothing, still or moving, can be seen through."""


class ModelDrawing:
    """Draws the snapshots of one task by a MuJoCo model; see `domains.domain.Drawing`.

    All drawings of a process share one GL context, because OSMesa renders black frames once a second one exists. Draw
    from one thread only.

    Args:
        model: The model, whose first geom is the floor. It has a camera for each view, and `FREE_CAMERA`.
        restore: What brings it into a pose.
        snapshot_size: Size of the snapshots.
        size: Height and width of the pictures, pixels.
        goal_marker: Draw the sites that mark goals.
        followed: What a path follows (None: nothing).

    Raises `PrefVLMError` if no OpenGL library works.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        restore: Restore,
        snapshot_size: int,
        size: int,
        goal_marker: bool,
        followed: Followed | None = None,
    ) -> None:
        self.snapshot_size, self.size = snapshot_size, size
        self._model, self._restore, self._followed = model, restore, followed
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._data = mujoco.MjData(model)
        self._scenery = Scenery(model)
        gl_context().make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value  # the other way loses digits
        self._visible = mujoco.MjvScene(model, maxgeom=2 * (model.ngeom + model.nsite))
        for effect in _HIDDEN_EFFECTS:
            self._visible.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{effect}")] = 0
        self._option = mujoco.MjvOption()
        if not goal_marker:
            self._option.sitegroup[:] = 0

    def look(self, camera: str | Camera, perturbation: Perturbation) -> None:
        """See `Drawing`, at little cost."""
        model = self._model
        self._scenery.restore()
        camera_id = model.camera(camera if isinstance(camera, str) else FREE_CAMERA).id
        if isinstance(camera, Camera):
            model.cam_pos[camera_id] = camera.position
            model.cam_quat[camera_id] = _looking_at(camera)
            model.cam_fovy[camera_id] = camera.fovy
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = camera_id
        self._still: _Still | None = None
        self._films = perturbation.background > 0
        gl_context().make_current()
        for texture in self._scenery.perturb(perturbation, camera_id):
            mujoco.mjr_uploadTexture(model, self._context, texture)

    def draw(
        self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
        """See `Drawing`. Raises `PrefVLMError` for snapshots or scenes of another task."""
        gl_context().make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        for snapshot, scene in zip(snapshots, scenes, strict=True):
            self._restore(self._model, self._data, snapshot, scene)
            yield self._picture()

    def path(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Drawing`."""
        assert self._followed is not None
        places = np.empty((len(snapshots), 2))
        camera, data = self._camera.fixedcamid, self._data
        for place, snapshot, scene in zip(places, snapshots, scenes, strict=True):
            self._restore(self._model, data, snapshot, scene)
            axes = data.cam_xmat[camera].reshape(3, 3)  # its columns point right, up and backward
            right, up, backward = (self._followed(data) - data.cam_xpos[camera]) @ axes
            focal = self.size / 2 / math.tan(math.radians(self._model.cam_fovy[camera]) / 2)
            turned = -1 if _upside_down(axes) else 1
            place[:] = self.size / 2 + turned * focal / -backward * np.array([right, -up])
        return places

    def close(self) -> None:
        """Free the GL memory."""
        gl_context().make_current()
        self._context.free()

    def _picture(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Draw the pose of the model, and find where (size, size) only the floor and what is behind it are seen.

        What stands still is drawn once for many frames, and what moves is put in front of or behind it. That gives the
        same pixels, since nothing throws a shadow or is reflected, unless something can be seen through.
        """
        data = self._data
        camera = data.cam_xpos[self._camera.fixedcamid], data.cam_xmat[self._camera.fixedcamid]
        seen_from = np.concatenate((self._model.body_pos, self._model.site_pos, data.light_xpos, *camera), axis=None)
        if self._still is None or not np.array_equal(seen_from, self._still.seen_from):
            self._still = self._drawn_still(seen_from)
        still = self._still
        pixels, depth = self._drawn(mujoco.mjtCatBit.mjCAT_DYNAMIC if still.opaque else mujoco.mjtCatBit.mjCAT_ALL)
        if still.opaque:
            pixels = np.where((depth >= still.depth)[..., None], pixels, still.pixels)
            depth = np.maximum(depth, still.depth)
        # OpenGL's first row is the bottom one, but the top one for Meta-World's corner cameras, which are upside down.
        upright = np.s_[:, ::-1] if _upside_down(camera[1].reshape(3, 3)) else np.s_[::-1]
        return pixels[upright], (depth <= still.floor)[upright] if self._films else None

    def _drawn_still(self, seen_from: NDArray[np.float64]) -> _Still:
        """What stands still in the pose of the model."""
        pixels, depth = self._drawn(mujoco.mjtCatBit.mjCAT_STATIC)
        floor = self._drawn(mujoco.mjtCatBit.mjCAT_STATIC, _FLOOR + 1)[1] if self._films else depth
        self._show(mujoco.mjtCatBit.mjCAT_ALL)
        opaque = all(geom.rgba[3] == 1 for geom in self._visible.geoms[: self._visible.ngeom])
        return _Still(seen_from, pixels, depth, floor, opaque)

    def _drawn(
        self, categories: mujoco.mjtCatBit, geoms: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pixels (size, size, 3) and depth (size, size), the greater the nearer, bottom row first, of the geoms of some
        categories or the first `geoms` of them."""
        self._show(categories)
        if geoms is not None:
            self._visible.ngeom = geoms
        pixels, depth = np.empty((self.size, self.size, 3), np.uint8), np.empty((self.size, self.size), np.float32)
        rectangle = mujoco.MjrRect(0, 0, self.size, self.size)
        mujoco.mjr_render(rectangle, self._visible, self._context)
        mujoco.mjr_readPixels(pixels, depth, rectangle, self._context)
        return pixels, depth

    def _show(self, categories: mujoco.mjtCatBit) -> None:
        """Let `_visible` hold the geoms of some categories in the pose of the model, and the lights."""
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, categories.value, self._visible
        )
        self._scenery.turn_lights(self._visible)


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model of a description, without the shadows and the multisampling that small pictures do not show."""
    model = spec.compile()
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    return model


def pose(model: mujoco.MjModel, data: mujoco.MjData, positions: NDArray[np.float32]) -> None:
    """Put the joints to `positions` (nq,), and bodies, sites, cameras and lights to where they are then."""
    data.qpos[:] = positions
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


def _upside_down(axes: NDArray[np.float64]) -> bool:
    """Whether a camera whose axes are the columns of a matrix (3, 3) hangs with its head down."""
    return bool(axes[2, 1] < -0.1)


def _looking_at(camera: Camera) -> NDArray[np.float64]:
    """Quaternion (4,) of a camera whose -z axis points at the target and whose y axis points up as far as possible."""
    backward = np.subtract(camera.position, camera.target)
    right = np.cross((0.0, 0.0, 1.0), backward)
    if not np.linalg.norm(right) > 0:
        raise PrefVLMError(f"{camera} looks straight up or down or nowhere, so it has no upright image.")
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, (axes / np.linalg.norm(axes, axis=0)).ravel())
    return quaternion
