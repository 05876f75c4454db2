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

Rows are scaled by their natural unit, so that coefficients are near 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rodiu_jax.instance import (
    Fields,
    Instances,
    compute_demand,
    kv_demand,
    stored_data,
    tokens_per_query,
    worst_case_inputs,
)
from rodiu_jax.plan import Deployment, Plan, Route

_NEGLIGIBLE = 1e-9
"""Shares below this are not worth a variable or a route; HiGHS warns of coefficients this small and drops them."""


@dataclass(frozen=True)
class Formulation:
    """min cost @ v + offset, row_lower <= A v <= row_upper, lower <= v <= upper, v[integer] whole.

    A is stored by rows: row r has columns ``index[start[r]:start[r+1]]`` and coefficients ``value[...]``.
    ``triple`` (T,3) holds the positions (j, k, n) of the triples kept; ``cell`` (X,2) the (i, t) of the shares;
    columns are w (T), x (X), u (I), then the worst-case and route variables; ``route`` (Z,3) holds the (i, j, k) of
    the route binaries, which start at ``first_route``.
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

    @property
    def first_share(self) -> int:
        """Column of the first share x."""
        return len(self.triple)

    @property
    def first_unmet(self) -> int:
        """Column of the first unmet share u."""
        return len(self.triple) + len(self.cell)


class _Rows:
    """Collects rows as coordinate triplets."""

    def __init__(self) -> None:
        self.count = 0
        self._row: list[np.ndarray] = []
        self._col: list[np.ndarray] = []
        self._val: list[np.ndarray] = []
        self._lower: list[np.ndarray] = []
        self._upper: list[np.ndarray] = []

    def add(self, count: int, lower: float | np.ndarray, upper: float | np.ndarray) -> np.ndarray:
        """Open ``count`` rows and return their numbers."""
        rows = np.arange(self.count, self.count + count)
        self.count += count
        self._lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)))
        return rows

    def put(self, row: np.ndarray, column: np.ndarray, value: float | np.ndarray) -> None:
        """Add coefficients; zeros and what is negligible beside the row's unit are left out."""
        row, column, value = np.broadcast_arrays(row, column, np.asarray(value, dtype=np.float64))
        kept = np.abs(value) > _NEGLIGIBLE
        self._row.append(row[kept])
        self._col.append(column[kept])
        self._val.append(value[kept])

    def arrays(self) -> dict[str, np.ndarray]:
        row = np.concatenate(self._row)
        order = np.argsort(row, kind="stable")
        start = np.zeros(self.count + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=self.count), out=start[1:])
        return {
            "start": start,
            "index": np.concatenate(self._col)[order].astype(np.int32),
            "value": np.concatenate(self._val)[order],
            "row_lower": np.concatenate(self._lower),
            "row_upper": np.concatenate(self._upper),
        }


def _unit(limit: np.ndarray | float) -> np.ndarray:
    """The scale of a row: its limit, or 1 where that is 0."""
    limit = np.abs(np.asarray(limit, dtype=np.float64))
    return np.where(limit > 0, limit, 1.0)


