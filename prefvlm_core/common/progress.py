"""tqdm, which draws progress bars: imported here alone, since it fails for values of its environment variables."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefvlm_core.common.errors import PrefVLMError

__all__ = ["paused", "tqdm"]

_GIVEN = sorted(name for name in os.environ if name.startswith("TQDM_"))

try:
    from tqdm.auto import tqdm

    if _GIVEN:  # some values are read when tqdm is imported, others when a bar is drawn
        from tqdm.std import tqdm as plain

        class Trial(plain):
            """A bar that says nothing when it is removed half made, as bars of tqdm before 4.70 do on stderr."""

            def __del__(self) -> None:
                pass

        with Trial(total=1, disable=False, file=io.StringIO()) as bar:
            bar.update()
except Exception as error:  # whatever tqdm makes of the values
    if not _GIVEN or isinstance(error, ImportError):
        raise
    raise PrefVLMError(
        f"tqdm, which draws progress bars, cannot use what its environment variables hold ({', '.join(_GIVEN)}): "
        f"{type(error).__name__}, {error}; correct or unset them."
    ) from error


@contextmanager
def paused(bar: tqdm) -> Iterator[None]:
    """Leave the time that passes inside out of a bar's speed and of its time left, as where people are waited for."""
    begun = time.time()  # tqdm's clock
    try:
        yield
    finally:
        if not bar.disable:
            waited = time.time() - begun
            bar.start_t += waited
            bar.last_print_t += waited
