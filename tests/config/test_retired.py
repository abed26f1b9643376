"""Tests of stored configs of earlier releases: unchanged runs, runs with renamed fields, and retired runs."""

import hashlib
import json
from typing import Any

import pytest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import read_stored_config
from prefvlm_core.config.run import RunConfig
from prefvlm_core.methods import run_config

AS_TODAY = {
    "feedback": {"balance": False},
    "filter": {"lower": 0.7, "soft_labels": False},
    "reward": {"label_smoothing": 0.0},
    "vlm": {"equal_within": 0.0, "keep_equal": True, "simulated_accuracy": 0.0},
}


def config(**changes: Any) -> RunConfig:
    return run_config("door-close-v3", "prefvlm", 3, "laptop", {"adapter.enabled": False} | changes)


def stored(**groups: dict[str, Any]) -> str:
    """A config as an earlier release wrote it: removed fields have their old defaults, or the values in `groups`."""
    values = json.loads(config().to_json())
    for group, fields in AS_TODAY.items():
        values[group] |= fields | groups.get(group, {})
    for group in groups.keys() - AS_TODAY.keys():
        values[group] |= groups[group]
    return json.dumps(values)


def old_id(**non_default: Any) -> str:
    """The name that an earlier release gave: the hash of all fields that differed from their defaults then."""
    today = json.loads(config().to_json())
    default = json.loads(RunConfig("door-close-v3", "prefvlm", 3, "paper").to_json())
    differing = {"task": "door-close-v3", "method": "prefvlm", "seed": 3, "profile": "laptop"}
    for name, value in today.items():
        if isinstance(value, dict):
            differing |= {f"{name}.{leaf}": one for leaf, one in value.items() if one != default[name][leaf]}
        elif value != default[name]:
            differing[name] = value
    digest = hashlib.sha256(json.dumps([1, differing | non_default], sort_keys=True).encode()).hexdigest()[:8]
    return f"laptop/door-close-v3/prefvlm/3-{digest}"


def test_a_retired_field_at_the_value_that_meant_as_today_changes_nothing() -> None:
    read = read_stored_config(stored())
    assert read.config == config() and not read.retired
    assert read.run_id == read.stored_id == config().run_id == old_id()


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("feedback", "balance", True),
        ("filter", "soft_labels", True),
        ("filter", "lower", 0.5),
        ("reward", "label_smoothing", 0.1),
        ("vlm", "equal_within", 0.25),
        ("filter", "mode", "calibrated"),
        ("filter", "mode", "fixed"),
        ("filter", "human_selection", "disagreement"),
    ],
)
def test_a_run_with_another_value_keeps_its_name_and_says_what_it_was(group: str, field: str, value: Any) -> None:
    read = read_stored_config(stored(**{group: {field: value}}))
    assert read.retired == {f"{group}.{field}": value}
    assert read.run_id == read.stored_id == old_id(**{f"{group}.{field}": value}) != config().run_id
    assert (read.config.task, read.config.method, read.config.seed) == ("door-close-v3", "prefvlm", 3)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ({"simulated_accuracy": 0.8}, {"vlm.model": "simulated:0.8"}),
        ({"simulated_accuracy": 1.0}, {"vlm.model": "simulated:1"}),
        ({"equal_within": 0.5}, {"vlm.ties": "keep"}),
        ({"equal_within": 0.5, "keep_equal": False}, {"vlm.ties": "drop"}),
        ({"keep_equal": False}, {"vlm.ties": "none"}),
    ],
)
def test_a_renamed_field_is_read_under_its_name_of_today(old: dict[str, Any], today: dict[str, Any]) -> None:
    read = read_stored_config(stored(vlm=old))
    assert read.config == config(**today) and not read.retired
    assert read.run_id == config(**today).run_id
    assert read.stored_id == old_id(**{f"vlm.{name}": value for name, value in old.items()})


def test_a_field_that_no_release_had_is_refused() -> None:
    with pytest.raises(PrefVLMError, match=r"Unknown parameter 'filter\.softness'"):
        read_stored_config(stored(filter={"softness": 1}))
