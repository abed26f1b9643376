"""Train slices of notebook 02's plan: sac and pebble of each task as one fleet, then prefvlm.

    python tools/gpu_slices.py --results FOLDER [--tasks window-close-v3] [--methods sac+pebble] [--vlm-weights FILE]

What is finished in FOLDER stays, and what was stopped goes on. `prefvlm pack` publishes such runs as any others.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import tyro

from prefvlm_core.checks.start import check_start
from prefvlm_core.common.console import exit_code
from prefvlm_core.config.run import Execution, RunConfig, replace
from prefvlm_core.experiments.fleets import plan
from prefvlm_core.train import train


@dataclass(frozen=True)
class Slices:
    """What to train, and where."""

    results: str
    """Folder of all runs."""
    device: str = "cuda"
    profile: str = "paper"
    tasks: tuple[str, ...] = ("window-close-v3", "drawer-close-v3", "button-press-v3")
    methods: tuple[str, ...] = ("sac+pebble", "prefvlm")
    """Those joined by a + are trained at once. A GPU learns hardly longer for 15 runs than for five, but the labels of
    prefvlm take time in which the others would wait."""
    seeds: int = 5
    """How many of the plan's seeds, the first ones."""
    vlm_weights: str = ""
    """Checkpoint file of LIV, for prefvlm in profile paper."""
    changes: dict[str, int] = field(default_factory=dict)
    """Dotted config fields in which a trial differs from the plan."""

    def fleets(self) -> list[list[RunConfig]]:
        """The planned runs of each task and methods, with all numbers of labels."""
        configs = [run.config for run in plan("02_learning_curves", self.profile)]
        seeds = sorted({config.seed for config in configs})[: self.seeds]
        chosen = [
            [c for c in configs if c.task == task and c.method in methods.split("+") and c.seed in seeds]
            for methods in self.methods
            for task in self.tasks
        ]
        return [[replace(config, self.changes) for config in fleet] for fleet in chosen if fleet]


def main() -> int:
    """Train the slices that the command line asks for."""
    slices = tyro.cli(Slices, description=__doc__)
    execution, fleets = Execution(slices.results, device=slices.device, vlm_weights=slices.vlm_weights), slices.fleets()
    for fleet in fleets:
        check_start(fleet, execution)  # before an hour is spent on those that come first
    for fleet in fleets:
        train(fleet, execution)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
