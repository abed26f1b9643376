"""The one command for a lent GPU, on the CPU and with runs of 150 actions."""

import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch

from prefvlm_core.config.fleets import check_compatible
from prefvlm_core.experiments.fleets import configs_of
from prefvlm_core.runs.stored import find_runs

TOOLS = Path(__file__).parents[2] / "tools"
TINY = {
    "total_steps": 150,
    "exploration.random_steps": 50,
    "exploration.entropy_steps": 50,
    "feedback.reset_updates": 10,
}


def test_a_session_measures_then_trains_and_goes_on(tmp_path: Path) -> None:
    def session() -> str:
        options = ["--device", "cpu", "--profile", "quick", "--tasks", "drawer-close-v3", "--seeds", "1", "--changes"]
        changes = [str(part) for change in TINY.items() for part in change]
        command = [TOOLS / "gpu_session.sh", "600", tmp_path, *options, *changes]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    session()
    bench = tmp_path / "bench.txt"
    if not torch.cuda.is_available():
        assert "Skipped: torch finds no GPU here." in bench.read_text(encoding="utf-8")
    runs = find_runs(tmp_path)
    assert sorted(run.config.method for run in runs) == ["pebble", "pebble", "prefvlm", "sac"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert session().count("finished") == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == written


def test_slices_are_runs_of_the_plan_in_the_order_of_methods() -> None:
    fleets = runpy.run_path(str(TOOLS / "gpu_slices.py"))["Slices"]("results").fleets()
    tasks = ("window-close-v3", "drawer-close-v3", "button-press-v3")
    kinds = [Counter((config.method, config.task) for config in fleet) for fleet in fleets]
    assert kinds[:3] == [{("sac", task): 5, ("pebble", task): 10} for task in tasks]
    assert [set(kind) for kind in kinds[3:]] == [{("prefvlm", task)} for task in tasks]
    assert {config for fleet in fleets for config in fleet} < set(configs_of("02_learning_curves", "paper"))
    for fleet in fleets:
        check_compatible(fleet)
