"""Frames show what Meta-World shows, the right way up, and say clearly what cannot be drawn."""

import multiprocessing
from pathlib import Path

import mujoco
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains import light_model
from prefvlm_core.domains.domain import Camera
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer, check_followed
from prefvlm_core.domains.metaworld import restore
from prefvlm_core.domains.metaworld_domain import CAMERAS, DEFAULT_CAMERA
from prefvlm_core.domains.model_drawing import ModelDrawing
from prefvlm_core.domains.perturbations import Perturbation

DOOR = "door-open-v3"  # its goal is a green sphere, and nothing else in it is green


def some_episode(task, steps=6, seed=3):
    """Snapshots (steps, S) and scenes (steps, C) of random actions, and the environment at the last of them."""
    environment = Environment(task)
    environment.reset(seed)
    generator = np.random.default_rng(0)
    snapshots = []
    for _ in range(steps):
        for _ in range(10):
            environment.step(generator.uniform(-1, 1, 4).astype(np.float32))
        snapshots.append(environment.snapshot())
    return np.stack(snapshots), np.repeat(environment.scene()[None], steps, axis=0), environment


@pytest.fixture(scope="module")
def door():
    snapshots, scenes, _ = some_episode(DOOR)
    return snapshots, scenes


def pinhole(point, position, target, fovy, size):
    """(row, column) at which an upright pinhole camera sees a point; worked out without MuJoCo."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    offset = np.subtract(point, position)
    scale = size / 2 / np.tan(np.radians(fovy) / 2) / (offset @ forward)
    return size / 2 - scale * (offset @ up) - 0.5, size / 2 + scale * (offset @ right) - 0.5


def is_green(frame):
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    return (green - red > 60) & (green - blue > 60)


def green_centre(frame):
    rows, columns = np.nonzero(is_green(frame))
    return rows.mean(), columns.mean()


def goal_of(task, scene):
    model = light_model.light_model(task)
    start = 3 * model.nbody + 3 * model.site("goal").id
    return scene[start : start + 3]


def test_free_camera_shows_the_goal_where_a_pinhole_camera_sees_it(door):
    camera = Camera((0.9, -0.4, 0.9), (-0.1, 0.6, 0.1), fovy=40)
    renderer = FrameRenderer(DOOR, 128, camera)
    frame = renderer.render(door[0][:1], door[1][:1])[0]
    expected = pinhole(goal_of(DOOR, door[1][0]), camera.position, camera.target, camera.fovy, 128)
    assert green_centre(frame) == pytest.approx(expected, abs=1.0)


def test_default_camera_is_upright_and_not_mirrored(door):
    frame = FrameRenderer(DOOR, 128).render(door[0][:1], door[1][:1])[0]
    # Meta-World's corner2 stands at (1.3, -0.2, 1.1); its middle half spans 2 atan(tan(30°)/2).
    expected = pinhole(goal_of(DOOR, door[1][0]), (1.3, -0.2, 1.1), (-0.165, 0.70, 0.15), 32.2, 128)
    assert green_centre(frame) == pytest.approx(expected, abs=4.0)  # the real one is rolled by 3°


def test_default_camera_is_the_middle_half_of_corner2(door):
    close = FrameRenderer(DOOR, 64).render(*door).astype(int)
    wide = FrameRenderer(DOOR, 128, "corner2").render(*door).astype(int)
    assert np.abs(close - wide[:, 32:96, 32:96]).mean() < 2


def metaworld_picture(task, qpos, body_pos, site_pos, mocap_pos):
    """Meta-World's own render of a state, turned by 180° because its corner cameras hang upside down."""
    environment = ALL_V3_ENVIRONMENTS[task](render_mode="rgb_array", camera_name="corner2", width=64, height=64)
    environment.model.body_pos[:], environment.model.site_pos[:] = body_pos, site_pos
    environment.data.qpos[:], environment.data.mocap_pos[:] = qpos, mocap_pos
    mujoco.mj_forward(environment.model, environment.data)
    picture = environment.render()[::-1, ::-1].copy()
    environment.close()
    return picture


def test_frame_shows_what_metaworld_renders():
    snapshots, scenes, environment = some_episode("drawer-open-v3")
    frame = FrameRenderer("drawer-open-v3", 64, "corner2").render(snapshots[-1:], scenes[-1:])[0]
    model, data = environment.world.env.model, environment.world.env.data
    state = (data.qpos.copy(), model.body_pos.copy(), model.site_pos.copy(), data.mocap_pos.copy())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(metaworld_picture, ("drawer-open-v3", *state))

    def difference(ours):
        return np.abs(ours.astype(int) - theirs.astype(int)).mean()

    assert difference(frame) < 15  # theirs has a shadow, reflections and smoothed edges
    assert min(difference(frame[::-1]), difference(frame[:, ::-1]), difference(frame[::-1, ::-1])) > 30


