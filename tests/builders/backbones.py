"""Stand-ins for models and beds whose quality is known, and made-up results of judged models."""

import itertools

import numpy as np
import pandas as pd

from prefvlm_core.analysis.backbone_results import BackboneResults
from prefvlm_core.analysis.beds import MIXED, REPLAY, Bed
from prefvlm_core.analysis.vlm_quality import KINDS, LABELS, STATE
from prefvlm_core.vlm import VisionLanguageModel

SEGMENT = 4
"""Frames in a segment of `bed_of`."""
TASKS = ("door-close-v3", "button-press-v3", "window-open-v3", "window-close-v3")
DRAWS = {REPLAY: ("sac", "pebble"), MIXED: ("0", "1", "2")}


class Reader(VisionLanguageModel):
    """A stand-in whose cosine is a function of the brightness of a frame, -1..1."""

    frame_size, fingerprint = 16, "reader"

    def __init__(self, function):
        self.function = function

    def encode_image(self, frames):
        cosine = self.function(frames[:, 0, 0, 0] / 256)
        return np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1).astype(np.float32)

    def encode_task(self, task):
        return np.float32([1, 0])


def bed_of(rewards, kind=REPLAY) -> Bed:
    """Episodes whose frames are as bright as their rewards (N, F), whole numbers of 0 to 255."""
    frames = np.tile(rewards.astype(np.uint8)[..., None, None, None], (1, 1, 16, 16, 3))
    noise = np.random.default_rng(1).standard_normal((*rewards.shape, 3))
    states = np.concatenate([noise, rewards[..., None] / 100], axis=2).astype(np.float32)
    actions = np.zeros((*rewards.shape, 4), np.float32)
    return Bed(kind, "door-close-v3", "sac", frames, rewards.astype(float), states, actions, SEGMENT)


def judged(models=("tinyliv", "tinyliv-heldout", "tinyliv-indomain", "random"), tasks=TASKS) -> BackboneResults:
    """Models judged on every bed with numbers of their own; "liv" is missing."""
    generator = np.random.default_rng(0)
    beds = [(kind, task, draw) for kind in DRAWS for task in tasks for draw in DRAWS[kind]]
    readers = [("zero-shot", 0), *itertools.product(("adapters", "ridge"), LABELS)]
    rows = []
    for (kind, task, draw), model, (reader, count) in itertools.product(beds, (*models, STATE), readers):
        if (model == STATE and (reader != "ridge" or kind == MIXED)) or (kind == MIXED and reader == "adapters"):
            continue
        row = {"model": model, "kind": kind, "task": task, "draw": draw, "reader": reader, "labels": count}
        row |= dict(zip(KINDS, generator.uniform(0.5, 0.9, len(KINDS)), strict=True))
        names = ("error_correlation", "episode_order", "calibration_error", "scaled_calibration_error")
        rows.append(row | dict(zip(names, generator.uniform(0, 0.5, len(names)), strict=True)))
    about = [{"model": "liv", "missing": "It needs open_clip, which is not installed."}]
    about += [
        {"model": model, "fingerprint": model, "frame_size": 64, "parameters": 1.5e6, "milliseconds": 0.4}
        for model in models
    ]
    films = [
        {"model": model, "task": task, "draw": draw, "value_order": generator.uniform(-0.2, 1)}
        for model, task, draw, _ in itertools.product(models, tasks, "012", range(2))
    ]
    return BackboneResults(pd.DataFrame(about), pd.DataFrame(rows), pd.DataFrame(films))
