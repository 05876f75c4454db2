"""Rows of scenarios through a batched program, on all devices: the batch's end of `rodiu_jax.runtime.blocks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped

from rodiu_jax.model.fields import Fields, batch_axes, select_scenarios, settle
from rodiu_jax.model.instance import Instances
from rodiu_jax.runtime.block_sizes import BlockSize
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.devices import by_device, devices
from rodiu_jax.runtime.kept_programs import kept_program

_MOST_BYTES_ON_DEVICE = 4 * 2**30
"""Bytes of scenarios that one accelerator keeps."""


def keep_on_device(batch: Instances) -> Instances:
    """Upload the batch to a single accelerator, for `run_scenarios` to take rows there; elsewhere return it unchanged.

    The uploaded batch is padded to a power of two with its last scenario, so that few shapes are compiled for. On a
    CPU, with several accelerators, or above `_MOST_BYTES_ON_DEVICE` each block is sent with its scenarios.
    """
    size = 1 << max(batch.size - 1, 0).bit_length()
    total = size * sum(v.nbytes for v in batch.fields) // batch.size
    if by_device(cpu=True, accelerator=False) or len(devices()) > 1 or total > _MOST_BYTES_ON_DEVICE:
        return batch
    padded = batch.take(np.minimum(np.arange(size), batch.size - 1))
    return replace(batch, fields=jax.device_put(padded.fields))


def run_scenarios(
    program: Callable[..., Any],
    batch: Instances,
    scenario: Int[np.ndarray, " R"],
    arrays: tuple[Any, ...],
    size: BlockSize,
    **options: Any,
) -> Any:
    """Run a program over R rows: row r is scenario ``scenario[r]`` with ``arrays[...][r]``; return its results.

    Args:
      program: called as ``program(fields, *arrays, uncertainty=, batched=, **options)``; a row each in its results.
      batch: scenarios with a batch axis (`Instances.as_batch`), perhaps of `keep_on_device`.
      arrays: pytrees of host arrays with leading axis R.
      size: of `rodiu_jax.runtime.block_sizes.block_size`.
    """

    def take(rows: Int[np.ndarray, " C"]) -> tuple[Any, ...]:
        return take_fields(batch, scenario[rows]), *jax.tree.map(lambda a: a.take(rows, axis=0), arrays)

    static = {"uncertainty": batch.uncertainty, "batched": batch.batched}
    return RUNNER.run(program, take, len(scenario), size, **static, **options)


def of_settled(program: Callable[..., Any]) -> Callable[..., Any]:
    """Make a program of settled scenarios one for `run_scenarios`.

    A large program would be compiled for every mode, and for every set of fields that vary; a small one in front of it
    gives all fields a batch axis and applies the mode.

    Args:
      program: jitted; called as ``program(fields, *arrays, **options)`` with every field of `Fields` batched, in
        `rodiu_jax.model.fields.SETTLED_MODE`. It stays reachable as ``__wrapped__``.
    """

    @wraps(program)
    def settle_and_run(
        fields: Fields, *arrays: Any, uncertainty: str, batched: frozenset[str], **options: Any
    ) -> Any:
        return program(_settle(fields, uncertainty=uncertainty, batched=batched), *arrays, **options)

    return settle_and_run


@kept_program("uncertainty", "batched")
def _settle(fields: Fields, *, uncertainty: str, batched: frozenset[str]) -> Fields:
    one = partial(settle, uncertainty=uncertainty)
    return jax.vmap(one, in_axes=(batch_axes(batched),))(fields)


def take_fields(batch: Instances, scenario: Int[np.ndarray, " C"]) -> Fields:
    """Return the fields of some scenarios of a batch; of neighbours as a view, on a device as a copy there."""
    if any(isinstance(values, jax.Array) for values in batch.fields):
        return _take_on_device(batch.fields, scenario, batched=batch.batched)
    first, count = int(scenario[0]), len(scenario)
    neighbours = first + count <= batch.size and bool((np.diff(scenario) == 1).all())
    chosen = slice(first, first + count) if neighbours else scenario
    return select_scenarios(batch.fields, chosen, batch.batched)


@partial(jax.jit, static_argnames="batched")
def _take_on_device(fields: Fields, scenario: Shaped[jax.Array, " C"], *, batched: frozenset[str]) -> Fields:
    return select_scenarios(fields, scenario, batched)
