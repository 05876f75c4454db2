"""The robust MILP as it was published: a slow way to the same optimum, peer in time and witness in value.

Placement q[j,k], degree w[j,k,n] and routing z[i,j,k] are binaries; every product of variables is a variable
of its own between McCormick's inequalities: W = w q (the degree of a placed pair), v = W x (the share served
at a degree) and p = z v (the part of the deviation that pairing removes). Three sets of dual variables: for
the delay constraint, the error constraint and the delay cost. Rows are written one by one in Python.

Source: MODEL section 6, "the published way".
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import highspy
import numpy as np

from rodiu_jax.model.instance import Instances

Terms = list[tuple[int, float]]


@dataclass(frozen=True)
class Outcome:
    """Objective and proven bound ($ per period) as HiGHS reports them; ``seconds`` to build and solve."""

    optimal: bool
    objective: float
    bound: float
    seconds: float


class _Model:
    """Columns and rows, added one at a time."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.kinds: list[highspy.HighsVarType] = []
        self.starts = [0]
        self.columns: list[int] = []
        self.values: list[float] = []
        self.row_lower: list[float] = []
        self.row_upper: list[float] = []

    def variable(self, cost: float = 0.0, upper: float = math.inf, *, binary: bool = False) -> int:
        self.cost.append(cost)
        self.upper.append(1.0 if binary else upper)
        self.kinds.append(highspy.HighsVarType.kInteger if binary else highspy.HighsVarType.kContinuous)
        return len(self.cost) - 1

    def row(
        self, terms: Iterable[tuple[int, float]], *, low: float = -math.inf, high: float = math.inf
    ) -> None:
        merged: dict[int, float] = {}
        for column, value in terms:
            merged[column] = merged.get(column, 0.0) + float(value)
        self.columns += merged
        self.values += merged.values()
        self.starts.append(len(self.columns))
        self.row_lower.append(low)
        self.row_upper.append(high)

    def product(self, binary: int, other: int) -> int:
        """A variable equal to ``binary`` times ``other``, which lies in [0, 1] (McCormick)."""
        result = self.variable(upper=1.0)
        self.row([(result, 1.0), (binary, -1.0)], high=0.0)
        self.row([(result, 1.0), (other, -1.0)], high=0.0)
        self.row([(result, 1.0), (binary, -1.0), (other, -1.0)], low=-1.0)
        return result

    def worst(self, weights: list[Terms], gamma: float, price: float = 0.0) -> Terms:
        """Terms of the dual of W(weights, gamma), with ``price`` dollars per unit of it."""
        level = self.variable(price * gamma)
        terms = [(level, gamma)]
        for weight in weights:
            above = self.variable(price)
            self.row([*weight, (level, -1.0), (above, -1.0)], high=0.0)
            terms.append((above, 1.0))
        return terms

    def solve(self, gap: float, time_limit: float) -> tuple[bool, float, float]:
        solver = highspy.Highs()
        solver.silent()
        options = {"threads": 1, "mip_rel_gap": gap, "mip_abs_gap": 0.0, "time_limit": time_limit}
        for option, value in options.items():
            if solver.setOptionValue(option, value) != highspy.HighsStatus.kOk:
                raise RuntimeError(f"HiGHS refused {option}={value}")
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.row_lower)
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = self.cost, [0.0] * len(self.cost), self.upper
        lp.row_lower_, lp.row_upper_ = self.row_lower, self.row_upper
        lp.integrality_ = self.kinds
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = self.starts, self.columns, self.values
        if solver.passModel(lp) == highspy.HighsStatus.kError:
            raise RuntimeError("HiGHS refused the model")
        solver.run()
        info = solver.getInfo()
        done = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return done, float(info.objective_function_value), float(info.mip_dual_bound)


