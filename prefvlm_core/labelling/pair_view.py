"""The labeller in the browser: a widget that shows one pair and says what the person did. It knows of no queue.

`pair_view.js` draws it. What the browser needs lies in the widget's traits, so a page that is loaded again finds it. A
clip is sent while its predecessor is on screen: there are two places for clips, and after an answer the kernel only
says which of them to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from prefvlm_core.labelling.queue import Question

_PLACES = ("clip_a", "clip_b")


class PairView(anywidget.AnyWidget):
    """Shows a pair, both clips side by side, and calls `on_message` with what the person does.

    Messages are dictionaries: {"do": "ready"}, {"do": "answer", "id": …, "choice": …, "seconds": …}, {"do": "undo"},
    {"do": "revisit", "id": …}; `id` is the `answer_id` of a question.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    clip_a = traitlets.Dict().tag(sync=True)
    clip_b = traitlets.Dict().tag(sync=True)
    """What is in the two places: id, frames, swapped and clip of a question, or nothing."""
    on_screen: Any = traitlets.Dict({"place": "", "turn": 0}).tag(sync=True)
    """The place of the pair on screen, "" for none, and a number that counts what was shown."""
    words = traitlets.Dict().tag(sync=True)
    """Texts: task, counts, state (in place of a pair), said (after an answer), problem, failure (of the
    queue, until it is over), guess; numbers: done, all."""
    recent: Any = traitlets.List().tag(sync=True)
    """The last answers, newest first, as `standing.recent_answers` returns them."""
    summary: Any = traitlets.List().tag(sync=True)
    """(name, value) of every line that is shown at the end."""
    beat = traitlets.Int(0).tag(sync=True)
    """Counts up every second; if it stands still, the kernel is gone."""

    def __init__(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._in_place: dict[str, Question | None] = dict.fromkeys(_PLACES)
        self.on_msg(lambda _widget, message, _buffers: on_message(message))

    def open(self) -> None:
        """Connect to the browser."""
        super().open()
        # ipykernel 7.4 hands what a browser sends to the thread that last wrote to this widget, which may be busy with
        # a cell; JupyterLab 4.4 and newer name a thread (a subshell) for widgets.
        self.comm._reply_subshell_for = lambda data, subshell: subshell

    def show(self, question: Question | None) -> None:
        """Put a question on screen, None for none; its clip is sent unless it was before."""
        place = "" if question is None else self._place_of(question)
        self.on_screen = {"place": place, "turn": self.on_screen["turn"] + 1}

    def send_ahead(self, question: Question) -> None:
        """Send the clip of a question that will be shown next."""
        self._place_of(question)

    def tell(self, **words: str | int) -> None:
        """Change some of the `words`."""
        self.words = self.words | words

    def _place_of(self, question: Question) -> str:
        """The place that holds a question; the one that is not on screen if it has to be put there first."""
        for place, held in self._in_place.items():
            if held is not None and held.answer_id == question.answer_id:
                return place
        place = next(place for place in _PLACES if place != self.on_screen["place"])
        self._in_place[place] = question
        shown = {"id": question.answer_id, "frames": question.frames, "swapped": question.swapped}
        self.set_trait(place, shown | {"clip": question.clip})
        return place
