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

GROUPS = ("environments", "learner", "methods", "frames", "vlm", "adapters", "gpu")
"""Modules of this room. `measure` of each returns a `Group`; its arguments in a quick benchmark are `QUICK`."""


@dataclass(frozen=True)
class Measurement:
    """One measured number, and what it is compared with where there is such a thing."""

    name: str
    unit: str
    ours: float
    other: float | None = None
    """The same of what it is compared `against`."""
    ratio: float | None = None
    """The median of ours ÷ other over the rounds, in each of which both were measured one after the other."""
    against: str = ""
    target: str = ""
    """What is wanted of the ratio, or of ours where there is none."""


@dataclass(frozen=True)
class Group:
    """What one module measured."""

    rows: list[Measurement]
    limit: str
    """A sentence that says how far it is to the limit."""
    skipped: tuple[str, ...] = ()
    """A sentence for whatever could not be measured, because a package or a GPU is missing."""


def report(results: str | Path, only: Sequence[str] = (), quick: bool = False) -> str:
    """Run all benchmarks, or `only` some groups, and return the measurements as a table.

    `<results>/bench.json` keeps the latest measurements of each group, except for those of a `quick` benchmark, which
    measures less and fewer times. Raises `PrefVLMError` for an unknown group.
    """
    for name in only:
        if name not in GROUPS:
            raise unknown_name("benchmark group", name, GROUPS)
    path = Path(results) / "bench.json"
    stored = _stored(path)
    measured: list[Group] = []
    for name in tqdm(only or GROUPS, desc="benchmarks", unit="group"):
        module = importlib.import_module(f"prefvlm_core.bench.{name}")
        measured.append(module.measure(**(module.QUICK if quick else {})))
        if not quick:
            stored[name] = dataclasses.asdict(measured[-1])
            write_atomically(path, (json.dumps(stored, indent=1, ensure_ascii=False) + "\n").encode())
    return table(measured)


def table(groups: Sequence[Group]) -> str:
    """One line per measurement, followed by the sentences of each group."""
    lines = [f"{'':<50}{'ours':>10}{'other':>10}{'ratio':>9}  {'unit':<18}{'other is':<33}wanted"]
    for group in groups:
        for row in group.rows:
            lines.append(line(row))
        lines += [*group.skipped, group.limit, ""]
    return "\n".join(lines[:-1])


def line(row: Measurement) -> str:
    """A measurement as a line of the table."""
    other, ratio = ("" if value is None else f"{value:.4g}" for value in (row.other, row.ratio))
    numbers = f"{row.name:<50}{row.ours:>10.4g}{other:>10}{ratio:>9}"
    return f"{numbers}  {row.unit:<18}{row.against:<33}{row.target}".rstrip()


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except UNREADABLE as error:
        raise PrefVLMError(f"{path} is damaged ({error}); restore or remove it.") from error
    if not isinstance(stored, dict):
        raise PrefVLMError(f"{path} is damaged (it holds no groups); restore or remove it.")
    return stored
