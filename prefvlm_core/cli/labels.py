"""The command that counts, compares and moves the labels of people."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path

import tyro

from prefvlm_core.cli.options import Results
from prefvlm_core.config.run import Execution


@dataclass(frozen=True)
class Labels:
    """Count, compare, export or import the labels that people gave."""

    action: tyro.conf.Positional[typing.Literal["status", "agreement", "export", "import"]]
    """status counts the answers of each run and session; agreement gives the percentage and Cohen's kappa between
    people, with their own repeated answers, with the true reward and with the VLM; export writes a JSONL file, and
    import reads one, from which the same run can be trained again."""
    file: Path = Path("labels.jsonl")
    """Label file to export to or import from."""
    labels: str = ""
    """Database URL of the label queue, or env:NAME for the URL in the environment variable NAME (empty: the SQLite file
    labels.sqlite in the results folder)."""
    results: Results = "results"
    run_id: str = ""
    """Only this run, for status, agreement and export (empty: every run)."""

    def run(self) -> int:
        from prefvlm_core.labelling.actions import perform

        print(perform(self.action, Execution(self.results, labels=self.labels), self.file, self.run_id))
        return 0
