"""The pair labeller for JupyterLab and Voila: `Labeller(url, "your name")` as the last line of a notebook cell.

It consists of plain ipywidgets. They cannot handle keys or scrub an image, so the HTML widget that shows the pair also
carries `widget.js`, which needs no library and no extension.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from importlib import resources

import ipywidgets
from IPython.display import display
from markupsafe import Markup
from sqlalchemy import URL

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.labelling.agreement import Progress, progress
from prefvlm_core.labelling.annotator import Annotator
from prefvlm_core.labelling.queue import AnswerRejected, LabelQueue, Question

SOONEST_SECONDS = 0.25
"""An answer sooner after a pair appears is ignored, since it is the second half of a double click."""
REFRESH_SECONDS = 1.0
REPEAT_EVERY = 10
"""After every so many pairs, one that was answered before is asked again."""

_BUTTONS = {
    "left": ("← left is better", "primary", "2 2 0"),
    "equal": ("↑ equal", "", "1 1 0"),
    "skip": ("↓ can't tell", "", "1 1 0"),
    "right": ("right is better →", "primary", "2 2 0"),
    "undo": ("⌫ undo", "", "0 0 auto"),
}
"""Text, style and share of the width of each button; those of the two sides are below their clips."""
_SCRIPT = resources.files("prefvlm_core.labelling").joinpath("widget.js").read_text(encoding="utf-8")
_NO_PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
# HTML is made by filling in `Markup`, which escapes every value: the database may hold whatever somebody wrote there.
_IMAGE = Markup(
    '<img hidden data-frames="{frames}" data-swapped="{swapped}" data-shown="{shown}" onload="{script}" '
    'src="{picture}">'
)
_PANE = Markup(
    '<canvas width="480" height="480" style="width:49.5%;border-radius:6px;cursor:pointer" title="pause"></canvas>'
)
_PANES = Markup('<div style="display:flex;justify-content:space-between">{pane}{pane}</div>')
_SCRUBBER = Markup(
    '<input type="range" min="0" max="{last}" value="0" style="width:100%;margin:4px 0" title="drag to scrub">'
)
_TASK = Markup('<div style="font-size:1.5em;text-align:center;padding:4px">{text}</div>')
_STATUS = Markup('<div style="text-align:center;line-height:1.7">{lines}</div>')
_BAR = Markup('<progress value="{done}" max="{all}" style="width:160px"></progress>')
_SUMMARY = Markup('{bar} <b>{done} of {all}</b> labels<br><span style="{soft}">{parts}</span>')
_HEIGHT = "38px"
_SOFT = "color:var(--jp-ui-font-color2, #666)"


class Labeller:
    """Shows the pairs of a queue, both clips side by side, with keys and buttons to answer them.

    Keys, once the labeller has been clicked: ← left, → right, ↑ equal, ↓ can't tell, Backspace to undo. An answer is on
    the disk before the next pair appears. After a restart of the kernel, run the cell again: the labeller continues
    where the same person stopped.

    Args:
        url: URL of the queue's database, or `env:NAME` (see `read_address`); training has created the queue.
        annotator: Name of the person who answers.
        agreement: Ask only for second opinions on pairs that others have answered.
        repeat_every: After every so many pairs, ask one again that this person has answered before; 0 for never.

    Raises:
        PrefVLMError: For a name that is not allowed, or if there is no queue or it cannot be reached.
    """

    def __init__(
        self, url: str | URL, annotator: str, agreement: bool = False, repeat_every: int = REPEAT_EVERY
    ) -> None:
        self._queue = LabelQueue(url, create=False)
        self._annotator = Annotator(self._queue, annotator, repeat_every, agreement)
        self._turn = threading.Lock()  # JupyterLab may deliver clicks in another thread than that of `_wait_for_pairs`
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
        """Perform the action of a button or its key: left, right, equal, skip or undo."""
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
        except AnswerRejected as error:
            self._next(str(error))
        except PrefVLMError as error:  # nothing was stored, so the same pair stays to be answered again
            self._show(self._question, str(error))

    def _undo(self) -> None:
        back = self._annotator.undo()
        if back is None:
            return self._show(self._question, "There is no answer to take back.")
        self._ahead = None  # this window still holds the claim, so the pair comes again
        self._show(back)

    def _next(self, problem: str = "") -> None:
        """Show the next pair, which was claimed while its predecessor was on screen, and claim the one after it."""
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
        """Update the texts around the clips."""
        question = self._question
        text = "All answered. New pairs appear here when training asks for them." if question is None else question.text
        self._task.value = str(_TASK.format(text=text))
        self._run_id = self._run_id if question is None else question.run_id
        said: list[str] = [problem]
        try:
            said.insert(0, _summary(progress(self._queue.database, self._annotator.name, self._run_id)))
        except PrefVLMError as error:
            said = [str(error)]
        if self._hint.value and question is not None:
            said.append(_guess(question))
        self._status.value = str(_STATUS.format(lines=Markup("<br>").join(filter(None, said))))

    def close(self) -> None:
        """Give back every claimed pair that is unanswered."""
        self._annotator.close()


def _player(question: Question | None, shown: int) -> str:
    """The HTML that plays a pair, or an empty player without one."""
    if question is None:
        facts, picture = {"frames": 0, "swapped": 0}, _NO_PICTURE
        controls = Markup()
    else:
        facts = {"frames": question.frames, "swapped": int(question.swapped)}
        picture = f"data:image/webp;base64,{base64.b64encode(question.clip).decode()}"
        controls = _PANES.format(pane=_PANE) + _SCRUBBER.format(last=question.frames - 1)
    image = _IMAGE.format(**facts, shown=shown, script=_SCRIPT, picture=picture)
    return str(Markup("<div>{}{}</div>").format(image, controls))


def _guess(question: Question) -> str:
    if question.vlm_label is None:
        return "The VLM was not asked about this pair."
    side = "right" if (question.vlm_label > 0.5) ^ question.swapped else "left"
    return f"The VLM prefers the {side} one."


def _summary(counts: Progress) -> Markup:
    """The lines below the clips as HTML: how much of the budget is used, and statistics of this person's answers."""
    parts = [f"yours: {counts.mine}"]
    if counts.seconds is not None:
        parts.append(f"{counts.seconds:.1f} s each")
    if counts.repeats.pairs:
        parts.append(f"{counts.repeats.percent:.0f} % of {counts.repeats.pairs} repeats agree")
    if counts.oracle.pairs:
        parts.append(f"{counts.oracle.percent:.0f} % agree with the true reward")
    bar = _BAR.format(done=counts.answered, all=counts.budget or 1)
    return _SUMMARY.format(bar=bar, done=counts.answered, all=counts.budget, soft=_SOFT, parts=" · ".join(parts))
