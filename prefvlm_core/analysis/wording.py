"""How a number and its 95 % interval are written, in every table, every figure and every sentence."""

import math
from collections.abc import Mapping
from typing import Any

from prefvlm_core.common.errors import PrefVLMError


def percent(fraction: float) -> str:
    """A fraction in percent without decimals. Raises `PrefVLMError` for nan."""
    if math.isnan(fraction):
        raise PrefVLMError("A number that the text shows is not a number in the stored tables.")
    return f"{_in_percent(fraction):z.0f}"


def interval(row: Mapping[Any, Any], shows: str = "mean") -> str:
    """A fraction of a row in percent, with its 95 % interval where it has one: `61 (45–77)`."""
    low, high = _bounds(row, shows)
    return percent(row[shows]) + ("" if math.isnan(low) else f" ({percent(low)}–{percent(high)})")


def points(row: Mapping[Any, Any], shows: str = "mean") -> str:
    """A difference of fractions in percentage points, with its 95 % interval where it has one: `+22 (+9 to +38)`.

    A bound that is rounded to 0 keeps its sign, which says whether the interval excludes 0.
    """
    low, high = _bounds(row, shows)
    bounds = "" if math.isnan(low) else f" ({_in_percent(low):+.0f} to {_in_percent(high):+.0f})".replace("-", "−")
    return signed_points(row[shows]) + bounds


def signed_points(difference: float) -> str:
    """A difference of fractions in percentage points: `+22`, `−3` or `+0`."""
    return f"{_in_percent(difference):+z.0f}".replace("-", "−")


def said_equivalent(number: float, first: float, last: float, below: str, above: str) -> str:
    """A label equivalent, with `below` or `above` before it where it is an end of the ladder, which only bounds it."""
    for bound, end in ((below, first), (above, last)):
        if math.isclose(number, end, rel_tol=1e-6):
            return f"{bound} {end:g}"
    return f"{number:.1f}"


def _in_percent(fraction: float) -> float:
    """Of the fraction with the four digits that stored tables have, so that a number that was just worked out is
    written as the stored one is."""
    return 100 * round(fraction, 4)


def _bounds(row: Mapping[Any, Any], shows: str) -> tuple[float, float]:
    """The columns low and high of `mean`, those of any other column with its name before them."""
    of = "" if shows == "mean" else f"{shows}_"
    return row[f"{of}low"], row[f"{of}high"]
