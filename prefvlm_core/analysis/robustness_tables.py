"""What disturbed scenes do to labels and values, for people: tables, and the answer in words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from prefvlm_core.analysis.robustness import CLEAN_SCENE, MEASURES, READERS, ZERO_SHOT
from prefvlm_core.analysis.stats import student_interval
from prefvlm_core.analysis.wording import percent, points
from prefvlm_core.domains.perturbations import EVERYTHING


def change_table(measured: pd.DataFrame) -> pd.DataFrame:
    """What each scene does to each reader: one row per factor, strength and reader, all tasks together.

    Columns: factor, strength, reader, draws (per task), and of each of `MEASURES` the mean over tasks, and
    `<measure>_change`, its difference from the zero-shot model in the clean scene of the same draw, with `_low` and
    `_high`: the 95 % `student_interval` over draws within tasks, and `_each`: the list of these differences.
    """
    keys = ["task", "draw"]
    reference = measured[(measured["factor"] == CLEAN_SCENE) & (measured["reader"] == ZERO_SHOT)].set_index(keys)
    paired = measured.join(reference[list(MEASURES)].add_suffix("_clean"), on=keys)
    rows = []
    for (factor, strength, reader), of_scene in paired.groupby(["factor", "strength", "reader"], sort=False):
        draws = of_scene.groupby("task")["draw"].nunique().min()
        row: dict[str, object] = {"factor": factor, "strength": strength, "reader": reader, "draws": draws}
        for name in MEASURES:
            changes = (of_scene[name] - of_scene[f"{name}_clean"]).dropna()
            mean, low, high = student_interval([values for _, values in changes.groupby(of_scene["task"])])
            row[name] = of_scene.groupby("task")[name].mean().mean()
            row |= {f"{name}_change": mean, f"{name}_change_low": low, f"{name}_change_high": high}
            row[f"{name}_change_each"] = changes.tolist()
        rows.append(row)
    return pd.DataFrame(rows)


def change_summary(table: pd.DataFrame) -> pd.DataFrame:
    """A `change_table` as people read it: one row per scene, for each measure and reader its mean (labels in percent)
    and the change."""
    rows = table.assign(
        scene=[scene_title(row["factor"], row["strength"]) for row in table.to_dict("records")],
        labels=[_labels(row) for row in table.to_dict("records")],
        values=[f"{row['value_order']:z.2f} ({row['value_order_change']:+z.2f})" for row in table.to_dict("records")],
    )
    cells = rows.pivot(index="scene", columns="reader", values=["labels", "values"])
    return cells.reindex(rows["scene"].unique()).reindex(columns=READERS, level="reader")


def costliest(table: pd.DataFrame, strength: str) -> list[str]:
    """The factors of a `change_table`, each alone, by what they cost zero-shot labels at a strength, worst first."""
    alone = table[(table["reader"] == ZERO_SHOT) & (table["strength"] == strength) & (table["factor"] != EVERYTHING)]
    return list(alone.sort_values("accuracy_change", kind="stable")["factor"])


def changes_in_words(table: pd.DataFrame, strength: str, count: int = 2) -> str:
    """Markdown: how many labels are right in the clean scene, and in those of the costliest factors at a strength."""
    named = dict.fromkeys([*costliest(table, strength)[:count], EVERYTHING], strength)
    lines = []
    for factor, of_strength in {CLEAN_SCENE: "", **named}.items():
        rows = table[(table["factor"] == factor) & (table["strength"] == of_strength)].set_index("reader")
        said = "; ".join(f"{reader} {_labels(rows.loc[reader])}" for reader in READERS)
        order = rows.loc[ZERO_SHOT, "value_order"]
        lines.append(
            f"- **{scene_title(factor, of_strength)}**: right labels in percent, and the change in points: {said}; "
            f"zero-shot values and time: ρ = {order:z.2f}."
        )
    return "\n".join(lines)


def _labels(row: Mapping[Any, Any]) -> str:
    """Labels that are right in percent, and the change in points: `61, −9 (−15 to −3)`; nothing of the latter for what
    all is compared with."""
    changed = any(row[f"accuracy_change{bound}"] for bound in ("", "_low", "_high"))
    return percent(row["accuracy"]) + (f", {points(row, 'accuracy_change')}" if changed else "")


def scene_title(factor: str, strength: str) -> str:
    """A scene as people read it, as "camera angle, mild"."""
    return ", ".join(filter(None, (factor.replace("_", " "), strength)))
