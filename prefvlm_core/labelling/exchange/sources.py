"""Where preference data comes from: the label queue, and the folder of a run that kept what it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray
from sqlalchemy import select
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frame_steps import frame_steps
from prefvlm_core.labelling.clips import CLIP_SIZE, ClipMaker, decode, fitted
from prefvlm_core.labelling.database import ANSWERS, PAIRS, Database
from prefvlm_core.labelling.exchange.data import SCRIPT, VLM, PreferenceData, table_of
from prefvlm_core.labelling.films import strip
from prefvlm_core.preferences.teachers import HUMAN
from prefvlm_core.runs.directory import REPLAY_FILE, RunDirectory
from prefvlm_core.runs.published import seed_and_hash
from prefvlm_core.runs.stored import find_folders
from prefvlm_core.vlm.texts import task_text

SIDES = ("first", "second")


def data_of_queue(database: Database, run_id: str = "", results: str | Path = "", size: int = 0) -> PreferenceData:
    """Every pair of a queue that somebody has answered or that the VLM has labelled, with all of its labels.

    Args:
        database: That of the queue.
        run_id: Only this run; "" for all.
        results: Folder of the runs: observations and actions come from those that were trained with keep_replay.
        size: Height and width of the frames, pixels; 0: as the queue holds them.

    Raises:
        PrefVLMError: If there is no such pair, or if the queue has no clip of one, which JSONL files do not hold.
    """
    wanted = PAIRS.c.run_id == run_id if run_id else PAIRS.c.id.is_not(None)
    answers = select(ANSWERS).join(PAIRS).where(wanted, ANSWERS.c.choice.is_not(None)).order_by(ANSWERS.c.id)
    given: dict[int, list[dict[str, Any]]] = {}
    with database.transaction(reading=True) as connection:
        stored = [dict(row._mapping) for row in connection.execute(select(PAIRS).where(wanted).order_by(PAIRS.c.id))]
        for answer in connection.execute(answers):
            given.setdefault(answer.pair_id, []).append(dict(answer._mapping))
    labelled = [row for row in stored if row["id"] in given or row["vlm_label"] is not None]
    if not labelled:
        of = f" of run {run_id}" if run_id else ""
        raise PrefVLMError(f"{database.name} holds no labels{of}, so nothing was exported.")
    replays = _Replays(results)
    clips: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    strips: dict[str, bytes] = {}
    for row in labelled:
        name = f"{row['run_id']}/{row['session']}/{row['pair']}"
        if row["clip"] is None:
            raise PrefVLMError(f"{database.name} has no clip of pair {name}, since it was imported from a JSONL file.")
        frames = decode(row["clip"], row["frames"])
        for number, side in enumerate(SIDES):
            shown = fitted(frames[:, number], size) if size else frames[:, number]
            strips[f"{name}/{side}"] = strip(shown)
            clip = {"clip": f"{name}/{side}", "frames": len(shown), "first": row[side]}
            clips.append(clip | {"length": row["length"]} | replays.steps(row["run_id"], row[side], row["length"]))
        labels += [{"pair": name} | label for label in _labels_of(row, given.get(row["id"], []))]
    return PreferenceData(
        _numbered(clips), table_of("pairs", map(_pair_of, labelled)), table_of("labels", labels), strips
    )


def _pair_of(row: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{row['run_id']}/{row['session']}/{row['pair']}"
    clips = {f"{side}_clip": f"{name}/{side}" for side in SIDES}
    about = {column: row[column] for column in ("task", "text", "run_id", "session", "truth")}
    return {"pair": name, "number": row["pair"], "seed": _seed_of(row["run_id"])} | clips | about


def _labels_of(row: Mapping[str, Any], answers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The VLM's label of a pair in the queue, and those of people."""
    if row["vlm_label"] is not None:
        filtered = {"divergence": row["divergence"], "partition": row["partition"]}
        yield {"label": row["vlm_label"], "teacher": VLM} | filtered
    for answer in answers:
        teacher = SCRIPT if answer["annotator"] == SCRIPT else HUMAN
        flags = {name: bool(answer[name]) for name in ("swapped", "saw_guess")}
        about = {name: answer[name] for name in ("label", "annotator", "purpose", "seconds")}
        yield about | flags | {"teacher": teacher, "answered_at": datetime.fromtimestamp(answer["answered_at"], UTC)}


