"""The grids behind the notebooks: which runs answer which question, in which profile.

Each experiment is a notebook's name. To have a task, a method or a setting drawn, add it to a grid here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefvlm_core.config import RunConfig


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


@dataclass(frozen=True)
class Grid:
    """Tasks x arms x seeds. Arms may differ by task, since label budgets do."""

    arms: Mapping[str, Sequence[Arm]]
    """Task -> the arms run on it."""
    seeds: Sequence[int]


def small_budget(labels: int, sessions: int = 15) -> dict[str, Any]:
    """Schedule of profiles `quick` and `laptop`: a fifth of the labels in the first session, the rest in equal parts in
    the `sessions` that follow, so that runs of different budgets spend them over the same steps."""
    return {
        "feedback.budget": labels,
        "feedback.first_session_queries": labels // 5,
        "feedback.session_queries": -(-(labels - labels // 5) // sessions),
    }


# ROVED's learning curves (its Fig. 3): horizon, labels of ROVED itself, of PEBBLE(y) and of PEBBLE(z).
_PAPER = {
    "window-open-v3": (500_000, 1_000, (1_000, 2_000)),
    "window-close-v3": (500_000, 1_000, (1_000, 2_000)),
    "door-open-v3": (1_000_000, 1_000, (1_000, 2_000)),
    "door-close-v3": (500_000, 1_000, (1_000, 2_000)),
    "drawer-open-v3": (1_000_000, 5_000, (15_000, 25_000)),
    "drawer-close-v3": (1_000_000, 1_000, (1_000, 2_000)),
    "button-press-v3": (1_000_000, 1_500, (2_000, 4_000)),
    "sweep-into-v3": (1_000_000, 10_000, (15_000, 30_000)),
}


def _paper_arms(steps: int, labels: int, pebble_labels: Sequence[int]) -> list[Arm]:
    """PEBBLE's sessions ask as much as spends the budget over the first half of the run; PrefVLM's ask 32 (ROVED)."""
    horizon = {"total_steps": steps}
    arms = [Arm("sac", horizon, "sac (true reward)")]
    for name, budget in zip(("fewer", "more"), pebble_labels, strict=True):
        queries = max(32, -(-(budget - 250) // (steps // 2 // 3_000)))
        changes = horizon | {"feedback.budget": budget, "feedback.session_queries": queries}
        arms.append(Arm("pebble", changes, f"pebble ({name} labels)"))
    baselines = [_paper_prefvlm(steps, labels, method, method) for method in _BASELINES]
    equal_band = Arm("vlm-preference", horizon | _EQUAL_BAND, "vlm-preference (equal band)")
    unlabelled = [Arm("rlvlmf", horizon), Arm("vlm-preference", horizon), equal_band]
    ours = [_paper_prefvlm(steps, labels, method, method) for method in ("prefvlm", "prefvlm-plus")]
    return [*arms, *ours, *baselines, *unlabelled, Arm("vlm-reward", horizon)]


def _paper_prefvlm(steps: int, labels: int, method: str = "prefvlm", name: str = "prefvlm") -> Arm:
    return Arm(method, {"total_steps": steps, "feedback.budget": labels}, name)


_BASELINES = ("surf", "rune", "mrn", "rime")
"""Baselines that learn from human labels, with as many of them as PrefVLM."""
_EQUAL_BAND = {"vlm.equal_within": 0.5}
_CALIBRATED = {
    "filter.human_selection": "disagreement",
    "filter.mode": "calibrated",
    "filter.confidence": 0.65,
    "filter.soft_labels": True,
}
"""The human answers disputed pairs, the VLM's labels count as much as they were right so far."""
_NOISY = {"feedback.teacher": "mistake", "feedback.teacher_mistake": 0.2}


def _noisy(methods: Sequence[str], changes: Mapping[str, Any]) -> list[Arm]:
    """Methods whose human gives the wrong answer to every fifth question."""
    return [Arm(method, {**changes, **_NOISY}, method) for method in methods]


_MECHANISM = {"total_steps": 2_000}
"""Length of quick runs that show a mechanism at work; nothing is to be concluded from their success."""
_QUICK = _MECHANISM | small_budget(120)
_WINDOW_STEPS = {"total_steps": _PAPER["window-close-v3"][0]}
_WINDOW = _WINDOW_STEPS | {"feedback.budget": _PAPER["window-close-v3"][1]}

# Profile laptop: steps and label budget B of each task, chosen in a pilot on seeds 50 and 51 (results/laptop/NOTES.md).
_LAPTOP = {
    "door-close-v3": (6_000, 50),
    "button-press-v3": (6_000, 100),
    "window-open-v3": (6_000, 100),
    "window-close-v3": (8_000, 100),
}
_ABLATED = ("door-close-v3", "button-press-v3")
"""Tasks of profile laptop's ablations."""


