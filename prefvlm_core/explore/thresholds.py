"""Other thresholds for the labels of a stored run: what the KL filter would have kept, flipped and asked about.

Labels, their divergences and the order of the pairs stay those of the run. In a new run they would not: the reward
ensemble would have learned from other labels, and later divergences would be others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas
from scipy.special import lambertw

from prefvlm_core.analysis.label_quality import PARTITIONS, decided_vlm_labels
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.groups import FilterConfig
from prefvlm_core.config.run import RunConfig
from prefvlm_core.explore.choosing import RunChooser, results_folder, run_table, stored_runs
from prefvlm_core.explore.picture import Explorer, Picture, drop_down, row, sentence_html, slider, table_html
from prefvlm_core.plots.labels import draw_histograms
from prefvlm_core.plots.style import LABEL_SIZE, PARTITION_COLORS, REFERENCE_COLOR, project_style, text_color
from prefvlm_core.preferences.budget import Budget
from prefvlm_core.preferences.filters import Filter, KeepAll, Partition, RIMEThresholds
from prefvlm_core.preferences.selection import HUMAN_SELECTIONS
from prefvlm_core.runs.stored import load_labels

BY_HAND, FORMULA = "by hand", "RIME's formula"
ALL_SESSIONS = "all"
BINS = 40
_SIDES = {"clean": "left", "uncertain": "center", "flipped": "right"}  # at which their names stand
_RATIO = 0.2  # of the deviation of trusted divergences to the largest one, where the run does not say


class GivenThresholds(KeepAll):
    """Thresholds in nats that somebody has set."""

    def __init__(self, lower: float, upper: float) -> None:
        super().__init__(FilterConfig())
        self._lower, self._upper = lower, upper

    @property
    def lower(self) -> float:
        """See `Filter`."""
        return self._lower

    @property
    def upper(self) -> float:
        """See `Filter`."""
        return self._upper


def rime_filter(alpha: float, beta: float, rho: float, deviation: float, upper: float) -> RIMEThresholds:
    """RIME's thresholds where the largest trusted divergence is `rho` and the standard deviation of the trusted ones is
    `deviation`, both in nats, and beta has arrived at `beta`."""
    thresholds = RIMEThresholds(FilterConfig(alpha=alpha, beta_max=beta, beta_min=beta, upper=upper))
    thresholds.restore({"sessions": 1, "trusted": [1.0, 0.0, deviation**2], "rho": rho})
    return thresholds


class TrustedDivergences(NamedTuple):
    """What RIME's formula needs to know of the divergences of trusted labels, in nats."""

    rho: float
    """The largest one."""
    deviation: float
    """Their standard deviation."""


def trusted_divergences(lower: float, alpha: float, beta: float) -> TrustedDivergences:
    """Trusted divergences for which RIME's lower threshold is `lower`: a run stores the threshold, but not them.

    One equation leaves one of the two open: the deviation is taken as a fifth of rho or, where no rho fits that, as the
    part of it that one does. Of two solutions this is the smaller rho.
    """
    steepest = (1 - 1e-9) * math.exp(lower - 1)  # -ln rho + slope rho is nowhere below 1 + ln slope
    slope = min(alpha + beta * _RATIO, steepest)
    if not math.isfinite(lower) or not slope:
        return TrustedDivergences(math.exp(-lower) if math.isfinite(lower) else 1.0, 0.0)
    rho = float(-lambertw(-slope * math.exp(-lower)).real) / slope
    return TrustedDivergences(rho, max(0.0, (slope - alpha) * rho / beta) if beta else 0.0)


def vlm_labels(labels: pandas.DataFrame, session: int | None = None) -> pandas.DataFrame:
    """The VLM's labels of a label log, of one session or of all."""
    return labels[(labels["teacher"] == "vlm") & ((labels["session"] == session) | (session is None))]


def sorted_by(kl_filter: Filter, labels: pandas.DataFrame) -> pandas.DataFrame:
    """A label log whose VLM labels are in the partitions that a filter puts them into, whatever the run did."""
    of_vlm = labels["teacher"] == "vlm"
    partition = kl_filter.split(labels.loc[of_vlm, "divergence"].to_numpy(np.float64))
    sorted_as = np.array(PARTITIONS)[np.argmax(partition, axis=0)]
    names = labels["partition"].astype(object)
    names[of_vlm] = sorted_as
    return labels.assign(partition=names)


