"""Label pairs of your own clips in a notebook: `answers = await label_pairs(clips)`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from IPython.display import display
from numpy.typing import NDArray
from sqlalchemy import URL, func, select

from prefvlm_core.common.errors import PrefVLMError, check_path, shown
from prefvlm_core.labelling.clips import encode, side_by_side
from prefvlm_core.labelling.database import PAIRS
from prefvlm_core.labelling.films import check_frames, read_film
from prefvlm_core.labelling.names import check_characters
from prefvlm_core.labelling.queue import OF_NO_RUN, LabelQueue, Pair
from prefvlm_core.labelling.widget import Labeller

Clip = NDArray[np.uint8] | str | Path
"""Frames (F, H, W, 3) uint8 RGB, or an animated WebP, GIF or PNG file."""
BROWSER_SECONDS = 120.0
"""How long a browser may take to show the labeller."""
_POLL_SECONDS = 0.2
_UNDO_SECONDS = 2.0  # during which the last answer can be taken back
_SESSION = 1


async def label_pairs(
    clips: Sequence[tuple[Clip, Clip]],
    storage: str | Path = "label_pairs.sqlite",
    annotator: str = "me",
    text: str = "Which clip is better?",
) -> list[float | None]:
    """Show the labeller for pairs of clips, and return the answers once every pair has one.

    Every answer is on the disk before the next pair appears. When the call is repeated with the same clips, after a
    restart or on another day, it goes on where it stopped, and returns the stored answers if all are given.

    It is awaited in a cell of JupyterLab 4.4 or newer with ipykernel 7 or newer, which take answers while a cell waits.
    Elsewhere write `task = asyncio.create_task(label_pairs(…))`, and read `task.result()` in a later cell.

    Args:
        clips: Pairs of clips. Of a longer clip `MOST_FRAMES` frames are shown, evenly spaced from the first to the
            last; larger frames are scaled down to `CLIP_SIZE` pixels.
        storage: SQLite file for the answers to these clips, created if missing.
        annotator: Name of the person who answers. Several may share the pairs of one file.
        text: What the labeller asks, above the clips.

    Returns:
        For each pair P(second preferred): 0 for the first clip, 1 for the second, 0.5 for equal ones, None for "can't
        tell".

    Raises:
        PrefVLMError: For clips that cannot be read or shown, if `storage` cannot be used or holds the answers to other
            clips, and if no browser can answer while the cell waits.
    """
    check_path("storage", storage, folder=False)
    check_characters(text)
    run_id = await asyncio.to_thread(_identity, clips)
    url = URL.create("sqlite", database=str(Path(storage).absolute()))
    queue = LabelQueue(url)
    _check_same_clips(queue, run_id, storage)
    if len(queue.posted(run_id, _SESSION)) < len(clips) or queue.unanswered(run_id, _SESSION):
        posting = asyncio.create_task(asyncio.to_thread(_post, queue, clips, run_id, text))
        labeller = Labeller(url, annotator, repeat_every=0)
        display(labeller)
        await _browser(labeller)
        await posting
    while (taken := queue.take(run_id, _SESSION, "wait")) is None:
        await _answers(queue, run_id)
    return [pair.label for pair in taken]


async def _browser(labeller: Labeller) -> None:
    """Wait until a browser shows the labeller; raise `PrefVLMError` if none does in time."""
    if not await asyncio.to_thread(labeller.ready.wait, BROWSER_SECONDS):
        labeller.stop("No answer can reach the cell that waits.")
        raise PrefVLMError(
            f"No browser has answered for {BROWSER_SECONDS:.0f} s: a cell that waits takes answers only in JupyterLab "
            "4.4 or newer with ipykernel 7 or newer; elsewhere write task = asyncio.create_task(label_pairs(…)), and "
            "read task.result() in a later cell."
        )


async def _answers(queue: LabelQueue, run_id: str) -> None:
    """Wait until every pair is answered, and the last answer has not been taken back for a moment."""
    while await asyncio.to_thread(queue.unanswered, run_id, _SESSION):
        await asyncio.sleep(_POLL_SECONDS)
        if not await asyncio.to_thread(queue.unanswered, run_id, _SESSION):
            await asyncio.sleep(_UNDO_SECONDS)


def _check_same_clips(queue: LabelQueue, run_id: str, storage: str | Path) -> None:
    others = select(func.count()).select_from(PAIRS).where(PAIRS.c.run_id != run_id)
    with queue.transaction(reading=True) as connection:
        if connection.execute(others).scalar_one():
            raise PrefVLMError(f"{storage} holds the answers to other clips; name another file as storage.")


def _identity(clips: Sequence[tuple[Clip, Clip]]) -> str:
    """A name for these clips, made of their content."""
    content = hashlib.blake2b(digest_size=16)
    if not len(clips):
        raise PrefVLMError("clips holds no pair; give at least one pair of clips.")
    for number, pair in enumerate(clips):
        if not isinstance(pair, Sequence | np.ndarray) or isinstance(pair, str) or len(pair) != 2:
            raise PrefVLMError(f"clips[{number}] is {shown(pair)}, but must be a pair of clips.")
        for clip in pair:
            if isinstance(clip, str | Path):
                content.update(_bytes_of(Path(clip)))
            else:
                content.update(repr(np.shape(clip)).encode() + np.ascontiguousarray(clip).tobytes())
    return f"{OF_NO_RUN[0]}{content.hexdigest()}"


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PrefVLMError(f"Cannot read the clip {file}: {error.strerror}.") from error


def _post(queue: LabelQueue, clips: Sequence[tuple[Clip, Clip]], run_id: str, text: str) -> None:
    posted = queue.posted(run_id, _SESSION)
    for number, pair in enumerate(clips):
        if number not in posted:
            sides = [_frames_of(clip, f"clips[{number}][{side}]") for side, clip in enumerate(pair)]
            frames = side_by_side(*sides)
            queue.post(
                Pair(
                    run_id=run_id,
                    session=_SESSION,
                    pair=number,
                    budget=len(clips),
                    task="own clips",
                    text=text,
                    first=0,
                    second=0,
                    length=max(map(len, sides)),
                    frames=len(frames),
                    clip=encode(frames),
                )
            )


def _frames_of(clip: Clip, name: str) -> NDArray[np.uint8]:
    """The frames (F, H, W, 3) of a clip, checked."""
    return read_film(Path(clip)) if isinstance(clip, str | Path) else check_frames(clip, name)
