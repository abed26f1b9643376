"""The domains, and which of them a task belongs to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from prefvlm_core.common.errors import PrefVLMError, shown, unknown_name
from prefvlm_core.common.registry import Registry, check_part_of_path
from prefvlm_core.domains.dm_control import DMControl
from prefvlm_core.domains.domain import Domain, Sizes
from prefvlm_core.domains.maze_goals import MazeGoals
from prefvlm_core.domains.metaworld_domain import Metaworld
from prefvlm_core.domains.point_maze import PointMaze


class Domains(Registry[Domain]):
    """The domains by name, each of whose tasks belongs to it alone."""

    def register(self, name: str, entry: Domain) -> Domain:
        """See `Registry`. Raises `PrefVLMError` also for a task's name that is taken or could not be a folder's."""
        for task in entry.tasks:
            check_part_of_path("task", task)
            for other, domain in self.items():
                if other != name and task in domain.tasks:
                    raise PrefVLMError(f"The task '{task}' is one of {domain.title}'s; choose another name for yours.")
        return super().register(name, entry)

    def added(self, tasks: Iterable[str]) -> dict[str, Domain]:
        """Those to which some of the tasks belong and that do not come with the package, by name."""
        wanted = set(tasks)
        return {
            name: domain
            for name, domain in self.items()
            if name not in self._packaged and not wanted.isdisjoint(domain.tasks)
        }


DOMAINS = Domains(
    "domain", {"metaworld": Metaworld(), "pointmaze": PointMaze(), "mazegoals": MazeGoals(), "dmc": DMControl()}
)
"""Maps names to domains; `register` adds one of your own."""

MAZES = (*DOMAINS["pointmaze"].tasks, *DOMAINS["mazegoals"].tasks)
"""The tasks of navigation, which the mazes' TinyLIV was trained on."""

_AROUND = (
    r"meta|world|metaworld|mw|m[tl]\d+|sawyer|nut|robot|gym|env|task|single|goal|observable|hidden|visual|image|pixels|"
    r"rgb|state|dense|sparse|expert|medium|replay|random|the|a|and|v\d+"
)
"""Words that other projects, and Meta-World's own classes, write around the name of a task."""
_ALIKE = 0.85
"""Smallest `difflib` ratio of a misspelled task and the one that is suggested: opposites, like open and close, are less
alike."""


def all_tasks() -> list[str]:
    """The tasks of all domains."""
    return [task for domain in DOMAINS.values() for task in domain.tasks]


def domain_of(task: str) -> Domain:
    """The domain of a task. Raises `PrefVLMError`, with a suggestion, for an unknown one."""
    if not isinstance(task, str):
        raise PrefVLMError(f"task must be of type str, got {shown(task)}.")
    for domain in DOMAINS.values():
        if task in domain.tasks:
            return domain
    several = [meant_task(part) for part in re.split(r"[,;\s]+", task.strip(",; "))]
    if len(several) > 1 and all(several):
        raise PrefVLMError(f"{shown(task)} is several tasks; separate them by spaces: {' '.join(several)}")
    raise unknown_name("task", task, all_tasks(), meant_task(task))


def check_task(name: str) -> None:
    """Raise `PrefVLMError` unless `name` is a task. It suggests the task that is meant, if that is clear."""
    domain_of(name)


def sizes_of(task: str) -> Sizes:
    """How many numbers describe a task. Raises the errors of `domain_of`."""
    return domain_of(task).sizes(task)


def task_number(task: str) -> int:
    """The number of a task in its domain, for seeds that differ between tasks."""
    return list(domain_of(task).tasks).index(task)


def main_tasks(task: str) -> tuple[str, ...]:
    """The tasks that the domain of `task` is compared on."""
    domain = domain_of(task)
    return domain.main_tasks or tuple(domain.tasks)


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
    bases = {re.sub(r"-v\d+$", "", task): task for task in all_tasks()}
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


def check_horizon(task: str, horizon: int, action_repeat: int) -> None:
    """Raise `PrefVLMError` unless an episode of `horizon` actions fits into the longest of the task's domain.

    Each action is held for `action_repeat` environment steps.
    """
    domain = domain_of(task)
    if action_repeat < 1 or not 1 <= horizon * action_repeat <= domain.longest_episode:
        raise PrefVLMError(
            f"horizon is {horizon} and action_repeat {action_repeat}, but {domain.title}'s episodes allow 1 to "
            f"{domain.longest_episode} environment steps in all."
        )