@pytest.mark.parametrize("task", [DOOR, "stick-pull-v3", "box-close-v3"])
def test_light_model_has_the_poses_of_the_physics_model_and_a_fraction_of_its_faces(task):
    snapshots, scenes, environment = some_episode(task)
    model = light_model.light_model(task)
    data = mujoco.MjData(model)
    restore(model, data, snapshots[-1], scenes[-1])
    physics = environment.world.env
    np.testing.assert_allclose(data.xpos, physics.data.xpos, atol=1e-5)
    np.testing.assert_allclose(data.xmat, physics.data.xmat, atol=1e-5)
    complete = ALL_V3_ENVIRONMENTS[task]().model
    assert model.nmeshface < 0.2 * complete.nmeshface
    np.testing.assert_array_equal(model.geom_bodyid, complete.geom_bodyid)


@pytest.mark.parametrize(
    "camera", [DEFAULT_CAMERA, "corner", "topview", Camera((0.9, -0.4, 0.9), (-0.1, 0.6, 0.1), 40)]
)
@pytest.mark.parametrize("perturbation", [Perturbation(), Perturbation(camera_position=0.05, camera_angle=5, seed=1)])
def test_the_path_of_the_hand_is_where_a_marker_at_metaworlds_hand_is_drawn(camera, perturbation):
    environment = Environment(DOOR)
    environment.reset(3)
    snapshots, scenes = [], []
    goal = 3 * environment.world.env.model.nbody + 3 * environment.world.env.model.site("goal").id
    for action in np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32):
        for _ in range(10):
            environment.step(action)
        scene = environment.scene()
        scene[goal : goal + 3] = environment.world.env.tcp_center  # the green sphere is moved there
        snapshots.append(environment.snapshot())
        scenes.append(scene)
    renderer = FrameRenderer(DOOR, 240, camera, perturbation)
    renderer._drawing._option.geomgroup[:] = 0  # nothing hides it
    centres = [green_centre(frame) for frame in renderer.render(np.stack(snapshots), np.stack(scenes))]
    path = renderer.path(np.stack(snapshots), np.stack(scenes))
    assert np.ptp(path, axis=0).max() > 10
    np.testing.assert_allclose(path[:, ::-1] - 0.5, centres, atol=0.6)


@pytest.mark.parametrize("task", ["point-maze-u", "maze-two-goals"])
def test_the_path_of_the_ball_is_where_the_ball_is(task):
    pytest.importorskip("gymnasium_robotics", reason="needs the extra navigation")
    environment = Environment(task)
    places, snapshots = [environment.reset(3)[:2]], [environment.snapshot()]
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32):
        places.append(environment.step(action)[0][:2])
        snapshots.append(environment.snapshot())
    path = FrameRenderer(task, 96).path(np.stack(snapshots), np.repeat(environment.scene()[None], 61, axis=0))
    seen = np.stack(((path[:, 0] - 48) / 96 * 3.6, (48 - path[:, 1]) / 96 * 3.6), axis=1)  # m, of 3.6 m that are shown
    np.testing.assert_allclose(seen, places, atol=0.06)


def test_a_domain_without_a_path_refuses_one_before_anything_is_rendered():
    with pytest.raises(PrefVLMError, match=r"^DMControl shows nothing whose path could be drawn; train without --clip"):
        check_followed("walker-walk")


def test_renderers_of_several_tasks_live_side_by_side(door):
    first = FrameRenderer(DOOR)
    alone = first.render(*door)
    snapshots, scenes, _ = some_episode("drawer-open-v3")
    second = FrameRenderer("drawer-open-v3", 96)
    assert second.render(snapshots, scenes).mean() > 20
    np.testing.assert_array_equal(first.render(*door), alone)
    second.close()
    np.testing.assert_array_equal(first.render(*door), alone)


def test_a_frame_is_the_same_in_any_batch(door):
    renderer = FrameRenderer(DOOR, perturbation=Perturbation(noise=5, seed=1))
    together = renderer.render(*door)
    order = [4, 1, 3]
    np.testing.assert_array_equal(renderer.render(door[0][order], door[1][order]), together[order])


