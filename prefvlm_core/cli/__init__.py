"""The command line: one dataclass per command, from which its options and its help are generated.

`prefvlm --help` must answer at once, so whatever imports torch, MuJoCo or pandas is imported by the command that needs
it, in its `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from prefvlm_core import __version__
from prefvlm_core.cli.labels import Labels
from prefvlm_core.cli.reference import List, Show
from prefvlm_core.cli.stored import Figures, Notebook, Pack, Runs, Table
from prefvlm_core.cli.training import Bench, Experiment, Fleet, Plan, Pretrain, Reproduce, Train
from prefvlm_core.common.console import exit_code
from prefvlm_core.common.errors import check_path, unknown_name
from prefvlm_core.config.arguments import parse

DESCRIPTION = """Train robots from a vision-language model's preferences and few human labels.

An open reproduction of PrefVLM (arXiv 2502.01616) and of its baselines.

Type first:
    prefvlm list methods                     what there is; tasks, vlms, teachers, experiments and profiles likewise
    prefvlm show --tasks drawer-close-v3     what a run would do, field by field
    prefvlm train --tasks drawer-close-v3    one run, which takes minutes
    prefvlm runs                             the runs that are stored
    prefvlm plan --profile laptop            what everything would cost
    prefvlm reproduce                        everything, at the smallest scale
    prefvlm train --help                     the options of a command
    prefvlm --version                        the version"""

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": List,
    "show": Show,
    "train": Train,
    "runs": Runs,
    "plan": Plan,
    "reproduce": Reproduce,
    "figures": Figures,
    "table": Table,
    "labels": Labels,
    "pack": Pack,
    "experiment": Experiment,
    "notebook": Notebook,
    "fleet": Fleet,
    "pretrain": Pretrain,
    "bench": Bench,
}
"""By name, in the order of the help: what is typed first stands first."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `prefvlm`. The exit code is 2, with one line on stderr, for anything that the user can mend."""
    sys.exit(exit_code(lambda: _run_command(sys.argv[1:] if arguments is None else arguments)))


def _run_command(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit code."""
    if list(arguments) == ["--version"]:
        print(__version__)
        return 0
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise unknown_name("option of prefvlm", arguments[0], ("--help", "--version"))
    command = parse(COMMANDS, arguments or ["--help"], DESCRIPTION)
    for name, folder in (("results", True), ("output", True), ("file", False)):
        if hasattr(command, name):
            check_path(f"--{name}", getattr(command, name), folder)
    return command.run()
