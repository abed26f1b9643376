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

import fast_simplification
import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.domains.gl import gl_context
from prefvlm_core.domains.metaworld import model_path, restore
from prefvlm_core.domains.tasks import check_task

METAWORLD_CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
DEFAULT_CAMERA = "corner2-close"
"""The central half of Meta-World's `corner2`, the view in the videos of ROVED's authors; found by projecting points of
the scene."""
CAMERAS = (DEFAULT_CAMERA, *METAWORLD_CAMERAS)

_FREE_CAMERA = "free"
_KEPT_FACES = 0.1  # of a mesh's faces
_SMALLEST_MESH = 200  # faces; smaller meshes lose their shape before they save time
_DEFAULT_COLOR = np.array((0.5, 0.5, 0.5, 1.0), np.float32)  # of a geom in MuJoCo, red, green, blue and opacity
_HIDDEN_EFFECTS = ("SHADOW", "REFLECTION", "HAZE", "FOG")


@dataclass(frozen=True)
class Camera:
    """An upright camera anywhere: `position` and `target` are (x, y, z) in meters, `fovy` is the vertical field of view
    in degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 30.0


@dataclass(frozen=True)
class Perturbation:
    """Visual changes of the scene. The default changes nothing; what is drawn with `seed` is the same in all frames."""

    light: float = 0.0
    """Spread of the brightness of each light and color channel, 0 to 1 (each factor uniform in 1 ± light)."""
    color: float = 0.0
    """Spread of each surface's red, green and blue, 0 to 1 (each factor uniform in 1 ± color)."""
    camera: float = 0.0
    """Standard deviation of the camera's position along each axis, meters."""
    occluder: float = 0.0
    """Side of a gray square in front of the image, as a fraction of the image's side, 0 to 1."""
    noise: float = 0.0
    """Standard deviation of the sensor noise of each pixel and channel, gray levels (0 to 255); new in every frame."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("light", "color", "occluder"):
            if not 0 <= getattr(self, name) <= 1:
                raise PrefVLMError(f"Perturbation.{name} is {getattr(self, name)}, allowed are 0 to 1.")
        for name in ("camera", "noise", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PrefVLMError(f"Perturbation.{name} is {getattr(self, name)}, allowed are finite values ≥ 0.")


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
        perturbation: Perturbation = Perturbation(),
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
        self._original = {
            name: getattr(model, name).copy() for name in ("light_diffuse", "geom_rgba", "mat_rgba", "cam_pos")
        }
        gl_context().make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        self._visible = mujoco.MjvScene(model, maxgeom=2 * (model.ngeom + model.nsite))
        for effect in _HIDDEN_EFFECTS:
            self._visible.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{effect}")] = 0
        self._option = mujoco.MjvOption()
        if not goal_marker:
            self._option.sitegroup[:] = 0
        self.look(camera, perturbation)

    def look(self, camera: str | Camera, perturbation: Perturbation = Perturbation()) -> None:
        """Change camera and perturbation of the frames rendered from now on, at little cost.

        Raises `PrefVLMError` for an unknown camera.
        """
        model = self._model
        if isinstance(camera, str) and camera not in CAMERAS:
            raise unknown_name("camera", camera, CAMERAS)
        for name, values in self._original.items():
            getattr(model, name)[:] = values
        camera_id = model.camera(camera if isinstance(camera, str) else _FREE_CAMERA).id
        if isinstance(camera, Camera):
            model.cam_pos[camera_id] = camera.position
            model.cam_quat[camera_id] = _looking_at(camera)
            model.cam_fovy[camera_id] = camera.fovy
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = camera_id
        self._perturbation = perturbation
        generator = np.random.default_rng(perturbation.seed)
        model.light_diffuse *= generator.uniform(
            1 - perturbation.light, 1 + perturbation.light, model.light_diffuse.shape
        )
        for colors, drawn in ((model.geom_rgba, _has_own_color(model)), (model.mat_rgba, np.s_[:])):
            factors = generator.uniform(1 - perturbation.color, 1 + perturbation.color, (len(colors), 3))
            colors[drawn, :3] = np.clip(colors[drawn, :3] * factors[drawn], 0, 1)
        model.cam_pos[camera_id] += generator.normal(0, perturbation.camera, 3)
        side = round(perturbation.occluder * self.size)
        top, left = generator.integers(0, self.size - side + 1, 2)
        self._occluded = np.s_[top : top + side, left : left + side]

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
            self._draw(frame)
            if self._perturbation.noise:
                self._add_noise(frame, snapshot)
        return frames

    def close(self) -> None:
        """Free the GL memory. The renderer cannot be used afterwards."""
        gl_context().make_current()
        self._context.free()

    def _draw(self, frame: NDArray[np.uint8]) -> None:
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera, everything, self._visible)
        rectangle = mujoco.MjrRect(0, 0, self.size, self.size)
        mujoco.mjr_render(rectangle, self._visible, self._context)
        pixels = np.empty_like(frame)
        mujoco.mjr_readPixels(pixels, None, rectangle, self._context)
        # OpenGL's first row is the bottom one, but the top one for Meta-World's corner cameras, which are upside down.
        upside_down = self._data.cam_xmat[self._camera.fixedcamid][7] < -0.1
        frame[:] = pixels[:, ::-1] if upside_down else pixels[::-1]
        frame[self._occluded] = 128

    def _add_noise(self, frame: NDArray[np.uint8], snapshot: NDArray[np.float32]) -> None:
        """Add noise that depends only on seed and snapshot, so that a frame is the same in every batch."""
        digest = hashlib.blake2b(snapshot.tobytes(), digest_size=8).digest()
        generator = np.random.default_rng([self._perturbation.seed, int.from_bytes(digest, "little")])
        frame[:] = np.clip(frame + generator.normal(0, self._perturbation.noise, frame.shape), 0, 255).round()


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
def _light_mesh(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
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


def _stored_mesh(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int32]] | None:
    """Vertices and faces as `_store` left them; None where there are none, or broken ones."""
    try:
        # Given a path, NumPy leaves a broken file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            vertices, faces = arrays["vertices"], arrays["faces"]
            if (vertices.dtype, faces.dtype, vertices.shape[1:], faces.shape[1:]) != ("f4", "i4", (3,), (3,)):
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


def _has_own_color(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Which geoms (G,) MuJoCo draws in their own color: those without a material, or whose color is not the default.

    A geom that gets its color from its material must keep the default, or the material would no longer be seen.
    """
    return (model.geom_matid < 0) | (model.geom_rgba != _DEFAULT_COLOR).any(axis=1)


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
