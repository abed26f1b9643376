"""Arms: what an experiment compares. What varies in each kind of experiment, whatever the task, profile or budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefvlm_core.config.groups import FilterConfig
from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.perturbations import INTENSITIES, STRENGTHS


@dataclass(frozen=True)
class Source:
    """The run, of the same seed, whose adapters an arm starts from."""

    task: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a method, and the fields in which it differs from the method's recipe.

    Names are for people. Whatever a figure or a table selects by is data: these fields, and the config's.
    """

    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """What a reader sees, unique in the experiment; by default the method and its label budget."""
    family: str = ""
    """What arms that differ in one number have in common: they are one line of a figure against that number, as a label
    budget. By default the name or, if there is none, the method."""
    group: str = ""
    """Which of the notebook's figures shows the arm: baseline (02), backbone, errors or inputs (06), "" for the main
    ones."""
    against: str = ""
    """The name of the arm that it is compared with, task by task and seed by seed; "" for one that others are compared
    with. It is part of the plan: decided before the runs."""
    source: Source | None = None
    """Transfer: where the adapters come from."""
    seeds: int | None = None
    """How many of the grid's seeds it is trained with, the first ones; None: all."""

    def columns(self, config: RunConfig) -> dict[str, Any]:
        """What the rows of a run say of its arm: `arm`, `segment_length` in actions, and the columns of
        `stats.ARM_COLUMNS` but for the budget."""
        judged = config.vlm.labels or config.reward.source == "vlm"
        accuracy, thresholds = config.vlm.simulated_accuracy, config.filter
        rime = config.vlm.labels and thresholds.mode == "rime"
        return {
            "arm": self.display_name(config),
            "family": self.family or self.name or self.method,
            "group": self.group,
            "against": self.against,
            "human": config.feedback.teacher if config.feedback.budget else "",
            "segment_length": config.feedback.segment_length,
            "vlm": config.vlm.model if judged else "",
            "simulated_accuracy": math.nan if accuracy is None else accuracy,
            "alpha": thresholds.alpha if rime else math.nan,
            "beta": thresholds.beta_max if rime else math.nan,
            "upper": thresholds.upper if rime else math.nan,
        }

    def display_name(self, config: RunConfig) -> str:
        """The name a reader sees."""
        if self.name:
            return self.name
        if config.reward.source == "true":
            return f"{self.method} (true reward)"
        if not config.feedback.budget:
            return f"{self.method} (no human)"
        return f"{self.method} ({config.feedback.budget} labels)"


@dataclass(frozen=True)
class Grid:
    """Tasks x arms x seeds. Arms may differ by task, since label budgets do."""

    arms: Mapping[str, Sequence[Arm]]
    """Task -> the arms run on it."""
    seeds: Sequence[int]


