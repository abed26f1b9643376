"""The labels of a stored run, one by one: who said what, what the filter made of it, and its pair of clips."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas
from matplotlib.ticker import MaxNLocator

from prefvlm_core.common.arrays import FloatArray, ImageArray
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.frames import FrameRenderer
from prefvlm_core.explore.choosing import RunChooser, results_folder, run_table, stored_runs
from prefvlm_core.explore.picture import Explorer, Picture, drop_down, encode, row, sentence_html, table_html
from prefvlm_core.plots.style import LABEL_SIZE, PARTITION_COLORS, REFERENCE_COLOR, project_style, text_color
from prefvlm_core.preferences.filters import Partition
from prefvlm_core.runs.directory import REPLAY_FILE, RunDirectory
from prefvlm_core.runs.stored import load_labels

EVERY = "all"
GROUPS = {"VLM": {"teacher": "vlm"}, **{name: {"partition": name} for name in Partition._fields}}
GROUPS |= {"human": {"teacher": "human"}}
"""Which labels are listed, and the values of the log's columns by which they are found."""
BY_TIME, BY_DIVERGENCE = "first to last", "largest divergence"
VERDICTS = ("right", "wrong", "tie")
_CLIP_PIXELS = 260
_PREFERENCES = {0.0: "the first is better", 0.5: "both are alike", 1.0: "the second is better"}
_MARKS = {"right": ("o", 7), "wrong": ("X", 18), "tie": ("|", 14)}  # and their sizes


def label_table(labels: pandas.DataFrame) -> pandas.DataFrame:
    """A label log with the column verdict: `VERDICTS`, by the true reward; a pair or a label of 1/2 is a tie."""
    tie = (labels["truth"] == 0.5) | (labels["label"] == 0.5)
    verdict = np.where(tie, "tie", np.where(labels["label"] == labels["truth"], "right", "wrong"))
    return labels.assign(verdict=verdict)


def chosen_labels(
    table: pandas.DataFrame, group: str = EVERY, session: int | str = EVERY, verdict: str = EVERY, order: str = BY_TIME
) -> pandas.DataFrame:
    """Those rows of a `label_table` that are in one of `GROUPS`, of a session and of a verdict, in an order."""
    for column, value in GROUPS.get(group, {}).items():
        table = table[table[column] == value]
    if session != EVERY:
        table = table[table["session"] == session]
    if verdict != EVERY:
        table = table[table["verdict"] == verdict]
    return table.sort_values("divergence", ascending=False, kind="stable") if order == BY_DIVERGENCE else table


def details(table: pandas.DataFrame, label: int, config: RunConfig) -> pandas.Series:
    """What is known of the label with index `label` in a `label_table`, and of its pair, as texts by their names."""
    it = table.loc[label]
    same_pair = table[(table["first"] == it["first"]) & (table["second"] == it["second"])]
    who = same_pair["teacher"].map({"vlm": "the VLM", "human": "the human"})
    said = dict(zip(who, same_pair["label"].map(_PREFERENCES), strict=True))
    repeat, length = config.action_repeat, config.feedback.segment_length
    facts = {"session": f"{it['session']}, after {it['step'] * repeat:,} environment steps"} | said
    facts |= {"the true reward": _PREFERENCES[it["truth"]], "so this label is": it["verdict"]}
    if not math.isnan(it["divergence"]):
        facts["divergence"] = f"{it['divergence']:.3f} nats"
        if it["label"] != 0.5:
            facts["divergence"] += f": the reward ensemble gave this label {100 * math.exp(-it['divergence']):.1f} %"
        used = {"clean": "used as it is", "flipped": "used the other way round", "uncertain": "not used"}
        facts["the filter"] = f"{it['partition']}, {used[it['partition']]}"
    for name in ("first", "second"):
        facts[f"{name} segment"] = f"steps {it[name] * repeat:,} to {(it[name] + length) * repeat:,} of the run"
    return pandas.Series(facts)


