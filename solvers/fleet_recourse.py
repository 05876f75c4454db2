"""Recourse where scenarios have replicas, rates or quotas: a linear program of HiGHS for each deployment and scenario.

With pairs, degrees and replicas fixed, the robust MILP (`solvers.formulation`) is a linear program of a few dozen
columns with the exact adversaries of delay, error and load. HiGHS's multipliers y give the lower bound, computed here
in float64 as a Lagrangian dual value, which is one whatever y is:

    y b + sum over columns v of the least (c - y A)[v] v,  lower <= v <= upper;   y[r] <= 0 where the row is only <= b

No worst case needs an adversary's column above 1, in its unit. The shares are a plan, whose cost the columns of the
independent checker give: the upper bound. Where routes are limited and the program uses more of them than it may, HiGHS
solves it again with a binary for each route, and its own bound counts.

A deployment has no plan where weights, rent, replicas or GPUs break a limit whatever is routed, or where the least
excess over the cap on unmet shares, which is another such program, is positive.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8

from rodiu_jax.model.check import check_columns
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.slots import Names, split_slots
from rodiu_jax.model.tolerances import LEAST_EXCESS, MARGIN_TOLERANCE, NEGLIGIBLE_SHARE
from rodiu_jax.runtime.cores import usable_cores
from solvers.formulation import Formulation, assemble, read_routes, read_shares
from solvers.highs import HighsAnswer, LinearPrograms, SolverFailed, run_highs
from solvers.pool import Pool
from solvers.recourse_brackets import DeploymentRows, Reason, Recourse
from solvers.terms import ScenarioTerms, Terms

_TOGETHER = 2048
"""Plans checked at a time: enough for NumPy, few enough for memory."""

_WORTH_PROCESSES = 4096
"""Programs, two seconds or three of them, from which on worker processes pay for their start."""

_SECONDS = 20.0
"""Most time for the routes of one deployment in one scenario where their number is limited."""


@dataclass(frozen=True)
class FleetTask:
    """Deployments, ``rows``, to be crossed with some scenarios; ``gap`` is where a search for routes may stop."""

    instances: Instances
    rows: DeploymentRows
    gap: float
    keep_shares: bool


class _Crossed(NamedTuple):
    """Brackets (Q,B), and the plans' shares (Q,B,I,D) where these are kept."""

    lower: Float64[np.ndarray, "Q B"]
    upper: Float64[np.ndarray, "Q B"]
    reason: Int8[np.ndarray, "Q B"]
    shares: Float64[np.ndarray, "Q B I D"] | None


def bracket_fleets(
    instances: Instances, rows: DeploymentRows, gap: float, *, keep_shares: bool = False
) -> tuple[Recourse, Float64[np.ndarray, "Q B I D"] | None]:
    """Bracket every deployment in every scenario, in worker processes where there is much to do.

    Args:
      rows: the deployments; none has more replicas of a pair than some scenario allows.
      gap: relative gap at which a search for limited routes may stop.
      keep_shares: return the plans' shares too.
    """
    deployments, size = len(rows.slots), instances.size
    cores = usable_cores()
    if cores > 1 and size > 1 and deployments * size >= _WORTH_PROCESSES and parent_process() is None:
        each = math.ceil(size / min(4 * cores, size))
        spans = [(first, min(first + each, size)) for first in range(0, size, each)]
        tasks = [FleetTask(instances.span(*span), rows, gap, keep_shares) for span in spans]
        with Pool(min(cores, len(tasks))) as pool:
            parts = pool.map(cross_fleets, tasks)
    else:
        parts = [cross_fleets(FleetTask(instances, rows, gap, keep_shares))]
    lower, upper, reason = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in Recourse._fields
    )
    kept = [part.shares for part in parts if part.shares is not None]
    return Recourse(lower, upper, reason), np.concatenate(kept, axis=1) if keep_shares else None


def cross_fleets(task: FleetTask) -> _Crossed:
    """Bracket the deployments of a task in its scenarios, one linear program after another."""
    instances, rows = task.instances, task.rows
    shape = len(rows.slots), instances.size
    result = _Crossed(
        np.full(shape, -math.inf),
        np.full(shape, math.inf),
        np.full(shape, Reason.UNKNOWN, np.int8),
        np.zeros((*shape, instances.shape[0], rows.slots.shape[1])) if task.keep_shares else None,
    )
    waiting: list[tuple[int, int, np.ndarray]] = []
    for q, b, answer in _route_all(instances, rows, task.gap):
        result.lower[q, b], result.reason[q, b] = answer.lower, answer.reason
        if answer.reason == Reason.FEASIBLE:
            waiting.append((q, b, answer.share))
        if len(waiting) == _TOGETHER:
            _check(instances, rows, waiting, result)
            waiting = []
    _check(instances, rows, waiting, result)
    np.minimum(result.lower, result.upper, out=result.lower)
    return result


