"""The LP relaxation by pricing, and the dual function that certifies it, in NumPy float64. No JAX here.

A restricted LP over a few triples gives multipliers; the dual function of `solvers.dual` at these multipliers is a
bound whatever they are, and its V[t], the least that deploying t and routing over it adds, says which triples the LP
lacks (V < 0) and which no good plan deploys: every plan with t costs at least ``bound + reduced[t]``, where
``reduced[t] = V[t] - min(0, min_n V[p,n])`` is what forcing t adds to the dual value. Memory and compute of a triple
are priced in closed form, so triples outside the restricted LP need no multipliers of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solvers.formulation import Formulation, assemble
from solvers.terms import Terms


class Multipliers(NamedTuple):
    """Dual variables, as in `solvers.dual`; T triples, P pairs in the order of ``np.unique(terms.pair)``."""

    demand: np.ndarray  # I, $
    delay: np.ndarray  # I, $/ms
    error: np.ndarray  # I, $
    budget: float
    storage: float  # $/GB
    memory: np.ndarray  # T, $/GB
    compute: np.ndarray  # T, $/TFLOP
    delay_adversary: np.ndarray  # I,P in [0, 1], rows sum to at most Gamma
    error_adversary: np.ndarray  # I,P


@dataclass(frozen=True)
class Priced:
    """A certified bound in $ per period; V of each triple (T,), and what deploying it adds to the bound (T,)."""

    bound: float
    value: np.ndarray
    reduced: np.ndarray

    def beyond(self, pair: np.ndarray, count: int) -> np.ndarray:
        """Bound of the plans that deploy each triple (T,) and at least ``count`` pairs in all."""
        _, of = np.unique(pair, return_inverse=True)
        least = np.full(of.max(initial=-1) + 1, np.inf)
        np.minimum.at(least, of, self.reduced)
        if len(least) < count:
            return np.full(len(pair), np.inf)
        others = np.sort(least)[: count - 1].sum()
        return np.maximum(self.bound + others + self.reduced, self.bound + np.sort(least)[:count].sum())


LinearProgram = Callable[[Formulation], tuple[float, np.ndarray] | None]
"""Optimum and row duals (as HiGHS signs them) of a formulation's LP relaxation; None where it has none."""


def dual_function(terms: Terms, y: Multipliers) -> Priced:
    """The dual function at multipliers made feasible, less an allowance for rounding.

    The allowance is as in `solvers.dual.certify`: (2 I N + P + 32) eps times the sum of the terms' absolute values.
    """
    pairs, of = np.unique(terms.pair, return_inverse=True)
    y = _feasible(terms, y)
    gain, size = _gain(terms, y, of)
    plain = np.maximum(gain, 0.0) * terms.most
    fixed = terms.deploy * (1.0 + y.budget) + y.storage * terms.weights
    value = fixed - plain.sum(0)
    # Only where capacity may bind does a price of it raise V.
    loose = (value >= np.abs(y.demand).sum()) | (
        ((terms.kv * terms.most).sum(0) <= terms.room) & ((terms.work * terms.most).sum(0) <= terms.power)
    )
    paid = plain.sum(0)
    if not loose.all():
        part = ~loose
        paid[part] = _paid(terms.take(part), gain[:, part], y.memory[part], y.compute[part])
        value = fixed - paid
    least = np.full(len(pairs), np.inf)
    np.minimum.at(least, of, value)
    taken = np.minimum(least, 0.0)
    over = terms.unmet_cap * np.maximum(y.demand - terms.unmet_cost, 0.0)
    bound = (y.demand - over).sum() - y.budget * terms.budget - y.storage * terms.storage + taken.sum()
    used = least <= 0
    sizes = np.zeros(len(pairs))
    np.maximum.at(sizes, of, fixed + paid + (terms.most * size).sum(0))
    magnitude = (
        np.abs(y.demand).sum()
        + (terms.unmet_cap * (np.abs(y.demand) + terms.unmet_cost)).sum()
        + abs(y.budget * terms.budget)
        + abs(y.storage * terms.storage)
        + sizes[used].sum()
    )
    degrees = np.bincount(of).max(initial=1)
    allowance = (2 * terms.types * degrees + len(pairs) + 32) * np.finfo(np.float64).eps * magnitude
    bound = float(bound - allowance)
    slack = value - taken[of] - allowance
    return Priced(bound if np.isfinite(bound) else -np.inf, value, np.where(np.isnan(slack), 0.0, slack))


