"""The tensors of a checkpoint fitted to the model that takes them, whatever stands before their names."""

from __future__ import annotations

import collections
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from prefvlm_core.common.errors import PrefVLMError

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that data-parallel training and torch.compile insert, anywhere and repeatedly."""
_TRAINING_ONLY = frozenset({"logit_scale", "logit_bias"})
"""Tensors that embeddings do not depend on; DecisionNCE leaves them out."""

_log = logging.getLogger(__name__)


def fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, model: str) -> dict[str, Tensor]:
    """The tensors that `wanted`, the state dict of a `model`, asks for, in its shapes and dtypes.

    `tensors` are those of the file `path`. Their names may carry any prefix and the names of wrappers. What lies beside
    the model is named in the log and passed over; more layers than the model has are not.

    Raises PrefVLMError where tensors are missing, unknown, not finite, or of another shape or type, and where the file
    holds the model more than once.
    """
    named = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise PrefVLMError(f"{path} holds tensors of the same name with and without a wrapper's; save one set alone.")
    prefix = _prefix(named, wanted, path)
    own = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    parts = {name.split(".")[0] for name in wanted}
    # Releases of transformers up to 4.30 stored the numbers of positions, which today's models compute.
    own = {name: own[name] for name in own if name.split(".")[0] in parts and not name.endswith(".position_ids")}
    own = {name: wanted[name] for name in _TRAINING_ONLY & wanted.keys()} | own
    if found := misfit(own, wanted):
        other = " Its names are those of Hugging Face's transformers; take the model's file for open_clip."
        hint = other if any("vision_model." in name for name in named) else ""
        raise PrefVLMError(f"{path} does not fit {model}: {found}.{hint}")
    if beside := {name for name in named if name.removeprefix(prefix) not in wanted}:
        groups = {".".join(name.split(".")[:2]) for name in beside}
        _log.warning("%s holds %d tensors beside %s, which are ignored: %s.", path, len(beside), model, _shown(groups))
    return {name: own[name].to(tensor.dtype).reshape(tensor.shape) for name, tensor in wanted.items()}


def misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """In which tensors a state dict differs from the one that is `wanted`, in words; empty where it fits."""
    common = sorted(tensors.keys() & wanted.keys())
    complaints = {
        "missing": wanted.keys() - tensors.keys(),
        "not known": tensors.keys() - wanted.keys(),
        "of another shape": [name for name in common if not _same_shape(tensors[name], wanted[name])],
        "of another type": [name for name in common if not _usable(tensors[name], wanted[name])],
    }
    if not any(complaints.values()):
        complaints["not finite"] = [name for name in common if not tensors[name].float().isfinite().all()]
    return "; ".join(f"{len(names)} {kind}: {_shown(names)}" for kind, names in complaints.items() if names)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefix(names: Collection[str], wanted: Collection[str], path: Path) -> str:
    """What precedes the model's own names in a file: the prefix with which most of them are there."""
    found = collections.Counter[str]()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                found["".join(f"{part}." for part in parts[:start])] += 1
    most = max(found.values(), default=0)
    likely = sorted((prefix for prefix, count in found.items() if count == most), key=len)
    if len(likely) > 1 and most >= len(set(wanted) - _TRAINING_ONLY):
        raise PrefVLMError(f"{path} holds the model more than once, under {_shown(likely)}; save one of them alone.")
    return likely[0] if likely else ""


def _same_shape(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether the shapes agree; one number is one number, be its shape () or (1,)."""
    return tensor.shape == wanted.shape or tensor.numel() == wanted.numel() == 1


def _usable(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether the tensor holds plain numbers: dense, in memory, and not quantized where the model's are not."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and (tensor.is_floating_point() or not (wanted.is_floating_point() or tensor.is_complex()))


def _shown(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)