def partition_table(labels: pandas.DataFrame) -> pandas.DataFrame:
    """How many labels of the VLM are in each partition, and how many of them are wrong; index `PARTITIONS` and "all".

    Columns: labels; error (0..1, of those whose pair the true reward can tell apart, flipped ones after the flip, as in
    `label_quality.error_rates`; nan where there is none). `labels` has the columns of `load_labels`.
    """
    of_vlm = vlm_labels(labels)
    counts = of_vlm["partition"].value_counts().reindex(PARTITIONS, fill_value=0)
    counts["all"] = len(of_vlm)
    if (of_vlm["truth"] == 0.5).all():
        return pandas.DataFrame({"labels": counts, "error": math.nan})
    decided = decided_vlm_labels(of_vlm.assign(arm=of_vlm["method"]))
    errors = decided.groupby("partition")["used_error"].mean().reindex(PARTITIONS)
    errors["all"] = decided["error"].mean()
    return pandas.DataFrame({"labels": counts, "error": errors})


def asked_by_session(labels: pandas.DataFrame, config: RunConfig) -> pandas.DataFrame:
    """How many pairs the human is asked about in each session, as `feedback.Feedback` asks, from a label log.

    One row per session, columns session, candidates (new pairs that may be asked about) and asked (as many of them as
    the budget allows). Sessions without labels of the VLM ask what the log says. With `uncertain-pool` pairs of earlier
    sessions may be asked about too; the log does not know how they were sorted again, so they are left out.
    """
    budget, choose, rows = Budget(config), HUMAN_SELECTIONS[config.filter.human_selection], []
    for session, of_session in labels.groupby("session"):
        of_vlm = vlm_labels(of_session)
        if of_vlm.empty:
            candidates = asked = len(of_session)
        else:
            partition = Partition(*((of_vlm["partition"] == name).to_numpy() for name in PARTITIONS))
            candidates = int(choose(partition, np.ones(len(of_vlm), bool)).sum())
            since = int(of_session["step"].iloc[0]) - config.first_session_step
            asked = min(candidates, budget.queries(since // config.feedback.session_every))
        budget.spend(asked, 0)
        rows.append((session, candidates, asked))
    return pandas.DataFrame(rows, columns=["session", "candidates", "asked"])


class OwnThresholds(NamedTuple):
    """The thresholds that a run had in a session, in nats."""

    lower: float
    upper: float
    stored: bool
    """Whether they are the stored ones; otherwise they are in the middle of what the labels leave open."""


def own_thresholds(labels: pandas.DataFrame, metrics: pandas.DataFrame, session: int | None) -> OwnThresholds:
    """The thresholds with which a run sorted the labels of a session, None for the last one whose are stored.

    Each evaluation stores those of the session before it; adaptive ones as the human's answers have moved them since.
    Where there are none, or others than sorted the labels, they lie between the divergences of what was kept, left and
    flipped. `labels` and `metrics` are the run's.
    """
    known = metrics.reindex(columns=["sessions", "tau_lower", "tau_upper"]).dropna()
    if session is None:
        session = int(known["sessions"].max() if len(known) else labels["session"].max())
    of_session = vlm_labels(labels, session)
    for evaluation in known[known["sessions"] == session].itertuples():
        stored = OwnThresholds(evaluation.tau_lower, evaluation.tau_upper, True)
        again = sorted_by(GivenThresholds(stored.lower, stored.upper), of_session)
        if again["partition"].equals(of_session["partition"].astype(object)):
            return stored
    divergences = {name: of_session.loc[of_session["partition"] == name, "divergence"] for name in PARTITIONS}
    unflipped = pandas.concat([divergences["clean"], divergences["uncertain"]])
    upper = _between(unflipped, divergences["flipped"])
    return OwnThresholds(min(_between(divergences["clean"], divergences["uncertain"]), upper), upper, False)


def _between(below: pandas.Series, above: pandas.Series) -> float:
    """A threshold with `below` below it and `above` above it."""
    if above.empty:
        return math.inf
    return float((below.max() + above.min()) / 2) if len(below) else 0.0


class Histogram:
    """The divergences of a run's labels, right and wrong ones, with the thresholds and what lies between them."""

    def __init__(self) -> None:
        self._picture = Picture(height=1.75, right=0.85, top=0.2)
        self.view = self._picture.view

    @project_style
    def show_labels(self, labels: pandas.DataFrame, end: float, own: OwnThresholds) -> None:
        """Draw anew: VLM labels with the column error, divergences up to `end` nats, the run's own thresholds."""
        axes = self._picture.axes
        axes.clear()
        draw_histograms(axes, labels, np.linspace(0, end, BINS + 1).tolist())
        axes.set(xlim=(0, end), xlabel="divergence of a label from the reward ensemble's opinion (nats)")
        axes.set_ylabel("VLM labels")
        axes.yaxis.set_major_formatter("{x:.0f}")
        for threshold in {own.lower, own.upper}:
            if 0 < threshold < end:
                axes.axvline(threshold, color=REFERENCE_COLOR, lw=0.9, ls=(0, (1, 1.2)))
        told = [("right", "#7C8794"), ("wrong", "#222222"), ("dotted: the run's", "#666666")]
        for line, (text, color) in enumerate(told):
            y = 1 - 0.13 * line
            axes.text(1.015, y, text, transform=axes.transAxes, color=color, va="top", fontsize=LABEL_SIZE)
        self._spans, self._names, self._lines = {}, {}, {}
        for name, color in PARTITION_COLORS.items():
            self._spans[name] = axes.axvspan(0, 0, color=color, alpha=0.16, lw=0, zorder=0)
            style: Mapping[str, Any] = {"ha": _SIDES[name], "va": "bottom", "fontsize": LABEL_SIZE}
            at = axes.get_xaxis_transform()
            self._names[name] = axes.text(0, 1.02, name, transform=at, color=text_color(color), **style)
        for name in ("clean", "flipped"):
            self._lines[name] = axes.axvline(0, color=PARTITION_COLORS[name], lw=1.3)

    def show_thresholds(self, lower: float, upper: float) -> None:
        """Move the thresholds."""
        end = self._picture.axes.get_xlim()[1]
        low, high = (float(np.clip(value, 0, end)) for value in (min(lower, upper), upper))
        ends = {"clean": (0.0, low), "uncertain": (low, high), "flipped": (high, end)}
        for name, (left, right) in ends.items():
            self._spans[name].set_bounds(left, 0, right - left, 1)
            self._names[name].set_x({"left": left, "center": (left + right) / 2, "right": right}[_SIDES[name]])
            self._names[name].set_visible(right - left > (0.25 if name == "uncertain" else 0) * end)
        for name, at in (("clean", low), ("flipped", high)):
            self._lines[name].set_xdata([at, at])
        self._picture.draw()


class ThresholdExplorer(Explorer):
    """Sliders for the thresholds of the KL filter, by hand or by RIME's formula, over the labels of a stored run.

    Args:
        profile: Whose runs.
        results: Their folder; empty: the project's.

    Raises:
        PrefVLMError: For an unknown profile, and where no run with labels of a VLM is stored.
    """

    def __init__(self, profile: str = "laptop", results: str | Path = "") -> None:
        super().__init__()
        runs = [run for run in stored_runs(profile, results_folder(results)) if run.config.vlm.labels]
        if not runs:
            raise PrefVLMError(f"No run of profile {profile} with labels of a VLM is stored; train one of PrefVLM.")
        self._histogram = Histogram()
        self.session = drop_down("session", [ALL_SESSIONS], "200px")
        self.mode = ipywidgets.ToggleButtons(options=[BY_HAND, FORMULA], style={"button_width": "120px"})
        self.back = ipywidgets.Button(description="back to the run's", icon="undo", layout={"width": "160px"})
        self.lower, self.upper = (slider(f"{name} (nats)", 1, 0, 14, 0.01) for name in ("keep below", "flip above"))
        self.alpha, self.beta = slider("α", 0.5, 0, 3, 0.01), slider("β", 1, 0, 6, 0.01)
        self.rho = slider("ρ, largest trusted", 1, 0.01, 14, 0.01)
        self.deviation = slider("s, their deviation", 0, 0, 5, 0.01)
        self.counts, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        self._moving = False
        self.chooser = RunChooser(run_table(runs, profile), self._show_run, {"method": "prefvlm"})
        self._formula = ipywidgets.VBox([self.alpha, self.beta, self.rho, self.deviation])
        controls = [self.chooser.view, row(self.session, self.mode, self.back), self.lower, self._formula, self.upper]
        self._arrange("thresholds", [*controls, self._histogram.view, self.counts, self.words])
        for each in (self.lower, self.upper, self.alpha, self.beta, self.rho, self.deviation, self.mode):
            each.observe(lambda _change: self._show_thresholds(), "value")
        self.session.observe(lambda _change: self._show_session(), "value")
        self.back.on_click(lambda _button: self._show_session())
        self._show_run()

    @property
    def kl_filter(self) -> Filter:
        """The filter that the sliders describe; at the right end of a slider, no label lies above its threshold."""
        if self.mode.value == FORMULA:
            rho, deviation = self.rho.value, self.deviation.value
            return rime_filter(self.alpha.value, self.beta.value, rho, deviation, self.upper.value)
        return GivenThresholds(self.lower.value, self.upper.value)

    def _show_run(self) -> None:
        run = self.chooser.run
        self._config, self._labels, self._metrics = run.config, load_labels([run]), run.metrics()
        sessions = [int(session) for session in vlm_labels(self._labels)["session"].unique()]
        self._moving = True
        self.session.options = [ALL_SESSIONS, *sessions]
        self.session.value = ALL_SESSIONS
        largest = self._labels["divergence"].fillna(0).max()
        self.lower.max = self.upper.max = math.ceil(10 * largest + 1) / 10
        self._moving = False
        self._show_session()

    def _show_session(self) -> None:
        if self._moving:
            return
        session = None if self.session.value == ALL_SESSIONS else int(self.session.value)
        self._own = own = own_thresholds(self._labels, self._metrics, session)
        self._shown = self._labels[(self._labels["session"] == session) | (session is None)]
        shown = vlm_labels(self._shown)
        error = (shown["label"] - shown["truth"]).abs().where(shown["truth"] != 0.5)
        self._histogram.show_labels(shown.assign(error=error), self.upper.max, own)
        self._set_sliders(own)
        self._show_thresholds()

    def _set_sliders(self, own: OwnThresholds) -> None:
        """Bring the sliders to the run's own thresholds."""
        config = self._config.filter
        observed = self._shown["session"].max() - 1  # the filter sees no trusted labels in the first session
        progress = min(1.0, observed / config.beta_sessions)
        beta = config.beta_max - (config.beta_max - config.beta_min) * progress
        trusted = trusted_divergences(own.lower, config.alpha, beta)
        wanted = {self.lower: own.lower, self.upper: own.upper, self.alpha: config.alpha, self.beta: beta}
        wanted |= {self.rho: trusted.rho, self.deviation: trusted.deviation}
        self._moving = True
        for each, value in wanted.items():
            each.value = float(np.clip(value, each.min, each.max))
        self._moving = False

    def _show_thresholds(self) -> None:
        if self._moving:
            return
        by_hand = self.mode.value == BY_HAND
        self.lower.layout.display, self._formula.layout.display = ("", "none") if by_hand else ("none", "")
        kl_filter = self.kl_filter
        self._histogram.show_thresholds(kl_filter.lower, kl_filter.upper)
        whole = sorted_by(kl_filter, self._labels)
        now, own = partition_table(whole.loc[self._shown.index]), partition_table(self._shown)
        self.counts.value = table_html(_in_words(now, own))
        sessions = set(self._shown["session"])
        self.words.value = self._sentences(kl_filter, asked_by_session(whole, self._config), sessions)

    def _sentences(self, kl_filter: Filter, asked: pandas.DataFrame, sessions: set[int]) -> str:
        human = self._labels[self._labels["teacher"] == "human"]
        shown = asked[asked["session"].isin(sessions)]
        did = human["session"].isin(sessions).sum()
        whole = f"{asked['asked'].sum()} of a budget of {self._config.feedback.budget} pairs (the run: {len(human)})"
        said = [f"In the whole run the human would be asked about {whole}."]
        if self.session.value != ALL_SESSIONS:
            said.insert(0, f"The human would be asked about {shown['asked'].sum()} pairs here (the run: {did}).")
        if self.mode.value == FORMULA:
            said.append(f"Lower threshold: −ln ρ + α ρ + β s = {kl_filter.lower:.2f} nats.")
        when = "last session that tells them" if self.session.value == ALL_SESSIONS else "session"
        note = f"Thresholds of the run in its {when}: {_nats(self._own.lower)} and {_nats(self._own.upper)}"
        note += "." if self._own.stored else ", by the labels between which they lie: they are not stored."
        if self.mode.value == FORMULA:
            note += " ρ and s are not stored; the sliders start where the formula gives its lower threshold."
        return sentence_html(" ".join(said)) + sentence_html(note, soft=True)


def _nats(threshold: float) -> str:
    return "none" if math.isinf(threshold) else f"{threshold:.2f} nats"


def _in_words(now: pandas.DataFrame, own: pandas.DataFrame) -> pandas.DataFrame:
    """Two `partition_table`s beside each other, as texts."""
    columns = {}
    for title, table in (("", now), ("the run: ", own)):
        columns[f"{title}labels"] = [f"{count:,}" for count in table["labels"]]
        columns[f"{title}wrong"] = ["–" if math.isnan(error) else f"{100 * error:.0f} %" for error in table["error"]]
    names = ["flipped (after the flip)" if name == "flipped" else name for name in now.index]
    return pandas.DataFrame(columns, index=names)
