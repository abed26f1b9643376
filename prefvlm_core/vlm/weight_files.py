"""Weights in files as others publish them, read without running anything that they may hold.

What a file is follows from its content, never from its name. Nothing but tensors is taken from it: torch unpickles with
`weights_only`, which refuses everything that could run code.
"""

from __future__ import annotations

import codecs
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError

_HEAD = 4096
_STARTS = {
    b"version https://git-lfs": "a Git LFS pointer, which stands for the weights; fetch them with git lfs pull",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first",
    b"7z\xbc\xaf": "compressed (7-Zip); unpack it first",
    b"Rar!": "compressed (RAR); unpack it first",
    b"\x93NUMPY": "a NumPy array, not the tensors of a model",
    b"\x89HDF": "an HDF5 file, as Keras writes them; take the model's weights for PyTorch",
    b"GGUF": "a GGUF file, as llama.cpp reads them; take the model's weights for PyTorch",
}
"""First bytes of files that are often taken for weights, and what the files are."""


class _NumpyValue:
    """Stands for a NumPy scalar or its type, which checkpoints hold beside their tensors and nothing here needs."""

    def __new__(cls, *values: Any) -> _NumpyValue:
        return object.__new__(cls)

    def __init__(self, *values: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_NUMPY_VALUES: list[Any] = [
    (_NumpyValue, name) for name in ("numpy.dtype", "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch or safetensors by name; names in nested containers are joined by dots.

    Raises PrefVLMError, which says what the file is and what to do, for everything else: a folder, a text, an archive
    of other things, a TorchScript program, a file that is empty, cut off or damaged, or that could run code.
    """
    if path.is_dir():
        raise PrefVLMError(f"{path} is a folder; name the file of weights in it.")
    if not path.is_file():
        raise PrefVLMError(f"{path} is no file that weights could be read from.")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if otherwise := _not_weights(path, head):
            raise PrefVLMError(f"{path} is {otherwise}.")
        tensors = safetensors.torch.load_file(path) if _header_of_safetensors(head) else _flat(_unpickled(path))
    except OSError as error:
        raise PrefVLMError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (safetensors.SafetensorError, KeyError) as error:  # a KeyError for types that torch does not have
        raise PrefVLMError(f"{path} is damaged or cut off ({error}); download it again.") from error
    if not tensors:
        raise PrefVLMError(f"{path} holds no tensors with names; a state dict of the model is needed.")
    return tensors


def _not_weights(path: Path, head: bytes) -> str | None:
    """What a file is and what to do about it, unless it may be one of torch or safetensors."""
    if not head:
        return "empty; download it again"
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it and name the file of weights in it"
    if (text := _as_text(head)) is not None:
        return _kind_of_text(path, text)
    if head.startswith(b"PK"):
        return _not_torchs_archive(path)
    if not head.startswith(b"\x80") and not _header_of_safetensors(head):  # 0x80 begins a pickle, torch's old layout
        return f"no file of torch or safetensors: it begins with the bytes {head[:8].hex(' ')}; download it again"
    return None


def _header_of_safetensors(head: bytes) -> bool:
    """Whether these are the length of a header, 8 bytes, and the JSON object that it is."""
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 2**32


def _as_text(head: bytes) -> str | None:
    """The first bytes of a file as text; None where they are none."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return None
    return text if all(character.isprintable() or character.isspace() for character in text) else None


def _kind_of_text(path: Path, text: str) -> str:
    text = text.strip()
    if text.startswith("<"):
        return "a web page: its address leads to a page about the file; download the file itself"
    if text.startswith("#!") or path.suffix == ".py" or re.search(r"^(import|from|def|class) \w", text, re.MULTILINE):
        return "a script, which is never run here; name the file of weights"
    if text.startswith(("{", "[")):
        return "a JSON text, such as a model's configuration or a server's answer; name the file of weights"
    return f"a text that begins with {text[:40].splitlines()[0]!r}; name the file of weights" if text else "blank"


def _not_torchs_archive(path: Path) -> str | None:
    """What a zip archive is and what to do about it, unless it is one that torch.save wrote, undamaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(name.endswith("/constants.pkl") for name in names):
                return (
                    "a TorchScript archive, a program together with its weights, as OpenAI publishes CLIP; it is not "
                    "run here. If you trust its source, write its tensors alone in Python, torch.save(torch.jit.load("
                    f"'{path.name}', map_location='cpu').state_dict(), '{path.stem}-tensors.pt'), and load that file"
                )
            if not any(name.endswith("/data.pkl") for name in names):
                shown = ", ".join(names[:3]) + ", …" * (len(names) > 3)
                return f"a zip archive of something else ({shown}); unpack it and name the file of weights in it"
            if (content := sum(member.file_size for member in members)) > path.stat().st_size:
                return (
                    f"an archive of {path.stat().st_size} bytes that claims to hold {content}; torch.save never "
                    "compresses, so it is not opened"
                )
            # torch itself does not compare checksums; it can be told to leave them out, then all of them are 0.
            damaged = archive.testzip() if any(member.CRC for member in members) else None
    except Exception as error:  # damage makes zipfile raise whatever the bytes lead to
        return f"damaged or cut off ({error}); download it again"
    return f"damaged: the checksum of {damaged} is wrong; download it again" if damaged else None


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY_VALUES), path.open("rb") as file:  # given a path, torch reads
            return torch.load(file, map_location="cpu", weights_only=True)  # other formats by the name's suffix
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise PrefVLMError(
            f"{path} holds more than tensors{f' ({named[1]})' if named else ''}, and opening it could run code, so it "
            "is not opened. If you trust its source, save its state dict alone with torch.save or safetensors, and "
            "load that."
        ) from error
    except Exception as error:  # damage makes torch's unpickler raise whatever the bytes lead to
        raise PrefVLMError(f"{path} is damaged or was not written by torch.save; download it again.") from error


def _flat(content: Any) -> dict[str, Tensor]:
    """The tensors in nested dictionaries by their dotted names. A dictionary that occurs twice is read once."""
    tensors, seen, waiting = dict[str, Tensor](), set[int](), [("", content)]
    while waiting:
        prefix, values = waiting.pop()
        if not isinstance(values, Mapping) or id(values) in seen:
            continue
        seen.add(id(values))
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{key}"] = value
            else:
                waiting.append((f"{prefix}{key}.", value))
    return tensors
