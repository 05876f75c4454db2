"""Draws of deviations, reduced on the device to whole numbers: counts, a histogram, fixed-point sums.

Deviations are never stored: each block of draws is added to a tally and forgotten. A draw is keyed by seed, scenario,
names and its number, and everything that is added up is exact, so the split into blocks changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float64, Int32, Int64, Shaped, UInt32, UInt64

from rodiu_jax.decisions.stress.linear_forms import Exposure, Forms
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.kept_programs import kept_program
from rodiu_jax.runtime.threefry import fold

BINS = 4096
"""Bins of the cost histogram, over the whole range that the cost can take."""

_UNIT_BITS = 27
"""Bits of a xi; see `rodiu_jax.decisions.stress.linear_forms.rounded`."""
_TABLE_BITS = 16
"""Bits of a uniform that choose a cell of the inverse distribution function; it is linear inside a cell, so a draw is
the true quantile of a probability at most 2^-16 away, rounded to 2^-27."""
_FIXED_BITS = 31
_SQUARE_BITS = 20
_LARGEST_EXCESS = 2.0**10
"""Pairs with more than this many times the load they may have count with this: 2^32 draws of it stay below 2^63."""

_DRAWS_PER_CALL = 2**22
"""Draws of a pair whose tallies are in memory at a time, as so many blocks; Ctrl-C is heard between blocks."""

PAIRS_AT_ONCE = 32
"""Pairs of one call of `draw_tally`: few enough for the memory of the tallies of their blocks."""

_PARTS_PER_LANE = 4
"""Blocks for each core at least, where there are draws enough: the cores then end at about the same time."""


class Tally(NamedTuple):
    """What Q (plan, scenario) pairs have met so far; whole numbers, so that sums are exact in any order.

    Inside a program, what one pair has met, without the axis Q.

    S scales of the deviations, D promises (delays, then errors of the I types, then loads of E slots where there are
    rates), B bins; t in [0, 1] is the realised share of the cost's swing.
    """

    violations: Int64[Any, "Q S D"]
    any_violation: Int64[Any, "Q S"]
    first: Int64[Any, "Q D"]  # draws in which this promise breaks first as the deviations grow
    histogram: Int64[Any, "Q B"]
    total: Int64[Any, " Q"]  # sum of floor(t 2^31)
    square_high: Int64[Any, " Q"]  # sum of the high and low halves of floor(t 2^20)^2
    square_low: Int64[Any, " Q"]
    least: Float64[Any, " Q"]  # extremes of t
    most: Float64[Any, " Q"]
    breaks_at: Float64[Any, " Q"]  # the least scale at which any promise breaks
    # Draws in which some pair has more load than it may; these three are None without rates.
    any_overload: Int64[Any, "Q S"] | None = None
    # Sum of floor(excess 2^20), as a share of what the load may be.
    overload: Int64[Any, "Q S E"] | None = None
    overload_most: Float64[Any, "Q S E"] | None = None  # the largest excess


def quantile_table(beta: tuple[float, float]) -> Float64[np.ndarray, " T"]:
    """Tabulate the inverse distribution function of Beta(a, b) at 2^16 + 1 multiples of 2^-16, in units of 2^-27."""
    from scipy.special import betaincinv

    at = np.arange(2**_TABLE_BITS + 1) / 2**_TABLE_BITS
    return np.round(betaincinv(*beta, at) * 2.0**_UNIT_BITS) * 2.0**-_UNIT_BITS


def _unit(words: UInt32[Array, "*n"], table: Float64[Array, " T"] | None) -> Float64[Array, "*n"]:
    """32 random bits to xi in [0, 1], a multiple of 2^-27; every operation is exact."""
    bits = (words >> np.uint32(32 - _UNIT_BITS)).astype(jnp.int32)  # processors convert signed numbers faster
    if table is None:
        return bits.astype(jnp.float64) * 2.0**-_UNIT_BITS
    inside = _UNIT_BITS - _TABLE_BITS
    cell = bits >> inside
    part = (bits & (2**inside - 1)).astype(jnp.float64) * 2.0**-inside
    low, high = (table.at[c].get(mode="promise_in_bounds") for c in (cell, cell + 1))
    value = low + (high - low) * part
    return jnp.floor(value * 2.0**_UNIT_BITS) * 2.0**-_UNIT_BITS


class _Terms(NamedTuple):
    """What is drawn for one pair: L terms, each a deviation of a route or of a load, of which the first are drawn.

    Arrays of several pairs have a leading axis.
    """

    count: Any  # int32: terms that are drawn
    key0: Any  # uint32 (L,): threefry key, as in `Forms`
    key1: Any  # uint32 (L,)
    place: Any  # int32 (L,): the type whose delay and error it moves, or the slot whose load
    coefficients: Any  # float64 (L,3): delay, error, money of a route; (L,1): load


def _list_terms(
    key0: UInt32[np.ndarray, "M I R"],
    key1: UInt32[np.ndarray, "M I R"],
    coefficients: Float64[np.ndarray, "M I R K"],
    place: Int64[np.ndarray, "I R"],
) -> _Terms:
    """List the terms of every pair, type by type; those that move nothing come last and are not drawn."""
    pairs, most = len(key0), place.size
    drawn = (coefficients != 0).any(-1).reshape(pairs, most)
    order = np.argsort(~drawn, axis=1, kind="stable")  # (M,L)
    key0, key1 = (np.take_along_axis(key.reshape(pairs, most), order, 1) for key in (key0, key1))
    sorted_ = np.take_along_axis(coefficients.reshape(pairs, most, -1), order[..., None], 1)
    return _Terms(drawn.sum(1, dtype=np.int32), key0, key1, place.ravel()[order].astype(np.int32), sorted_)


def _list_routes(forms: Forms) -> _Terms:
    types, routes = forms.delay.shape[1:]
    place = np.broadcast_to(np.arange(types)[:, None], (types, routes))
    return _list_terms(
        forms.key0, forms.key1, np.stack([forms.delay, forms.error, forms.money], axis=-1), place
    )


def _list_loads(forms: Forms) -> _Terms | None:
    if forms.load is None or forms.load_key0 is None or forms.load_key1 is None:
        return None
    place = np.broadcast_to(np.arange(forms.load.shape[2]), forms.load.shape[1:])
    return _list_terms(forms.load_key0, forms.load_key1, forms.load[..., None], place)


Words = tuple[UInt32[Array, " C"], UInt32[Array, " C"]]
State = tuple[Array, ...]


def _add_terms(
    terms: _Terms,
    draw: UInt32[Array, " C"],
    add: Callable[[Array, Words, State], State],
    start: State,
) -> State:
    """Draw the terms in their order: ``add(position of a term, its words, state)`` returns the next state."""

    def make_words(t: Array | int) -> Words:
        return fold(terms.key0[t], terms.key1[t], draw)

    def step(t: Array, carry: tuple[Words, State]) -> tuple[Words, State]:
        # A loop hands on words that are made once. XLA on CPU would fuse those of a term into each of its uses, and
        # make them again for each.
        words, state = carry
        return make_words(jnp.minimum(t + 1, terms.count - 1)), add(t, words, state)

    return lax.fori_loop(0, terms.count, step, (make_words(0), start))[1]


def _add_to_row(
    rows: Float64[Array, "N C"], row: Array, added: Float64[Array, " C"]
) -> Float64[Array, "N C"]:
    return lax.dynamic_update_index_in_dim(rows, rows[row] + added, row, 0)


def _draw_deviations(
    routes: _Terms,
    loads: _Terms | None,
    table: Float64[Array, " T"] | None,
    draw: UInt32[Array, " C"],
    types: int,
    promises: int,
) -> tuple[Float64[Array, "D C"], Float64[Array, " C"]]:
    """Draw what moves each promise of one pair, and the share of its cost's swing, in the draws (C,)."""

    def add_route(t: Array, words: Words, state: State) -> State:
        moved, share = state
        xi, psi = _unit(words[0], table), _unit(words[1], table)
        own, row = routes.coefficients[t], routes.place[t]
        moved = _add_to_row(moved, row, own[0] * xi)
        return _add_to_row(moved, types + row, own[1] * psi), share + own[2] * xi

    none = jnp.zeros((promises, len(draw))), jnp.zeros(len(draw))
    moved, share = _add_terms(routes, draw, add_route, none)
    if loads is not None:

        def add_load(t: Array, words: Words, state: State) -> State:
            added = loads.coefficients[t, 0] * _unit(words[0], table)
            return (_add_to_row(state[0], 2 * types + loads.place[t], added),)

        (moved,) = _add_terms(loads, draw, add_load, (moved,))
    return moved, share


