"""Files that are written whole or not at all.

Every file is written to a temporary sibling, flushed to disk and renamed, so that a reader, or a process killed at any
moment, meets the old file or the new one. Tensors are safetensors, everything else is JSON or CSV: nothing here can
carry code.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError


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