class KeptPairs:
    """Draws the pairs of a run that has kept its replay; always in the same thread, like every renderer."""

    def __init__(self, run: RunDirectory) -> None:
        self._config, kept = run.config, run.read_replay()
        self._snapshots, self._scenes = kept["snapshots"].numpy(), kept["scenes"].numpy()
        scene = run.config.view.perturbation(run.config.seed)
        self._renderer = FrameRenderer(run.config.task, _CLIP_PIXELS, perturbation=scene)

    def shown(self, start: int) -> tuple[FloatArray, FloatArray]:
        """Snapshots (length, S) after each step's action and scenes (length, C) of the segment that begins at a step of
        the run."""
        episode, within = divmod(start, self._config.horizon)
        length = self._config.feedback.segment_length
        after = slice(within + 1, within + 1 + length)
        return self._snapshots[episode, after], np.repeat(self._scenes[episode : episode + 1], length, axis=0)

    def frame(self, first: int, second: int, number: int) -> ImageArray:
        """Frame `number` of both segments, which begin at steps `first` and `second`, beside each other."""
        sides = []
        for start in (first, second):
            snapshots, scenes = self.shown(start)
            sides.append(self._renderer.render(snapshots[number : number + 1], scenes[:1])[0])
        gap = np.full((_CLIP_PIXELS, 12, 3), 255, np.uint8)
        return np.concatenate((sides[0], gap, sides[1]), axis=1)


def pairs_kept_by(run: Any) -> KeptPairs | None:
    """The pairs of a stored run; None where it kept no replay, as published runs never do."""
    if not isinstance(run, RunDirectory) or not (run.path / REPLAY_FILE).exists():
        return None
    return KeptPairs(run)


