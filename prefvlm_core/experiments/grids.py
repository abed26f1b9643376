"""The grids behind the notebooks: which runs answer which question, in which profile.

Each experiment is a notebook's name. To have a task, a method or a setting drawn, add it to a grid here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefvlm_core.common.registry import Registry
from prefvlm_core.config.profiles import FIRST_EDITION
from prefvlm_core.experiments.arms import (
    BASELINES,
    EQUAL_BAND,
    FIRST_GENERATION,
    HUMAN_ONLY,
    PLUS_WITHOUT_VLM,
    RIME_UPPER,
    Arm,
    Grid,
    Source,
    backbones,
    components,
    disturbed,
    embedded,
    filters,
    noisy_teacher,
    people,
    simulated,
    small_budget,
    structured_errors,
    thresholds,
    transfer,
    worth,
)
from prefvlm_core.experiments.other_domains import MULTI_STAGE, OTHER_DOMAINS

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
    arms = [Arm("sac", horizon, "sac (true reward)", "sac")]
    for name, budget in zip(("fewer", "more"), pebble_labels, strict=True):
        queries = max(32, -(-(budget - 250) // (steps // 2 // 3_000)))
        changes = horizon | {"feedback.budget": budget, "feedback.session_queries": queries}
        arms.append(Arm("pebble", changes, f"pebble ({name} labels)", "pebble"))
    changes = horizon | {"feedback.budget": labels}
    arms += [Arm(method, changes, method) for method in ("prefvlm", "prefvlm-plus")]
    # prefvlm has as many labels, PEBBLE on some tasks more.
    other: dict[str, Any] = {"group": "baseline", "against": "prefvlm"}
    arms += [Arm(method, changes, method, **other) for method in BASELINES]
    arms += [Arm("rlvlmf", horizon, **other), Arm("vlm-preference", horizon), _equal_band(horizon)]
    return [*arms, Arm("vlm-reward", horizon)]


def _paper_prefvlm(steps: int, labels: int) -> Arm:
    return Arm("prefvlm", {"total_steps": steps, "feedback.budget": labels}, "prefvlm")


_ACCURACIES = (0.7, 0.8, 0.9, 1.0)
"""How often the simulated VLMs are right."""
_MECHANISM = {"total_steps": 2_000}
"""Length of quick runs that show a mechanism at work; their success is no evidence for anything."""
_QUICK = _MECHANISM | small_budget(32)
_WINDOW_STEPS = {"total_steps": _PAPER["window-close-v3"][0]}
_WINDOW = _WINDOW_STEPS | {"feedback.budget": _PAPER["window-close-v3"][1]}

# Profile laptop, planned in results/laptop/PLAN.md.
_CLAIM = {"button-press-v3": 16, "door-close-v3": 16, "window-close-v3": 64, "window-open-v3": 64}
"""The second comparison's label budget B of each task, chosen on seeds 200 to 203 (results/laptop/PLAN.md)."""
_AGENT_AND_INPUTS = ("sac.critic_norm", "sac.standardise", "reward.inputs", "reward.standardise")
_ABLATED = ("door-close-v3", "button-press-v3")
"""Tasks of profile laptop's ablations."""
_ABLATION_SEEDS = range(1000, 1005)
_FURTHER_SEEDS = range(1000, 1010)
"""Those of profile laptop's arms of which five more seeds may tell what the first five did not, and of what these are
compared with (results/laptop/PLAN.md)."""


def _claim(task: str, share: float = 1) -> dict[str, Any]:
    """Changes of a run of `task` in the second comparison with `share` of its budget B."""
    return small_budget(int(share * _CLAIM[task]))


def _claim_arms(task: str) -> list[Arm]:
    """The claim, as written down in results/laptop/PLAN.md: PrefVLM with B labels against PEBBLE with B, 2B and 4B."""
    once = _claim(task)
    arms = [Arm("sac", {"sac.temperature_learning_rate": 1e-3})]
    arms += [Arm("pebble", _claim(task, share), f"pebble ({share}×B)", "pebble") for share in (1, 2, 4)]
    uniform, papers = {"feedback.sampling": "uniform"}, {field: FIRST_EDITION[field] for field in _AGENT_AND_INPUTS}
    arms.append(Arm("pebble", once | uniform, "pebble, uniform (1×B)", "pebble, uniform"))
    arms.append(Arm("pebble", once | papers, "pebble, papers' agent (1×B)", "pebble, papers' agent"))
    near = {"feedback.recent_episodes": 10}
    arms.append(Arm("pebble", once | near, "pebble, near-policy (1×B)", "pebble, near-policy"))
    arms += [Arm(method, once, f"{method} (1×B)", method) for method in ("prefvlm", "prefvlm-adaptive", "prefvlm-plus")]
    arms.append(Arm("prefvlm-plus", _claim(task, 1 / 2), "prefvlm-plus (0.5×B)", "prefvlm-plus"))
    arms += [Arm("vlm-preference"), Arm("vlm-reward")]
    if task in _ABLATED:
        few: dict[str, Any] = {"group": "baseline", "against": "pebble (1×B)", "seeds": len(_ABLATION_SEEDS)}
        arms += [Arm(method, once, method, **few) for method in BASELINES]
        arms.append(Arm("rlvlmf", {}, "rlvlmf", **few))
    return arms


