"""How a command of the command line ends: its exit code, and one line on stderr for what the user can mend."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

from prefvlm_core.common.errors import PrefVLMError

STOPPED, BROKEN_PIPE = 130, 141
"""Exit codes after SIGINT and SIGPIPE, as shells give them."""


def exit_code(command: Callable[[], int]) -> int:
    """Run a command and return its exit code: 2, with one line on stderr, for whatever the user can mend.

    A console that cannot show a character shows a question mark. Output that nobody reads any more, as after
    `| head`, is not worth a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if any(name.startswith("TQDM_") for name in os.environ):
            importlib.import_module("prefvlm_core.common.progress")  # before torch imports tqdm
        try:
            code = command()
        except SystemExit:  # as after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except PrefVLMError as error:
        return _refused(str(error))
    except BrokenPipeError:
        _discard(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is not None:
            return _refused(f"{error.filename} cannot be used: {error.strerror}.")
        if not _fails(sys.stdout):
            raise
        _discard(sys.stdout)
        return _refused(f"The output cannot be written: {error.strerror}.")
    except KeyboardInterrupt:
        print("prefvlm: stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        return STOPPED


def _refused(reason: str) -> int:
    print(f"prefvlm: {' '.join(reason.splitlines())}", file=sys.stderr)
    return 2


def _fails(stream: TextIO) -> bool:
    """Whether nothing can be written to `stream`; where it can, it has an empty line more."""
    try:
        print(file=stream, flush=True)  # an unbuffered stream would not be tried by flushing alone
    except OSError:
        return True
    return False


def _discard(stream: TextIO) -> None:
    """Send what is still to be written nowhere, or Python would complain of it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
