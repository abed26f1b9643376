"""The report keeps what was measured before; the measurements themselves are no tests."""

import json
from pathlib import Path

import pytest

from prefvlm_core.bench import Measurement, report
from prefvlm_core.common.errors import PrefVLMError


def test_a_group_measured_anew_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, value in (("learner", 2.5), ("frames", 40.0), ("learner", 3.0)):
        measured = [Measurement(f"{group} ratio", value, "×", "a peer", "≥ 3")]
        monkeypatch.setattr(f"prefvlm_core.bench.{group}.measure", lambda measured=measured: measured)
        assert f"{value:.4g}  ×" in report(str(tmp_path), [group])
    stored = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {group: rows[0]["value"] for group, rows in stored.items()} == {"learner": 3.0, "frames": 40.0}
    assert stored["frames"][0]["name"] == "frames ratio" and len(stored["learner"]) == 1
    with pytest.raises(PrefVLMError, match=r"learning.*learner"):
        report(str(tmp_path), ["learning"])
