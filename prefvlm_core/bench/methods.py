"""The cost of the baselines: the training loop of a fleet of all methods compared with a fleet of PEBBLE runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefvlm_core.bench import Group
from prefvlm_core.bench.rounds import compared
from prefvlm_core.config.run import Execution
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.train import train

TASK = "drawer-close-v3"
FLEET = 16
WHOLE = {"total_steps": 4_000}
QUICK = {
    "rounds": 1,
    "changes": {
        "total_steps": 350,  # two sessions, after 100 and 300 actions
        "exploration.random_steps": 50,
        "exploration.entropy_steps": 50,
        "feedback.reset_updates": 10,
    },
}


def measure(rounds: int = 2, changes: Mapping[str, Any] = WHOLE) -> Group:
    """Three fleets in profile `quick` with some `changes`, which take turns.

    Takes 15 minutes on two slow cores, a quick one a minute and a half.
    """
    cheaper = [method for method in METHODS if method != "mrn"]
    cheaper = [cheaper[index % len(cheaper)] for index in range(FLEET)]
    fleets = {"PEBBLE": ["pebble"] * FLEET, "all methods but MRN": cheaper, "all methods": ["mrn", *cheaper[1:]]}
    taken = [[_speed(methods, changes) for methods in fleets.values()] for _ in range(rounds)]
    pebble, but_mrn, every = np.array(taken).T
    unit, against = "run-steps/s", f"{FLEET} PEBBLE runs"
    rows = [
        compared(f"fleet of {FLEET}, all methods but MRN", unit, but_mrn, pebble, against, "≥ 0.6"),
        compared(f"fleet of {FLEET}, all methods", unit, every, pebble, against),
    ]
    share = 100 * float(np.median(every / pebble))
    return Group(rows, f"All methods together reach {share:.0f} % of the speed of PEBBLE alone.")


def _speed(methods: Sequence[str], changes: Mapping[str, Any]) -> float:
    steps = changes["total_steps"]
    fields = {**changes, "evaluation.every": steps, "evaluation.final_episodes": 1}
    configs = [run_config(TASK, method, seed, "quick", fields) for seed, method in enumerate(methods)]
    with tempfile.TemporaryDirectory() as results:
        last = train(configs, Execution(results=results, device="cpu", progress=False))[0].read_metrics()[-1]
    return len(methods) * steps / (last["seconds"] - last["seconds_evaluation"])
