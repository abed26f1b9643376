"""Tests of configs: which are refused, with which message, and that a run's name depends on its content alone."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefvlm_core.checks.start import check_start
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.seeding import Stream, episode_seed, generator
from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.config.groups import SACConfig
from prefvlm_core.config.profiles import PROFILES
from prefvlm_core.config.run import Execution, FeedbackConfig, RunConfig, flatten, replace
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import write_json
from prefvlm_core.runs.stored import find_runs

BASE = {  # the values that the tests below assume, whatever the profile
    "total_steps": 20_000,
    "horizon": 250,
    "action_repeat": 1,
    "exploration.random_steps": 1_000,
    "evaluation.every": 2_500,
    "feedback.budget": 100,
    "feedback.first_session_queries": 40,
    "feedback.segment_length": 50,
    "vlm.frame_stride": 1,
}


def quick(method: str = "pebble", seed: int = 0, task: str = "drawer-close-v3", **changes: Any) -> RunConfig:
    """A config of profile quick with changed fields, named with `__` in place of the dot."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return run_config(task, method, seed, "quick", BASE | dotted)


def fields(config: RunConfig) -> dict[str, Any]:
    return flatten(dataclasses.asdict(config))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("drawer-closed-v3", "pebble", 0, "quick"),
            "Unknown task 'drawer-closed-v3'. Did you mean 'drawer-close-v3'?",
        ),
        (("drawer-close-v3", "peble", 0, "quick"), "Unknown method 'peble'. Did you mean 'pebble'?"),
        (
            ("drawer-close-v3", "pebble", 0, "qick"),
            "Unknown profile 'qick'. Did you mean 'quick'? Allowed: laptop, paper,",
        ),
        (("drawer-close-v3", "pebble", -1, "quick"), "seed must be at least 0, got -1."),
        (("drawer-close-v3", "pebble", "0", "quick"), "seed must be of type int, got '0'."),
        ((3, "pebble", 0, "quick"), "task must be of type str, got 3."),
    ],
)
def test_wrong_names_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        run_config(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback.budgt": 1}, "Unknown parameter 'feedback.budgt'. Did you mean 'feedback.budget'?"),
        ({"feedback": 1}, "Unknown parameter 'feedback'."),
        ({"feedback.budget": -1}, "feedback.budget must be at least 0, got -1."),
        ({"feedback.budget": 0}, "feedback.budget is 0 and vlm.labels is off, so that the reward would learn from no"),
        ({"adapter.folds": 1}, "adapter.folds must be at least 2, got 1."),
        ({"sac.width": 10**10}, "sac.width must be at most 1000000000, got 10000000000."),
        ({"sac.hidden_layers": 101}, "sac.hidden_layers must be at most 100, got 101."),
        ({"sac.discount": 10**400}, "sac.discount must be at most 1000000000, got 1000"),
        ({"sac.width": 10**5000}, "sac.width must be at most 1000000000, got a number of thousands of digits."),
        ({"feedback.budget": 39}, "feedback.first_session_queries must be 1 to feedback.budget 39, got 40."),
        (
            {"feedback.first_session_queries": 0},
            "feedback.first_session_queries must be 1 to feedback.budget 100, got 0.",
        ),
        ({"feedback.segment_length": 251}, "feedback.segment_length must be at most horizon 250, got 251."),
        ({"feedback.teacher_mistake": 1.5}, "feedback.teacher_mistake must be at most 1, got 1.5."),
        ({"feedback.teacher_mistake": float("nan")}, "feedback.teacher_mistake must be finite, got nan."),
        ({"feedback.teacher_margin": float("inf")}, "feedback.teacher_margin must be finite, got inf."),
        ({"vlm.frame_stride": 4}, "vlm.frame_stride 4 must divide horizon 250."),
        ({"filter.lower": 7.0}, "Unknown parameter 'filter.lower'."),
        ({"vlm.model": "simulated:1.5"}, "vlm.model simulated:1.5 must name a probability above 0 and at most 1"),
        ({"vlm.model": "simulated:0.80"}, "for example simulated:0.8."),
        ({"vlm.model": "simulated:often"}, "vlm.model simulated:often must name a probability"),
        ({"vlm.model": "simulated-features:2"}, "for example simulated-features:0.8."),
        ({"vlm.model": "simulated-segments"}, "vlm.model simulated-segments must name a probability"),
        ({"vlm.model": "simulated-feature:0.8"}, "Unknown simulated VLM 'simulated-feature'. Did you mean 'simulated-"),
        ({"vlm.model": "endpoint: "}, "must name a model, for example endpoint:gemma3:4b."),
        ({"vlm.question": "better"}, "Unknown vlm.question 'better'."),
        ({"vlm.strip_frames": 33}, "vlm.strip_frames must be at most 32, got 33."),
        ({"vlm.strip_pixels": 15}, "vlm.strip_pixels must be at least 16, got 15."),
        ({"vlm.labels": 1}, "vlm.labels must be of type bool, got 1."),
        (
            {"horizon": 501},
            "horizon is 501 and action_repeat 1, but Meta-World's episodes allow 1 to 500 environment steps in all.",
        ),
        ({"horizon": 0}, "horizon must be at least 1, got 0."),
        ({"total_steps": 20_001}, "total_steps must be a multiple of horizon 250, got 20001."),
        ({"evaluation.every": 2_600}, "evaluation.every must be a multiple of horizon 250, got 2600."),
        ({"total_steps": 20_000.0}, "total_steps must be of type int, got 20000.0."),
        ({"sac.width": True}, "sac.width must be of type int, got True."),
        ({"sac.discount": "0.9"}, "sac.discount must be of type float, got '0.9'."),
        ({"sac.actor_learning_rate": 0}, "sac.actor_learning_rate must be above 0, got 0.0."),
        ({"sac.critic_learning_rate": -1e-3}, "sac.critic_learning_rate must be above 0, got -0.001."),
        (
            {"exploration.random_steps": 100, "exploration.entropy_steps": 149},
            "must cover one episode (250 actions) before the first feedback session, got 249.",
        ),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)) as caught:
        run_config("drawer-close-v3", "pebble", 0, "quick", BASE | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("sac", {"exploration.random_steps": 0}, "exploration.random_steps must be at least 1, got 0: learning starts"),
        (
            "vlm-reward",
            {"exploration.random_steps": 249, "exploration.entropy_steps": 1},
            "exploration.random_steps must cover one episode (250 actions), got 249:",
        ),
        (
            "pebble",
            {"exploration.random_steps": 249, "reward.inputs": "embedding", "vlm.frame_stride": 1},
            "exploration.random_steps must cover one episode (250 actions), got 249:",
        ),
        (
            "prefvlm",
            {"feedback.segment_length": 5, "vlm.frame_stride": 5},
            "feedback.segment_length 5 with vlm.frame_stride 5 leaves one frame of a segment, but adapters learn",
        ),
    ],
)
def test_what_cannot_go_on_is_refused_before_it_begins(
    tmp_path: Path, method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        run_config("drawer-close-v3", method, 0, "quick", BASE | changes)
    stored = replace(run_config("drawer-close-v3", method, 0, "quick", BASE), changes)  # by an earlier release
    assert RunConfig.from_json(stored.to_json()) == stored
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        check_start([stored], Execution(str(tmp_path)))


@pytest.mark.parametrize("changes", [{"adapter.dynamics_weight": 0.0}, {"adapter.kind": "kernel"}])
def test_adapters_without_dynamics_need_one_frame(changes: dict[str, Any]) -> None:
    one = {"feedback.segment_length": 5, "vlm.frame_stride": 5}
    assert run_config("drawer-close-v3", "prefvlm", 0, "quick", BASE | one | changes).feedback.segment_length == 5


def test_values_at_the_limit_are_accepted() -> None:
    assert quick(feedback__budget=40).feedback.budget == 40
    assert quick("sac", feedback__budget=0).feedback.budget == 0
    assert quick(seed=2**63 - 1).seed == 2**63 - 1
    assert quick(feedback__segment_length=250).feedback.segment_length == 250
    assert quick(horizon=500, total_steps=20_000).horizon == 500
    assert quick(exploration__random_steps=100, exploration__entropy_steps=150).first_session_step == 250
    assert quick("sac", exploration__random_steps=1).first_session_step == 1  # without sessions, it may be short


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "gpu"}, "Unknown device 'gpu'. Did you mean 'cpu'? Allowed: auto, cpu, cuda."),
        ({"workers": -1}, "workers must be at least 0, got -1."),
        ({"threads": 0}, "threads must be at least 1, got 0."),
        ({"threads": 10**6}, "threads must be at most "),
        ({"workers": 10**6}, "workers must be at most "),
        ({"workers": "2"}, "workers must be of type int, got '2'."),
        ({"threads": True}, "threads must be of type int, got True."),
        ({"progress": 1}, "progress must be of type bool, got 1."),
        ({"vlm_timeout": 0}, "vlm_timeout must be above 0, got 0.0."),
        ({"vlm_timeout": float("inf")}, "vlm_timeout must be finite, got inf."),
        ({"vlm_parallel": 0}, "vlm_parallel must be at least 1, got 0."),
        ({"vlm_per_minute": 0}, "vlm_per_minute must be above 0, got 0.0."),
        ({"vlm_per_minute": float("nan")}, "vlm_per_minute must be above 0, got nan."),
        ({"vlm_max_requests": -1}, "vlm_max_requests must be at least 0, got -1."),
        ({"vlm_max_tokens": 1.5}, "vlm_max_tokens must be of type int, got 1.5."),
        ({"results": ""}, "results must name a folder, got ''."),
        ({"results": "a\0b"}, "results must name a folder, got 'a\\x00b'."),
        ({"results": __file__}, "is a file, not a folder."),
        ({"results": f"{__file__}/runs"}, "is a file, not a folder."),
        ({"results": "x" * 300}, "which cannot be used: File name too long."),
        ({"results": None}, "results must be of type str, got None."),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds must be finite, got nan."),
        ({"checkpoint_seconds": float("inf")}, "checkpoint_seconds must be finite, got inf."),
        ({"checkpoint_seconds": -5}, "checkpoint_seconds must be at least 0, got -5.0."),
        ({"label_timeout": float("nan")}, "label_timeout must be at least 0 seconds, got nan."),
    ],
)
def test_wrong_execution_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        Execution(**changes)


