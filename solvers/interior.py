"""Small linear programs with a structure, many at once: a primal-dual interior point in float64.

    min   sum_i cost[i] . x[i]                    over x[i] >= 0, of shape n for each type i
    s.t.  own[i] x[i] <= limit[i]                 rows of one type alone
          least[i] <= own[i,0] x[i]               the first of them from below too, or at a price for falling short
          sum_i slot[q,i,d] x[i,d] <= 1           two rows for each slot d < D, over the first D columns of each type
          sum_i whole[i] . x[i,:D] <= left        one row over all of these

Newton's equations are reduced to the prices of the rows. The own rows of a type meet no other type's, so they are
eliminated type by type, and a dense system of the 2 D + 1 shared rows is left: with six types and four slots a third
of the operations that the normal equations over all columns would take. All of it is elementwise over the batch, the
last axis, and calls no library, so that programs may run side by side on the threads of a CPU.

Source: Mehrotra, On the implementation of a primal-dual interior point method (SIAM J. Optimization, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.model.fields import Array


class Program(NamedTuple):
    """A program as in the module; I types, R own rows, n columns of a type, D slots."""

    cost: Array  # I,n
    own: Array  # I,R,n
    limit: Array  # I,R
    least: Array  # I
    slot: Array  # 2,I,D
    whole: Array  # I,D
    left: Array
    short: Array | None = None  # I  what a unit below ``least`` costs; None where that is not allowed


class Point(NamedTuple):
    """A solution, and the prices of the rows."""

    x: Array  # I,n
    own: Array  # I,R
    least: Array  # I
    slot: Array  # 2,D
    whole: Array


def interior_point(program: Program, iterations: int | Array) -> tuple[Point, Array]:
    """Mehrotra's predictor-corrector from an infeasible start; stops moving when complementarity is 1e-13.

    Args:
      iterations: the same for a whole batch. Data: of a constant XLA makes a slow program on a CPU.

    Returns:
      the last point, and by how much its cost may be off: complementarity plus the residuals of the rows at their
      prices.
    """
    return _one(program, jnp.asarray(iterations, jnp.int32))


_USUAL = 32
"""Programs in a block of a CPU (`solvers.bracket`)."""


@jax.custom_batching.custom_vmap
def _one(program: Program, iterations: Array) -> tuple[Point, Array]:
    # JAX traces this beside the batched rule; in a batch of the usual size both are one trace.
    alike = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (_USUAL, *a.shape)), program)
    return jax.tree.map(lambda a: a[0], _many(alike, iterations))


@_one.def_vmap
def _one_batched(size: int, batched: Any, program: Any, iterations: Array) -> tuple[Any, Any]:
    found = _many(_batch_first(size, batched, program), iterations)
    return found, jax.tree.map(lambda _: True, found)


@jax.custom_batching.custom_vmap
def _many(program: Program, iterations: Array) -> tuple[Point, Array]:
    """Of a batch, the first axis of every array, which becomes the last: operations then run over neighbours."""
    found = _together(jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), program), iterations)
    return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), found)


@_many.def_vmap
def _many_batched(size: int, batched: Any, program: Any, iterations: Array) -> tuple[Any, Any]:
    """Batches of batches are one batch."""
    whole = _batch_first(size, batched, program)
    inner = whole.cost.shape[1]
    found = _many(jax.tree.map(lambda a: a.reshape(size * inner, *a.shape[2:]), whole), iterations)
    found = jax.tree.map(lambda a: a.reshape(size, inner, *a.shape[1:]), found)
    return found, jax.tree.map(lambda _: True, found)


def _batch_first(size: int, batched: Any, program: Any) -> Any:
    assert not batched[1], "iterations are the batch's"
    return jax.tree.map(
        lambda a, has: a if has else jnp.broadcast_to(a[None], (size, *a.shape)), program, batched[0]
    )


def _folded(combine: Callable[[Array, Array], Array], values: Array, axis: int) -> Array:
    """All entries along an axis combined, half with half: XLA's own reductions over it are slow on a CPU."""
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