def _further(arms: Sequence[Arm], undecided: Collection[str]) -> list[Arm]:
    """Arms of a grid with `_FURTHER_SEEDS`: those named and what they are compared with have all of them, the others
    the first five."""
    compared = {arm.against for arm in arms if arm.name in undecided}
    return [arm if arm.name in {*undecided, *compared} else replace(arm, seeds=len(_ABLATION_SEEDS)) for arm in arms]


def _simulated_alone(task: str) -> list[Arm]:
    """Simulated VLMs and the arms that they are compared with, on a task that has no other ablation."""
    changes = _claim(task)
    without_vlm = [arm for arm in components(changes, {}, recent=10) if arm.name in (HUMAN_ONLY, PLUS_WITHOUT_VLM)]
    compared = [replace(arm, against="") for arm in without_vlm]
    arms = [*compared, *simulated(changes, _ACCURACIES[:3]), *structured_errors(changes, _ACCURACIES[:3])]
    return _further(arms, [])


def _equal_band(changes: Mapping[str, Any]) -> Arm:
    against = "vlm-preference (no human)"
    changes = {**changes, **EQUAL_BAND}
    return Arm("vlm-preference", changes, "vlm-preference (equal band)", group="baseline", against=against)


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


def _paper_transfer(target: str, source: str) -> list[Arm]:
    """ROVED's budgets: what it needs without transfer, a half and a quarter of it."""
    source_run = Source(source, "prefvlm", dict(_paper_prefvlm(*_PAPER[source][:2]).changes))
    steps, labels, _ = _PAPER[target]
    budgets = {part: {"total_steps": steps, "feedback.budget": part} for part in (labels, labels // 2, labels // 4)}
    return transfer(source_run, budgets)


DISTURBING = ("noise", "occluder")
"""The two factors that cost zero-shot labels of `tinyliv2` most at the strength below, as stored of profile laptop."""
DISTURBANCE = "strong"


_GRIDS: dict[str, dict[str, Grid]] = {
    "01_sanity_check": {
        "quick": Grid({"drawer-close-v3": [Arm("prefvlm", _QUICK, "prefvlm")]}, [0]),
        "laptop": Grid({task: filters(_claim(task))[:2] for task in _ABLATED}, _ABLATION_SEEDS),
        "paper": Grid({task: [_paper_prefvlm(*_PAPER[task][:2])] for task in _PAPER}, range(5)),
    },
    "02_learning_curves": {
        "quick": Grid(
            {
                "drawer-close-v3": [
                    Arm("sac"),
                    Arm("pebble", small_budget(32)),
                    Arm("pebble"),
                    Arm("prefvlm", small_budget(32)),
                ]
            },
            range(4),
        ),
        "laptop": Grid({task: _claim_arms(task) for task in _CLAIM}, range(1000, 1020)),
        "paper": Grid({task: _paper_arms(*plan) for task, plan in _PAPER.items()}, range(5)),
    },
    "03_filter_ablation": {
        "quick": Grid({"drawer-close-v3": filters(_QUICK)}, [0]),
        "laptop": Grid({task: _further(filters(_claim(task)), ["no filter"]) for task in _ABLATED}, _FURTHER_SEEDS),
        "paper": Grid({"window-close-v3": filters(_WINDOW)}, range(5)),
    },
    "04_threshold_sensitivity": {
        "quick": Grid({"drawer-close-v3": thresholds(_QUICK, [0.5], [0.0, 3.0], [2.0, RIME_UPPER])}, [0]),
        "laptop": Grid(
            {task: thresholds(_claim(task), [0.25, 0.5], [0.0, 1.0, 3.0], [2.0, RIME_UPPER]) for task in _ABLATED},
            _ABLATION_SEEDS,
        ),
        "paper": Grid(
            {"window-close-v3": thresholds(_WINDOW, [0.25, 0.5], [0.0, 1.0, 3.0], [2.0, RIME_UPPER])}, range(5)
        ),
    },
    "05_transfer": {
        "quick": Grid(
            {
                "drawer-close-v3": transfer(
                    Source("door-close-v3", "prefvlm", _QUICK),
                    {labels: _MECHANISM | small_budget(labels) for labels in (32, 16)},
                )
            },
            [0],
        ),
        "laptop": Grid(
            {
                target: transfer(
                    Source(source, "prefvlm", _claim(source)),
                    {name: _claim(target, share) for name, share in (("B", 1), ("B/2", 1 / 2), ("B/4", 1 / 4))},
                )
                for target, source in LAPTOP_TRANSFER_PAIRS.items()
            },
            _ABLATION_SEEDS,
        ),
        "paper": Grid({target: _paper_transfer(target, source) for target, source in TRANSFER_PAIRS.items()}, range(5)),
    },
    "06_component_ablation": {
        "quick": Grid(
            {
                "drawer-close-v3": [
                    *components(_QUICK, _MECHANISM, recent=10),
                    Arm("rlvlmf", _MECHANISM, "single images", against="prefvlm"),
                    *backbones(_QUICK),
                    *simulated(_QUICK, [0.9])[:1],
                    *structured_errors(_QUICK, [0.9]),
                ]
            },
            [0],
        ),
        "laptop": Grid(
            {
                task: _further(
                    [
                        *components(_claim(task), {}, recent=10),
                        *backbones(_claim(task)),
                        *backbones(_claim(task), FIRST_GENERATION),
                        *simulated(_claim(task), _ACCURACIES[:3]),
                        *structured_errors(_claim(task), _ACCURACIES[:3]),
                        *embedded(_claim(task), _claim(task, 2)),
                    ],
                    [*FIRST_GENERATION.values(), "prefvlm, errors by segments, VLM 90 % right"],
                )
                for task in _ABLATED
            }
            | {task: _simulated_alone(task) for task in _CLAIM if task not in _ABLATED},
            _FURTHER_SEEDS,
        ),
        "paper": Grid(
            {
                "window-close-v3": [
                    *components(_WINDOW, _WINDOW_STEPS, recent=30),
                    *backbones(_WINDOW),
                    *simulated(_WINDOW, _ACCURACIES),
                    *structured_errors(_WINDOW, _ACCURACIES[:3]),
                ]
            },
            range(5),
        ),
    },
    "07_human_labeling": {
        "quick": Grid({"drawer-close-v3": people(1_500, 200, 10)}, [0]),
        "laptop": Grid({"drawer-close-v3": people(1_500, 200, 10)}, [0]),
        "paper": Grid({"drawer-close-v3": people(15_000, 1_500, 50)}, [0]),
    },
    "08_noisy_teacher": {
        "quick": Grid({"drawer-close-v3": noisy_teacher(("pebble", *BASELINES, "prefvlm"), _QUICK)}, [0]),
        "laptop": Grid(
            {
                task: _further(noisy_teacher(("pebble", "rime", "prefvlm", "prefvlm-plus"), _claim(task)), ["prefvlm"])
                for task in _ABLATED
            },
            _FURTHER_SEEDS,
        ),
        "paper": Grid({"window-close-v3": noisy_teacher(("pebble", "rime", "prefvlm"), _WINDOW)}, range(5)),
    },
    "09_vlm_backbones": {
        "quick": Grid({"drawer-close-v3": worth(_QUICK, [0.7, 1.0])}, [0]),
        "laptop": Grid({task: worth(_claim(task), _ACCURACIES) for task in _ABLATED}, _ABLATION_SEEDS),
        "paper": Grid({"window-close-v3": worth(_WINDOW, _ACCURACIES)}, range(5)),
    },
    "10_visual_robustness": {
        "quick": Grid({"drawer-close-v3": disturbed(_QUICK, DISTURBING[:1], DISTURBANCE)}, [0]),
        "laptop": Grid(
            {task: disturbed(_claim(task), DISTURBING, DISTURBANCE) for task in _ABLATED}, range(1000, 1010)
        ),
        "paper": Grid({"window-close-v3": disturbed(_WINDOW, DISTURBING, DISTURBANCE)}, range(5)),
    },
    "11_other_domains": OTHER_DOMAINS,
    "12_multi_stage": MULTI_STAGE,
}
EXPERIMENTS: Registry[Mapping[str, Grid]] = Registry(
    "experiment",
    _GRIDS,
    {
        "01_sanity_check": "does the VLM's reward make sense, and how good are its labels?",
        "02_learning_curves": "success against steps and against labels",
        "03_filter_ablation": "does the KL filter earn its place?",
        "04_threshold_sensitivity": "what the filter's thresholds cost",
        "05_transfer": "do adapters of one task save labels on another?",
        "06_component_ablation": "what each part of PrefVLM adds",
        "07_human_labeling": "train a robot with thirty answers of your own",
        "08_noisy_teacher": "what one wrong answer in five does",
        "09_vlm_backbones": "how good a labeler of real training is each model, and what is that worth?",
        "10_visual_robustness": "what if the scene looks different?",
        "11_other_domains": "does it also work in mazes and for legs?",
        "12_multi_stage": "what changes with the number of a task's stages?",
    },
)
"""Notebook name -> profile -> grid."""
