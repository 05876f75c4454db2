"""The registered benchmarks, one module each: what it builds, its sizes, its peers, how it knows what is right.

A new benchmark is a new file ``time_NAME.py`` with a ``SPEC``, and its name in `NAMES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.measure import Spec

NAMES = (
    "sampling",
    "evaluation",
    "exact",
    "bound",
    "plans",
    "starts",
    "cascade",
    "gap",
    "host",
    "recourse",
    "stress",
    "sweep",
    "growth",
    "start",
)


def load_benchmark(name: str) -> Spec:
    """Return the benchmark called ``name``; its module, and with it JAX, is imported now."""
    return import_module(f"bench.specs.time_{name}").SPEC
