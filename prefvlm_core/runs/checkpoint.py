"""Checkpoints: the state of fleets that are not finished yet.

results/<profile>/fleets/<hash>/{checkpoint.safetensors, replay-<steps>-<SHA-256>.safetensors}
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.files import (
    UNREADABLE,
    content_digest,
    damaged,
    read_metadata,
    read_tensors,
    remove_temporary_files,
    write_probe,
    write_tensors,
)
from prefvlm_core.runs.locks import file_lock

FORMAT = 2
"""Of checkpoints; raise it with every change after which earlier ones cannot be read."""


def fleet_hash(run_ids: Sequence[str]) -> str:
    """First 12 hex digits of the SHA-256 of the names of a fleet's runs, in their order."""
    return hashlib.sha256("\n".join(run_ids).encode()).hexdigest()[:12]


class StoredFleet(NamedTuple):
    """The state of a fleet at its last checkpoint."""

    step: int
    tensors: dict[str, Tensor]
    pieces: list[dict[str, Tensor]]
    """The replay's pieces, in their order."""
    values: dict[str, Any]


class FleetCheckpoint:
    """State of an unfinished fleet: one small file rewritten at each checkpoint, and the replay in pieces that never
    change.

    A piece is named after the steps before its end and its content, so that no name ever stands for two contents, and
    the checkpoint holds the SHA-256 of each.
    """

    def __init__(self, results: str | Path, run_ids: Sequence[str]) -> None:
        self.path = Path(results) / run_ids[0].split("/")[0] / "fleets" / fleet_hash(run_ids)
        self.file = self.path / "checkpoint.safetensors"
        self.run_ids = list(run_ids)
        self.pieces: dict[str, str] = {}
        """Maps the pieces' file names, in their order, to the SHA-256 of their content."""

    def save(
        self, step: int, tensors: Mapping[str, Tensor], replay_piece: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Commit the state at `step`; `replay_piece` is what the replay gained since the last checkpoint, {} if
        nothing."""
        if replay_piece:
            digest = content_digest(replay_piece, {})
            name = f"replay-{step:09d}-{digest[:12]}.safetensors"
            write_tensors(self.path / name, replay_piece, {})
            self.pieces[name] = digest
        metadata = {"format": FORMAT, "step": step, "run_ids": self.run_ids, "values": values}
        metadata["pieces"] = self.pieces  # a piece written just before a kill is in no checkpoint
        write_tensors(self.file, tensors, metadata)

    def load(self) -> StoredFleet | None:
        """The last checkpoint, once every byte of it and of its pieces has been verified; None where there is none.

        Raises `PrefVLMError` for a damaged checkpoint, and for one of other runs or of another format.
        """
        remove_temporary_files(self.path)
        if not self.file.exists():
            return None
        stored = read_tensors(self.file)
        if stored.metadata.get("format") != FORMAT:
            raise PrefVLMError(
                f"{self.file} has format {stored.metadata.get('format')}, but this release reads format {FORMAT}; go "
                "on with the release that wrote it, or remove its folder to train its runs again."
            )
        if stored.metadata.get("run_ids") != self.run_ids:
            raise PrefVLMError(
                f"{self.file} is not a checkpoint of these runs ({', '.join(self.run_ids)}); remove it to start again."
            )
        try:
            self.pieces = dict(stored.metadata["pieces"])
            step, values = int(stored.metadata["step"]), dict(stored.metadata["values"])
        except UNREADABLE as error:
            raise damaged(self.file, f"{type(error).__name__}: {error}") from error
        return StoredFleet(step, stored.tensors, [self._read_piece(name) for name in self.pieces], values)

    def _read_piece(self, name: str) -> dict[str, Tensor]:
        piece = read_tensors(self.path / name)
        if piece.digest != self.pieces[name]:
            raise damaged(self.path / name, f"it is not the piece that {self.file.name} names")
        return piece.tensors

    def remove(self) -> None:
        """Delete the checkpoint; its runs are finished. The pieces go last: no checkpoint may name one that is gone."""
        if self.file.exists():
            self.file.unlink()
        shutil.rmtree(self.path, ignore_errors=True)  # what stays of it is no checkpoint any more


def unfinished(directories: Sequence[RunDirectory], results: str | Path) -> list[RunDirectory]:
    """Runs still to train. A fleet killed while it declared its runs finished comes back whole, in its order: alone,
    the others would end with other numbers. Where one of its runs was finished in another fleet, only the others are
    left to train: a checkpoint from before would put that run back."""
    waiting = [directory for directory in directories if not directory.finished]
    asked = {directory.config.run_id: directory for directory in directories}
    for fleet in _fleets(directories):
        left = {directory.config.run_id for directory in waiting}
        if left <= set(fleet) <= set(asked) and FleetCheckpoint(results, fleet).file.exists():
            if all(_fleet(asked[run_id]) == fleet for run_id in set(fleet) - left):
                return [asked[run_id] for run_id in fleet]
    return waiting


def remove_checkpoints(directories: Sequence[RunDirectory], results: str | Path) -> None:
    """Delete the checkpoints that no training will go on from, now that all of `directories` are finished: those of
    fleets of which every run is among them, or of which one was finished in another fleet."""
    fleet_of = {directory.config.run_id: _fleet(directory) for directory in directories}
    for fleet in _fleets(directories) | _with_checkpoint(results):
        if set(fleet) <= fleet_of.keys() or any(fleet_of.get(run_id, fleet) != fleet for run_id in fleet):
            with suppress(PermissionError):  # in a folder that may only be read
                FleetCheckpoint(results, fleet).remove()


def _with_checkpoint(results: str | Path) -> set[tuple[str, ...]]:
    """Fleets that have a checkpoint below `results`; one that cannot be read counts as none."""
    fleets = set()
    for file in Path(results).glob("*/fleets/*/checkpoint.safetensors"):
        with suppress(PrefVLMError, *UNREADABLE):
            fleet = tuple(read_metadata(file)["run_ids"])
            if FleetCheckpoint(results, fleet).file == file:
                fleets.add(fleet)
    return fleets


def _fleets(directories: Sequence[RunDirectory]) -> set[tuple[str, ...]]:
    """Fleets that the runs were last trained in, from their manifests."""
    return {fleet for directory in directories if (fleet := _fleet(directory))}


def _fleet(directory: RunDirectory) -> tuple[str, ...]:
    """The fleet that a run was last trained in, from its manifest; empty where that names none."""
    return tuple(directory.manifest.get("fleet", ()))


@contextmanager
def lock_runs(directories: Sequence[RunDirectory], results: str | Path) -> Iterator[None]:
    """Hold the runs for this process, and clear away what a killed one left half written in their folders.

    Raises `PrefVLMError` where another process is training one of them, and where a lock cannot be taken. Where such an
    error ends the training before its first checkpoint, the folders that were not there before are removed.
    """
    with ExitStack() as stack, _removed_if_refused(directories, results):  # while the locks are still held
        for directory in directories:
            write_probe(directory.path)
            try:
                stack.enter_context(file_lock(directory.lock, timeout=0))
            except Timeout as error:
                raise PrefVLMError(f"{directory.path} is being trained by another process; wait for it.") from error
            directory.held = directory.lock.stat().st_ino
            remove_temporary_files(directory.path)
        yield


@contextmanager
def _removed_if_refused(directories: Sequence[RunDirectory], results: str | Path) -> Iterator[None]:
    places = [directory.path for directory in directories]
    if directories:
        places.append(FleetCheckpoint(results, [directory.config.run_id for directory in directories]).path)
    created = [[folder for folder in (place, *place.parents) if not folder.exists()] for place in places]
    try:
        yield
    except PrefVLMError:
        if any(created) and not any(FleetCheckpoint(results, fleet).file.exists() for fleet in _fleets(directories)):
            for place, *above in filter(None, created):
                shutil.rmtree(place, ignore_errors=True)
                for folder in above:
                    with suppress(OSError):  # another process has put something there meanwhile
                        folder.rmdir()
        raise