@kept_program("types", "size")
def _tally_draws(
    routes: _Terms,
    loads: _Terms | None,
    room: Float64[Array, "1 D"],
    first: Int64[Array, " 1"],
    stop: Int64[Array, " 1"],
    *,
    table: Float64[Array, " T"] | None,
    scales: Float64[Array, " S"],
    types: int,
    size: int,
) -> Tally:
    """Tally draws ``first`` to ``stop - 1`` of one pair (leading axis 1), ``size`` at a time."""
    routes, loads, room, first, stop = jax.tree.map(lambda a: a[0], (routes, loads, room, first, stop))

    def block(number: Array, tally: Tally) -> Tally:
        at = first + number * size + jnp.arange(size)
        draw = at.astype(jnp.uint32)
        deviation, share = _draw_deviations(routes, loads, table, draw, types, len(room))
        return _add_draws(tally, deviation, share, room, scales, at < stop)

    slots = 0 if loads is None else len(room) - 2 * types
    blocks = (stop - first + size - 1) // size
    tally = lax.fori_loop(0, blocks, block, _empty_tally(len(scales), len(room), slots))
    return jax.tree.map(lambda a: a[None], tally)


@kept_program("slots")
def _tally_one(
    deviation: Float64[Array, "1 D"],
    share: Float64[Array, " 1"],
    room: Float64[Array, "1 D"],
    *,
    scales: Float64[Array, " S"],
    slots: int,
) -> Tally:
    """Tally one draw of one pair (leading axis 1), the deviations of which are given; the last are of slots' loads."""
    tally = _empty_tally(len(scales), room.shape[1], slots)
    tally = _add_draws(tally, deviation.T, share, room[0], scales, jnp.ones(1, bool))
    return jax.tree.map(lambda a: a[None], tally)


