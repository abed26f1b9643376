"""Label files: one schema checks every line, nothing of a bad file is stored, and what was exported comes back."""

import codecs
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.label_files import LINE, changed, write
from builders.queue import pair, post

from prefvlm_core.cli import main
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.queue import LabelQueue


def refused(file: Path, words: str) -> None:
    """Assert that a file is refused in one line with these words, and that no database comes of it."""
    folder = file.parent / "fresh"
    with pytest.raises(SystemExit) as ended:
        main(["labels", "import", "--file", str(file), "--results", str(folder)])
    assert ended.value.code == 2 and not folder.exists()
    with pytest.raises(PrefVLMError) as error:
        read_labels(file)
    said = str(error.value)
    assert str(file) in said and words in said
    assert said.isprintable() and len(said) < 500


WRONG_VALUES: list[tuple[str, Any, str]] = [
    *[("answer_label", value, "label is") for value in (0.7, 0, 0.5, None)],
    ("answer_label", 0.0, "label is 0.0, but 'left' with swapped 1 means 1.0"),
    *[
        ("answer_label", value, "answers[0].label")
        for value in (2.0, -1, 7, float("nan"), float("inf"), "left", True, [])
    ],
    *[("answer_choice", value, "not among 'left', 'right', 'equal', 'skip'") for value in ("LEFT", "banana", "")],
    *[("answer_choice", value, "answers[0].choice is") for value in (0, None, ["left"])],
    ("answer_choice", "skip", "means null"),
    ("answer_swapped", 0, "label is 1.0, but 'left' with swapped 0 means 0.0"),
    *[("answer_swapped", value, "answers[0].swapped is") for value in (7, -1, "x", None, 0.5, True)],
    *[("answer_purpose", value, "not among 'label', 'agreement', 'repeat'") for value in ("train", "banana")],
    *[("answer_annotator", value, "1 to 100 characters") for value in ("", "  ", "x" * 101, "x" * 100_000)],
    *[("answer_annotator", value, "character 2 is U+") for value in ("a\nb", "a\x1b[2J", "a\0b", "a\u2028b", "a\x85b")],
    ("answer_annotator", " Ann", "no spaces around"),
    ("answer_annotator", "a\ud800", "not one JSON object"),
    *[("answer_seconds", value, "answers[0].seconds is") for value in (-1, "fast", None, float("nan"), 10**400)],
    *[("answer_number", value, "answers[0].number is") for value in (-1, 0, 2**70, None, 1.5)],
    *[("answer_undone", value, "answers[0].undone is") for value in (-1, None, "0")],
    ("answer_answered_at", None, "answers[0].answered_at is None"),
    ("answer_claimed_at", "2026-01-02T03:04:05", "timezone"),
    ("answer_claimed_at", 1.7e9, "answers[0].claimed_at is"),
    ("answer_color", "red", "'answers[0].color' is no field"),
    *[("format", value, "format") for value in (2, "1", None, 1.5)],
    *[("session", value, "session is") for value in (0, -1, "one", 1.5, 2**31)],
    *[("pair", value, "pair is") for value in (-1, 1.5, "one", 10**6, 30, None)],
    *[("budget", value, "budget is") for value in ("<img src=x onerror=alert(1)>", 0, -5, None, 2**31)],
    *[("first", value, "first is") for value in (-5, "x", 10**20, 2**70, None)],
    *[("second", value, "second is") for value in (-1, 0.5)],
    *[("length", value, "length is") for value in (0, -1, "long")],
    *[("frames", value, "frames is") for value in (0, 1001, '"><script>', None)],
    *[("truth", value, "truth") for value in (3, 0.7, "yes", float("nan"))],
    *[("vlm_label", value, "vlm_label is") for value in (1.5, -0.1, "yes", float("nan"))],
    *[("divergence", value, "divergence is") for value in (-1, float("inf"), "big")],
    *[("partition", value, "partition: 'banana' is not among") for value in ("banana",)],
    ("task", "button-press-v2", "Did you mean 'button-press-v3'?"),
    *[("task", value, "task") for value in ("", 5, None)],
    *[("run_id", value, "is no name of a run") for value in ("../../etc", "/etc/passwd", "a//b", "a/./b")],
    *[("run_id", value, "run_id is") for value in ("", "x" * 301, 5, None)],
    *[("run_id", value, "U+") for value in ("a\nb", "a\x1b]0;b")],
    *[("text", value, "text is") for value in ("", "x" * 2001, None)],
    ("text", "a\0b", "U+0000"),
    *[
        ("posted_at", value, "posted_at")
        for value in ("yesterday", "1969-01-01T00:00:00Z", "9999-12-31T23:59:59-10:00")
    ],
    *[("posted_at", value, "posted_at is") for value in (None, 5, "2026-01-02T03:04:05", "2026-13-02T03:04:05Z")],
    *[("last_session", value, "last_session is") for value in (-1, 1, None)],
    ("closed_at", "2026-01-02T03:04:08Z", "last_session is 0"),
    *[("answers", value, "answers is") for value in (None, {}, "none")],
    ("answers", [], "still open"),
    ("answers", [5], "answers[0] is 5"),
    ("answers", LINE["answers"] * 2, "two of purpose 'label'"),
    ("surprise", 1, "'surprise' is no field"),
    ("x" * 1000, 1, "is no field"),
    ("a\x1bb", 1, "is no field"),
]