def _dot(a: Array, b: Array, axis: int) -> Array:
    """Sum of products over an axis."""
    return _folded(jnp.add, a * b, axis)


def _like(value: Array, other: Array) -> Array:
    """(B,) with as many axes as ``other``."""
    return value.reshape(*(1,) * (other.ndim - 1), -1)


def _over_all(combine: Callable[[Array, Array], Array], values: Array) -> Array:
    """All entries of (..., B) combined into (B,)."""
    return _folded(combine, values.reshape(-1, values.shape[-1]), 0)


_DEPENDENT = 1e-10
"""A pivot below this, relative to the diagonal it came from, belongs to a row that depends on those before."""


def _diagonal(a: Array) -> Array:
    """(..., k, B) of (..., k, k, B)."""
    return jnp.stack([a[..., k, k, :] for k in range(a.shape[-2])], -2)


def _kept(go: Array, stage: Callable[..., Any], *given: Any) -> Any:
    """``stage(*given)``, computed once: XLA's CPU compiler would compute it anew in each later use, and so on back.

    Args:
      go: true, which the compiler must not know: data, or nothing is kept.
    """
    stage = jax.jit(stage)
    shapes = jax.eval_shape(stage, *given)

    def guarded(*given: Any) -> Any:
        def nothing(*_: Any) -> Any:
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        return jax.lax.cond(go, stage, nothing, *given)

    return jax.lax.platform_dependent(*given, cpu=guarded, default=stage)


def _inverse(kept: Callable[..., Any], a: Array, diagonal: Array) -> Array:
    """The inverses of symmetric positive definite matrices (..., k, k, B), by sweeping one pivot after the other.

    Rows that depend on those before them are left out: theirs is zero.

    Args:
      kept: `_kept`, but for its first argument.
      diagonal: (..., k, B), what each pivot is small or large against.
    """
    size = a.shape[-2]

    def sweep(k: int, a: Array, diagonal: Array) -> Array:
        mine = np.arange(size) == k
        row = a[..., k, :, :]
        pivot = row[..., k : k + 1, :]
        sound = pivot > _DEPENDENT * diagonal[..., k : k + 1, :]
        over = jnp.where(sound, 1.0 / jnp.where(sound, pivot, 1.0), 0.0)
        edge = row * over
        border = jnp.where(mine[:, None], -over, edge)
        inner = a - row[..., :, None, :] * edge[..., None, :, :]
        inner = jnp.where(mine[:, None, None], border[..., None, :, :], inner)
        return jnp.where(mine[None, :, None], border[..., :, None, :], inner)

    for k in range(size):
        a = kept(partial(sweep, k), a, diagonal)
    return -a


class _Rows(NamedTuple):
    """A value for each row, and where falling short has a price, for each shortfall."""

    own: Array  # I,R,B
    least: Array  # I,B
    slot: Array  # 2,D,B
    whole: Array  # B
    short: Any  # I,B, or None


class _Pair(NamedTuple):
    """What is complementary to each other: columns with their reduced costs, slacks with prices."""

    x: Array
    rows: _Rows


