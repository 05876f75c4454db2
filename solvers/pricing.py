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

import numpy as np
from jaxtyping import Bool, Float64, Int

from solvers.dual.function import Multipliers, evaluate_dual, feasible, reduced_gain
from solvers.fleet_dual import FleetMultipliers, evaluate_fleet_dual, gains
from solvers.formulation import Formulation, assemble
from solvers.terms import Terms


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
    """Evaluate the dual function over some triples at multipliers made feasible, less an allowance for rounding.

    Where the worst case of the plans meant is a plain sum, so are the adversaries.
    """
    c = terms.coefficients
    with np.errstate(all="ignore"):  # what is no number proves nothing
        found = evaluate_dual(c, _with_plain_sums(terms, y), careful=True)
        reduced = found.floor - found.bound
    at = terms.pair, terms.triple[:, 2]
    reduced = reduced[at]
    return Priced(float(found.bound), found.value[at], np.where(np.isnan(reduced), 0.0, reduced))


def _with_plain_sums(terms: Terms, y: Multipliers) -> Multipliers:
    """Set the adversaries whose best choice is known without solving anything."""
    for gamma, name in ((terms.gamma_delay, "delay_adversary"), (terms.gamma_error, "error_adversary")):
        if (part := terms.plain(gamma)) is not None:
            y = y._replace(**{name: np.full(getattr(y, name).shape, part)})
    return y


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
        restricted = terms.take(at)
        formulation = assemble(restricted, gpus, elastic=elastic)
        answer = solve(formulation)
        if answer is None:
            break
        optimum, row_dual = answer
        y = _spend_adversaries(terms, read_multipliers(restricted, formulation, row_dual), chosen)
        if terms.fleet is None:
            found = dual_function(terms, y)
        else:
            found = fleet_dual_function(terms, read_fleet_multipliers(terms, y, at, formulation, row_dual))
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
        if terms.fleet is not None:
            busy = np.maximum(busy, terms.fleet.load / terms.fleet.utilization)
    ms, wrong = terms.nominal_delay + terms.excess_delay, terms.nominal_error + terms.excess_error
    cost = terms.delay_weight[:, None] * ms + terms.deploy * np.where(np.isfinite(busy), busy, 0.0)
    cost = np.where(terms.most > 0, cost, np.inf)
    keeps = (ms <= terms.delay_limit[:, None]) & (wrong <= terms.error_limit[:, None])
    for ranked in (cost, np.where(keeps, cost, np.inf)):
        first = np.argsort(ranked, axis=1)[:, :_FIRST]
        kept[first[np.isfinite(np.take_along_axis(ranked, first, 1))]] = True
    return kept


def read_multipliers(
    terms: Terms, formulation: Formulation, row_dual: Float64[np.ndarray, " R"]
) -> Multipliers:
    """Read the dual solution of a linear program over ``terms``; nothing for the triples outside it."""
    price = row_dual / formulation.row_unit
    rows = formulation.rows
    by_type = terms.dense.nominal.shape

    def of_triples(number: np.ndarray) -> np.ndarray:
        result = np.zeros(terms.dense.deploy.shape)
        bounded = number >= 0
        result[terms.pair[bounded], terms.triple[bounded, 2]] = -price[number[bounded]]
        return result

    def adversary(worst: np.ndarray, per_unit: np.ndarray, gamma: float) -> np.ndarray:
        result = np.zeros(by_type)
        if not len(worst):  # there the worst case was a plain sum: the budget suffices for all its pairs
            result[:, terms.pair] = min(gamma, 1.0)
        else:
            types, pairs = rows.serving[worst >= 0].T
            over = np.where(per_unit[types] > 0, per_unit[types], np.inf)
            result[types, pairs] = -price[worst[worst >= 0]] / over
        return result

    delay, error = (np.where(number >= 0, -price[number], 0.0) for number in (rows.delay, rows.error))
    return Multipliers(
        demand=price[rows.demand],
        delay=delay,
        error=error,
        budget=-price[rows.budget][0],
        storage=-price[rows.storage][0],
        memory=of_triples(rows.memory),
        compute=of_triples(rows.compute),
        delay_adversary=adversary(rows.delay_worst, terms.delay_weight + delay, terms.gamma_delay),
        error_adversary=adversary(rows.error_worst, error, terms.gamma_error),
    )


def fleet_dual_function(terms: Terms, y: FleetMultipliers) -> Priced:
    """Evaluate the dual function of a scenario with a fleet, as `dual_function` does of others."""
    with np.errstate(all="ignore"):  # what is no number proves nothing
        found = evaluate_fleet_dual(terms, y._replace(shared=_with_plain_sums(terms, y.shared)))
    return Priced(*found)


def read_fleet_multipliers(
    terms: Terms,
    shared: Multipliers,
    at: Int[np.ndarray, " C"],
    formulation: Formulation,
    row_dual: Float64[np.ndarray, " R"],
) -> FleetMultipliers:
    """Read the dual solution of a linear program over the triples ``at`` of ``terms``; nothing for the others.

    Args:
      shared: what `read_multipliers` has read of it.
    """
    assert terms.fleet is not None, "a scenario with a fleet"
    price, rows = row_dual / formulation.row_unit, formulation.rows

    def of_rows(number: np.ndarray, positions: np.ndarray, size: int) -> np.ndarray:
        result = np.zeros(size)
        bounded = number >= 0
        result[positions[bounded]] = -price[number[bounded]]
        return result

    size, devices = len(terms.pair), len(rows.quota)
    throughput = of_rows(rows.throughput, at, size)
    adversary = np.broadcast_to(np.nan_to_num(terms.fleet.plain(terms.most)), terms.most.shape).copy()
    i, t = rows.load_cells.T
    over = throughput[at[t]]
    adversary[i, at[t]] = np.where(over > 0, -price[rows.load_worst] / np.where(over > 0, over, 1.0), 0.0)
    return FleetMultipliers(
        shared,
        memory=of_rows(rows.memory, at, size),
        compute=of_rows(rows.compute, at, size),
        throughput=throughput,
        quota=of_rows(rows.quota, np.arange(devices), devices),
        load_adversary=adversary,
    )


def _spend_adversaries(terms: Terms, y: Multipliers, chosen: Bool[np.ndarray, " T"]) -> Multipliers:
    """Give what the adversaries have left to pairs outside the restricted LP, those first that would gain most."""
    absent = np.zeros(len(terms.dense.weights), bool)
    absent[terms.pair] = True
    absent[terms.pair[chosen]] = False
    if not absent.any():
        return y
    c = terms.coefficients
    y_now = feasible(c, _with_plain_sums(terms, y))
    if terms.fleet is None:
        gain = (np.maximum(reduced_gain(c, y_now), 0.0) * c.most).max(axis=2)  # I,P
    else:
        gain = np.zeros(c.nominal.shape)
        np.maximum.at(gain.T, terms.pair, (gains(terms, y_now)[0] * terms.most).T)
    wish = np.where(absent, gain, 0.0)
    rank = np.argsort(np.argsort(-wish, axis=1), axis=1)

    def filled(xi: np.ndarray, gamma: float) -> np.ndarray:
        left = gamma - xi.sum(1, keepdims=True)
        return xi + np.where(wish > 0, np.clip(left - rank, 0.0, 1.0), 0.0)

    return y._replace(
        delay_adversary=filled(y.delay_adversary, terms.gamma_delay),
        error_adversary=filled(y.error_adversary, terms.gamma_error),
    )
