"""Arms: what rows say of them comes from the config, whatever they are called."""

import itertools
import math

import pytest
from builders.registries import restored_registries

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.config.groups import FilterConfig
from prefvlm_core.config.run import replace
from prefvlm_core.config.view import ViewConfig
from prefvlm_core.domains.perturbations import INTENSITIES
from prefvlm_core.experiments.arms import Arm, Source, disturbed, simulated, structured_errors, thresholds, transfer
from prefvlm_core.experiments.fleets import plan
from prefvlm_core.experiments.grids import EXPERIMENTS, Grid
from prefvlm_core.methods import run_config


def columns(arm: Arm) -> dict[str, object]:
    return arm.columns(run_config("drawer-close-v3", arm.method, 0, "quick", arm.changes))


def test_arms_without_a_name_are_named_by_what_they_cost() -> None:
    assert columns(Arm("pebble", {"feedback.budget": 90}))["arm"] == "pebble (90 labels)"
    assert columns(Arm("sac"))["arm"] == "sac (true reward)"
    assert columns(Arm("vlm-reward"))["arm"] == "vlm-reward (no human)"
    assert columns(Arm("vlm-reward"))["family"] == "vlm-reward"
    named = columns(Arm("pebble", name="human only", group="part"))
    assert (named["arm"], named["family"], named["group"]) == ("human only", "human only", "part")


def test_columns_come_from_the_config() -> None:
    sac, pebble, prefvlm = columns(Arm("sac")), columns(Arm("pebble")), columns(Arm("prefvlm"))
    assert (sac["human"], sac["vlm"], pebble["human"], pebble["vlm"]) == ("", "", "oracle", "")
    assert (prefvlm["vlm"], prefvlm["alpha"], prefvlm["beta"], prefvlm["upper"]) == (
        *("tinyliv2", 0.5, 0.0),  # beta is that of profile quick
        pytest.approx(3 * math.log(10)),
    )
    assert columns(Arm("vlm-reward"))["vlm"] == "tinyliv2" and columns(Arm("vlm-reward"))["human"] == ""
    for other in (sac, pebble, columns(Arm("prefvlm-adaptive")), columns(Arm("prefvlm-no-filter"))):
        assert math.isnan(other["alpha"]) and math.isnan(other["beta"]) and math.isnan(other["upper"])  # type: ignore
    assert columns(Arm("pebble", {"feedback.teacher": "mistake"}))["human"] == "mistake"


def test_simulated_vlms_differ_from_their_family_in_their_accuracy_alone() -> None:
    arms = [columns(arm) for arm in simulated({}, [0.7, 1.0])]
    assert len(arms) == 8 and len({arm["arm"] for arm in arms}) == 8
    by_family: dict[object, list[object]] = {}
    for arm in arms:
        by_family.setdefault(arm["family"], []).append(arm["simulated_accuracy"])
    assert set(map(tuple, by_family.values())) == {(0.7, 1.0)} and len(by_family) == 4
    assert math.isnan(columns(Arm("prefvlm"))["simulated_accuracy"])  # type: ignore[arg-type]


def test_structured_errors_are_drawn_like_all_simulated_vlms() -> None:
    arms = [columns(arm) for arm in structured_errors({}, [0.7, 0.9])]
    assert len({arm["arm"] for arm in arms}) == 8 and {arm["group"] for arm in arms} == {"errors"}
    named = {(arm["family"], arm["vlm"], arm["simulated_accuracy"], math.isnan(arm["alpha"])) for arm in arms}  # type: ignore[arg-type]
    assert named == {
        (f"{filtered}, errors by {errors}", f"simulated-{errors}:{accuracy:g}", accuracy, filtered == "no filter")
        for filtered, errors, accuracy in itertools.product(
            ("prefvlm", "no filter"), ("segments", "features"), (0.7, 0.9)
        )
    }


def test_threshold_settings_are_numbers() -> None:
    adaptive, *by_hand = thresholds({}, [0.25, 0.5], [0.0, 3.0], [2.0])
    settings = [tuple(columns(arm)[name] for name in ("alpha", "beta", "upper")) for arm in by_hand]
    assert settings == [(0.25, 0.0, 2.0), (0.25, 3.0, 2.0), (0.5, 0.0, 2.0), (0.5, 3.0, 2.0)]
    assert math.isnan(columns(adaptive)["alpha"])  # type: ignore[arg-type]


