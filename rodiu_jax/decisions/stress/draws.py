"""Plans under deviations that really happen: violation probabilities, cost distribution, what breaks first.

Deviations are drawn on the device and never stored: each block of draws is reduced to whole numbers (counts, a
histogram, fixed-point sums) and forgotten. A draw is keyed by seed, scenario, names and its number, all plans of a
scenario meet the same draws, and everything that is added up is exact, so the split into blocks changes nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rodiu_jax.analysis.intervals import clopper_pearson
from rodiu_jax.decisions.stress.linear_forms import PROMISES, Exposure, Forms, expose
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import Array
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, plan_arrays
from rodiu_jax.runtime.devices import by_device
from rodiu_jax.runtime.progress import progress
from rodiu_jax.runtime.threefry import fold

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (0.05, 0.5, 0.95, 0.99)

BINS = 4096
"""Bins of the cost histogram, over the whole range that the cost can take."""

_UNIT_BITS = 27
"""Bits of a xi; see `rodiu_jax.decisions.stress.linear_forms.rounded`."""
_TABLE_BITS = 16
"""Bits of a uniform that choose a cell of the inverse distribution function; it is linear inside a cell, so a draw is
the true quantile of a probability at most 2^-16 away, rounded to 2^-27."""
_FIXED_BITS = 31
_SQUARE_BITS = 20
PAIRS_PER_BLOCK = 16
"""(plan, scenario) pairs drawn for at a time."""
_DRAWS_PER_CALL = 2**22
_MOST_DRAWS = 2**32


class _Tally(NamedTuple):
    """What Q pairs have met so far; whole numbers, so that sums are exact in any order."""

    violations: Array  # Q,S,2I
    any_violation: Array  # Q,S
    first: Array  # Q,2I  draws in which this promise breaks first as the deviations grow
    histogram: Array  # Q,BINS
    total: Array  # Q  sum of floor(t 2^31)
    square_high: Array  # Q  sum of the high and low halves of floor(t 2^20)^2
    square_low: Array  # Q
    least: Array  # Q  extremes of t
    most: Array  # Q
    breaks_at: Array  # Q  the least scale at which any promise breaks


@dataclass(frozen=True)
class Stress:
    """What `stress` found.

    Attributes:
      results: a row per plan, scenario, distribution and scale: ``plan``, ``kind`` (``given``, ``deterministic``,
        ``diu``), ``instance``, ``deployments``, ``broken_limits`` (other constraints that the plan breaks anyway),
        ``distribution``, ``scale``, ``draws``, ``violations``, ``probability``, ``lower``, ``upper`` (that any promise
        breaks, with its exact interval), ``breaks_at`` (least scale of these deviations at which a promise breaks),
        ``first`` (the promise that does so most often, empty where none can) and ``first_share`` (of the draws),
        costs in $ per period: ``nominal_cost``, ``cost_mean``, ``cost_sd``, ``cost_min``, ``cost_max``,
        ``cost_q05`` ... ``cost_q99``, each quantile within ``resolution``.
      promises: a row per plan, scenario, distribution, scale and promise: ``violations``, ``probability``, ``lower``,
        ``upper``, ``first_share``.
      settings: draws, seed, confidence, reality, beta, scales, and ``no_plan``: kind and instance of the plans to
        compare with of which it is proven that there is none.
    """

    results: pd.DataFrame
    promises: pd.DataFrame
    settings: dict[str, Any]


def quantile_table(beta: tuple[float, float]) -> np.ndarray:
    """The inverse distribution function of Beta(a, b) at the 2^16 + 1 multiples of 2^-16, in multiples of 2^-27."""
    from scipy.special import betaincinv

    at = np.arange(2**_TABLE_BITS + 1) / 2**_TABLE_BITS
    return np.round(betaincinv(*beta, at) * 2.0**_UNIT_BITS) * 2.0**-_UNIT_BITS


def _unit(words: Array, table: Array | None) -> Array:
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


def _ordered_sum(values: Array) -> Array:
    """The sum over the short axis 1, always in the same order."""
    parts = [values[:, r] for r in range(values.shape[1])]
    return sum(parts[1:], parts[0])


def _type_deviations(
    table: Array | None, draw: Array, total: Array, form: tuple[Array, ...]
) -> tuple[Array, tuple[Array, Array]]:
    """Deviations (Q,C) of one type's delay and error in the draws (C,), and the running total of the cost."""
    key0, key1, delay, error, money = form  # Q,R
    word_delay, word_error = fold(key0[..., None], key1[..., None], draw[None, None])
    xi, psi = _unit(word_delay, table), _unit(word_error, table)
    total = total + _ordered_sum(money[..., None] * xi)
    return total, (_ordered_sum(delay[..., None] * xi), _ordered_sum(error[..., None] * psi))


