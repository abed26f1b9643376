"""What a run was made with, for its manifest: everything beside its config that can change its numbers."""

from __future__ import annotations

import functools
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from prefvlm_core import __version__
from prefvlm_core.config.run import Execution

_DISTRIBUTIONS = ("torch", "numpy", "scipy", "metaworld", "mujoco", "fast-simplification")
"""Whose versions every manifest names."""


def describe_training(
    execution: Execution, device: torch.device, workers: int, distributions: Sequence[str] = ()
) -> dict[str, Any]:
    """Manifest entries that say how the numbers were made. `distributions` are what the run's domain and VLM need
    beside those of every run."""
    return {
        "versions": {"prefvlm": __version__, "python": platform.python_version()}
        | _versions([*_DISTRIBUTIONS, *distributions]),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # torch rounds differently with AVX2 and AVX512
        "gl_backend": os.environ.get("MUJOCO_GL"),  # set by the first frame that is rendered
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": execution.threads,
        "workers": workers,
        "late_answers": execution.late_answers,
        "clip_trace": execution.clip_trace,
        "label_timeout": execution.label_timeout if math.isfinite(execution.label_timeout) else None,
        "plugin": execution.plugin or None,
        "git_commit": git_commit(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions(distributions: Sequence[str]) -> dict[str, str]:
    """By distribution, as far as they are installed: a model of one's own may have the name of one that needs them."""
    found = {}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@functools.cache  # asked once per run of a fleet
def git_commit() -> str | None:
    """Commit of the checkout this package lies in; None outside a repository or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
