"""The plain form of preference data: three tables and a folder of pictures.

<folder>/clips.parquet  pairs.parquet  labels.parquet  clips/000000.webp …
"""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from prefvlm_core.common.errors import PrefVLMError, check_path
from prefvlm_core.labelling.clips import CLIP_SIZE, MOST_FRAMES, fitted, shown_steps
from prefvlm_core.labelling.exchange.data import SCHEMAS, PreferenceData, table_of, typed
from prefvlm_core.labelling.films import check_frames, frames_of, read_film, strip


def write_folder(data: PreferenceData, folder: Path) -> None:
    """Write the plain form. Equal data gives equal bytes.

    Raises `PrefVLMError` if there is such a folder already or it cannot be written.
    """
    with new_folder(folder) as made:
        fill_folder(data, made)


def fill_folder(data: PreferenceData, folder: Path) -> None:
    """Write the plain form into a folder that is there."""
    (folder / "clips").mkdir()
    rows = data.clips.to_pylist()
    for number, row in enumerate(rows):
        row["file"] = f"clips/{number:06d}.webp"
        (folder / row["file"]).write_bytes(data.strips[row["clip"]])
    for name, table in (("clips", table_of("clips", rows)), ("pairs", data.pairs), ("labels", data.labels)):
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which appears under its name only when it is complete.

    Raises `PrefVLMError` if there is such a folder already, or if the disk refuses what is written into it.
    """
    check_path("The folder to export to", folder)
    if folder.exists():
        raise exists_already(folder)
    made = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        made.mkdir(parents=True)
        yield made
        made.rename(folder)
    except OSError as error:
        raise PrefVLMError(f"Cannot write {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def exists_already(folder: Path) -> PrefVLMError:
    """What to say to who names a folder to export to that is there."""
    return PrefVLMError(f"{folder} exists already, and an export overwrites nothing; name a new folder.")


def read_folder(folder: Path) -> PreferenceData:
    """Read the plain form, written by `write_folder` or by anybody else; see docs/howto/exchange_labels.md.

    Of a film longer than `MOST_FRAMES` so many frames are kept, evenly spaced, and larger ones are scaled down to
    `CLIP_SIZE` pixels; a strip stays as it is. Raises `PrefVLMError`, naming file, row and column, for anything that is
    not as described.
    """
    if not folder.is_dir():
        raise PrefVLMError(f"There is no folder {folder}; it should hold the tables clips, pairs and labels.")
    tables = {name: _read_table(folder, name) for name in SCHEMAS}
    strips: dict[str, bytes] = {}
    rows = tables["clips"].to_pylist()
    for row in rows:
        strips[row["clip"]] = _read_clip(folder, row)
    return PreferenceData(table_of("clips", rows), tables["pairs"], tables["labels"], strips)


def _read_table(folder: Path, name: str) -> pyarrow.Table:
    parquet, csv = folder / f"{name}.parquet", folder / f"{name}.csv"
    path = parquet if parquet.exists() else csv
    if not path.exists():
        if name == "labels":  # pairs that wait for their labels
            return table_of(name, [])
        raise PrefVLMError(f"{folder} holds neither {parquet.name} nor {csv.name}.")
    try:
        if path is parquet:
            return typed(name, pyarrow.parquet.read_table(path), str(path))
        types = {field.name: field.type for field in SCHEMAS[name] if not pyarrow.types.is_list(field.type)}
        options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
        return typed(name, pyarrow.csv.read_csv(path, convert_options=options), str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise PrefVLMError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error


def _read_clip(folder: Path, row: dict[str, Any]) -> bytes:
    """The strip of the film that a row of clips names. It completes the row by what the file says."""
    path = folder / row["file"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PrefVLMError(f"The file of clip '{row['clip']}' is {row['file']}, which lies outside {folder}.")
    if not path.exists():
        raise PrefVLMError(f"There is no {path}, which clip '{row['clip']}' names as its file.")
    if path.suffix == ".npz":
        frames = _read_arrays(path, row)
    elif path.is_dir():
        pictures = [read_film(file)[0] for file in sorted(path.iterdir())]
        if len({picture.shape for picture in pictures}) != 1:
            raise PrefVLMError(f"{path} does not hold pictures of one size.")
        frames = np.stack(pictures)
    elif row["frames"] is not None:
        content = path.read_bytes()
        frames_of(content, row["frames"], str(path))
        return content
    else:
        frames = read_film(path)
    kept = frames[shown_steps(len(frames), min(len(frames), MOST_FRAMES))]
    row["frames"] = len(kept)
    return strip(kept if max(kept.shape[1:3]) <= CLIP_SIZE else fitted(kept, CLIP_SIZE))


def _read_arrays(path: Path, row: dict[str, Any]) -> NDArray[np.uint8]:
    """The frames in an .npz file; its observations and actions go into the row."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            frames = check_frames(arrays["frames"] if "frames" in arrays else None, f"frames in {path}")
            for name in {"observations", "actions"} & set(arrays):
                row[name] = np.asarray(arrays[name], np.float32).tolist()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise error if isinstance(error, PrefVLMError) else PrefVLMError(f"{path} cannot be read: {error}.") from error
    return frames
