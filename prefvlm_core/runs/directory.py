"""Run folders: where a run's config, metrics, labels, manifest and weights lie while it is trained.

results/<profile>/<task>/<method>/<seed>-<hash>/
    config.json  metrics.csv  labels.csv  manifest.json  weights.safetensors  adapters.safetensors
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas
from filelock import FileLock, Timeout
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import StoredConfig, read_stored_config
from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.files import read_tensors, write_atomically, write_json, write_probe, write_tensors

ADAPTERS_FILE = "adapters.safetensors"
FINISHED = "finished"
RUNNING = "running"


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
            raise misplaced(path)

    @property
    def manifest(self) -> dict[str, Any]:
        """The stored manifest; empty where there is none."""
        path = self.path / "manifest.json"
        try:
            return json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise damaged(path, error) from error

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
            raise damaged(path, error) from error

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


def misplaced(path: Path) -> PrefVLMError:
    return PrefVLMError(f"{path} does not hold the config its folder is named after; move the folder away.")


def damaged(path: Path, error: Exception) -> PrefVLMError:
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
