"""Render snapshots as images, with a light copy of each task's model that only the renderer uses.

Most of the cost of Meta-World's own rendering is invisible at 64 px: a 4096 px shadow map, multisampling, reflections
and robot meshes of 68,000 faces. Here these effects are switched off and the meshes decimated; the physics model is
unchanged.
"""

import functools
import hashlib
import math
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import fast_simplification
import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.domains.gl import gl_context
from prefvlm_core.domains.metaworld import model_path, restore
from prefvlm_core.domains.perturbations import CLEAN, Perturbation
from prefvlm_core.domains.scenery import ImageChanges, Scenery
from prefvlm_core.domains.tasks import check_task

METAWORLD_CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
DEFAULT_CAMERA = "corner2-close"
"""The central half of Meta-World's `corner2`, the view in the videos of ROVED's authors; found by projecting points of
the scene."""
CAMERAS = (DEFAULT_CAMERA, *METAWORLD_CAMERAS)

FINGERS = ("rightEndEffector", "leftEndEffector")
"""The sites of the gripper's fingers."""

_FREE_CAMERA = "free"
_KEPT_FACES = 0.1  # of a mesh's faces
_SMALLEST_MESH = 200  # faces; smaller meshes lose their shape before they save time
_FLOOR = 0  # the number of its geom in every task
_HIDDEN_EFFECTS = ("SHADOW", "REFLECTION", "HAZE", "FOG")


