"""Shadow prices: the linear programs of a scenario, their multipliers, and what the dual function proves of them.

Two programs are solved, over triples t = (model, GPU, degree):

    routing     the deployment fixed (w = 1): what a plan's shares cost and which limits hold them
    relaxation  every triple open, 0 <= w <= 1, x[i,t] <= most[i,t] w[t]

The dual function (`rodiu_jax.certificates`, NumPy) at their multipliers is a bound on its own: of the plans with this
deployment, or of all plans. It is affine in every limit that stands on a right-hand side, so a price proves how little
a change can bring, and the optimum of the linear program, how much it does bring where the price holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rodiu_jax.certificates import dual_values
from rodiu_jax.decisions.diagnose.movable_limits import Limit
from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.fields import compute_demand, kv_demand, stored_data, tokens_per_query, worst_case_inputs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

Leaf = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(path, pairs, values) as `rodiu_jax.certificates.Certificate` holds them, values in float64."""


@dataclass(frozen=True)
class Multipliers:
    """Dual variables, all >= 0 but ``demand``; I types, T triples."""

    demand: np.ndarray  # I  $
    delay: np.ndarray  # I  $/ms
    error: np.ndarray  # I  $
    budget: float  # $/$
    storage: float  # $/GB
    unmet: np.ndarray  # I  $ per unit of the cap
    memory: np.ndarray  # T  $/GB
    compute: np.ndarray  # T  $/TFLOP
    delay_adversary: np.ndarray  # I,T  xi of the triple's pair
    error_adversary: np.ndarray  # I,T


@dataclass(frozen=True)
class Priced:
    """A linear program's optimum.

    Attributes:
      value: $ per period; inf where it has no solution.
      triple: (T,3) positions (model, GPU, degree).
      deployed: (T,) w; served: (I,) share of each type.
      multipliers: None without a solution.
    """

    value: float
    triple: np.ndarray
    deployed: np.ndarray
    served: np.ndarray
    multipliers: Multipliers | None

    def price(self, limit: Limit, instances: Instances, b: int) -> float:
        """What one unit more of a limit saves, $ per period and unit: the derivative of ``-value`` (the envelope)."""
        y = self.multipliers
        if y is None:
            return 0.0
        at = limit.position[0] if limit.position else 0
        if limit.constraint in ("memory", "compute"):
            gpus = np.asarray(instances.one(b).tp_degree)[self.triple[:, 2]] * self.deployed
            of = y.memory if limit.constraint == "memory" else y.compute
            return float((of * gpus)[self.triple[:, 1] == at].sum())
        if limit.constraint == "unmet":
            return float(y.unmet.sum())
        if limit.constraint in ("delay", "error"):
            return float(getattr(y, limit.constraint)[at] * self.served[at])
        return float(getattr(y, limit.constraint))


def routes_allowed(instances: Instances, b: int, plan: Plan) -> np.ndarray | None:
    """bool (I,D), the routes of the plan, where the scenario limits their number; None where it does not."""
    if int(instances.one(b).max_routes) == 0:
        return None
    used = {(r.query, r.model, r.gpu) for r in plan.routes if r.share > 0}
    return np.array(
        [[(q, d.model, d.gpu) in used for d in plan.deployments] for q in instances.query_names], bool
    )


