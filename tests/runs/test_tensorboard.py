"""Curves for TensorBoard, read back by its own reader."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.runs import quiet, tiny, without_seconds
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefvlm_core.agent import evaluation
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.runs import tensorboard
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.train import train

LOOP = importlib.import_module("prefvlm_core.train")  # `import prefvlm_core.train as` would give the function


def curves(directory: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """By name of a curve, its points (step, value)."""
    reader = EventAccumulator(str(directory.path / "tensorboard"))
    reader.Reload()
    return {name: [(point.step, point.value) for point in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def expected(directory: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """The same of the metrics, which count actions, not environment steps."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in directory.read_metrics():
        step = round(row.pop("step")) * directory.config.action_repeat
        for name, value in row.items():
            if np.isfinite(value):
                points.setdefault(name, []).append((step, float(np.float32(value))))
    return points


def test_every_finite_number_of_the_metrics_is_a_point(tmp_path: Path) -> None:
    config = tiny("pebble", action_repeat=2)
    (directory,) = train([config], quiet(tmp_path / "with", tensorboard=True))
    assert curves(directory) == expected(directory)
    assert [step for step, _ in curves(directory)["success"]] == [200, 400, 600, 800]
    (without,) = train([config], quiet(tmp_path / "without"))
    assert without_seconds(directory) == without_seconds(without)
    assert not (without.path / "tensorboard").exists()


def test_a_resumed_run_has_no_point_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after an evaluation that no checkpoint holds: it is repeated, and written once."""
    execution = quiet(tmp_path, tensorboard=True, checkpoint_seconds=0)
    config, evaluate = tiny("pebble"), evaluation.evaluate
    calls: list[int] = []

    class Killed(Exception):
        pass

    def save(fleet: Any) -> None:
        if fleet.replay.size >= 300:  # after the evaluation at 300, before its checkpoint
            raise Killed
        saved(fleet)

    saved = LOOP.Fleet._save
    monkeypatch.setattr(evaluation, "evaluate", lambda *values: calls.append(1) or evaluate(*values))
    monkeypatch.setattr(LOOP.Fleet, "_save", save)
    with pytest.raises(Killed):
        train([config], execution)
    directory = RunDirectory(tmp_path, config)
    assert [step for step, _ in curves(directory)["success"]] == [500, 1000, 1500]  # live, in environment steps
    monkeypatch.setattr(LOOP.Fleet, "_save", saved)
    train([config], execution)
    assert len(calls) == 5  # that at 300 twice
    assert curves(directory) == expected(directory)


def test_curves_that_cannot_be_opened_close_those_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Curves:
        def __init__(self, run: RunDirectory) -> None:
            if events:
                raise OSError("too many open files")
            events.append(f"opened {run.config.seed}")

        def close(self) -> None:
            events.append("closed")

    monkeypatch.setattr(tensorboard, "LiveCurves", Curves)
    runs = [RunDirectory(tmp_path, tiny("pebble", seed)) for seed in range(2)]
    with pytest.raises(OSError, match="too many open files"), tensorboard.curves_of(runs):
        pass
    assert events == ["opened 0", "closed"] and runs[0].curves is runs[1].curves is None


def test_without_tensorboard_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PrefVLMError, match=r"TensorBoard cannot be imported .*pip install 'prefvlm\[tensorboard\]'"):
        train([tiny("pebble")], quiet(tmp_path / "results", tensorboard=True))
    assert not (tmp_path / "results").exists()