def _add_draws(
    tally: Tally,
    deviation: Float64[Array, "D C"],
    share: Float64[Array, " C"],
    room: Float64[Array, " D"],
    scales: Float64[Array, " S"],
    counted: Bool[Array, " C"],
) -> Tally:
    """Add the draws of one pair that are counted: deviations of the promises, the share of the cost's swing."""
    broken = _find_broken(deviation, room, scales, counted)
    first = _find_first(deviation, room, counted)
    largest = jnp.where(counted[None] & (deviation > 0), deviation, 0.0).max(-1)  # (D,)
    breaks_at = _find_level(largest, room).min()
    share = jnp.clip(share, 0.0, 1.0)
    bins = jnp.minimum((share * BINS).astype(jnp.int32), BINS - 1)
    square = jnp.where(counted, (share * 2.0**_SQUARE_BITS).astype(jnp.int64), 0) ** 2
    fixed = jnp.where(counted, (share * 2.0**_FIXED_BITS).astype(jnp.int64), 0)
    return Tally(
        tally.violations + _count(broken),
        tally.any_violation + _count(_fold_rows(jnp.bitwise_or, broken.swapaxes(0, 1))),
        tally.first.at[first].add(1, mode="drop"),
        tally.histogram.at[bins].add(counted.astype(jnp.int64)),
        tally.total + fixed.sum(),
        tally.square_high + (square >> _SQUARE_BITS).sum(),
        tally.square_low + (square & (2**_SQUARE_BITS - 1)).sum(),
        jnp.minimum(tally.least, jnp.where(counted, share, jnp.inf).min()),
        jnp.maximum(tally.most, jnp.where(counted, share, -jnp.inf).max()),
        jnp.minimum(tally.breaks_at, jnp.maximum(breaks_at, 0.0)),
        *_add_overload(tally, deviation, room, scales, counted),
    )


