"""The cost of the vision-language model: the share of a run's wall time spent on frames, labels and adapters."""

import tempfile

from prefvlm_core.bench import Measurement
from prefvlm_core.config.run import Execution
from prefvlm_core.methods import run_config
from prefvlm_core.train import train

_PARTS = ("rendering", "embedding", "labels", "adapters")
_STEPS = 1_400  # four sessions; the adapters' first and longest learning weighs more than in a whole run


def measure() -> list[Measurement]:
    """One PrefVLM run of profile `laptop` on its own, shortened; about two minutes."""
    config = run_config("button-press-v3", "prefvlm", 0, "laptop", {"total_steps": _STEPS})
    with tempfile.TemporaryDirectory() as results:
        last = train([config], Execution(results=results, device="cpu", progress=False))[0].read_metrics()[-1]
    rows = [
        Measurement(f"prefvlm run: {part}", last[f"seconds_{part}"] / last["seconds"], "of its time", "laptop", "")
        for part in _PARTS
    ]
    share = sum(row.value for row in rows)
    return [*rows, Measurement("prefvlm run: all of the VLM part", share, "of its time", "laptop", "≤ 0.25")]
