"""A fleet of every method, killed again and again at random moments, ends as one that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders.runs import content_hash, quiet, small

from prefvlm_core.methods import METHODS
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import train

KILLS = 100
PROGRAM = """
import json, sys
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.train import train
if __name__ == "__main__":
    configs = [RunConfig.from_json(text) for text in json.loads(sys.argv[1])]
    train(configs, Execution(results=sys.argv[2], progress=False, workers=1, checkpoint_seconds=0))
"""


@pytest.mark.slow
def test_a_fleet_of_every_method_survives_a_hundred_kills(tmp_path: Path) -> None:
    configs = [small(method) for method in METHODS]
    undisturbed = [content_hash(directory) for directory in train(configs, quiet(tmp_path / "undisturbed"))]
    program, texts = tmp_path / "program.py", json.dumps([config.to_json() for config in configs])
    program.write_text(PROGRAM, encoding="utf-8")
    patience, kills, fleets = np.random.default_rng(int(time.time())), 0, 0
    while kills < KILLS:
        results = tmp_path / f"killed-{fleets}"
        while (ended := train_for_a_while(program, texts, results, patience.uniform(0, 2))) is None:
            kills += 1
        assert ended == 0
        fleets += 1
        assert [content_hash(RunDirectory(results, config)) for config in configs] == undisturbed
        assert not list(results.glob("quick/fleets/*")) and not list(results.rglob("*.tmp"))
        print(f"{kills} kills, {fleets} fleets", flush=True)


def train_for_a_while(program: Path, texts: str, results: Path, seconds: float) -> int | None:
    """Train until some `seconds` after the next change in the fleet's folder; the exit code, or None if killed."""
    before = changed(results)
    process = subprocess.Popen([sys.executable, str(program), texts, str(results)], env=dict(os.environ))
    while process.poll() is None and changed(results) == before:
        time.sleep(0.01)
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if process.poll() is not None:
        return process.returncode
    process.send_signal(signal.SIGKILL)
    process.wait()
    return None


def changed(results: Path) -> list[str]:
    return sorted(path.name for path in results.glob("quick/fleets/*/*"))
