"""The published fleets of profile laptop, which tell how long fleets take."""

import functools
from collections import defaultdict
from pathlib import Path

import pandas

from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.stored import find_runs

_RESULTS = Path(__file__).parents[2] / "results"
STORED = pandas.read_csv(_RESULTS / "laptop" / "runs.csv").set_index("run_id").query("status == 'finished'")
"""Every published finished run, with the `fleet_hash` of its fleet and the `seconds` that the whole fleet took."""


@functools.cache
def stored_fleets() -> dict[str, list[RunConfig]]:
    """The runs of each published fleet, by its hash."""
    fleets: dict[str, list[RunConfig]] = defaultdict(list)
    for run in find_runs(_RESULTS, "laptop"):
        if run.run_id in STORED.index:
            fleets[STORED.loc[run.run_id, "fleet_hash"]].append(run.config)
    return fleets