def _find_broken(
    deviation: Float64[Array, "D C"],
    room: Float64[Array, " D"],
    scales: Float64[Array, " S"],
    counted: Bool[Array, " C"],
) -> UInt64[Array, "S D W"]:
    """Return which promises break in the draws that are counted: a byte, 0 or 1, for each draw, eight to a word."""

    def find() -> Bool[Array, "S D C"]:
        return (scales[:, None, None] * deviation[None] > room[None, :, None]) & counted[None, None]

    # A branch that is always taken hands on what is made once; `_add_terms` says why.
    broken = lax.cond(counted[0], find, lambda: jnp.zeros((len(scales), *deviation.shape), bool))
    filled = jnp.pad(broken.astype(jnp.uint8), [(0, 0), (0, 0), (0, -len(counted) % 8)])
    return lax.bitcast_convert_type(filled.reshape(*broken.shape[:2], -1, 8), jnp.uint64)


def _count(words: UInt64[Array, "*n W"]) -> Int64[Array, "*n"]:
    """Count the ones of each row."""
    return lax.population_count(words).astype(jnp.int64).sum(-1)


def _find_level(deviation: Float64[Array, "*n"], room: Float64[Array, "*n"]) -> Float64[Array, "*n"]:
    """Return the scale of the deviations at which a promise breaks; -1 where it is broken as measured."""
    level = jnp.where(deviation > 0, room / jnp.where(deviation > 0, deviation, 1.0), jnp.inf)
    return jnp.where(room < 0, -1.0, level)


def _find_first(
    deviation: Float64[Array, "D C"], room: Float64[Array, " D"], counted: Bool[Array, " C"]
) -> Int32[Array, " C"]:
    """Return which promise breaks first as the deviations grow, the first of several; D where none does."""
    level = _find_level(deviation, jnp.broadcast_to(room[:, None], deviation.shape))
    first = jnp.argmin(level, axis=0).astype(jnp.int32)
    return jnp.where(counted & (level.min(0) < jnp.inf), first, len(room))


def _fold_rows(combine: Callable[[Array, Array], Array], rows: Shaped[Array, "N C"]) -> Shaped[Array, " C"]:
    """Combine the few rows of an array into one, in their order; XLA on CPU reduces a leading axis far slower."""
    return reduce(combine, rows)


