"""What the job of a fleet asks for: time, memory, cores and GPUs, with a margin over what `costs` counts.

A job that meets its limits is started again with higher ones, and its runs go on from their last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefvlm_core.config.run import RunConfig
from prefvlm_core.experiments.costs import fleet_cost
from prefvlm_core.experiments.timings import DRAWING_CORES, TIMINGS
from prefvlm_core.vlm import asks_endpoint, uses_vlm


@dataclass(frozen=True)
class Resources:
    """What a job asks for."""

    minutes: int
    megabytes: int
    cpus: int
    gpus: int


def fleet_resources(configs: Sequence[RunConfig], device: str) -> Resources:
    """What a fleet of `configs` needs on `device`, cpu or cuda: half as much time again as `TIMINGS` say, and ten
    minutes for the start; a quarter more memory than its runs hold, and that of the programs, of which a GPU's step all
    episodes of an evaluation at once."""
    cost, on_gpu = fleet_cost(configs, TIMINGS[device]), device == "cuda"
    draws = any(uses_vlm(config) or asks_endpoint(config) for config in configs)
    minutes = 10 + 1.5 * sum(cost.seconds.values()) / 60
    # A GPU learns faster than one process can step environments, and much faster than it can draw frames. On a CPU the
    # learner is the slower part, and runs best on one thread, so fleets run side by side, one per core.
    cpus, gpus = (DRAWING_CORES if draws else 4, 1) if on_gpu else (1, 0)
    programs = 6_000 + 25 * len(configs) * configs[0].evaluation.final_episodes if on_gpu else 2_000
    programs += 150 * cpus if draws else 0  # OpenGL, in each process that draws
    megabytes = 1.25 * cost.memory / 1e6 + programs
    return Resources(math.ceil(minutes), math.ceil(megabytes), cpus, gpus)
