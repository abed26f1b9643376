"""What a GPU does with what takes most of a run: updates of fleets, their training, and embeddings by a model of LIV's
size."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prefvlm_core.agent.updates import DeviceUpdates, HostUpdates, Updates
from prefvlm_core.bench import Group, Measurement, line
from prefvlm_core.bench.learner import Learner, our_loop
from prefvlm_core.bench.rounds import seconds_of
from prefvlm_core.bench.vlm import untrained_rn50
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.common.seeding import Generators
from prefvlm_core.vlm.embedding import noise_frames

UPDATES = {"laptop": (1, 4, 16, 64, 256), "paper": (16, 256)}
"""The sizes of fleets by the profile whose networks and batches they have."""
QUICK = {"updates": {"laptop": (16,)}, "loops": (16,), "images": 256, "seconds": 0.3}
_CPU = torch.device("cpu")
_BETWEEN_WAITS = 10  # updates


def measure(
    updates: Mapping[str, Sequence[int]] = UPDATES,
    loops: Sequence[int] = (16, 64, 256),
    steps: int = 400,
    images: int = 2_048,
    seconds: float = 1.0,
    limit: float = 120.0,
    device: str = "cuda",
) -> Group:
    """Fleets on `device`, against the CPU first, and `images` embedded by an untrained RN50.

    Updates are made for so many `seconds` for each number; `loops` are trainings of `steps` actions of fleets of these
    sizes. Each row is shown when it is measured, and none is begun after `limit` seconds. Nothing is measured where
    torch finds no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return Group([], "No GPU was measured.", ("Skipped: torch finds no GPU here.",))
    where, end = torch.device(device), time.perf_counter() + limit
    parts: dict[str, Callable[[], list[Measurement]]] = {"differences": partial(_differences, where)}
    for profile, fleets in updates.items():
        for runs in fleets:
            parts[f"updates, {profile}, fleet of {runs}"] = partial(_update_speeds, profile, runs, seconds, where)
    parts["embeddings"] = partial(_embedding_speed, images)
    parts |= {f"training loop, fleet of {runs}": partial(_loop_speed, runs, steps, device) for runs in loops}
    rows: list[Measurement] = []
    skipped = []
    for name, part in parts.items():
        try:
            if time.perf_counter() > end:
                raise PrefVLMError("The time was over.")
            for row in part():
                rows.append(row)
                tqdm.write(line(row), file=sys.stderr)
        except (PrefVLMError, RuntimeError) as error:  # what this GPU cannot do; the rest is measured
            skipped.append(f"Skipped: {name}. {error}")
    return Group(rows, _limit(rows), tuple(skipped))


def _limit(rows: Sequence[Measurement]) -> str:
    loops = [row for row in rows if row.unit == "run-steps/s"]
    if not loops:
        return "No training was measured."
    best = max(loops, key=lambda row: row.ours)
    return f"The fastest {best.name} takes {1e6 / best.ours / 3600:.2g} hours for a million actions of one of its runs."


def _differences(device: torch.device) -> list[Measurement]:
    """By how much the parameters that `device` learns differ from the CPU's, given the same batches and noise.

    Once in float32 and once with TF32, as in training.
    """
    rows = []
    for exact in (True, False):
        for kind, make in _KINDS.items():
            with _tf32(not exact):
                largest = float((_learned(device, make) - _learned(_CPU, make)).abs().max())
            title = f"20 {kind} updates, difference to CPU, {'float32' if exact else 'TF32'}"
            rows.append(Measurement(title, "of a parameter", largest, target="≤ 0.0001" if exact else "≤ 0.01"))
    return rows


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def _eager(learner: Learner) -> Updates:
    """Draws on the host, and launches operation by operation."""
    return HostUpdates(learner.agent, learner.replay, Generators(range(len(learner.generators))))


def _captured(learner: Learner) -> Updates:
    """Draws and updates as in training on a GPU."""
    return DeviceUpdates(learner.agent, learner.replay, range(len(learner.generators)))


_KINDS = {"eager": _eager, "captured": _captured}


def _learned(device: torch.device, make: Callable[[Learner], Updates]) -> Tensor:
    """The parameters of actors and critics after 20 updates."""
    learner = Learner.create(4, device)
    _learn(make(learner), 20)
    return torch.cat([networks.values.flatten().cpu() for networks in (learner.agent.actor, learner.agent.critic)])


def _learn(updates: Updates, count: int) -> None:
    for number in range(count):
        updates.draw(number)
        updates.update(number % updates.agent.config.target_update_every == 0)
    updates.agent.log_temperature.cpu()  # waits for the device


def _update_speeds(profile: str, runs: int, seconds: float, device: torch.device) -> list[Measurement]:
    learner = Learner.create(runs, device, profile)
    speeds = {}
    with _tf32(True):
        for kind, make in _KINDS.items():
            updates, count = make(learner), 0
            _learn(updates, _BETWEEN_WAITS)
            begun = time.perf_counter()
            while (spent := time.perf_counter() - begun) < seconds or not count:
                _learn(updates, _BETWEEN_WAITS)
                count += _BETWEEN_WAITS
            speeds[kind] = runs * count / spent
    captured, eager = speeds["captured"], speeds["eager"]
    title = f"updates, {profile}, fleet of {runs}"
    return [Measurement(title, "run-updates/s", captured, eager, captured / eager, "eager, drawn on the host")]


def _loop_speed(runs: int, steps: int, device: str) -> list[Measurement]:
    return [Measurement(f"training loop, fleet of {runs}", "run-steps/s", our_loop(runs, steps, device))]


def _embedding_speed(images: int) -> list[Measurement]:
    model = untrained_rn50()
    seconds = seconds_of([partial(model.encode_image, noise_frames(model, images))], 1)[0]
    return [Measurement("embeddings by open_clip:RN50", "frames/s", images / float(np.median(seconds)))]
