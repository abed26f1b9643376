"""Tests of registries: entries can be added from outside, but those of the package cannot be replaced."""

import pytest

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.registry import Registry


def animals() -> Registry[int]:
    return Registry("animal", {"cat": 1, "dog": 2, "bird:": 3})


def test_names_and_families_are_found() -> None:
    registry = animals()
    assert registry["cat"] == 1 and registry["bird:wren"] == 3 and list(registry) == ["cat", "dog", "bird:"]
    assert "bird:wren" in registry and "cat:black" not in registry and "bird" not in registry and 3 not in registry


def test_it_reads_as_a_dictionary_does() -> None:
    registry = animals()
    for name in ("cat", "bird:wren", "bird:", "cow", "cat:black", "bird", "", 3, None):
        assert registry.get(name, 9) == (registry[name] if name in registry else 9)  # type: ignore[arg-type, index]
    assert registry.get("cow") is None and registry.get("bird:wren") == 3
    assert dict(registry) == registry == {"cat": 1, "dog": 2, "bird:": 3}
    assert sorted(registry.values()) == [1, 2, 3] and ("cat", 1) in registry.items() and "cow" not in registry.keys()


@pytest.mark.parametrize("name", ["cow", "cat:black", "bird", "bird:x/"[:0]])
def test_unknown_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(PrefVLMError, match=rf"Unknown animal '{name}'.* Allowed: bird:, cat, dog\."):
        animals()[name]


def test_a_suggestion_is_made_for_a_typing_error() -> None:
    with pytest.raises(PrefVLMError, match="Did you mean 'cat'"):
        animals().check("cta")


def test_own_entries_can_be_added_and_replaced_but_not_those_of_the_package() -> None:
    registry = animals()
    assert registry.register("cow", 4) == registry["cow"] == 4
    registry.register("cow", 5)
    assert registry["cow"] == 5 and len(registry) == 4
    with pytest.raises(PrefVLMError, match="The animal 'cat' comes with the package; choose another name"):
        registry.register("cat", 9)
    assert registry["cat"] == 1


@pytest.mark.parametrize("name", ["", " cow", "cow ", "farm/cow"])
def test_names_that_could_not_be_part_of_a_path_are_refused(name: str) -> None:
    with pytest.raises(PrefVLMError, match="needs a printable name without spaces around it, slashes or backslashes"):
        animals().register(name, 4)
