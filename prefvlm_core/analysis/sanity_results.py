"""The sanity check as it is stored: computing it takes minutes, drawing it must not.

results/<profile>/sanity/, and sanity_mazes/ for the mazes
    accuracies.csv    accuracy of labels, one row per task, model and draw
    rewards.csv       VLM reward and true reward, one row per frame of an episode
    rewards.webp      those frames, losslessly: one row of pictures per episode
"""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from prefvlm_core.analysis.sanity import ACCURACY_COLUMNS, RewardCurve, label_accuracies, reward_curves
from prefvlm_core.analysis.sanity_plans import MAZE_PLANS, PLANS, SanityPlan
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.runs.files import write_atomically
from prefvlm_core.runs.rows import csv_bytes
from prefvlm_core.vlm import load

CHECKS = {"01_sanity_check": ("sanity", PLANS), "11_other_domains": ("sanity_mazes", MAZE_PLANS)}
"""Notebook -> the folder of its check, and the check's plans."""
_ACCURACY_COLUMNS = ("task", "model", "draw", "zero_shot", "adapted", "vlm_fingerprint")
_ORDERS = ("value_order", "episode_order")  # columns that a check of an earlier release lacks
_REWARD_COLUMNS = ("task", "behavior", "frame", "vlm_reward", "true_reward", "first_success")
_SIZE = 64  # pixels, of the frames of `reward_curves`
_ACCURACIES, _REWARDS, _FRAMES = "accuracies.csv", "rewards.csv", "rewards.webp"


@dataclass(frozen=True)
class SanityResults:
    """What a sanity check found."""

    curves: list[RewardCurve]
    """The rewards along episodes, see `sanity.reward_curves`."""
    accuracies: pd.DataFrame
    """The accuracy of labels, see `sanity.label_accuracies`."""


def sanity_results(
    profile: str, results: str | Path, compute: bool, notebook: str = "01_sanity_check"
) -> SanityResults:
    """The sanity check that a notebook of `CHECKS` shows of a profile, from its folder in `results/<profile>`.

    With `compute`, it is computed and stored where it is missing, where what is stored belongs to other weights of the
    VLM or to another plan, and where a release stored it that measured less. Without `compute`, numbers that were not
    measured are nan. Raises `PrefVLMError` where nothing current is stored without `compute`, and for damaged files.
    """
    name, plans = CHECKS[notebook]
    folder, plan = Path(results) / profile / name, plans[profile]
    if _is_current(folder, plan) and not (compute and _lacks_columns(folder)):
        return _read(folder)
    if not compute:
        raise PrefVLMError(
            f"No sanity check of profile {profile} with the present weights of {plan.model} is stored in {folder}; "
            f"compute it with: prefvlm notebook {notebook} --profile {profile}"
        )
    _write(folder, compute_sanity(plan), load(plan.model).fingerprint)
    return _read(folder)


def compute_sanity(plan: SanityPlan) -> SanityResults:
    """Record, embed and judge what a plan names."""
    model, tasks = load(plan.model), tqdm(plan.tasks, desc="rewards along episodes", unit="task")
    curves = [curve for task in tasks for curve in reward_curves(task, model, plan.film_steps)]
    return SanityResults(curves, label_accuracies(plan))


def _is_current(folder: Path, plan: SanityPlan) -> bool:
    if not all((folder / name).exists() for name in (_ACCURACIES, _REWARDS, _FRAMES)):
        return False
    rows = _read_rows(folder / _ACCURACIES, _ACCURACY_COLUMNS, _ORDERS)
    stored = sorted((row["vlm_fingerprint"], row["task"], row["draw"], row["model"]) for row in rows)
    draws = map(str, range(plan.draws))
    return stored == sorted(itertools.product([load(plan.model).fingerprint], plan.tasks, draws, plan.models))


def _lacks_columns(folder: Path) -> bool:
    """Whether the check was stored by a release that did not measure everything."""
    return not set(_ORDERS) <= set(_read_rows(folder / _ACCURACIES, _ACCURACY_COLUMNS, _ORDERS)[0])


def _write(folder: Path, check: SanityResults, fingerprint: str) -> None:
    """Store a check; the accuracies, which say with what weights it was made, come last."""
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
    accuracies = check.accuracies.assign(vlm_fingerprint=fingerprint)
    write_atomically(folder / _ACCURACIES, csv_bytes(list(accuracies), accuracies.to_dict("records")))


def _read(folder: Path) -> SanityResults:
    episodes: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in _read_rows(folder / _REWARDS, _REWARD_COLUMNS):
        episodes.setdefault((row["task"], row["behavior"]), []).append(row)
    pictures = _read_pictures(folder / _FRAMES, len(episodes), len(next(iter(episodes.values()), [])))
    try:
        curves = [_curve(name, rows, frames) for (name, rows), frames in zip(episodes.items(), pictures, strict=True)]
    except ValueError as error:
        raise _damaged(folder / _REWARDS, error) from error
    try:
        rows = [
            (
                *(row["task"], row["model"], int(row["draw"]), _fraction(row["zero_shot"]), _fraction(row["adapted"])),
                *(_correlation(row.get(name, "")) for name in _ORDERS),
            )
            for row in _read_rows(folder / _ACCURACIES, _ACCURACY_COLUMNS, _ORDERS)
        ]
    except ValueError as error:
        raise _damaged(folder / _ACCURACIES, error) from error
    return SanityResults(curves, pd.DataFrame(rows, columns=list(ACCURACY_COLUMNS)))


def _read_pictures(path: Path, episodes: int, frames: int) -> NDArray[np.uint8]:
    """The frames (episodes, frames, 64, 64, 3) of all episodes."""
    try:
        with Image.open(path) as image:
            if image.size != (frames * _SIZE, episodes * _SIZE):  # looked at before it is decoded
                raise ValueError(f"{image.width} × {image.height} pixels for {episodes} × {frames} frames")
            pictures = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _damaged(path, error) from error
    return pictures.reshape(episodes, _SIZE, frames, _SIZE, 3).swapaxes(1, 2)


def _curve(name: tuple[str, str], rows: Sequence[Mapping[str, str]], frames: NDArray[np.uint8]) -> RewardCurve:
    if [row["frame"] for row in rows] != [str(frame) for frame in range(len(frames))]:
        raise ValueError(f"not one reward for each of {len(frames)} frames of {name[0]}, {name[1]}")
    return RewardCurve(
        task=name[0],
        behavior=name[1],
        frames=frames,
        vlm_rewards=np.array([_reward(row["vlm_reward"]) for row in rows], np.float32),
        true_rewards=np.array([_reward(row["true_reward"]) for row in rows]),
        first_success=int(rows[0]["first_success"]) if rows[0]["first_success"] else None,
    )


def _reward(text: str) -> float:
    if not abs(number := float(text)) < 1e6:
        raise ValueError(f"{text} is no reward")
    return number


def _fraction(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise ValueError(f"{text} is no fraction of 1")
    return number


def _correlation(text: str) -> float:
    if text and not abs(float(text)) <= 1:
        raise ValueError(f"{text} is no correlation")
    return float(text or "nan")


def _read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeError, csv.Error) as error:
        raise _damaged(path, error) from error
    if not rows or any(row.keys() - set(optional) != set(columns) or None in row.values() for row in rows):
        raise _damaged(path, f"it is no table of {', '.join(columns)}")
    return rows


def _damaged(path: Path, error: Exception | str) -> PrefVLMError:
    return PrefVLMError(f"{path} is damaged ({error}); restore it, or remove its folder to compute the check again.")