class Scatter:
    """The divergence of every label against its session; the human's labels, which have none, are below."""

    def __init__(self) -> None:
        self._picture = Picture(height=1.8, right=0.85)
        self.view = self._picture.view

    @project_style
    def show_labels(self, table: pandas.DataFrame, whole: pandas.DataFrame) -> None:
        """Draw anew the rows `table` of a `label_table`, on the axes of the `whole` one."""
        axes = self._picture.axes
        axes.clear()
        most = max(1.0, whole["divergence"].fillna(0).max())
        human = -0.12 * most
        sessions = whole.groupby("session")["session"]
        x = whole["session"] + 0.8 * (sessions.cumcount() / sessions.transform("size") - 0.4)
        self._x, self._y = x[table.index], table["divergence"].fillna(human)
        colors = table["partition"].map({**PARTITION_COLORS, "": REFERENCE_COLOR})
        for verdict, (marker, size) in _MARKS.items():
            rows = table["verdict"] == verdict
            axes.scatter(self._x[rows], self._y[rows], size, colors[rows], marker=marker, linewidths=0.4)
        axes.axhline(0, color="#666666", lw=0.6)
        axes.set(xlabel="session", ylim=(-0.22 * most, 1.06 * most), xlim=(0.4, whole["session"].max() + 0.6))
        axes.set_ylabel("divergence (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        told = PARTITION_COLORS | {"human": "#777777", "● right": "#222222", "× wrong": "#222222", "| tie": "#222222"}
        for line, (text, color) in enumerate(told.items()):
            style: dict[str, Any] = {"color": text_color(color), "va": "top", "fontsize": LABEL_SIZE}
            axes.text(1.015, 1 - 0.12 * line, text, transform=axes.transAxes, **style)
        (self._ring,) = axes.plot([], [], "o", ms=8, mfc="none", mec="#222222", mew=1.1, clip_on=False)

    def show_choice(self, label: int) -> None:
        """Put the ring around a label."""
        self._ring.set_data([self._x[label]], [self._y[label]])
        self._picture.draw()

    def show_none(self) -> None:
        """Show that nothing is listed."""
        self._picture.draw()


class LabelExplorer(Explorer):
    """Every label of a stored run, one of which is looked at.

    Args:
        profile: Whose runs.
        results: Their folder; empty: the project's.

    Raises:
        PrefVLMError: For an unknown profile, and where no run with labels is stored.
    """

    def __init__(self, profile: str = "laptop", results: str | Path = "") -> None:
        super().__init__()
        runs = [run for run in stored_runs(profile, results_folder(results)) if run.config.reward.source == "learned"]
        if not runs:
            raise PrefVLMError(f"No run of profile {profile} with labels is stored; train one of PrefVLM.")
        self._scatter = Scatter()
        self.group = drop_down("labels", [EVERY, *GROUPS], "190px")
        self.session = drop_down("session", [EVERY], "170px")
        self.verdict = drop_down("verdict", [EVERY, *VERDICTS], "170px")
        self.order = drop_down("order", [BY_TIME, BY_DIVERGENCE], "255px")
        number = {"style": {"description_width": "70px"}, "layout": {"width": "620px", "max_width": "100%"}}
        self.label = ipywidgets.IntSlider(1, min=1, max=1, description="label", **number)
        self.step = ipywidgets.IntSlider(1, min=1, max=1, description="frame", **number)
        self.facts, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        self.clips = ipywidgets.Image(format="png", layout={"width": f"{2 * _CLIP_PIXELS + 12}px"})
        self._filling = False
        self.chooser = RunChooser(run_table(runs, profile), self._show_run, {"method": "prefvlm"})
        lists = [self.chooser.view, row(self.group, self.session, self.verdict, self.order), self.label]
        self._arrange("labels", [*lists, self._scatter.view, self.facts, self.words, self.clips, self.step])
        for each in (self.group, self.session, self.verdict, self.order):
            each.observe(lambda _change: self._list_labels(), "value")
        self.label.observe(lambda _change: self._show_label(), "value")
        self.step.observe(lambda _change: self._show_clips(), "value")
        self._show_run()

    def _show_run(self) -> None:
        run = self.chooser.run
        self._config, self._table = run.config, label_table(load_labels([run]))
        self._pairs = self._rendered(pairs_kept_by, run)
        self.step.max = self._config.feedback.segment_length
        for each in (self.clips, self.step):
            each.layout.display = "none" if self._pairs is None else ""
        said = "The frames of this pair are not stored: only a run that was trained with keep_replay has them."
        self.words.value = "" if self._pairs else sentence_html(said, soft=True)
        self._filling = True
        chosen = self.session.value
        self.session.options = [EVERY, *(int(session) for session in self._table["session"].unique())]
        self.session.value = chosen if chosen in self.session.options else EVERY
        self._filling = False
        self._list_labels()

    def _list_labels(self) -> None:
        if self._filling:
            return
        choice = self.group.value, self.session.value, self.verdict.value, self.order.value
        self._listed = chosen_labels(self._table, *choice)
        self._scatter.show_labels(self._listed, self._table)
        self._filling = True
        self.label.max = max(1, len(self._listed))
        self.label.disabled = self._listed.empty
        self.label.value = 1
        self._filling = False
        self._show_label()

    def _show_label(self) -> None:
        if self._filling:
            return
        if self._listed.empty:
            self.facts.value = sentence_html("The run has no such label.")
            return self._scatter.show_none()
        label = self._listed.index[self.label.value - 1]
        self._scatter.show_choice(label)
        facts = details(self._table, label, self._config)
        self.facts.value = table_html(facts.to_frame(f"label {self.label.value} of {len(self._listed)}"), "left")
        self._show_clips()

    def _show_clips(self) -> None:
        if self._pairs is None or self._listed.empty:
            return
        it = self._listed.iloc[self.label.value - 1]
        pair = int(it["first"]), int(it["second"])
        self.clips.value = encode(self._rendered(self._pairs.frame, *pair, self.step.value - 1))
