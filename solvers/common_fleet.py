"""One fleet for several scenarios that differ in their traffic: the cheapest on average, with a proven bound.

The deployment (w, r) is decided once, the routing in every scenario h anew, which counts with weight p[h]:

    min  rent and weights of (w, r) + sum_h p[h] Q(w, r, d[h])

with Q the cost of the cheapest routing at the arrival rates d[h]. In the traffic served, z = d x, every limit that a
fleet's routing has (load in its worst case, memory, promises, unmet caps, data within the budget) is linear or convex
and homogeneous, so that Q(w, r, .) is convex. Hence for any partition of the scenarios into groups G,

    sum_h p[h] Q(w, r, d[h])  >=  sum_G p(G) Q(w, r, mean of d over G)        (Jensen)

and the MILP with one routing per group bounds the cost of every fleet from below (`compute`, which knows no rate, is
left out of groups of several). A fleet routed in every scenario is a bound from above. Groups are split where the two
differ, until they meet: with a group for each scenario there is no difference left but the solver's. No JAX here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from jaxtyping import Float64, Int

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan, deployed_triples
from rodiu_jax.model.tolerances import CROSSED_BY_HIGHS
from solvers.best_plan import route
from solvers.formulation import Formulation, assemble
from solvers.highs import SolverFailed, run_highs
from solvers.sparse import SparseArrays
from solvers.terms import collect, tighten

_FIRST_GROUPS = 4
"""Groups at first: a night, two shoulders, a peak."""

_GAP_OF_MILP = 0.4
"""Part of the gap asked for that the MILP may leave; the rest is for the difference between groups and scenarios."""

_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class CommonFleet:
    """A fleet for all scenarios; money in $ per period, the scenarios' weighted mean.

    Attributes:
      lower: no fleet costs less; ``upper``: the cost of this one.
      plans: the fleet routed in each scenario, idle pairs too.
      groups: how many groups the bound was proven with.
    """

    lower: float
    upper: float
    deployment: Deployment
    plans: tuple[Plan, ...]
    groups: int
    seconds: float

    @property
    def gap(self) -> float:
        """(upper - lower) / upper."""
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0


def find_common_fleet(
    scenarios: Instances,
    weights: Float64[np.ndarray, " H"],
    *,
    starts: Sequence[Deployment] = (),
    gap: float,
    time_limit: float = math.inf,
) -> CommonFleet:
    """Find the cheapest fleet for scenarios that differ in their arrival rates alone.

    Args:
      weights: positive, of each scenario; they sum to 1.
      starts: fleets that may be good.
      gap: relative gap to stop at.
      time_limit: seconds, roughly; what is proven by then is returned.

    Raises:
      ValueError: the scenarios limit routes (`max_routes`), or no fleet has a plan in all of them.
      SolverFailed: HiGHS ended without an answer, or with one that checked plans contradict.
    """
    began = time.perf_counter()
    search = _Search(scenarios, weights)
    for deployment in starts:
        search.offer(deployment)
    search.offer(())
    groups = _first_groups(search.rates, weights)
    proven, lower = 0, -math.inf
    while True:
        left = time_limit - (time.perf_counter() - began)
        if proven and left < _LEAST_SECONDS:
            break
        bound, deployment = search.solve_groups(groups, gap * _GAP_OF_MILP, max(left, _LEAST_SECONDS))
        if bound > lower:
            lower, proven = bound, len(groups)
        search.offer(deployment)
        if search.upper - lower <= gap * abs(search.upper) or len(groups) == scenarios.size:
            break
        groups = search.split(groups, deployment)
    if search.plans is None:
        raise ValueError("no fleet has a plan in all scenarios")
    if lower > search.upper + CROSSED_BY_HIGHS * max(abs(search.upper), 1.0):
        raise SolverFailed(f"the bound {lower} is above the cost {search.upper} of checked plans")
    lower = min(lower, search.upper)
    seconds = time.perf_counter() - began
    return CommonFleet(lower, search.upper, search.deployment, search.plans, proven, seconds)


def route_fleet(scenarios: Instances, b: int, deployment: Deployment) -> tuple[Plan, float] | None:
    """Route a fleet in one scenario at least cost: the plan with its idle pairs, and its cost, $ per period.

    None where the fleet has no plan there.
    """
    if not deployment:
        plan: Plan | None = Plan(b, (), (), dict.fromkeys(scenarios.query_names, 1.0))
    else:
        counts = np.array([d.replicas for d in deployment], np.int64)
        found = route(scenarios, b, deployed_triples(scenarios, deployment), None, counts)
        plan = None if found is None else Plan(b, deployment, found.routes, found.unmet)
    if plan is None:
        return None
    verdict = check_plan(plan, scenarios, b)
    return (plan, verdict.costs["total_cost"]) if verdict.feasible else None


class _Search:
    """The best fleet so far, and what every group's program has in common.

    Attributes:
      rates: (H,I) arrival rates.
      triple, replicas: what a fleet may deploy, as a scenario with the largest rate of every type needs it.
    """

    def __init__(self, scenarios: Instances, weights: Float64[np.ndarray, " H"]) -> None:
        if (np.asarray(scenarios.fields.max_routes) > 0).any():
            raise ValueError("one fleet for several scenarios needs max_routes = 0")
        self.scenarios, self.weights = scenarios, weights
        self.one = scenarios.take([0])
        self.rates = np.stack([scenarios.one(b).arrival_rate for b in range(scenarios.size)])
        self.upper, self.deployment = math.inf, ()
        self.plans: tuple[Plan, ...] | None = None
        terms = tighten(collect(self._at(self.rates.max(0)), 0))
        useful = (terms.most > 0).any(0)
        self.triple = terms.triple[useful]
        count = np.ones(len(terms.triple), np.int64) if terms.fleet is None else terms.fleet.replicas
        self.replicas = count[useful]
        self.gpus = len(scenarios.gpu_names)

    def _at(self, rate: Float64[np.ndarray, " I"], *, several: bool = False) -> Instances:
        """Return the scenario at other arrival rates; as a mean of ``several`` without `compute`."""
        moved: dict[str, Any] = {"arrival_rate": rate}
        if several:
            moved["compute_per_token"] = np.zeros(len(rate))
        return self.one.with_fields(**moved)

    def offer(self, deployment: Deployment) -> None:
        """Route a fleet in every scenario, and keep it where it is the cheapest so far."""
        total, plans = 0.0, []
        for b in range(self.scenarios.size):
            found = route_fleet(self.scenarios, b, deployment)
            if found is None:
                return
            plans.append(found[0])
            total += float(self.weights[b]) * found[1]
            if total >= self.upper:
                return
        self.upper, self.deployment, self.plans = total, deployment, tuple(plans)

    def solve_groups(
        self, groups: list[Int[np.ndarray, " _"]], gap: float, time_limit: float
    ) -> tuple[float, Deployment]:
        """Bound the cost of every fleet with one routing per group; return the bound and the fleet that was found."""
        blocks, weights = [], []
        for group in groups:
            weight = self.weights[group]
            rate = (weight[:, None] * self.rates[group]).sum(0) / weight.sum()
            terms = collect(self._at(rate, several=len(group) > 1), 0, self.triple, self.replicas)
            blocks.append(assemble(tighten(terms), self.gpus))
            weights.append(float(weight.sum()))
        program = join_blocks(blocks, weights)
        answer = run_highs(
            program,
            start=self._start(blocks[0]),
            mip_rel_gap=gap,
            mip_abs_gap=0.0,
            time_limit=time_limit,
        )
        kind = highspy.HighsModelStatus
        if answer.status == kind.kInfeasible:
            raise ValueError("no fleet has a plan in all scenarios")
        if answer.status not in (kind.kOptimal, kind.kTimeLimit):
            raise SolverFailed(f"HiGHS ended with {answer.status}")
        bound = answer.bound if math.isfinite(answer.bound) else -math.inf
        if answer.columns is None:
            return bound, self.deployment
        return bound, self._read_fleet(blocks[0], answer.columns)

    def _start(self, block: Formulation) -> tuple[np.ndarray, np.ndarray] | None:
        """Return positions and values of w and r of the best fleet so far."""
        if self.plans is None:
            return None
        at = {tuple(t): n for n, t in enumerate(block.triple.tolist())}
        w, r = np.zeros(len(block.triple)), np.zeros(len(block.triple))
        for d, triple in zip(
            self.deployment, deployed_triples(self.scenarios, self.deployment).tolist(), strict=True
        ):
            n = at.get(tuple(triple))
            if n is None:
                return None
            w[n], r[n] = 1.0, d.replicas
        own = block.columns.replicas != np.arange(len(w)) + block.columns.deployed.start
        positions = np.arange(block.columns.deployed.start, block.columns.deployed.stop)
        most = block.upper[block.columns.replicas[own]] * block.unit[block.columns.replicas[own]]
        return (
            np.concatenate([positions, block.columns.replicas[own]]),
            np.concatenate([w, np.minimum(r[own], most)]),
        )

    def _read_fleet(self, block: Formulation, columns: Float64[np.ndarray, " C"]) -> Deployment:
        """Read w and r, which the first block holds for all; w without a replica deploys nothing."""
        on = (columns[block.columns.deployed] > 0.5) & (columns[block.columns.replicas] > 0.5)
        count = np.maximum(np.rint(columns[block.columns.replicas]), 1.0).astype(int)
        names, degrees = self.scenarios, self.scenarios.axis_names("N")
        return tuple(
            DeployedPair(names.model_names[j], names.gpu_names[k], int(degrees[n]), int(count[at]))
            for at, (j, k, n) in enumerate(block.triple.tolist())
            if on[at]
        )

    def split(
        self, groups: list[Int[np.ndarray, " _"]], deployment: Deployment
    ) -> list[Int[np.ndarray, " _"]]:
        """Split the groups in which a fleet costs more than at their mean, by how much a scenario costs there.

        The groups that make up most of the difference are halved; at least one is.
        """
        loss = np.zeros(len(groups))
        cost: dict[int, float] = {}
        for n, group in enumerate(groups):
            if len(group) < 2:
                continue
            weight = self.weights[group]
            mean = self._at((weight[:, None] * self.rates[group]).sum(0) / weight.sum(), several=True)
            at_mean = route_fleet(mean, 0, deployment)
            for h in group.tolist():
                found = route_fleet(self.scenarios, h, deployment)
                cost[h] = math.inf if found is None else found[1]
            whole = sum(float(self.weights[h]) * cost[h] for h in group.tolist())
            loss[n] = whole - (0.0 if at_mean is None else at_mean[1] * float(weight.sum()))
        several = np.array([len(g) > 1 for g in groups])
        # Below any loss, which may be negative where routings are known to a tolerance: a group of one cannot be split.
        loss = np.where(several, np.nan_to_num(loss, posinf=1e300), -np.inf)
        order = np.argsort(-loss, kind="stable")
        reached = np.cumsum(np.maximum(loss[order], 0.0))
        enough = int(np.searchsorted(reached, 0.8 * reached[-1])) + 1 if reached[-1] > 0 else 1
        chosen = {int(n) for n in order[:enough] if several[n]}
        made: list[Int[np.ndarray, " _"]] = []
        for n, group in enumerate(groups):
            if n not in chosen:
                made.append(group)
                continue
            total = self.rates[group].sum(1)
            key = np.lexsort((total, [cost.get(h, 0.0) for h in group.tolist()]))
            half = len(group) // 2
            made += [group[key[:half]], group[key[half:]]]
        return made


def _first_groups(
    rates: Float64[np.ndarray, "H I"], weights: Float64[np.ndarray, " H"]
) -> list[Int[np.ndarray, " _"]]:
    """Group scenarios of like traffic: in the order of the mean of each type's rate over its largest."""
    largest = rates.max(0)
    order = np.argsort((rates / np.where(largest > 0, largest, 1.0)).mean(1), kind="stable")
    return [g for g in np.array_split(order, min(_FIRST_GROUPS, len(weights))) if len(g)]


