"""What a run was made with: versions, machine and code, for its manifest."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prefvlm_core import __version__
from prefvlm_core.config.run import Execution


def describe_training(execution: Execution, device: torch.device, workers: int) -> dict[str, Any]:
    """Manifest entries that say how the numbers were made."""
    return {
        "versions": {"prefvlm": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "metaworld", "mujoco")},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": execution.threads,
        "workers": workers,
        "git_commit": git_commit(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str | None:
    """Commit of the checkout this package lies in; None outside a repository or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
