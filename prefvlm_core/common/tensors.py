"""Stored tensors: whether they fit those that they are to replace, and copying them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefvlm_core.common.errors import PrefVLMError

if TYPE_CHECKING:
    from torch import Tensor


def check_tensors(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `PrefVLMError` for the first name, dtype or shape of `stored` that is not the one of `expected`.

    Copying would broadcast and convert them silently. A tensor that is expected to be empty may have any length, for
    it is one that grows.
    """
    if odd := sorted(stored.keys() ^ expected.keys()):
        raise PrefVLMError(f"The tensor {odd[0]} is {'not expected' if odd[0] in stored else 'missing'}.")
    for name, wanted in expected.items():
        found = stored[name]
        grown = len(wanted.shape) > 0 and len(wanted) == 0 and found.shape[1:] == wanted.shape[1:]
        if found.dtype != wanted.dtype or not (grown or found.shape == wanted.shape):
            raise PrefVLMError(
                f"The tensor {name} is {found.dtype} {tuple(found.shape)}, expected was {wanted.dtype} "
                f"{tuple(wanted.shape)}."
            )


def copy_tensors(stored: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into the `targets` of the same names, once `check_tensors` has passed them."""
    for name, target in targets.items():
        target.copy_(stored[name])
