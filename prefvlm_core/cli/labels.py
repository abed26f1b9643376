"""The command that counts, compares and moves the labels of people."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path

import tyro

from prefvlm_core.cli.options import Results
from prefvlm_core.common.errors import PrefVLMError
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
    folder: str = ""
    """In place of the file, a new folder to export clips, pairs and labels to, or one to import them from, which
    docs/howto/exchange_labels.md describes (empty: the file)."""
    form: typing.Literal["plain", "lerobot"] = "plain"
    """What an exported folder holds: plain tables and pictures, or a LeRobot dataset (v3.0)."""
    source: typing.Literal["queue", "run"] = "queue"
    """What is exported to a folder: the pairs of the label queue, or all labels of the run --run-id, the VLM's too, if
    it was trained with --keep-replay."""
    size: int = 0
    """Height and width of the frames in an exported folder, pixels (0: as they are stored)."""
    labels: str = ""
    """Database URL of the label queue, or env:NAME for the URL in the environment variable NAME (empty: the SQLite file
    labels.sqlite in the results folder)."""
    results: Results = "results"
    run_id: str = ""
    """Only this run, for status, agreement and export (empty: every run)."""

    def run(self) -> int:
        from prefvlm_core.labelling.actions import exchange, perform

        execution = Execution(self.results, labels=self.labels)
        if not self.folder and (self.form, self.source, self.size) != ("plain", "queue", 0):
            raise PrefVLMError("--form, --source and --size are about a folder; name it with --folder.")
        if not self.folder:
            print(perform(self.action, execution, self.file, self.run_id))
        else:
            print(exchange(self.action, execution, Path(self.folder), self.form, self.source, self.size, self.run_id))
        return 0