@partial(jax.jit, static_argnames=("size",))
def _tally_draws(
    tally: _Tally, forms: Forms, table: Array | None, scales: Array, first: Array, stop: Array, *, size: int
) -> _Tally:
    """Add draws ``first`` to ``stop - 1`` (int64) of Q pairs to a tally, ``size`` at a time."""
    by_type = tuple(a.swapaxes(0, 1) for a in forms[:5])
    zero = jnp.zeros((forms.room.shape[0], size))

    def block(number: Array, tally: _Tally) -> _Tally:
        at = first + number * size + jnp.arange(size)
        counted = at < stop
        draw = at.astype(jnp.uint32)
        # A scan over types, because XLA on CPU would fuse the draws into each of their uses and draw them again.
        total, (delay, error) = lax.scan(partial(_type_deviations, table, draw), zero, by_type)
        deviation = jnp.concatenate([delay, error]).swapaxes(0, 1)  # Q,2I,C
        return _added(tally, deviation, total, forms.room, scales, counted)

    blocks = (stop - first + size - 1) // size
    return lax.fori_loop(0, blocks, block, tally)


def _added(tally: _Tally, deviation: Array, t: Array, room: Array, scales: Array, counted: Array) -> _Tally:
    """A tally with the draws that count: deviations (Q,2I,C) of the promises, t (Q,C) of the cost."""
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
    return _Tally(
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
    )


def _nothing(pairs: int, scales: int, promises: int) -> _Tally:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    return _Tally(
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
    )


