"""How many cores this process may use. No JAX here: solver processes load this module."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