def small_budget(labels: int) -> dict[str, Any]:
    """Schedule of profiles `quick` and `laptop`: a quarter of the labels in the first session, the rest evenly in those
    that follow."""
    return {"feedback.budget": labels, "feedback.first_session_queries": max(1, labels // 4)}


BASELINES = ("surf", "rune", "mrn", "rime")
"""Baselines that learn from human labels, with as many of them as PrefVLM."""
RIME_UPPER = FilterConfig().upper
HUMAN_ONLY, PLUS_WITHOUT_VLM = "human only", "prefvlm-plus without its VLM"
"""Arms without a VLM, which say what a VLM is good for."""
EQUAL_BAND = {"vlm.ties": "keep"}
STRUCTURED_ERRORS = {"simulated-segments": "errors by segments", "simulated-features": "errors by features"}
"""Kinds of simulated VLMs that misjudge segments instead of pairs, and what a reader sees of them."""
_NOISY = {"feedback.teacher": "mistake", "feedback.teacher_mistake": 0.2}


def noisy_teacher(methods: Sequence[str], changes: Mapping[str, Any]) -> list[Arm]:
    """Methods whose human answers wrongly with a probability of 20 %; the first one believes every answer."""
    arms = [Arm(method, {**changes, **_NOISY}, method) for method in methods]
    return [arms[0], *_against(arms[0].name, arms[1:])]


def filters(changes: Mapping[str, Any]) -> list[Arm]:
    """PrefVLM with its filter, and what may stand in the filter's place."""
    changed = [
        Arm("prefvlm-adaptive", changes, "adaptive thresholds"),
        Arm("prefvlm-no-filter", changes, "no filter"),
        Arm("prefvlm-random-selection", changes, "random selection"),
    ]
    return [Arm("prefvlm", changes, "prefvlm"), *_against("prefvlm", changed)]


def thresholds(
    changes: Mapping[str, Any], alphas: Sequence[float], betas: Sequence[float], uppers: Sequence[float]
) -> list[Arm]:
    """Adaptive thresholds, and RIME's with every combination of its two weights and its upper threshold."""
    arms = []
    for alpha, beta, upper in itertools.product(alphas, betas, uppers):
        setting = {"filter.alpha": alpha, "filter.beta_max": beta, "filter.beta_min": min(beta, 1.0)}
        setting["filter.upper"] = upper
        arms.append(Arm("prefvlm", {**changes, **setting}, f"alpha {alpha:g}, beta {beta:g}, upper {upper:.1f}"))
    return [Arm("prefvlm-adaptive", changes, "adaptive"), *_against("adaptive", arms)]


def components(changes: Mapping[str, Any], unlabeled: Mapping[str, Any], recent: int) -> list[Arm]:
    """PrefVLM, whole and with a part left out or replaced; `unlabeled`: changes of the arms without a human; `recent`:
    episodes from which prefvlm-plus draws its pairs in this profile."""
    without_vlm = Arm("pebble", {**changes, "feedback.recent_episodes": recent}, PLUS_WITHOUT_VLM)
    changed = [
        Arm("pebble", changes, HUMAN_ONLY),
        Arm("vlm-preference", unlabeled, "VLM labels only"),
        Arm("vlm-reward", unlabeled, "VLM reward"),
        Arm("prefvlm-no-inverse-dynamics", changes, "no inverse dynamics"),
        Arm("prefvlm-no-adaptation", changes, "no adaptation"),
        Arm("prefvlm", {**changes, "adapter.residual": True}, "residual adapters"),
        Arm("prefvlm", {**changes, "vlm.relabel": False}, "labels never renewed"),
        Arm("prefvlm-plus", changes, "prefvlm-plus"),
    ]
    return [Arm("prefvlm", changes, "prefvlm"), *_against("prefvlm", changed), *_against("prefvlm-plus", [without_vlm])]


_BACKBONES = {"random": "random VLM", "tinyliv2-heldout": "held-out TinyLIV", "tinyliv2-indomain": "in-domain TinyLIV"}
FIRST_GENERATION = {
    "tinyliv-heldout": "held-out TinyLIV, first generation",
    "tinyliv-indomain": "in-domain TinyLIV, first generation",
}
"""Backbones of the first comparison, which differ from `tinyliv2` in more than in what they saw."""


def backbones(changes: Mapping[str, Any], names: Mapping[str, str] = _BACKBONES) -> list[Arm]:
    """PrefVLM with another VLM: `names` by model."""
    arms = [Arm("prefvlm", {**changes, "vlm.model": model}, name, group="backbone") for model, name in names.items()]
    return _against("prefvlm", arms)


def embedded(changes: Mapping[str, Any], twice: Mapping[str, Any]) -> list[Arm]:
    """Rewards learned from the VLM's embedding of the frame in place of the state, with B labels and, `twice`, 2 B.

    The first one is compared with what it would be with the state, the others with it.
    """
    arms = [Arm("pebble", changes, "pebble (1×B)"), Arm("pebble", twice, "pebble (2×B)")]
    arms += [Arm(method, changes, method) for method in ("prefvlm", "prefvlm-plus")]
    inputs = {"reward.inputs": "embedding"}
    once, *others = [
        replace(arm, changes={**arm.changes, **inputs}, name=f"{arm.name}, from embeddings", group="inputs")
        for arm in arms
    ]
    return [*_against(HUMAN_ONLY, [once]), *_against(once.name, others)]


def simulated(changes: Mapping[str, Any], accuracies: Sequence[float]) -> list[Arm]:
    """A VLM that is right with a given probability, behind each filter; no adapters learn from it.

    Each is compared with the same without a VLM, which says whether a VLM that is right so often helps.
    """
    filtered = [
        Arm("prefvlm", against=HUMAN_ONLY),
        Arm("prefvlm-adaptive", family="adaptive thresholds", against=HUMAN_ONLY),
        Arm("prefvlm-no-filter", family="no filter", against=HUMAN_ONLY),
        Arm("prefvlm-plus", against=PLUS_WITHOUT_VLM),
    ]
    return [_behind(arm, "simulated", accuracy, changes) for arm, accuracy in itertools.product(filtered, accuracies)]


def structured_errors(changes: Mapping[str, Any], accuracies: Sequence[float]) -> list[Arm]:
    """Simulated VLMs whose errors have a structure, with and without the filter; the arms of `simulated` have none."""
    arms = []
    for (kind, errors), accuracy in itertools.product(STRUCTURED_ERRORS.items(), accuracies):
        filtered = Arm("prefvlm", family=f"prefvlm, {errors}", group="errors")
        unfiltered = Arm("prefvlm-no-filter", family=f"no filter, {errors}", group="errors")
        arms += [_behind(arm, kind, accuracy, changes) for arm in (filtered, unfiltered)]
    return _against(HUMAN_ONLY, arms)


def _behind(arm: Arm, kind: str, accuracy: float, changes: Mapping[str, Any]) -> Arm:
    """The arm with a simulated VLM."""
    vlm = {"adapter.enabled": False, "vlm.model": f"{kind}:{accuracy:g}"}
    family = arm.family or arm.method
    name = f"{family}, VLM {100 * accuracy:.0f} % right"
    return replace(arm, changes={**changes, **arm.changes, **vlm}, name=name, family=family)


def disturbed(changes: Mapping[str, Any], factors: Sequence[str], strength: str) -> list[Arm]:
    """PrefVLM in the clean scene, and where one factor disturbs what its VLM and its people see."""
    arms = []
    for factor in factors:
        intensity = INTENSITIES[factor][STRENGTHS.index(strength)]
        arms.append(Arm("prefvlm", {**changes, f"view.{factor}": intensity}, f"{factor.replace('_', ' ')}, {strength}"))
    return [Arm("prefvlm", changes, "clean"), *_against("clean", arms)]


def worth(changes: Mapping[str, Any], accuracies: Sequence[float]) -> list[Arm]:
    """What the accuracy of a VLM's labels is worth: simulated VLMs and real ones, compared with none."""
    simulated_arms = [arm for arm in simulated(changes, accuracies) if arm.family in ("prefvlm", "no filter")]
    frozen = Arm("prefvlm-no-adaptation", changes, "TinyLIV, not adapted")
    real = [Arm("prefvlm", changes, "TinyLIV"), frozen, *backbones(changes)]
    return [Arm("pebble", changes, HUMAN_ONLY), *_against(HUMAN_ONLY, [*simulated_arms, *real])]


def transfer(source: Source, budgets: Mapping[Any, Mapping[str, Any]]) -> list[Arm]:
    """Each label budget, by its name, without and with the source's adapters."""
    arms = []
    for budget, changes in budgets.items():
        without = Arm("prefvlm", changes, f"without transfer ({budget} labels)", "without transfer")
        with_it = Arm("prefvlm", changes, f"with transfer ({budget} labels)", "with transfer", source=source)
        arms += [without, *_against(without.name, [with_it])]
    return arms


def _against(name: str, arms: Sequence[Arm]) -> list[Arm]:
    """The arms, compared with the one of that name."""
    return [replace(arm, against=name) for arm in arms]


def people(steps: int, session_every: int, segment_length: int) -> list[Arm]:
    """PEBBLE with 30 labels in five sessions, of segments long enough for a person to tell them apart.

    Here the true reward answers; notebook 07 trains the same run once more with a person as the teacher.
    """
    schedule = {
        "feedback.budget": 30,
        "feedback.first_session_queries": 10,
        "feedback.session_queries": 5,
        "feedback.schedule": "fixed",
    }
    sessions = {
        "total_steps": steps,
        "feedback.session_every": session_every,
        "feedback.segment_length": segment_length,
    }
    # All labels are one batch, so an epoch is one update.
    learning = {"reward.max_epochs": 100, "reward.stop_accuracy": 1.0, "reward.standardise": True}
    return [Arm("pebble", {**schedule, **sessions, **learning}, "oracle")]
