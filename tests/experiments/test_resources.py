"""What a fleet needs, against what was counted and measured."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prefvlm_core.agent.sac import SAC, Batch
from prefvlm_core.config.memory import memory_needed
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.experiments.resources import (
    COSTS,
    Costs,
    fleet_bytes,
    fleet_resources,
    fleet_seconds,
    update_gigaflop,
)
from prefvlm_core.methods import run_config
from prefvlm_core.runs.stored import find_runs

RESULTS = Path(__file__).parents[2] / "results"
TASK = "drawer-close-v3"


def paper(method: str) -> RunConfig:
    return run_config(TASK, method, 0, "paper")


@pytest.mark.parametrize("changes", [{}, {"sac.hidden_layers": 2, "sac.width": 128, "sac.batch_size": 100}])
def test_the_operations_of_an_update_are_those_that_torch_counts(changes: dict[str, int]) -> None:
    config = run_config(TASK, "sac", 0, "paper", changes)
    generators = [np.random.default_rng(0)]
    agent = SAC.create(config.sac, OBSERVATION_SIZE, ACTION_SIZE, generators, torch.device("cpu"), [0.1])
    size = config.sac.batch_size
    states, actions, rewards = (
        torch.zeros(1, size, OBSERVATION_SIZE),
        torch.zeros(1, size, ACTION_SIZE),
        torch.zeros(1, size),
    )
    batch = Batch(states, actions, rewards, states)
    with FlopCounterMode(display=False) as counter:
        agent.update(batch, agent.update_noise(generators), True)
    assert update_gigaflop(config) == pytest.approx(
        counter.get_total_flops() / 1e9, rel=0.15
    )  # no gradient leads to a first layer's inputs


def test_the_time_is_that_of_the_stored_fleets() -> None:
    """Of 63 fleets of profile laptop, trained beside other work on the machine that `COSTS` describes."""
    stored = pandas.read_csv(RESULTS / "laptop" / "runs.csv").set_index("run_id")
    stored = stored[stored["status"] == "finished"]
    fleets: dict[str, list[RunConfig]] = defaultdict(list)
    for run in find_runs(RESULTS, "laptop"):
        if run.run_id in stored.index:
            fleets[stored.loc[run.run_id, "fleet_hash"]].append(run.config)
    measured = stored.groupby("fleet_hash")["seconds"].first()
    estimated = pandas.Series({name: fleet_seconds(configs, COSTS["cpu"]) for name, configs in fleets.items()})
    assert len(estimated) > 50 and 0.75 < estimated.sum() / measured.sum() < 1.33
    assert ((estimated / measured).between(0.5, 2)).mean() > 0.9
    limits = pandas.Series({name: fleet_resources(configs, "cpu").minutes for name, configs in fleets.items()})
    assert (60 * limits).gt(measured).mean() > 0.9  # the others go on at the second attempt


def test_the_time_counts_what_a_run_does() -> None:
    nothing = dict.fromkeys(
        ("run_step", "learning", "labelling", "environment", "session", "frame", "large_frame"), 0.0
    )

    def seconds(method: str, **costs: float) -> float:
        return fleet_seconds([paper(method)] * 2, Costs(**({"step": 0.0, "reading": 0.0} | nothing | costs)))

    assert seconds("sac", step=1) == 1_000_000  # of the fleet, not of each run
    assert seconds("sac", run_step=1) == 2_000_000
    assert seconds("sac", environment=1) == 2 * (1_000_000 + (100 + 1) * 10 * 500)  # 10 episodes each 10,000 steps
    assert seconds("sac", session=1) == 0
    sessions = (1_000_000 - 6_000) // 3_000
    assert seconds("pebble", session=1) == 2 * sessions == 2 * 331
    assert seconds("pebble", large_frame=1) == 0
    assert seconds("prefvlm", large_frame=1) == 2_000_000 and seconds("prefvlm", frame=1) == 0
    # Each session labels again the pairs of all sessions so far, but adapts no frame twice: half a run's on average.
    assert seconds("prefvlm", reading=1) == 2 * sessions * 500_000
    few = [run_config(TASK, "prefvlm", 0, "paper", {"vlm.queries": 1})]
    once = Costs(step=0.0, reading=1.0, **nothing)
    assert fleet_seconds(few, once) == sum(100 * (session + 1) for session in range(sessions))  # 50 frames on each side


def test_the_memory_of_a_fleet_is_that_of_its_runs() -> None:
    configs = [paper("prefvlm"), paper("pebble")]
    assert fleet_bytes(configs) == sum(sum(memory_needed(config).values()) for config in configs)


def test_a_gpu_is_asked_for_by_the_device_alone() -> None:
    on_cpu, on_gpu = (fleet_resources([paper("sac")], device) for device in ("cpu", "cuda"))
    assert (on_cpu.cpus, on_cpu.gpus) == (1, 0) and (on_gpu.cpus, on_gpu.gpus) == (4, 1)
    assert on_gpu.minutes < on_cpu.minutes and on_gpu.megabytes > on_cpu.megabytes
