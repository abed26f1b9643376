"""What was measured on a GPU: by `prefvlm bench --only gpu`, and of operations that are fused as well as captured."""

import json
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[2] / "results" / "gpu" / "nvidia_h200.json"


def text() -> str:
    """Both tables, and the last sentence of the first, in Markdown."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    captured, fused = measured["gpu"], measured["fused"]
    tables = [*_table(captured["rows"], "measured", "eager, drawn on the host"), "", captured["limit"], ""]
    return "\n".join([*tables, *_table(fused["rows"], "fused", "captured alone")]) + "\n"


def _table(rows: list[dict[str, Any]], ours: str, other: str) -> list[str]:
    lines = [f"| NVIDIA H200, 16 cores | {ours} | unit | {other} | ratio |", "|---|--:|---|--:|--:|"]
    for row in rows:
        numbers = [_number(row[name]) for name in ("ours", "other", "ratio")]
        lines.append(f"| {row['name']} | {numbers[0]} | {row['unit']} | {numbers[1]} | {numbers[2]} |")
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
