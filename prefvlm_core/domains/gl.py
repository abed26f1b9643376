"""OpenGL, which draws frames: the way to it that MUJOCO_GL names, or the best one that there is.

MuJoCo reads MUJOCO_GL when it is imported, and cannot be imported where that way does not work. Most commands draw
nothing, so such a value is put aside until a frame is wanted.
"""

from __future__ import annotations

import atexit
import ctypes
import ctypes.util
import functools
import importlib
import os
import platform
from typing import Any

from prefvlm_core.common.errors import PrefVLMError

_VARIABLE = "MUJOCO_GL"
_BOUND = "PYOPENGL_PLATFORM"
"""Environment variable by which MuJoCo binds a process and its children to EGL or OSMesa: the other is refused."""
_PUT_ASIDE = "PREFVLM_UNUSABLE_MUJOCO_GL"
"""Environment variable with the value that was put aside, so that child processes know of it too."""
_BACKENDS = {"egl": "egl", "osmesa": "osmesa", "glfw": "glfw", "glx": "glfw", "wgl": "glfw", "cgl": "cgl"}
"""Maps MuJoCo's names of ways to OpenGL to its modules."""
_ANY = ("", "1", "on", "true", "enable", "enabled")
_NONE = ("0", "off", "false", "disable", "disabled")
_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0 libosmesa6"


def put_aside_what_stops_mujoco() -> None:
    """Unset MUJOCO_GL where MuJoCo could not be imported with its value."""
    asked = os.environ.get(_VARIABLE, "").strip().lower()
    if asked not in (*_ANY, *_NONE) and not _loads(asked):
        os.environ[_PUT_ASIDE] = asked
        del os.environ[_VARIABLE]


def _loads(backend: str) -> bool:
    """Whether MuJoCo's module of a backend can be imported, as far as its library decides that."""
    if platform.system() != "Linux":
        return backend in _BACKENDS
    library = {"egl": "EGL", "osmesa": "OSMesa"}.get(backend)
    if library is None:
        return backend in ("glfw", "glx")
    return os.environ.get(_BOUND, backend) == backend and bool(ctypes.util.find_library(library))


@functools.cache
def gl_context() -> Any:
    """The one GL context of this process: the user's choice in MUJOCO_GL, else EGL (a GPU's or Mesa's), else OSMesa.

    Raises `PrefVLMError` where it cannot be made.
    """
    asked = os.environ.get(_VARIABLE, "").strip().lower()
    if asked in _NONE:
        raise PrefVLMError(f"No frame can be rendered, because MUJOCO_GL={asked} forbids it; unset MUJOCO_GL.")
    if asked in _ANY and _PUT_ASIDE in os.environ:
        bound = os.environ.get(_BOUND)
        raise _unusable(os.environ[_PUT_ASIDE], f"{_BOUND} is {bound}" if bound else "there is no such library here")
    backend = _best_backend() if asked in _ANY else asked
    try:
        context = importlib.import_module(f"mujoco.{_BACKENDS.get(backend, backend)}").GLContext(64, 64)
    except Exception as error:  # backends fail with ImportError, AttributeError, RuntimeError, ...
        raise _unusable(backend, str(error)) from error
    atexit.register(context.free)  # before the modules that it calls are taken apart
    os.environ[_VARIABLE] = backend  # for Meta-World's own renderer and for child processes
    return context


def _unusable(backend: str, reason: str) -> PrefVLMError:
    best = _best_backend()
    unset = f"unset MUJOCO_GL, so that they are drawn through {best}; or " if best != backend and _loads(best) else ""
    return PrefVLMError(
        f"No frame can be rendered, because OpenGL does not work through MUJOCO_GL={backend} ({reason}): {unset}"
        f"install Mesa with 'apt-get install {_PACKAGES}'."
    )


def _best_backend() -> str:
    system = platform.system()
    if system != "Linux":
        return "cgl" if system == "Darwin" else "glfw"
    return "egl" if _egl_devices() > 0 else "osmesa"


def _egl_devices() -> int:
    """The number of devices on which EGL can render without a display.

    It is asked through ctypes, because PyOpenGL binds to one backend when it is imported.
    """
    try:
        library = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return 0
    library.eglGetProcAddress.restype = ctypes.c_void_p
    address = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    count = ctypes.c_int(0)
    if address:
        query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
        query(0, None, ctypes.byref(count))
    return count.value
