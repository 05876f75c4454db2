"""The linear program that the interior point solves, and the values that belong to its rows and columns.

    min   sum_i cost[i] . x[i]                      over x[i] >= 0, n columns of each type i
    s.t.  own[i] x[i] <= own_limit[i]               R rows of one type alone
          own[i,0] x[i] >= floor[i]                 the first of them from below too; at a price for falling short
                                                    where there is a ``shortfall_cost``
          sum_i slot[q,i,d] x[i,d] <= 1             Q rows for each slot d < D, over each type's first D columns
          sum_i common[i] . x[i,:D] <= common_limit one row over all of these

The Q D + 1 rows that types share are the *shared* rows: the slots' first, the common one last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from solvers.lp.stages import dot, fold_all


class BlockLp(NamedTuple):
    """A program as in the module. The solver itself keeps a batch of programs, B as the last axis of every array."""

    cost: Float[Array, "I n ..."]
    own: Float[Array, "I R n ..."]
    own_limit: Float[Array, "I R ..."]
    floor: Float[Array, "I ..."]
    slot: Float[Array, "Q I D ..."]
    common: Float[Array, "I D ..."]
    common_limit: Float[Array, "*B"]
    shortfall_cost: Float[Array, "I ..."] | None = None
    """What a unit below ``floor`` costs; None where falling short is not allowed."""


class LpSolution(NamedTuple):
    """Columns and the prices (dual variables, >= 0) of the rows."""

    x: Float[Array, "I n ..."]
    own_price: Float[Array, "I R ..."]
    floor_price: Float[Array, "I ..."]
    slot_price: Float[Array, "Q D ..."]
    common_price: Float[Array, "*B"]


class RowValues(NamedTuple):
    """A value for each row of a batch of programs (a slack, a price, a residual), and for each shortfall."""

    own: Float[Array, "I R B"]
    floor: Float[Array, "I B"]
    slot: Float[Array, "Q D B"]
    common: Float[Array, " B"]
    shortfall: Any
    """Float[Array, "I B"]; None where falling short is not allowed."""


class Side(NamedTuple):
    """One side of a pair of programs. Primal: columns and slacks. Dual: the reduced costs and prices beside them."""

    x: Float[Array, "I n B"]
    rows: RowValues


class PrimalDual(NamedTuple):
    """Both sides: an iterate, whose entries are all positive, or a step. The optimum's products are all zero."""

    primal: Side
    dual: Side


def row_values(
    lp: BlockLp, x: Float[Array, "I n B"]
) -> tuple[Float[Array, "I R B"], Float[Array, "Q D B"], Float[Array, " B"]]:
    """Compute the left-hand sides of own rows, slots' rows and the common row."""
    share = x[:, : lp.common.shape[1]]
    common = fold_all(jnp.add, lp.common * share)
    return dot(lp.own, x[:, None], 2), dot(lp.slot, share[None], 1), common


def column_values(
    lp: BlockLp, own: Float[Array, "I R B"], slot: Float[Array, "Q D B"], common: Float[Array, " B"]
) -> Float[Array, "I n B"]:
    """Compute what the rows' prices charge for a unit of each column: the transpose of `row_values`."""
    types, _, columns, batch = lp.own.shape
    share = dot(lp.slot, slot[:, None], 0) + lp.common * common[None, None]
    rest = jnp.zeros((types, columns - share.shape[1], batch), share.dtype)
    return dot(lp.own, own[:, :, None], 1) + jnp.concatenate([share, rest], 1)


def stack_shared(slot: Float[Array, "Q D B"], common: Float[Array, " B"]) -> Float[Array, "S B"]:
    """Put the values of the S = Q D + 1 shared rows under each other."""
    return jnp.concatenate([slot.reshape(-1, slot.shape[-1]), common[None]])


def split_shared(shared: Float[Array, "S B"], rows: int) -> tuple[Float[Array, "Q D B"], Float[Array, " B"]]:
    """Undo `stack_shared`, of so many rows (Q) a slot."""
    return shared[:-1].reshape(rows, -1, shared.shape[-1]), shared[-1]
