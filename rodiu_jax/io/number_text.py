"""How numbers are written for people: the same in tables, sentences and reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_LEAST_PERCENT = 1e-6
"""Shares below this are written as ``<0.0001%``: more digits help nobody."""


def is_missing(value: Any) -> bool:
    """Tell whether a cell of a table holds nothing: None, NaN, or pandas' own mark for a missing value."""
    if (
        value is None or type(value).__name__ == "NAType"
    ):  # told by its name, so that pandas need not be imported
        return True
    return bool(value != value)


def number(value: float, digits: int = 2) -> str:
    """Write a number with a fixed number of decimals and thousands separated; a dash where it is not finite."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def significant(value: Any, digits: int = 6) -> str:
    """Write a number with so many significant digits, large ones whole; a dash where it is missing."""
    if is_missing(value):
        return "-"
    whole = math.isfinite(value) and abs(value) >= 10**digits
    return f"{value:,.0f}" if whole else f"{value:,.{digits}g}"


def exact(value: float) -> str:
    """Write a number as a catalogue states it: all of its digits, up to 12."""
    return f"{value:.12g}"


def dollars(value: float) -> str:
    """Write an amount of money; cents only below $1,000. An infinite one is a bound that nobody proved."""
    if math.isinf(value):
        return "no bound"
    return f"${number(value, 0 if abs(value) >= 1000 else 2)}"


def interval(low: Any, high: Any, write: Callable[[Any], str] = number) -> str:
    """Write a range as ``2 to 3``, or as one number where both ends read the same; a dash where an end is missing."""
    if is_missing(low) or is_missing(high):
        return "-"
    ends = write(low), write(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def percent(share: Any, digits: int = 3) -> str:
    """Write a share in percent with so many significant digits; a dash where it is missing.

    Only all of something is 100%, and only nothing of it is 0%: 0.99999 is 99.999%, and 1e-9 is <0.0001%.
    """
    if is_missing(share) or math.isinf(share):
        return "-"
    if 0 < share < _LEAST_PERCENT:
        return f"<{100 * _LEAST_PERCENT:.4f}%"
    texts = (_write_digits(100 * share, more) for more in range(digits, 16))
    return next(text for text in texts if text != "100" or share > 1 - 1e-15) + "%"


def _write_digits(value: float, digits: int) -> str:
    """Write so many significant digits, but never an exponent in place of a whole number."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text
