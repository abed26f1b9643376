"""Run folders: where a run's config, metrics, labels, manifest and weights lie while it is trained.

results/<profile>/<task>/<method>/<seed>-<hash>/
    config.json  metrics.csv  labels.csv  manifest.json  weights.safetensors  adapters.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.retired import StoredConfig, read_stored_config
from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.files import (
    UNREADABLE,
    damaged,
    read_tensors,
    write_atomically,
    write_json,
    write_tensors,
)
from prefvlm_core.runs.published import PublishedRun, published_runs
from prefvlm_core.runs.rows import check_rows, csv_bytes, read_labels, read_metrics, rows_hash

if TYPE_CHECKING:  # slow to import, and not needed to list runs
    import pandas
    from torch import Tensor

    from prefvlm_core.runs.tensorboard import LiveCurves

ADAPTERS_FILE = "adapters.safetensors"
REPLAY_FILE = "replay.safetensors"
WEIGHTS_FILE = "weights.safetensors"
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
        self.lock = self.path / ".lock"
        self.held: int | None = None
        """The inode of the lock file since `lock_runs` took it."""
        self.curves: LiveCurves | None = None
        """What draws the metrics while they are written, see `tensorboard.curves_of`."""

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

    def check_lock(self) -> None:
        """Raise `PrefVLMError` where the lock was removed since it was taken: another process may train the run."""
        if not self.lock.exists() or self.lock.stat().st_ino != self.held:
            raise PrefVLMError(
                f"{self.lock} was removed while the run was trained, so another process may be training it too; train "
                "it again, and it goes on from its last checkpoint."
            )

    @property
    def manifest(self) -> dict[str, Any]:
        """The stored manifest; empty where there is none. A published one holds text by dotted name."""
        return dict(self.published.manifest) if self.published else read_manifest(self.path / "manifest.json")

    @property
    def finished(self) -> bool:
        """Whether the run is complete; such a run is never touched again. A folder that says so must hold weights."""
        if self.published is not None:
            return True
        return self.manifest.get("status") == FINISHED and (self.path / WEIGHTS_FILE).exists()

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
        import pandas

        path = self.path / "metrics.csv"
        rows = read_metrics(path)
        check_rows(path, pandas.DataFrame(rows), self.manifest.get("metrics_hash"))
        return rows

    def metrics(self) -> pandas.DataFrame:
        """The same as a table."""
        import pandas

        return self.published.metrics() if self.published else pandas.DataFrame(self.read_metrics())

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace metrics.csv. Columns are those of all rows, in order of appearance; nan is written as an empty
        field."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_atomically(self.path / "metrics.csv", csv_bytes(columns, rows))
        if self.curves is not None:
            self.curves.write(rows)

    def labels(self) -> pandas.DataFrame | None:
        """Rows of the label log; None where the run used no labels."""
        if self.published:
            return self.published.labels()
        path = self.path / "labels.csv"
        rows = read_labels(path)
        check_rows(path, rows, self.manifest.get("labels_hash"))
        return rows

    def row_hashes(self) -> dict[str, str]:
        """Entries of a finished run's manifest: the hashes of its metrics and, where it has some, of its labels."""
        labels = self.labels()
        hashes = {} if labels is None else {"labels_hash": rows_hash(labels)}
        return {"metrics_hash": rows_hash(self.metrics())} | hashes

    def write_labels(self, labels: pandas.DataFrame) -> None:
        """Replace labels.csv, see `preferences/log.py`."""
        text = labels.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(self.path / "labels.csv", text.encode())

    def write_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Store the trained networks."""
        write_tensors(self.path / WEIGHTS_FILE, tensors, {"run_id": self.config.run_id})

    def write_replay(self, tensors: Mapping[str, Tensor]) -> None:
        """Store all transitions of the run, see `agent.replay.Replay.piece`."""
        write_tensors(self.path / REPLAY_FILE, tensors, {"run_id": self.config.run_id})

    def read_replay(self) -> dict[str, Tensor]:
        """Inverse of `write_replay`. Raises `PrefVLMError` where the run kept none."""
        path = self.path / REPLAY_FILE
        if not path.exists():
            raise PrefVLMError(
                f"There is no {path}: a run keeps what it has seen only if it is trained with keep_replay; train it so "
                "in another results folder."
            )
        return read_tensors(path).tensors

    def write_session_reward(self, session: int, values: Tensor) -> None:
        """Store the reward ensemble, parameters (members, P), as a session left it."""
        write_tensors(self.path / f"reward-{session:03d}.safetensors", {"reward": values}, {})

    def read_session_rewards(self) -> dict[int, Tensor]:
        """Inverse of `write_session_reward`: session -> parameters, as far as there are."""
        rewards = {}
        for path in sorted(self.path.glob("reward-*.safetensors")):
            session, tensors = path.stem.removeprefix("reward-"), read_tensors(path).tensors
            if not session.isdecimal() or tensors.keys() != {"reward"}:
                raise damaged(path, "it is not the reward ensemble of a session")
            rewards[int(session)] = tensors["reward"]
        return rewards


def read_manifest(path: Path) -> dict[str, Any]:
    """A stored manifest; empty where there is none. Raises `PrefVLMError` for a damaged file."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("status", ""), str):
        raise damaged(path, "it is not a manifest")
    fleet = manifest.get("fleet", [])
    if not isinstance(fleet, list) or not all(isinstance(run_id, str) for run_id in fleet):
        raise damaged(path, "its fleet is not a list of names of runs")
    return manifest


def misplaced(path: Path) -> PrefVLMError:
    """What to say of a folder that was renamed, or whose config was edited."""
    return PrefVLMError(f"{path} does not hold the config its folder is named after; move the folder away.")


def read_config(path: Path) -> StoredConfig:
    """The config stored at `path`. Raises `PrefVLMError` naming the file where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        if not isinstance(json.loads(text), dict):
            raise PrefVLMError("It is not a config.")
        return read_stored_config(text)
    except UNREADABLE as error:
        raise PrefVLMError(f"{path} cannot be read: {error}") from error
