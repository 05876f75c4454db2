"""Draws of deviations, reduced on the device to whole numbers: counts, a histogram, fixed-point sums.

Deviations are never stored: each block of draws is added to a tally and forgotten. A draw is keyed by seed, scenario,
names and its number, and everything that is added up is exact, so the split into blocks changes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float64, Int64, UInt32

from rodiu_jax.decisions.stress.linear_forms import Exposure, Forms
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import RUNNER
from rodiu_jax.runtime.devices import by_device
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
"""Draws of a pair in one call of the compiled program; Ctrl-C is heard between calls."""


class Tally(NamedTuple):
    """What Q (plan, scenario) pairs have met so far; whole numbers, so that sums are exact in any order.

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
    bits = words >> np.uint32(32 - _UNIT_BITS)
    if table is None:
        return bits.astype(jnp.float64) * 2.0**-_UNIT_BITS
    inside = _UNIT_BITS - _TABLE_BITS
    cell = (bits >> np.uint32(inside)).astype(jnp.int32)
    part = (bits & np.uint32(2**inside - 1)).astype(jnp.float64) * 2.0**-inside
    low = table[cell]
    value = low + (table[cell + 1] - low) * part
    return jnp.floor(value * 2.0**_UNIT_BITS) * 2.0**-_UNIT_BITS


def _ordered_sum(values: Float64[Array, "Q R C"]) -> Float64[Array, "Q C"]:
    """The sum over the short axis 1, always in the same order."""
    parts = [values[:, r] for r in range(values.shape[1])]
    return sum(parts[1:], parts[0])


def _type_deviations(
    table: Float64[Array, " T"] | None,
    draw: UInt32[Array, " C"],
    total: Float64[Array, "Q C"],
    form: tuple[Array, ...],
) -> tuple[Float64[Array, "Q C"], tuple[Float64[Array, "Q C"], Float64[Array, "Q C"]]]:
    """Deviations (Q,C) of one type's delay and error in the draws (C,), and the running total of the cost."""
    key0, key1, delay, error, money = form  # Q,R
    word_delay, word_error = fold(key0[..., None], key1[..., None], draw[None, None])
    xi, psi = _unit(word_delay, table), _unit(word_error, table)
    total = total + _ordered_sum(money[..., None] * xi)
    return total, (_ordered_sum(delay[..., None] * xi), _ordered_sum(error[..., None] * psi))


def _load_deviations(
    table: Float64[Array, " T"] | None, draw: UInt32[Array, " C"], forms: Forms
) -> Float64[Array, "Q E C"]:
    """Return what shortfalls add to the load of each slot in the draws (C,), type by type in their order."""

    def add(total: Array, form: tuple[Array, ...]) -> tuple[Array, None]:
        key0, key1, load = form  # Q,E
        word, _ = fold(key0[..., None], key1[..., None], draw[None, None])
        return total + load[..., None] * _unit(word, table), None

    assert forms.load is not None
    assert forms.load_key0 is not None
    assert forms.load_key1 is not None
    by_type = tuple(a.swapaxes(0, 1) for a in (forms.load_key0, forms.load_key1, forms.load))
    pairs, _, slots = forms.load.shape
    return lax.scan(add, jnp.zeros((pairs, slots, draw.shape[0])), by_type)[0]


@partial(jax.jit, static_argnames=("size",))
def _tally_draws(
    tally: Tally,
    forms: Forms,
    *,
    table: Float64[Array, " T"] | None,
    scales: Float64[Array, " S"],
    first: Int64[Array, ""],
    stop: Int64[Array, ""],
    size: int,
) -> Tally:
    """Add draws ``first`` to ``stop - 1`` (int64) of Q pairs to a tally, ``size`` at a time."""
    by_type = tuple(a.swapaxes(0, 1) for a in forms[:5])
    zero = jnp.zeros((forms.room.shape[0], size))

    def block(number: Array, tally: Tally) -> Tally:
        at = first + number * size + jnp.arange(size)
        counted = at < stop
        draw = at.astype(jnp.uint32)
        # A scan over types, because XLA on CPU would fuse the draws into each of their uses and draw them again.
        total, (delay, error) = lax.scan(partial(_type_deviations, table, draw), zero, by_type)
        deviation = jnp.concatenate([delay, error]).swapaxes(0, 1)  # Q,2I,C
        if forms.load is not None:
            deviation = jnp.concatenate([deviation, _load_deviations(table, draw, forms)], axis=1)
        return _add_draws(tally, deviation, total, forms.room, scales, counted)

    blocks = (stop - first + size - 1) // size
    return lax.fori_loop(0, blocks, block, tally)


