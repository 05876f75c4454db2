"""Help for XLA: results that a CPU computes once, sums that it vectorises, and short loops.

XLA's CPU compiler fuses an elementwise computation into every operation that reads its result, and computes it again in
each of them. In a long chain of elementwise stages each of which reads the one before several times, the work would
grow exponentially with the length of the chain. XLA never fuses across the border of a conditional, so `run_once` puts
a stage into a conditional whose condition always holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from rodiu_jax.runtime.devices import by_device

Run: TypeAlias = Callable[..., Any]
"""``run(stage, *arguments)`` is ``stage(*arguments)``: `run_once` with its first argument given, or a plain call."""


def run_once(always: Bool[Array, ""], stage: Callable[..., Any], *arguments: Any) -> Any:
    """Compute ``stage(*arguments)`` once, however many operations read the result.

    Args:
      always: True, in a form that the compiler cannot know: computed from an argument of the compiled program. The
        condition of a constant would be folded away, and the stage fused as before.
      stage: a function of arrays and tuples of arrays.
    """
    stage = jax.jit(stage)  # an accelerator's compiler decides by itself, so it gets the bare stage
    shapes = jax.eval_shape(stage, *arguments)

    def run_guarded(*arguments: Any) -> Any:
        def give_zeros(*_: Any) -> Any:
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        return jax.lax.cond(always, stage, give_zeros, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=run_guarded, default=stage)


def repeat(times: int, step: Callable[[Array, Any], Any], state: Any) -> Any:
    """Apply ``step(number, state)`` a few times: `jax.lax.fori_loop`, unrolled on an accelerator.

    On a CPU one body for all of them is that much less to compile. An accelerator starts a kernel for every copy that a
    loop makes of its state: unrolled, an iteration of the interior point has half as many kernels.
    """
    return jax.lax.fori_loop(0, times, step, state, unroll=by_device(cpu=False, accelerator=True))


def fold(combine: Callable[[Array, Array], Array], values: Array, axis: int) -> Array:
    """Combine all entries along an axis, half with half: XLA's own reductions over a leading axis are slow on a CPU."""
    odd = []
    while (size := values.shape[axis]) > 1:
        if size % 2:
            odd.append(jax.lax.slice_in_dim(values, size - 1, size, axis=axis))
        half = size // 2
        first = jax.lax.slice_in_dim(values, 0, half, axis=axis)
        values = combine(first, jax.lax.slice_in_dim(values, half, 2 * half, axis=axis))
    for rest in odd:
        values = combine(values, rest)
    return jax.lax.squeeze(values, (axis,))


def dot(a: Array, b: Array, axis: int) -> Array:
    """Sum the products of ``a`` and ``b`` over an axis."""
    return fold(jnp.add, a * b, axis)


def fold_all(combine: Callable[[Array, Array], Array], values: Float[Array, "*rest B"]) -> Float[Array, " B"]:
    """Combine all entries of each member of the batch, which is the last axis."""
    return fold(combine, values.reshape(-1, values.shape[-1]), 0)


def broadcast_batch(value: Array, other: Array) -> Array:
    """Give a value per member of the batch (B,) as many axes as ``other`` has."""
    return value.reshape(*(1,) * (other.ndim - 1), -1)
