"""docs/howto/adding.md and the pages it lists: every example runs as it stands, and does what its page says."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from builders.registries import REGISTRIES, restored_registries

from prefvlm_core.experiments.fleets import fleets, plan
from prefvlm_core.experiments.plan import finished_runs
from prefvlm_core.runs.directory import RunDirectory

ROOT = Path(__file__).parents[1]
HOWTO = ROOT / "docs" / "howto"
PAGE = (HOWTO / "adding.md").read_text(encoding="utf-8")
PAGES = [HOWTO / name for name in re.findall(r"^\d\. \[.*\]\((.*)\)$", PAGE, flags=re.M)]
BLOCKS = [
    block
    for path in PAGES
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
]


class Examples:
    """What the page's script defined, the runs that it trained, and the texts that its VLM was given."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "examples"}
        self.texts: list[str] = []
        for block in BLOCKS:
            exec(compile(block, "docs/howto", "exec"), self.names)
            if "class ColorNames" in block:
                self._listen(self.names["ColorNames"])
        self.fleets = fleets([run.config for run in plan("what_is_mine", "quick")])
        self.runs = finished_runs("what_is_mine", "quick", "my-results")

    def _listen(self, vlm: Any) -> None:
        encode_text = vlm.encode_text
        vlm.encode_text = lambda model, texts: self.texts.extend(texts) or encode_text(model, texts)

    def run(self, **fields: str) -> RunDirectory:
        """The only run whose fields have these values; a double underscore stands for the dot."""
        wanted = {name.replace("__", "."): value for name, value in fields.items()}

        def value(run: RunDirectory, name: str) -> Any:
            found: Any = run.config
            for part in name.split("."):
                found = getattr(found, part)
            return found

        (run,) = [run for run in self.runs if all(value(run, name) == wanted[name] for name in wanted)]
        return run

    def labels(self, teacher: str, **fields: str) -> pandas.DataFrame:
        table = pandas.read_csv(self.run(**fields).path / "labels.csv")
        return table[table["teacher"] == teacher]