def test_disturbed_arms_differ_from_the_clean_one_in_one_factor_of_their_view() -> None:
    clean, *arms = disturbed({"feedback.budget": 90}, ["noise", "camera_angle"], "strong")
    assert clean.name == "clean" and [arm.name for arm in arms] == ["noise, strong", "camera angle, strong"]
    configs = [run_config("drawer-close-v3", arm.method, 200, "quick", arm.changes) for arm in (clean, *arms)]
    assert configs[0].view == ViewConfig() and configs[0].feedback.budget == 90
    assert [replace(config, {"view.noise": 0.0, "view.camera_angle": 0.0}) for config in configs] == [configs[0]] * 3
    assert configs[1].view.noise == INTENSITIES["noise"][1] and configs[2].view.camera_angle == 3.0
    check_compatible(configs)


def test_transfer_has_two_families_at_each_budget() -> None:
    budgets = {"B": {"feedback.budget": 100}, "B/2": {"feedback.budget": 50}}
    arms = transfer(Source("door-close-v3", "prefvlm"), budgets)
    assert [(arm.family, arm.changes["feedback.budget"], arm.source is not None) for arm in arms] == [
        *(("without transfer", 100, False), ("with transfer", 100, True)),
        *(("without transfer", 50, False), ("with transfer", 50, True)),
    ]


@pytest.mark.parametrize(
    ("experiment", "profile"), [(name, profile) for name in EXPERIMENTS for profile in EXPERIMENTS[name]]
)
def test_every_arm_is_compared_with_one_of_its_task_that_has_its_seeds(experiment: str, profile: str) -> None:
    runs = plan(experiment, profile)
    trained = {(run.config.task, run.arm.display_name(run.config), run.config.seed) for run in runs}
    for run in runs:
        if run.arm.against:
            assert (run.config.task, run.arm.against, run.config.seed) in trained, run.arm
            assert run.arm.against != run.arm.display_name(run.config)


AGAINST = {
    "03_filter_ablation": {"no filter": "prefvlm", "prefvlm": ""},
    "04_threshold_sensitivity": {"alpha 0.5, beta 1, upper 2.0": "adaptive", "adaptive": ""},
    "05_transfer": {"with transfer (B/2 labels)": "without transfer (B/2 labels)", "without transfer (B labels)": ""},
    "06_component_ablation": {
        **{"human only": "prefvlm", "held-out TinyLIV": "prefvlm", "prefvlm-plus without its VLM": "prefvlm-plus"},
        **{"no filter, VLM 80 % right": "human only", "prefvlm, errors by features, VLM 70 % right": "human only"},
        "prefvlm-plus, VLM 90 % right": "prefvlm-plus without its VLM",
        "prefvlm, from embeddings": "pebble (1×B), from embeddings",
        "pebble (1×B), from embeddings": "human only",
    },
    "08_noisy_teacher": {"rime": "pebble", "pebble": ""},
    "09_vlm_backbones": {"held-out TinyLIV": "human only", "no filter, VLM 100 % right": "human only"},
    "10_visual_robustness": {"noise, strong": "clean", "clean": ""},
    "02_learning_curves": {"rime": "pebble (1×B)", "rlvlmf": "pebble (1×B)", "prefvlm (1×B)": ""},
}
"""Of profile laptop: arm -> the one that it is compared with."""


@pytest.mark.parametrize("experiment", AGAINST)
def test_arms_are_compared_with_what_answers_the_question(experiment: str) -> None:
    found = {}
    for run in plan(experiment, "laptop"):
        about = run.arm.columns(run.config)
        found[about["arm"]] = about["against"] or found.get(about["arm"], "")  # on some tasks it may stand for itself
    assert found | AGAINST[experiment] == found


def test_an_arm_that_is_compared_with_none_of_its_grid_is_refused() -> None:
    arms = [Arm("pebble", name="human only"), Arm("prefvlm", name="ours", against="humans only")]
    with restored_registries():
        EXPERIMENTS.register("comparing", {"quick": Grid({"drawer-close-v3": arms}, [0])})
        with pytest.raises(PrefVLMError, match=r"Unknown arm 'humans only'\. Did you mean 'human only'"):
            plan("comparing", "quick")


def test_the_upper_threshold_of_rime_is_the_default_of_the_filter() -> None:
    uppers = {run.config.filter.upper for run in plan("04_threshold_sensitivity", "laptop")}
    assert uppers == {2.0, FilterConfig().upper}
