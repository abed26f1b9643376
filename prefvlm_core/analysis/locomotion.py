"""Results of locomotion, whose measure is the episode's return, and published ones beside them."""

import json
from importlib import resources

import pandas as pd

from prefvlm_core.analysis.paired import planned_differences
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.domains.dm_control import LOCOMOTION

GREATEST_RETURN = 1_000
"""Of an episode in the DeepMind Control suite."""
_LAST = 10
"""Evaluations of which published returns are means."""


def return_as_success(data: pd.DataFrame) -> pd.DataFrame:
    """Evaluations in which the return, as a fraction of `GREATEST_RETURN`, stands for the success, so that everything
    that compares success compares returns."""
    return data.assign(success=data["episode_return"] / GREATEST_RETURN)


def planned_by_domain(data: pd.DataFrame) -> pd.DataFrame:
    """`paired.planned_differences` of success, and of the return on tasks of `LOCOMOTION`, which stand apart: where
    there are others, "all tasks" are these."""
    legs = data["task"].isin(LOCOMOTION)
    if not legs.any():
        return planned_differences(data)
    of_legs = planned_differences(return_as_success(data[legs]))
    if legs.all():
        return of_legs
    return pd.concat([planned_differences(data[~legs]), of_legs[of_legs["task"] != ALL_TASKS]], ignore_index=True)


def beside_published(data: pd.DataFrame) -> pd.DataFrame:
    """Published returns with as many labels (`analysis/reference_curves.json` names the source) beside ours.

    One row per task and method that either has, columns published ("453 ± 159") and ours ("470 (10 seeds)": the mean
    over seeds of the mean of the last ten evaluations), "" where there is none.
    """
    text = resources.files("prefvlm_core.analysis").joinpath("reference_curves.json").read_text(encoding="utf-8")
    entries = [entry for entry in json.loads(text)["returns"] if entry["task"] in set(data["task"])]
    cells = {
        (entry["task"], entry["method"]): f"{entry['episode_return']}"
        + (f" ± {entry['spread']}" if entry["spread"] else "")
        for entry in entries
    }
    last = data.sort_values("step").groupby("run_id").tail(_LAST)
    runs = last.groupby(["task", "method", "run_id"])["episode_return"].mean()
    ours = {
        (task, "PrefVLM" if method == "prefvlm" else method.upper()): f"{of_arm.mean():.0f} ({len(of_arm)} seeds)"
        for (task, method), of_arm in runs.groupby(level=["task", "method"])
    }
    table = pd.DataFrame({"published": pd.Series(cells, dtype=str), "ours": pd.Series(ours, dtype=str)})
    return table.rename_axis(["task", "method"]).fillna("")
