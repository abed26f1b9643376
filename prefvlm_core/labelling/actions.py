"""What `prefvlm labels` does with a label queue."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefvlm_core.common.errors import PrefVLMError, unknown_name
from prefvlm_core.config.fields import check_number
from prefvlm_core.config.run import Execution
from prefvlm_core.labelling.agreement import agreement_table, status_table
from prefvlm_core.labelling.clips import CLIP_SIZE
from prefvlm_core.labelling.database import Database
from prefvlm_core.labelling.exchange.folder import exists_already, read_folder, write_folder
from prefvlm_core.labelling.exchange.lerobot import write_lerobot
from prefvlm_core.labelling.exchange.posting import add_data
from prefvlm_core.labelling.exchange.sources import data_of_queue, data_of_run
from prefvlm_core.labelling.files import add_labels, export_labels, read_labels
from prefvlm_core.labelling.names import escaped
from prefvlm_core.labelling.teacher import open_queue, queue_url
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import find_folders

Action = Literal["status", "agreement", "export", "import"]
Form = Literal["plain", "lerobot"]
Source = Literal["queue", "run"]


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


def exchange(
    action: Action,
    execution: Execution,
    folder: Path,
    form: Form = "plain",
    source: Source = "queue",
    size: int = 0,
    run_id: str = "",
) -> str:
    """Export to a folder or import from one, and return what is to be printed.

    Args:
        action: "export" or "import".
        execution: Names the label queue and the results folder.
        folder: New, for an export.
        form: What an exported folder holds.
        source: What is exported, the queue or the run `run_id`.
        size: Height and width of exported frames, pixels; 0: as they are stored.
        run_id: Only this run; "" for all.

    Raises:
        PrefVLMError: For another action or form, and the errors of reading, writing and posting.
    """
    if action not in ("export", "import"):
        raise PrefVLMError(f"{action} takes no folder; only export and import do.")
    if action == "import":
        if form != "plain":
            raise PrefVLMError("Only folders in the plain form are imported; see docs/howto/exchange_labels.md.")
        data = read_folder(folder)
        queue = open_queue(execution)
        pairs, answers = add_data(queue, data)
        return f"{pairs} pairs with {answers} answers added to {queue.database.name}"
    check_number("size", size, 0, CLIP_SIZE)
    if folder.exists():  # before anything is rendered
        raise exists_already(folder)
    if source == "run":
        data = data_of_run(_folder_of(execution.results, run_id), size)
    else:
        data = data_of_queue(Database(queue_url(execution), create=False), run_id, execution.results, size)
    (write_folder if form == "plain" else write_lerobot)(data, folder)
    return f"{len(data.labels)} labels of {len(data.pairs)} pairs written to {folder}"


def _folder_of(results: str, run_id: str) -> RunDirectory:
    """The folder of a run. Raises `PrefVLMError` if there is none."""
    found = {folder.run_id: folder for folder in find_folders(results)}
    if run_id not in found:
        raise unknown_name(f"run in {results}", run_id, found)
    return found[run_id]