def _seed_of(run_id: str) -> int | None:
    """The seed in the name of a run; None for what is no run's name, as of people's own clips."""
    try:
        return seed_and_hash(run_id.split("/")[3])[0]
    except (IndexError, ValueError):
        return None


class _Replays:
    """Observations and actions of the segments of runs below `results`, as far as those kept them."""

    def __init__(self, results: str | Path) -> None:
        self._folders = {}
        if results and Path(results).is_dir():
            self._folders = {folder.run_id: folder for folder in find_folders(results)}
        self._replays: dict[str, dict[str, Tensor]] = {}

    def steps(self, run_id: str, first: int, length: int) -> dict[str, Any]:
        folder = self._folders.get(run_id)
        if folder is None or not (folder.path / REPLAY_FILE).exists():
            return {}
        if run_id not in self._replays:
            self._replays[run_id] = folder.read_replay()
        return _steps_of(self._replays[run_id], folder.config, first, length)


def _steps_of(replay: Mapping[str, Tensor], config: RunConfig, first: int, length: int) -> dict[str, Any]:
    """The observation before each step of a segment, and the actions."""
    episode, within = divmod(first, config.horizon)
    observations = replay["observations"][episode, within : within + length]
    return {"observations": observations.tolist(), "actions": replay["actions"][first : first + length].tolist()}


def data_of_run(directory: RunDirectory, size: int = 0) -> PreferenceData:
    """Every label of a run, the VLM's and scripted teachers' too, in the order in which they were given.

    Args:
        directory: A run that was trained with keep_replay, from which frames are rendered again.
        size: Height and width of the frames, pixels; 0: as people see them.

    Raises:
        PrefVLMError: If the run kept nothing or has no labels, and if frames cannot be rendered.
    """
    config, replay, log = directory.config, directory.read_replay(), directory.labels()
    if log is None or log.empty:
        raise PrefVLMError(f"{directory.run_id} has no labels, so nothing was exported.")
    pairs: dict[str, dict[str, Any]] = {}
    labels: list[dict[str, Any]] = []
    for row in log.to_dict("records"):
        name = f"{directory.run_id}/{row['first']}-{row['second']}"
        about = {"task": config.task, "text": task_text(config.task), "run_id": directory.run_id, "seed": config.seed}
        about |= {f"{side}_clip": f"{directory.run_id}/{row[side]}" for side in SIDES}
        about |= {"session": row["session"], "number": len(pairs), "truth": row["truth"]}
        pairs.setdefault(name, {"pair": name} | about)
        labels.append({"pair": name} | _logged(row, config))
    clips: list[dict[str, Any]] = []
    strips: dict[str, bytes] = {}
    maker, length = ClipMaker(size or CLIP_SIZE), config.feedback.segment_length
    for first in sorted({int(row[side]) for row in log.to_dict("records") for side in SIDES}):
        name, frames = f"{directory.run_id}/{first}", _rendered(config, replay, first, maker)
        strips[name] = strip(frames)
        clip = {"clip": name, "frames": len(frames), "first": first, "length": length}
        clips.append(clip | _steps_of(replay, config, first, length))
    return PreferenceData(_numbered(clips), table_of("pairs", pairs.values()), table_of("labels", labels), strips)


def _logged(row: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """A row of the label log, without its pair."""
    if row["teacher"] != "vlm":
        return {"label": row["label"], "teacher": config.feedback.teacher, "purpose": "label"}
    filtered = {"divergence": row["divergence"], "partition": row["partition"]}
    return {"label": row["label"], "teacher": VLM, "annotator": config.vlm.model} | filtered


def _rendered(config: RunConfig, replay: Mapping[str, Tensor], first: int, maker: ClipMaker) -> NDArray[np.uint8]:
    """The frames (F, size, size, 3) of the segment at `first`: as for people, what each action leads to."""
    steps = frame_steps(np.array(first), config.feedback.segment_length, stride=1)
    episode, within = divmod(first, config.horizon)
    snapshots = replay["snapshots"].numpy()[episode, steps - first + within + 1]
    scene = replay["scenes"].numpy()[episode]
    return maker.frames(config.task, snapshots[None], scene[None], config.view.perturbation(config.seed))[:, 0]


def _numbered(rows: list[dict[str, Any]]) -> pyarrow.Table:
    """The table of clips, each with the file that `write_folder` gives it."""
    return table_of("clips", [row | {"file": f"clips/{number:06d}.webp"} for number, row in enumerate(rows)])
