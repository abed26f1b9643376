"""What a job asks for, against the fleets that were trained."""

import pandas
import pytest
from builders.fleets import STORED, stored_fleets

from prefvlm_core.config.memory import memory_needed
from prefvlm_core.experiments.costs import seconds_by_part
from prefvlm_core.experiments.resources import fleet_resources
from prefvlm_core.experiments.timings import TIMINGS
from prefvlm_core.methods import run_config


def test_most_stored_fleets_end_within_the_first_limit() -> None:
    measured = STORED.groupby("fleet_hash")["seconds"].first()
    limits = pandas.Series({name: fleet_resources(configs, "cpu").minutes for name, configs in stored_fleets().items()})
    assert (60 * limits).gt(measured).mean() > 0.9  # the others go on at the second attempt


def test_time_and_memory_have_their_margins() -> None:
    fleet = [run_config("drawer-close-v3", method, 0, "paper") for method in ("prefvlm", "pebble")]
    asked, seconds = fleet_resources(fleet, "cpu"), sum(seconds_by_part(fleet, TIMINGS["cpu"]).values())
    assert asked.minutes == pytest.approx(10 + 1.5 * seconds / 60, abs=1)
    held = sum(sum(memory_needed(config).values()) for config in fleet)
    assert asked.megabytes == pytest.approx(2_000 + 150 + 1.25 * held / 1e6, abs=1)


def test_a_gpu_is_asked_for_by_the_device_alone() -> None:
    fleet = [run_config("drawer-close-v3", "sac", 0, "paper")]
    on_cpu, on_gpu = (fleet_resources(fleet, device) for device in ("cpu", "cuda"))
    assert (on_cpu.cpus, on_cpu.gpus) == (1, 0) and (on_gpu.cpus, on_gpu.gpus) == (4, 1)
    # Programs on a GPU are larger, and each of ten episodes has a simulator of its own.
    assert on_gpu.minutes < on_cpu.minutes and on_gpu.megabytes == on_cpu.megabytes + 4_000 + 10 * 25
    for method, model in (("prefvlm", "liv"), ("vlm-preference", "endpoint:gemma3:4b")):
        seeing = [run_config("drawer-close-v3", method, 0, "paper", {"vlm.model": model, "vlm.ties": "drop"})]
        assert fleet_resources(seeing, "cuda").cpus == 16  # which draw frames
    assert fleet_resources([run_config("drawer-close-v3", "pebble", 0, "paper")], "cuda").cpus == 4
