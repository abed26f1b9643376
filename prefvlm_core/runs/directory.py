"""Run folders: where a run's config, metrics, labels, manifest and weights lie while it is trained.

results/<profile>/<task>/<method>/<seed>-<hash>/
    config.json  metrics.csv  labels.csv  manifest.json  weights.safetensors  adapters.safetensors
"""

from __future__ import annotations

import json
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
from prefvlm_core.runs.published import PublishedRun, published_runs
from prefvlm_core.runs.rows import csv_bytes, damaged, read_labels, read_metrics

ADAPTERS_FILE = "adapters.safetensors"
FINISHED = "finished"
RUNNING = "running"


class RunDirectory:
    """One run below `results`: its folder while it is trained, and the published tables once it is in them.

    `stored` is the run's config as a folder of an earlier release holds it, whose name follows from it.
    """

    def __init__(self, results: str | Path, config: RunConfig, stored: StoredConfig | None = None) -> None:
        self.config = config
        self.run_id = stored.run_id if stored else config.run_id
        self.retired: Mapping[str, Any] = stored.retired if stored else {}
        self.path = Path(results) / (stored.stored_id if stored else config.run_id)
        self._tables = Path(results) / config.profile

    @property
    def published(self) -> PublishedRun | None:
        """The run in the published tables, if it is there."""
        return published_runs(self._tables).get(self.run_id)

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
        """The stored manifest; empty where there is none. A published one holds text by dotted name."""
        return dict(self.published.manifest) if self.published else read_manifest(self.path / "manifest.json")

    @property
    def finished(self) -> bool:
        """Whether the run is complete; such a run is never touched again."""
        return self.published is not None or self.manifest.get("status") == FINISHED

    def write_manifest(self, values: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        write_json(self.path / "manifest.json", values)

    @property
    def last_evaluation(self) -> dict[str, float]:
        """The last row of the metrics, at least `step` and `success` of it; empty before the first evaluation."""
        rows = [self.published.last_evaluation] if self.published else read_metrics(self.path / "metrics.csv")
        return rows[-1] if rows else {}

    def read_metrics(self) -> list[dict[str, float]]:
        """Rows of the metrics, one per evaluation; none where there are none."""
        if self.published:
            return self.published.metrics().to_dict("records")
        return read_metrics(self.path / "metrics.csv")

    def metrics(self) -> pandas.DataFrame:
        """The same as a table."""
        return self.published.metrics() if self.published else pandas.DataFrame(self.read_metrics())

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace metrics.csv. Columns are those of all rows, in order of appearance; nan is written as an empty
        field."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_atomically(self.path / "metrics.csv", csv_bytes(columns, rows))

    def labels(self) -> pandas.DataFrame | None:
        """Rows of the label log; None where the run used no labels."""
        return self.published.labels() if self.published else read_labels(self.path / "labels.csv")

    def write_labels(self, labels: pandas.DataFrame) -> None:
        """Replace labels.csv, see `preferences/log.py`."""
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


def read_manifest(path: Path) -> dict[str, Any]:
    """A stored manifest; empty where there is none. Raises `PrefVLMError` for a damaged file."""
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise damaged(path, error) from error


def misplaced(path: Path) -> PrefVLMError:
    """What to say of a folder that was renamed, or whose config was edited."""
    return PrefVLMError(f"{path} does not hold the config its folder is named after; move the folder away.")


def read_config(path: Path) -> StoredConfig:
    """The config stored at `path`. Raises `PrefVLMError` naming the file where it cannot be read."""
    try:
        return read_stored_config(path.read_text())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrefVLMError(f"{path} cannot be read: {error}") from error


@contextmanager
def lock_runs(directories: Sequence[RunDirectory]) -> Iterator[None]:
    """Hold every run that is not published for this process. Raises `PrefVLMError` where another process is training
    one of them."""
    with ExitStack() as stack:
        for directory in directories:
            if directory.published:
                continue
            write_probe(directory.path)
            try:
                stack.enter_context(FileLock(directory.path / ".lock", timeout=0))
            except Timeout as error:
                raise PrefVLMError(f"{directory.path} is being trained by another process; wait for it.") from error
        yield
