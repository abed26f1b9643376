"""Each visual change does what it says and nothing else, comes back with its seed, and can be taken back."""

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.environment import Environment
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.domains.light_model import light_model
from prefvlm_core.domains.metaworld_domain import DEFAULT_CAMERA
from prefvlm_core.domains.perturbations import (
    CLEAN,
    EVERYTHING,
    INTENSITIES,
    STRENGTHS,
    Perturbation,
    perturbation_of,
)
from prefvlm_core.domains.scenery import ImageChanges, Scenery

DOOR = "door-open-v3"  # its goal is a green sphere, and nothing else in it is green
FOCAL_LENGTH = 32 / np.tan(np.radians(32.2) / 2)  # of the default camera at 64 pixels, in pixels
FACTORS = (*INTENSITIES, EVERYTHING)


@pytest.fixture(scope="module")
def door():
    """Snapshots (4, S) and scenes (4, C)."""
    environment = Environment(DOOR)
    environment.reset(3)
    generator = np.random.default_rng(0)
    snapshots = []
    for _ in range(4):
        for _ in range(10):
            environment.step(generator.uniform(-1, 1, 4).astype(np.float32))
        snapshots.append(environment.snapshot())
    return np.stack(snapshots), np.repeat(environment.scene()[None], 4, axis=0)


@pytest.fixture(scope="module")
def renderer():
    shared = FrameRenderer(DOOR)
    yield shared
    shared.close()


@pytest.fixture
def seen(renderer, door):
    """Renders the door under a perturbation."""

    def render(perturbation=CLEAN):
        renderer.look(DEFAULT_CAMERA, perturbation)
        return renderer.render(*door)

    return render


def is_green(frames):
    red, green, blue = np.moveaxis(frames.astype(int), -1, 0)
    return (green - red > 60) & (green - blue > 60)


def is_red(frames):
    red, green, blue = np.moveaxis(frames.astype(int), -1, 0)
    return (red - green > 60) & (red - blue > 60)


def is_sky(frames):
    """Where MuJoCo's gray is seen, as at the middle of the upper edge."""
    sky = frames[0, 0, 32]
    return (np.abs(frames.astype(int) - sky) <= 1).all(-1)


def goal_centre(frames):
    return np.argwhere(is_green(frames[0])).mean(axis=0)


@pytest.mark.parametrize("factor", INTENSITIES)
def test_a_vanishing_perturbation_gives_the_clean_picture(seen, factor):
    """Geoms that take their color from a material turned gray in 35 gray levels once their own color was touched."""
    difference = np.abs(seen(Perturbation(**{factor: 1e-6}, seed=1)).astype(int) - seen())
    assert difference.mean() < 0.1  # a camera may move an edge by a pixel


@pytest.mark.parametrize("factor", FACTORS)
def test_perturbations_come_back_with_their_seed_and_can_be_taken_back(seen, factor):
    clean = seen()
    first, again, other = (seen(perturbation_of(factor, "strong", seed)).astype(int) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - clean).mean() > 1
    assert np.abs(first - other).mean() > 1
    np.testing.assert_array_equal(seen(), clean)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_frame_is_the_same_in_any_batch(seen, renderer, door, factor):
    together = seen(perturbation_of(factor, "strong", 1))
    order = [3, 1]
    np.testing.assert_array_equal(renderer.render(door[0][order], door[1][order]), together[order])
    padded = (np.pad(values[order], ((0, 0), (0, 5))) for values in door)  # as in a fleet of several tasks
    np.testing.assert_array_equal(renderer.render(*padded), together[order])


@pytest.mark.parametrize("factor", FACTORS)
def test_strengths_change_more_and_more(seen, factor):
    """On the average over seeds: a single occluder may hide what was as gray as it."""
    clean = seen()
    changes = [
        np.mean([np.abs(seen(perturbation_of(factor, strength, seed)).astype(int) - clean).mean() for seed in range(4)])
        for strength in STRENGTHS
    ]
    assert 0.4 < changes[0] < changes[1] < changes[2]


def test_one_factor_draws_the_same_whatever_the_others_are(seen):
    alone = seen(Perturbation(light=0.5, color=0.3, seed=4))
    with_occluder = seen(Perturbation(light=0.5, color=0.3, occluder=0.3, seed=4))
    changed = (alone != with_occluder).any(axis=(0, 3))
    assert 0.9 * 19**2 < changed.sum() <= 19**2


def test_light_changes_the_cameras_own_light_too():
    model = light_model(DOOR)
    scenery, own, all_lights = Scenery(model), [], []
    for seed in range(200):
        scenery.restore()
        scenery.perturb(Perturbation(light=0.5, seed=seed), 0)
        own.append(model.vis.headlight.ambient / 0.4)
        all_lights.append(model.light_diffuse / 0.3)
    for factors in (own, all_lights):
        assert np.min(factors) >= 0.5 and np.max(factors) <= 1.5
        assert np.mean(factors) == pytest.approx(1, abs=0.05)
        assert np.std(factors) == pytest.approx(1 / np.sqrt(12), rel=0.1)  # that of a uniform draw of width 1


