"""Arms: the curves of a figure. What varies in each kind of experiment, whatever the task, profile or budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefvlm_core.config.run import RunConfig


@dataclass(frozen=True)
class Source:
    """The run, of the same seed, whose adapters an arm starts from."""

    task: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One curve of a figure: a method, and the fields in which this curve differs from the method's recipe."""

    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """Name in figures; by default the method and its label budget."""
    source: Source | None = None
    """Transfer: where the adapters come from."""

    def curve(self, config: RunConfig) -> str:
        """The name a reader sees."""
        if self.name:
            return self.name
        if config.reward.source == "true":
            return f"{self.method} (true reward)"
        if not config.feedback.budget:
            return f"{self.method} (no human)"
        return f"{self.method} ({config.feedback.budget} labels)"


def small_budget(labels: int, sessions: int = 15) -> dict[str, Any]:
    """Schedule of profiles `quick` and `laptop`: a fifth of the labels in the first session, the rest in equal parts in
    the `sessions` that follow, so that runs of different budgets spend them over the same steps."""
    return {
        "feedback.budget": labels,
        "feedback.first_session_queries": labels // 5,
        "feedback.session_queries": -(-(labels - labels // 5) // sessions),
    }


BASELINES = ("surf", "rune", "mrn", "rime")
"""Baselines that learn from human labels, with as many of them as PrefVLM."""
EQUAL_BAND = {"vlm.ties": "keep"}
STANDARDISED = {"reward.standardise": True}
_NOISY = {"feedback.teacher": "mistake", "feedback.teacher_mistake": 0.2}


def noisy_teacher(methods: Sequence[str], changes: Mapping[str, Any]) -> list[Arm]:
    """Methods whose human gives the wrong answer to every fifth question."""
    return [Arm(method, {**changes, **_NOISY}, method) for method in methods]


def filters(changes: Mapping[str, Any]) -> list[Arm]:
    return [
        Arm("prefvlm", changes, "prefvlm"),
        Arm("prefvlm-adaptive", changes, "adaptive thresholds"),
        Arm("prefvlm-no-filter", changes, "no filter"),
        Arm("prefvlm-random-selection", changes, "random selection"),
    ]


def thresholds(
    changes: Mapping[str, Any], alphas: Sequence[float], betas: Sequence[float], uppers: Sequence[float]
) -> list[Arm]:
    """RIME's thresholds with weights up to its own (alpha 0.5, beta 3, upper 3 ln 10 = 6.9), and the adaptive ones."""
    arms = [Arm("prefvlm-adaptive", changes, "adaptive")]
    for alpha, beta, upper in itertools.product(alphas, betas, uppers):
        setting = {"filter.alpha": alpha, "filter.beta_max": beta, "filter.beta_min": min(beta, 1.0)}
        setting["filter.upper"] = upper
        arms.append(Arm("prefvlm", {**changes, **setting}, f"alpha {alpha:g}, beta {beta:g}, upper {upper:.1f}"))
    return arms


RIME_UPPER = 6.907755278982137


def components(changes: Mapping[str, Any], unlabelled: Mapping[str, Any]) -> list[Arm]:
    """`unlabelled` are the changes of the arms that have no human, and so no budget."""
    return [
        Arm("prefvlm", changes, "prefvlm"),
        Arm("pebble", changes, "human only"),
        Arm("vlm-preference", unlabelled, "VLM labels only"),
        Arm("vlm-reward", unlabelled, "VLM reward"),
        Arm("prefvlm-no-inverse-dynamics", changes, "no inverse dynamics"),
        Arm("prefvlm-no-adaptation", changes, "no adaptation"),
        Arm("prefvlm", {**changes, "adapter.residual": True}, "residual adapters"),
        Arm("prefvlm", {**changes, "vlm.relabel": False}, "labels never renewed"),
        Arm("prefvlm-plus", changes, "prefvlm-plus"),
        Arm("pebble", {**changes, **STANDARDISED}, "prefvlm-plus without its VLM"),
    ]


def backbones(changes: Mapping[str, Any]) -> list[Arm]:
    names = {"random": "random VLM", "tinyliv-heldout": "held-out TinyLIV", "tinyliv-indomain": "in-domain TinyLIV"}
    return [Arm("prefvlm", {**changes, "vlm.model": model}, name) for model, name in names.items()]


def simulated(changes: Mapping[str, Any], accuracies: Sequence[float]) -> list[Arm]:
    """A VLM that is right with a given probability, behind each filter; no adapters learn from it."""
    adaptive = {"filter.mode": "adaptive"}
    filtered = [
        Arm("prefvlm", name="prefvlm"),
        Arm("prefvlm-adaptive", name="adaptive thresholds"),
        Arm("prefvlm-no-filter", name="no filter"),
        Arm("prefvlm-plus", name="prefvlm-plus"),
        Arm("prefvlm-plus", adaptive, "plus, adaptive thresholds"),
    ]
    return [
        Arm(
            arm.method,
            {**changes, **arm.changes, "adapter.enabled": False, "vlm.model": f"simulated:{accuracy:g}"},
            f"{arm.name}, VLM {100 * accuracy:.0f} % right",
        )
        for arm in filtered
        for accuracy in accuracies
    ]


def transfer(source: Source, budgets: Mapping[Any, Mapping[str, Any]]) -> list[Arm]:
    """Each label budget with and without the source's adapters."""
    return [
        Arm("prefvlm", changes, f"{'with' if start else 'without'} transfer ({labels} labels)", start)
        for labels, changes in budgets.items()
        for start in (None, source)
    ]


def people(steps: int, session_every: int, segment_length: int) -> list[Arm]:
    """30 labels in five sessions, of segments long enough to be told apart. Notebook 07 trains the same run once more
    with a person as its teacher; here is only what needs nobody."""
    schedule = {"feedback.budget": 30, "feedback.first_session_queries": 10, "feedback.session_queries": 5}
    sessions = {
        "total_steps": steps,
        "feedback.session_every": session_every,
        "feedback.segment_length": segment_length,
    }
    # All labels are one batch, so an epoch is one update.
    learning = {"reward.max_epochs": 100, "reward.stop_accuracy": 1.0, "reward.standardise": True}
    return [Arm("pebble", {**schedule, **sessions, **learning}, "oracle")]
