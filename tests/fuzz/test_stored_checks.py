"""Damaged sanity checks, batch records and cached meshes: refused in one line or done anew, and never believed."""

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders.damage import DAMAGES, Damage
from builders.refusals import is_one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from prefvlm_core.analysis import sanity_results
from prefvlm_core.analysis.sanity import RewardCurve as Curve
from prefvlm_core.analysis.sanity_plans import SanityPlan
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains import light_model
from prefvlm_core.experiments.batch import Record, read_record, write_record

PLAN = SanityPlan(("window-open-v3",), trajectories=12, draws=2, stride=10)
FEW = settings(max_examples=max(40, settings().max_examples // 10))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a small sanity check of a plan and a model that exist for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sanity_results.PLANS, "quick", PLAN)
        patch.setattr(sanity_results, "load", lambda name: SimpleNamespace(fingerprint=f"{name}-1"))
        generator = np.random.default_rng(0)
        curves = [
            Curve(PLAN.tasks[0], behavior, generator.integers(0, 256, (4, 64, 64, 3), np.uint8), *np.eye(2, 4), success)
            for behavior, success in (("expert", 3), ("random actions", None))
        ]
        draws = [(PLAN.tasks[0], model, draw, 0.5, 0.75) for draw in range(2) for model in PLAN.models]
        table = pd.DataFrame(draws, columns=["task", "model", "draw", "zero_shot", "adapted"])
        results = tmp_path_factory.mktemp("results")
        sanity_results._write(
            results / "quick" / "sanity", sanity_results.SanityResults(curves, table), f"{PLAN.model}-1"
        )
        sanity_results.sanity_results("quick", results, compute=False)
        yield results


@pytest.mark.parametrize("name", ["accuracies.csv", "rewards.csv", "rewards.webp"])
@FEW
@given(damage=DAMAGES)
def test_a_damaged_sanity_check_is_refused_or_whole(check: Path, name: str, damage: Damage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(check, folder, dirs_exist_ok=True)
        path = Path(folder, "quick", "sanity", name)
        path.write_bytes(damage(path.read_bytes()))
        try:
            found = sanity_results.sanity_results("quick", folder, compute=False)
        except PrefVLMError as error:
            assert is_one_line(error) and folder in str(error), str(error)
            return
        assert found.accuracies[["zero_shot", "adapted"]].stack().between(0, 1).all() and len(found.accuracies) == 4
        assert [curve.frames.shape for curve in found.curves] == [(4, 64, 64, 3)] * 2
        for curve in found.curves:
            assert np.isfinite([curve.vlm_rewards, curve.true_rewards]).all() and len(curve.true_rewards) == 4


@FEW
@given(damage=DAMAGES)
def test_a_damaged_mesh_is_made_anew_or_whole(tmp_path: Path, damage: Damage) -> None:
    vertices, faces = np.random.default_rng(0).random((9, 3), np.float32), np.arange(9, dtype=np.int32).reshape(3, 3)
    light_model._store(tmp_path / "mesh.npz", vertices, faces)
    (tmp_path / "mesh.npz").write_bytes(damage((tmp_path / "mesh.npz").read_bytes()))
    if (found := light_model._stored_mesh(tmp_path / "mesh.npz")) is not None:
        np.testing.assert_array_equal(found[0], vertices)
        np.testing.assert_array_equal(found[1], faces)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"vertices": np.zeros((2, 3), np.float32)},
        {"vertices": np.zeros((2, 3), np.float32), "faces": np.full((1, 3), 2, np.int32)},
        {"vertices": np.zeros((2, 3), np.float32), "faces": np.full((1, 3), -1, np.int32)},
        {"vertices": np.full((2, 3), np.nan, np.float32), "faces": np.zeros((1, 3), np.int32)},
        {"vertices": np.zeros((2, 3), np.int32), "faces": np.zeros((1, 3), np.int32)},
        {"vertices": np.zeros((2, 3), np.float32), "faces": np.zeros((0, 3), np.int32)},
        {"vertices": np.array([None] * 3), "faces": np.zeros((1, 3), np.int32)},
        {"vertices": np.float32(0), "faces": np.int32(0)},
    ],
)
def test_a_mesh_that_is_none_is_made_anew(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "mesh.npz", **arrays)
    assert light_model._stored_mesh(tmp_path / "mesh.npz") is None
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert light_model._stored_mesh(tmp_path / "array.npy") is None and light_model._stored_mesh(tmp_path) is None


@given(damage=DAMAGES | st.binary(max_size=40).map(lambda content: lambda _: content))
def test_a_damaged_record_of_a_batch_is_empty_or_a_record(tmp_path: Path, damage: Damage) -> None:
    write_record(tmp_path, "quick", "table", 1.5, ["a.csv", "b.csv"])
    path = tmp_path / "quick" / ".done" / "table.json"
    path.write_bytes(damage(path.read_bytes()))
    record = read_record(path)
    assert isinstance(record, Record) and isinstance(record.seconds, float)
    assert isinstance(record.step, str) and all(isinstance(made, str) for made in record.made)