@dataclass(frozen=True)
class Camera:
    """An upright camera anywhere: `position` and `target` are (x, y, z) in meters, `fovy` is the vertical field of view
    in degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 30.0


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


class FrameRenderer:
    """Renders snapshots of one task. Frames are upright and not mirrored, however Meta-World's camera is mounted.

    All renderers of a process share one GL context, because OSMesa renders black frames once a second one exists.
    Render from one thread only.

    Args:
        task: A Meta-World task, such as "door-open-v3".
        size: Height and width of the frames, pixels.
        camera: One of `CAMERAS`, or a `Camera`.
        perturbation: Visual changes; see `Perturbation`.
        goal_marker: Draw the colored spheres that mark goals in Meta-World, as its own rendering does.

    Raises:
        PrefVLMError: For an unknown task or camera, a size outside 16 to 1024, or if no OpenGL library works.
    """

    def __init__(
        self,
        task: str,
        size: int = 64,
        camera: str | Camera = DEFAULT_CAMERA,
        perturbation: Perturbation = CLEAN,
        goal_marker: bool = True,
    ) -> None:
        check_task(task)
        if not 16 <= size <= 1024:
            raise PrefVLMError(f"Frames of {size} pixels cannot be rendered, allowed are 16 to 1024.")
        self.task = task
        self.size = size
        self._model = model = light_model(task)
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
        self.look(camera, perturbation)

    def look(self, camera: str | Camera, perturbation: Perturbation = CLEAN) -> None:
        """Change camera and perturbation of the frames rendered from now on, at little cost.

        Raises `PrefVLMError` for an unknown camera.
        """
        model = self._model
        if isinstance(camera, str) and camera not in CAMERAS:
            raise unknown_name("camera", camera, CAMERAS)
        self._scenery.restore()
        camera_id = model.camera(camera if isinstance(camera, str) else _FREE_CAMERA).id
        if isinstance(camera, Camera):
            model.cam_pos[camera_id] = camera.position
            model.cam_quat[camera_id] = _looking_at(camera)
            model.cam_fovy[camera_id] = camera.fovy
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = camera_id
        self._still: _Still | None = None
        self._films = perturbation.background > 0
        self._changes = ImageChanges(perturbation, self.size)
        gl_context().make_current()
        for texture in self._scenery.perturb(perturbation, camera_id):
            mujoco.mjr_uploadTexture(model, self._context, texture)

    def render(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Render `snapshots` (N, S) and `scenes` (N, C), as `Environment` returns them, as RGB frames.

        Returns frames (N, size, size, 3) uint8. Raises `PrefVLMError` if snapshots and scenes do not fit each other or
        this task, or contain NaN or infinity.
        """
        if snapshots.ndim != 2 or scenes.ndim != 2 or len(snapshots) != len(scenes):
            raise PrefVLMError(
                f"render needs snapshots (N, S) and scenes (N, C), got {snapshots.shape} and {scenes.shape}."
            )
        if not (np.isfinite(snapshots).all() and np.isfinite(scenes).all()):
            raise PrefVLMError(f"Snapshots or scenes of '{self.task}' hold NaN or infinity and cannot be rendered.")
        frames = np.empty((len(snapshots), self.size, self.size, 3), np.uint8)
        gl_context().make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        for frame, snapshot, scene in zip(frames, snapshots, scenes, strict=True):
            restore(self._model, self._data, snapshot, scene)
            self._changes.apply(frame, snapshot[: self._model.nq + 3], self._draw(frame))  # without what pads it
        return frames

    def hand_path(self, snapshots: NDArray[np.float32], scenes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where frames of `snapshots` (N, S) and `scenes` (N, C) show the point between the fingers of the gripper.

        Returns (N, 2) float64, column and row in pixels from the upper left corner of the frame; (0.5, 0.5) is the
        middle of the first pixel. The point may be hidden or beside the frame, but not behind the camera.
        """
        places = np.empty((len(snapshots), 2))
        camera, data = self._camera.fixedcamid, self._data
        for place, snapshot, scene in zip(places, snapshots, scenes, strict=True):
            restore(self._model, data, snapshot, scene)
            point = np.mean([data.site(finger).xpos for finger in FINGERS], axis=0)
            axes = data.cam_xmat[camera].reshape(3, 3)  # its columns point right, up and backward
            right, up, backward = (point - data.cam_xpos[camera]) @ axes
            focal = self.size / 2 / math.tan(math.radians(self._model.cam_fovy[camera]) / 2)
            turned = -1 if _upside_down(axes) else 1
            place[:] = self.size / 2 + turned * focal / -backward * np.array([right, -up])
        return places

    def close(self) -> None:
        """Free the GL memory. The renderer cannot be used afterwards."""
        gl_context().make_current()
        self._context.free()

    def _draw(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
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
        frame[:] = pixels[upright]
        return (depth <= still.floor)[upright] if self._films else None

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


def light_model(task: str) -> mujoco.MjModel:
    """The task's model for rendering: decimated meshes, no shadow map, no multisampling, and two more cameras.

    Bodies, joints, geoms and sites are the task's, in the same order, so that `metaworld.restore` works on it.
    """
    path = Path(model_path(task))
    spec = mujoco.MjSpec.from_file(str(path))
    for mesh in spec.meshes:
        vertices, faces = _light_mesh((path.parent / mesh.file).resolve())
        mesh.file = ""
        mesh.uservert = vertices.ravel().tolist()
        mesh.userface = faces.ravel().tolist()
    spec.worldbody.add_camera(name=DEFAULT_CAMERA)
    spec.worldbody.add_camera(name=_FREE_CAMERA)
    model = spec.compile()
    wide, close = model.camera("corner2"), model.camera(DEFAULT_CAMERA)
    close.pos, close.quat = wide.pos, wide.quat
    close.fovy = 2 * math.degrees(math.atan(math.tan(math.radians(wide.fovy[0]) / 2) / 2))
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    return model


@functools.cache
def _light_mesh(path: Path) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """Vertices (V, 3) and faces (F, 3) of a decimated STL file, read from the user's cache folder if already there.

    The cache is keyed by the content of the file and the settings of the decimation, and written by renaming, so it is
    never stale or half written; what is broken in it is made anew.
    """
    content = path.read_bytes()
    recipe = f"{fast_simplification.__version__} {_KEPT_FACES} {_SMALLEST_MESH}"
    key = hashlib.blake2b(content + recipe.encode(), digest_size=16).hexdigest()
    cached = _cache_folder() / f"{key}.npz"
    if (stored := _stored_mesh(cached)) is not None:
        return stored
    triangles = np.frombuffer(
        content, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("", "<u2")]), offset=84
    )
    vertices, corners = np.unique(triangles["corners"].reshape(-1, 3), axis=0, return_inverse=True)
    faces = corners.reshape(-1, 3).astype(np.int32)
    kept = max(_SMALLEST_MESH, round(_KEPT_FACES * len(faces)))
    if kept < len(faces):
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=kept)
    _store(cached, vertices, faces)
    return vertices, faces


def _cache_folder() -> Path:
    """Where decimated meshes are kept. As the XDG specification says, a relative XDG_CACHE_HOME does not count."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    return Path(caches if os.path.isabs(caches) else os.path.expanduser("~/.cache"), "prefvlm", "meshes")


def _stored_mesh(path: Path) -> tuple[NDArray[np.floating], NDArray[np.int32]] | None:
    """Vertices and faces as `_store` left them; None where there are none, or broken ones."""
    try:
        # Given a path, NumPy leaves a broken file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            vertices, faces = arrays["vertices"], arrays["faces"]
            if (vertices.dtype.kind, faces.dtype, vertices.shape[1:], faces.shape[1:]) != ("f", "i4", (3,), (3,)):
                return None
            inside = faces.size > 0 and faces.min() >= 0 and faces.max() < len(vertices)
            return (vertices, faces) if inside and np.isfinite(vertices).all() else None
    except Exception:  # damage makes NumPy and zipfile raise whatever the bytes lead to
        return None


def _store(path: Path, vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> None:
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.savez_compressed(file, vertices=vertices, faces=faces)
        os.replace(temporary, path)
    except OSError:  # with a read-only or full home folder, each start spends a second on decimation
        with suppress(OSError):
            temporary.unlink()


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
