"""Preference data as a LeRobot dataset of format v3.0, which LeRobot 0.4.4 was tried with.

Each clip is an episode and each of its frames a row, with the observation and the action of the step that it shows.
Pictures are in the parquet file itself. What LeRobot has no place for is in `meta/preferences.parquet`: one row per
label, with the episodes of the pair. docs/howto/exchange_labels.md describes both.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.clips import shown_steps
from prefvlm_core.labelling.exchange.data import SCHEMAS, PreferenceData
from prefvlm_core.labelling.exchange.folder import new_folder
from prefvlm_core.labelling.exchange.posting import TASK

VERSION = "v3.0"
FRAMES_PER_SECOND = 10
"""What the dataset says of every clip, however many steps lie between its frames."""
IMAGE, STATE, ACTION = "observation.images.view", "observation.state", "action"
_DATA, _EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
_COUNTERS = {"frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
_STORED_IMAGE = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def write_lerobot(data: PreferenceData, folder: Path) -> None:
    """Write a LeRobot dataset.

    Raises `PrefVLMError` if there is such a folder already or it cannot be written, and if clips are of different
    sizes or only some of them hold observations and actions.
    """
    clips = data.clips.to_pylist()
    if not clips:
        raise PrefVLMError("There are no clips, so no dataset was written.")
    tasks = _tasks(data)
    texts = list(dict.fromkeys(tasks.values()))
    features = {name: _Feature() for name in _values(data, clips[0])}
    episodes: list[dict[str, Any]] = []
    first = 0
    with new_folder(folder) as made, contextlib.ExitStack() as stack:
        for path in (_DATA, _EPISODES):
            (made / path).parent.mkdir(parents=True)
        writer: pyarrow.parquet.ParquetWriter | None = None
        for number, clip in enumerate(clips):
            values = _values(data, clip)
            if values.keys() != features.keys():
                raise PrefVLMError(f"Clip '{clip['clip']}' and those before it differ in whether they hold actions.")
            for name, rows in values.items():
                features[name].add(rows, clip["clip"])
            text = tasks[clip["clip"]]
            table = _episode(values, number, first, texts.index(text))
            writer = writer or stack.enter_context(pyarrow.parquet.ParquetWriter(made / _DATA, table.schema))
            writer.write_table(table)
            episodes.append(_about(clip, number, first, len(table), text))
            first += len(table)
        stack.close()
        _write_meta(data, made, features, episodes, texts)


def _tasks(data: PreferenceData) -> dict[str, str]:
    """By clip, the text of its task, which LeRobot calls the task."""
    tasks = dict.fromkeys(data.clips["clip"].to_pylist(), TASK)
    for pair in data.pairs.to_pylist():
        tasks |= dict.fromkeys((pair["first_clip"], pair["second_clip"]), pair["text"] or pair["task"] or TASK)
    return tasks


def _values(data: PreferenceData, clip: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The frames of a clip and, where it holds both, the observations and actions of the steps that they show."""
    values: dict[str, NDArray[Any]] = {IMAGE: data.frames(clip["clip"])}
    if clip["observations"] and clip["actions"]:
        for column, name in ((STATE, "observations"), (ACTION, "actions")):
            steps = np.array(clip[name], np.float32)
            values[column] = steps[shown_steps(len(steps), len(values[IMAGE]))]
    return values


def _episode(values: dict[str, NDArray[Any]], number: int, first: int, task: int) -> pyarrow.Table:
    """The rows of an episode."""
    count = len(values[IMAGE])
    pictures = [{"bytes": _lossless(frame), "path": None} for frame in values[IMAGE]]
    columns: dict[str, pyarrow.Array] = {IMAGE: pyarrow.array(pictures, _STORED_IMAGE)}
    for name in values.keys() - {IMAGE}:
        kind = pyarrow.list_(pyarrow.float32(), values[name].shape[1])
        columns[name] = pyarrow.array(list(values[name]), kind)
    columns["timestamp"] = pyarrow.array(np.arange(count, dtype=np.float32) / FRAMES_PER_SECOND)
    counters = np.arange(count), np.full(count, number), first + np.arange(count), np.full(count, task)
    columns |= {name: pyarrow.array(counter) for name, counter in zip(_COUNTERS, counters, strict=True)}
    return pyarrow.table(dict(sorted(columns.items())))


