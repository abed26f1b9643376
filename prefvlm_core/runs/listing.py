"""Stored runs as `prefvlm runs` lists them: one line each, with what tells it from the others."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefvlm_core.config.run import IDENTITY, flatten
from prefvlm_core.runs.stored import StoredRun


def status_of(run: StoredRun) -> str:
    """finished, running (begun and not finished, whether or not it is being trained now), not-started or retired."""
    return "retired" if run.retired else run.manifest.get("status", "not-started")


def run_lines(runs: Sequence[StoredRun], arms: Mapping[str, str] | None = None) -> Iterator[str]:
    """A header, and on each run its status, length, last success rate, name, and `telling_fields`.

    The length is given in actions and in environment steps. `arms` are names of arms by run_id, shown if given.
    """
    told = telling_fields(runs)
    rows = [("run", *(["arm"] if arms else []), "differs in")]
    rows += [(run.run_id, *([arms.get(run.run_id, "")] if arms else []), told[run.run_id]) for run in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = [f"{'status':<12}{'actions':>9}{'env steps':>12}{'success':>9}", *map(_numbers, runs)]
    for start, row in zip(numbers, rows, strict=True):
        yield "  ".join([start, *(cell.ljust(width) for cell, width in zip(row, widths, strict=True))]).rstrip()


def _numbers(run: StoredRun) -> str:
    last = run.last_evaluation
    actions, success = (round(last["step"]), f"{last.get('success', math.nan):.2f}") if last else (0, "-")
    return f"{status_of(run):<12}{actions:>9}{actions * run.config.action_repeat:>12}{success:>9}"


def telling_fields(runs: Sequence[StoredRun]) -> dict[str, str]:
    """For each run by its name, in which fields it differs from most of the runs of its profile, task and method.

    Only as many fields are looked at as it takes to tell those runs apart: of fields that vary together, as a budget
    and what follows from it, the first one of the config. Seeds are left out, since the name holds them.
    """
    groups: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for run in runs:
        config = run.config
        fields = {name: value for name, value in flatten(dataclasses.asdict(config)).items() if name not in IDENTITY}
        groups.setdefault((config.profile, config.task, config.method), {})[run.run_id] = fields | dict(run.retired)
    return {run_id: text for group in groups.values() for run_id, text in _told_apart(group).items()}


def _told_apart(group: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for fields in group.values() for name in fields)
    values = {name: [fields.get(name) for fields in group.values()] for name in names}  # None: a retired field's today
    chosen = [name for name in names if len(set(values[name])) > 1]

    def variants(names: Sequence[str]) -> int:
        return len(set(zip(*(values[name] for name in names), strict=True)))

    for name in reversed(chosen.copy()):
        others = [other for other in chosen if other != name]
        if variants(others) == variants(chosen):
            chosen = others
    usual = {name: collections.Counter(values[name]).most_common(1)[0][0] for name in chosen}
    return {
        run_id: ", ".join(
            f"{name}={_text(fields[name])}" for name in chosen if name in fields and fields[name] != usual[name]
        )
        for run_id, fields in group.items()
    }


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
