"""How much traffic a fixed deployment can take: one linear program in shares and the inverse of the factor.

With all arrival rates multiplied by F the traffic of a type that a pair serves is z = F x. Every limit that the traffic
loads is linear in z, and the promises are homogeneous in it, so with g = 1 / F

    min  g
    s.t. sum_d x[i,d] = 1                                                  everyone is served
         sum_i kv[i,d] x <= replicas[d] room[d] g                          memory[model,gpu]
         sum_i l[i,d] x + W_i(lh[i,d] x, Gamma_q) <= U replicas[d] g       throughput[model,gpu]
         sum_id data_cost[i] x <= (budget - rent - weights) g              budget
         worst delay and error of each type <= its limit                   delay, error
         x <= y, sum_d y <= R, y binary                                    routes, where R > 0

g = 0 says that no traffic fills the deployment. The multiplier of a row that g stands in, times the row's limit, is the
part that the limit has in g; these parts sum to 1. No JAX here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import highspy
import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, deployed_triples
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, NEGLIGIBLE_SHARE
from solvers.highs import SolverFailed, run_highs
from solvers.sparse import SparseArrays, SparseProgram
from solvers.terms import ByCell, ByTriple, collect

_LEAST_PART = 1e-6
"""Limits with a smaller part in the headroom are not full: what is left of a multiplier is rounding."""


@dataclass(frozen=True)
class Headroom:
    """What `find_headroom` found.

    Attributes:
      factor: the largest factor on all arrival rates at which everyone is served; inf where no traffic fills the
        deployment, 0 where it serves some type at no rate at all.
      full: the limits that are full at that factor, the one that holds it most first, by full name; where the factor
        is 0, what is in the way.
    """

    factor: float
    full: tuple[str, ...]


def find_headroom(instances: Instances, b: int, deployment: Deployment) -> Headroom:
    """Find the largest factor on all arrival rates at which a deployment still serves everyone, routed anew.

    Memory, throughput in its worst case, promises in theirs, the limit on routes and the budget with the cost of stored
    data count. ``compute`` is left out, as it knows no rate; so are limits that no traffic moves (storage of weights,
    quotas, replicas). ``unmet_cap`` does not matter: everyone is served.

    Raises:
      InputError: no such scenario.
      SolverFailed: HiGHS ended without an answer.
    """
    if not deployment:
        return Headroom(0.0, tuple(f"demand[{name}]" for name in instances.query_names))
    program = _Program(instances, b, deployment)
    if program.misfits:
        return Headroom(0.0, program.misfits)
    answer = run_highs(program.assemble(), mip_rel_gap=1e-9, mip_abs_gap=0.0)
    if answer.status == highspy.HighsModelStatus.kInfeasible:
        return Headroom(0.0, program.explain())
    if program.limits_routes and answer.columns is not None:
        # Multipliers are those of a linear program: the one over the routes that were chosen.
        answer = run_highs(program.assemble(program.read_routes(answer.columns)))
    if answer.columns is None or answer.row_dual is None:
        raise SolverFailed(f"HiGHS ended with {answer.status} when asked for headroom")
    inverse = float(answer.columns[0])
    if inverse <= NEGLIGIBLE_SHARE:
        return Headroom(math.inf, ())
    return Headroom(1.0 / inverse, program.name_full(answer.row_dual))


class _Program:
    """The program of a deployment of D pairs: its coefficients, and how to read its solution.

    Attributes:
      misfits: limits that are broken whatever the traffic: weights that no GPU holds, rent above the budget.
      limits_routes: at most so many pairs may serve a type that it matters which.
    """

    def __init__(self, instances: Instances, b: int, deployment: Deployment) -> None:
        self.instances = instances
        self.pairs = [f"{d.model},{d.gpu}" for d in deployment]
        counts = np.array([d.replicas for d in deployment], np.int64)
        triple = deployed_triples(instances, deployment)
        self.terms = terms = collect(instances, b, triple, counts)
        fields, fleet = instances.one(b), terms.fleet
        gpus = fields.tp_degree[triple[:, 2]]
        free = fields.gpu_memory[triple[:, 1]] * gpus - terms.weights  # D, GB of one replica
        rent = fields.rental_hours * float((fields.gpu_price[triple[:, 1]] * gpus * counts).sum())
        weights = fields.rental_hours * fields.storage_price * float(terms.weights.sum())
        self.money = float(terms.budget - rent - weights)
        self.room = np.maximum(free, 0.0) * counts
        self.utilization = counts * (1.0 if fleet is None else fleet.utilization)
        self.load, self.extra = (
            (np.zeros_like(terms.kv),) * 2 if fleet is None else (fleet.load, fleet.load_excess)
        )
        self.gamma_load = 0.0 if fleet is None else fleet.gamma_load
        self.misfits = tuple(
            f"memory[{pair}]"
            for pair, left, held in zip(self.pairs, free, fields.gpu_memory[triple[:, 1]] * gpus, strict=True)
            if left < -MARGIN_TOLERANCE * held
        )
        if self.money < -MARGIN_TOLERANCE * terms.budget:
            self.misfits += ("budget",)
        self.money = max(self.money, 0.0)
        self.limits_routes = 0 < terms.max_routes < len(deployment)

    @property
    def usable(self) -> Bool[np.ndarray, "I D"]:
        """True where a pair can serve some of a type at all."""
        most = 1.0 / NEGLIGIBLE_SHARE
        usable = (self.load <= most * self.utilization) & (self.terms.kv <= most * self.room)
        return usable & (self.terms.data_cost <= most * self.money)[:, None]

    def assemble(
        self, routed: Bool[np.ndarray, "I D"] | None = None, *, explaining: bool = False
    ) -> SparseArrays:
        """Assemble the program.

        Args:
          routed: the routes allowed, whose number then needs no binaries.
          explaining: leave out what traffic loads, and pay for broken promises and unserved types instead of g.
        """
        program, terms = SparseProgram(), self.terms
        usable = self.usable if routed is None else self.usable & routed
        self.i, self.d = np.nonzero(usable)
        inverse = program.add_columns(np.array([0.0 if explaining else 1.0]))
        x = program.add_columns(np.zeros(len(self.i)), 1.0)
        demand = program.add_rows(terms.types, 1.0, 1.0)
        program.put(demand[self.i], x, 1.0)
        promises = [
            self._add_promise(program, x, *promise)
            for promise in (
                (terms.delay_limit, terms.nominal_delay, terms.excess_delay, terms.gamma_delay),
                (terms.error_limit, terms.nominal_error, terms.excess_error, terms.gamma_error),
            )
        ]
        if explaining:
            alone = np.where(
                usable.any(1), 0.0, 1.0
            )  # a type stays unserved only where no pair takes any of it
            self.slack = [program.add_columns(np.ones(terms.types), alone)]
            program.put(demand, self.slack[0], 1.0)
            for row, limit in zip(promises, (terms.delay_limit, terms.error_limit), strict=True):
                self.slack.append(program.add_columns(np.ones(terms.types)))
                program.put(row, self.slack[-1], -np.where(limit > 0, limit, 1.0))
        else:
            self._add_limits(program, x, inverse)
        if self.limits_routes and routed is None:
            self._add_routes(program, x)
        return program.arrays(bounded=False)

    def _add_promise(
        self,
        program: SparseProgram,
        x: np.ndarray,
        limit: np.ndarray,
        nominal: ByCell,
        excess: ByCell,
        gamma: float,
    ) -> Int[np.ndarray, " I"]:
        """Add the worst case of each type <= limit[i] sum_d x[i,d]; return its rows."""
        i, d = self.i, self.d
        row = program.add_rows(len(limit), -np.inf, 0.0, limit)
        program.put(row[i], x, nominal[i, d] - limit[i])
        self._add_adversary(program, x, row, i, excess, gamma)
        return row

    def _add_adversary(
        self,
        program: SparseProgram,
        x: np.ndarray,
        row: np.ndarray,
        of: np.ndarray,
        excess: ByCell,
        gamma: float,
    ) -> None:
        """Add W(excess x, gamma) to the left of rows: min of gamma t + sum sigma, t + sigma >= excess x.

        Args:
          row: of each adversary; ``of`` (X,) the adversary that a cell belongs to.
        """
        each = excess[self.i, self.d]
        cells = np.flatnonzero(each > 0)
        if gamma <= 0 or not len(cells):
            return
        scale = np.zeros(len(row))
        np.maximum.at(scale, of[cells], each[cells])
        mine = np.flatnonzero(scale > 0)
        level = np.zeros(len(row), np.int64)
        level[mine] = program.add_columns(np.zeros(len(mine)), unit=scale[mine])
        above = program.add_columns(np.zeros(len(cells)), unit=scale[of[cells]])
        program.put(row[mine], level[mine], gamma)
        program.put(row[of[cells]], above, 1.0)
        worst = program.add_rows(len(cells), -np.inf, 0.0, scale[of[cells]])
        program.put(worst, x[cells], each[cells])
        program.put(worst, level[of[cells]], -1.0)
        program.put(worst, above, -1.0)

    def _add_limits(self, program: SparseProgram, x: np.ndarray, inverse: np.ndarray) -> None:
        """Add what traffic loads; each row is divided by its limit, so that its multiplier is its part in g."""

        def add(names: list[str], limit: ByTriple) -> Int[np.ndarray, " M"]:
            rows = program.add_rows(len(names), -np.inf, 0.0, limit)
            program.put(rows, inverse, -limit)
            self.limit_rows = np.concatenate([self.limit_rows, rows])
            self.limit_names += names
            return rows

        i, d = self.i, self.d
        self.limit_rows, self.limit_names = np.zeros(0, np.int64), []
        memory = add([f"memory[{pair}]" for pair in self.pairs], self.room)
        program.put(memory[d], x, self.terms.kv[i, d])
        throughput = add([f"throughput[{pair}]" for pair in self.pairs], self.utilization)
        program.put(throughput[d], x, self.load[i, d])
        self._add_adversary(program, x, throughput, d, self.extra, self.gamma_load)
        budget = add(["budget"], np.array([self.money]))
        program.put(budget, x, self.terms.data_cost[i])

    def _add_routes(self, program: SparseProgram, x: np.ndarray) -> None:
        """Add x <= y and sum_d y <= R."""
        self.routes = program.add_columns(np.zeros(len(x)), 1.0, integer=True)
        row = program.add_rows(len(x), -np.inf, 0.0)
        program.put(row, x, 1.0)
        program.put(row, self.routes, -1.0)
        count = program.add_rows(self.terms.types, -np.inf, float(self.terms.max_routes))
        program.put(count[self.i], self.routes, 1.0)

    def read_routes(self, columns: Float64[np.ndarray, " C"]) -> Bool[np.ndarray, "I D"]:
        """Return the routes that a solution with y has chosen."""
        routed = np.zeros(self.load.shape, bool)
        routed[self.i, self.d] = columns[self.routes] > 0.5
        return routed

    def name_full(self, row_dual: Float64[np.ndarray, " R"]) -> tuple[str, ...]:
        """Name the limits that have a part in g, the largest first."""
        part = -row_dual[self.limit_rows]
        order = np.argsort(-part, kind="stable").tolist()
        return tuple(self.limit_names[at] for at in order if part[at] > _LEAST_PART)

    def explain(self) -> tuple[str, ...]:
        """Name what keeps the deployment from serving everyone at any rate: types, or their promises."""
        answer = run_highs(self.assemble(explaining=True), mip_rel_gap=1e-6)
        if answer.columns is None:
            raise SolverFailed(f"HiGHS ended with {answer.status} when asked what is in the way")
        families = ("demand", "delay", "error")
        return tuple(
            f"{family}[{name}]"
            for family, columns in zip(families, self.slack, strict=True)
            for name, value in zip(self.instances.query_names, answer.columns[columns], strict=True)
            if value > MARGIN_TOLERANCE
        )
