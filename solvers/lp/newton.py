"""Newton's equations of the interior point, reduced to the prices of the rows, and their solution.

With columns x, reduced costs z, rows A x + s = b of slack s and price y, Newton's step from (x, s; z, y) solves

    A dx + ds = -r        r  = A x + s - b           the rows' residual
    A' dy - dz = -q       q  = c + A' y - z          the columns' residual
    z dx + x dz = -t      y ds + s dy = -u           how far each product shall fall

Columns and slacks go first, dx = (x/z)(-q - t/x - A' dy) and ds = -(u + s dy)/y, which leaves for the prices

    (A (x/z) A' + s/y) dy = r - u/y + A (x/z)(-q - t/x)

This matrix has an arrow's shape. Own rows of a type meet no other type's, so they are eliminated type by type, and a
dense system of the S = Q D + 1 shared rows is left: with six types and four slots a third of the operations that the
equations over all rows would take.

                 own rows of type 1   type 2   ...   shared rows
    type 1            own[1]                          cross[1]
    type 2                            own[2]          cross[2]
    shared rows       cross[1]'      cross[2]'  ...   shared

The first own row is bounded from both sides. Of its two prices only the difference meets a column, so it stands in the
matrix as one row, whose s/y is the harmonic sum of the two sides'.

All of it is elementwise over the batch, the last axis, and calls no library: several programs may run side by side on
a CPU's threads.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from solvers.lp.program import (
    BlockLp,
    PrimalDual,
    RowValues,
    Side,
    column_values,
    row_values,
    split_shared,
    stack_shared,
)
from solvers.lp.stages import Run, dot, fold_all, repeat

_DEPENDENT = 1e-10
"""A pivot below this, relative to the diagonal it came from, belongs to a row that depends on those before: what is
left of it after the elimination is rounding."""

_UNROLLED = 16
"""Pivots up to which each is compiled on its own, a sixth faster than a loop; more of them take too long to compile."""

_SOLVES = 2
"""Times the reduced system is solved for a step: once, and once more for what the first solution leaves over."""


class Ratios(NamedTuple):
    """What scales Newton's equations: value over its partner on the other side."""

    columns: Float[Array, "I n B"]  # x / z
    rows: RowValues  # s / y; ``floor`` holds that of a shortfall too
    first: Float[Array, "I B"]  # of the first own row, both its sides together


class Newton(NamedTuple):
    """An iteration's equations, factored: every right-hand side of this iteration uses them."""

    row_residual: RowValues
    column_residual: Float[Array, "I n B"]
    ratios: Ratios
    own_inverse: Float[Array, "I R R B"]
    elimination: Float[Array, "I R S B"]  # own_inverse @ cross
    shared_inverse: Float[Array, "S S B"]


class Reduced(NamedTuple):
    """The reduced system's unknowns (columns, and net prices of own and shared rows), or its right-hand sides."""

    columns: Float[Array, "I n B"]
    own: Float[Array, "I R B"]
    shared: Float[Array, "S B"]


def replace_first(own: Float[Array, "I R B"], value: Float[Array, "I B"]) -> Float[Array, "I R B"]:
    """Put ``value`` in the place of each type's first own row."""
    first = (np.arange(own.shape[1]) == 0)[None, :, None]
    return jnp.where(first, value[:, None], own)


def compute_residuals(lp: BlockLp, now: PrimalDual) -> tuple[RowValues, Float[Array, "I n B"]]:
    """Compute by how much the equalities of rows and columns fail; for shortfalls, those of their reduced costs."""
    primal, dual = now
    own, slot, common = row_values(lp, primal.x)
    served, shortfall = own[:, 0], None
    if lp.shortfall_cost is not None:
        served = served + primal.rows.shortfall
        shortfall = lp.shortfall_cost - dual.rows.floor - dual.rows.shortfall
    rows = RowValues(
        own + primal.rows.own - lp.own_limit,
        lp.floor + primal.rows.floor - served,
        slot + primal.rows.slot - 1.0,
        common + primal.rows.common - lp.common_limit,
        shortfall,
    )
    net = replace_first(dual.rows.own, dual.rows.own[:, 0] - dual.rows.floor)
    return rows, lp.cost + column_values(lp, net, dual.rows.slot, dual.rows.common) - dual.x