def test_layers_override_in_order() -> None:
    """The order is: defaults, profile, method, caller."""
    assert run_config("drawer-close-v3", "pebble", 0, "paper") == RunConfig("drawer-close-v3", "pebble", 0, "paper")
    pebble, sac = (run_config("drawer-close-v3", method, 0, "quick") for method in ("pebble", "sac"))
    assert pebble.feedback.budget == PROFILES["quick"]["feedback.budget"] != FeedbackConfig().budget
    assert sac.feedback.budget == METHODS["sac"].changes["feedback.budget"] == 0
    assert run_config("drawer-close-v3", "sac", 0, "quick", {"feedback.budget": 50}).feedback.budget == 50
    differing = {name for name, value in fields(sac).items() if value != fields(pebble)[name]}
    assert differing == {"method", *METHODS["sac"].changes}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip(profile: str, method: str) -> None:
    config = run_config("sweep-into-v3", method, 7, profile, {"sac.discount": 0.1 + 0.2})
    again = RunConfig.from_json(config.to_json())
    assert again == config and again.hash == config.hash and again.sac.discount == 0.1 + 0.2
    assert config.run_id == f"{profile}/sweep-into-v3/{method}/7-{config.hash}"


def test_the_hash_names_the_content_and_nothing_else() -> None:
    config = quick()
    values = json.loads(config.to_json())
    backwards = {name: values[name] for name in reversed(values)}
    backwards["sac"] = {name: values["sac"][name] for name in reversed(values["sac"])}
    assert RunConfig.from_json(json.dumps(backwards)).hash == config.hash
    reordered = {name: fields(config)[name] for name in reversed(fields(config))}
    assert replace(quick(seed=5), reordered).hash == config.hash
    assert quick(sac__discount=1).hash == quick(sac__discount=1.0).hash
    assert quick(sac__discount=np.float64(0.5)).hash == quick(sac__discount=0.5).hash


