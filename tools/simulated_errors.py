"""Which errors of a VLM the KL filter can remove, and which not.

    python tools/simulated_errors.py [TASK ...]

Trains PEBBLE on each task in profile laptop and then holds PrefVLM's feedback sessions over what it has seen, as far
as each of them would have seen it, with every kind of simulated VLM, right in 80 of 100 pairs, behind the filter and
without one. No policy is trained on the labels, so every VLM judges the same segments. Takes a quarter of an hour.

Prints a table over all tasks. Of the labels when they were given: how often the VLM was wrong, in all and in each part
that the filter makes (`analysis.label_quality.error_rates`), and the correlation of its errors with those of the reward
ensemble, which had not learned from these labels. `ensemble_right`: how often the ensemble of the last session orders
random pairs of all that was seen rightly.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.analysis.label_quality import error_correlations, error_rates
from prefvlm_core.common.seeding import Generators, Stream
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.config.groups import SIMULATED_VLMS
from prefvlm_core.config.profiles import FIRST_EDITION
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import Renderers
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.feedback import Feedback, make_feedback
from prefvlm_core.methods import run_config
from prefvlm_core.reward.ensemble import RewardEnsemble, reward_accuracy
from prefvlm_core.reward.learning import learn_together
from prefvlm_core.runs.checkpoint import lock_runs
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import Fleet
from prefvlm_core.vlm.encoder import FleetEncoder

TASKS = ["door-close-v3", "button-press-v3", "window-open-v3", "window-close-v3"]
ACCURACY = 0.8
LABELS = 50
"""Of the human: ten in the first session, the others before the end."""
BRIEF = {"total_steps": 3_100, "evaluation.every": 3_100, "evaluation.episodes": 1, "evaluation.final_episodes": 1}
BRIEF |= {"evaluation.held_out_pairs": 10_000, "feedback.budget": LABELS}
BRIEF |= {"feedback.first_session_queries": 10, "feedback.session_queries": 5}


def seen_by_pebble(tasks: list[str]) -> Replay:
    """What PEBBLE saw in training, a run for each task."""
    configs = [run_config(task, "pebble", 300, "laptop", BRIEF, FIRST_EDITION) for task in tasks]
    with tempfile.TemporaryDirectory() as results:
        directories = [RunDirectory(results, config) for config in configs]
        environments = EnvironmentFleet(tasks, configs[0].horizon, 1, configs[0].action_repeat)
        with lock_runs(directories, results), environments as fleet:
            for directory in directories:
                directory.open()
            training = Fleet(directories, fleet, Execution(results, workers=1, progress=False))
            training.train()
    return training.replay


def hold_sessions(replay: Replay, configs: list[RunConfig]) -> list[Feedback]:
    """Every feedback session that the runs would have held, over the replay as it was then, and what they learned."""
    generators, first, size = Generators([config.seed for config in configs]), configs[0], replay.size
    inputs, initialization = OBSERVATION_SIZE + ACTION_SIZE, generators[Stream.INITIALISATION]
    ensemble = RewardEnsemble(first.reward, inputs, initialization, torch.device("cpu"), first.task)
    encoder = FleetEncoder(configs, replay, Renderers(), Path(), Stopwatch())
    held = make_feedback(configs, replay, ensemble, encoder, generators, Stopwatch(), Execution())
    for run, feedback in enumerate(held):
        for step in filter(feedback.due, range(size)):
            replay.size = step
            feedback.session()
            learn_together(ensemble, replay, {run: feedback.learn_rewards()})
        replay.size = size
    return held


def compare(replay: Replay, tasks: list[str], seed: int) -> pd.DataFrame:
    """The table, over all tasks: a row for each kind of VLM with and without the filter, and one for the human alone.

    Run i of the replay is of task i.
    """
    logs, ends = [], []
    for arm, (method, changes) in arms().items():
        configs = [run_config(task, method, seed, "laptop", BRIEF | changes, FIRST_EDITION) for task in tasks]
        for config, feedback in zip(configs, hold_sessions(replay, configs), strict=True):
            named = {"profile": config.profile, "task": config.task, "method": method, "arm": arm, "seed": seed}
            logs.append(feedback.labels.log.frame().assign(run_id=config.run_id, **named))
            pairs = np.random.default_rng(0)  # the same for every VLM
            right = reward_accuracy(feedback.replay, feedback.ensemble, config, pairs)
            ends.append({"arm": arm, "ensemble_right": right})
    labels = pd.concat(logs)
    rates = error_rates(labels).merge(error_correlations(labels), on="arm")
    return rates.merge(pd.DataFrame(ends).groupby("arm", as_index=False, sort=False).mean(), on="arm", how="right")


def arms() -> dict[str, tuple[str, dict[str, object]]]:
    """Name -> method, and the fields in which it differs from its recipe."""
    found: dict[str, tuple[str, dict[str, object]]] = {"human alone": ("pebble", {})}
    for kind in SIMULATED_VLMS:
        vlm = {"vlm.model": f"{kind}:{ACCURACY:g}", "adapter.enabled": False}
        found[f"{kind}, filter"] = ("prefvlm", vlm)
        found[f"{kind}, no filter"] = ("prefvlm-no-filter", vlm)
    return found


def main() -> None:
    torch.set_num_threads(1)
    tasks = sys.argv[1:] or TASKS
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(compare(seen_by_pebble(tasks), tasks, 300).round(3))


if __name__ == "__main__":
    main()
