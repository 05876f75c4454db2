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

Where a pair may have several replicas (MODEL section 9) each triple has an integer r[t] too, r[t] <= R w[t]; where it
may not, r is w and nothing is added. The link is to r, and only of types that one replica can carry whole: what it
carries of the others alone its capacities' rows say. The search is faster with these rows than with more.

          x[i,t] <= most[i,t] r[t]                                     link
          sum_i kv[i,j] x[i,t] <= (C_k n - B_j) r[t]                   memory
          sum_i compute[i] x[i,t] <= P_k n r[t]                        compute
          sum_i l[i,t] x[i,t] + Gamma t[t] + sum_i sigma[i,t] <= U r[t]               throughput
          lh[i,t] x[i,t] <= t[t] + sigma[i,t]
          sum_t n r[t] <= quota, over the triples of a device          quota

A promise that every pair keeps alone in its worst case is kept by every routing, as W(a, Gamma) <= min(Gamma, 1) sum a:
of a fleet, such a type has no row, and an adversary only where its delay costs.

Rent is paid for r, storage of weights for w. No triple gets more replicas than serve every type whole: more of them
only cost rent.

Plans of more than a given number of pairs (`Beyond`) are those with sum w >= that number + 1; a binary e that meets
this and all demand at a given cost keeps the MILP feasible, so that its bound can be read whatever happens.

Rows are scaled by their natural unit and shares by the most a triple can take, so that coefficients are near 1. In
a MILP coefficients span at most `RANGE` (`solvers.sparse`): its optimum is then a bound all the same, and the routing
of a plan is solved again without this.

Each family of constraints is one function below, named as in MODEL section 5: a new family is one more of them and one
line in `assemble`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_columns import plan_from_shares
from rodiu_jax.model.slots import join_slots
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE, NEGLIGIBLE_UNMET
from solvers.sparse import RANGE, SparseArrays, SparseProgram
from solvers.terms import Fleet, Terms, collect

_SURELY_BINDS = 1e-9
"""By how much more, relative, a type must need than one replica has for the rows of capacities to link it."""


@dataclass(frozen=True)
class Beyond:
    """Only plans that deploy more than ``pairs`` pairs, or none of them at ``cost`` ($ per period)."""

    pairs: int
    cost: float


class Columns(NamedTuple):
    """Where the columns of `Formulation` are; empty where a program has none of the kind."""

    deployed: slice  # w, T
    share: slice  # x, X
    unmet: slice  # u, I
    route: slice  # z, Z
    nothing: slice  # e, 0 or 1: none of the plans meant, at a given cost
    replicas: Int[np.ndarray, " T"]  # r of each triple; its w where a plan has no choice


class RowNumbers(NamedTuple):
    """Where the rows of `Formulation` are; ``types`` I, ``triples`` T, ``serving`` S pairs that can serve a type."""

    demand: Int[np.ndarray, " I"]
    link: Int[np.ndarray, " Y"]  # of the cells linked, all X without replicas; empty where all w are fixed
    memory: Int[np.ndarray, " T"]  # -1 where the row cannot bind and is left out
    compute: Int[np.ndarray, " T"]  # likewise
    storage: Int[np.ndarray, " 1"]
    budget: Int[np.ndarray, " 1"]
    delay: Int[np.ndarray, " I"]  # -1 where no routing breaks the promise
    error: Int[np.ndarray, " I"]  # likewise
    delay_worst: Int[np.ndarray, " S"]  # -1 of types without; empty where the worst case needs no variables
    error_worst: Int[np.ndarray, " S"]  # likewise
    serving: Int[np.ndarray, "S 2"]  # type and pair of each
    throughput: Int[np.ndarray, " T"]  # -1 where the row cannot bind
    load_worst: Int[np.ndarray, " L"]  # of the cells whose extra load needs variables
    load_cells: Int[np.ndarray, "L 2"]  # type and triple of each
    quota: Int[np.ndarray, " K"]  # of the device whose first configuration is k; -1 where it cannot bind