def _fitting(f: Fields, kept: np.ndarray | None) -> np.ndarray:
    """(T,3) positions (j, k, n) of the triples of ``kept`` whose weights fit GPUs, storage and budget alone."""
    n = np.asarray(f.tp_degree, dtype=np.float64)
    weights = f.weight_memory[:, None, None]
    fits = f.gpu_memory[None, :, None] * n >= weights
    fits = fits & (weights <= f.storage_capacity)
    price = f.rental_hours * (f.gpu_price[None, :, None] * n + f.storage_price * weights)
    fits = fits & (price <= f.budget)
    return np.argwhere(fits if kept is None else fits & kept)


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
    f = instances.one(b)
    types = len(instances.query_names)
    d_dev, e_dev, gamma_d, gamma_e = worst_case_inputs(f, instances.uncertainty)
    triple = _fitting(f, kept) if deployed is None else np.asarray(deployed, dtype=np.int64).reshape(-1, 3)
    j, k, n = triple.T
    degree, speed = f.tp_degree[n].astype(np.float64), f.tp_speedup[n]
    room = f.gpu_memory[k] * degree - f.weight_memory[j]
    power = f.gpu_compute[k] * degree
    kv = kv_demand(f)[:, j]  # I,T
    compute = compute_demand(f)[:, None]  # I,1
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.minimum(
            np.where(kv > 0, np.maximum(room, 0.0) / kv, np.inf),
            np.where(compute > 0, power / compute, np.inf),
        )
    most = np.minimum(most, 1.0)
    usable = most > _NEGLIGIBLE
    if routed is not None:
        usable &= routed
    cell = np.argwhere(usable)
    i, t = cell.T

    hours, price_gb = float(f.rental_hours), float(f.storage_price)
    tokens = tokens_per_query(f)
    data_cost = hours * price_gb * stored_data(f)  # $ per period of type i served whole
    deploy_cost = hours * (f.gpu_price[k] * degree + price_gb * f.weight_memory[j])
    delay_weight = hours * f.delay_penalty * f.arrival_rate  # $ per ms of mean delay
    nominal_d = f.delay_nominal[i, j[t], k[t]] * tokens[i] / speed[t]  # ms at share 1
    excess_d = d_dev[i, j[t], k[t]] * tokens[i] / speed[t]
    nominal_e = f.error_nominal[i, j[t], k[t]]
    excess_e = e_dev[i, j[t], k[t]]

    columns = len(triple) + len(cell) + types
    w = np.arange(len(triple))
    x = len(triple) + np.arange(len(cell))
    u = len(triple) + len(cell) + np.arange(types)
    cost = [deploy_cost, data_cost[i] + delay_weight[i] * nominal_d, hours * f.unmet_penalty * f.arrival_rate]
    lower = [np.full(len(triple), 0.0 if deployed is None else 1.0), np.zeros(len(cell)), np.zeros(types)]
    upper = [np.ones(len(triple)), most[i, t], np.full(types, 1.0 if measure_excess else float(f.unmet_cap))]
    integer = [np.full(len(triple), deployed is None), np.zeros(len(cell), bool), np.zeros(types, bool)]

    def new_columns(costs: np.ndarray, most: float, whole: bool = False) -> np.ndarray:
        nonlocal columns
        count = len(costs)
        cost.append(costs)
        lower.append(np.zeros(count))
        upper.append(np.full(count, most))
        integer.append(np.full(count, whole))
        columns += count
        return np.arange(columns - count, columns)

    rows = _Rows()
    demand = rows.add(types, 1.0, 1.0)
    rows.put(demand[i], x, 1.0)
    rows.put(demand, u, 1.0)

    pair = j * len(instances.gpu_names) + k  # of a triple
    pairs, pair_of = np.unique(pair, return_inverse=True)
    if deployed is None:
        rows.put(rows.add(len(pairs), -np.inf, 1.0)[pair_of], w, 1.0)
        link = rows.add(len(cell), -np.inf, 0.0)
        rows.put(link, x, 1.0)
        rows.put(link, w[t], -most[i, t])
    _capacity_rows(rows, kv, room, most * usable, x, w, i, t)
    _capacity_rows(rows, np.broadcast_to(compute, kv.shape), power, most * usable, x, w, i, t)

    unit = _unit(f.storage_capacity)
    rows.put(rows.add(1, -np.inf, f.storage_capacity / unit), w, f.weight_memory[j] / unit)
    unit = _unit(f.budget)
    money = rows.add(1, -np.inf, f.budget / unit)
    rows.put(money, w, deploy_cost / unit)
    rows.put(money, x, data_cost[i] / unit)

    most_routes = int(f.max_routes) if 0 < f.max_routes < len(pairs) else len(pairs)
    cell_pair = i * len(pairs) + pair_of[t]
    used, used_of = np.unique(cell_pair, return_inverse=True)  # (type, pair) combinations that exist
    used_type = used // max(len(pairs), 1)
    for limit, nominal, excess, gamma, weight in (
        (f.delay_threshold, nominal_d, excess_d, float(gamma_d), delay_weight),
        (f.error_threshold, nominal_e, excess_e, float(gamma_e), np.zeros(types)),
    ):
        unit = _unit(limit)
        row = rows.add(types, -np.inf, 0.0)
        if gamma >= most_routes:  # every pair that can serve may deviate: the worst case is the plain sum
            nominal = nominal + excess
            cost[1] = cost[1] + weight[i] * excess
        elif gamma > _NEGLIGIBLE:
            scale = np.ones(types)
            np.maximum.at(scale, i, excess)
            level = new_columns(weight * scale * gamma, np.inf)
            above = new_columns((weight * scale)[used_type], np.inf)
            rows.put(row, level, scale * gamma / unit)
            rows.put(row[used_type], above, scale[used_type] / unit[used_type])
            worst = rows.add(len(used), -np.inf, 0.0)
            rows.put(worst[used_of], x, excess / scale[i])
            rows.put(worst, level[used_type], -1.0)
            rows.put(worst, above, -1.0)
        rows.put(row[i], x, (nominal - limit[i]) / unit[i])

    binaries = np.zeros((0, 3), np.int64)
    first_route = columns
    if most_routes < len(pairs) and routed is None:
        used_pair = pairs[used % len(pairs)]
        binaries = np.stack([used_type, *np.divmod(used_pair, len(instances.gpu_names))], axis=1)
        z = new_columns(np.zeros(len(used)), 1.0, whole=True)
        serve = rows.add(len(used), -np.inf, 0.0)
        rows.put(serve[used_of], x, 1.0)
        rows.put(serve, z, -1.0)
        rows.put(rows.add(types, -np.inf, float(most_routes))[used_type], z, 1.0)
    if measure_excess:
        cost = [np.zeros_like(c) for c in cost]
        over = new_columns(np.ones(types), 1.0)
        row = rows.add(types, -np.inf, float(f.unmet_cap))
        rows.put(row, u, 1.0)
        rows.put(row, over, -1.0)

    costs = np.concatenate(cost)
    costs[np.abs(costs) < 1e-100] = 0.0  # HiGHS 1.16 answers wrongly to costs near the smallest float
    return Formulation(
        cost=costs,
        lower=np.concatenate(lower),
        upper=np.concatenate(upper),
        integer=np.concatenate(integer),
        triple=triple,
        cell=cell,
        types=types,
        route=binaries,
        first_route=first_route,
        **rows.arrays(),
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
) -> None:
    """sum_i demand[i,t] x[i,t] <= capacity[t] w[t], for the triples where it can bind."""
    can_bind = (demand * most).sum(0) > capacity * (1.0 - 1e-12)
    number = np.full(len(w), -1)
    number[can_bind] = rows.add(int(can_bind.sum()), -np.inf, 0.0)
    unit = _unit(capacity)
    inside = can_bind[t]
    rows.put(number[t[inside]], x[inside], demand[i[inside], t[inside]] / unit[t[inside]])
    rows.put(number[can_bind], w[can_bind], -(np.maximum(capacity, 0.0) / unit)[can_bind])


