"""Checkpoints: the state of fleets that are not finished yet.

results/<profile>/fleets/<hash>/{checkpoint.safetensors, replay-<steps>.safetensors}
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import read_tensors, write_tensors


def fleet_hash(run_ids: Sequence[str]) -> str:
    """First 12 hex digits of the SHA-256 of the names of a fleet's runs, in their order."""
    return hashlib.sha256("\n".join(run_ids).encode()).hexdigest()[:12]


class FleetCheckpoint:
    """State of an unfinished fleet: one small file rewritten at each checkpoint, and the replay in pieces that never
    change."""

    def __init__(self, results: str | Path, run_ids: Sequence[str]) -> None:
        self.path = Path(results) / run_ids[0].split("/")[0] / "fleets" / fleet_hash(run_ids)
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