@jax.jit
def _together(q: Program, iterations: Array) -> tuple[Point, Array]:
    """`interior_point` of a batch, which is the last axis of every array."""
    types, own_rows, columns, batch = q.own.shape
    slots = q.whole.shape[1]
    count_shared = 2 * slots
    elastic = q.short is not None
    kept = partial(_kept, iterations > 0)
    first = (np.arange(own_rows) == 0)[None, :, None]

    def loads(x: Array) -> tuple[Array, Array, Array]:
        """Left-hand sides of own rows, slots and whole."""
        share = x[:, :slots]
        return _dot(q.own, x[:, None], 2), _dot(q.slot, share[None], 1), _over_all(jnp.add, q.whole * share)

    def worth(own: Array, slot: Array, whole: Array) -> Array:
        """What the rows' prices make of a unit of each column (I,n)."""
        share = _dot(q.slot, slot[:, None], 0) + q.whole * whole[None, None]
        rest = jnp.zeros((types, columns - slots, batch), share.dtype)
        return _dot(q.own, own[:, :, None], 1) + jnp.concatenate([share, rest], 1)

    def stacked(slot: Array, whole: Array) -> Array:
        """The shared rows' values (2D+1,B)."""
        return jnp.concatenate([slot.reshape(count_shared, batch), whole[None]])

    def split(shared: Array) -> tuple[Array, Array]:
        """`stacked`, undone."""
        return shared[:-1].reshape(2, slots, batch), shared[-1]

    def at_first(value: Array, others: Array) -> Array:
        """Own rows with ``value`` (I,B) for the first."""
        return jnp.where(first, value[:, None], others)

    def inner(a: _Pair, b: _Pair) -> Array:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return sum((_over_all(jnp.add, u * v) for u, v in pairs), jnp.zeros(batch, q.cost.dtype))

    x = jnp.full_like(q.cost, 0.3)
    own, slot, whole = loads(x)
    excess = jnp.full_like(q.least, 0.3) if elastic else None
    served = own[:, 0] if excess is None else own[:, 0] + excess

    def away(slack: Array) -> Array:
        return jnp.maximum(slack, 0.3)

    primal = _Pair(
        x,
        _Rows(away(q.limit - own), away(served - q.least), away(1.0 - slot), away(q.left - whole), excess),
    )
    dual = jax.tree.map(lambda a: jnp.full_like(a, 0.1), primal)
    count = sum(a.size // batch for a in jax.tree.leaves(primal))

    def residuals(p: _Pair, d: _Pair) -> tuple[_Rows, Array]:
        """What is missing to equality in the rows (with short: in the price of falling short) and columns."""
        own, slot, whole = loads(p.x)
        served, short = own[:, 0], None
        if q.short is not None:
            served, short = served + p.rows.short, q.short - d.rows.least - d.rows.short
        rows = _Rows(
            own + p.rows.own - q.limit,
            q.least + p.rows.least - served,
            slot + p.rows.slot - 1.0,
            whole + p.rows.whole - q.left,
            short,
        )
        net = at_first(d.rows.own[:, 0] - d.rows.least, d.rows.own)
        return rows, q.cost + worth(net, d.rows.slot, d.rows.whole) - d.x

    def ratios(p: _Pair, d: _Pair) -> tuple[Array, _Rows, Array]:
        """x over its reduced cost; slack over price of each row; that of demand, bounded from both sides."""
        over = jax.tree.map(lambda slack, price: slack / price, p.rows, d.rows)
        if elastic:
            over = over._replace(least=over.least + over.short)
        return p.x / d.x, over, over.own[:, 0] * over.least / (over.own[:, 0] + over.least)

    def own_matrix(ease: Array, over: _Rows, both: Array) -> tuple[Array, Array]:
        """Own rows by columns, and by own rows: the matrix of each type's own prices."""
        eased = q.own * ease[:, None]
        diagonal = at_first(both, over.own)[:, :, None] * np.eye(own_rows)[None, :, :, None]
        return eased, _dot(eased[:, :, None], q.own[:, None], 3) + diagonal

    def shared_matrix(ease: Array, over: _Rows, eased: Array) -> tuple[Array, Array]:
        """Own rows by shared rows (I,R,2D+1,B), and shared by shared."""
        ease, eased = ease[:, :slots], eased[:, :, :slots]
        by_slot = [eased * q.slot[k][:, None] for k in range(2)]
        cross = jnp.concatenate([*by_slot, _dot(eased, q.whole[:, None], 2)[:, :, None]], 2)
        mine = q.slot * ease[None]
        corner = _over_all(jnp.add, q.whole * q.whole * ease)
        edge = jnp.concatenate([_dot(mine, q.whole[None], 1).reshape(count_shared, batch), corner[None]])
        crossed = [[_dot(mine[a], q.slot[b], 0) for b in range(2)] for a in range(2)]  # of one slot: D,B
        eye = np.eye(slots)[:, :, None]
        among = jnp.concatenate(
            [jnp.concatenate([crossed[a][b][:, None] * eye for b in range(2)], 1) for a in range(2)]
        )
        whole = jnp.concatenate(
            [jnp.concatenate([among, edge[:-1, None]], 1), edge[None]],
        )
        return cross, whole + stacked(over.slot, over.whole)[:, None] * np.eye(count_shared + 1)[:, :, None]

    def flat(a: Array) -> Array:
        return a.reshape(types * own_rows, *a.shape[2:])

    def iterate(_: Array, state: tuple[_Pair, _Pair]) -> tuple[_Pair, _Pair]:
        p, d = state
        missing, reduced = kept(residuals, p, d)
        gap = kept(lambda p, d: inner(p, d) / count, p, d)
        ease, over, both = kept(ratios, p, d)
        eased, matrix = kept(own_matrix, ease, over, both)
        cross, matrix_shared = kept(shared_matrix, ease, over, eased)
        own_inverse = _inverse(kept, matrix, _diagonal(matrix))
        carried = kept(lambda a, b: _dot(a[:, :, :, None], b[:, None], 2), own_inverse, cross)
        left = kept(
            lambda whole, cross, carried: whole - _dot(flat(cross)[:, :, None], flat(carried)[:, None], 0),
            matrix_shared,
            cross,
            carried,
        )
        shared_inverse = _inverse(kept, left, _diagonal(matrix_shared))

        def solve(column: Array, on_own: Array, on_shared: Array) -> tuple[Array, Array, Array]:
            """Columns, own and shared prices (2D+1,B) at the right-hand sides of Newton's equations."""

            def right_sides(column: Array, on_own: Array, on_shared: Array) -> tuple[Array, Array]:
                own, slot, whole = loads(ease * column)
                own = on_own + own
                return own, on_shared + stacked(slot, whole) - _dot(flat(carried), flat(own)[:, None], 0)

            def own_prices(on_own: Array, shared: Array) -> Array:
                return _dot(own_inverse, on_own[:, None], 2) - _dot(carried, shared[None, None], 2)

            on_own, on_shared = kept(right_sides, column, on_own, on_shared)
            y_shared = kept(lambda inverse, b: _dot(inverse, b[None], 1), shared_inverse, on_shared)
            y_own = kept(own_prices, on_own, y_shared)
            x = kept(
                lambda column, y, shared: ease * (column - worth(y, *split(shared))), column, y_own, y_shared
            )
            return x, y_own, y_shared

        def direction(toward: _Pair) -> tuple[_Pair, _Pair]:
            """The step that takes each product to its present value less ``toward``, refined once."""

            def aims(
                toward: _Pair, missing: _Rows, reduced: Array
            ) -> tuple[_Rows, tuple[Array, Array, Array]]:
                aim = jax.tree.map(lambda m, k, price: m - k / price, missing, toward.rows, d.rows)
                if elastic:
                    fallen = (toward.rows.short + p.rows.short * missing.short) / d.rows.short
                    aim = aim._replace(least=aim.least + fallen)
                demand = (aim.own[:, 0] / over.own[:, 0] - aim.least / over.least) * both
                sides = -reduced - toward.x / p.x, at_first(demand, aim.own), stacked(aim.slot, aim.whole)
                return aim, sides

            def left_over(x: Array, y_own: Array, y_shared: Array) -> tuple[Array, Array, Array]:
                own, slot, whole = loads(x)
                return (
                    column - x / ease - worth(y_own, *split(y_shared)),
                    on_own - at_first(both, over.own) * y_own + own,
                    on_shared - stacked(over.slot, over.whole) * y_shared + stacked(slot, whole),
                )

            aim, (column, on_own, on_shared) = kept(aims, toward, missing, reduced)
            nothing = jax.tree.map(jnp.zeros_like, (column, on_own, on_shared))

            def refine(_: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                return jax.tree.map(jnp.add, found, solve(*kept(left_over, *found)))

            found = jax.lax.fori_loop(0, 2, refine, nothing)

            def everything(x: Array, y_own: Array, y_shared: Array, aim: _Rows) -> tuple[_Pair, _Pair]:
                own, slot, whole = loads(x)
                # Of demand's two prices only the difference is known: the looser side's follows from its slack.
                below = (aim.least - own[:, 0]) / over.least
                above = (own[:, 0] + aim.own[:, 0]) / over.own[:, 0]
                loose = over.least > over.own[:, 0]
                price = _Rows(
                    at_first(jnp.where(loose, y_own[:, 0] + below, above), y_own),
                    jnp.where(loose, below, above - y_own[:, 0]),
                    *split(y_shared),
                    None,
                )
                least, short = own[:, 0] - missing.least, None
                if elastic:
                    price = price._replace(short=missing.short - price.least)
                    short = -(toward.rows.short + p.rows.short * price.short) / d.rows.short
                    least = least + short
                slack = _Rows(-missing.own - own, least, -missing.slot - slot, -missing.whole - whole, short)
                return _Pair(x, slack), _Pair(-(toward.x + d.x * x) / p.x, price)

            return kept(everything, *found, aim)

        def lengths(p: _Pair, d: _Pair, p_move: _Pair, d_move: _Pair) -> tuple[Array, Array]:
            """How far both may go before something falls to nothing, at most 1."""

            def longest(values: _Pair, moves: _Pair) -> Array:
                length = jnp.ones(batch, q.cost.dtype)
                for value, move in zip(jax.tree.leaves(values), jax.tree.leaves(moves), strict=True):
                    falls = move < 0
                    ratio = jnp.where(falls, -value / jnp.where(falls, move, -1.0), 1.0)
                    length = jnp.minimum(length, _over_all(jnp.minimum, ratio))
                return length

            return longest(p, p_move), longest(d, d_move)

        def along(values: _Pair, moves: _Pair, length: Array) -> _Pair:
            return jax.tree.map(lambda value, move: value + _like(length, value) * move, values, moves)

        def centre(p: _Pair, d: _Pair, moves: tuple[_Pair, _Pair], steps: tuple[Array, Array]) -> Array:
            ahead = inner(along(p, moves[0], steps[0]), along(d, moves[1], steps[1]))
            return gap * (ahead / (count * gap)) ** 3

        products = jax.tree.map(jnp.multiply, p, d)

        def attempt(_: Array, state: tuple[_Pair, Any]) -> tuple[_Pair, Any]:
            """First straight at the optimum, then corrected by what that would have done; the last move counts."""
            moves = direction(state[0])
            steps = kept(lengths, p, d, *moves)
            goal = kept(centre, p, d, moves, steps)
            corrected = jax.tree.map(lambda k, u, v: k + u * v - _like(goal, k), products, *moves)
            return corrected, (moves, steps)

        none = ((p, d), (jnp.zeros_like(gap), jnp.zeros_like(gap)))
        _, (moves, steps) = jax.lax.fori_loop(0, 2, attempt, (products, none))

        def going(gap: Array, moves: tuple[_Pair, _Pair]) -> Array:
            size = sum(_over_all(jnp.add, jnp.abs(move)) for move in jax.tree.leaves(moves))
            return (gap > 1e-13) & jnp.isfinite(size)

        def advance(
            p: _Pair, d: _Pair, moves: tuple[_Pair, _Pair], steps: tuple[Array, Array], go: Array
        ) -> tuple[_Pair, _Pair]:
            new = along(p, moves[0], 0.995 * steps[0]), along(d, moves[1], 0.995 * steps[1])
            return jax.tree.map(lambda after, before: jnp.where(_like(go, after), after, before), new, (p, d))

        return advance(p, d, moves, steps, kept(going, gap, moves))

    p, d = jax.lax.fori_loop(0, iterations, iterate, (primal, dual))
    missing, _ = residuals(p, d)
    off, worst = inner(p, d), jnp.zeros(batch, q.cost.dtype)
    for residual, price in zip(missing[:4], d.rows[:4], strict=True):
        size = jnp.abs(residual)
        off, worst = off + _over_all(jnp.add, size * price), jnp.maximum(worst, _over_all(jnp.maximum, size))
    return Point(p.x, d.rows.own, d.rows.least, d.rows.slot, d.rows.whole), off + worst
