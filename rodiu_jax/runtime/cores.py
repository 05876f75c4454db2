"""How many cores this process may use. No JAX here: solver processes load this module."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may use: those that the system gives it, or its share of them (``NPROC``, as XLA reads it)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("NPROC", "")
    return min(cores, int(share)) if share.isdecimal() and int(share) else cores
