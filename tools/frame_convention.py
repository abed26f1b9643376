"""How much it matters whether the frame before or after an action stands for its step.

    python tools/frame_convention.py [TASK ...]

Trains PEBBLE for 4,000 actions of profile laptop on each task and labels random pairs of what it has seen with
TinyLIV's zero-shot returns, once with the frames before the actions and once with those after them. Takes some minutes.
"""

import sys
import tempfile

import numpy as np
import torch

from prefvlm_core.config.profiles import FIRST_EDITION
from prefvlm_core.config.run import Execution
from prefvlm_core.domains.fleet import EnvironmentFleet
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.methods import run_config
from prefvlm_core.runs.checkpoint import lock_runs
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import Fleet
from prefvlm_core.vlm import load

TASKS = ["door-close-v3", "button-press-v3", "window-open-v3", "window-close-v3"]
PAIRS = 20_000
BRIEF = {"total_steps": 4_000, "evaluation.every": 4_000, "evaluation.episodes": 1, "evaluation.final_episodes": 1}


def main() -> None:
    torch.set_num_threads(1)
    configs = [run_config(task, "pebble", 300, "laptop", BRIEF, FIRST_EDITION) for task in sys.argv[1:] or TASKS]
    shared, model = configs[0], load("tinyliv")
    with tempfile.TemporaryDirectory() as results:
        execution = Execution(results, workers=1, progress=False)
        directories = [RunDirectory(results, config) for config in configs]
        tasks = [config.task for config in configs]
        fleet_of_environments = EnvironmentFleet(tasks, shared.horizon, 1, shared.action_repeat)
        with lock_runs(directories, results), fleet_of_environments as environments:
            for directory in directories:
                directory.open()
            fleet = Fleet(directories, environments, execution)
            fleet.train()
    for run, config in enumerate(configs):
        seen, text = fleet.replay.of_run(run), model.encode_task(config.task)
        renderer = FrameRenderer(config.task, model.frame_size)
        cosines = np.stack(
            [
                model.encode_image(renderer.render(snapshots, np.repeat(scene[None], len(snapshots), 0))) @ text
                for snapshots, scene in zip(seen.snapshots, seen.scenes, strict=True)
            ]
        )
        renderer.close()
        length = config.feedback.segment_length
        starts = seen.draw_segments(np.random.default_rng(1), PAIRS, length, seen.complete_episodes)
        truth = seen.true_labels(starts, length)
        episodes, within = np.divmod(starts[..., None] + np.arange(length), seen.horizon)
        before, after = (np.diff(cosines[episodes, within + shift].sum(-1))[:, 0] > 0 for shift in (0, 1))
        right = [100 * np.mean((said == truth)[truth != 0.5]) for said in (before, after)]
        print(
            f"{config.task}: {100 * np.mean(before != after):.1f} % of labels differ; "
            f"right before the action {right[0]:.1f} %, after it {right[1]:.1f} %"
        )


if __name__ == "__main__":
    main()