def test_the_hash_changes_with_every_field() -> None:
    config = run_config("drawer-close-v3", "prefvlm", 0, "quick")
    human_only = {"vlm.labels": False, "adapter.enabled": False}
    other = {"task": "door-open-v3", "method": "sac", "profile": "laptop", "reward.source": "true"} | {
        "adapter.kind": "kernel",
        "adapter.source": "quick/a",
        "feedback.sampling": "disagreement",
        "feedback.segment_length": 25,
        "feedback.schedule": "fixed",
        "vlm.frame_stride": 10,
        "feedback.teacher": "skip",
        "vlm.model": "random",
        "filter.mode": "adaptive",
        "filter.human_selection": "random",
        "filter.human_order": "disagreement",
        "reward.learning": "surf",
        "reward.inputs": "state-action",
        "reward.stop_on": "all",
        "exploration.bonus": 0.05,
        "vlm.ties": "keep",
        "vlm.question": "rating",
        "vlm.shows": "difference",
        "total_steps": 4_050,
        "horizon": 25,
        "evaluation.every": 250,
    }
    hashes = {config.hash}
    for name, value in fields(config).items():
        if isinstance(value, bool):
            changed: Any = not value
        else:
            changed = other[name] if name in other else value / 2 or 0.5 if isinstance(value, float) else value + 1
        assert changed != value, name
        extra = human_only if name == "reward.learning" else {}
        hashes.add(replace(config, {name: changed} | extra).hash)
    hashes.add(replace(config, human_only).hash)
    assert len(hashes) == 2 + len(fields(config))


