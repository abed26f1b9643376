"""What a checkpoint of a fleet holds: every part that training changes, by name, and the replay in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.tensors import check_tensors, copy_tensors
from prefvlm_core.runs.checkpoint import FleetCheckpoint
from prefvlm_core.runs.files import UNREADABLE, damaged

Tensors = dict[str, Tensor]
Values = dict[str, Any]


class Part(Protocol):
    """A part of a fleet that training changes."""

    def state(self) -> tuple[Tensors, Values]:
        """Its tensors, and what else it needs, ready for JSON."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        ...


class HasTensors(Protocol):
    """What `InPlace` restores."""

    def state(self) -> Tensors:
        """Every tensor that training changes, by name."""
        ...


class InPlace:
    """A part whose tensors keep their shape: restoring copies into them."""

    def __init__(self, holder: HasTensors) -> None:
        self.holder = holder

    def state(self) -> tuple[Tensors, Values]:
        """See `Part`."""
        return self.holder.state(), {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Part`."""
        copy_tensors(tensors, self.holder.state())


class GrowingReplay(Part, Protocol):
    """A replay: what it holds never changes, so a checkpoint stores only what came since the one before."""

    size: int

    def piece(self, first: int, last: int) -> Tensors:
        """What never changes of steps first..last-1."""
        ...

    def append_piece(self, piece: Mapping[str, Tensor]) -> None:
        """Inverse of `piece`, at the end of what is there. Raises `PrefVLMError` for tensors that do not fit."""
        ...


class FleetState:
    """Saves and restores a fleet.

    Args:
        checkpoint: Where.
        replay: What the runs have seen.
        parts: Every other part, by name.
    """

    def __init__(self, checkpoint: FleetCheckpoint, replay: GrowingReplay, parts: Mapping[str, Part]) -> None:
        self.checkpoint, self.replay = checkpoint, replay
        self.parts: dict[str, Part] = {"replay": replay, **parts}
        self._saved_steps = 0

    def save(self) -> None:
        """Commit everything that a resumed fleet needs; only between two episodes. Without a step since the last
        checkpoint there is nothing new, and nothing is written."""
        if self.replay.size == self._saved_steps:
            return
        values = {name: part.state()[1] for name, part in self.parts.items()}
        gained = self.replay.piece(self._saved_steps, self.replay.size)
        self.checkpoint.save(self.replay.size, self._tensors(), gained, values)
        self._saved_steps = self.replay.size

    def restore(self) -> bool:
        """Go back to the last checkpoint; False where there is none. Raises `PrefVLMError` for a damaged one, and for
        one whose tensors or values this fleet does not have."""
        loaded = self.checkpoint.load()
        if loaded is None:
            return False
        try:
            for piece in loaded.pieces:
                self.replay.append_piece(piece)
            if self.replay.size != loaded.step:
                raise PrefVLMError(f"It holds {self.replay.size} of {loaded.step} steps.")
            check_tensors(loaded.tensors, self._tensors())
            for name, part in self.parts.items():
                own = {key: loaded.tensors[f"{name}/{key}"] for key in part.state()[0]}
                part.restore(own, loaded.values[name])
        except PrefVLMError as error:
            raise damaged(self.checkpoint.file, str(error).removesuffix(".")) from error
        except UNREADABLE as error:
            raise damaged(self.checkpoint.file, f"{type(error).__name__}: {error}") from error
        self._saved_steps = loaded.step
        return True

    def _tensors(self) -> Tensors:
        """The tensors of every part, by the names of the part and the tensor."""
        return {f"{name}/{key}": tensor for name, part in self.parts.items() for key, tensor in part.state()[0].items()}
