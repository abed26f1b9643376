"""Lines of label files, right ones and changed ones."""

import copy
import json
from pathlib import Path
from typing import Any

LINE: dict[str, Any] = {
    "format": 1,
    **{"run_id": "quick/door-open-v3/pebble/0-1a2b3c4d", "session": 2, "pair": 3, "budget": 30},
    **{"task": "door-open-v3", "text": "open a door", "first": 0, "second": 500, "length": 20},
    **{"vlm_label": 1.0, "divergence": 0.25, "partition": "uncertain", "truth": 0.5},
    **{"posted_at": "2026-01-02T03:04:05.123456Z", "closed_at": None, "last_session": 0, "frames": 5},
    "answers": [
        {
            **{
                "purpose": "label",
                "annotator": "José 人",
                "swapped": 1,
                "choice": "left",
                "label": 1.0,
                "seconds": 1.5,
            },
            **{"claimed_at": "2026-01-02T03:04:06+00:00", "answered_at": "2026-01-02T05:04:07+02:00"},
            **{"number": 1, "undone": 0},
        }
    ],
}


def changed(**values: Any) -> dict[str, Any]:
    """`LINE` with other values; those named answer_… are changed in its answer."""
    line = copy.deepcopy(LINE)
    for name, value in values.items():
        place, name = (line["answers"][0], name.removeprefix("answer_")) if name.startswith("answer_") else (line, name)
        place[name] = value
    return line


def write(folder: Path, *lines: dict[str, Any] | str) -> Path:
    file = folder / "labels.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return file
