"""The pair labeller: `Labeller(url, "your name")` as the last line of a notebook's cell, in JupyterLab or Voila.

Plain ipywidgets. They take no keys and cannot scrub a picture, so `widget.js` (no library, no extension) comes
along in the HTML widget that shows the pair.
"""

from __future__ import annotations

import asyncio
import base64
import html
import threading
import time
from importlib import resources

import ipywidgets
from IPython.display import display

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.agreement import Progress, progress
from prefvlm_core.labelling.queue import Annotator, LabelQueue, Question, Refused

SOONEST_SECONDS = 0.25
"""An answer sooner after the pair appeared is the second half of a double click and is not taken."""
REFRESH_SECONDS = 1.0
REPEAT_EVERY = 10
"""Every so many pairs, one that was answered before is asked again."""

_BUTTONS = {
    "left": ("← left is better", "primary", "2 2 0"),
    "equal": ("↑ equal", "", "1 1 0"),
    "skip": ("↓ can't tell", "", "1 1 0"),
    "right": ("right is better →", "primary", "2 2 0"),
    "undo": ("⌫ undo", "", "0 0 auto"),
}
"""Text, style, and share of the width: each side's button stands below its clip."""
_SCRIPT = html.escape(resources.files("prefvlm_core.labelling").joinpath("widget.js").read_text(encoding="utf-8"))
_NO_PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
_PANE = '<canvas width="480" height="480" style="width:49.5%;border-radius:6px;cursor:pointer" title="pause"></canvas>'
_HEIGHT = "38px"
_SOFT = "color:var(--jp-ui-font-color2, #666)"


