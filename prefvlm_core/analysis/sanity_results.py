"""The sanity check as it is stored: computing it takes minutes, drawing it must not.

results/<profile>/sanity/
    accuracies.csv    accuracy of labels, one row per task, model and draw
    rewards.csv       VLM reward and true reward, one row per frame of an episode
    rewards.webp      those frames, losslessly: one row of pictures per episode
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.analysis.sanity import PLANS, RewardCurve, label_accuracies, reward_curves
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.runs.rows import csv_bytes
from prefvlm_core.vlm import load

MODEL = "tinyliv"
"""The VLM that is checked."""
_ACCURACIES, _REWARDS, _FRAMES = "accuracies.csv", "rewards.csv", "rewards.webp"


@dataclass(frozen=True)
class SanityResults:
    """What a sanity check found."""

    curves: list[RewardCurve]
    """The rewards along episodes, see `sanity.reward_curves`."""
    accuracies: pd.DataFrame
    """The accuracy of labels, see `sanity.label_accuracies`."""


def sanity_results(profile: str, results: str | Path, compute: bool) -> SanityResults:
    """The sanity check of a profile, from `results/<profile>/sanity`.

    With `compute`, it is computed and stored where it is missing, or where what is stored belongs to other weights of
    the VLM or to another plan. Raises `PrefVLMError` where that is so without `compute`, and for damaged files.
    """
    folder = Path(results) / profile / "sanity"
    if _is_current(folder, profile):
        return _read(folder)
    if not compute:
        raise PrefVLMError(
            f"No sanity check of profile {profile} with the present weights of {MODEL} is stored in {folder}; compute "
            f"it with: prefvlm notebook 01_sanity_check --profile {profile}"
        )
    _write(folder, compute_sanity(profile))
    return _read(folder)


def compute_sanity(profile: str) -> SanityResults:
    """Record, embed and judge what the plan of a profile names."""
    plan, model = PLANS[profile], load(MODEL)
    curves = [curve for task in plan.tasks for curve in reward_curves(task, model)]
    return SanityResults(curves, label_accuracies(plan))


def _is_current(folder: Path, profile: str) -> bool:
    if not all((folder / name).exists() for name in (_ACCURACIES, _REWARDS, _FRAMES)):
        return False
    plan, rows = PLANS[profile], _read_rows(folder / _ACCURACIES)
    stored = {(row["vlm_fingerprint"], row["task"], int(row["draw"])) for row in rows}
    return stored == {(load(MODEL).fingerprint, task, draw) for task in plan.tasks for draw in range(plan.draws)}


def _write(folder: Path, check: SanityResults) -> None:
    """Store a check; the accuracies, which say what it was made with, come last."""
    pictures = Image.fromarray(np.concatenate([np.concatenate(list(curve.frames), 1) for curve in check.curves]))
    buffer = io.BytesIO()
    pictures.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    write_atomically(folder / _FRAMES, buffer.getvalue())
    rewards: list[dict[str, Any]] = [
        {
            "task": curve.task,
            "behavior": curve.behavior,
            "frame": frame,
            "vlm_reward": float(vlm),
            "true_reward": float(true),
            "first_success": np.nan if curve.first_success is None else curve.first_success,
        }
        for curve in check.curves
        for frame, (vlm, true) in enumerate(zip(curve.vlm_rewards, curve.true_rewards, strict=True))
    ]
    write_atomically(folder / _REWARDS, csv_bytes(list(rewards[0]), rewards))
    accuracies = check.accuracies.assign(vlm_fingerprint=load(MODEL).fingerprint)
    write_atomically(folder / _ACCURACIES, csv_bytes(list(accuracies), accuracies.to_dict("records")))


def _read(folder: Path) -> SanityResults:
    episodes: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in _read_rows(folder / _REWARDS):
        episodes.setdefault((row["task"], row["behavior"]), []).append(row)
    try:
        with Image.open(folder / _FRAMES) as image:
            pictures = np.asarray(image.convert("RGB"))
        size = len(pictures) // len(episodes)
        strips = pictures.reshape(len(episodes), size, -1, size, 3).swapaxes(1, 2)
    except (OSError, ValueError) as error:
        raise _damaged(folder / _FRAMES, error) from error
    try:
        curves = [_curve(name, rows, frames) for (name, rows), frames in zip(episodes.items(), strips, strict=True)]
        rows = [
            (row["task"], row["model"], int(row["draw"]), float(row["zero_shot"]), float(row["adapted"]))
            for row in _read_rows(folder / _ACCURACIES)
        ]
    except (KeyError, ValueError) as error:
        raise _damaged(folder, error) from error
    return SanityResults(curves, pd.DataFrame(rows, columns=["task", "model", "draw", "zero_shot", "adapted"]))


def _curve(name: tuple[str, str], rows: Sequence[Mapping[str, str]], frames: NDArray[np.uint8]) -> RewardCurve:
    if len(frames) != len(rows):
        raise ValueError(f"{len(frames)} frames for {len(rows)} rewards of {name[0]}, {name[1]}")
    return RewardCurve(
        task=name[0],
        behavior=name[1],
        frames=frames,
        vlm_rewards=np.array([float(row["vlm_reward"]) for row in rows], np.float32),
        true_rewards=np.array([float(row["true_reward"]) for row in rows]),
        first_success=int(rows[0]["first_success"]) if rows[0]["first_success"] else None,
    )


def _read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _damaged(path: Path, error: Exception) -> PrefVLMError:
    return PrefVLMError(f"{path} is damaged ({error}); restore it, or remove its folder to compute the check again.")
