"""The texts by which vision-language models know tasks."""

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.registry import check_task, domain_of

_registered: dict[str, str] = {}


def task_text(task: str) -> str:
    """The text of a task: the one registered in this process, else the built-in one.

    Raises `PrefVLMError` for an unknown task.
    """
    return _registered.get(task, domain_of(task).tasks[task])


def register_task_text(task: str, text: str) -> None:
    """Use `text` for a task in the rest of this process, in place of the built-in text or of an earlier registration.

    The text is not part of a run's name: give runs with another text a results folder of their own.

    Raises `PrefVLMError` for an unknown task or an empty text.
    """
    check_task(task)
    if not text.strip():
        raise PrefVLMError(f"The text of '{task}' is empty; a vision-language model needs a description.")
    _registered[task] = text
