"""Names, sizes and limits of the Meta-World tasks.

Light to import: neither Meta-World nor MuJoCo is loaded, so configurations can be checked before any of them is needed.
"""

import difflib
import re

from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name

TASKS = (
    "assembly-v3",
    "basketball-v3",
    "bin-picking-v3",
    "box-close-v3",
    "button-press-topdown-v3",
    "button-press-topdown-wall-v3",
    "button-press-v3",
    "button-press-wall-v3",
    "coffee-button-v3",
    "coffee-pull-v3",
    "coffee-push-v3",
    "dial-turn-v3",
    "disassemble-v3",
    "door-close-v3",
    "door-lock-v3",
    "door-open-v3",
    "door-unlock-v3",
    "hand-insert-v3",
    "drawer-close-v3",
    "drawer-open-v3",
    "faucet-open-v3",
    "faucet-close-v3",
    "hammer-v3",
    "handle-press-side-v3",
    "handle-press-v3",
    "handle-pull-side-v3",
    "handle-pull-v3",
    "lever-pull-v3",
    "pick-place-wall-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "plate-slide-v3",
    "plate-slide-side-v3",
    "plate-slide-back-v3",
    "plate-slide-back-side-v3",
    "peg-insert-side-v3",
    "peg-unplug-side-v3",
    "soccer-v3",
    "stick-push-v3",
    "stick-pull-v3",
    "push-v3",
    "push-wall-v3",
    "push-back-v3",
    "reach-v3",
    "reach-wall-v3",
    "shelf-place-v3",
    "sweep-into-v3",
    "sweep-v3",
    "window-open-v3",
    "window-close-v3",
)
"""The 50 tasks of Meta-World V3, in Meta-World's order."""

PAPER_TASKS = (
    "window-open-v3",
    "window-close-v3",
    "door-open-v3",
    "door-close-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-v3",
    "sweep-into-v3",
)
"""The eight tasks of the papers (ROVED, Fig. 3)."""

OBSERVATION_SIZE = 39
ACTION_SIZE = 4
"""Hand displacement in x, y and z, and gripper effort, each in [-1, 1]."""
MAX_HORIZON = 500
"""Environment steps in Meta-World's longest possible episode."""


_AROUND = (
    r"meta|world|metaworld|mw|m[tl]\d+|sawyer|nut|robot|gym|env|task|single|goal|observable|hidden|visual|image|pixels|"
    r"rgb|state|dense|sparse|expert|medium|replay|random|the|a|and|v\d+"
)
"""Words that other projects, and Meta-World's own classes, write around the name of a task."""
_ALIKE = 0.85
"""Smallest `difflib` ratio of a misspelled task and the one that is suggested: opposites, like open and close, are less
alike."""


def check_task(name: object) -> None:
    """Raise `PrefVLMError` unless `name` is one of `TASKS`. It suggests the task that is meant, if that is clear."""
    if isinstance(name, str) and name in TASKS:
        return
    several = [meant_task(part) for part in re.split(r"[,;\s]+", name.strip(",; "))] if isinstance(name, str) else []
    if len(several) > 1 and all(several):
        raise PrefVLMError(f"{shown(name)} is several tasks; separate them by spaces: {' '.join(several)}")
    raise unknown_name("task", name, TASKS, meant_task(name) if isinstance(name, str) else "")


def meant_task(name: str) -> str:
    """The task that `name` means, "" where that is not clear.

    Names are understood with the versions, prefixes, suffixes and separators of other projects, with their words in
    another order, without their last words if only one task begins like this, and with small mistakes of spelling.
    """
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower())
    words = [word for word in words if word and not re.fullmatch(_AROUND, word)]
    joined = re.sub(r"v\d+$", "", "".join(words))
    if not joined:
        return ""
    bases = {task.removesuffix("-v3"): task for task in TASKS}
    spelled = {base.replace("-", ""): task for base, task in bases.items()}
    if joined in spelled:
        return spelled[joined]
    for same in (
        [task for base, task in bases.items() if sorted(base.split("-")) == sorted(words)],
        [task for base, task in bases.items() if base.startswith("-".join(words) + "-")],
    ):
        if len(same) == 1:
            return same[0]
    alike = difflib.get_close_matches(joined, spelled, n=1, cutoff=_ALIKE)
    return spelled[alike[0]] if alike else ""


def check_horizon(horizon: int, action_repeat: int) -> None:
    """Raise `PrefVLMError` unless an episode of `horizon` actions fits into one of Meta-World's.

    Each action is held for `action_repeat` environment steps.
    """
    if action_repeat < 1 or not 1 <= horizon * action_repeat <= MAX_HORIZON:
        raise PrefVLMError(
            f"horizon is {horizon} and action_repeat {action_repeat}, but Meta-World's episodes allow 1 to "
            f"{MAX_HORIZON} environment steps in all."
        )