def solve_published(
    instances: Instances, b: int, *, gap: float = 1e-6, time_limit: float = math.inf
) -> Outcome:
    """Solve scenario ``b`` in the published formulation."""
    began = time.perf_counter()
    f = instances.one(b)
    types, models, gpus, degrees = instances.shape
    robust = instances.uncertainty != "none"
    gamma_d, gamma_e = (float(f.gamma_delay), float(f.gamma_error)) if robust else (0.0, 0.0)
    depends = 1.0 if instances.uncertainty == "ddu" else 0.0
    hours, storage_price = float(f.rental_hours), float(f.storage_price)
    tokens = (f.input_tokens + f.output_tokens).astype(float)
    size, speed = f.tp_degree.astype(float), f.tp_speedup.astype(float)
    data_cost = hours * storage_price * f.token_size * tokens * f.arrival_rate / 1000.0
    delay_price = hours * f.delay_penalty * f.arrival_rate
    kv = np.outer(tokens * f.arrival_rate * f.residency_hours, f.kv_per_token)
    flops = f.compute_per_token * tokens

    model = _Model()
    unmet = [
        model.variable(hours * f.unmet_penalty[i] * f.arrival_rate[i], float(f.unmet_cap))
        for i in range(types)
    ]
    weights: Terms = []
    money: Terms = []
    shares: list[list[tuple[int, float]]] = [[] for _ in range(types)]
    routes: list[Terms] = [[] for _ in range(types)]
    nominal_d: list[Terms] = [[] for _ in range(types)]
    nominal_e: list[Terms] = [[] for _ in range(types)]
    spread_d: list[list[Terms]] = [[] for _ in range(types)]
    spread_e: list[list[Terms]] = [[] for _ in range(types)]
    for j in range(models):
        for k in range(gpus):
            placing = hours * storage_price * float(f.weight_memory[j])
            placed = model.variable(placing, binary=True)
            weights.append((placed, float(f.weight_memory[j])))
            money.append((placed, placing))
            choice = [model.variable(binary=True) for _ in range(degrees)]
            model.row([(w, 1.0) for w in choice], high=1.0)
            memory: Terms = [(placed, -float(f.gpu_memory[k]))]
            compute: Terms = []
            at_degree = []
            for n, w in enumerate(choice):
                both = model.product(w, placed)
                rent = hours * float(f.gpu_price[k]) * size[n]
                model.cost[both] = rent
                money.append((both, rent))
                memory.append((both, float(f.weight_memory[j]) / size[n]))
                compute.append((both, -float(f.gpu_compute[k]) * size[n]))
                at_degree.append(both)
            model.row([*((w, 1.0) for w in at_degree), (placed, -1.0)], low=0.0, high=0.0)
            for i in range(types):
                per_ms = delay_price[i] * f.delay_nominal[i, j, k] * tokens[i]
                share = model.variable(float(data_cost[i]), 1.0)
                routing = model.variable(binary=True)
                model.row([(share, 1.0), (routing, -1.0)], high=0.0)
                model.row([(routing, 1.0), (placed, -1.0)], high=0.0)
                shares[i].append((share, 1.0))
                routes[i].append((routing, 1.0))
                money.append((share, float(data_cost[i])))
                compute.append((share, float(flops[i])))
                excess_d: Terms = []
                parts = []
                for n, both in enumerate(at_degree):
                    part = model.product(both, share)
                    parts.append((part, 1.0))
                    model.cost[part] = per_ms / speed[n]
                    memory.append((part, float(kv[i, j]) / size[n]))
                    ms = tokens[i] / speed[n]
                    nominal_d[i].append((part, float(f.delay_nominal[i, j, k]) * ms))
                    removed = model.product(routing, part)
                    deviation = float(f.delay_deviation[i, j, k]) * ms
                    excess_d += [
                        (part, deviation),
                        (removed, -deviation * depends * float(f.delay_impact[j, k])),
                    ]
                model.row([*parts, (share, -1.0)], low=0.0, high=0.0)
                removed = model.product(routing, share)
                deviation = float(f.error_deviation[i, j, k])
                nominal_e[i].append((share, float(f.error_nominal[i, j, k])))
                spread_d[i].append(excess_d)
                spread_e[i].append(
                    [(share, deviation), (removed, -deviation * depends * float(f.error_impact[j, k]))]
                )
            model.row(memory, high=0.0)
            model.row(compute, high=0.0)
    model.row(weights, high=float(f.storage_capacity))
    model.row(money, high=float(f.budget))
    for i in range(types):
        model.row([*shares[i], (unmet[i], 1.0)], low=1.0, high=1.0)
        if f.max_routes > 0:
            model.row(routes[i], high=float(f.max_routes))
        in_time = [(x, -float(f.delay_threshold[i])) for x, _ in shares[i]]
        in_error = [(x, -float(f.error_threshold[i])) for x, _ in shares[i]]
        model.row([*nominal_d[i], *model.worst(spread_d[i], gamma_d), *in_time], high=0.0)
        model.row([*nominal_e[i], *model.worst(spread_e[i], gamma_e), *in_error], high=0.0)
        model.worst(spread_d[i], gamma_d, price=float(delay_price[i]))
    optimal, objective, bound = model.solve(gap, time_limit)
    return Outcome(optimal, objective, bound, time.perf_counter() - began)