PLAIN = {"method": "pebble", "feedback__teacher": "oracle", "reward__learning": "plain"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    with restored_registries(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        yield Examples()


def test_the_script_trains_one_fleet_and_draws_it(examples: Examples) -> None:
    assert len(examples.fleets) == 1 and len(examples.runs) == 8
    assert set(examples.names["table"]["run_id"]) == {run.config.run_id for run in examples.runs}
    assert examples.names["table"]["step"].max() == 400 * 5
    assert Path("what_is_mine.png").read_bytes().startswith(b"\x89PNG")


def test_every_registry_has_an_example(examples: Examples) -> None:
    added = {name: set(registry) - registry._packaged for name, registry in REGISTRIES.items()}
    counts = {name: len(names) for name, names in added.items()}
    assert counts == dict.fromkeys(REGISTRIES, 1) | {"VLMS": 2, "DOMAINS": 0}, added


def test_the_teacher_answers_by_the_last_step(examples: Examples) -> None:
    rewards = np.array([[[9.0, 1], [0, 2]], [[0, 3], [9, 2]], [[1, 5], [8, 5]]])
    opinion = SimpleNamespace(labels=None, divergences=None)
    answers = examples.names["LastStep"]().ask(SimpleNamespace(rewards=rewards, starts=None, opinion=opinion))
    assert answers.labels[:2].tolist() == [1, 0] and answers.answered.tolist() == [True, True, False]
    labels = examples.labels("human", feedback__teacher="last-step")
    oracle = examples.labels("human", **PLAIN, feedback__sampling="disagreement")
    assert (oracle["label"] == oracle["truth"]).all() and (labels["label"] != labels["truth"]).any()
    first, reference = labels[labels["session"] == 1], oracle[oracle["session"] == 1]  # the same pairs, asked of both
    assert set(zip(first["first"], first["second"], strict=True)) <= set(
        zip(reference["first"], reference["second"], strict=True)
    )


def test_the_filter_keeps_the_half_that_diverges_least(examples: Examples) -> None:
    labels = examples.labels("vlm", filter__mode="median")
    assert set(labels["partition"]) == {"clean", "uncertain"} and labels["session"].nunique() > 2
    for _, session in labels.groupby("session"):
        sides = session.groupby("partition")["divergence"]
        assert sides.get_group("clean").max() <= sides.get_group("uncertain").min()
    row = examples.run(filter__mode="median").read_metrics()[-1]
    assert row["clean_fraction"] == pytest.approx(0.5, abs=0.05) and row["flipped_fraction"] == 0


def test_the_selection_asks_what_is_most_uncertain(examples: Examples) -> None:
    starts = np.arange(40).reshape(20, 2)
    probabilities = torch.linspace(0, 1, 20).repeat(3, 1)
    chosen = examples.names["MostUncertain"]().choose(
        SimpleNamespace(draw=lambda count: starts[:count]), 2, lambda pairs: probabilities
    )
    assert sorted(chosen[:, 0]) == [18, 20]  # pairs 9 and 10, whose probabilities are 9/19 and 10/19
    own = examples.labels("human", feedback__sampling="most-uncertain")
    other = examples.labels("human", **PLAIN, feedback__sampling="disagreement")
    pairs, reference = own[["session", "first", "second"]], other[["session", "first", "second"]]
    assert pairs[pairs["session"] == 1].equals(reference[reference["session"] == 1])
    assert not pairs[pairs["session"] == 2].equals(reference[reference["session"] == 2])


def test_the_human_sees_what_the_filter_would_flip(examples: Examples) -> None:
    run = examples.run(method="prefvlm-doubted")
    assert (run.config.filter.human_selection, run.config.vlm.labels) == ("doubted", True)
    pair = ["session", "first", "second"]
    by_vlm = examples.labels("vlm", method="prefvlm-doubted")[[*pair, "partition"]]
    asked = examples.labels("human", method="prefvlm-doubted").query("session > 1").merge(by_vlm, on=pair)
    assert "flipped" in set(asked["partition_y"]) <= {"flipped", "uncertain"}
    assert "clean" in set(by_vlm["partition"])


def test_the_vlm_sees_frames_and_the_registered_text(examples: Examples) -> None:
    assert set(examples.texts) == {"push the green drawer until it is closed"}
    vlm = examples.names["ColorNames"]()
    green, plain = vlm.encode_text(["a green drawer", "a drawer"])
    np.testing.assert_allclose(green, np.array([0.1, 1.1, 0.1]) / np.sqrt(1.23), rtol=1e-6)
    np.testing.assert_allclose(plain, np.full(3, 1 / np.sqrt(3)), rtol=1e-6)
    run = examples.run(vlm__model="color-names", method="prefvlm")
    assert len(examples.labels("vlm", vlm__model="color-names")) > 0
    assert run.manifest["vlm_fingerprint"] == "color-names-1"
    assert run.manifest["vlm_text"] == "push the green drawer until it is closed"


def test_the_encoder_without_language_knows_the_task_by_pictures(examples: Examples) -> None:
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    frames[0, 8:16, 24:32, 1] = 64  # the second row and fourth column of the thumbnail
    embedding = examples.names["Thumbnails"]().encode_image(frames).reshape(8, 8, 3)
    assert embedding[1, 3, 1] == pytest.approx(65 * embedding[0, 0, 0])
    run = examples.run(vlm__model="thumbnails", method="prefvlm")
    assert run.manifest["vlm_fingerprint"].startswith("thumbnails-1-goals-")
    assert len(examples.labels("vlm", vlm__model="thumbnails")) > 0


def test_the_learner_sees_the_newest_labels(examples: Examples) -> None:
    first, last = examples.run(reward__learning="newest").read_metrics()
    assert 10 <= first["labels_learned"] <= 15 == last["labels_learned"] and last["human_labels"] > 15
    assert "labels_learned" not in examples.run(**PLAIN, feedback__sampling="disagreement").read_metrics()[-1]


def test_the_files_that_the_page_names_exist() -> None:
    files = re.findall(r"`([\w/]+\.py)`", PAGE.split("\n## In the package\n")[1])
    assert len(files) >= 10
    assert [file for file in files if not (ROOT / "prefvlm_core" / file).exists()] == []


def test_the_reward_sees_the_current_frame(examples: Examples) -> None:
    steps = torch.arange(43.0).repeat(2, 1)
    assert torch.equal(REGISTRIES["REWARD_INPUTS"]["current-frame"](steps), steps[:, :18])