class _Program:
    """Collects min cost @ v over rows of <=, in sparse form; each row is divided by its largest coefficient."""

    def __init__(self) -> None:
        self.cost: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.columns = 0
        self.rows = 0
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._limits: list[np.ndarray] = []

    def variables(self, cost: np.ndarray, upper: np.ndarray | float) -> np.ndarray:
        """Columns >= 0 in the shape of ``cost``."""
        count = cost.size
        self.cost.append(cost.ravel())
        self.upper.append(np.broadcast_to(upper, cost.shape).ravel())
        self.columns += count
        return np.arange(self.columns - count, self.columns).reshape(cost.shape)

    def at_most(self, limit: np.ndarray, *terms: tuple[np.ndarray, np.ndarray | float]) -> np.ndarray:
        """Rows, one per entry of ``limit``; each term is (columns, coefficients), the rows' axes first."""
        number = np.arange(self.rows, self.rows + limit.size).reshape(limit.shape)
        self.rows += limit.size
        self._limits.append(limit.ravel())
        for columns, value in terms:
            row = number.reshape(number.shape + (1,) * (columns.ndim - number.ndim))
            self._entries.append(
                tuple(
                    np.broadcast_to(a, columns.shape).ravel()
                    for a in (row, columns, np.asarray(value, np.float64))
                )  # type: ignore[arg-type]
            )
        return number

    def solve(
        self, lower: np.ndarray, equal: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Optimum, columns, multipliers of the rows (>= 0), of the equalities, of the upper bounds (>= 0).

        Args:
          lower: of every column.
          equal: (E,M) columns whose sum is 1.
        """
        from scipy.optimize import linprog
        from scipy.sparse import coo_array

        row, column, value = (np.concatenate(a) for a in zip(*self._entries, strict=True))
        scale = np.zeros(self.rows)
        np.maximum.at(scale, row, np.abs(value))
        scale = np.where(scale > 0, scale, 1.0)
        rows = coo_array((value / scale[row], (row, column)), (self.rows, self.columns)).tocsr()
        at = np.repeat(np.arange(len(equal)), equal.shape[1])
        sums = coo_array((np.ones(equal.size), (at, equal.ravel())), (len(equal), self.columns)).tocsr()
        answer = linprog(
            np.concatenate(self.cost),
            A_ub=rows,
            b_ub=np.concatenate(self._limits) / scale,
            A_eq=sums,
            b_eq=np.ones(len(equal)),
            bounds=np.stack([lower, np.concatenate(self.upper)], axis=1),
            method="highs-ds",
            options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
        )
        if answer.status == 2:
            nothing = np.zeros(0)
            return np.inf, nothing, nothing, nothing, nothing
        if answer.status != 0:
            raise WorkFailed(f"a linear program of the shadow prices ended with: {answer.message}")
        paid = np.maximum(-answer.ineqlin.marginals, 0.0) / scale
        return (
            float(answer.fun),
            answer.x,
            paid,
            answer.eqlin.marginals,
            np.maximum(-answer.upper.marginals, 0.0),
        )


def price(
    instances: Instances, b: int, *, deployed: np.ndarray | None = None, routed: np.ndarray | None = None
) -> Priced:
    """Solve a linear program of scenario ``b``: the routing over ``deployed``, or the relaxation without it.

    Args:
      deployed: (D,3) positions (model, GPU, degree).
      routed: bool (I,D), the routes allowed; all by default (a limit on their number is then relaxed).

    Raises:
      WorkFailed: HiGHS ended without an answer.
    """
    f = instances.one(b)
    types, models, gpus, degrees = instances.shape
    excess_d, excess_e, gamma_d, gamma_e = worst_case_inputs(f, instances.uncertainty)
    if deployed is None:
        triple = np.stack(
            np.unravel_index(np.arange(models * gpus * degrees), (models, gpus, degrees)), axis=1
        )
    else:
        triple = deployed
    j, k, n = triple.T
    degree, speed = f.tp_degree[n].astype(np.float64), f.tp_speedup[n]
    tokens, hours = tokens_per_query(f), float(f.rental_hours)
    room = f.gpu_memory[k] * degree - f.weight_memory[j]
    power = f.gpu_compute[k] * degree
    kv = kv_demand(f)[:, j]
    work = np.broadcast_to(compute_demand(f)[:, None], kv.shape)
    deploy = hours * (f.gpu_price[k] * degree + f.storage_price * f.weight_memory[j])
    base = hours * f.storage_price * stored_data(f)
    omega = hours * f.delay_penalty * f.arrival_rate
    nominal_d = f.delay_nominal[:, j, k] * tokens[:, None] / speed
    nominal_e = f.error_nominal[:, j, k]
    excess = {"delay": excess_d[:, j, k] * tokens[:, None] / speed, "error": excess_e[:, j, k]}
    fits = (room >= 0) & (f.weight_memory[j] <= f.storage_capacity) & (deploy <= f.budget)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.minimum(np.where(kv > 0, room / kv, np.inf), np.where(work > 0, power / work, np.inf))
    most = np.where(fits, np.clip(most, 0.0, 1.0), 0.0)

    program = _Program()
    w = program.variables(deploy, 1.0 if deployed is not None else fits.astype(np.float64))
    allowed = np.ones((types, len(triple))) if deployed is not None else most
    x = program.variables(
        base[:, None] + omega[:, None] * nominal_d, allowed if routed is None else allowed * routed
    )
    u = program.variables(hours * f.unmet_penalty * f.arrival_rate, float(f.unmet_cap))
    none = np.zeros(len(triple))
    rows = {
        "memory": program.at_most(none, (x.T, kv.T), (w, -room)),
        "compute": program.at_most(none, (x.T, work.T), (w, -power)),
        "storage": program.at_most(np.array([float(f.storage_capacity)]), (w[None], f.weight_memory[j])),
        "budget": program.at_most(
            np.array([float(f.budget)]), (w[None], deploy), (x.ravel()[None], np.repeat(base, len(triple)))
        ),
    }
    pair, of = np.unique(j * gpus + k, return_inverse=True)
    if deployed is None:
        program.at_most(np.zeros(x.shape), (x, 1.0), (np.broadcast_to(w, x.shape), -most))
        by_pair = w.reshape(models * gpus, degrees)
        program.at_most(np.ones(models * gpus), (by_pair, 1.0))
    limits = {"delay": f.delay_threshold, "error": f.error_threshold}
    nominal = {"delay": nominal_d, "error": nominal_e}
    gamma = {"delay": float(gamma_d), "error": float(gamma_e)}
    routes = int(f.max_routes)
    worst: dict[str, np.ndarray] = {}
    for name in ("delay", "error"):
        paid = omega if name == "delay" else np.zeros(types)
        reach = (
            np.inf if routes and gamma[name] >= routes else gamma[name]
        )  # every route may deviate: a plain sum
        level = program.variables(paid * min(reach, len(pair)), np.inf)
        above = program.variables(np.broadcast_to(paid[:, None], (types, len(pair))), np.inf)
        own = (x, nominal[name] - limits[name][:, None])
        rows[name] = program.at_most(np.zeros(types), own, (level, min(reach, len(pair))), (above, 1.0))
        # sum over the degrees of a pair: one row per (type, pair)
        inside = np.where(of[None] == np.arange(len(pair))[:, None], 1.0, 0.0)  # pair, triple
        columns = np.broadcast_to(x[:, None], (types, len(pair), len(triple)))
        worst[name] = program.at_most(
            np.zeros((types, len(pair))),
            (columns, excess[name][:, None] * inside),
            (level[:, None] + 0 * above, -1.0),
            (above, -1.0),
        )
    lower = np.zeros(program.columns)
    if deployed is not None:
        lower[w] = 1.0
    value, columns, paid, demand, capped = program.solve(lower, np.concatenate([x, u[:, None]], axis=1))
    if not np.isfinite(value):
        return Priced(value, triple, np.zeros(len(triple)), np.zeros(types), None)

    def adversary(name: str) -> np.ndarray:
        weight = paid[rows[name]] + (omega if name == "delay" else 0.0)
        found = paid[worst[name]] / np.where(weight > 0, weight, 1.0)[:, None]
        return np.clip(found, 0.0, 1.0)[:, of]

    y = Multipliers(
        demand=demand,
        delay=paid[rows["delay"]],
        error=paid[rows["error"]],
        budget=float(paid[rows["budget"]][0]),
        storage=float(paid[rows["storage"]][0]),
        unmet=capped[u],
        memory=paid[rows["memory"]],
        compute=paid[rows["compute"]],
        delay_adversary=adversary("delay"),
        error_adversary=adversary("error"),
    )
    return Priced(value, triple, columns[w], columns[x].sum(1), y)


def leaf(instances: Instances, found: Priced, path: np.ndarray) -> Leaf:
    """The multipliers as a leaf of a certificate: what the dual function proves of the plans along ``path``."""
    _, _, gpus, degrees = instances.shape
    y = found.multipliers
    assert y is not None
    types = len(instances.query_names)
    pair_of = found.triple[:, 0] * gpus + found.triple[:, 1]
    pairs, of = np.unique(pair_of, return_inverse=True)
    by_pair = np.zeros((len(pairs), 2 * (degrees + types)))
    by_pair[of, found.triple[:, 2]] = y.memory
    by_pair[of, degrees + found.triple[:, 2]] = y.compute
    by_pair[of, 2 * degrees : 2 * degrees + types] = y.delay_adversary.T
    by_pair[of, 2 * degrees + types :] = y.error_adversary.T
    head = np.concatenate([y.demand, y.delay, y.error, [y.budget, y.storage]])
    return path, pairs, np.concatenate([head, by_pair.ravel()])


def certified(instances: Instances, b: int, found: Priced, *, fixed: bool) -> float:
    """The dual function's bound at the multipliers: of all plans, or (``fixed``) of those with this deployment."""
    _, models, gpus, degrees = instances.shape
    path = np.zeros(0, np.int64)
    if fixed:
        number = (found.triple[:, 0] * gpus + found.triple[:, 1]) * degrees + found.triple[:, 2] + 1
        path = -np.arange(1, models * gpus * degrees + 1)
        path[number - 1] = number
    with np.errstate(invalid="ignore"):
        return float(dual_values(instances, np.array([b]), [leaf(instances, found, path)])[0])
