"""Stored configs of earlier releases: fields that were renamed are translated, fields that are gone are remembered.

A run that was trained with a retired field at the value that meant "as today" is the run of today. With another value
it is a *retired run*: it stays listed and drawn as what it was, and is never trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefvlm_core.config.groups import SIMULATED_PREFIX
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
"""Dotted fields that are gone -> the value that meant "as today". The last three are translated where they can be."""
RETIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "filter.human_selection": ("disagreement",),
    "filter.mode": ("calibrated", "fixed"),
}
"""Dotted fields that remain -> values of theirs that are gone."""
_TIE_MARGIN = 0.5  # the only `vlm.equal_within` that `vlm.ties` can stand for


@dataclass(frozen=True)
class StoredConfig:
    """A config as it was stored."""

    config: RunConfig
    """What today's package understands of it; of a retired run only a part of what it was."""
    retired: Mapping[str, Any]
    """Dotted fields with a value that no longer exists; empty but for a retired run."""
    stored_id: str
    """`<profile>/<task>/<method>/<seed>-<hash>` under which it was stored, the folder's name."""

    @property
    def run_id(self) -> str:
        """The name of the run today: that of its config, and of a retired run the one it was stored under."""
        return self.stored_id if self.retired else self.config.run_id


def read_stored_config(text: str) -> StoredConfig:
    """Read a config of this or an earlier release. Raises `PrefVLMError` for another config version and for fields that
    no release had."""
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
    """The fields under their names of today, as far as there is one."""
    values = dict(stored)
    if accuracy := values.pop("vlm.simulated_accuracy", 0.0):
        values["vlm.model"] = f"{SIMULATED_PREFIX}{accuracy:g}"
    if "vlm.equal_within" in values and values["vlm.equal_within"] in (0.0, _TIE_MARGIN):
        keep = values.pop("vlm.keep_equal", True)
        values["vlm.ties"] = "none" if not values.pop("vlm.equal_within") else "keep" if keep else "drop"
    return values