def _check(
    instances: Instances, rows: DeploymentRows, plans: list[tuple[int, int, np.ndarray]], result: _Crossed
) -> None:
    """Write down what the independent checker says of plans: deployment, scenario, shares."""
    if not plans:
        return
    q, b = np.array([(q, b) for q, b, _ in plans]).T
    shares = np.stack([share for _, _, share in plans])
    unmet = np.maximum(1.0 - shares.sum(2), 0.0)
    slots, replicas = rows.slots[q], rows.replicas[q]
    checks = check_columns(instances, slots, shares, unmet, replicas=replicas, scenario=b)
    result.upper[q, b] = np.where(checks.feasible, checks.costs[:, 0], math.inf)
    result.reason[q, b] = np.where(checks.feasible, Reason.FEASIBLE, Reason.UNKNOWN)
    if result.shares is not None:
        result.shares[q, b] = shares


# ---- one deployment in one scenario ----


class _Routed(NamedTuple):
    """A lower bound, a `Reason`, and shares (I,D) to be checked where that is FEASIBLE."""

    lower: float
    reason: Reason
    share: np.ndarray


def _route_all(instances: Instances, rows: DeploymentRows, gap: float) -> Iterator[tuple[int, int, _Routed]]:
    """Route every deployment q in every scenario b; yield q, b and what was found."""
    programs = LinearPrograms()
    place = split_slots(np.maximum(rows.slots, 0), instances.names)
    triples = np.stack(place, axis=-1).astype(np.int64)  # Q,D,3
    nothing = np.zeros((instances.shape[0], rows.slots.shape[1]))
    for b in range(instances.size):
        scenario = ScenarioTerms.derive(instances, b)
        reasons = find_broken_limits(scenario, instances.names, rows)
        for q, reason in enumerate(reasons.tolist()):
            if reason != Reason.FEASIBLE:
                yield (
                    q,
                    b,
                    _Routed(-math.inf if reason == Reason.ERROR else math.inf, Reason(reason), nothing),
                )
                continue
            used = rows.slots[q] >= 0  # the first ones
            terms = scenario.of(triples[q, used], rows.replicas[q, used].astype(np.int64))
            share = nothing.copy()
            try:
                lower, reason, found = _Program(programs, terms, len(instances.gpu_names), gap).route()
                share[:, used] = found
            except SolverFailed:
                programs, lower, reason = LinearPrograms(), -math.inf, Reason.ERROR
            yield q, b, _Routed(lower, reason, share)


def find_broken_limits(scenario: ScenarioTerms, names: Names, rows: DeploymentRows) -> Int8[np.ndarray, " Q"]:
    """Say which limit each deployment breaks whatever is routed, as a `Reason`; FEASIBLE where it breaks none."""
    fields, dense, serving = scenario.fields, scenario.dense, scenario.serving
    assert serving is not None, "scenarios without fleets have no such limits"
    used = rows.slots >= 0
    model, gpu, degree = split_slots(np.maximum(rows.slots, 0), names)
    pair = model * len(names.gpus) + gpu
    over = 1.0 + MARGIN_TOLERANCE
    gpus = fields.tp_degree[degree] * used  # of a replica
    weights = np.where(used, dense.weights[pair], 0.0)
    count = rows.replicas * used
    rent = fields.rental_hours * (fields.gpu_price[gpu] * gpus * count).sum(1)
    money = rent + fields.rental_hours * fields.storage_price * weights.sum(1)
    device = serving.device[gpu]
    rented = ((device[:, :, None] == device[:, None, :]) * (gpus * count)[:, None, :]).sum(2)  # Q,D
    cases = [
        (Reason.ERROR, np.array(not _is_sound(scenario)) | ~np.isfinite(money)),
        (Reason.MEMORY, (weights > fields.gpu_memory[gpu] * gpus * over).any(1)),
        (Reason.STORAGE, weights.sum(1) > dense.storage * over),
        (Reason.REPLICAS, (count > serving.most_replicas[pair] * over).any(1)),
        (Reason.QUOTA, (used & (rented > serving.quota[gpu] * over)).any(1)),
        (Reason.BUDGET, money > dense.budget * over),
    ]
    return np.select([case for _, case in cases], [int(r) for r, _ in cases], int(Reason.FEASIBLE)).astype(
        np.int8
    )


def _is_sound(scenario: ScenarioTerms) -> bool:
    """Say whether no number of a scenario is NaN; validated files hold none."""
    return not any(np.isnan(value).any() for value in scenario.fields)