@dataclass(frozen=True)
class Formulation(SparseArrays):
    """A program, and what its columns and rows mean.

    Attributes:
      triple: positions (j, k, n) of the triples kept, one per w.
      cell: the (i, t) of the shares; ``route``: the (i, j, k) of the route binaries.
      columns, rows: where is what; after u the columns are the worst-case and route variables.
    """

    triple: Int[np.ndarray, "T 3"]
    cell: Int[np.ndarray, "X 2"]
    types: int
    route: Int[np.ndarray, "Z 3"]
    columns: Columns
    rows: RowNumbers


def build(
    instances: Instances,
    b: int,
    *,
    deployed: np.ndarray | None = None,
    replicas: np.ndarray | None = None,
    routed: np.ndarray | None = None,
    measure_excess: bool = False,
) -> Formulation:
    """Build the robust MILP of scenario ``b``.

    Args:
      deployed: (D,3) positions (j, k, n): only these triples, their w fixed to 1 (a routing LP).
      replicas: (D,) of each of them, by default 1.
      routed: bool (I,D), with ``deployed``: the routes allowed; the route limit then needs no binaries.
      measure_excess: minimise the sum of unmet shares above the cap instead of cost, with the cap taken off:
        its optimum is 0 exactly when the scenario is feasible.
    """
    triple = None if deployed is None else np.asarray(deployed, dtype=np.int64).reshape(-1, 3)
    return assemble(
        collect(instances, b, triple, replicas),
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
    exact: bool = False,
    routed: np.ndarray | None = None,
    measure_excess: bool = False,
    beyond: Beyond | None = None,
    elastic: float | None = None,
) -> Formulation:
    """Assemble the robust MILP over given triples, one family of constraints after the other.

    Args:
      gpus: number of GPU configurations, K.
      fixed: all w are 1, and all r those of ``terms`` (a routing LP), coefficients as they are.
      exact: coefficients as they are, whatever their range: for a linear program whose multipliers are wanted.
      routed: bool (I,T), the routes allowed; a limit on their number is then left to whoever chose them.
      measure_excess: as `build`.
      beyond: only plans of many pairs.
      elastic: $ for each unmet share above the cap, which is then no hard limit: a linear program with a solution.
    """
    soft_cap = measure_excess or elastic is not None
    model = _Model(terms, fixed=fixed, exact=exact or fixed, routed=routed, soft_cap=soft_cap)
    demand = _add_demand(model)
    link = np.zeros(0, np.int64)
    if not fixed:
        _add_degree(model)
        link = _add_link(model)
        _add_replicas(model)
    memory = _add_capacity(model, terms.kv, terms.room)
    compute = _add_capacity(model, terms.work, terms.power)
    storage = _add_storage(model)
    budget = _add_budget(model)
    delay, delay_worst = _add_promise(model, terms.delay_limit, model.delay, terms.delay_weight)
    error, error_worst = _add_promise(model, terms.error_limit, model.error, np.zeros(terms.types))
    throughput, quota = np.full(len(terms.pair), -1), np.full(gpus, -1)
    load_worst, load_cells = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
    if terms.fleet is not None:
        throughput, load_worst, load_cells = _add_throughput(model, terms.fleet)
        quota = _add_quota(model, terms.fleet)
    route, pairs_routed = slice(0, 0), np.zeros((0, 3), np.int64)
    if 0 < terms.max_routes < len(model.pairs) and routed is None:
        route, pairs_routed = _add_routes(model, gpus)
    if measure_excess:
        model.program.drop_costs()
    if soft_cap:
        _add_unmet(model, 1.0 if elastic is None else elastic)
    nothing = slice(0, 0) if beyond is None else _add_beyond(model, beyond, demand)
    return Formulation(
        triple=terms.triple,
        cell=model.cell,
        types=terms.types,
        route=pairs_routed,
        columns=Columns(_span(model.w), _span(model.x), _span(model.u), route, nothing, model.r),
        rows=RowNumbers(
            demand,
            link,
            memory,
            compute,
            storage,
            budget,
            delay,
            error,
            delay_worst,
            error_worst,
            model.serving,
            throughput,
            load_worst,
            load_cells,
            quota,
        ),
        **vars(model.program.arrays(bounded=not model.exact)),
    )