def _feasible(terms: Terms, y: Multipliers) -> Multipliers:
    """Signs clipped, each adversary scaled into its set."""

    def inside(xi: np.ndarray, gamma: float) -> np.ndarray:
        xi = np.clip(xi, 0.0, 1.0)
        total = xi.sum(1, keepdims=True)
        return xi * np.minimum(1.0, gamma / np.maximum(total * (1.0 + 1e-14), 1e-300))

    return Multipliers(
        y.demand,
        np.maximum(y.delay, 0.0),
        np.maximum(y.error, 0.0),
        max(y.budget, 0.0),
        max(y.storage, 0.0),
        np.maximum(y.memory, 0.0),
        np.maximum(y.compute, 0.0),
        inside(y.delay_adversary, terms.gamma_delay),
        inside(y.error_adversary, terms.gamma_error),
    )


def _gain(terms: Terms, y: Multipliers, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a unit share gains before memory and compute are paid, (I,T), and the sum of its terms' sizes."""
    plain_d, plain_e = terms.plain(terms.gamma_delay), terms.plain(terms.gamma_error)
    ms = terms.nominal_delay + terms.excess_delay * (y.delay_adversary[:, of] if plain_d is None else plain_d)
    wrong = terms.nominal_error + terms.excess_error * (
        y.error_adversary[:, of] if plain_e is None else plain_e
    )
    per_ms = (terms.delay_weight + y.delay)[:, None]
    fixed = terms.data_cost * (1.0 + y.budget)
    promised = y.delay * terms.delay_limit + y.error * terms.error_limit
    costs = per_ms * ms + y.error[:, None] * wrong
    gain = (y.demand - fixed + promised)[:, None] - costs
    return gain, (np.abs(y.demand) + fixed + promised)[:, None] + costs


def _paid(terms: Terms, gain: np.ndarray, memory: np.ndarray, compute: np.ndarray) -> np.ndarray:
    """Least over m, c >= 0 of m room + c power + sum most max(gain - m kv - c work, 0), one multiplier at a time."""
    room, power = np.maximum(terms.room, 0.0), terms.power
    m, first = _best_multiplier(gain - compute * terms.work, terms.kv, room, terms.most)
    _, then = _best_multiplier(gain - m * terms.kv, terms.work, power, terms.most)
    c, second = _best_multiplier(gain - memory * terms.kv, terms.work, power, terms.most)
    _, other = _best_multiplier(gain - c * terms.work, terms.kv, room, terms.most)
    return np.min(
        [compute * power + first, m * room + then, memory * room + second, c * power + other], axis=0
    )


def _best_multiplier(
    gain: np.ndarray, weight: np.ndarray, capacity: np.ndarray, most: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """argmin and min over m >= 0 of m capacity + sum_i most[i] max(gain[i] - m weight[i], 0), per triple.

    Convex and piecewise linear: the slope at m is capacity less the weights of what still gains. Sorted by
    gain / weight, the minimum is at the first breakpoint from above where these exceed the capacity.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((weight > 0) & (gain > 0), gain / np.where(weight > 0, weight, 1.0), 0.0)
    order = np.argsort(-ratio, axis=0)
    ratio = np.take_along_axis(ratio, order, 0)
    load = np.cumsum(np.take_along_axis(weight * most, order, 0), axis=0)
    full = load > capacity
    at = np.where(full.any(0), np.take_along_axis(ratio, full.argmax(0)[None], 0)[0], 0.0)
    return at, at * capacity + (most * np.maximum(gain - at * weight, 0.0)).sum(0)


_FIRST = 6
"""Triples that each query type brings into the first restricted LP, by each of two rankings."""

_ROUNDS = 30
"""Most restricted LPs; every one of them gives a valid bound."""

_CLOSE = 1e-7
"""The LP counts as solved when bound and restricted optimum are this close (relative)."""


def price(terms: Terms, gpus: int, solve: LinearProgram, wanted: np.ndarray) -> Priced:
    """Bound a scenario by its LP relaxation, solved over as few triples as it needs.

    Args:
      gpus: number of GPU configurations, K.
      solve: solves a restricted LP.
      wanted: bool (T,), triples to start with, besides those that look good alone.
    """
    pairs, of = np.unique(terms.pair, return_inverse=True)
    chosen = wanted | _promising(terms)
    # A share above the cap costs more than any plan: so every restricted LP has a solution.
    elastic = None if terms.unmet_cap >= 1.0 else 10.0 * float(terms.budget + terms.unmet_cost.sum())
    nothing = np.zeros(len(terms.pair))
    best = Priced(-np.inf, nothing, nothing)
    for _ in range(_ROUNDS):
        at = np.flatnonzero(chosen)
        formulation = assemble(terms.take(at), gpus, elastic=elastic)
        answer = solve(formulation)
        if answer is None:
            break
        optimum, row_dual = answer
        y = _spent(terms, _multipliers(terms, pairs, at, formulation, row_dual), of, chosen)
        found = dual_function(terms, y)
        best = max(best, found, key=lambda p: p.bound)
        if optimum - best.bound <= _CLOSE * abs(optimum):
            break
        paid = np.zeros(len(pairs))
        np.minimum.at(paid, of[at], found.value[at])
        lacking = np.where(chosen, 0.0, found.value - paid[of])
        worst = np.argsort(lacking)[: max(len(at) // 3, 16)]
        worst = worst[lacking[worst] < -1e-9 * abs(optimum)]
        if not len(worst):
            break
        chosen[worst] = True
    return best


def _promising(terms: Terms) -> np.ndarray:
    """bool (T,): the triples that serve some type most cheaply if it pays for its part of them, alone or honestly.

    Honestly: among those that keep the type's promises without a partner.
    """
    kept = np.zeros(len(terms.pair), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        busy = np.maximum(terms.kv / np.maximum(terms.room, 1e-300), terms.work / terms.power)
    ms, wrong = terms.nominal_delay + terms.excess_delay, terms.nominal_error + terms.excess_error
    cost = terms.delay_weight[:, None] * ms + terms.deploy * np.nan_to_num(busy)
    cost = np.where(terms.most > 0, cost, np.inf)
    keeps = (ms <= terms.delay_limit[:, None]) & (wrong <= terms.error_limit[:, None])
    for ranked in (cost, np.where(keeps, cost, np.inf)):
        first = np.argsort(ranked, axis=1)[:, :_FIRST]
        kept[first[np.isfinite(np.take_along_axis(ranked, first, 1))]] = True
    return kept


def _multipliers(
    terms: Terms, pairs: np.ndarray, at: np.ndarray, formulation: Formulation, row_dual: np.ndarray
) -> Multipliers:
    """The dual solution of a restricted LP over the triples ``at``; nothing for those outside it."""
    price = row_dual / formulation.row_unit
    rows = formulation.rows

    def of_triples(number: np.ndarray) -> np.ndarray:
        result = np.zeros(len(terms.pair))
        result[at[number >= 0]] = -price[number[number >= 0]]
        return result

    def adversary(worst: np.ndarray, per_unit: np.ndarray, gamma: float) -> np.ndarray:
        result = np.zeros((terms.types, len(pairs)))
        if not len(worst):  # there the worst case was a plain sum: the budget suffices for all its pairs
            result[:, np.searchsorted(pairs, terms.pair[at])] = min(gamma, 1.0)
        else:
            types, position = rows.serving[:, 0], np.searchsorted(pairs, rows.serving[:, 1])
            over = np.where(per_unit[types] > 0, per_unit[types], np.inf)
            result[types, position] = -price[worst] / over
        return result

    delay, error = -price[rows.delay], -price[rows.error]
    return Multipliers(
        demand=price[rows.demand],
        delay=delay,
        error=error,
        budget=float(-price[rows.budget][0]),
        storage=float(-price[rows.storage][0]),
        memory=of_triples(rows.memory),
        compute=of_triples(rows.compute),
        delay_adversary=adversary(rows.delay_worst, terms.delay_weight + delay, terms.gamma_delay),
        error_adversary=adversary(rows.error_worst, error, terms.gamma_error),
    )


def _spent(terms: Terms, y: Multipliers, of: np.ndarray, chosen: np.ndarray) -> Multipliers:
    """What the adversaries have left goes to pairs outside the restricted LP, those first that would gain most."""
    absent = np.ones(y.delay_adversary.shape[1], bool)
    absent[of[chosen]] = False
    if not absent.any():
        return y
    gain = np.maximum(_gain(terms, _feasible(terms, y), of)[0], 0.0) * terms.most
    wish = np.zeros((terms.types, len(absent)))
    np.maximum.at(wish.T, of, gain.T)
    wish = np.where(absent, wish, 0.0)
    rank = np.argsort(np.argsort(-wish, axis=1), axis=1)

    def filled(xi: np.ndarray, gamma: float) -> np.ndarray:
        left = gamma - xi.sum(1, keepdims=True)
        return xi + np.where(wish > 0, np.clip(left - rank, 0.0, 1.0), 0.0)

    return y._replace(
        delay_adversary=filled(y.delay_adversary, terms.gamma_delay),
        error_adversary=filled(y.error_adversary, terms.gamma_error),
    )
