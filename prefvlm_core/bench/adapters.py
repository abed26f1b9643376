"""How much more accurate the labels of a task's own adapters are than those of the frozen model."""

from prefvlm_core.analysis.sanity import HUMAN_LABELS, PLANS, accuracy_table, label_accuracies
from prefvlm_core.analysis.stats import ALL_TASKS
from prefvlm_core.bench import Measurement


def measure() -> list[Measurement]:
    """Accuracies on held-out trajectories before and after one session of learning.

    Values are means over the papers' tasks and independent draws, as in notebook 01 in profile `laptop`. Takes six
    minutes on two slow cores.
    """
    table = accuracy_table(label_accuracies(PLANS["laptop"]))
    rows = []
    for row in table[table["task"] == ALL_TASKS].to_dict("records"):
        gain, low, high = (100 * row[column] for column in ("gain", "gain_low", "gain_high"))
        against, target = f"95 %: {low:.1f} to {high:.1f}", "≥ 8" if row["model"] == "tinyliv" else ""
        name = f"{row['model']}, {HUMAN_LABELS} human labels"
        rows.append(Measurement(f"{row['model']}, zero-shot", 100 * row["zero_shot"], "% right", "", ""))
        rows.append(Measurement(f"{name}: adapted", 100 * row["adapted"], "% right", "", ""))
        rows.append(Measurement(f"{name}: gain", gain, "points", against, target))
    return rows