@pytest.mark.parametrize(("field", "value", "words"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_its_line_and_what_is_allowed(
    tmp_path: Path, field: str, value: Any, words: str
) -> None:
    file = write(tmp_path, changed(pair=0), changed(**{field: value}))
    refused(file, words)
    with pytest.raises(PrefVLMError, match=re.escape(f"{file}, line 2: ")):
        read_labels(file)


@pytest.mark.parametrize("field", [*LINE, *(f"answer_{name}" for name in LINE["answers"][0])])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    line = changed()
    place, name = (line["answers"][0], field.removeprefix("answer_")) if field.startswith("answer_") else (line, field)
    del place[name]
    refused(write(tmp_path, line), f"{name} is missing")


TEXT = json.dumps(LINE, ensure_ascii=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no json\n", "line 1: it is not one JSON object"),
        (TEXT[:100].encode(), "line 1: it is not one JSON object"),
        (f"{TEXT}\n{TEXT}".encode(), "line 2: the pair is that of line 1"),
        (f"{TEXT}{TEXT}".encode(), "line 1: it is not one JSON object"),
        (json.dumps(LINE, indent=1).encode(), "line 1: it is not one JSON object"),
        (f"[{TEXT}]".encode(), "is a JSON array"),
        (b"5\n", "the line is 5"),
        (b'"text"\n', "the line is 'text'"),
        (b'{"a":' * 100_000, "recursion limit"),
        (b"[" * 100_000, "is a JSON array"),
        (TEXT.encode("utf-16"), "is encoded in UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "is encoded in UTF-16"),
        (TEXT.encode("utf-32"), "UTF-32"),
        (TEXT.replace("人", "").encode("latin-1"), "is not UTF-8; the file may be encoded in Latin-1"),
        (gzip.compress(TEXT.encode()), "is compressed with gzip"),
        (b"PK\x03\x04rest", "is a ZIP archive"),
        (b"SQLite format 3\0rest", "is a SQLite database"),
        (b"<!DOCTYPE html><html>", "is HTML"),
        (bytes(range(256)), "is binary"),
        (b"\x80\x04\x95pickle", "is not UTF-8"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_bytes(content)
    refused(file, words)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "Is a directory")
    refused(tmp_path / "missing.jsonl", "No such file")
    with pytest.raises(PrefVLMError, match="larger than 256 MB"):
        read_labels(Path("/dev/zero"))


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: f"\n{text}\n \n".encode(),
        lambda text: text.rstrip().encode(),
        lambda text: json.dumps(json.loads(text), ensure_ascii=True, sort_keys=True).encode(),
    ],
)
def test_what_editors_do_to_a_file_does_no_harm(tmp_path: Path, rewrite: Callable[[str], bytes]) -> None:
    file = write(tmp_path, TEXT)
    expected = list(read_labels(file).values())
    file.write_bytes(rewrite(file.read_text(encoding="utf-8")))
    assert list(read_labels(file).values()) == expected
    assert expected[0].answers[0].annotator == "José 人" and expected[0].answers[0].answered_at.hour == 5


def test_a_file_holds_all_that_is_known(tmp_path: Path) -> None:
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 3)
    queue.post(pair(0, session=2))
    ann = Annotator(queue, "Änn <b>")
    for choice in ("left", "skip"):
        question = ann.claim()
        assert question is not None
        ann.answer(question, choice, 1.5)
    queue.take("run", 1, "withdraw")
    file, again = tmp_path / "labels.jsonl", tmp_path / "again.jsonl"
    assert export_labels(queue.database, file) == 2
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(line["session"], line["pair"], len(line["answers"])) for line in lines] == [
        (1, 0, 1),
        (1, 1, 1),
        (1, 2, 0),
    ]
    known = {
        "task": "door-open-v3",
        "first": 0,
        "second": 500,
        "divergence": 0.25,
        "partition": "uncertain",
        "truth": 0,
    }
    assert lines[0].items() >= known.items() and lines[0]["answers"][0]["annotator"] == "Änn <b>"

    copied = LabelQueue(f"sqlite:///{tmp_path}/copy.sqlite")
    assert add_labels(copied.database, read_labels(file)) == 2
    assert copied.take("run", 1, "wait") == queue.take("run", 1, "wait")
    assert export_labels(copied.database, again) == 2 and again.read_text() == file.read_text()
    assert Annotator(copied, "Änn <b>").undo() is None  # without a clip it could not be asked again
    with pytest.raises(PrefVLMError, match=r"line 1: pair 0 of session 1 of run is in .*copy.sqlite already"):
        add_labels(copied.database, read_labels(file))


def test_a_pair_whose_label_was_taken_back_is_not_exported(tmp_path: Path) -> None:
    """Imported without its clip it would be open, and nobody could answer it."""
    queue = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite")
    post(queue, 2)
    ann, ben = Annotator(queue, "Ann"), Annotator(queue, "Ben", agreement=True)
    for _ in range(2):
        question = ann.claim()
        assert question is not None
        ann.answer(question, "left", 1)
        opinion = ben.claim()
        assert opinion is not None
        ben.answer(opinion, "left", 1)
    assert ann.undo() is not None
    assert export_labels(queue.database, tmp_path / "labels.jsonl") == 2
    (line,) = read_labels(tmp_path / "labels.jsonl").values()
    assert line.pair == 0 and {answer.purpose for answer in line.answers} == {"label", "agreement"}


def test_an_export_of_nothing_writes_nothing(tmp_path: Path) -> None:
    queue, file = LabelQueue(f"sqlite:///{tmp_path}/labels.sqlite"), tmp_path / "labels.jsonl"
    post(queue, 1)
    with pytest.raises(PrefVLMError, match=r"holds no answers of run other, so nothing was written"):
        export_labels(queue.database, file, "other")
    with pytest.raises(PrefVLMError, match="it is a folder"):
        export_labels(queue.database, Path())
    assert not file.exists()
