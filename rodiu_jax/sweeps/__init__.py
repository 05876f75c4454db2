"""Sweeps: the same sampled scenarios at every point of a grid of changes, each solved and kept.

The names below are loaded when first used, so that the tables of methods and engines cost a command's help nothing.
"""

from typing import TYPE_CHECKING

from rodiu_jax.runtime.lazy_call import name_loader

if TYPE_CHECKING:
    from rodiu_jax.sweeps.method_table import METHODS, MethodInfo
    from rodiu_jax.sweeps.run import sweep
    from rodiu_jax.sweeps.spec import Factor, SweepSpec, load_spec, preset_names
    from rodiu_jax.sweeps.store import read_rows

_HOME = {
    "METHODS": "rodiu_jax.sweeps.method_table",
    "Factor": "rodiu_jax.sweeps.spec",
    "MethodInfo": "rodiu_jax.sweeps.method_table",
    "SweepSpec": "rodiu_jax.sweeps.spec",
    "load_spec": "rodiu_jax.sweeps.spec",
    "preset_names": "rodiu_jax.sweeps.spec",
    "read_rows": "rodiu_jax.sweeps.store",
    "sweep": "rodiu_jax.sweeps.run",
}

__all__ = ["METHODS", "Factor", "MethodInfo", "SweepSpec", "load_spec", "preset_names", "read_rows", "sweep"]


__getattr__ = name_loader(__name__, _HOME)
