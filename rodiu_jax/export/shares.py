"""Shares of traffic as whole hundredths of a percent, the finest that nginx knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

WHOLE = 10_000
"""Hundredths of a percent in everything."""


def split_whole(shares: Sequence[float]) -> tuple[int, ...]:
    """Round shares to hundredths of a percent that add up to the whole; each is off by less than one.

    The largest remainders are rounded up, the first of equal ones. Shares are taken relative to their sum.

    Raises:
      ValueError: no share is above 0.
    """
    total = math.fsum(shares)
    if not total > 0:
        raise ValueError("no share above 0")
    exact = [WHOLE * share / total for share in shares]
    parts = [math.floor(x) for x in exact]
    missing = WHOLE - sum(parts)
    for position in sorted(range(len(parts)), key=lambda p: (parts[p] - exact[p], p))[:missing]:
        parts[position] += 1
    return tuple(parts)


def percent_text(part: int) -> str:
    """Write hundredths of a percent as nginx reads them: ``12.34%``."""
    return f"{part // 100}.{part % 100:02d}%"
