"""Frames are drawn through the way to OpenGL that MUJOCO_GL names; where it does not work, only they are refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains import gl

PUT_ASIDE = gl._PUT_ASIDE


@pytest.fixture(autouse=True)
def a_fresh_choice() -> Iterator[None]:
    with mock.patch.dict(os.environ):  # what the package itself sets there goes too
        for name in ("MUJOCO_GL", PUT_ASIDE):
            os.environ.pop(name, None)
        yield


def refusal() -> str:
    with pytest.raises(PrefVLMError) as refused:
        gl.gl_context.__wrapped__()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_missing_gl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "_best_backend", lambda: "no_such_backend")
    assert "No frame can be rendered" in refusal() and "install Mesa with 'apt-get install libegl1" in refusal()


def test_the_users_choice_of_gl_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no_such_backend")
    monkeypatch.setattr(gl, "_best_backend", lambda: "glfw")
    assert "MUJOCO_GL=no_such_backend" in refusal()
    assert "unset MUJOCO_GL, so that they are drawn through glfw; or install" in refusal()
    monkeypatch.setenv("MUJOCO_GL", "off")
    assert refusal() == "No frame can be rendered, because MUJOCO_GL=off forbids it; unset MUJOCO_GL."


@pytest.mark.parametrize(("devices", "backend"), [(1, "egl"), (0, "osmesa")])
def test_the_backend_on_linux_depends_on_egl_devices(
    monkeypatch: pytest.MonkeyPatch, devices: int, backend: str
) -> None:
    monkeypatch.setattr(gl.platform, "system", lambda: "Linux")
    monkeypatch.setattr(gl, "_egl_devices", lambda: devices)
    assert gl._best_backend() == backend


@pytest.mark.parametrize("value", ["osmesa", " OSMesa ", "egl", "nonsense"])
def test_a_way_that_does_not_work_is_put_aside(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(gl.platform, "system", lambda: "Linux")
    monkeypatch.setattr(gl.ctypes.util, "find_library", lambda _: None)
    monkeypatch.setenv("MUJOCO_GL", value)
    gl.put_aside_what_stops_mujoco()
    assert "MUJOCO_GL" not in os.environ
    gl.put_aside_what_stops_mujoco()  # in a child process
    monkeypatch.setattr(gl, "_best_backend", lambda: "glfw")
    assert f"MUJOCO_GL={value.strip().lower()} " in refusal() and "unset MUJOCO_GL" in refusal()


@pytest.mark.parametrize("value", ["", "glfw", "glx", "off", "disable", "1", "osmesa", "egl"])
def test_other_values_are_left_alone(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(gl.ctypes.util, "find_library", lambda name: f"lib{name}.so")
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setenv("MUJOCO_GL", value)
    gl.put_aside_what_stops_mujoco()
    assert os.environ["MUJOCO_GL"] == value and PUT_ASIDE not in os.environ


@pytest.mark.parametrize(("bound", "value"), [("egl", "osmesa"), ("osmesa", "egl")])
def test_a_way_that_the_process_is_not_bound_to_is_put_aside(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: str
) -> None:
    monkeypatch.setattr(gl.ctypes.util, "find_library", lambda name: f"lib{name}.so")
    monkeypatch.setenv("PYOPENGL_PLATFORM", bound)
    monkeypatch.setenv("MUJOCO_GL", value)
    gl.put_aside_what_stops_mujoco()
    assert os.environ[PUT_ASIDE] == value and "MUJOCO_GL" not in os.environ
    assert f"PYOPENGL_PLATFORM is {bound}" in refusal()


@pytest.mark.parametrize("value", ["nonsense", "osmesa"])
def test_environments_step_without_gl(value: str) -> None:
    program = """
from prefvlm_core.domains.environment import Environment
print(Environment("drawer-close-v3").reset(0).shape)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"MUJOCO_GL": value}, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "(39,)\n", "")
