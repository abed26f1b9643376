"""Preference data for reward learning: clips as the segments of a replay, and their labels as a preference buffer."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.exchange.data import PreferenceData
from prefvlm_core.preferences.pairs import PreferenceBuffer


class TrainingSet(NamedTuple):
    """What a reward ensemble learns from."""

    replay: Replay
    """Of one run, with each clip as an episode; true rewards are unknown (nan)."""
    buffer: PreferenceBuffer
    """One pair for each label."""
    length: int
    """Steps of a segment."""


def training_set(
    data: PreferenceData, teachers: Collection[str] = (), device: torch.device | None = None
) -> TrainingSet:
    """The clips and labels of preference data for offline reward learning, as docs/howto/exchange_labels.md shows.

    Left out are labels that say "can't tell", and those that no training uses (agreement, repeat).

    Args:
        data: All of its clips must hold observations and actions, of equal lengths and sizes.
        teachers: Only their labels; none given: those of all, so that a pair labelled twice counts twice.
        device: Of the replay; None: the CPU.

    Raises:
        PrefVLMError: If clips lack observations or actions or are of different shapes, or if no label is left.
    """
    steps = {name: _stacked(data, name) for name in ("observations", "actions")}
    (count, length, observed), acted = steps["observations"].shape, steps["actions"].shape[2]
    replay = Replay(1, count * length, length, observed, acted, 0, 0, device or torch.device("cpu"))
    replay.observations[0, :, :length] = steps["observations"]
    replay.observations[0, :, length] = steps["observations"][:, -1]  # after the last action; no reward looks at it
    replay.actions[0] = steps["actions"].flatten(0, 1)
    replay.true_rewards[:] = torch.nan
    replay.size = count * length
    starts = {clip: length * number for number, clip in enumerate(data.clips["clip"].to_pylist())}
    pairs = {row["pair"]: (starts[row["first_clip"]], starts[row["second_clip"]]) for row in data.pairs.to_pylist()}
    used = [
        (pairs[row["pair"]], row["label"])
        for row in data.labels.to_pylist()
        if row["label"] is not None
        and row["purpose"] in (None, "label")
        and (not teachers or row["teacher"] in teachers)
    ]
    if not used:
        raise PrefVLMError(f"There is no label of {' or '.join(teachers) or 'any teacher'} to learn from.")
    buffer = PreferenceBuffer()
    buffer.add(np.array([pair for pair, _ in used], np.int64), np.array([label for _, label in used], np.float32))
    return TrainingSet(replay, buffer, length)


def _stacked(data: PreferenceData, name: str) -> torch.Tensor:
    """The observations or actions of all clips (clips, length, size)."""
    values = data.clips[name].to_pylist()
    for clip, rows in zip(data.clips["clip"].to_pylist(), values, strict=True):
        if rows is None:
            raise PrefVLMError(f"Clip '{clip}' holds no {name}, without which no reward can be learned.")
        if (len(rows), len(rows[0])) != (len(values[0]), len(values[0][0])):
            raise PrefVLMError(f"Clips '{data.clips['clip'][0]}' and '{clip}' have {name} of different shapes.")
    return torch.tensor(values)
