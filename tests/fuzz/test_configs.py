"""Properties of configs: with whatever value of a field, one is refused in a sentence or comes back as it was."""

import json
import math
from pathlib import Path

import pytest
from builders.refusals import is_one_line
from builders.runs import SMALL, tiny
from hypothesis import given
from hypothesis import strategies as st

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import RETIRED_FIELDS, RETIRED_VALUES, read_stored_config
from prefvlm_core.config.run import CONFIG_VERSION, IDENTITY, Execution, RunConfig, default_fields, replace
from prefvlm_core.runs.directory import read_config

BASE = tiny("prefvlm", **SMALL)
FIELDS = sorted(default_fields())
NUMBERS = (
    st.integers()
    | st.integers(1, 1000)
    | st.floats()
    | st.sampled_from((0, 1, -1, 2**31, 2**63, 10**20, 10**400, -0.0, 5e-324, 1e308))
)
NAMES = st.sampled_from(
    (
        *("", "oracle", "human", "uniform", "rime", "surf", "plain", "vlm", "true", "keep", "quick", "drawer-close-v3"),
        *(
            "liv",
            "tinyliv",
            "simulated:0.8",
            "simulated:",
            "simulated:nan",
            "simulated-features:0.8",
            "simulated-x:0.8",
            "open_clip:",
            "../x",
            "..",
            "open_clip:x",
            "\ud800",
        ),
    )
)
SCALARS = st.none() | st.booleans() | NUMBERS | NAMES | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4) | NAMES, inner, max_size=2),
    max_leaves=4,
)
WRONG_NAMES = st.sampled_from(
    ("", ".", "sac", "sac.", "sac.width.x", "sac..width", "Seed", "filter", "a\nb", "version")
)
CHANGES = st.dictionaries(st.sampled_from(FIELDS) | WRONG_NAMES, VALUES, min_size=1, max_size=3)


def comes_back(config: RunConfig) -> bool:
    """Whether the config is the same, and named the same, after it was written as JSON; nan would not be."""
    text = config.to_json()
    again = RunConfig.from_json(text)
    a_path = len(Path(config.run_id).parts) == 4 and ".." not in Path(config.run_id).parts
    return a_path and again == config and again.run_id == config.run_id and again.to_json() == text


@given(CHANGES)
def test_any_value_of_any_field_is_refused_in_a_sentence_or_comes_back(changes):
    try:
        config = replace(BASE, changes)
    except PrefVLMError as error:
        assert is_one_line(error), str(error)
    else:
        assert comes_back(config)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "value",
    [None, True, -1, 1.5, 10**400, math.nan, math.inf, "", "\ud800", "a\nb", [], [1], {}, {"x": 1}],
    ids=lambda value: repr(value)[:9],
)
def test_no_field_believes_a_value_of_another_kind(field, value):
    try:
        config = replace(BASE, {field: value})
    except PrefVLMError as error:
        assert is_one_line(error), str(error)
        assert field.split(".")[0] in str(error) or field.split(".")[-1] in str(error), str(error)
    else:
        assert comes_back(config)


@given(st.dictionaries(st.sampled_from(Execution.__match_args__), VALUES, max_size=2))
def test_any_way_to_execute_a_run_is_accepted_or_refused_in_a_sentence(values):
    try:
        Execution(**values)
    except PrefVLMError as error:
        assert is_one_line(error), str(error)


OLD_FIELDS = st.sampled_from(sorted(RETIRED_FIELDS | RETIRED_VALUES))
OLD_VALUES = st.sampled_from(
    [*(value for values in RETIRED_VALUES.values() for value in values), *RETIRED_FIELDS.values(), 0.5, 0.8, 1.0, None]
)
OLD_CONFIGS = st.builds(
    lambda identity, base, old, new: identity | base | old | new,
    st.just({"version": CONFIG_VERSION, "task": "drawer-close-v3", "method": "prefvlm", "seed": 0, "profile": "quick"}),
    st.dictionaries(st.sampled_from(("version", *IDENTITY)), VALUES, max_size=1) | st.just({}),
    st.dictionaries(OLD_FIELDS, OLD_VALUES | VALUES, max_size=4),
    st.dictionaries(st.sampled_from(FIELDS) | WRONG_NAMES, VALUES, max_size=1),
)


@given(OLD_CONFIGS)
def test_any_mix_of_retired_fields_is_read_or_refused_in_a_sentence(tmp_path, stored):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    try:
        found = read_config(path)
    except PrefVLMError as error:
        assert is_one_line(error) and str(path) in str(error), str(error)
        return
    again = read_stored_config(path.read_text(encoding="utf-8"))
    assert again == found and found.run_id.count("/") == 3
    if not found.retired:
        assert comes_back(found.config)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()) | st.integers(1, 10**5))
def test_any_bytes_in_place_of_a_config_are_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(b"[" * content if isinstance(content, int) else content)
    with pytest.raises(PrefVLMError) as told:
        read_config(path)
    assert is_one_line(told.value) and str(path) in str(told.value), str(told.value)