def draw_tally(
    forms: Forms, *, draws: int, scales: np.ndarray, table: np.ndarray | None, size: int | None = None
) -> _Tally:
    """The tally of ``draws`` draws of every pair (NumPy).

    Args:
      table: of `quantile_table`; uniform without it.
      size: draws per step on the device; changes time and memory only.
    """
    pairs, promises = forms.room.shape
    room = by_device(cpu=2**15, accelerator=2**22)  # (pair, draw) combinations per step
    size = size or max(room // max(pairs, 1), 1)
    with jax.enable_x64(True):
        on_device = jax.device_put(forms)
        on_table = None if table is None else jax.device_put(table)
        tally = jax.device_put(_nothing(pairs, len(scales), promises))
        for first in range(0, draws, _DRAWS_PER_CALL):
            stop = min(first + _DRAWS_PER_CALL, draws)
            tally = _tally_draws(
                tally, on_device, on_table, scales, np.int64(first), np.int64(stop), size=size
            )
            jax.block_until_ready(tally)  # Ctrl-C is heard between calls
        return _Tally(*(np.asarray(a) for a in tally))


def vertex_tally(exposure: Exposure, scales: np.ndarray) -> _Tally:
    """The tally of one draw of every pair: the adversary's best vertex."""
    forms = exposure.forms
    pairs, promises = forms.room.shape
    swing = np.where(exposure.swing > 0, exposure.swing, 1.0)
    with jax.enable_x64(True):
        found = _added(
            _Tally(*map(jnp.asarray, _nothing(pairs, len(scales), promises))),
            jnp.asarray(exposure.vertex)[..., None],
            jnp.asarray(exposure.vertex_cost / swing)[:, None],
            jnp.asarray(forms.room),
            jnp.asarray(scales),
            jnp.ones(1, bool),
        )
        return _Tally(*(np.asarray(a) for a in found))


def stress(
    plans: Sequence[Plan],
    instances: Instances,
    *,
    draws: int = 1_000_000,
    scales: Sequence[float] = (0.5, 1.0, 1.5),
    beta: tuple[float, float] = (2.0, 5.0),
    reality: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    peers: bool = True,
    workers: int | None = None,
    quiet: bool = True,
) -> Stress:
    """Draw deviations out of sample and count what each plan's promises and cost do.

    The delay of pair (j,k) for type i is ``d_bar + scale d_hat xi`` per token, its error rate likewise with a xi of
    its own; every xi is independent. At scale 1 the plan's worst case W is the distribution ``worst``.

    Args:
      plans: each meets its own scenario, or all of them where its ``instance`` is None.
      draws: per plan and scenario, for each distribution.
      scales: what all deviations are multiplied by.
      beta: parameters of the beta distribution, both > 0.
      reality: ``ddu`` (pairing shrinks deviations) or ``diu``; by default that of the instances, ``ddu`` where they
        are ``none``.
      confidence: of the exact intervals.
      peers: also solve the scenarios that plans name with Gamma = 0 (kind ``deterministic``) and with deviations that
        do not depend on the decision (``diu``), and stress these plans beside.
      workers: processes for ``peers``.
      quiet: no progress on standard error.

    Raises:
      InputError: no plan; a bad argument; a plan that names what the instances do not have.
      WorkFailed: a peer could not be solved.
    """
    chosen = reality or ("ddu" if instances.uncertainty == "none" else instances.uncertainty)
    _check(plans, draws, scales, beta, chosen, confidence, seed)
    stressed = [("given", plan) for plan in plans]
    none: list[tuple[str, int]] = []
    for p, plan in enumerate(plans):
        if plan.instance is not None:
            instances.check_index(plan.instance, source=f"plan {p}")
    if peers:
        from rodiu_jax.decisions.stress.comparison_plans import peers_of

        compared, none = peers_of(plans, instances, workers=workers, quiet=quiet)
        stressed += compared
    arrays = plan_arrays([plan for _, plan in stressed], instances)
    pairs = [
        (p, b)
        for p, (_, plan) in enumerate(stressed)
        for b in (range(instances.size) if plan.instance is None else [plan.instance])
    ]
    plan_index, instance_index = (np.array(a, np.int64) for a in zip(*pairs, strict=True))
    routes = int((arrays.share > 0).sum(-1).max(initial=1))  # one program for all blocks
    scale = np.array(scales, np.float64)
    tables = {"uniform": None, "beta": quantile_table(beta)}
    rows: list[dict[str, Any]] = []
    per_promise: list[dict[str, Any]] = []
    size = min(PAIRS_PER_BLOCK, 1 << (len(pairs) - 1).bit_length())
    with progress("stress", len(pairs), quiet=quiet) as bar:
        for start in range(0, len(pairs), size):
            block = np.minimum(np.arange(start, start + size), len(pairs) - 1)  # one shape, one program
            exposure = expose(
                instances,
                arrays,
                plan_index[block],
                instance_index[block],
                reality=chosen,
                seed=seed,
                routes=routes,
            )
            tallies = {
                name: draw_tally(exposure.forms, draws=draws, scales=scale, table=table)
                for name, table in tables.items()
            }
            tallies["worst"] = vertex_tally(exposure, scale)
            for m, (p, b) in enumerate(pairs[start : start + size]):
                kind, plan = stressed[p]
                named = {"plan": p, "kind": kind, "instance": b, "deployments": plan.summary()}
                for name, tally in tallies.items():
                    count = 1 if name == "worst" else draws
                    found = _rows(instances, exposure, tally, m, scale, count, confidence, named, name)
                    rows += found[0]
                    per_promise += found[1]
                bar.advance()
    import pandas as pd

    settings = {
        "draws": draws,
        "seed": seed,
        "confidence": confidence,
        "reality": chosen,
        "beta": list(beta),
        "scales": [float(s) for s in scales],
        "no_plan": [{"kind": kind, "instance": b} for kind, b in none],
    }
    return Stress(pd.DataFrame(rows), pd.DataFrame(per_promise), settings)


def mean_share(tally: _Tally, draws: int) -> Array:
    """Mean of t, the realised share of the cost's swing, of every pair."""
    return tally.total / draws * 2.0**-_FIXED_BITS


def _check(
    plans: Sequence[Plan],
    draws: int,
    scales: Sequence[float],
    beta: tuple[float, float],
    reality: str,
    confidence: float,
    seed: int,
) -> None:
    if not plans:
        raise InputError("stress", "plans", "at least one plan")
    for name, value, low, high in (("draws", draws, 1, _MOST_DRAWS), ("seed", seed, 0, 2**63 - 1)):
        try:
            good = low <= operator.index(value) <= high
        except TypeError:
            good = False
        if not good:
            raise InputError("stress", name, f"a whole number from {low} to {high}", value)
    if not scales or not all(np.isfinite(s) and s >= 0 for s in scales):
        raise InputError("stress", "scales", "at least one finite number >= 0", list(scales))
    if len(beta) != 2 or not all(np.isfinite(v) and v > 0 for v in beta):
        raise InputError("stress", "beta", "two finite numbers > 0", beta)
    if reality not in ("diu", "ddu"):
        raise InputError("stress", "reality", "diu or ddu", reality)
    if not 0 < confidence < 1:
        raise InputError("stress", "confidence", "a number above 0 and below 1", confidence)


def _rows(
    instances: Instances,
    exposure: Exposure,
    tally: _Tally,
    m: int,
    scales: np.ndarray,
    draws: int,
    confidence: float,
    named: dict[str, Any],
    distribution: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `Stress.results` and `Stress.promises` of pair ``m`` of a block."""
    promises = [f"{family}[{query}]" for family in PROMISES for query in instances.query_names]
    first = tally.first[m]
    top = int(np.argmax(first))
    nominal, swing = float(exposure.nominal_cost[m]), float(exposure.swing[m])
    mean = mean_share(tally, draws)[m]
    square = (tally.square_high[m] * 2.0**_SQUARE_BITS + tally.square_low[m]) / draws * 4.0**-_SQUARE_BITS
    sd = float(np.sqrt(max(square - mean**2, 0.0)))
    below = np.cumsum(tally.histogram[m])
    upper_edge = [(int(np.searchsorted(below, np.ceil(q * draws))) + 1) / BINS for q in QUANTILES]
    results, per_promise = [], []
    for s, scale in enumerate(scales.tolist()):
        reach = scale * swing

        def interval(hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if distribution == "worst":  # not a draw: it breaks or it does not
                return hits.astype(np.float64), hits.astype(np.float64)
            return clopper_pearson(hits, draws, confidence)

        low, high = interval(np.append(tally.violations[m, s], tally.any_violation[m, s]))
        where = {"distribution": distribution, "scale": scale, "draws": draws}
        most = min(tally.most[m], 1.0)
        results.append(
            named
            | {"broken_limits": exposure.broken[m]}
            | where
            | {
                "violations": int(tally.any_violation[m, s]),
                "probability": tally.any_violation[m, s] / draws,
                "lower": low[-1],
                "upper": high[-1],
                "breaks_at": float(tally.breaks_at[m]),
                "first": promises[top] if first[top] else "",
                "first_share": first[top] / draws,
                "nominal_cost": nominal,
                "cost_mean": nominal + reach * mean,
                "cost_sd": reach * sd,
                "cost_min": nominal + reach * float(tally.least[m]),
                "cost_max": nominal + reach * float(most),
            }
            | {
                f"cost_q{100 * q:02.0f}": nominal + reach * min(edge, most)
                for q, edge in zip(QUANTILES, upper_edge, strict=True)
            }
            | {"resolution": reach / BINS}
        )
        per_promise += [
            named
            | where
            | {
                "promise": name,
                "violations": int(tally.violations[m, s, i]),
                "probability": tally.violations[m, s, i] / draws,
                "lower": low[i],
                "upper": high[i],
                "first_share": first[i] / draws,
            }
            for i, name in enumerate(promises)
        ]
    return results, per_promise
