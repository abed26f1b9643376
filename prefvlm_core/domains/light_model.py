"""Meta-World's models made light, for rendering only.

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
from pathlib import Path

import fast_simplification
import mujoco
import numpy as np
from numpy.typing import NDArray

from prefvlm_core.domains.metaworld import model_path
from prefvlm_core.domains.metaworld_domain import DEFAULT_CAMERA
from prefvlm_core.domains.model_drawing import FREE_CAMERA

_KEPT_FACES = 0.1  # of a mesh's faces
_SMALLEST_MESH = 200  # faces; smaller meshes lose their shape before they save time


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
    spec.worldbody.add_camera(name=FREE_CAMERA)
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
