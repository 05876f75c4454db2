"""Sweeps: the same sampled scenarios at every point of a grid of changes, each solved and kept."""

from rodiu_jax.sweeps.methods import METHODS, Method
from rodiu_jax.sweeps.run import sweep
from rodiu_jax.sweeps.spec import Factor, SweepSpec, load_spec, preset_names
from rodiu_jax.sweeps.store import read_rows

__all__ = ["METHODS", "Factor", "Method", "SweepSpec", "load_spec", "preset_names", "read_rows", "sweep"]
