"""The one command for a lent GPU, on the CPU and with runs of 150 actions."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from prefvlm_core.runs.stored import find_runs

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu_session.sh"
TINY = {
    "--profile": "quick",
    "--tasks": "button-press-v3",
    "--seeds": "0",
    "--total-steps": "150",
    "--exploration.random-steps": "50",
    "--exploration.entropy-steps": "50",
    "--feedback.reset-updates": "10",
}


def test_a_session_measures_then_trains_and_goes_on(tmp_path: Path) -> None:
    def session() -> str:
        command = [SCRIPT, "600", tmp_path, "cpu", *(part for option in TINY.items() for part in option)]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    session()
    bench = tmp_path / "bench.txt"
    if not torch.cuda.is_available():
        assert "Skipped: torch finds no GPU here." in bench.read_text(encoding="utf-8")
    runs = find_runs(tmp_path)
    assert sorted(run.config.method for run in runs) == ["pebble", "prefvlm", "sac"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert session().count("finished") == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == written
