"""What a disturbed scene costs, as it is stored: measuring takes minutes to hours, drawing must not.

results/<profile>/robustness/scenes.csv: one row per task, draw, scene and reader, see `robustness.measure`
"""

from pathlib import Path

import pandas as pd

from prefvlm_core.analysis import robustness
from prefvlm_core.analysis.robustness import COLUMNS, MEASURES, MODEL, PLANS, Batch
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.progress import tqdm
from prefvlm_core.runs.files import UNREADABLE, write_atomically
from prefvlm_core.runs.rows import csv_bytes, number
from prefvlm_core.vlm import load

_STORED = (*COLUMNS, "vlm_fingerprint")


def robustness_results(profile: str, results: str | Path, measure: bool) -> pd.DataFrame:
    """What is stored of a profile in `results/<profile>/robustness`, as `robustness.measure` returns it.

    With `measure`, missing batches are measured first, each stored as soon as it is done; rows of other weights of the
    VLM are dropped. Raises `PrefVLMError` where nothing is stored of the present weights, and for a damaged file.
    """
    path, model = Path(results) / profile / "robustness" / "scenes.csv", load(MODEL)
    stored = _read(path) if path.exists() else pd.DataFrame(columns=_STORED)
    stored = stored[stored["vlm_fingerprint"] == model.fingerprint]
    missing = missing_batches(profile, stored) if measure else []
    for batch in tqdm(missing, desc="disturbed scenes", unit="batch", disable=not missing):
        measured = robustness.measure(batch, PLANS[profile], model).assign(vlm_fingerprint=model.fingerprint)
        stored = pd.concat([stored, measured]) if len(stored) else measured
        stored = stored.drop_duplicates(list(COLUMNS[:5]))  # each batch has the clean scene
        write_atomically(path, csv_bytes(_STORED, stored.to_dict("records")))
    if stored.empty:
        raise PrefVLMError(
            f"No measurement of profile {profile} with the present weights of {MODEL} is stored in {path}; make it "
            "with measure = True in notebooks/10_visual_robustness.ipynb."
        )
    return stored[list(COLUMNS)].reset_index(drop=True)


def missing_batches(profile: str, measured: pd.DataFrame) -> list[Batch]:
    """The batches of a profile of which some scene is not among the rows of `robustness.measure`."""
    scenes = set(measured[list(COLUMNS[:4])].itertuples(index=False, name=None))
    return [
        batch
        for batch in robustness.batches(PLANS[profile])
        if not scenes >= {(batch.task, batch.draw, *scene) for scene in batch.scenes}
    ]


def status(profile: str, measured: pd.DataFrame) -> str:
    """A sentence that says how much of a profile's plan is stored."""
    missing, planned = missing_batches(profile, measured), robustness.batches(PLANS[profile])
    if not missing:
        return f"All {len(planned)} batches of profile {profile} are measured."
    strengths = ", ".join(dict.fromkeys(batch.strength for batch in missing))
    return (
        f"{len(missing)} of {len(planned)} batches of profile {profile} are not measured and left out ({strengths}); "
        "set measure = True."
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        stored = pd.read_csv(path, keep_default_na=False, converters=dict.fromkeys(MEASURES, number))
        types = [stored.dtypes.get(name) for name in ("draw", *MEASURES)]
        damaged = list(stored) != list(_STORED) or types != ["int64", "float64", "float64"]
    except UNREADABLE:
        damaged = True
    if damaged:
        raise PrefVLMError(f"{path} is damaged; restore it, or remove it to measure again.")
    return stored
