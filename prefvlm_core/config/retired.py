"""Reads stored configs of earlier releases: translates renamed fields and recognizes fields that have been removed.

If every removed field has the value that corresponds to today's behavior, the stored run is the same as the run of
today's config. Otherwise it is a *retired run*: it stays listed and plotted under its old name and is never trained
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.groups import SIMULATED_VLMS
from prefvlm_core.config.run import RunConfig, content_hash, default_fields, from_fields, read_fields

RETIRED_FIELDS: dict[str, Any] = {
    "feedback.balance": False,
    "filter.lower": 0.7,
    "filter.soft_labels": False,
    "reward.label_smoothing": 0.0,
    "vlm.equal_within": 0.0,
    "vlm.keep_equal": True,
    "vlm.simulated_accuracy": 0.0,
}
"""Maps removed dotted fields to the value that corresponds to today's behavior. The last three are translated where
possible."""
RETIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "filter.human_selection": ("disagreement",),
    "filter.mode": ("calibrated", "fixed"),
}
"""Maps dotted fields that still exist to those of their values that have been removed."""
_TIE_MARGIN = 0.5  # the only `vlm.equal_within` above 0 that `vlm.ties` can express


@dataclass(frozen=True)
class StoredConfig:
    """A stored config, as far as this release understands it."""

    config: RunConfig
    """The config in today's fields; for a retired run, it lacks the fields in `retired`."""
    retired: Mapping[str, Any]
    """Dotted fields with values that no longer exist; empty unless the run is retired."""
    stored_id: str
    """The `<profile>/<task>/<method>/<seed>-<hash>` under which the run was stored, its folder below `results/`."""

    @property
    def run_id(self) -> str:
        """The name of the run today: that of its config or, for a retired run, the one under which it was stored."""
        return self.stored_id if self.retired else self.config.run_id


def read_stored_config(text: str) -> StoredConfig:
    """Read a config of this or an earlier release, from JSON.

    Raises `PrefVLMError` for another config version and for fields that no release had.
    """
    stored = read_fields(text)
    known = default_fields() | RETIRED_FIELDS
    content = {name: value for name, value in stored.items() if name in known}
    path = "/".join(str(stored[name]) for name in ("profile", "task", "method", "seed"))
    translated = _translated(stored)
    retired = {
        name: value
        for name, value in translated.items()
        if (name in RETIRED_FIELDS and value != RETIRED_FIELDS[name]) or value in RETIRED_VALUES.get(name, ())
    }
    current = {name: value for name, value in translated.items() if name not in retired and name not in RETIRED_FIELDS}
    return StoredConfig(from_fields(current), retired, f"{path}-{content_hash(content, known)}")


def _translated(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with renamed ones under their names of today, where today's fields can express the value."""
    values = dict(stored)
    if accuracy := values.pop("vlm.simulated_accuracy", 0.0):
        if not isinstance(accuracy, int | float) or not 0 < accuracy <= 1:
            raise PrefVLMError(f"vlm.simulated_accuracy must be a probability, got {accuracy!r}.")
        values["vlm.model"] = f"{SIMULATED_VLMS[0]}:{accuracy:g}"
    if "vlm.equal_within" in values and values["vlm.equal_within"] in (0.0, _TIE_MARGIN):
        keep = values.pop("vlm.keep_equal", True)
        values["vlm.ties"] = "none" if not values.pop("vlm.equal_within") else "keep" if keep else "drop"
    return values
