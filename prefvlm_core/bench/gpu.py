"""What a GPU does with what takes most of a run: updates of fleets, their training, and embeddings by a model of LIV's
size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.bench import Group, Measurement
from prefvlm_core.bench.learner import Learner, our_loop
from prefvlm_core.bench.rounds import seconds_of
from prefvlm_core.bench.vlm import untrained_rn50
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm.embedding import noise_frames

FLEETS = (1, 4, 16, 64, 256)
QUICK = {"fleets": (1, 16), "updates": 50, "rounds": 2, "images": 256}
_CPU = torch.device("cpu")


def measure(
    fleets: Sequence[int] = FLEETS, updates: int = 200, rounds: int = 3, images: int = 2_048, device: str = "cuda"
) -> Group:
    """Fleets of each size on `device`, against the CPU first, and `images` embedded by an untrained RN50.

    Nothing is measured where torch finds no such device. Takes three minutes on a GPU, which no machine has shown yet.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return Group([], "No GPU was measured.", ("Skipped: torch finds no GPU here.",))
    where = torch.device(device)
    rows = [_difference(where, exact) for exact in (True, False)]
    speeds = {runs: _updates_per_second(runs, updates, rounds, where) for runs in fleets}
    rows += [Measurement(f"updates, fleet of {runs}", "run-updates/s", speed) for runs, speed in speeds.items()]
    loops = {runs: our_loop(runs, 4 * updates, device) for runs in fleets}
    rows += [Measurement(f"training loop, fleet of {runs}", "run-steps/s", speed) for runs, speed in loops.items()]
    embedding, skipped = _embedding_speed(images, rounds)
    rows += embedding
    best = max(loops, key=loops.__getitem__)
    hours = 1e6 / loops[best] / 3600
    limit = f"A fleet of {best} is fastest: a million actions of a run take {hours:.2g} of its hours."
    return Group(rows, limit, skipped)


def _difference(device: torch.device, exact: bool) -> Measurement:
    """By how much the parameters that `device` learns differ from the CPU's; not `exact`, with TF32, as in training."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = not exact
    largest = float((_learned(device) - _learned(_CPU)).abs().max())
    torch.backends.cuda.matmul.allow_tf32 = before
    title = f"20 updates, difference to the CPU, {'float32' if exact else 'TF32'}"
    return Measurement(title, "of a parameter", largest, target="≤ 0.0001" if exact else "≤ 0.01")


def _learned(device: torch.device) -> Tensor:
    """The parameters of actors and critics after 20 updates."""
    learner = Learner.create(4, device)
    learner.learn(20)
    return torch.cat([networks.values.flatten().cpu() for networks in (learner.agent.actor, learner.agent.critic)])


def _updates_per_second(runs: int, updates: int, rounds: int, device: torch.device) -> float:
    learner = Learner.create(runs, device)

    def learn() -> None:
        learner.learn(updates)
        learner.agent.log_temperature.cpu()  # waits for the device

    return runs * updates / float(np.median(seconds_of([learn], rounds)[0]))


def _embedding_speed(images: int, rounds: int) -> tuple[list[Measurement], tuple[str, ...]]:
    """Its row, or the sentence that says why there is none."""
    try:
        model = untrained_rn50()
    except PrefVLMError as error:
        return [], (f"Skipped: embeddings. {error}",)
    seconds = seconds_of([partial(model.encode_image, noise_frames(model, images))], rounds)[0]
    return [Measurement("embeddings by open_clip:RN50", "frames/s", images / float(np.median(seconds)))], ()
