"""Certified lower bounds of a batch of scenarios, block by block."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float64

from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.scenario_blocks import of_settled, run_scenarios
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.kept_programs import kept_program
from solvers.dual.ascent import Ascent, Reach, ascend_and_certify
from solvers.dual.coefficients import derive_coefficients
from solvers.dual.function import Multipliers

_USUAL = Ascent()


class Bounds(NamedTuple):
    """Certified lower bounds of B scenarios.

    ``lower`` is in $ per period, -inf where the computation met something that is not a number; ``multipliers`` are
    float32 arrays with leading axis B: evaluating the dual function at them proves ``lower``.
    """

    lower: Float64[np.ndarray, " B"]
    multipliers: Multipliers


@of_settled
@kept_program("reach")
def _bound_block(
    fields: Fields, start: Multipliers | None, *, controls: Float[Array, " 5"], reach: Reach
) -> tuple[Array, Multipliers]:
    return _bound(fields, start, controls, reach)


@of_settled
@kept_program("reach")
def _value_block(fields: Fields, *, controls: Float[Array, " 5"], reach: Reach) -> Array:
    return _bound(fields, None, controls, reach)[0]


def _bound(
    fields: Fields, start: Multipliers | None, controls: Float[Array, " 5"], reach: Reach
) -> tuple[Array, Multipliers]:
    def one(fields: Fields, start: Multipliers | None) -> tuple[Array, Multipliers]:
        found = ascend_and_certify(derive_coefficients(fields, SETTLED_MODE), start, reach, controls)
        return found.bound, found.multipliers

    return jax.vmap(one)(fields, start)


def _run_blocks(program: Any, instances: Instances, arrays: tuple, ascent: Ascent, chunk: int) -> Any:
    """Run a program of bounds over all scenarios, in float64 outside the ascent."""
    batch = instances.as_batch()
    with jax.enable_x64(True):
        return run_scenarios(
            program,
            batch,
            np.arange(batch.size),
            arrays,
            BlockSize(chunk) if chunk else block_size("bound"),
            controls=ascent.controls,
            reach=ascent.reach,
        )


def lower_bounds(
    instances: Instances,
    *,
    ascent: Ascent = _USUAL,
    start: Multipliers | None = None,
    chunk: int = 0,
) -> Bounds:
    """Compute certified lower bounds of every scenario: float32 ascent, float64 certificate.

    Args:
      start: multipliers to start from, with leading axis B; cold without it.
      chunk: scenarios in a compiled block, 0 for what suits the device; another value is another program, last bits
        may differ.
    """
    arrays = (jax.tree.map(np.asarray, start),)
    lower, multipliers = _run_blocks(_bound_block, instances, arrays, ascent, chunk)
    assert lower.dtype == np.float64, "certificates are float64"
    return Bounds(lower, multipliers)


def lower_bound_values(
    instances: Instances, *, ascent: Ascent = _USUAL, chunk: int = 0
) -> Float64[np.ndarray, " B"]:
    """Compute `Bounds.lower` alone: multipliers stay where they are computed and are forgotten.

    With scenarios of `rodiu_jax.model.scenario_blocks.keep_on_device` nothing but these numbers leaves an accelerator.
    """
    lower = _run_blocks(_value_block, instances, (), ascent, chunk)
    assert lower.dtype == np.float64, "certificates are float64"
    return lower
