"""What `prefvlm labels` does with a label queue."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefvlm_core.config.run import Execution
from prefvlm_core.labelling.agreement import agreement_table, status_table
from prefvlm_core.labelling.database import Database
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.names import escaped
from prefvlm_core.labelling.teacher import open_queue, queue_url

Action = Literal["status", "agreement", "export", "import"]


def perform(action: Action, execution: Execution, file: Path, run_id: str = "") -> str:
    """Perform an action on the label queue that `execution` names, and return what is to be printed.

    Only "import" creates a queue where there is none. Raises `PrefVLMError` if the queue cannot be reached, and the
    errors of `export_labels`, `read_labels` and `add_labels`.
    """
    if action == "import":
        lines = read_labels(file)  # before the queue is opened: a file that is refused creates none
        database = open_queue(execution).database
        return f"{add_labels(database, lines)} answers added to {database.name}"
    database = Database(queue_url(execution), create=False)
    if action == "export":
        return f"{export_labels(database, file, run_id)} answers written to {file}"
    table = status_table(database, run_id) if action == "status" else agreement_table(database, run_id)
    if table.empty:
        return "There are no answers yet."
    shown = table.map(lambda value: escaped(value) if isinstance(value, str) else value)  # others may have written them
    return str(shown.to_string(index=False, float_format="%.2f"))