def test_lights_turn_by_the_given_angle_at_most():
    scenery = Scenery(light_model(DOOR))
    scenery.perturb(Perturbation(light_angle=30, seed=1), 0)
    down = np.array((0, 0, -1), np.float32)
    lights = [SimpleNamespace(dir=down.copy()) for _ in range(4)]
    scenery.turn_lights(SimpleNamespace(lights=lights))
    angles = [np.degrees(np.arccos(light.dir @ down)) for light in lights]
    assert 10 < max(angles) <= 30.01 and len(set(angles)) == 4


def test_colors_become_brighter_as_well_as_darker(seen):
    """Factors clipped at full brightness could mostly darken."""
    clean = seen().astype(int)
    table = np.s_[:, 50:, 30:40]
    brighter = [seen(Perturbation(color=0.8, seed=seed))[table].mean() > clean[table].mean() for seed in range(12)]
    assert 3 <= sum(brighter) <= 9


def test_full_color_moves_a_textured_surface_to_any_color():
    model = light_model(DOOR)
    scenery, table = Scenery(model), model.texture("T_table").id
    first, size = model.tex_adr[table], model.tex_height[table] * model.tex_width[table] * 3
    means = []
    for seed in range(40):
        scenery.restore()
        assert table in scenery.perturb(Perturbation(color=1, seed=seed), 0)
        means.append(model.tex_data[first : first + size].reshape(-1, 3).mean(0))
    assert np.mean(means) == pytest.approx(127.5, abs=20)
    assert np.std(means) == pytest.approx(255 / np.sqrt(12), rel=0.2)  # that of a uniform draw


def test_textures_change_where_there_are_some_and_nowhere_else(seen):
    clean, textured = seen(), seen(Perturbation(texture=1, seed=1))
    robot = is_red(clean) & (clean[..., 0] > 100)
    assert np.abs(textured.astype(int) - clean)[robot].mean() < 1
    assert np.abs(textured.astype(int) - clean)[:, 50:, 30:40].mean() > 40


@pytest.mark.parametrize("factor, value", [("camera_angle", 2.0), ("camera_position", 0.03)])
def test_the_camera_moves_as_a_pinhole_camera_would(seen, factor, value):
    clean = goal_centre(seen())
    shifts = np.array([goal_centre(seen(Perturbation(**{factor: value}, seed=seed))) - clean for seed in range(40)])
    angle = np.radians(value) if factor == "camera_angle" else value / 1.75  # the goal is that many meters away
    assert shifts.std() == pytest.approx(FOCAL_LENGTH * angle, rel=0.25)


def test_the_film_is_behind_the_scene_and_moves(seen):
    clean, filmed = seen(), seen(Perturbation(background=1, seed=1))
    behind = (clean != filmed).any(-1)
    assert behind[is_sky(clean)].mean() > 0.99
    assert not behind[is_red(clean)].any() and not behind[is_green(clean)].any()
    assert not behind[:, 50:, 30:40].any()  # the table
    always = behind.all(axis=0)
    assert np.abs(filmed[0].astype(int) - filmed[1])[always].mean() > 40


def test_sensor_noise_has_the_given_spread(seen):
    clean = seen().astype(float)
    noise = seen(Perturbation(noise=8.0, seed=5)) - clean
    inside = (clean > 40) & (clean < 215)  # where nothing is clipped
    assert noise[inside].std() == pytest.approx(8.0, rel=0.03)
    assert noise[inside].mean() == pytest.approx(0.0, abs=0.15)
    assert np.abs(noise[0] - noise[1]).max() > 0


def test_occluder_is_a_gray_square():
    frame = np.zeros((64, 64, 3), np.uint8)
    ImageChanges(Perturbation(occluder=0.25, seed=2), 64).apply(frame, np.zeros(3, np.float32), None)
    rows, columns = np.nonzero(frame[..., 0] == 128)
    assert rows.max() - rows.min() == columns.max() - columns.min() == 15 and len(rows) == 16**2


def test_named_perturbations_hold_one_factor_or_all():
    assert perturbation_of("noise", "extreme", 7) == Perturbation(noise=80, seed=7)
    mild = perturbation_of(EVERYTHING, "mild")
    assert all(getattr(mild, name) == INTENSITIES[name][0] for name in INTENSITIES)


def test_bad_values_are_named():
    with pytest.raises(PrefVLMError, match=r"Perturbation.occluder is 1.5, allowed are 0 to 1\."):
        Perturbation(occluder=1.5)
    with pytest.raises(PrefVLMError, match=r"Perturbation.noise is nan, allowed are 0 to 255\."):
        Perturbation(noise=float("nan"))
    with pytest.raises(PrefVLMError, match=r"Perturbation.light_angle is -1, allowed are 0 to 180\."):
        Perturbation(light_angle=-1)
    with pytest.raises(PrefVLMError, match=r"Unknown factor 'colour'.*Did you mean 'color'"):
        perturbation_of("colour", "mild")
    with pytest.raises(PrefVLMError, match=r"Unknown strength 'wild'.*Did you mean 'mild'"):
        perturbation_of("color", "wild")


def test_the_floor_is_the_first_geom_that_is_drawn():
    """So that the film finds where the floor is alone."""
    for task in (DOOR, "sweep-into-v3", "coffee-push-v3"):
        model = light_model(task)
        data, scene = mujoco.MjData(model), mujoco.MjvScene(model, 1000)
        mujoco.mj_forward(model, data)
        camera = mujoco.MjvCamera()
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene)
        assert model.geom("floor").id == scene.geoms[0].objid and scene.geoms[0].type == mujoco.mjtGeom.mjGEOM_PLANE