class Labeller:
    """A person's view of the queue at `url`: both clips of a pair side by side, keys and buttons to answer.

    Keys, once the labeller was clicked: ← left, → right, ↑ equal, ↓ can't tell, Backspace takes the last answer back.
    An answer is on the disk before the next pair appears. After a restart of the kernel run the cell again: it goes on
    where the same name stopped. `agreement`: give second opinions on pairs that others answered.
    Raises `PrefVLMError` for an empty name and a queue that cannot be reached.
    """

    def __init__(self, url: str, annotator: str, agreement: bool = False, repeat_every: int = REPEAT_EVERY) -> None:
        self._queue = LabelQueue(url)
        self._annotator = Annotator(self._queue, annotator, repeat_every, agreement)
        self._turn = threading.Lock()  # JupyterLab may deliver a click in a thread beside that of `_wait_for_pairs`
        self._question: Question | None = None
        self._ahead: Question | None = None
        self._run_id = ""
        self._shown = 0
        self._since = 0.0
        self._task, self._clip, self._status = (ipywidgets.HTML() for _ in range(3))
        self._hint = ipywidgets.ToggleButton(
            description="show the VLM's guess", tooltip="It may bias you", layout={"width": "auto", "height": _HEIGHT}
        )
        self._hint.observe(lambda _change: self._describe(), "value")
        *choices, undo = (self._button(name, *look) for name, look in _BUTTONS.items())
        rows = (
            ipywidgets.HBox(choices),
            ipywidgets.HBox([undo, self._hint], layout={"justify_content": "space-between"}),
        )
        self.view = ipywidgets.VBox(
            [self._task, self._clip, rows[0], self._status, rows[1]], layout={"max_width": "860px", "padding": "12px"}
        )
        self.view.add_class("prefvlm-labeller")
        self._next()

    def _ipython_display_(self) -> None:
        display(self.view)
        self._watch = asyncio.get_running_loop().create_task(self._wait_for_pairs())

    def _button(self, name: str, text: str, style: str, share: str) -> ipywidgets.Button:
        layout = {"width": "auto", "height": _HEIGHT, "flex": share, "min_width": "110px"}
        button = ipywidgets.Button(description=text, button_style=style, layout=layout)
        button.add_class("prefvlm-choice").add_class(f"prefvlm-{name}")
        button.on_click(lambda _button: self.click(name))
        return button

    async def _wait_for_pairs(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            with self._turn:
                if self._question is None:
                    self._next()

    def click(self, name: str) -> None:
        """What a button or its key does: left, right, equal, skip or undo."""
        with self._turn:
            self._do(name)

    def _do(self, name: str) -> None:
        try:
            if name == "undo":
                self._undo()
            elif self._question is not None and time.monotonic() - self._since >= SOONEST_SECONDS:
                self._annotator.answer(self._question, name, time.monotonic() - self._since)
                self._next()
            else:
                self._show(self._question)
        except Refused as error:
            self._next(str(error))
        except PrefVLMError as error:  # not stored: the same pair stays, to be answered again
            self._show(self._question, str(error))

    def _undo(self) -> None:
        back = self._annotator.undo()
        if back is None:
            return self._show(self._question, "There is no answer to take back.")
        self._ahead = None  # still claimed by this window, so it comes again
        self._show(back)

    def _next(self, problem: str = "") -> None:
        """Show the next pair, claimed while its predecessor was on screen, and claim one ahead."""
        try:
            question = self._ahead or self._annotator.claim()
            self._ahead = None
            if question is not None or problem or self._shown == 0 or self._question is not None:
                self._show(question, problem)
            if question is not None:
                self._ahead = self._annotator.claim([question])
        except PrefVLMError as error:
            self._show(self._question, str(error))

    def _show(self, question: Question | None, problem: str = "") -> None:
        self._question, self._since = question, time.monotonic()
        self._shown += 1
        self._hint.value = False
        self._clip.value = _player(question, self._shown)
        self._describe(problem)

    def _describe(self, problem: str = "") -> None:
        """The words around the clips."""
        question = self._question
        text = "All answered. New pairs appear here when training asks." if question is None else question.text
        self._task.value = f'<div style="font-size:1.5em;text-align:center;padding:4px">{html.escape(text)}</div>'
        self._run_id = self._run_id if question is None else question.run_id
        said = [html.escape(problem)]
        try:
            said.insert(0, _in_words(progress(self._queue.database, self._annotator.name, self._run_id)))
        except PrefVLMError as error:
            said = [html.escape(str(error))]
        if self._hint.value and question is not None:
            said.append(_guess(question))
        lines = "<br>".join(filter(None, said))
        self._status.value = f'<div style="text-align:center;line-height:1.7">{lines}</div>'

    def close(self) -> None:
        """Give back what is claimed and unanswered."""
        self._annotator.close()


def _player(question: Question | None, shown: int) -> str:
    """HTML of a pair, or of none."""
    picture = _NO_PICTURE
    if question is not None:
        picture = f"data:image/webp;base64,{base64.b64encode(question.clip).decode()}"
    frames, swapped = (0, 0) if question is None else (question.frames, int(question.swapped))
    facts = f'data-frames="{frames}" data-swapped="{swapped}" data-shown="{shown}"'
    image = f'<img hidden {facts} onload="{_SCRIPT}" src="{picture}">'
    if question is None:
        return f"<div>{image}</div>"
    style = "width:100%;margin:4px 0"
    scrubber = f'<input type="range" min="0" max="{frames - 1}" value="0" style="{style}" title="drag to scrub">'
    panes = f'<div style="display:flex;justify-content:space-between">{_PANE}{_PANE}</div>'
    return f"<div>{image}{panes}{scrubber}</div>"


def _guess(question: Question) -> str:
    if question.vlm_label is None:
        return "The VLM was not asked about this pair."
    side = "right" if (question.vlm_label > 0.5) ^ question.swapped else "left"
    return f"The VLM prefers the {side} one."


def _in_words(counts: Progress) -> str:
    """The lines below the clips, HTML: how far the budget is used, and what is known about this person's answers."""
    bar = f'<progress value="{counts.answered}" max="{counts.budget or 1}" style="width:160px"></progress>'
    parts = [f"yours: {counts.mine}"]
    if counts.seconds is not None:
        parts.append(f"{counts.seconds:.1f} s each")
    if counts.repeats.pairs:
        parts.append(f"{counts.repeats.percent:.0f} % of {counts.repeats.pairs} repeats alike")
    if counts.oracle.pairs:
        parts.append(f"{counts.oracle.percent:.0f} % as the true reward says")
    budget = f"{bar} <b>{counts.answered} of {counts.budget}</b> labels"
    return f'{budget}<br><span style="{_SOFT}">{" · ".join(parts)}</span>'
