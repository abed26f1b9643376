"""The machine's memory and cores, and what is said when memory runs out."""

import os

import numpy as np
import pytest
import torch

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.machine import in_bytes, memory_errors, usable_cores, usable_memory


def test_what_is_usable_is_no_more_than_what_there_is() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert 2**28 < usable_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (1.59e14, "159 TB"), (1e24, "1e+06 EB")]
)
def test_sizes_are_written_for_people(size: float, text: str) -> None:
    assert in_bytes(size) == text


@pytest.mark.parametrize("allocate", [lambda: np.empty(2**50), lambda: torch.empty(2**50)], ids=["NumPy", "torch"])
def test_memory_that_runs_out_is_a_sentence(allocate: object) -> None:
    assert callable(allocate)
    with pytest.raises(PrefVLMError, match="The memory ran out during the training; train fewer runs"), memory_errors():
        allocate()


def test_other_errors_are_passed_on() -> None:
    with pytest.raises(RuntimeError, match="of another kind"), memory_errors():
        raise RuntimeError("of another kind")