def _laptop_steps(task: str) -> dict[str, Any]:
    """Changes of a run of `task` in profile laptop that asks no human."""
    return {"total_steps": _LAPTOP[task][0]}


def _laptop(task: str, share: float = 1) -> dict[str, Any]:
    """Changes of a run of `task` in profile laptop with `share` of its budget B."""
    return _laptop_steps(task) | small_budget(int(share * _LAPTOP[task][1]), sessions=12)


def _laptop_arms(task: str) -> list[Arm]:
    """The claim: PrefVLM with B labels against PEBBLE with B, 2B and 4B."""
    once, unlabelled = _laptop(task), _laptop_steps(task)
    arms = [Arm("sac", unlabelled)]
    arms += [Arm("pebble", _laptop(task, share), f"pebble ({share}×B)") for share in (1, 2, 4)]
    arms += [Arm(method, once, f"{method} (1×B)") for method in ("prefvlm", "prefvlm-adaptive", "prefvlm-plus")]
    without_vlm = once | {"reward.standardise": True}  # what remains of prefvlm-plus
    arms.append(Arm("pebble", without_vlm, "pebble, standardised (1×B)"))
    return [*arms, Arm("vlm-preference", unlabelled), Arm("vlm-reward", unlabelled)]


def _laptop_baselines(task: str) -> list[Arm]:
    unlabelled = _laptop_steps(task)
    equal_band = Arm("vlm-preference", unlabelled | _EQUAL_BAND, "vlm-preference (equal band)")
    arms = [Arm(method, _laptop(task), f"{method} (1×B)") for method in _BASELINES]
    return [*arms, Arm("rlvlmf", unlabelled), equal_band]


def _filters(changes: Mapping[str, Any]) -> list[Arm]:
    return [
        Arm("prefvlm", changes, "prefvlm"),
        Arm("prefvlm-adaptive", changes, "adaptive thresholds"),
        Arm("prefvlm-no-filter", changes, "no filter"),
        Arm("prefvlm-random-selection", changes, "random selection"),
    ]


def _thresholds(
    changes: Mapping[str, Any], alphas: Sequence[float], betas: Sequence[float], uppers: Sequence[float]
) -> list[Arm]:
    """RIME's thresholds with weights up to its own (alpha 0.5, beta 3, upper 3 ln 10 = 6.9), and the adaptive ones."""
    arms = [Arm("prefvlm-adaptive", changes, "adaptive")]
    for alpha, beta, upper in itertools.product(alphas, betas, uppers):
        setting = {"filter.alpha": alpha, "filter.beta_max": beta, "filter.beta_min": min(beta, 1.0)}
        setting["filter.upper"] = upper
        arms.append(Arm("prefvlm", {**changes, **setting}, f"alpha {alpha:g}, beta {beta:g}, upper {upper:.1f}"))
    return arms


_RIME_UPPER = 6.907755278982137


def _components(changes: Mapping[str, Any], unlabelled: Mapping[str, Any]) -> list[Arm]:
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
        Arm("prefvlm-plus", {**changes, **_CALIBRATED}, "prefvlm-plus, calibrated labels"),
        Arm(
            "prefvlm-plus",
            {**changes, **_CALIBRATED, "feedback.balance": True},
            "prefvlm-plus, calibrated and balanced",
        ),
        Arm("pebble", {**changes, "reward.standardise": True}, "prefvlm-plus without its VLM"),
    ]


def _backbones(changes: Mapping[str, Any]) -> list[Arm]:
    names = {"random": "random VLM", "tinyliv-heldout": "held-out TinyLIV", "tinyliv-indomain": "in-domain TinyLIV"}
    return [Arm("prefvlm", {**changes, "vlm.model": model}, name) for model, name in names.items()]


TRANSFER_PAIRS = {
    "window-open-v3": "window-close-v3",
    "drawer-open-v3": "door-open-v3",
    "drawer-close-v3": "door-close-v3",
}
"""Target task -> the task whose adapters it starts from: the pairs of PrefVLM and ROVED."""


LAPTOP_TRANSFER_PAIRS = {
    "window-open-v3": "window-close-v3",
    "window-close-v3": "window-open-v3",
    "door-close-v3": "button-press-v3",
}
"""The same between tasks that profile laptop can learn; no drawer or door is opened in so few steps."""


def _transfer(source: Source, budgets: Mapping[Any, Mapping[str, Any]]) -> list[Arm]:
    """Each label budget with and without the source's adapters."""
    return [
        Arm("prefvlm", changes, f"{'with' if start else 'without'} transfer ({labels} labels)", start)
        for labels, changes in budgets.items()
        for start in (None, source)
    ]