def test_frames_follow_the_snapshots(door):
    rendered = FrameRenderer(DOOR).render(*door)
    assert rendered.shape == (6, 64, 64, 3) and rendered.dtype == np.uint8
    changed = np.abs(np.diff(rendered.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert (changed > 50).all()


def test_goal_marker_can_be_left_out(door):
    marked, unmarked = (FrameRenderer(DOOR, goal_marker=shown).render(*door) for shown in (True, False))
    assert is_green(marked).sum() > 5 and is_green(unmarked).sum() == 0


def test_every_named_camera_shows_another_picture(door):
    renderer = FrameRenderer(DOOR)
    pictures = set()
    for camera in CAMERAS:
        renderer.look(camera)
        pictures.add(renderer.render(door[0][:1], door[1][:1]).tobytes())
    assert len(pictures) == len(CAMERAS) == 8


def test_decimated_meshes_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stl = tmp_path / "ball.stl"
    corners = np.random.default_rng(0).normal(size=(3000, 3, 3)).astype("<f4")
    triangles = np.zeros(3000, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("", "<u2")]))
    triangles["corners"] = corners
    stl.write_bytes(bytes(80) + np.uint32(3000).tobytes() + triangles.tobytes())
    read = light_model._light_mesh.__wrapped__
    first = read(stl)
    (kept,) = (tmp_path / "prefvlm" / "meshes").iterdir()
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(read(stl)[0], first[0])
    np.testing.assert_array_equal(read(stl)[1], first[1])
    assert kept.stat().st_mtime_ns == written
    stl.write_bytes(stl.read_bytes()[:-1] + b"\1")
    read(stl)
    assert len(list((tmp_path / "prefvlm" / "meshes").iterdir())) == 2


def test_small_meshes_keep_every_face(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    triangles = np.zeros(2, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("", "<u2")]))
    triangles["corners"] = [[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 0], [1, 0, 0], [0, 0, 1]]]
    stl = tmp_path / "two.stl"
    stl.write_bytes(bytes(80) + np.uint32(2).tobytes() + triangles.tobytes())
    vertices, faces = light_model._light_mesh.__wrapped__(stl)
    assert vertices.shape == (4, 3)  # the two triangles share an edge
    np.testing.assert_array_equal(vertices[faces], triangles["corners"])


def test_bad_input_is_named(door):
    with pytest.raises(PrefVLMError, match=r"Unknown camera 'corner2_close'.*Did you mean 'corner2-close'"):
        FrameRenderer(DOOR, camera="corner2_close")
    with pytest.raises(PrefVLMError, match="Unknown task 'door-opens-v3'"):
        FrameRenderer("door-opens-v3")
    with pytest.raises(PrefVLMError, match=r"Frames of 8 pixels .* 16 to 1024"):
        FrameRenderer(DOOR, size=8)
    with pytest.raises(PrefVLMError, match="straight up or down"):
        FrameRenderer(DOOR, camera=Camera((0, 0, 1), (0, 0, 0)))
    renderer = FrameRenderer(DOOR)
    with pytest.raises(PrefVLMError, match=r"got \(6, 13\) and \(5, "):
        renderer.render(door[0], door[1][:5])
    with pytest.raises(PrefVLMError, match="hold NaN"):
        renderer.render(door[0] * np.float32("nan"), door[1])
    with pytest.raises(PrefVLMError, match="do not fit this model"):
        renderer.render(door[0][:, :5], door[1])


@pytest.mark.parametrize("caches", ["relative", "file", "home is no folder"])
def test_a_cache_that_cannot_be_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caches: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", {"relative": "here", "file": str(tmp_path / "file")}.get(caches, ""))
    monkeypatch.setenv("HOME", str(tmp_path / ("file" if caches != "relative" else "home")))
    mesh = light_model._cache_folder() / "mesh.npz"
    vertices, faces = np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32)[None]
    light_model._store(mesh, vertices, faces)
    assert (light_model._stored_mesh(mesh) is not None) == (caches == "relative")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", *(["home"] if caches == "relative" else [])]


@pytest.mark.parametrize("camera", [DEFAULT_CAMERA, "gripperPOV"])  # the second one moves
@pytest.mark.parametrize("task", ["drawer-close-v3", "window-close-v3"])  # a window can be seen through
def test_what_stands_still_is_drawn_once_without_changing_a_pixel(task, camera, monkeypatch):
    episodes = [some_episode(task, steps=3, seed=seed) for seed in (3, 4)]
    snapshots, scenes = (np.concatenate([episode[part] for episode in episodes]) for part in (0, 1))
    renderer = FrameRenderer(task, camera=camera, perturbation=Perturbation(background=1.0, light_angle=30))
    drawn = renderer.render(snapshots, scenes)
    still = ModelDrawing._drawn_still
    monkeypatch.setattr(ModelDrawing, "_drawn_still", lambda *given: still(*given)._replace(opaque=False))
    renderer.look(camera, Perturbation(background=1.0, light_angle=30))
    np.testing.assert_array_equal(drawn, renderer.render(snapshots, scenes))
    renderer.close()