def compute_ratios(now: PrimalDual) -> Ratios:
    """Divide each value by its partner on the other side."""
    primal, dual = now
    rows = jax.tree.map(lambda slack, price: slack / price, primal.rows, dual.rows)
    if rows.shortfall is not None:
        rows = rows._replace(floor=rows.floor + rows.shortfall)
    return Ratios(primal.x / dual.x, rows, rows.own[:, 0] * rows.floor / (rows.own[:, 0] + rows.floor))


def build_own_matrix(lp: BlockLp, ratios: Ratios) -> tuple[Float[Array, "I R n B"], Float[Array, "I R R B"]]:
    """Build own rows by columns, scaled by x/z, and the matrix of each type's own prices."""
    own_rows = lp.own.shape[1]
    scaled = lp.own * ratios.columns[:, None]
    diagonal = replace_first(ratios.rows.own, ratios.first)[:, :, None] * np.eye(own_rows)[None, :, :, None]
    return scaled, dot(scaled[:, :, None], lp.own[:, None], 3) + diagonal


def build_shared_matrix(
    lp: BlockLp, ratios: Ratios, scaled: Float[Array, "I R n B"]
) -> tuple[Float[Array, "I R S B"], Float[Array, "S S B"]]:
    """Build the matrices of own rows by shared rows, and of shared rows by shared rows.

    Two slots never share a column, so the slots' rows meet only within a slot: Q x Q diagonals of length D.
    """
    slots, batch = lp.common.shape[1], lp.common.shape[-1]
    rows = len(lp.slot)
    ease, scaled = ratios.columns[:, :slots], scaled[:, :, :slots]
    by_slot = [scaled * lp.slot[k][:, None] for k in range(rows)]
    cross = jnp.concatenate([*by_slot, dot(scaled, lp.common[:, None], 2)[:, :, None]], 2)

    slot = lp.slot * ease[None]
    corner = fold_all(jnp.add, lp.common * lp.common * ease)
    edge = jnp.concatenate([dot(slot, lp.common[None], 1).reshape(rows * slots, batch), corner[None]])
    within = [[dot(slot[a], lp.slot[b], 0) for b in range(rows)] for a in range(rows)]  # each (D,B)
    eye = np.eye(slots)[:, :, None]
    among = jnp.concatenate(
        [jnp.concatenate([within[a][b][:, None] * eye for b in range(rows)], 1) for a in range(rows)]
    )
    matrix = jnp.concatenate([jnp.concatenate([among, edge[:-1, None]], 1), edge[None]])
    diagonal = stack_shared(ratios.rows.slot, ratios.rows.common)
    return cross, matrix + diagonal[:, None] * np.eye(rows * slots + 1)[:, :, None]


def diagonal_of(a: Float[Array, "*rest k k B"]) -> Float[Array, "*rest k B"]:
    """Take the diagonals of a batch of matrices."""
    return jnp.stack([a[..., k, k, :] for k in range(a.shape[-2])], -2)


def invert(
    run: Run, a: Float[Array, "*rest k k B"], diagonal: Float[Array, "*rest k B"]
) -> Float[Array, "*rest k k B"]:
    """Invert symmetric positive definite matrices by sweeping one pivot after the other.

    A row that depends on those before it is left out: its row and column of the inverse are zero.

    Args:
      diagonal: what each pivot is small or large against.
    """
    size = a.shape[-2]

    def sweep(
        k: int | Int[Array, ""], a: Float[Array, "*rest k k B"], diagonal: Float[Array, "*rest k B"]
    ) -> Float[Array, "*rest k k B"]:
        here = jnp.arange(size) == k
        row = jax.lax.dynamic_index_in_dim(a, k, a.ndim - 3, keepdims=False)
        pivot = jax.lax.dynamic_slice_in_dim(row, k, 1, row.ndim - 2)
        sound = pivot > _DEPENDENT * jax.lax.dynamic_slice_in_dim(diagonal, k, 1, row.ndim - 2)
        over = jnp.where(sound, 1.0 / jnp.where(sound, pivot, 1.0), 0.0)
        edge = row * over
        border = jnp.where(here[:, None], -over, edge)
        inner = a - row[..., :, None, :] * edge[..., None, :, :]
        inner = jnp.where(here[:, None, None], border[..., None, :, :], inner)
        return jnp.where(here[None, :, None], border[..., :, None, :], inner)

    if size > _UNROLLED:
        return -jax.lax.fori_loop(0, size, lambda k, a: run(sweep, k, a, diagonal), a)
    for k in range(size):
        a = run(partial(sweep, k), a, diagonal)
    return -a