def _span(columns: np.ndarray) -> slice:
    return slice(int(columns[0]), int(columns[-1]) + 1) if len(columns) else slice(0, 0)


class _Deviating(NamedTuple):
    """Delay or error of each cell (X,): the sure part, the excess, the adversary's budget.

    ``plain``: the part of the excess that the sure part contains; None where the worst case needs variables.
    """

    sure: np.ndarray
    excess: np.ndarray
    gamma: float
    plain: float | None


class _Model:
    """A program under construction: its columns w, r, x, u and where they are; the families below add to it.

    Attributes:
      several: bool (T,), the triples with an r of their own.
      hold, rent: what w and r cost; of the others w costs both.
    """

    def __init__(
        self, terms: Terms, *, fixed: bool, exact: bool, routed: np.ndarray | None, soft_cap: bool
    ) -> None:
        self.terms, self.exact = terms, exact
        self.most = terms.most if exact else np.maximum(terms.most, 1.0 / RANGE)  # I,T
        self.usable = terms.most > (NEGLIGIBLE_SHARE if exact else 0.0)  # I,T
        if routed is not None:
            self.usable &= routed
        self.cell = np.argwhere(self.usable)
        i, t = self.i, self.t = self.cell.T
        self.pairs, pair_of = np.unique(terms.pair, return_inverse=True)
        self.pair_of = pair_of  # T
        serving, self.serving_of = np.unique(i * len(self.pairs) + pair_of[t], return_inverse=True)
        type_of, pair_at = np.divmod(serving, max(len(self.pairs), 1))
        self.serving = np.stack([type_of, self.pairs[pair_at] if len(self.pairs) else pair_at], axis=1)

        self.delay = self._deviating(terms.nominal_delay, terms.excess_delay, terms.gamma_delay)
        self.error = self._deviating(terms.nominal_error, terms.excess_error, terms.gamma_error)
        weight = terms.delay_weight[i]
        cost = terms.data_cost[i] + weight * terms.nominal_delay[i, t]
        if self.delay.plain is not None:
            cost = cost + weight * self.delay.plain * self.delay.excess
        most = self.most[i, t]
        self.program = SparseProgram()
        self.several = np.zeros(len(terms.pair), bool) if terms.fleet is None else terms.fleet.replicas > 1
        self.hold, self.rent = terms.deploy, np.zeros(0)
        if terms.fleet is not None:
            self.hold = np.where(self.several, terms.fleet.hold, terms.deploy)
            self.rent = terms.fleet.rent[self.several]
        self.w = self.program.add_columns(self.hold, 1.0, lower=float(fixed), integer=not fixed)
        # Where multipliers are wanted no bound of a column may take a part of those of its row (`_add_link`).
        upper = np.inf if exact and not fixed else most
        self.x = self.program.add_columns(cost, upper, unit=1.0 if fixed else most)
        self.u = self.program.add_columns(terms.unmet_cost, 1.0 if soft_cap else terms.unmet_cap)
        self.r = self.w.copy()
        if terms.fleet is not None and self.several.any():
            count = terms.fleet.replicas[self.several].astype(np.float64)
            least = count if fixed else np.zeros(len(count))
            self.r[self.several] = self.program.add_columns(self.rent, count, lower=least, integer=not fixed)

    def _deviating(self, nominal: np.ndarray, excess: np.ndarray, gamma: float) -> _Deviating:
        sure, excess = nominal[self.i, self.t], excess[self.i, self.t]
        plain = self.terms.plain(gamma)
        return _Deviating(sure if plain is None else sure + plain * excess, excess, gamma, plain)


def _add_demand(model: _Model) -> np.ndarray:
    """Add sum_t x[i,t] + u[i] = 1."""
    program = model.program
    row = program.add_rows(model.terms.types, 1.0, 1.0)
    program.put(row[model.i], model.x, 1.0)
    program.put(row, model.u, 1.0)
    return row


