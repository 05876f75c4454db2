"""The robust MILP as sparse arrays, once; every solver reads this.

Per *triple* t = (model j, GPU k, degree n) a binary w[t] says that the pair is deployed at that degree; per *cell*
(query type i, triple t) a share x[i,t]. The speed-up belongs to the triple, so no product of variables remains, and
the decision-dependent deviation has collapsed into a coefficient (MODEL section 3). The worst case of each type is
its linear-programming dual, min of Gamma t + sum sigma over t, sigma >= 0, t + sigma[p] >= a[p], one sigma per pair p;
the delay constraint and the delay cost share it, because both are W of the same vector.

    min   rental + storage + delay + unmet cost                        (MODEL section 4)
    s.t.  sum_t x[i,t] + u[i] = 1,  0 <= u <= u_max                    demand, unmet
          sum_n w[j,k,n] <= 1                                          one degree per pair
          x[i,t] <= most[i,t] w[t]                                     link; most = what t could carry of i alone
          sum_i kv[i,j] x[i,t] <= (C_k n - B_j) w[t]                   memory
          sum_i compute[i] x[i,t] <= P_k n w[t]                        compute
          sum_t B_j w[t] <= C_s                                        storage
          rental + storage cost <= budget                              budget
          nominal[i] + Gamma t[i] + sum_p sigma[i,p] <= limit[i] sum_t x[i,t]      delay, error
          sum_n a[i,t] x[i,t] <= t[i] + sigma[i,p]                     for delay and error
          sum_n x[i,t] <= z[i,p],  sum_p z[i,p] <= R                   routes, where R > 0

Plans of more than a given number of pairs (`Beyond`) are those with sum w >= that number + 1; a binary e that meets
this and all demand at a given cost keeps the MILP feasible, so that its bound can be read whatever happens.

Rows are scaled by their natural unit and shares by the most a triple can take, so that coefficients are near 1. In
a MILP coefficients span at most `RANGE`: what is smaller is left out, or enlarged where leaving it out would
exclude plans. Its optimum is then a bound all the same, and the routing of a plan is solved again without this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE, NEGLIGIBLE_UNMET
from solvers.terms import Terms, collect

RANGE = 1e6
"""Largest ratio of two coefficients of a MILP; its rows are scaled to a largest coefficient of 1."""


@dataclass(frozen=True)
class Beyond:
    """Only plans that deploy more than ``pairs`` pairs, or none of them at ``cost`` ($ per period)."""

    pairs: int
    cost: float


class RowNumbers(NamedTuple):
    """Where the rows of `Formulation` are; ``types`` I, ``triples`` T, ``serving`` S pairs that can serve a type."""

    demand: np.ndarray  # I
    memory: np.ndarray  # T, -1 where the row cannot bind and is left out
    compute: np.ndarray  # T, likewise
    storage: np.ndarray  # 1
    budget: np.ndarray  # 1
    delay: np.ndarray  # I
    error: np.ndarray  # I
    delay_worst: np.ndarray  # S, or 0 where the worst case needs no variables
    error_worst: np.ndarray  # likewise
    serving: np.ndarray  # S,2: type and pair of each


@dataclass(frozen=True)
class Formulation:
    """min cost @ v, row_lower <= A v <= row_upper, lower <= v <= upper, v[integer] whole.

    A is stored by rows: row r has columns ``index[start[r]:start[r+1]]`` and coefficients ``value[...]``.
    ``triple`` (T,3) holds the positions (j, k, n) of the triples kept; ``cell`` (X,2) the (i, t) of the shares;
    columns are w (T), x (X), u (I), then the worst-case and route variables; ``route`` (Z,3) holds the (i, j, k) of
    the route binaries, which start at ``first_route``; with ``way_out`` the last column is e.
    Column c counts in units of ``unit[c]``: a solution is v * unit. Row r is divided by ``row_unit[r]``; ``rows`` says
    which is which.
    """

    cost: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    integer: np.ndarray
    start: np.ndarray
    index: np.ndarray
    value: np.ndarray
    row_lower: np.ndarray
    row_upper: np.ndarray
    triple: np.ndarray
    cell: np.ndarray
    types: int
    route: np.ndarray
    first_route: int
    way_out: bool
    unit: np.ndarray
    rows: RowNumbers
    row_unit: np.ndarray

    @property
    def first_share(self) -> int:
        """Column of the first share x."""
        return len(self.triple)

    @property
    def first_unmet(self) -> int:
        """Column of the first unmet share u."""
        return len(self.triple) + len(self.cell)


class _Rows:
    """Collects rows as coordinate triplets, in their own units."""

    def __init__(self) -> None:
        self.count = 0
        self._row: list[np.ndarray] = []
        self._col: list[np.ndarray] = []
        self._val: list[np.ndarray] = []
        self._lower: list[np.ndarray] = []
        self._upper: list[np.ndarray] = []
        self._unit: list[np.ndarray] = []

    def add(
        self, count: int, lower: float | np.ndarray, upper: float | np.ndarray, unit: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """Open ``count`` rows and return their numbers; ``unit`` is their natural scale, 1 where that is 0."""
        rows = np.arange(self.count, self.count + count)
        self.count += count
        unit = np.abs(np.asarray(unit, dtype=np.float64))
        for kept, value in (
            (self._lower, lower),
            (self._upper, upper),
            (self._unit, np.where(unit > 0, unit, 1.0)),
        ):
            kept.append(np.broadcast_to(np.asarray(value, dtype=np.float64), (count,)))
        return rows

    def put(self, row: np.ndarray, column: np.ndarray, value: float | np.ndarray) -> None:
        """Add coefficients."""
        row, column, value = np.broadcast_arrays(row, column, np.asarray(value, dtype=np.float64))
        self._row.append(row)
        self._col.append(column)
        self._val.append(value)

    def arrays(self, unit: np.ndarray, *, bounded: bool) -> dict[str, np.ndarray]:
        """Rows in order and in their units, columns in ``unit``; coefficients within `RANGE` where ``bounded``."""
        row, column = np.concatenate(self._row), np.concatenate(self._col)
        row_unit = np.concatenate(self._unit)
        value = np.concatenate(self._val) * unit[column] / row_unit[row]
        lower, upper = np.concatenate(self._lower), np.concatenate(self._upper)
        if bounded:
            largest = np.zeros(self.count)
            np.maximum.at(largest, row, np.abs(value))
            largest = np.where(largest > 0, largest, 1.0)
            value, row_unit = value / largest[row], row_unit * largest
            small = np.abs(value) < 1.0 / RANGE
            # Columns are >= 0: less on the left of <=, or more on the left of >=, only admits more.
            admits = np.where(np.isinf(lower)[row], value < 0, value > 0)
            value = np.where(small, np.where(admits, np.sign(value) / RANGE, 0.0), value)
        kept = np.abs(value) > NEGLIGIBLE_SHARE
        row, column, value = row[kept], column[kept], value[kept]
        order = np.argsort(row, kind="stable")
        start = np.zeros(self.count + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=self.count), out=start[1:])
        return {
            "start": start,
            "index": column[order].astype(np.int32),
            "value": value[order],
            "row_lower": lower / row_unit,
            "row_upper": upper / row_unit,
            "unit": unit,
            "row_unit": row_unit,
        }


def build(
    instances: Instances,
    b: int,
    *,
    kept: np.ndarray | None = None,
    deployed: np.ndarray | None = None,
    routed: np.ndarray | None = None,
    measure_excess: bool = False,
) -> Formulation:
    """The robust MILP of scenario ``b``.

    Args:
      kept: bool (J,K,N): only these triples; all that fit by default.
      deployed: (D,3) positions (j, k, n): only these triples, their w fixed to 1 (a routing LP).
      routed: bool (I,D), with ``deployed``: the routes allowed; the route limit then needs no binaries.
      measure_excess: minimise the sum of unmet shares above the cap instead of cost, with the cap taken off:
        its optimum is 0 exactly when the scenario is feasible.
    """
    if deployed is not None:
        terms = collect(instances, b, np.asarray(deployed, dtype=np.int64).reshape(-1, 3))
    else:
        terms = collect(instances, b)
        terms = terms if kept is None else terms.take(kept[tuple(terms.triple.T)])
    return assemble(
        terms,
        len(instances.gpu_names),
        fixed=deployed is not None,
        routed=routed,
        measure_excess=measure_excess,
    )


def assemble(
    terms: Terms,
    gpus: int,
    *,
    fixed: bool = False,
    routed: np.ndarray | None = None,
    measure_excess: bool = False,
    beyond: Beyond | None = None,
    elastic: float | None = None,
) -> Formulation:
    """The robust MILP over given triples.

    Args:
      gpus: number of GPU configurations, K.
      fixed: all w are 1 (a routing LP), coefficients as they are.
      routed, measure_excess: as `build`.
      beyond: only plans of many pairs.
      elastic: $ for each unmet share above the cap, which is then no hard limit: a linear program with a solution.
    """
    types = terms.types
    most = terms.most if fixed else np.maximum(terms.most, 1.0 / RANGE)
    usable = terms.most > (NEGLIGIBLE_SHARE if fixed else 0.0)
    if routed is not None:
        usable &= routed
    cell = np.argwhere(usable)
    i, t = cell.T
    nominal_d, excess_d = terms.nominal_delay[i, t], terms.excess_delay[i, t]
    nominal_e, excess_e = terms.nominal_error[i, t], terms.excess_error[i, t]
    columns = 0
    cost: list[np.ndarray] = []
    lower: list[np.ndarray] = []
    upper: list[np.ndarray] = []
    integer: list[np.ndarray] = []
    units: list[np.ndarray] = []

    def new_columns(
        costs: np.ndarray,
        most: float | np.ndarray = np.inf,
        *,
        least: float = 0.0,
        whole: bool = False,
        unit: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        nonlocal columns
        count = len(costs)
        for kept, value in ((cost, costs), (lower, least), (upper, most), (integer, whole), (units, unit)):
            kept.append(np.broadcast_to(np.asarray(value), (count,)))
        columns += count
        return np.arange(columns - count, columns)

    pairs, pair_of = np.unique(terms.pair, return_inverse=True)
    share_cost = terms.data_cost[i] + terms.delay_weight[i] * nominal_d
    plain_d, plain_e = terms.plain(terms.gamma_delay), terms.plain(terms.gamma_error)
    if plain_d is not None:
        nominal_d = nominal_d + plain_d * excess_d
        share_cost = share_cost + terms.delay_weight[i] * plain_d * excess_d
    if plain_e is not None:
        nominal_e = nominal_e + plain_e * excess_e

    soft = measure_excess or elastic is not None
    w = new_columns(terms.deploy, 1.0, least=float(fixed), whole=not fixed)
    x = new_columns(share_cost, most[i, t], unit=1.0 if fixed else most[i, t])
    u = new_columns(terms.unmet_cost, 1.0 if soft else terms.unmet_cap)

    rows = _Rows()
    demand = rows.add(types, 1.0, 1.0)
    rows.put(demand[i], x, 1.0)
    rows.put(demand, u, 1.0)
    if not fixed:
        rows.put(rows.add(len(pairs), -np.inf, 1.0)[pair_of], w, 1.0)
        link = rows.add(len(cell), -np.inf, 0.0, most[i, t])
        rows.put(link, x, 1.0)
        rows.put(link, w[t], -most[i, t])
    memory = _capacity_rows(rows, terms.kv, terms.room, most * usable, x, w, i, t)
    compute = _capacity_rows(rows, terms.work, terms.power, most * usable, x, w, i, t)
    storage = rows.add(1, -np.inf, terms.storage, terms.storage)
    rows.put(storage, w, terms.weights)
    budget = rows.add(1, -np.inf, terms.budget, terms.budget)
    rows.put(budget, w, terms.deploy)
    rows.put(budget, x, terms.data_cost[i])

    serving, serving_of = np.unique(i * len(pairs) + pair_of[t], return_inverse=True)
    serving = np.stack([serving // max(len(pairs), 1), serving % max(len(pairs), 1)], axis=1)
    promise, worst = [], []
    for limit, nominal, excess, gamma, weight, plain in (
        (terms.delay_limit, nominal_d, excess_d, terms.gamma_delay, terms.delay_weight, plain_d),
        (terms.error_limit, nominal_e, excess_e, terms.gamma_error, np.zeros(types), plain_e),
    ):
        row = rows.add(types, -np.inf, 0.0, limit)
        rows.put(row[i], x, nominal - limit[i])
        promise.append(row)
        worst.append(np.zeros(0, np.int64))
        if plain is None:
            scale = np.ones(types)
            np.maximum.at(scale, i, excess)
            level = new_columns(weight * gamma, unit=scale)
            above = new_columns(weight[serving[:, 0]], unit=scale[serving[:, 0]])
            rows.put(row, level, gamma)
            rows.put(row[serving[:, 0]], above, 1.0)
            worst[-1] = rows.add(len(serving), -np.inf, 0.0, scale[serving[:, 0]])
            rows.put(worst[-1][serving_of], x, excess)
            rows.put(worst[-1], level[serving[:, 0]], -1.0)
            rows.put(worst[-1], above, -1.0)

    binaries = np.zeros((0, 3), np.int64)
    first_route = columns
    if 0 < terms.max_routes < len(pairs) and routed is None:
        binaries = np.stack([serving[:, 0], *np.divmod(pairs[serving[:, 1]], gpus)], axis=1)
        z = new_columns(np.zeros(len(serving)), 1.0, whole=True)
        serve = rows.add(len(serving), -np.inf, 0.0)
        rows.put(serve[serving_of], x, 1.0)
        rows.put(serve, z, -1.0)
        rows.put(rows.add(types, -np.inf, float(terms.max_routes))[serving[:, 0]], z, 1.0)
    if soft:
        over = new_columns(np.full(types, 1.0 if elastic is None else elastic), 1.0)
        row = rows.add(types, -np.inf, terms.unmet_cap)
        rows.put(row, u, 1.0)
        rows.put(row, over, -1.0)
    if measure_excess:
        cost[:-1] = [np.zeros_like(c) for c in cost[:-1]]
    if beyond is not None:
        none = new_columns(np.array([beyond.cost]), 1.0, whole=True)
        rows.put(demand, none, 1.0)
        row = rows.add(1, beyond.pairs + 1.0, np.inf)
        rows.put(row, w, 1.0)
        rows.put(row, none, beyond.pairs + 1.0)

    unit = np.concatenate(units).astype(np.float64)
    costs = np.concatenate(cost) * unit
    costs[np.abs(costs) < 1e-100] = 0.0  # HiGHS 1.16 answers wrongly to costs near the smallest float
    return Formulation(
        cost=costs,
        lower=np.concatenate(lower) / unit,
        upper=np.concatenate(upper) / unit,
        integer=np.concatenate(integer),
        triple=terms.triple,
        cell=cell,
        types=types,
        route=binaries,
        first_route=first_route,
        way_out=beyond is not None,
        rows=RowNumbers(
            demand,
            memory,
            compute,
            storage,
            budget,
            promise[0],
            promise[1],
            worst[0],
            worst[1],
            np.stack([serving[:, 0], pairs[serving[:, 1]]], axis=1) if len(pairs) else serving,
        ),
        **rows.arrays(unit, bounded=not fixed),
    )


def _capacity_rows(
    rows: _Rows,
    demand: np.ndarray,
    capacity: np.ndarray,
    most: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    i: np.ndarray,
    t: np.ndarray,
) -> np.ndarray:
    """sum_i demand[i,t] x[i,t] <= capacity[t] w[t], for the triples where it can bind; row numbers or -1."""
    can_bind = (demand * most).sum(0) > capacity * (1.0 - 1e-12)
    number = np.full(len(w), -1)
    capacity = np.maximum(capacity, 0.0)
    number[can_bind] = rows.add(int(can_bind.sum()), -np.inf, 0.0, capacity[can_bind])
    inside = can_bind[t]
    rows.put(number[t[inside]], x[inside], demand[i[inside], t[inside]])
    rows.put(number[can_bind], w[can_bind], -capacity[can_bind])
    return number


def _shares(formulation: Formulation, columns: np.ndarray) -> np.ndarray:
    """The shares of a solution, (I,T)."""
    shares = np.zeros((formulation.types, len(formulation.triple)))
    found = columns[formulation.first_share : formulation.first_unmet]
    shares[formulation.cell[:, 0], formulation.cell[:, 1]] = found
    return shares


def read_plan(formulation: Formulation, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triples deployed and routes used in a solution: (D,3) positions and bool (I,D); idle pairs are left out.

    Where routes have binaries, these count: HiGHS lets a share of its tolerance pass on a route that is closed.
    """
    used = _shares(formulation, columns) > NEGLIGIBLE_SHARE
    if len(formulation.route):
        first = formulation.first_route
        open_route = np.zeros((len(used), *formulation.triple[:, :2].max(0) + 1), bool)
        open_route[tuple(formulation.route[columns[first : first + len(formulation.route)] > 0.5].T)] = True
        used &= open_route[:, formulation.triple[:, 0], formulation.triple[:, 1]]
    on = (columns[: formulation.first_share] > 0.5) & used.any(0)
    return formulation.triple[on], used[:, on]


def to_plan(instances: Instances, b: int, formulation: Formulation, columns: np.ndarray) -> Plan:
    """The plan by name of a solution whose w are whole; shares below 1e-9 are left to ``unmet``."""
    f = instances.one(b)
    shares = _shares(formulation, columns)
    shares = np.where(shares > NEGLIGIBLE_SHARE, np.minimum(shares, 1.0), 0.0)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1.0)
    unmet = np.maximum(1.0 - shares.sum(1), 0.0)
    unmet[unmet < NEGLIGIBLE_UNMET] = 0.0
    used = [t for t in range(len(formulation.triple)) if columns[t] > 0.5 and shares[:, t].any()]
    names = {
        t: (instances.model_names[j], instances.gpu_names[k])
        for t, (j, k, _) in enumerate(formulation.triple)
    }
    return Plan(
        instance=b,
        deployments=tuple(DeployedPair(*names[t], int(f.tp_degree[formulation.triple[t, 2]])) for t in used),
        routes=tuple(
            Route(query, *names[t], float(shares[i, t]))
            for i, query in enumerate(instances.query_names)
            for t in used
            if shares[i, t] > 0
        ),
        unmet={q: float(unmet[i]) for i, q in enumerate(instances.query_names)},
    )