def flatten_types(a: Array) -> Array:
    """Join the axes of types and of own rows."""
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


def multiply_own(inverse: Float[Array, "I R R B"], cross: Float[Array, "I R S B"]) -> Float[Array, "I R S B"]:
    """Multiply the inverse of own rows with their part of the shared rows."""
    return dot(inverse[:, :, :, None], cross[:, None], 2)


def subtract_own(
    shared: Float[Array, "S S B"], cross: Float[Array, "I R S B"], elimination: Float[Array, "I R S B"]
) -> Float[Array, "S S B"]:
    """Eliminate all own rows from the matrix of shared rows (its Schur complement)."""
    return shared - dot(flatten_types(cross)[:, :, None], flatten_types(elimination)[:, None], 0)


def factor(run: Run, lp: BlockLp, now: PrimalDual) -> Newton:
    """Build and factor the equations at an iterate."""
    row_residual, column_residual = run(compute_residuals, lp, now)
    ratios = run(compute_ratios, now)
    scaled, own = run(build_own_matrix, lp, ratios)
    cross, shared = run(build_shared_matrix, lp, ratios, scaled)
    own_inverse = invert(run, own, diagonal_of(own))
    elimination = run(multiply_own, own_inverse, cross)
    left = run(subtract_own, shared, cross, elimination)
    shared_inverse = invert(run, left, diagonal_of(shared))
    return Newton(row_residual, column_residual, ratios, own_inverse, elimination, shared_inverse)


def eliminate_sides(
    lp: BlockLp, ease: Float[Array, "I n B"], elimination: Float[Array, "I R S B"], right: Reduced
) -> tuple[Float[Array, "I R B"], Float[Array, "S B"]]:
    """Eliminate columns, then own rows, from the right-hand sides."""
    own, slot, common = row_values(lp, ease * right.columns)
    own = right.own + own
    shared = right.shared + stack_shared(slot, common)
    return own, shared - dot(flatten_types(elimination), flatten_types(own)[:, None], 0)


def multiply_shared(inverse: Float[Array, "S S B"], right: Float[Array, "S B"]) -> Float[Array, "S B"]:
    """Solve for the shared prices."""
    return dot(inverse, right[None], 1)


def substitute_shared(
    inverse: Float[Array, "I R R B"],
    elimination: Float[Array, "I R S B"],
    right: Float[Array, "I R B"],
    shared: Float[Array, "S B"],
) -> Float[Array, "I R B"]:
    """Solve for the own prices, given the shared ones."""
    return dot(inverse, right[:, None], 2) - dot(elimination, shared[None, None], 2)


def substitute_prices(
    lp: BlockLp,
    ease: Float[Array, "I n B"],
    right: Float[Array, "I n B"],
    own: Float[Array, "I R B"],
    shared: Float[Array, "S B"],
) -> Float[Array, "I n B"]:
    """Solve for the columns, given all prices."""
    return ease * (right - column_values(lp, own, *split_shared(shared, len(lp.slot))))


def solve_reduced(run: Run, lp: BlockLp, newton: Newton, right: Reduced) -> Reduced:
    """Solve the reduced system for one right-hand side."""
    ease = newton.ratios.columns
    right_own, right_shared = run(eliminate_sides, lp, ease, newton.elimination, right)
    shared = run(multiply_shared, newton.shared_inverse, right_shared)
    own = run(substitute_shared, newton.own_inverse, newton.elimination, right_own, shared)
    columns = run(substitute_prices, lp, ease, right.columns, own, shared)
    return Reduced(columns, own, shared)


