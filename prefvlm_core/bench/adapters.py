"""How much more accurate the labels of a task's own adapters are than those of the frozen model."""

import dataclasses

from prefvlm_core.analysis.sanity import HUMAN_LABELS, accuracy_table, label_accuracies
from prefvlm_core.analysis.sanity_plans import PLANS, SanityPlan
from prefvlm_core.bench import Group, Measurement

QUICK = {"plan": dataclasses.replace(PLANS["quick"], draws=2)}


def measure(plan: SanityPlan = PLANS["laptop"]) -> Group:
    """Accuracies on held-out trajectories before and after one session of learning.

    Values are means over the tasks of a plan of notebook 01 and independent draws. Takes six minutes on two slow cores,
    a quick one 40 seconds.
    """
    rows, left = [], ""
    table = accuracy_table(label_accuracies(plan))
    for row in table.groupby("model", sort=False).tail(1).to_dict("records"):
        before, after, gain, low, high = (
            100 * row[column] for column in ("zero_shot", "adapted", "gain", "gain_low", "gain_high")
        )
        target = "≥ 8" if row["model"] == "tinyliv" else ""
        name = f"{row['model']}, labels after {HUMAN_LABELS} human ones"
        rows.append(Measurement(name, "% right", after, before, against="zero-shot"))
        rows.append(
            Measurement(
                f"{row['model']}, gain", "points", gain, against=f"95 %: {low:.1f} to {high:.1f}", target=target
            )
        )
        left = left or f"To labels that are always right, adapted {row['model']} lacks {100 - after:.0f} points."
    return Group(rows, left)
