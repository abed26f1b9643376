"""The example data set, and the page that describes the form it has."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from prefvlm_core.labelling.exchange.data import REQUIRED, SCHEMAS
from prefvlm_core.labelling.exchange.folder import read_folder
from prefvlm_core.labelling.exchange.posting import add_data
from prefvlm_core.labelling.queue import LabelQueue

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "results" / "examples" / "scripted_labels"
PAGE = (ROOT / "docs" / "howto" / "exchange_labels.md").read_text(encoding="utf-8")


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_labels", ROOT / "tools" / "example_labels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_answered_every_pair_as_the_true_reward_says(tool: ModuleType) -> None:
    data = read_folder(EXAMPLE)
    truth = {pair["pair"]: pair["truth"] for pair in data.pairs.to_pylist()}
    given = {row["pair"]: row["label"] for row in data.labels.to_pylist() if row["teacher"] == "script"}
    assert given == truth and len(given) == 12
    assert set(data.labels["teacher"].to_pylist()) == {"script", "vlm"}  # nothing of a person
    assert {pair["run_id"] for pair in data.pairs.to_pylist()} == {tool.CONFIG.run_id}
    for clip in data.clips.to_pylist():
        assert data.frames(clip["clip"]).shape == (10, tool.SIZE, tool.SIZE, 3)
        assert np.shape(clip["observations"]) == (10, 39) and np.shape(clip["actions"]) == (10, 4)
        assert np.ptp(data.frames(clip["clip"])) > 100  # a picture, not a blank


def test_it_is_small_and_says_what_it_is(tool: ModuleType) -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*")) < 1_000_000
    card = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert "license: cc0-1.0" in card and "No person gave these labels" in card
    written, made = (re.sub(r"\| with \| .*", "", text) for text in (card, tool._card(read_folder(EXAMPLE))))
    assert written == made  # but for the versions
    assert (EXAMPLE / "LICENSE").read_text(encoding="utf-8") == tool.LICENSE


@pytest.mark.slow
def test_it_is_made_anew(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and steps are equal. Pictures too where the renderer's and Pillow's versions are the card's."""
    monkeypatch.setattr(sys, "argv", ["example_labels.py", str(tmp_path / "made")])
    tool.main()
    made, stored = read_folder(tmp_path / "made"), read_folder(EXAMPLE)
    assert (made.clips, made.pairs, made.labels) == (stored.clips, stored.pairs, stored.labels)
    for clip in stored.strips:
        assert np.abs(made.frames(clip).astype(int) - stored.frames(clip)).mean() < 4


def test_people_can_go_on_with_it(tmp_path: Path) -> None:
    assert add_data(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), read_folder(EXAMPLE)) == (12, 12)


# ---- the page


def test_the_page_names_every_column() -> None:
    for name, schema in SCHEMAS.items():
        _, section = PAGE.split(f"\n### `{name}`")
        rows = [line.split(" | ") for line in section.split("\n#")[0].splitlines() if line.startswith("| `")]
        assert [row[0].strip("|` ") for row in rows if len(row) == 3] == schema.names
        assert tuple(row[0].strip("|` ") for row in rows if row[2].startswith("**")) == REQUIRED[name]


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 3
    read, theirs, learned = ({} for _ in blocks)  # type: dict[str, Any]
    for block, variables in zip(blocks, (read, theirs, learned), strict=True):
        exec(block, variables)
    assert read["frames"].shape == (10, 112, 112, 3) and read["actions"].shape == (10, 4)
    data = read_folder(tmp_path / "their_pairs")
    np.testing.assert_array_equal(data.pairs["text"].to_pylist(), ["Which one is calmer?"] * 2)
    assert add_data(LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), data) == (2, 0)
    better, labels = learned["better"].numpy(), learned["buffer"].labels
    assert learned["accuracy"] > 0.9 and np.mean((better > 0.5) == (labels > 0.5)) > 0.9