class _Program:
    """The linear program of one deployment in one scenario."""

    def __init__(self, programs: LinearPrograms, terms: Terms, gpus: int, gap: float) -> None:
        self._programs, self._terms, self._gpus, self._gap = programs, terms, gpus, gap
        self._most_routes = terms.max_routes or len(terms.pair)
        self._every = np.ones((terms.types, len(terms.pair)), bool)

    def route(self) -> tuple[float, Reason, Float64[np.ndarray, "I D"]]:
        """Find a lower bound, whether there is a plan, and its shares.

        Raises:
          SolverFailed: HiGHS refused the program.
        """
        formulation = self._build(self._every)
        answer = self._programs.solve(formulation)
        if answer.columns is None:
            return self._explain(limited=False)
        lower = bound_by_duality(formulation, answer)
        shares = read_shares(formulation, answer.columns)
        if ((shares > NEGLIGIBLE_SHARE).sum(1) > self._most_routes).any():
            return self._limit_routes(lower)
        return lower, Reason.FEASIBLE, _settle(shares)

    def _build(self, routed: Bool[np.ndarray, "I D"] | None, *, measure_excess: bool = False) -> Formulation:
        return assemble(self._terms, self._gpus, fixed=True, routed=routed, measure_excess=measure_excess)

    def _limit_routes(self, lower: float) -> tuple[float, Reason, Float64[np.ndarray, "I D"]]:
        """Choose the routes, a binary for each."""
        formulation = self._build(None)
        answer = run_highs(formulation, mip_rel_gap=self._gap, time_limit=_SECONDS)
        if answer.columns is None:
            known, reason, shares = self._explain(limited=True)
            return max(known, lower), reason, shares
        lower = max(lower, answer.bound)
        chosen = self._build(read_routes(formulation, answer.columns))
        routed = self._programs.solve(chosen)
        if routed.columns is None:
            return lower, Reason.UNKNOWN, np.zeros(self._every.shape)
        return lower, Reason.FEASIBLE, _settle(read_shares(chosen, routed.columns))

    def _explain(self, *, limited: bool) -> tuple[float, Reason, Float64[np.ndarray, "I D"]]:
        """Prove that too much stays unmet, by the least excess over the cap; UNKNOWN where that is not proven."""
        formulation = self._build(None if limited else self._every, measure_excess=True)
        if limited:
            excess = run_highs(formulation, mip_rel_gap=0.5, mip_abs_gap=1e-9, time_limit=_SECONDS).bound
        else:
            excess = bound_by_duality(formulation, self._programs.solve(formulation))
        proven = math.isfinite(excess) and excess > LEAST_EXCESS
        nothing = np.zeros(self._every.shape)
        return (math.inf, Reason.UNMET, nothing) if proven else (self._fixed_cost(), Reason.UNKNOWN, nothing)

    def _fixed_cost(self) -> float:
        """Return rent and storage of the weights, which every routing pays, $."""
        terms = self._terms
        if terms.fleet is None:
            return float(terms.deploy.sum())
        return float((terms.fleet.hold + terms.fleet.rent * terms.fleet.replicas).sum())


def bound_by_duality(program: Formulation, answer: HighsAnswer) -> float:
    """Return the dual value of a program with all w and r fixed, at HiGHS's multipliers, less what rounding may add.

    Valid at any multipliers; -inf where HiGHS gives none.
    """
    if answer.row_dual is None:
        return -math.inf
    y = answer.row_dual
    y = np.where(np.isinf(program.row_lower), np.minimum(y, 0.0), y)
    y = np.where(np.isinf(program.row_upper), np.maximum(y, 0.0), y)
    row = np.repeat(np.arange(len(y)), np.diff(program.start))
    side = np.where(y > 0, program.row_lower, program.row_upper)
    rows = np.where(y != 0, y * np.where(y != 0, side, 0.0), 0.0)
    entries = y[row] * program.value
    reduced = program.cost - np.bincount(program.index, entries, len(program.cost))
    upper = np.where(np.isinf(program.upper), 1.0, program.upper)
    columns = np.minimum(reduced * program.lower, reduced * upper)
    sizes = np.abs(rows).sum() + (
        (np.abs(program.cost) * upper).sum() + np.abs(entries) @ upper[program.index]
    )
    rounding = float(np.finfo(np.float64).eps) * (len(entries) + len(y) + len(upper)) * sizes
    return float(rows.sum() + columns.sum() - rounding)


def _settle(shares: Float64[np.ndarray, "I D"]) -> Float64[np.ndarray, "I D"]:
    """Drop negligible shares; those of a type sum to at most 1."""
    shares = np.where(shares > NEGLIGIBLE_SHARE, np.minimum(shares, 1.0), 0.0)
    return shares / np.maximum(shares.sum(1, keepdims=True), 1.0)
