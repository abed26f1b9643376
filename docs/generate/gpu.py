"""What `prefvlm bench --only gpu` measured on a GPU."""

import json
from pathlib import Path

MEASURED = Path(__file__).parents[2] / "results" / "gpu" / "nvidia_h200.json"


def text() -> str:
    """Its table and its last sentence in Markdown."""
    group = json.loads(MEASURED.read_text(encoding="utf-8"))["gpu"]
    lines = ["| NVIDIA H200, 16 cores | measured | unit | eager, drawn on the host | ratio |", "|---|--:|---|--:|--:|"]
    for row in group["rows"]:
        ours, other, ratio = (_number(row[name]) for name in ("ours", "other", "ratio"))
        lines.append(f"| {row['name']} | {ours} | {row['unit']} | {other} | {ratio} |")
    return "\n".join([*lines, "", group["limit"]]) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