def _shares(formulation: Formulation, columns: np.ndarray) -> np.ndarray:
    """The shares of a solution, (I,T)."""
    shares = np.zeros((formulation.types, len(formulation.triple)))
    found = columns[formulation.first_share : formulation.first_unmet]
    shares[formulation.cell[:, 0], formulation.cell[:, 1]] = found
    return shares


def read_plan(formulation: Formulation, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triples deployed and routes used in a solution: (D,3) positions and bool (I,D); idle pairs are left out."""
    share = _shares(formulation, columns)
    on = (columns[: formulation.first_share] > 0.5) & (share > _NEGLIGIBLE).any(0)
    return formulation.triple[on], share[:, on] > _NEGLIGIBLE


def to_plan(instances: Instances, b: int, formulation: Formulation, columns: np.ndarray) -> Plan:
    """The plan by name of a solution whose w are whole; shares below 1e-9 are left to ``unmet``."""
    f = instances.one(b)
    shares = _shares(formulation, columns)
    shares = np.where(shares > _NEGLIGIBLE, np.minimum(shares, 1.0), 0.0)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1.0)
    unmet = np.maximum(1.0 - shares.sum(1), 0.0)
    unmet[unmet < 1e-12] = 0.0
    used = [t for t in range(len(formulation.triple)) if columns[t] > 0.5 and shares[:, t].any()]
    names = {
        t: (instances.model_names[j], instances.gpu_names[k])
        for t, (j, k, _) in enumerate(formulation.triple)
    }
    return Plan(
        instance=b,
        deployments=tuple(Deployment(*names[t], int(f.tp_degree[formulation.triple[t, 2]])) for t in used),
        routes=tuple(
            Route(query, *names[t], float(shares[i, t]))
            for i, query in enumerate(instances.query_names)
            for t in used
            if shares[i, t] > 0
        ),
        unmet={q: float(unmet[i]) for i, q in enumerate(instances.query_names)},
    )
