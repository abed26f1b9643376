"""The example data set of docs/howto/exchange_labels.md: labels that a script gave in the labeler's queue.

    python tools/example_labels.py FOLDER

Trains a short PrefVLM run that asks about pairs drawn at random. A scripted annotator answers them through the queue as
a person would, and they are exported to a new FOLDER in the plain form, with a card and a license. Takes about a
minute. The same versions on the same kind of processor give the same bytes.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from prefvlm_core import __version__
from prefvlm_core.config.run import Execution
from prefvlm_core.experiments.background import annotate_by_script, train_in_background
from prefvlm_core.labelling.exchange.data import SCRIPT, PreferenceData, table_of
from prefvlm_core.labelling.exchange.folder import fill_folder, new_folder
from prefvlm_core.labelling.exchange.sources import data_of_queue
from prefvlm_core.labelling.teacher import open_queue
from prefvlm_core.methods import run_config

CONFIG = run_config(
    "drawer-close-v3",
    "prefvlm-random-selection",
    0,
    "quick",
    {
        "total_steps": 1_500,
        "feedback.teacher": "human",
        "feedback.budget": 12,
        "feedback.first_session_queries": 4,
        "feedback.session_every": 300,
        "evaluation.every": 1_500,
        "evaluation.final_episodes": 1,
    },
)
SIZE = 112
"""Height and width of the frames, pixels."""

CARD = """---
license: cc0-1.0
---
# Scripted labels: an example of preference data

**No person gave these labels.** A script answered the {pairs} pairs of a short training in prefvlm's label queue, by
the true reward of the simulation. They show the format, and say nothing about people.

| | |
|---|---|
| task | {task} (Meta-World, simulated) |
| run | `{run_id}` |
| pairs | {pairs}, of {clips} clips |
| labels | {script} of teacher `script`, {vlm} of teacher `vlm` ({model}) |
| clips | {length} actions, each held for {repeat} environment steps, with observations and actions |
| frames | {length} of {size} x {size} pixels |
| times | left out: how long a script takes means nothing |
| license | CC0 1.0, see LICENSE |
| made by | `python tools/example_labels.py FOLDER` |
| with | {versions} |

The tables are described in docs/howto/exchange_labels.md.
"""
LICENSE = """SPDX-License-Identifier: CC0-1.0

The prefvlm contributors dedicate the content of this folder to the public domain under CC0 1.0 Universal:
https://creativecommons.org/publicdomain/zero/1.0/legalcode
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as results:
        execution = Execution(results, workers=1, progress=False, keep_replay=True)
        queue = open_queue(execution)
        annotate_by_script(queue, SCRIPT, train_in_background(CONFIG, execution))
        data = _without_times(data_of_queue(queue.database, CONFIG.run_id, results, SIZE))
    with new_folder(Path(sys.argv[1])) as folder:
        fill_folder(data, folder)
        (folder / "README.md").write_text(_card(data), encoding="utf-8")
        (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")


def _without_times(data: PreferenceData) -> PreferenceData:
    labels = [row | {"seconds": None, "answered_at": None} for row in data.labels.to_pylist()]
    return PreferenceData(data.clips, data.pairs, table_of("labels", labels), data.strips)


def _card(data: PreferenceData) -> str:
    teachers = data.labels["teacher"].to_pylist()
    names = ("torch", "numpy", "mujoco", "metaworld", "pillow", "pyarrow")
    versions = [f"prefvlm {__version__}", f"python {platform.python_version()}"]
    return CARD.format(
        pairs=len(data.pairs),
        clips=len(data.clips),
        script=teachers.count(SCRIPT),
        vlm=teachers.count("vlm"),
        task=CONFIG.task,
        run_id=CONFIG.run_id,
        model=CONFIG.vlm.model,
        length=CONFIG.feedback.segment_length,
        repeat=CONFIG.action_repeat,
        size=SIZE,
        versions=", ".join([*versions, *(f"{name} {version(name)}" for name in names)]),
    )


if __name__ == "__main__":
    main()
