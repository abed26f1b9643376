"""Labeling one's own clips: what is shown, what is returned, and what a repeated call finds."""

import asyncio
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling import own_clips
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.clips import MOST_FRAMES
from prefvlm_core.labelling.database import PAIRS
from prefvlm_core.labelling.own_clips import label_pairs
from prefvlm_core.labelling.queue import LabelQueue


def gray(level: int, frames: int = 4, height: int = 40, width: int = 40) -> np.ndarray[Any, Any]:
    return np.full((frames, height, width, 3), level, np.uint8)


class Person:
    """Stands in for the labeller and a browser: answers every pair as `prefers` says, or never says it is ready."""

    choices: tuple[str, ...] = ()
    shown = 0

    def __init__(self, url: Any, annotator: str, repeat_every: int) -> None:
        self.annotator = Annotator(LabelQueue(url, create=False), annotator, repeat_every)
        self.ready = self

    def wait(self, _seconds: float) -> bool:
        return bool(self.choices)

    def stop(self, _state: str) -> None:
        pass

    @classmethod
    def display(cls, person: "Person") -> None:
        cls.shown += 1
        asyncio.get_running_loop().create_task(person.answer())

    async def answer(self) -> None:
        for choice in self.choices:
            while (question := self.annotator.claim()) is None:
                await asyncio.sleep(0.01)
            sides = ("second", "first") if question.swapped else ("first", "second")
            self.annotator.answer(question, dict(zip(sides, ("left", "right"), strict=True)).get(choice, choice), 1)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> type[Person]:
    monkeypatch.setattr(own_clips, "Labeller", Person)
    monkeypatch.setattr(own_clips, "display", Person.display)
    monkeypatch.setattr(own_clips, "_UNDO_SECONDS", 0)
    monkeypatch.setattr(Person, "shown", 0)
    return Person


def test_answers_are_about_the_first_and_the_second_clip(person: type[Person], tmp_path: Path) -> None:
    person.choices = ("first", "second", "equal", "skip")
    clips = [(gray(20 * number), gray(200)) for number in range(4)]
    storage = tmp_path / "mine.sqlite"
    assert asyncio.run(label_pairs(clips, storage)) == [0, 1, 0.5, None]
    assert asyncio.run(label_pairs(clips, storage)) == [0, 1, 0.5, None] and person.shown == 1  # nothing is asked again
    with pytest.raises(PrefVLMError, match=r"mine.sqlite holds the answers to other clips; name another file"):
        asyncio.run(label_pairs(clips[:3], storage))


def test_a_call_that_was_interrupted_goes_on(person: type[Person], tmp_path: Path) -> None:
    clips, storage = [(gray(20 * number), gray(200)) for number in range(3)], tmp_path / "mine.sqlite"
    person.choices = ("first",)

    async def interrupted() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(label_pairs(clips, storage), 2)

    asyncio.run(interrupted())
    person.choices = ("second", "second")
    assert asyncio.run(label_pairs(clips, storage)) == [0, 1, 1]


def test_without_a_browser_it_says_what_to_do(person: type[Person], tmp_path: Path) -> None:
    person.choices = ()
    with pytest.raises(PrefVLMError, match=r"No browser has answered .* asyncio.create_task\(label_pairs"):
        asyncio.run(label_pairs([(gray(0), gray(1))], tmp_path / "mine.sqlite"))


def test_clips_of_any_size_and_length_are_shown_whole(person: type[Person], tmp_path: Path) -> None:
    person.choices = ("equal",)
    frames = gray(10, 50, 40, 80)
    frames[-1] = 250
    file = tmp_path / "still.gif"
    Image.fromarray(gray(100, 1, 60, 30)[0]).save(file)
    asyncio.run(label_pairs([(frames, file)], tmp_path / "mine.sqlite"))
    with LabelQueue(f"sqlite:///{tmp_path}/mine.sqlite").transaction(reading=True) as connection:
        row = connection.execute(select(PAIRS.c.frames, PAIRS.c.clip)).one()
    sheet = np.asarray(Image.open(io.BytesIO(row.clip)).convert("L"), int)
    assert row.frames == MOST_FRAMES and sheet.shape == (80 * MOST_FRAMES, 160)
    first, second = sheet[:80, :80], sheet[:80, 80:]
    assert first[40, 40] == pytest.approx(10, abs=4) and first[2, 40] < 4  # 40 high in 80, with black bars
    assert second[40, 40] == pytest.approx(100, abs=4) and second[40, 2] < 4  # 40 wide in 80
    assert sheet[-40, 40] == pytest.approx(250, abs=4)  # the last frame is among those shown


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ([], "clips holds no pair"),
        ([gray(0)], r"clips\[0\] is array.* must be a pair of clips"),
        ([(gray(0), gray(0).astype(float))], r"clips\[0\]\[1\] is float64 of shape \(4, 40, 40, 3\); allowed"),
        ([(gray(0)[0], gray(0))], r"clips\[0\]\[0\] is uint8 of shape \(40, 40, 3\); allowed"),
        ([(gray(0, 0), gray(0))], r"clips\[0\]\[0\] has the shape \(0, 40, 40, 3\), so it holds no picture"),
        ([("missing.webp", gray(0))], "Cannot read the clip missing.webp: No such file"),
        ([(__file__, gray(0))], "cannot be read as an animated WebP, GIF or PNG; read a video such as MP4 yourself"),
    ],
)
def test_what_is_no_clip_is_named(person: type[Person], tmp_path: Path, clips: Any, said: str) -> None:
    person.choices = ("first",)
    with pytest.raises(PrefVLMError, match=said):
        asyncio.run(label_pairs(clips, tmp_path / "mine.sqlite"))
