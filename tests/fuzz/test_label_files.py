"""Label files: what was exported comes back, and whatever else a file holds is refused in one line."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from builders.label_files import LINE, changed, write
from builders.queue import post, stored
from hypothesis import given
from hypothesis import strategies as some

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.queue import LabelQueue

NAMES = some.text(some.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=100).filter(
    str.strip
)
REALS = some.floats(0, 1e300)


@given(
    name=NAMES,
    text=NAMES,
    run_id=NAMES.filter(lambda name: {"", ".", ".."}.isdisjoint(name.split("/"))),
    answers=some.lists(
        some.tuples(some.sampled_from(("left", "right", "equal", "skip")), REALS), min_size=1, max_size=4
    ),
    divergence=REALS,
)
def test_what_was_exported_can_be_imported_whatever_people_are_called(
    name: str, text: str, run_id: str, answers: list[tuple[str, float]], divergence: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue, copied = (LabelQueue(f"sqlite:///{folder}/{file}.sqlite") for file in ("labels", "copy"))
        post(queue, len(answers), run_id=run_id, text=text, divergence=divergence)
        person = Annotator(queue, name)
        for choice, seconds in answers:
            question = person.claim()
            assert question is not None
            person.answer(question, choice, seconds)
        file, again = Path(folder) / "labels.jsonl", Path(folder) / "again.jsonl"
        assert export_labels(queue.database, file) == len(answers)
        assert add_labels(copied.database, read_labels(file)) == len(answers)
        assert export_labels(copied.database, again) == len(answers)
        assert again.read_bytes() == file.read_bytes()
        assert stored(copied) == stored(queue) == [(n, name.strip(), choice) for n, (choice, _) in enumerate(answers)]
        assert copied.take(run_id, 1, "wait") == queue.take(run_id, 1, "wait")


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=5,
)


@given(field=some.sampled_from([*LINE, *(f"answer_{name}" for name in LINE["answers"][0]), "other"]), value=JSON)
def test_any_value_is_accepted_whole_or_refused_in_one_line(field: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), changed(**{field: value}))
        try:
            (line,) = read_labels(file).values()
        except PrefVLMError as error:
            assert str(error).isprintable() and f"{file}, line 1" in str(error)
            return
        read = json.loads(line.model_dump_json())
        assert read["answers"][0]["label"] == float(read["answers"][0]["swapped"]) and read["pair"] < read["budget"]
        assert (read["answers"][0] if field.startswith("answer_") else read)[field.removeprefix("answer_")] == value


@given(content=some.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.jsonl"
        file.write_bytes(content)
        with pytest.raises(PrefVLMError) as error:
            read_labels(file)
        assert str(error.value).isprintable() and str(file) in str(error.value)
