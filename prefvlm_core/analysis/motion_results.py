"""What a VLM can do with bodies in motion, as it is stored: measuring takes minutes, drawing must not.

results/<profile>/motion/labels.csv: one row per run of SAC, kind of pairs, draw and what the VLM is shown, see
`motion.measure`; the runs themselves are in `results/<profile>/replays`
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pandas as pd

from prefvlm_core.analysis import motion
from prefvlm_core.analysis.motion import COLUMNS, KINDS, MODEL, PLANS, READERS, SHOWN
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.runs.files import UNREADABLE, write_atomically
from prefvlm_core.runs.rows import csv_bytes, number
from prefvlm_core.train import train
from prefvlm_core.vlm import load

_STORED = ("run_id", *COLUMNS, "vlm_fingerprint")


def motion_results(profile: str, execution: Execution, measure: bool) -> pd.DataFrame:
    """What is stored of a profile in `results/<profile>/motion`, as `motion.measure` returns it.

    With `measure`, missing runs are trained and measured first, each stored as soon as it is done; rows of other runs
    and of other weights of the VLM are dropped. Raises `PrefVLMError` where nothing is stored of the present runs and
    weights, for a damaged file, and where the extra dmc is missing.
    """
    path, fingerprint = Path(execution.results) / profile / "motion" / "labels.csv", load(MODEL).fingerprint
    planned = motion.replay_configs(profile)
    stored = _read(path) if path.exists() else pd.DataFrame(columns=_STORED)
    stored = stored[
        stored["run_id"].isin([config.run_id for config in planned]) & (stored["vlm_fingerprint"] == fingerprint)
    ]
    missing = missing_runs(profile, stored) if measure else []
    kept = dataclasses.replace(execution, results=str(path.parents[1] / "replays"), keep_replay=True)
    for task in dict.fromkeys(config.task for config in missing):  # tasks of different sizes make no fleet
        directories = train([config for config in missing if config.task == task], kept)
        for directory in tqdm(directories, desc=f"pairs of {task}", unit="run"):
            of_run = motion.measure(directory).assign(run_id=directory.config.run_id, vlm_fingerprint=fingerprint)
            others = stored[stored["run_id"] != directory.config.run_id]
            stored = pd.concat([others, of_run]) if len(others) else of_run
            write_atomically(path, csv_bytes(_STORED, stored.to_dict("records")))
    if stored.empty:
        raise PrefVLMError(
            f"No measurement of profile {profile} with its present runs and the present weights of {MODEL} is stored "
            f"in {path}; make it with measure = True in notebooks/11_other_domains.ipynb."
        )
    return stored[list(COLUMNS)].reset_index(drop=True)


def missing_runs(profile: str, measured: pd.DataFrame) -> list[RunConfig]:
    """The runs of a profile of which some row is not among those of `motion.measure`."""
    found = set(measured[list(COLUMNS[:5])].itertuples(index=False, name=None))
    draws = range(PLANS[profile].draws)
    return [
        config
        for config in motion.replay_configs(profile)
        if not found >= set(itertools.product([config.task], [config.seed], SHOWN, KINDS, draws))
    ]


def status(profile: str, measured: pd.DataFrame) -> str:
    """A sentence that says how much of a profile's plan is stored."""
    missing, planned = missing_runs(profile, measured), motion.replay_configs(profile)
    if not missing:
        return f"All {len(planned)} runs of profile {profile} are measured."
    return f"{len(missing)} of {len(planned)} runs of profile {profile} are not measured; set measure = True."


def _read(path: Path) -> pd.DataFrame:
    try:
        stored = pd.read_csv(path, keep_default_na=False, converters=dict.fromkeys(READERS, number))
        damaged = _is_damaged(stored)
    except UNREADABLE:
        damaged = True
    if damaged:
        raise PrefVLMError(f"{path} is damaged; restore it, or remove it to measure again.")
    return stored


def _is_damaged(stored: pd.DataFrame) -> bool:
    types = [stored.dtypes.get(name) for name in ("seed", "draw", *READERS)]
    if list(stored) != list(_STORED) or types != ["int64", "int64", "float64", "float64"]:
        return True
    known = stored["shows"].isin(SHOWN) & stored["pairs"].isin(KINDS)
    return not (known & stored["zero_shot"].between(0, 1) & stored["adapted"].between(0, 1)).all()
