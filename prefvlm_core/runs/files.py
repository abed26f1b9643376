"""Files that are written whole or not at all, and read whole or refused.

Every file is written to a temporary sibling, flushed to disk and renamed, so that a reader, or a process killed at any
moment, meets the old file or the new one. Tensors are safetensors, everything else is JSON or CSV: nothing here can
carry code. A file of tensors names the SHA-256 of its content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefvlm_core.common.errors import PrefVLMError

if TYPE_CHECKING:  # torch is imported where tensors are read and written: who lists runs has no time for it
    from torch import Tensor

_ENTRY = "prefvlm"  # one entry of metadata, because safetensors writes several in a random order
UNREADABLE = (AttributeError, IndexError, KeyError, OSError, OverflowError, RecursionError, TypeError, ValueError)
"""What readers of JSON, CSV and stored state raise for content that is not what they expect."""


class StoredTensors(NamedTuple):
    """Tensors and values of one file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    digest: str
    """SHA-256 of both, see `content_digest`."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, all or nothing, and durably: the folder's entry is on disk when this returns.

    Raises `PrefVLMError` where the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise PrefVLMError(
            f"Cannot write {path}: {error.strerror}. What was stored before is untouched; free some space or choose "
            "another results folder."
        ) from error


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, durably. Raises `OSError` where that is not possible."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can, so that a new file is there after a power failure."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # of file systems that sync no folders
            raise
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left half written in a folder that no other process is writing to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Store `values` readably, all or nothing."""
    write_atomically(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def write_probe(path: Path) -> None:
    """Create the folder `path`. Raises `PrefVLMError` where that is not possible."""
    try:
        make_folder(path)
    except OSError as error:
        raise PrefVLMError(f"Cannot write to the results folder {path}: {error.strerror}.") from error
    if not os.access(path, os.W_OK):
        raise PrefVLMError(f"Cannot write to the results folder {path}: permission denied.")


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the metadata and of every tensor's name, dtype, shape and bytes, in order of name."""
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Store tensors and values that JSON holds, all or nothing. Equal content gives equal bytes."""
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    entry = json.dumps({"sha256": content_digest(contiguous, metadata), "metadata": metadata})
    write_atomically(path, safetensors.torch.save(contiguous, {_ENTRY: entry}))


def read_tensors(path: Path) -> StoredTensors:
    """Inverse of `write_tensors`. Raises `PrefVLMError` where the content is not what was written."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            entry = (file.metadata() or {}).get(_ENTRY)
    except (safetensors.SafetensorError, RuntimeError, *UNREADABLE) as error:
        raise damaged(path, f"no safetensors file: {error}") from error
    if entry is None:
        raise damaged(path, "it names no checksum; another program or an earlier release wrote it")
    try:
        stored = json.loads(entry)
        metadata, digest = dict(stored["metadata"]), stored["sha256"]
        found = content_digest(tensors, metadata)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if found != digest:
        raise damaged(path, "its content does not have the checksum that it names")
    return StoredTensors(tensors, metadata, digest)


def read_metadata(path: Path) -> dict[str, Any]:
    """The values that `write_tensors` stored, without reading the tensors and so without verifying them.

    Raises `PrefVLMError` where they cannot be read.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(json.loads(file.metadata()[_ENTRY])["metadata"])
    except (safetensors.SafetensorError, RuntimeError, *UNREADABLE) as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: Exception | str) -> PrefVLMError:
    """What to say of a file of a run or of a checkpoint that cannot be read."""
    words = " ".join(str(reason).split()) or type(reason).__name__
    return PrefVLMError(f"{path} is damaged ({words}); restore it, or remove its folder to train its runs again.")
