"""Train a small fleet of every method on a device, and one that is stopped and goes on: whether it works, not how fast.

    python tools/gpu_smoke.py [DEVICE [METHOD ...]]

Each method has a process of its own, as many at a time as there are cores but one. Exit code: how many failed.
"""

import os
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHANGES = {
    "total_steps": 300,
    "exploration.random_steps": 50,
    "exploration.entropy_steps": 50,
    "feedback.session_every": 50,
    "feedback.reset_updates": 10,
    "evaluation.every": 150,
    "evaluation.episodes": 1,
    "evaluation.final_episodes": 2,
}
METHODS = (
    *("sac", "pebble", "prefvlm", "prefvlm-plus", "prefvlm-adaptive", "surf", "rune", "mrn", "rime"),
    *("vlm-reward", "vlm-preference"),
)
STOPPED = "stopped and resumed"


class Stop(Exception):
    """Raised right after a checkpoint."""


def main() -> int:
    device, *methods = sys.argv[1:] or ["cuda"]
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(max(1, cores - 1)) as pool:
        failed = list(pool.map(lambda method: run(device, method), methods or (STOPPED, *METHODS)))
    print(f"{sum(failed)} of {len(failed)} failed on {device}", flush=True)
    return sum(failed)


def run(device: str, method: str) -> bool:
    """Whether it failed in a process of its own."""
    command = [sys.executable, __file__, "--alone", device, method]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ending = "failed" if done.returncode else "ok"
    text = done.stdout + (done.stderr if done.returncode else "")
    print(f"== {method}: {ending} after {time.perf_counter() - begun:.0f} s\n{text}".rstrip(), flush=True)
    return done.returncode != 0


def alone(device: str, method: str) -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            if method == STOPPED:
                return resumed(device, Path(folder))
            for name, value in trained(device, method, folder)[0][-1].items():
                print(f"{name}={value:.4g}", end=" ")
        return 0
    except Exception:  # whatever it is, all of it is wanted
        traceback.print_exc()
        return 1


def trained(device: str, method: str, folder: str | Path, **options: float) -> tuple[list[dict[str, float]], bytes]:
    """The metrics and weights of the first of two runs."""
    from prefvlm_core.config.run import Execution
    from prefvlm_core.methods import run_config
    from prefvlm_core.train import train

    configs = [run_config("drawer-close-v3", method, seed, "laptop", CHANGES) for seed in range(2)]
    execution = Execution(str(folder), device=device, workers=1, progress=False, **options)
    first = train(configs, execution)[0]
    rows = [{name: row[name] for name in row if not name.startswith("seconds")} for row in first.read_metrics()]
    return rows, (first.path / "weights.safetensors").read_bytes()


def resumed(device: str, folder: Path) -> int:
    from prefvlm_core.train import Fleet

    whole = trained(device, "pebble", folder / "whole")
    save = Fleet._save

    def save_and_stop(self: Fleet) -> None:
        save(self)
        if self.replay.size == 150:
            raise Stop

    Fleet._save = save_and_stop
    try:
        trained(device, "pebble", folder / "parts", checkpoint_seconds=0.0)
    except Stop:
        Fleet._save = save
    parts = trained(device, "pebble", folder / "parts", checkpoint_seconds=0.0)
    same = repr(whole[0]) == repr(parts[0]), whole[1] == parts[1]
    print("metrics the same: {}, weights the same: {}".format(*same))
    if not same[0]:
        print(whole[0], parts[0], sep="\n")
    return 0 if all(same) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        sys.exit(alone(*sys.argv[2:]))
    sys.exit(main())