def _add_draws(
    tally: Tally,
    deviation: Float64[Array, "Q D C"],
    t: Float64[Array, "Q C"],
    room: Float64[Array, "Q D"],
    scales: Float64[Array, " S"],
    counted: Bool[Array, " C"],
) -> Tally:
    """Add the draws that are counted: deviations of the promises, t of the cost."""
    overload = _add_overload(tally, deviation, room, scales, counted)
    room = room[..., None]
    broken = jnp.stack([scales[s] * deviation > room for s in range(scales.shape[0])], axis=1)
    broken = broken & counted[None, None, None]  # Q,S,2I,C
    counted = counted[None]
    level = jnp.where(
        room < 0, -1.0, jnp.where(deviation > 0, room / jnp.where(deviation > 0, deviation, 1.0), jnp.inf)
    )
    earliest = level.min(1)  # Q,C
    breaks = counted & (earliest < jnp.inf)
    order = jnp.arange(level.shape[1])[None, :, None]
    first = (order == jnp.argmin(level, axis=1)[:, None]) & breaks[:, None]
    bounded = jnp.clip(t, 0.0, 1.0)
    pair = jnp.broadcast_to(jnp.arange(t.shape[0])[:, None], t.shape)
    bins = jnp.minimum((bounded * BINS).astype(jnp.int32), BINS - 1)
    square = jnp.where(counted, (bounded * 2.0**_SQUARE_BITS).astype(jnp.int64), 0) ** 2
    fixed = jnp.where(counted, (bounded * 2.0**_FIXED_BITS).astype(jnp.int64), 0)
    hits = jnp.broadcast_to(counted, t.shape).astype(jnp.int64)
    return Tally(
        tally.violations + broken.sum(-1),
        tally.any_violation + broken.any(2).sum(-1),
        tally.first + first.sum(-1),
        tally.histogram.at[pair, bins].add(hits),
        tally.total + fixed.sum(-1),
        tally.square_high + (square >> _SQUARE_BITS).sum(-1),
        tally.square_low + (square & (2**_SQUARE_BITS - 1)).sum(-1),
        jnp.minimum(tally.least, jnp.where(counted, bounded, jnp.inf).min(-1)),
        jnp.maximum(tally.most, jnp.where(counted, bounded, -jnp.inf).max(-1)),
        jnp.minimum(tally.breaks_at, jnp.where(counted, jnp.maximum(earliest, 0.0), jnp.inf).min(-1)),
        *overload,
    )


def _add_overload(
    tally: Tally,
    deviation: Float64[Array, "Q D C"],
    room: Float64[Array, "Q D"],
    scales: Float64[Array, " S"],
    counted: Bool[Array, " C"],
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the last three entries of the tally with the draws that are counted."""
    if tally.any_overload is None or tally.overload is None or tally.overload_most is None:
        return None, None, None
    slots = tally.overload.shape[-1]
    load, free = deviation[:, -slots:], room[:, -slots:, None]
    excess = jnp.stack([scales[s] * load - free for s in range(scales.shape[0])], axis=1)  # Q,S,E,C
    excess = jnp.where(counted, jnp.clip(excess, 0.0, _LARGEST_EXCESS), 0.0)
    fixed = (excess * 2.0**_SQUARE_BITS).astype(jnp.int64)
    return (
        tally.any_overload + (excess > 0).any(2).sum(-1),
        tally.overload + fixed.sum(-1),
        jnp.maximum(tally.overload_most, excess.max(-1)),
    )


def _empty_tally(pairs: int, scales: int, promises: int, slots: int = 0) -> Tally:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    return Tally(
        zeros(pairs, scales, promises),
        zeros(pairs, scales),
        zeros(pairs, promises),
        zeros(pairs, BINS),
        zeros(pairs),
        zeros(pairs),
        zeros(pairs),
        np.full(pairs, np.inf),
        np.full(pairs, -np.inf),
        np.full(pairs, np.inf),
        *(
            (zeros(pairs, scales), zeros(pairs, scales, slots), np.zeros((pairs, scales, slots)))
            if slots
            else ()
        ),
    )


def _slots_with_rates(forms: Forms) -> int:
    """Return the number of slots whose loads are drawn; 0 where scenarios have no rates."""
    return 0 if forms.load is None else forms.load.shape[2]


def pairs_at_once() -> int:
    """Pairs of one call of `draw_tally` that keep all devices and cores busy."""
    return block_size("stress").rows * RUNNER.lanes


def _draws_per_step(pairs: int) -> int:
    """Draws of each of ``pairs`` pairs that are in memory at a time; changes time and memory only."""
    return max(by_device(cpu=2**15, accelerator=2**22) // pairs, 1)


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
    pairs, promises = forms.room.shape
    rows = min(block_size("stress").rows, 1 << max(pairs - 1, 0).bit_length())
    tally = _empty_tally(pairs, len(scales), promises, _slots_with_rates(forms))
    with jax.enable_x64(True):
        shared = {"table": None if table is None else jax.device_put(table), "scales": scales}
        for first in range(0, draws, _DRAWS_PER_CALL):
            part = {"first": np.int64(first), "stop": np.int64(min(first + _DRAWS_PER_CALL, draws))}
            size = _draws_per_step(rows)
            state = tally, forms

            def take(at: Int64[np.ndarray, " Q"], state: tuple[Tally, Forms] = state) -> tuple[Tally, Forms]:
                return jax.tree.map(lambda a: a[at], state)

            tally = RUNNER.run(_tally_draws, take, pairs, BlockSize(rows, rows), size=size, **part, **shared)
    return tally


def vertex_tally(exposure: Exposure, scales: Float64[np.ndarray, " S"]) -> Tally:
    """Tally one draw of every pair: the adversary's best vertex."""
    forms = exposure.forms
    pairs, promises = forms.room.shape
    swing = np.where(exposure.swing > 0, exposure.swing, 1.0)
    with jax.enable_x64(True):
        tally = _add_draws(
            jax.tree.map(jnp.asarray, _empty_tally(pairs, len(scales), promises, _slots_with_rates(forms))),
            jnp.asarray(exposure.vertex)[..., None],
            jnp.asarray(exposure.vertex_cost / swing)[:, None],
            jnp.asarray(forms.room),
            jnp.asarray(scales),
            jnp.ones(1, bool),
        )
        return jax.tree.map(np.asarray, tally)


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