def _lossless(frame: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "WEBP", lossless=True, method=2)
    return file.getvalue()


def _about(clip: dict[str, Any], number: int, first: int, count: int, text: str) -> dict[str, Any]:
    """The row of an episode in meta/episodes; the clip's name is a column of our own."""
    place = {f"{kind}/{part}_index": 0 for kind in ("data", "meta/episodes") for part in ("chunk", "file")}
    span = {"length": count, "dataset_from_index": first, "dataset_to_index": first + count}
    return {"episode_index": number, "tasks": [text]} | span | place | {"clip": clip["clip"]}


class _Feature:
    """What the dataset says of one of its columns: its shape, and statistics over all rows, images by channel and in
    [0, 1]."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._parts: list[tuple[Any, ...]] = []

    def add(self, rows: NDArray[Any], clip: str) -> None:
        """Take the rows (F, ...) of an episode into account. Raises `PrefVLMError` if they have another shape than
        those before them."""
        if rows.shape[1:] != (self._shape or rows.shape[1:]):
            raise PrefVLMError(f"Clip '{clip}' has values {rows.shape[1:]}, but those before it {self._shape}.")
        self._shape = rows.shape[1:]
        values = rows.reshape(-1, rows.shape[-1]).astype(np.float64) / (255 if rows.ndim == 4 else 1)
        sums = values.sum(0), np.square(values).sum(0)
        self._parts.append((len(rows), len(values), values.min(0), values.max(0), *sums))

    def description(self, name: str) -> dict[str, Any]:
        """The feature's entry in meta/info.json."""
        assert self._shape is not None
        if name == IMAGE:
            return _described("image", self._shape, ["height", "width", "channels"])
        return _described("float32", self._shape)

    def statistics(self) -> dict[str, Any]:
        """The feature's entry in meta/stats.json."""
        rows, counts, least, most, sums, squares = (np.array(part) for part in zip(*self._parts, strict=True))
        mean = sums.sum(0) / counts.sum()
        deviation = np.sqrt(np.maximum(squares.sum(0) / counts.sum() - mean**2, 0))
        values = {"min": least.min(0), "max": most.max(0), "mean": mean, "std": deviation}
        shape = (-1, 1, 1) if self._shape is not None and len(self._shape) == 3 else (-1,)
        return {name: value.reshape(shape).tolist() for name, value in values.items()} | {"count": [int(rows.sum())]}


def _write_meta(
    data: PreferenceData,
    folder: Path,
    features: dict[str, _Feature],
    episodes: list[dict[str, Any]],
    texts: list[str],
) -> None:
    described = {name: of.description(name) for name, of in features.items()}
    counters = {"timestamp": "float32", **_COUNTERS}
    info = {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": episodes[-1]["dataset_to_index"],
        "total_tasks": len(texts),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FRAMES_PER_SECOND,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": described | {name: _described(kind, (1,)) for name, kind in counters.items()},
    }
    for name, values in (("info", info), ("stats", {name: of.statistics() for name, of in features.items()})):
        (folder / "meta" / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(episodes), folder / _EPISODES)
    named = pandas.DataFrame({"task_index": range(len(texts))}, index=pandas.Index(texts, name="task"))
    named.to_parquet(folder / "meta" / "tasks.parquet")
    pyarrow.parquet.write_table(_preferences(data), folder / "meta" / "preferences.parquet")


def _described(kind: str, shape: tuple[int, ...], names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "names": names}


def _preferences(data: PreferenceData) -> pyarrow.Table:
    """One row per label: the pair's columns, the episodes of its clips, and the label's columns."""
    episodes = {clip: number for number, clip in enumerate(data.clips["clip"].to_pylist())}
    pairs = {pair["pair"]: pair for pair in data.pairs.to_pylist()}
    for pair in pairs.values():
        pair |= {f"{side}_episode": episodes[pair[f"{side}_clip"]] for side in ("first", "second")}
    fields = [pyarrow.field(f"{side}_episode", pyarrow.int64()) for side in ("first", "second")]
    fields = [*SCHEMAS["pairs"], *fields, *(field for field in SCHEMAS["labels"] if field.name != "pair")]
    rows = [pairs[label["pair"]] | label for label in data.labels.to_pylist()]
    return pyarrow.Table.from_pylist(rows, pyarrow.schema(fields))