def compute_left_over(lp: BlockLp, ratios: Ratios, right: Reduced, solution: Reduced) -> Reduced:
    """Compute what a solution of the reduced system leaves over of the right-hand sides."""
    own, slot, common = row_values(lp, solution.columns)
    shared = stack_shared(ratios.rows.slot, ratios.rows.common)
    return Reduced(
        right.columns
        - solution.columns / ratios.columns
        - column_values(lp, solution.own, *split_shared(solution.shared, len(lp.slot))),
        right.own - replace_first(ratios.rows.own, ratios.first) * solution.own + own,
        right.shared - shared * solution.shared + stack_shared(slot, common),
    )


def build_right_sides(
    now: PrimalDual,
    ratios: Ratios,
    row_residual: RowValues,
    column_residual: Float[Array, "I n B"],
    fall: Side,
) -> tuple[RowValues, Reduced]:
    """Build r - u/y of every row, and from it the reduced system's right-hand sides.

    Args:
      fall: (t, u), how far each product shall fall.
    """
    primal, dual = now
    aim = jax.tree.map(lambda r, u, price: r - u / price, row_residual, fall.rows, dual.rows)
    if aim.shortfall is not None:
        fallen = (fall.rows.shortfall + primal.rows.shortfall * row_residual.shortfall) / dual.rows.shortfall
        aim = aim._replace(floor=aim.floor + fallen)
    first = (aim.own[:, 0] / ratios.rows.own[:, 0] - aim.floor / ratios.rows.floor) * ratios.first
    return aim, Reduced(
        -column_residual - fall.x / primal.x,
        replace_first(aim.own, first),
        stack_shared(aim.slot, aim.common),
    )


def expand(
    lp: BlockLp,
    now: PrimalDual,
    ratios: Ratios,
    row_residual: RowValues,
    fall: Side,
    aim: RowValues,
    solution: Reduced,
) -> PrimalDual:
    """Compute the whole step from the reduced system's solution."""
    primal, dual = now
    x, net, _ = solution
    own, slot, common = row_values(lp, x)
    # Of the first row's two prices the solution has the difference. The side with the larger ratio has the price
    # that is nearer to zero: that one follows from its own slack, without cancellation, and the other from both.
    below = (aim.floor - own[:, 0]) / ratios.rows.floor
    above = (own[:, 0] + aim.own[:, 0]) / ratios.rows.own[:, 0]
    floor_is_loose = ratios.rows.floor > ratios.rows.own[:, 0]
    price = RowValues(
        replace_first(net, jnp.where(floor_is_loose, net[:, 0] + below, above)),
        jnp.where(floor_is_loose, below, above - net[:, 0]),
        *split_shared(solution.shared, len(lp.slot)),
        None,
    )
    floor, shortfall = own[:, 0] - row_residual.floor, None
    if lp.shortfall_cost is not None:
        price = price._replace(shortfall=row_residual.shortfall - price.floor)
        shortfall = -(fall.rows.shortfall + primal.rows.shortfall * price.shortfall) / dual.rows.shortfall
        floor = floor + shortfall
    slack = RowValues(
        -row_residual.own - own, floor, -row_residual.slot - slot, -row_residual.common - common, shortfall
    )
    return PrimalDual(Side(x, slack), Side(-(fall.x + dual.x * x) / primal.x, price))


def find_step(run: Run, lp: BlockLp, newton: Newton, now: PrimalDual, fall: Side) -> PrimalDual:
    """Find the step that takes each product to its present value less ``fall``."""
    ratios, row_residual = newton.ratios, newton.row_residual
    aim, right = run(build_right_sides, now, ratios, row_residual, newton.column_residual, fall)

    def refine(_: Array, solution: Reduced) -> Reduced:
        left_over = run(compute_left_over, lp, ratios, right, solution)
        return jax.tree.map(jnp.add, solution, solve_reduced(run, lp, newton, left_over))

    solution = repeat(_SOLVES, refine, jax.tree.map(jnp.zeros_like, right))
    return run(expand, lp, now, ratios, row_residual, fall, aim, solution)
