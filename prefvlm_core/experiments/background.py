"""Train in a process of its own while people, or a script that stands in for them, answer its queries."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.queue import LabelQueue
from prefvlm_core.runs.files import write_probe

_TRAIN = """
import json, sys
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.train import train
config, execution = json.load(sys.stdin)
execution = Execution(**execution)  # first, because it imports the plugin
train([RunConfig.from_json(config)], execution)
"""


def train_in_background(config: RunConfig, execution: Execution) -> subprocess.Popen[bytes]:
    """Train a run in a process that outlives this one; its output goes to `<results>/logs/<hash>.log`.

    Starting it again is safe: a finished run is left alone, a run in training is locked, and a killed one is resumed.
    Raises `PrefVLMError` if the folder of the log cannot be written.
    """
    logs = Path(execution.results) / "logs"
    write_probe(logs)
    # Through the standard input: what is on a command line, and so a database's password, is shown to every user.
    task = json.dumps([config.to_json(), dataclasses.asdict(execution)]).encode()
    with (logs / f"{config.hash}.log").open("ab") as output, tempfile.TemporaryFile() as given:
        given.write(task)
        given.seek(0)
        # A session of its own, because restarting a notebook's kernel ends every process of the kernel's group.
        command = [sys.executable, "-c", _TRAIN]
        return subprocess.Popen(command, stdin=given, stdout=output, stderr=output, start_new_session=True)


def annotate_by_script(
    queue: LabelQueue, name: str, process: subprocess.Popen[bytes], mistake: float = 0.0, seed: int = 0
) -> int:
    """Answer according to the true reward until a training has ended, through the queue exactly as a person would.

    Args:
        queue: The queue to which the training posts its pairs.
        name: Name of the annotator.
        process: The training, as `train_in_background` returns it.
        mistake: Probability of giving the opposite answer.
        seed: Determines which answers are mistakes.

    Returns:
        The number of answers given.

    Raises:
        PrefVLMError: If the training fails.
    """
    annotator, generator, given = Annotator(queue, name), np.random.default_rng(seed), 0
    while True:
        ended = process.poll() is not None
        question = annotator.claim()
        if question is None and ended:
            if process.returncode:
                raise PrefVLMError(f"Training ended with exit code {process.returncode}; see its log in results/logs.")
            return given
        if question is None:
            time.sleep(0.1)
            continue
        annotator.answer(question, true_choice(question.truth, question.swapped, generator.random() < mistake), 0.1)
        given += 1


def true_choice(truth: float | None, swapped: bool, mistaken: bool = False) -> str:
    """The choice that the true reward implies: `truth` is P(second preferred), None if unknown.

    `swapped` says whether the second segment is shown on the left; `mistaken` swaps "left" and "right".
    """
    if truth is None:
        return "skip"
    if truth == 0.5:
        return "equal"
    return "left" if (truth == 0) ^ swapped ^ mistaken else "right"
