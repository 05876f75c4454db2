"""The exact adversary in a routing program: the worst case W of delays and errors as columns and rows.

W(a, Gamma) is the least of Gamma t + sum_d sigma[d] over t, sigma >= 0 with t + sigma[d] >= a[d]: a type's own columns
are its shares, then t and sigma of its delay, then those of its error; its own rows the demand, the promises of delay
and error, and t + sigma[d] >= a[d] for each slot d of either.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from solvers.dual import Coefficients
from solvers.lp.program import BlockLp, LpSolution


def add_adversary(
    c: Coefficients, lp: BlockLp, delay_weight: Float[Array, " I"], unit: Float[Array, ""]
) -> BlockLp:
    """Add the worst cases' columns and rows to a routing program of the nominal delays and errors.

    A type's t and sigma are in units of its largest excess, so that they are of the size of shares.

    Args:
      c: its ``excess`` and ``error_excess`` are (I,D), of the slots, speed-up counted.
      delay_weight: $/ms.
      unit: of the program's costs, $.
    """
    is_open = lp.own[:, 0]  # I,D
    types, slots = is_open.shape
    eye = jnp.eye(slots, dtype=is_open.dtype)
    level = -jnp.concatenate([jnp.ones((slots, 1), eye.dtype), eye], 1)  # t and sigma in each worst case
    level = jnp.broadcast_to(level, (types, slots, 1 + slots))
    nothing = jnp.zeros_like(level)
    cost, own, worst_cases = [lp.cost], [lp.own], []
    promises = (
        (c.excess, c.delay_limit, c.gamma_delay, delay_weight),
        (c.error_excess, c.error_limit, c.gamma_error, jnp.zeros_like(delay_weight)),
    )
    for m, (excess, limit, gamma, weight) in enumerate(promises):
        scale = _largest_excess(excess * is_open)  # I
        each = jnp.concatenate([gamma[None], jnp.ones(slots, scale.dtype)])  # of t, of each sigma
        in_promise = jnp.asarray(np.eye(3)[1 + m][None, :, None], scale.dtype)  # demand, delay, error
        relative = scale / jnp.where(limit > 0, limit, 1.0)
        own.append(in_promise * (relative[:, None] * each[None])[:, None])
        cost.append((weight * scale / unit)[:, None] * each[None])
        shares = (excess * is_open / scale[:, None])[:, :, None] * eye[None]
        columns = (level, nothing) if m == 0 else (nothing, level)
        worst_cases.append(jnp.concatenate([shares, *columns], 2))
    return lp._replace(
        cost=jnp.concatenate(cost, 1),
        own=jnp.concatenate([jnp.concatenate(own, 2), *worst_cases], 1),
        own_limit=jnp.pad(lp.own_limit, ((0, 0), (0, 2 * slots))),
    )


def _largest_excess(excess: Float[Array, "I D"]) -> Float[Array, " I"]:
    """Find the largest excess of each type, or 1 where it has none."""
    largest = excess.max(1)
    return jnp.where(largest > 0, largest, 1.0)


def read_adversary(
    solution: LpSolution,
    unit: Float[Array, ""],
    *promises: tuple[Float[Array, " I"], Float[Array, "I D"]],
) -> list[Float[Array, "I D"]]:
    """Read xi of each promise off the prices of `add_adversary`'s rows: a price over what its excess is worth.

    Args:
      unit: of the program's costs, $.
      promises: of delay and of error, what a unit of it is worth to each type, $, and the excess of each slot.
    """
    prices = jnp.split(solution.own_price[:, 3:], 2, axis=1)  # after demand, delay and error
    result = []
    for price, (each, excess) in zip(prices, promises, strict=True):
        worth = each[:, None] * _largest_excess(excess)[:, None]
        result.append(unit * price / jnp.where(worth > 0, worth, 1.0))
    return result
