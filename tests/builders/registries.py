"""All registries, and a way to leave them as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import prefvlm_core
from prefvlm_core.common.registry import Registry
from prefvlm_core.vlm import texts

REGISTRIES: dict[str, Registry[Any]] = {
    name: getattr(prefvlm_core, name)
    for name in prefvlm_core.__all__
    if isinstance(getattr(prefvlm_core, name), Registry)
}
"""By their public names."""


@contextmanager
def restored_registries() -> Iterator[None]:
    """What is registered inside, task texts included, is gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in REGISTRIES.values():
            patch.setattr(registry, "_entries", dict(registry._entries))
        patch.setattr(texts, "_registered", {})
        yield
    Registry.registrations += 1  # so that nothing planned inside is remembered
