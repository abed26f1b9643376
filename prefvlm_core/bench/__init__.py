"""Benchmarks of this package against its peers and its own limits: one module per group, and their report."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.common.progress import tqdm
from prefvlm_core.runs.files import UNREADABLE, write_atomically

GROUPS = ("environments", "learner", "methods", "frames", "vlm", "adapters")


@dataclass(frozen=True)
class Measurement:
    """One measured number, with what it is compared with and the value that is wanted."""

    name: str
    value: float
    unit: str
    against: str
    target: str


def report(results: str | Path, only: Sequence[str] = ()) -> str:
    """Run all benchmarks, or `only` some groups, and return the measurements as a table.

    `<results>/bench.json` keeps the latest measurements of each group. Raises `PrefVLMError` for an unknown group.
    """
    for name in only:
        if name not in GROUPS:
            raise unknown_name("benchmark group", name, GROUPS)
    path = Path(results) / "bench.json"
    stored = _stored(path)
    rows: list[Measurement] = []
    for name in tqdm(only or GROUPS, desc="benchmarks", unit="group"):
        measured = importlib.import_module(f"prefvlm_core.bench.{name}").measure()
        stored[name] = [dataclasses.asdict(row) for row in measured]
        write_atomically(path, (json.dumps(stored, indent=1, ensure_ascii=False) + "\n").encode())
        rows += measured
    lines = [f"{'':<44}{'value':>10}  {'unit':<20}{'against':<28}target"]
    lines += [f"{row.name:<44}{row.value:>10.4g}  {row.unit:<20}{row.against:<28}{row.target}" for row in rows]
    return "\n".join(lines)


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except UNREADABLE as error:
        raise PrefVLMError(f"{path} is damaged ({error}); restore or remove it.") from error
    if not isinstance(stored, dict):
        raise PrefVLMError(f"{path} is damaged (it holds no groups); restore or remove it.")
    return stored