def _paper_transfer(target: str, source: str) -> list[Arm]:
    """ROVED's budgets: what it needs without transfer, a half and a quarter of it."""
    source_run = Source(source, "prefvlm", dict(_paper_prefvlm(*_PAPER[source][:2]).changes))
    steps, labels, _ = _PAPER[target]
    budgets = {part: {"total_steps": steps, "feedback.budget": part} for part in (labels, labels // 2, labels // 4)}
    return _transfer(source_run, budgets)


def _people(steps: int, session_every: int, segment_length: int) -> list[Arm]:
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


EXPERIMENTS: dict[str, dict[str, Grid]] = {
    "01_sanity_check": {
        "quick": Grid({"drawer-close-v3": [Arm("prefvlm", _QUICK, "prefvlm")]}, [0]),
        "laptop": Grid({task: _filters(_laptop(task))[:2] for task in _ABLATED}, range(3)),
        "paper": Grid({task: [_paper_prefvlm(*_PAPER[task][:2])] for task in _PAPER}, range(5)),
    },
    "02_learning_curves": {
        "quick": Grid({"drawer-close-v3": [Arm("sac"), Arm("pebble"), Arm("prefvlm", small_budget(300))]}, range(4)),
        "laptop": Grid(
            {task: _laptop_arms(task) + (_laptop_baselines(task) if task in _ABLATED else []) for task in _LAPTOP},
            range(5),
        ),
        "paper": Grid({task: _paper_arms(*plan) for task, plan in _PAPER.items()}, range(5)),
    },
    "03_filter_ablation": {
        "quick": Grid({"drawer-close-v3": _filters(_QUICK)}, [0]),
        "laptop": Grid({task: _filters(_laptop(task)) for task in _ABLATED}, range(3)),
        "paper": Grid({"window-close-v3": _filters(_WINDOW)}, range(5)),
    },
    "04_threshold_sensitivity": {
        "quick": Grid({"drawer-close-v3": _thresholds(_QUICK, [0.5], [0.0, 3.0], [2.0, _RIME_UPPER])}, [0]),
        "laptop": Grid(
            {
                "button-press-v3": _thresholds(
                    _laptop("button-press-v3"), [0.25, 0.5], [0.0, 1.0, 3.0], [2.0, _RIME_UPPER]
                )
            },
            range(2),
        ),
        "paper": Grid(
            {"window-close-v3": _thresholds(_WINDOW, [0.25, 0.5], [0.0, 1.0, 3.0], [2.0, _RIME_UPPER])}, range(5)
        ),
    },
    "05_transfer": {
        "quick": Grid(
            {
                "drawer-close-v3": _transfer(
                    Source("door-close-v3", "prefvlm", _QUICK),
                    {labels: _MECHANISM | small_budget(labels) for labels in (120, 60)},
                )
            },
            [0],
        ),
        "laptop": Grid(
            {
                target: _transfer(
                    Source(source, "prefvlm", _laptop(source)),
                    {name: _laptop(target, share) for name, share in (("B", 1), ("B/2", 1 / 2), ("B/4", 1 / 4))},
                )
                for target, source in LAPTOP_TRANSFER_PAIRS.items()
            },
            range(2),
        ),
        "paper": Grid({target: _paper_transfer(target, source) for target, source in TRANSFER_PAIRS.items()}, range(5)),
    },
    "06_component_ablation": {
        "quick": Grid(
            {
                "drawer-close-v3": [
                    *_components(_QUICK, _MECHANISM),
                    Arm("rlvlmf", _MECHANISM, "single images"),
                    *_backbones(_QUICK),
                ]
            },
            [0],
        ),
        "laptop": Grid(
            {task: [*_components(_laptop(task), _laptop_steps(task)), *_backbones(_laptop(task))] for task in _ABLATED},
            range(3),
        ),
        "paper": Grid({"window-close-v3": [*_components(_WINDOW, _WINDOW_STEPS), *_backbones(_WINDOW)]}, range(5)),
    },
    "07_human_labeling": {
        "quick": Grid({"drawer-close-v3": _people(1_500, 200, 10)}, [0]),
        "laptop": Grid({"drawer-close-v3": _people(1_500, 200, 10)}, [0]),
        "paper": Grid({"drawer-close-v3": _people(15_000, 1_500, 50)}, [0]),
    },
    "08_noisy_teacher": {
        "quick": Grid({"drawer-close-v3": _noisy(("pebble", *_BASELINES, "prefvlm"), _QUICK)}, [0]),
        "laptop": Grid(
            {task: _noisy(("pebble", "rime", "prefvlm", "prefvlm-plus"), _laptop(task)) for task in _ABLATED}, range(3)
        ),
        "paper": Grid({"window-close-v3": _noisy(("pebble", "rime", "prefvlm"), _WINDOW)}, range(5)),
    },
}
"""Notebook name -> profile -> grid."""