def _add_degree(model: _Model) -> None:
    """Add sum_n w[j,k,n] <= 1."""
    row = model.program.add_rows(len(model.pairs), -np.inf, 1.0)
    model.program.put(row[model.pair_of], model.w, 1.0)


def _add_link(model: _Model) -> np.ndarray:
    """Add x[i,t] <= most[i,t] r[t] where no row of a capacity says as much; return its rows (Y,)."""
    most = model.most[model.i, model.t]
    linked = np.ones(len(most), bool)
    if model.terms.fleet is not None:
        whole = model.terms.fleet.each[model.i, model.t] >= most * (1.0 - _SURELY_BINDS)
        linked = whole | ~model.several[model.t]
    most = most[linked]
    row = model.program.add_rows(len(most), -np.inf, 0.0, most)
    model.program.put(row, model.x[linked], 1.0)
    model.program.put(row, model.r[model.t[linked]], -most)
    return row


def _add_capacity(model: _Model, demand: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Add sum_i demand[i,t] x[i,t] <= capacity[t] r[t] where it can bind; return row numbers (T,) or -1."""
    i, t, program = model.i, model.t, model.program
    can_bind = (demand * (model.most * model.usable)).sum(0) > capacity * (1.0 - 1e-12)
    number = np.full(len(model.w), -1)
    number[can_bind] = program.add_rows(int(can_bind.sum()), -np.inf, 0.0, capacity[can_bind])
    inside = can_bind[t]
    program.put(number[t[inside]], model.x[inside], demand[i[inside], t[inside]])
    program.put(number[can_bind], model.r[can_bind], -capacity[can_bind])
    return number


def _add_replicas(model: _Model) -> None:
    """Add r[t] <= R w[t]."""
    fleet, program, at = model.terms.fleet, model.program, np.flatnonzero(model.several)
    if fleet is None:
        return
    most = fleet.replicas[at].astype(np.float64)
    row = program.add_rows(len(at), -np.inf, 0.0, most)
    program.put(row, model.r[at], 1.0)
    program.put(row, model.w[at], -most)


def _add_throughput(model: _Model, fleet: Fleet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the load of each triple <= U r[t] where it can bind; return row numbers (T,) or -1, and the adversary's.

    The adversary picks types of a triple: the worst case is a plain sum where it picks none, or all of them. Elsewhere
    it has rows (L,), one for each cell (L,2).
    """
    program, i, t = model.program, model.i, model.t
    shares = model.most * model.usable
    can_bind = fleet.worst_load(shares) > fleet.utilization * (1.0 - 1e-12)
    number = np.full(len(model.w), -1)
    number[can_bind] = program.add_rows(int(can_bind.sum()), -np.inf, 0.0, fleet.utilization)
    program.put(number[can_bind], model.r[can_bind], -fleet.utilization)

    part = fleet.plain(shares)
    inside = can_bind[t]
    load = fleet.load[i, t] + np.nan_to_num(part)[t] * fleet.load_excess[i, t]  # X
    program.put(number[t[inside]], model.x[inside], load[inside])

    hard = can_bind & np.isnan(part)
    cells = np.flatnonzero(hard[t] & (fleet.load_excess[i, t] > 0))
    excess = fleet.load_excess[i[cells], t[cells]]
    scale = np.zeros(len(model.w))
    np.maximum.at(scale, t[cells], excess * model.most[i[cells], t[cells]])
    level = np.zeros(len(model.w), np.int64)
    level[hard] = program.add_columns(np.zeros(int(hard.sum())), unit=scale[hard])
    above = program.add_columns(np.zeros(len(cells)), unit=scale[t[cells]])
    program.put(number[hard], level[hard], fleet.gamma_load)
    program.put(number[t[cells]], above, 1.0)
    worst = program.add_rows(len(cells), -np.inf, 0.0, scale[t[cells]])
    program.put(worst, model.x[cells], excess)
    program.put(worst, level[t[cells]], -1.0)
    program.put(worst, above, -1.0)
    return number, worst, model.cell[cells]


def _add_quota(model: _Model, fleet: Fleet) -> np.ndarray:
    """Add sum n r[t] <= quota of each device where it can bind; return row numbers (K,) or -1."""
    largest = np.zeros(len(fleet.quota))
    for pair in np.unique(model.pair_of):  # a pair has one degree
        mine = model.pair_of == pair
        largest[fleet.device[mine][0]] += (fleet.gpus * fleet.replicas)[mine].max()
    can_bind = largest > fleet.quota * (1.0 - 1e-12)
    number = np.full(len(fleet.quota), -1)
    limit = fleet.quota[can_bind]
    number[can_bind] = model.program.add_rows(len(limit), -np.inf, limit, limit)
    inside = can_bind[fleet.device]
    model.program.put(number[fleet.device[inside]], model.r[inside], fleet.gpus[inside])
    return number


def _add_storage(model: _Model) -> np.ndarray:
    """Add sum_t B_j w[t] <= C_s."""
    limit = model.terms.storage
    row = model.program.add_rows(1, -np.inf, limit, limit)
    model.program.put(row, model.w, model.terms.weights)
    return row


def _add_budget(model: _Model) -> np.ndarray:
    """Add rental + storage cost <= budget."""
    limit = model.terms.budget
    row = model.program.add_rows(1, -np.inf, limit, limit)
    model.program.put(row, model.w, model.hold)
    model.program.put(row, model.r[model.several], model.rent)
    model.program.put(row, model.x, model.terms.data_cost[model.i])
    return row


def _add_promise(
    model: _Model, limit: np.ndarray, of: _Deviating, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add the worst case of each type <= limit[i] sum_t x[i,t]; return its rows (I,) and the adversary's (S,), or -1.

    Types that cannot break the promise have none in searches for fleets. Others gain nothing from it.

    Args:
      weight: (I,) $ per unit of the worst case.
    """
    program, types = model.program, model.terms.types
    alone = of.sure if of.plain is not None else of.sure + min(of.gamma, 1.0) * of.excess  # X
    broken = np.full(types, model.exact or model.terms.fleet is None)
    np.logical_or.at(broken, model.i, alone > limit[model.i])
    number = np.full(types, -1)
    number[broken] = program.add_rows(int(broken.sum()), -np.inf, 0.0, limit[broken])
    inside = broken[model.i]
    program.put(number[model.i[inside]], model.x[inside], (of.sure - limit[model.i])[inside])
    if of.plain is not None:
        return number, np.zeros(0, np.int64)

    adverse = broken | (weight > 0)
    scale = np.ones(types)
    np.maximum.at(scale, model.i, of.excess)
    level = np.full(types, -1)
    level[adverse] = program.add_columns((weight * of.gamma)[adverse], unit=scale[adverse])
    program.put(number[broken], level[broken], of.gamma)
    served, cells = model.serving[:, 0], adverse[model.i]  # S and X
    some = adverse[served]
    above, worst = np.full(len(served), -1), np.full(len(served), -1)
    above[some] = program.add_columns(weight[served[some]], unit=scale[served[some]])
    counted = broken[served]
    program.put(number[served[counted]], above[counted], 1.0)
    worst[some] = program.add_rows(int(some.sum()), -np.inf, 0.0, scale[served[some]])
    program.put(worst[model.serving_of[cells]], model.x[cells], of.excess[cells])
    program.put(worst[some], level[served[some]], -1.0)
    program.put(worst[some], above[some], -1.0)
    return number, worst


def _add_routes(model: _Model, gpus: int) -> tuple[slice, np.ndarray]:
    """Add sum_n x[i,t] <= z[i,p] and sum_p z[i,p] <= R; return the columns of z and their (i, j, k)."""
    program, (types, pairs) = model.program, model.serving.T
    z = program.add_columns(np.zeros(len(types)), 1.0, integer=True)
    row = program.add_rows(len(types), -np.inf, 0.0)
    program.put(row[model.serving_of], model.x, 1.0)
    program.put(row, z, -1.0)
    count = program.add_rows(model.terms.types, -np.inf, float(model.terms.max_routes))
    program.put(count[types], z, 1.0)
    return _span(z), np.stack([types, *np.divmod(pairs, gpus)], axis=1)


def _add_unmet(model: _Model, price: float) -> None:
    """Add u[i] <= u_max + excess[i], where an excess costs ``price``."""
    excess = model.program.add_columns(np.full(model.terms.types, price), 1.0)
    row = model.program.add_rows(model.terms.types, -np.inf, model.terms.unmet_cap)
    model.program.put(row, model.u, 1.0)
    model.program.put(row, excess, -1.0)


def _add_beyond(model: _Model, beyond: Beyond, demand: np.ndarray) -> slice:
    """Add sum w >= pairs + 1, or e = 1, which meets all demand too; return the column of e."""
    program, least = model.program, beyond.pairs + 1.0
    nothing = program.add_columns(np.array([beyond.cost]), 1.0, integer=True)
    program.put(demand, nothing, 1.0)
    row = program.add_rows(1, least, np.inf)
    program.put(row, model.w, 1.0)
    program.put(row, nothing, least)
    several = np.flatnonzero(model.several)
    row = program.add_rows(len(several), -np.inf, 0.0)  # else a pair without replicas would count
    program.put(row, model.w[several], 1.0)
    program.put(row, model.r[several], -1.0)
    return _span(nothing)


def read_shares(formulation: Formulation, columns: np.ndarray) -> Float64[np.ndarray, "I T"]:
    """Read the shares of a solution."""
    shares = np.zeros((formulation.types, len(formulation.triple)))
    shares[formulation.cell[:, 0], formulation.cell[:, 1]] = columns[formulation.columns.share]
    return shares


def _replicas(formulation: Formulation, columns: np.ndarray) -> Int[np.ndarray, " T"]:
    """Read the replicas of each triple; 1 where it is not deployed."""
    return np.maximum(np.rint(columns[formulation.columns.replicas]), 1.0).astype(np.int64)


def read_routes(formulation: Formulation, columns: np.ndarray) -> Bool[np.ndarray, "I T"]:
    """Read the routes used in a solution.

    Where routes have binaries, these count: HiGHS lets a share of its tolerance pass on a route that is closed.
    """
    used = read_shares(formulation, columns) > NEGLIGIBLE_SHARE
    if len(formulation.route):
        open_route = np.zeros((len(used), *formulation.triple[:, :2].max(0) + 1), bool)
        open_route[tuple(formulation.route[columns[formulation.columns.route] > 0.5].T)] = True
        used &= open_route[:, formulation.triple[:, 0], formulation.triple[:, 1]]
    return used


class FoundPlan(NamedTuple):
    """What a solution deploys, and the routes that it uses."""

    deployed: Int[np.ndarray, "D 3"]  # positions (j, k, n)
    routed: Bool[np.ndarray, "I D"]
    replicas: Int[np.ndarray, " D"]


def read_plan(formulation: Formulation, columns: np.ndarray) -> FoundPlan:
    """Read the triples deployed, their replicas, and the routes used in a solution.

    Idle pairs are left out.
    """
    used = read_routes(formulation, columns)
    on = (columns[formulation.columns.deployed] > 0.5) & used.any(0)
    return FoundPlan(formulation.triple[on], used[:, on], _replicas(formulation, columns)[on])


def to_plan(instances: Instances, b: int, formulation: Formulation, columns: np.ndarray) -> Plan:
    """Name the plan of a solution whose w are whole; negligible shares are left to ``unmet``, idle pairs out."""
    shares = read_shares(formulation, columns)
    shares = np.where(shares > NEGLIGIBLE_SHARE, np.minimum(shares, 1.0), 0.0)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1.0)
    unmet = np.maximum(1.0 - shares.sum(1), 0.0)
    unmet[unmet < NEGLIGIBLE_UNMET] = 0.0
    used = (columns[formulation.columns.deployed] > 0.5) & shares.any(0)
    model, gpu, degree = formulation.triple[used].T
    slots = join_slots(model, gpu, degree, instances.names)
    replicas = _replicas(formulation, columns)[used]
    return plan_from_shares(instances.names, slots, shares[:, used], unmet, replicas=replicas, instance=b)
