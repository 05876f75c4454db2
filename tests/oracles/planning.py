"""A catalogue small enough to plan in a test, and a trace of a day with rates that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

SMALL = (Path(__file__).parents[1] / "data" / "small_serving.toml").read_text(encoding="utf-8")
"""Two kinds of traffic whose accuracy nothing limits, two models, two GPUs: rates and quotas decide alone."""


def write_trace(
    path: Path, rate: Callable[[int], int], *, hours: int = 24, tokens: tuple[int, int] = (500, 250)
) -> Path:
    """Write a trace with ``rate(hour)`` requests in every tenth of an hour, evenly spaced, from midnight on.

    The last hour has a last request at its very end, so that its last window is whole.
    """
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    start = np.datetime64("2024-05-01T00:00:00")
    for tenth in range(hours * 10):
        count = rate(tenth // 10)
        for n in range(count):
            at = start + np.timedelta64(int((tenth + n / count) * 360_000), "ms")
            lines.append(f"{str(at).replace('T', ' ')},{tokens[0]},{tokens[1]}")
    end = str(start + np.timedelta64(hours * 3_600_000, "ms")).replace("T", " ")
    lines.append(f"{end},{tokens[0]},{tokens[1]}")
    path.write_text("\n".join(lines) + "\n")
    return path
