"""Sweeps: the same sampled scenarios at every point of a grid of changes, each solved and kept.

The names below are loaded when first used, so that the tables of methods and engines cost a command's help nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rodiu_jax.sweeps.method_table import METHODS, MethodInfo
    from rodiu_jax.sweeps.run import sweep
    from rodiu_jax.sweeps.spec import Factor, SweepSpec, load_spec, preset_names
    from rodiu_jax.sweeps.store import read_rows

_HOME = {
    "METHODS": "method_table",
    "Factor": "spec",
    "MethodInfo": "method_table",
    "SweepSpec": "spec",
    "load_spec": "spec",
    "preset_names": "spec",
    "read_rows": "store",
    "sweep": "run",
}

__all__ = ["METHODS", "Factor", "MethodInfo", "SweepSpec", "load_spec", "preset_names", "read_rows", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
