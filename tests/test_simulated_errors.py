"""tools/simulated_errors.py in a run that is as short as can be."""

import importlib.util
from pathlib import Path

import pytest
from builders.runs import SMALL

TOOL = Path(__file__).parents[1] / "tools" / "simulated_errors.py"
TASK = "button-press-v3"


def test_every_session_is_held_over_all_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("simulated_errors", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "BRIEF", SMALL)
    replay = tool.seen_by_pebble([TASK])
    assert replay.size == 400
    _, (method, changes), *_ = tool.arms().values()
    config = tool.run_config(TASK, method, 0, "laptop", SMALL | changes, tool.FIRST_EDITION)
    (feedback,) = tool.hold_sessions(replay, [config])
    assert replay.size == 400 and feedback.sessions == 4  # at steps 120, 190, 260 and 330
    assert sorted(set(feedback.labels.log.frame()["step"])) == [120, 190, 260, 330]
    table = tool.compare(replay, [TASK], 0)
    assert list(table["arm"]) == list(tool.arms()) and table["ensemble_right"].between(0, 1).all()