def test_the_hash_is_of_what_differs_from_the_defaults() -> None:
    config = RunConfig("door-close-v3", "pebble", 3, "paper", sac=SACConfig(width=64))
    non_default = {"method": "pebble", "profile": "paper", "sac.width": 64, "seed": 3, "task": "door-close-v3"}
    assert config.hash == hashlib.sha256(json.dumps([1, non_default]).encode()).hexdigest()[:8]


def test_a_stored_config_without_a_newer_field_is_the_same_run(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, quick())
    values = json.loads(quick().to_json())
    del values["adapter"]["source"], values["exploration"]["neighbours"]  # both at their defaults
    write_json(directory.path / "config.json", values)
    directory.open()
    assert find_runs(tmp_path)[0].config == quick()


def test_stored_configs_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    config = quick()
    directory = RunDirectory(tmp_path, config)
    path = directory.path / "config.json"
    stored = json.loads(config.to_json())

    def refused(values: Any) -> str:
        write_json(path, values)
        with pytest.raises(PrefVLMError) as opened:
            directory.open()
        with pytest.raises(PrefVLMError) as found:
            find_runs(tmp_path)
        assert str(opened.value) == str(found.value) and str(path) in str(opened.value)
        return str(opened.value)

    assert "written by config version 0, this package reads version 1: install the matching prefvlm" in refused(
        stored | {"version": 0}
    )
    assert "config version None" in refused({name: value for name, value in stored.items() if name != "version"})
    assert "The config lacks task, seed." in refused({n: v for n, v in stored.items() if n not in ("task", "seed")})
    misplaced = "does not hold the config its folder is named after"
    assert misplaced in refused({name: value for name, value in stored.items() if name != "horizon"})
    assert misplaced in refused({name: value for name, value in stored.items() if name != "sac"})
    assert "Unknown parameter 'horizont'. Did you mean 'horizon'?" in refused(stored | {"horizont": 3})
    assert "horizon must be at least 1, got -1." in refused(stored | {"horizon": -1})
    assert "does not hold the config its folder is named after; move the folder away." in refused(stored | {"seed": 3})
    for garbage in (b"\xff\xfe\x00", b"", b"null", b"[]", b'{"version": 1}'):
        path.write_bytes(garbage)
        with pytest.raises(PrefVLMError, match=f"{re.escape(str(path))} cannot be read"):
            find_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "may_differ"),
    [
        ("feedback.budget", 60, True),
        ("feedback.teacher", "skip", True),
        ("exploration.entropy_steps", 500, True),
        ("horizon", 125, False),
        ("action_repeat", 2, False),
        ("reward.standardise", True, True),
        ("view.background", 0.5, True),
        ("total_steps", 25_000, False),
        ("sac.width", 64, False),
        ("sac.discount", 0.9, False),
        ("reward.members", 5, False),
        ("exploration.random_steps", 900, False),
        ("evaluation.episodes", 9, False),
    ],
)
def test_what_may_differ_within_a_fleet(name: str, value: Any, may_differ: bool) -> None:
    first, second = quick(), run_config("drawer-close-v3", "pebble", 1, "quick", BASE | {name: value})
    if may_differ:
        check_compatible([first, second])
    else:
        words = f"{first.run_id} and {second.run_id} cannot share a fleet: "
        words += f"{name} is {fields(first)[name]} in one and {value} in the other."
        with pytest.raises(PrefVLMError, match=re.escape(words)):
            check_compatible([first, quick("sac"), second])


def test_a_fleet_of_tasks_methods_and_seeds_and_none_twice() -> None:
    fleet = [quick(), quick("sac"), quick(seed=1), quick(task="door-open-v3")]
    check_compatible(fleet)
    with pytest.raises(PrefVLMError, match="The same run is asked for twice in one fleet"):
        check_compatible([*fleet, quick(seed=1)])
    with pytest.raises(PrefVLMError, match="A fleet needs at least one run"):
        check_compatible([])


def test_random_streams_are_independent_and_evaluation_is_never_seen_in_training() -> None:
    draws = {(seed, stream): generator(seed, stream).integers(2**62) for seed in range(20) for stream in Stream}
    assert len(set(draws.values())) == len(draws)
    assert draws[3, Stream.POLICY] == generator(3, Stream.POLICY).integers(2**62)
    training = {episode_seed(seed, episode) for seed in range(5) for episode in range(200)}
    evaluation = {episode_seed(seed, episode, evaluation=True) for seed in range(5) for episode in range(200)}
    assert len(training) == len(evaluation) == 1000 and training.isdisjoint(evaluation)
