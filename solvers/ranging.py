"""The exact MILP of a scenario in which one limit may lie anywhere in an interval: does a shadow price hold there?

With v the limit, ``top`` its loosest value and s = top - v in [0, width], the rows that hold v become, next to those of
the scenario at ``top``,

    memory, compute   demand of t <= capacity at top - n s       where t is deployed
    storage, budget   use + s <= top
    unmet             u[i] + s <= top
    delay, error      value[i] - top served[i] + s <= width (1 - served[i])

and the cost falls by ``rate`` times s. The last row says s served[i] <= top served[i] - value[i] exactly where a type
is served whole or not at all, and only admits more in between: the bound holds for every v in the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from solvers.best_plan import starting_point
from solvers.dual.coefficients import refuse_serving
from solvers.formulation import Formulation, assemble, to_plan
from solvers.highs import LEAN, SolverFailed, run_highs
from solvers.terms import Terms, collect


@dataclass(frozen=True)
class Ranging:
    """A question: the least of cost + rate (v - top) for v from top - width to top.

    Attributes:
      one: the scenario alone, with the limit at its loosest.
      constraint, position: the limit (MODEL section 5): a family, and the GPU or query type.
      width, rate: in the limit's unit, and $ per period and unit.
      start: a plan that may be good.
    """

    one: Instances
    constraint: str
    position: int
    width: float
    rate: float
    start: Plan | None = None
    time_limit: float = math.inf


@dataclass(frozen=True)
class Ranged:
    """The proven lower bound, $ per period; and a plan and the v - top at which it may cost that little."""

    bound: float
    plan: Plan | None
    offset: float


def ranged(question: Ranging) -> Ranged:
    """Solve it; nothing is proven (-inf) where HiGHS does not answer in time.

    Raises:
      InputError: as `refuse_serving`.
    """
    refuse_serving(question.one.fields)
    terms = collect(question.one, 0)
    base = assemble(terms, len(question.one.gpu_names))
    formulation = _with_free_limit(base, terms, question)
    start = None if question.start is None else starting_point(question.one, base, question.start)
    try:
        answer = run_highs(
            formulation,
            start=start,
            mip_rel_gap=OPTIMAL_GAP / 2,
            mip_abs_gap=0.0,
            time_limit=question.time_limit,
            **LEAN,
        )
    except SolverFailed:
        return Ranged(-math.inf, None, 0.0)
    if answer.status not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kTimeLimit):
        return Ranged(-math.inf, None, 0.0)
    bound = answer.bound if math.isfinite(answer.bound) else -math.inf
    if answer.columns is None:
        return Ranged(bound, None, 0.0)
    return Ranged(bound, to_plan(question.one, 0, base, answer.columns[:-1]), -float(answer.columns[-1]))


def _with_free_limit(base: Formulation, terms: Terms, question: Ranging) -> Formulation:
    """The formulation with s as its last column, in units of ``width``."""
    width, column = question.width, len(base.cost)
    rows: list[tuple[np.ndarray, np.ndarray, Any]] = []  # columns, coefficients, limit: in their own units
    triples = np.arange(len(base.triple))
    share = np.arange(len(base.cost))[base.columns.share]
    i, t = base.cell.T
    if question.constraint in ("memory", "compute"):
        demand, capacity = (
            (terms.kv, terms.room) if question.constraint == "memory" else (terms.work, terms.power)
        )
        gpus = np.asarray(question.one.one(0).tp_degree, np.float64)[base.triple[:, 2]]
        for m in triples[base.triple[:, 1] == question.position].tolist():
            mine = t == m
            columns = np.concatenate([share[mine], [m, column]])
            values = np.concatenate([demand[i[mine], m], [gpus[m] * width - max(capacity[m], 0.0), gpus[m]]])
            rows.append((columns, values, gpus[m] * width))
    elif question.constraint == "storage":
        rows.append((np.append(triples, column), np.append(terms.weights, 1.0), terms.storage))
    elif question.constraint == "budget":
        columns, values = np.concatenate([triples, share]), np.concatenate([terms.deploy, terms.data_cost[i]])
        rows.append((np.append(columns, column), np.append(values, 1.0), terms.budget))
    elif question.constraint == "unmet":
        rows += [
            (np.array([u, column]), np.ones(2), terms.unmet_cap)
            for u in np.arange(len(base.cost))[base.columns.unmet].tolist()
        ]
    else:
        row = getattr(base.rows, question.constraint)[question.position]
        inside = slice(base.start[row], base.start[row + 1])
        columns = base.index[inside]
        values = base.value[inside] * base.row_unit[row] / base.unit[columns]
        served = share[i == question.position]
        columns = np.concatenate([columns, served, [column]])
        values = np.concatenate([values, np.full(len(served), width), [1.0]])
        columns, at = np.unique(columns, return_inverse=True)
        rows.append((columns, np.bincount(at, values), width))
    unit = np.append(base.unit, width)
    value = [values * unit[columns] for columns, values, _ in rows]
    largest = np.array([np.abs(v).max() for v in value])
    lengths = np.array([len(v) for v in value])
    return replace(
        base,
        cost=np.append(base.cost, -question.rate * width),
        lower=np.append(base.lower, 0.0),
        upper=np.append(base.upper, 1.0),
        integer=np.append(base.integer, False),
        start=np.concatenate([base.start, base.start[-1] + np.cumsum(lengths)]).astype(np.int32),
        index=np.concatenate([base.index, *(columns for columns, _, _ in rows)]).astype(np.int32),
        value=np.concatenate([base.value, *(v / m for v, m in zip(value, largest, strict=True))]),
        row_lower=np.append(base.row_lower, np.full(len(rows), -np.inf)),
        row_upper=np.append(base.row_upper, np.array([limit for _, _, limit in rows]) / largest),
        unit=unit,
        row_unit=np.append(base.row_unit, largest),
    )
