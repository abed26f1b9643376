"""Tests that freed memory stays in the process instead of being requested from the system again."""

import subprocess
import sys

import pytest

from prefvlm_core.common.memory import keep_freed_memory

PAGE_FAULTS = """
import resource
import torch
from prefvlm_core.common.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**20), torch.ones(2**21)  # 4 and 8 MiB: 1024 and 2048 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no mallopt")
def test_training_sized_tensors_cause_no_page_faults_once_freed() -> None:
    output = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True).stdout
    assert int(output) < 1024  # without the setting, 20 x 3072