def join_blocks(blocks: Sequence[Formulation], weights: Sequence[float]) -> SparseArrays:
    """Join programs over the same triples into one whose w and r are those of the first, all else each block's own.

    Rows that hold nothing but w and r are alike in all blocks, and kept once.
    """
    first = blocks[0]
    shared = np.zeros(len(first.cost), bool)
    shared[first.columns.deployed] = True
    shared[first.columns.replicas] = True
    columns: dict[str, list[np.ndarray]] = {
        n: [getattr(first, n)] for n in ("lower", "upper", "integer", "unit")
    }
    cost = [np.where(shared, first.cost, first.cost * weights[0])]
    rows: dict[str, list[np.ndarray]] = {
        n: [getattr(first, n)] for n in ("row_lower", "row_upper", "row_unit")
    }
    lengths, index, value = [np.diff(first.start)], [first.index], [first.value]
    width = len(first.cost)
    for block, weight in zip(blocks[1:], weights[1:], strict=True):
        own = np.ones(len(block.cost), bool)
        own[block.columns.deployed] = False
        own[block.columns.replicas] = False
        place = np.zeros(len(own), np.int64)
        place[own] = width + np.arange(int(own.sum()))
        place[block.columns.deployed] = np.arange(first.columns.deployed.start, first.columns.deployed.stop)
        place[block.columns.replicas] = first.columns.replicas
        width += int(own.sum())
        count = np.diff(block.start)
        row_of = np.repeat(np.arange(len(count)), count)
        keep = np.bincount(row_of, weights=own[block.index], minlength=len(count)) > 0
        inside = keep[row_of]
        lengths.append(count[keep])
        index.append(place[block.index[inside]])
        value.append(block.value[inside])
        cost.append(block.cost[own] * weight)
        for name, parts in columns.items():
            parts.append(getattr(block, name)[own])
        for name, parts in rows.items():
            parts.append(getattr(block, name)[keep])
    return SparseArrays(
        cost=np.concatenate(cost),
        **{n: np.concatenate(parts) for n, parts in columns.items()},
        start=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32),
        index=np.concatenate(index).astype(np.int32),
        value=np.concatenate(value),
        **{n: np.concatenate(parts) for n, parts in rows.items()},
    )