def _add_overload(
    tally: Tally,
    deviation: Float64[Array, "D C"],
    room: Float64[Array, " D"],
    scales: Float64[Array, " S"],
    counted: Bool[Array, " C"],
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the last three entries of the tally with the draws that are counted."""
    if tally.any_overload is None or tally.overload is None or tally.overload_most is None:
        return None, None, None
    slots = tally.overload.shape[-1]
    load, free = deviation[-slots:], room[-slots:, None]
    excess = jnp.stack([scales[s] * load - free for s in range(len(scales))])  # S,E,C
    excess = jnp.where(counted[None, None], jnp.clip(excess, 0.0, _LARGEST_EXCESS), 0.0)
    fixed = (excess * 2.0**_SQUARE_BITS).astype(jnp.int64)
    return (
        tally.any_overload + (excess > 0).any(1).sum(-1),
        tally.overload + fixed.sum(-1),
        jnp.maximum(tally.overload_most, excess.max(-1)),
    )


def _empty_tally(scales: int, promises: int, slots: int) -> Tally:
    """Return the tally of one pair that has met nothing."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros(shape, jnp.int64)

    none: tuple[Any, ...] = (None, None, None)
    return Tally(
        zeros(scales, promises),
        zeros(scales),
        zeros(promises),
        zeros(BINS),
        zeros(),
        zeros(),
        zeros(),
        jnp.full((), jnp.inf),
        jnp.full((), -jnp.inf),
        jnp.full((), jnp.inf),
        *((zeros(scales), zeros(scales, slots), jnp.zeros((scales, slots))) if slots else none),
    )


_SMALLEST = ("least", "breaks_at")
_LARGEST = ("most", "overload_most")


def _merge(tally: Tally, parts: int) -> Tally:
    """Merge the tallies of so many parts of each pair's draws: arrays (parts * Q, ...), part by part, to (Q, ...)."""

    def merge(name: str, values: np.ndarray) -> np.ndarray:
        by_part = values.reshape(parts, -1, *values.shape[1:])
        if name in _SMALLEST:
            return by_part.min(0)
        return by_part.max(0) if name in _LARGEST else by_part.sum(0)

    return Tally(*(None if a is None else merge(name, a) for name, a in tally._asdict().items()))


def _cut_draws(first: int, stop: int, pairs: int, step: int) -> Int64[np.ndarray, " N"]:
    """Return where the parts of each pair's draws begin, and ``stop``; together they keep all cores busy.

    A part has ``step`` draws at least, where there are as many.
    """
    count = stop - first
    parts = max(-(-count // block_size("stress").rows), _PARTS_PER_LANE * RUNNER.lanes // pairs)
    parts = max(min(parts, count // step), 1)
    return np.linspace(first, stop, parts + 1).astype(np.int64)


def _draws_per_step(draws: int, forms: Forms, scales: int) -> int:
    """Return how many draws of a pair are in memory at a time; changes time and memory only."""
    slots = 0 if forms.load is None else forms.load.shape[2]
    promises = forms.room.shape[1]
    # Bytes of a draw: the deviation of each promise, before and after a term is added; the excess of each load, in two
    # forms; whether each promise breaks; words, uniforms and what is made of the share.
    each = 8 * 2 * (promises + scales * slots) + scales * promises + 128
    return block_size("stress step", bytes_per_row=each).fit(draws)


def draw_tally(
    forms: Forms,
    *,
    draws: int,
    scales: Float64[np.ndarray, " S"],
    table: Float64[np.ndarray, " T"] | None,
) -> Tally:
    """Tally ``draws`` draws of every pair (NumPy).

    Args:
      table: of `quantile_table`; uniform without it.
    """
    pairs, types = forms.delay.shape[:2]
    terms = _list_routes(forms), _list_loads(forms), forms.room
    step = _draws_per_step(min(draws, _DRAWS_PER_CALL), forms, len(scales))
    tally: Tally | None = None
    with jax.enable_x64(True):
        shared = {"table": None if table is None else jax.device_put(table), "scales": scales, "types": types}
        for begin in range(0, draws, _DRAWS_PER_CALL):
            cuts = _cut_draws(begin, min(begin + _DRAWS_PER_CALL, draws), pairs, step)
            parts = len(cuts) - 1

            def take(at: Int64[np.ndarray, " Q"], cuts: np.ndarray = cuts) -> tuple[Any, ...]:
                part, pair = np.divmod(at, pairs)
                return *jax.tree.map(lambda a: a[pair], terms), cuts[part], cuts[part + 1]

            found = RUNNER.run(_tally_draws, take, pairs * parts, BlockSize(1, 1), size=step, **shared)
            found = _merge(found, parts)
            if tally is not None:
                found = _merge(jax.tree.map(lambda *a: np.concatenate(a), tally, found), 2)
            tally = found
    assert tally is not None, "at least one draw"
    return tally


def vertex_tally(exposure: Exposure, scales: Float64[np.ndarray, " S"]) -> Tally:
    """Tally one draw of every pair: the adversary's best vertex."""
    forms = exposure.forms
    share = exposure.vertex_cost / np.where(exposure.swing > 0, exposure.swing, 1.0)
    slots = 0 if forms.load is None else forms.load.shape[2]

    def take(at: Int64[np.ndarray, " Q"]) -> tuple[np.ndarray, ...]:
        return exposure.vertex[at], share[at], forms.room[at]

    with jax.enable_x64(True):
        return RUNNER.run(_tally_one, take, len(share), BlockSize(1, 1), scales=scales, slots=slots)


def mean_share(tally: Tally, draws: int) -> Float64[np.ndarray, " Q"]:
    """Return the mean of t, the realised share of the cost's swing, of every pair."""
    return tally.total / draws * 2.0**-_FIXED_BITS


def mean_overload(tally: Tally, hits: Int64[np.ndarray, "Q S E"]) -> Float64[np.ndarray, "Q S E"]:
    """Return the mean excess of load over the draws in which a pair has too much (``hits``); nan where none has."""
    assert tally.overload is not None, "a tally of loads"
    return np.where(hits > 0, tally.overload / np.maximum(hits, 1) * 2.0**-_SQUARE_BITS, np.nan)


def mean_of_squares(tally: Tally, draws: int) -> Float64[np.ndarray, " Q"]:
    """Return the mean of t^2 of every pair."""
    square = tally.square_high * 2.0**_SQUARE_BITS + tally.square_low
    return square / draws * 4.0**-_SQUARE_BITS
