"""Run directories: where a run's config, metrics, manifest and weights live, and how they get there unharmed.

    results/<profile>/<task>/<method>/<seed>-<hash>/
        config.json  metrics.csv  labels.csv  manifest.json  weights.safetensors  adapters.safetensors
    results/<profile>/fleets/<hash>/{checkpoint.safetensors, replay-<steps>.safetensors}     (only while a fleet is
    unfinished)

Every file is written to a temporary sibling, flushed to disk and renamed, so that a reader, or a process killed at any
moment, meets the old file or the new one. Tensors are safetensors, everything else JSON or CSV: nothing here can carry
code.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas
import safetensors
import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import StoredConfig, read_stored_config
from prefvlm_core.config.run import RunConfig

ADAPTERS_FILE = "adapters.safetensors"
FINISHED = "finished"
RUNNING = "running"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, all or nothing. Raises `PrefVLMError` where the folder cannot be written or the disk
    is full."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise PrefVLMError(
            f"Cannot write {path}: {error.strerror}. What was stored before is untouched; free some space or choose "
            "another results folder."
        ) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Store `values` readably, all or nothing."""
    write_atomically(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


class RunDirectory:
    """The folder of one run below `results`."""

    def __init__(self, results: str | Path, config: RunConfig) -> None:
        self.config = config
        self.path = Path(results) / config.run_id

    def open(self) -> None:
        """Create the folder, or check that it holds this very run.

        Raises `PrefVLMError` where a stored config has another version or another content than its folder's name says.
        """
        path = self.path / "config.json"
        if not path.exists():
            write_atomically(path, self.config.to_json().encode() + b"\n")
        elif (stored := read_config(path)).retired or stored.config != self.config:
            raise _misplaced(path)

    @property
    def manifest(self) -> dict[str, Any]:
        """The stored manifest; empty where there is none."""
        path = self.path / "manifest.json"
        try:
            return json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise _damaged(path, error) from error

    @property
    def finished(self) -> bool:
        """Whether the run is complete; such a run is never touched again."""
        return self.manifest.get("status") == FINISHED

    def write_manifest(self, values: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        write_json(self.path / "manifest.json", values)

    def read_metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv, one per evaluation; none where there is no file."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        try:
            with open(path, newline="") as file:
                return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise _damaged(path, error) from error

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace metrics.csv. Columns are those of all rows, in order of appearance; nan is written as an empty
        field."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_shortest(row.get(name, math.nan)) for name in columns])
        write_atomically(self.path / "metrics.csv", text.getvalue().encode())

    def write_labels(self, labels: pandas.DataFrame) -> None:
        """Replace labels.csv, see `label_log`."""
        text = labels.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(self.path / "labels.csv", text.encode())

    def write_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Store the trained networks."""
        write_tensors(self.path / "weights.safetensors", tensors, {"run_id": self.config.run_id})

    def write_session_reward(self, session: int, values: Tensor) -> None:
        """Store the reward ensemble, parameters (members, P), as a session left it."""
        write_tensors(self.path / f"reward-{session:03d}.safetensors", {"reward": values}, {})

    def read_session_rewards(self) -> dict[int, Tensor]:
        """Inverse of `write_session_reward`: session -> parameters, as far as there are."""
        paths = sorted(self.path.glob("reward-*.safetensors"))
        return {int(path.stem.removeprefix("reward-")): read_tensors(path)[0]["reward"] for path in paths}


def _misplaced(path: Path) -> PrefVLMError:
    return PrefVLMError(f"{path} does not hold the config its folder is named after; move the folder away.")


def _damaged(path: Path, error: Exception) -> PrefVLMError:
    return PrefVLMError(f"{path} is damaged ({error}); restore it, or remove its folder to train the run again.")


def _shortest(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def read_config(path: Path) -> StoredConfig:
    """The config stored at `path`. Raises `PrefVLMError` naming the file where it cannot be read."""
    try:
        return read_stored_config(path.read_text())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrefVLMError(f"{path} cannot be read: {error}") from error


@contextmanager
def lock_runs(directories: Sequence[RunDirectory]) -> Iterator[None]:
    """Hold every run for this process. Raises `PrefVLMError` where another process is training one of them."""
    with ExitStack() as stack:
        for directory in directories:
            write_probe(directory.path)
            try:
                stack.enter_context(FileLock(directory.path / ".lock", timeout=0))
            except Timeout as error:
                raise PrefVLMError(f"{directory.path} is being trained by another process; wait for it.") from error
        yield


def write_probe(path: Path) -> None:
    """Create the folder `path`. Raises `PrefVLMError` where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrefVLMError(f"Cannot write to the results folder {path}: {error.strerror}.") from error
    if not os.access(path, os.W_OK):
        raise PrefVLMError(f"Cannot write to the results folder {path}: permission denied.")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Store tensors and text, all or nothing."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(contiguous, dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Inverse of `write_tensors`. Raises `PrefVLMError` where the file is damaged or is none of ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise PrefVLMError(
            f"{path} is damaged or not a safetensors file ({error}); remove it to start its runs again."
        ) from error


class FleetCheckpoint:
    """State of an unfinished fleet: one small file rewritten at each checkpoint, and the replay in pieces that never
    change."""

    def __init__(self, results: str | Path, run_ids: Sequence[str]) -> None:
        name = hashlib.sha256("\n".join(run_ids).encode()).hexdigest()[:12]
        self.path = Path(results) / run_ids[0].split("/")[0] / "fleets" / name
        self.file = self.path / "checkpoint.safetensors"
        self.run_ids = list(run_ids)
        self.pieces: list[str] = []

    def save(
        self, step: int, tensors: Mapping[str, Tensor], replay_piece: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> None:
        """Commit the state at `step`; `replay_piece` is what the replay gained since the last checkpoint (may be
        empty)."""
        if replay_piece:
            self.pieces.append(f"replay-{step:09d}.safetensors")
            write_tensors(self.path / self.pieces[-1], replay_piece, {})
        metadata = {"step": str(step), "run_ids": json.dumps(self.run_ids), "state": json.dumps(state)}
        metadata["pieces"] = json.dumps(self.pieces)  # a piece written just before a kill is in no checkpoint
        write_tensors(self.file, tensors, metadata)

    def load(self) -> tuple[int, dict[str, Tensor], list[dict[str, Tensor]], dict[str, Any]] | None:
        """Step, tensors, replay pieces in order and state of the last checkpoint; None where there is none.

        Raises `PrefVLMError` for a damaged checkpoint or one of other runs.
        """
        if not self.file.exists():
            return None
        tensors, metadata = read_tensors(self.file)
        if json.loads(metadata.get("run_ids", "null")) != self.run_ids:
            raise PrefVLMError(
                f"{self.file} is not a checkpoint of these runs ({', '.join(self.run_ids)}); remove it to start again."
            )
        self.pieces = json.loads(metadata["pieces"])
        pieces = [read_tensors(self.path / piece)[0] for piece in self.pieces]
        return int(metadata["step"]), tensors, pieces, json.loads(metadata["state"])

    def remove(self) -> None:
        """Delete the checkpoint; its runs are finished. The pieces go last: no checkpoint may name one that is gone."""
        self.file.unlink(missing_ok=True)
        if self.path.exists():
            shutil.rmtree(self.path)


def unfinished(directories: Sequence[RunDirectory], results: str | Path) -> list[RunDirectory]:
    """Runs still to train. A fleet killed while it declared its runs finished comes back whole, in its order: alone,
    the others would end with other numbers."""
    waiting = [directory for directory in directories if not directory.finished]
    asked = {directory.config.run_id: directory for directory in directories}
    for fleet in _fleets(directories):
        left = {directory.config.run_id for directory in waiting}
        if left <= set(fleet) <= set(asked) and FleetCheckpoint(results, fleet).file.exists():
            return [asked[run_id] for run_id in fleet]
    return waiting


def remove_checkpoints(directories: Sequence[RunDirectory], results: str | Path) -> None:
    """Delete the checkpoints of fleets of which every run is among `directories`, all finished."""
    asked = {directory.config.run_id for directory in directories}
    for fleet in _fleets(directories):
        if set(fleet) <= asked:
            FleetCheckpoint(results, fleet).remove()


def _fleets(directories: Sequence[RunDirectory]) -> set[tuple[str, ...]]:
    """Fleets that the runs were last trained in, from their manifests."""
    return {tuple(fleet) for directory in directories if (fleet := directory.manifest.get("fleet"))}


def find_runs(results: str | Path, profile: str | None = None) -> list[RunDirectory]:
    """Every run stored below `results`, in order of path. Raises `PrefVLMError` for a config that cannot be read."""
    pattern = f"{profile or '*'}/*/*/*/config.json"
    directories = []
    for path in sorted(Path(results).glob(pattern)):
        stored = read_config(path)
        if Path(results) / stored.stored_id != path.parent:
            raise _misplaced(path)
        directories.append(RunDirectory(results, stored.config))
        directories[-1].path = path.parent
    return directories


def load_metrics(directories: Sequence[RunDirectory]) -> pandas.DataFrame:
    """Tidy metrics of runs, one row per evaluation, with `profile, task, method, seed, budget, run_id` in front.

    `step` counts environment steps, so that runs with and without `action_repeat` compare; stored are the agent's.
    """
    tables = []
    for directory in directories:
        table = pandas.DataFrame(directory.read_metrics())
        if not table.empty:
            table["step"] *= directory.config.action_repeat
        tables.append((directory.config, table))
    return _together(tables)


def load_labels(directories: Sequence[RunDirectory]) -> pandas.DataFrame:
    """Label logs of the runs that have one, one row per label, with the same columns in front as `load_metrics`."""
    paths = [(directory.config, directory.path / "labels.csv") for directory in directories]
    return _together(
        (config, pandas.read_csv(path, keep_default_na=False, na_values={"divergence": [""]}))
        for config, path in paths
        if path.exists()
    )


def _together(tables: Iterable[tuple[RunConfig, pandas.DataFrame]]) -> pandas.DataFrame:
    frames = []
    for config, frame in tables:
        names = {
            "profile": config.profile,
            "task": config.task,
            "method": config.method,
            "seed": config.seed,
            "budget": config.feedback.budget,
            "run_id": config.run_id,
        }
        for position, (name, value) in enumerate(names.items()):
            frame.insert(position, name, value)
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()
