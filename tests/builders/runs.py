"""Builders of small runs for tests."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from prefvlm_core.config.run import Execution, RunConfig
from prefvlm_core.methods import run_config
from prefvlm_core.runs.directory import FINISHED, RunDirectory
from prefvlm_core.runs.files import read_tensors
from prefvlm_core.train import Fleet, train

TINY = {
    "total_steps": 400,
    "horizon": 50,
    "sac.width": 16,
    "sac.batch_size": 16,
    "exploration.random_steps": 60,
    "exploration.entropy_steps": 60,
    "reward.width": 16,
    "reward.max_epochs": 3,
    "feedback.budget": 20,
    "feedback.first_session_queries": 8,
    "feedback.schedule": "fixed",
    "feedback.session_queries": 5,
    "feedback.session_every": 70,
    "feedback.segment_length": 10,
    "feedback.reset_updates": 4,
    "evaluation.every": 100,
    "evaluation.episodes": 1,
    "evaluation.final_episodes": 2,
    "evaluation.held_out_pairs": 30,
}


def tiny(method: str, seed: int = 0, **changes):
    return run_config("button-press-v3", method, seed, "quick", TINY | changes)


def quiet(results: Path, **changes) -> Execution:
    return Execution(results=str(results), progress=False, workers=1, **changes)


def train_until_300(configs: Sequence[RunConfig], execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and stop as if killed after 300 steps."""
    evaluate = Fleet._evaluate_if_due

    def stop_after_300(fleet: Fleet) -> None:
        evaluate(fleet)
        if fleet.replay.size == 300:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Fleet, "_evaluate_if_due", stop_after_300)
        train(configs, execution)


def without_seconds(directory: RunDirectory) -> list[dict[str, str]]:
    rows = directory.read_metrics()
    return [{name: repr(value) for name, value in row.items() if not name.startswith("seconds")} for row in rows]


def weights_hash(directory: RunDirectory) -> str:
    return hashlib.sha256((directory.path / "weights.safetensors").read_bytes()).hexdigest()


SMALL = TINY | {
    "vlm.queries": 12,
    "vlm.frame_stride": 5,
    "adapter.first_updates": 10,
    "adapter.later_updates": 3,
    "filter.adaptive_minimum": 3,
}


NO_HUMAN = {"feedback.budget": 0}


SCALED: dict[str, dict[str, object]] = {
    **dict.fromkeys(("sac", "vlm-reward", "vlm-preference"), NO_HUMAN),
    "rlvlmf": NO_HUMAN | {"feedback.segment_length": 1, "vlm.frame_stride": 1},
    "mrn": {"mrn.meta_every": 10},
    "surf": {"surf.confidence": 0.55},
    # A threshold that divergences reach after so few updates, and a teacher with mistakes to find.
    "rime": {"feedback.teacher": "mistake", "feedback.teacher_mistake": 0.3, "filter.upper": 0.75},
}
"""Maps methods to the fields that they need to have an effect in a run this small."""


def small(method: str, changes: Mapping[str, Any] = MappingProxyType({}), seed: int = 0):
    return run_config("button-press-v3", method, seed, "quick", SMALL | SCALED.get(method, {}) | dict(changes))


def finish(results: Path, config: RunConfig, success: float = 0.5) -> RunDirectory:
    """Store a run as if it had been trained."""
    directory = RunDirectory(results, config)
    directory.open()
    others = dict.fromkeys(["episode_return", "human_labels", "vlm_labels", "reward_accuracy", "seconds"], 1.0)
    directory.write_metrics([{"step": step, "success": success} | others for step in (500, 1000)])
    directory.write_weights({"actor": torch.zeros(1)})
    directory.write_manifest({"status": FINISHED})
    return directory


def config_of(seed: int = 0, method: str = "pebble") -> RunConfig:
    """A run that is stored, not trained."""
    return run_config("drawer-close-v3", method, seed, "quick")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `folder` but the locks: time of change and content."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def content_hash(directory: RunDirectory) -> str:
    """Metrics without timings, label log, and every stored tensor."""
    digest = hashlib.sha256()
    for row in directory.read_metrics():
        digest.update(repr([pair for pair in row.items() if not pair[0].startswith("seconds")]).encode())
    labels = directory.path / "labels.csv"
    digest.update(labels.read_bytes() if labels.exists() else b"no labels")
    for path in sorted(directory.path.glob("*.safetensors")):
        for name, tensor in sorted(read_tensors(path)[0].items()):
            digest.update(f"{path.name} {name}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
