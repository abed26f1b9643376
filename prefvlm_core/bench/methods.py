"""The cost of the baselines: the training loop of a fleet of all methods compared with a fleet of PEBBLE runs."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence

from prefvlm_core.bench import Measurement
from prefvlm_core.config.run import Execution
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.train import train

TASK = "drawer-close-v3"
FLEET = 16
ROUNDS = 2
CHANGES = {"total_steps": 4_000, "evaluation.every": 4_000, "evaluation.final_episodes": 1}


def measure() -> list[Measurement]:
    """All measurements in profile `quick`, in about 15 minutes on two slow cores; the fleets take turns."""
    mixed = [method for method in METHODS if method != "mrn"]
    mixed = [mixed[index % len(mixed)] for index in range(FLEET)]
    with_mrn = ["mrn", *mixed[1:]]
    rounds = [[_speed(methods) for methods in (["pebble"] * FLEET, mixed, with_mrn)] for _ in range(ROUNDS)]
    pebble, many, more = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
    ratios = [statistics.median(speeds[index] / speeds[0] for speeds in rounds) for index in (1, 2)]
    against = f"{FLEET} PEBBLE runs"
    return [
        Measurement(f"fleet of {FLEET} PEBBLE runs", pebble, "run-steps/s", "", ""),
        Measurement(f"fleet of {FLEET}, all methods but MRN", many, "run-steps/s", "", ""),
        Measurement(f"fleet of {FLEET}, all methods", more, "run-steps/s", "", ""),
        Measurement("all methods but MRN ÷ PEBBLE", ratios[0], "×", against, "≥ 0.6"),
        Measurement("all methods ÷ PEBBLE", ratios[1], "×", against, ""),
    ]


def _speed(methods: Sequence[str]) -> float:
    configs = [run_config(TASK, method, seed, "quick", CHANGES) for seed, method in enumerate(methods)]
    with tempfile.TemporaryDirectory() as results:
        last = train(configs, Execution(results=results, device="cpu", progress=False))[0].read_metrics()[-1]
    steps = CHANGES["total_steps"]
    return len(methods) * steps / (last["seconds"] - last["seconds_evaluation"])
