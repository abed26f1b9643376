"""Every vision-language model at hand, judged on the same beds; stored, since that takes minutes to hours.

results/<profile>/backbones/
    models.csv    one row per model: its weights, size and speed, or why it could not be judged
    labels.csv    how good its labels are, one row per model, bed, reader and number of labels (`vlm_quality.judge`)
    films.csv     how its values are ordered, one row per model and expert film (`vlm_quality.value_orders`)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from prefvlm_core.analysis.beds import Bed, expert_films, kept_replays, mixed_bed, plan_of, replay_bed
from prefvlm_core.analysis.vlm_quality import KINDS, STATE, judge, judge_states, set_exam, value_orders
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.run import Execution
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import UNREADABLE, write_atomically
from prefvlm_core.runs.rows import csv_bytes
from prefvlm_core.vlm import VLMS, VisionLanguageModel, load
from prefvlm_core.vlm.embedding import seconds_per_frame

_COLUMNS = {
    "models": ("model", "fingerprint", "frame_size", "parameters", "milliseconds", "missing"),
    "labels": (
        *("model", "kind", "task", "draw", "reader", "labels", *KINDS, "error_correlation", "episode_order"),
        *("calibration_error", "scaled_calibration_error"),
    ),
    "films": ("model", "task", "draw", "value_order"),
}
_TYPES = {"missing": object, "draw": str}
_TIMED_FRAMES = 64


class BackboneResults(NamedTuple):
    """What is stored of the models of a profile: the tables that the module's docstring names."""

    models: pd.DataFrame
    labels: pd.DataFrame
    films: pd.DataFrame


def backbone_results(profile: str, execution: Execution, measure: bool) -> BackboneResults:
    """What is stored in `results/<profile>/backbones`.

    With `measure`, every model at hand whose present weights were not judged yet is judged first; the runs whose
    replays that needs are trained where they are missing. Raises `PrefVLMError` where no model was judged, and for
    damaged files.
    """
    folder = Path(execution.results) / profile / "backbones"
    stored = _read(folder)
    if measure:
        found, missing = models_at_hand()
        judged = set(stored.models["fingerprint"])
        new = {name: model for name, model in found.items() if model.fingerprint not in judged}
        unknown = {name: why for name, why in missing.items() if name not in set(stored.models["model"])}
        if new or unknown:
            _write(folder, _merged(stored, judge_models(new, unknown, profile, execution)))
        stored = _read(folder)
    if stored.models.empty:
        raise PrefVLMError(
            f"No model was judged in profile {profile}: there is no {folder}; judge those at hand with "
            "measure = True in notebooks/09_vlm_backbones.ipynb."
        )
    return stored


def models_at_hand() -> tuple[dict[str, VisionLanguageModel], dict[str, str]]:
    """Every model of `VLMS` that can be loaded here, and for every other one why it cannot.

    A family such as "open_clip:" has no weights of its own; to have one of its members judged, register its full name.
    """
    found, missing = {}, {}
    for name in (name for name in VLMS if not name.endswith(":")):
        try:
            found[name] = load(name)
        except PrefVLMError as error:
            missing[name] = str(error)
    return found, missing


def judge_models(
    models: Mapping[str, VisionLanguageModel], missing: Mapping[str, str], profile: str, execution: Execution
) -> BackboneResults:
    """Judge models on all beds of a profile; `missing` maps others to why they are not there."""
    labels: list[dict[str, Any]] = []
    films: list[dict[str, Any]] = []
    about: list[dict[str, Any]] = [{"model": name, "missing": why} for name, why in missing.items()]
    about += [{"model": name} | _weights(model) for name, model in models.items()]
    replays, plan = kept_replays(profile, execution) if models else [], plan_of(profile)
    draws = list(itertools.product(plan.tasks, range(plan.draws)))
    beds = len(replays) + len(draws)
    for size in sorted({model.frame_size for model in models.values()}):
        of_size = {name: model for name, model in models.items() if model.frame_size == size}
        for bed in tqdm(_beds(profile, replays, size), desc=f"pairs at {size} pixels", unit="bed", total=beds):
            exam = set_exam(bed)
            answers = {name: judge(model, exam) for name, model in of_size.items()} | {STATE: judge_states(exam)}
            on = {"kind": bed.kind, "task": bed.task, "draw": bed.draw}
            labels += [on | {"model": name} | row for name, rows in answers.items() for row in rows]
        for task, draw in tqdm(draws, desc=f"films at {size} pixels", unit="draw"):
            shown = expert_films(task, draw, plan.films, size)
            for name, model in of_size.items():
                same = {"model": name, "task": task, "draw": draw}
                films += [same | {"value_order": order} for order in value_orders(model, shown)]
    tables = zip((about, labels, films), _COLUMNS.values(), strict=True)
    return BackboneResults(*(pd.DataFrame(rows, columns=columns).round(4) for rows, columns in tables))


def _beds(profile: str, replays: list[RunDirectory], size: int) -> Iterator[Bed]:
    """One after the other, since they are large."""
    yield from (replay_bed(directory, size) for directory in replays)
    plan = plan_of(profile)
    yield from (mixed_bed(task, draw, plan.episodes, size) for task in plan.tasks for draw in range(plan.draws))


def _weights(model: VisionLanguageModel) -> dict[str, Any]:
    """Fingerprint, frame size, number of parameters, and milliseconds of processor time (not the clock's) per frame."""
    parameters = sum(values.numel() for network in _networks(model) for values in network.parameters())
    return {
        "fingerprint": model.fingerprint,
        "frame_size": model.frame_size,
        "parameters": parameters,
        "milliseconds": 1000 * seconds_per_frame(model, _TIMED_FRAMES),
    }


def _networks(model: object) -> Iterator[nn.Module]:
    """The networks of a model, and those of a model within it."""
    for value in vars(model).values():
        if isinstance(value, nn.Module):
            yield value
        elif hasattr(value, "encode_image"):
            yield from _networks(value)


def _merged(stored: BackboneResults, new: BackboneResults) -> BackboneResults:
    """`stored` with every row of a model in `new` replaced; models are in the order of `VLMS`, the state probe last."""
    names, order = {*new.models["model"], *new.labels["model"]}, [*VLMS]
    last = {STATE: len(order) + 1}  # behind models that are registered elsewhere
    tables = []
    for old, fresh in zip(stored, new, strict=True):
        rows = pd.concat([table for table in (old[~old["model"].isin(names)], fresh) if len(table)] or [old])
        place = rows["model"].map(lambda name: order.index(name) if name in order else last.get(name, len(order)))
        tables.append(rows.iloc[np.argsort(place, kind="stable")])
    return BackboneResults(*tables)


def _write(folder: Path, results: BackboneResults) -> None:
    """Store the tables; the models, which say what was judged, come last."""
    for name in reversed(_COLUMNS):
        rows = getattr(results, name).to_dict("records")
        write_atomically(folder / f"{name}.csv", csv_bytes(_COLUMNS[name], rows))


def _read(folder: Path) -> BackboneResults:
    """Inverse of `_write`; empty tables where there are no files."""
    tables = []
    for name, columns in _COLUMNS.items():
        path = folder / f"{name}.csv"
        try:
            table = pd.read_csv(path, dtype=_TYPES) if path.exists() else pd.DataFrame(columns=columns)
        except UNREADABLE:
            table = pd.DataFrame()
        if list(table) != list(columns):
            raise PrefVLMError(f"{path} is damaged; restore it, or remove its folder to judge the models again.")
        tables.append(table)
    return BackboneResults(*tables)
