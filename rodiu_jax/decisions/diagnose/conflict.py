"""The smallest set of limits that together leave no plan: by name, each of them needed, proven.

A *limit* is what a planner may lift as a whole: a promise of a query type, the quota of a device, the budget, the cap
on what stays unserved of a type, and so on. Lifting limits never makes a scenario harder: a set of limits that leaves
no plan (a *conflict*) stays one with more limits. Two facts about sets settle it:

- a plan that keeps all limits of a set but breaks others says that every conflict has one of the broken (a
  *correction*);
- a set is a conflict where HiGHS proves that no plan keeps it.

First a deletion filter (Chinneck and Dravnieks 1991) halves blocks of limits that are not needed: what stays is a
conflict of which every limit, lifted, leaves a plan. Then minimum hitting sets of the corrections are asked (Ignatiev,
Previti, Liffiton and Marques-Silva 2015, "Smallest MUS extraction with minimal hitting set dualization"): every
conflict hits all corrections, so that none has fewer limits than such a set, and the first that is one is a smallest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import (
    FIELD_SPECS,
    FILE_FIELDS,
    Fields,
    axes_of,
    compute_demand,
    has_quotas,
    has_rates,
    has_replicas,
    kv_demand,
    tokens_per_query,
)
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status

if TYPE_CHECKING:
    from solvers.answers import Answer

_MOST_QUESTIONS = 200
"""Questions to HiGHS; a conflict that needs more is told with what is proven of it by then."""

_MOST_SECONDS = 120.0
"""Likewise: questions about large catalogues take seconds each."""

_MANY_REPLICAS = 1_000_000
"""Replicas of a pair where their number is no limit."""


@dataclass(frozen=True)
class NamedLimit:
    """A limit that can be lifted as a whole.

    Attributes:
      constraint: family as in outputs (MODEL sections 5 and 9); ``throughput`` is the most load of a replica, which is
        1 where it is lifted, ``replicas`` counts for all pairs, ``memory`` and ``compute`` for all GPUs.
      name: of the query type or device; empty where there is only one.
      value: in the unit of its field; nan where it is not one number.
    """

    constraint: str
    name: str
    value: float

    @property
    def label(self) -> str:
        """``constraint[name]``, or the constraint alone."""
        return f"{self.constraint}[{self.name}]" if self.name else self.constraint


@dataclass(frozen=True)
class Conflict:
    """Limits that together leave no plan.

    Attributes:
      limits: in the order of the model; without any one of them there is a plan, as checked plans show, but for those
        in ``unproven``.
      unproven: labels of those of which the time did not suffice to show it.
      smallest: it is proven that no fewer limits leave no plan.
      capped: the conflict is with the scenario's own ``unmet_cap``; otherwise with serving everyone, which it allows
        not to.
    """

    limits: tuple[NamedLimit, ...]
    unproven: tuple[str, ...]
    smallest: bool
    capped: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; a value that is not one number is null."""
        return {
            "limits": [
                {"constraint": m.constraint, "name": m.name, "value": None if np.isnan(m.value) else m.value}
                for m in self.limits
            ],
            "unproven": list(self.unproven),
            "smallest": self.smallest,
            "capped": self.capped,
        }


Limits = frozenset[NamedLimit]
FindPlan = Callable[[Instances], "Answer"]
"""Find any plan of a single scenario, as `solvers.feasibility.find_any_plan` does."""


def list_limits(instances: Instances, b: int) -> list[NamedLimit]:
    """List the limits of scenario ``b`` that can be lifted.

    First the caps on what stays unserved: without one of them a type leaves the question, which is then an easier one.
    The others in the order in which it helps a planner to be rid of them.
    """
    f = instances.one(b)
    found = [
        *(NamedLimit("unmet", q, float(f.unmet_cap)) for q in instances.query_names),
        NamedLimit("compute", "", np.nan),
        NamedLimit("memory", "", np.nan),
        NamedLimit("storage", "", float(f.storage_capacity)),
    ]
    if int(f.max_routes) > 0:
        found.append(NamedLimit("routes", "", float(f.max_routes)))
    if has_rates(f) and f.max_utilization < 1.0:
        found.append(NamedLimit("throughput", "", float(f.max_utilization)))
    if has_replicas(f):
        found.append(NamedLimit("replicas", "", np.nan))
    found.append(NamedLimit("budget", "", float(f.budget)))
    if has_quotas(f):
        for k, device in enumerate(instances.gpu_devices):
            if np.isfinite(f.gpu_quota[k]) and instances.gpu_devices.index(device) == k:
                found.append(NamedLimit("quota", device, float(f.gpu_quota[k])))
    for constraint, field in (("error", f.error_threshold), ("delay", f.delay_threshold)):
        found += [
            NamedLimit(constraint, q, float(v)) for q, v in zip(instances.query_names, field, strict=True)
        ]
    return found


def keep_limits(instances: Instances, b: int, kept: Limits) -> Instances:
    """Return scenario ``b`` alone with every limit lifted but ``kept``, which cap at least one query type.

    A type that is not capped may stay unserved, and is left out. A lifted number is put where no plan that serves the
    traffic reaches it: promises above the worst delay and error of any pair, memory and compute above all that the
    traffic takes, money above what renting all of it costs.
    """
    names = {(m.constraint, m.name) for m in kept}
    f = instances.one(b)
    types = [i for i, q in enumerate(instances.query_names) if ("unmet", q) in names]
    values = {n: np.asarray(v) for n, v in f._asdict().items() if n in FILE_FIELDS}
    for name, value in values.items():
        if axes_of(name, value.ndim).startswith("I"):
            values[name] = value[types]
    queries = [instances.query_names[i] for i in types]
    part = f._replace(**values)
    loose = _loosest(part)
    for constraint, field in (("delay", "delay_threshold"), ("error", "error_threshold")):
        held = np.array([(constraint, q) in names for q in queries])
        values[field] = np.where(held, values[field], np.maximum(values[field], loose[field]))
    if has_quotas(f):
        held = np.array([("quota", device) in names for device in instances.gpu_devices])
        values["gpu_quota"] = np.where(held, values["gpu_quota"], np.inf)
    for constraint, field in (
        ("memory", "gpu_memory"),
        ("compute", "gpu_compute"),
        ("storage", "storage_capacity"),
        ("replicas", "max_replicas"),
    ):
        if (constraint, "") not in names and np.ndim(values[field]) == len(FIELD_SPECS[field].axes):
            values[field] = np.maximum(values[field], loose[field])
    if ("routes", "") not in names:
        values["max_routes"] = np.asarray(0)
    if ("throughput", "") not in names:
        values["max_utilization"] = np.asarray(1.0)
    if ("budget", "") not in names:
        values["budget"] = np.maximum(values["budget"], _dearest(part._replace(**values)))
    return make_instances(
        queries,
        instances.model_names,
        instances.gpu_names,
        instances.uncertainty,
        values,
        gpu_devices=instances.gpu_devices,
        source="a scenario with limits lifted",
    )


def _loosest(f: Fields) -> dict[str, np.ndarray]:
    """Return values of limits that no plan reaches, twice over."""
    speed = f.tp_speedup.min(-1)
    slow = (f.delay_nominal + f.delay_deviation) * tokens_per_query(f)[:, None, None]
    wrong = f.error_nominal + f.error_deviation
    held = f.weight_memory.sum() + kv_demand(f).max((1, 2)).sum()
    return {
        "delay_threshold": 2.0 * (slow / speed).max((1, 2)),
        "error_threshold": 2.0 * wrong.max((1, 2)),
        "gpu_memory": 2.0 * held,
        "gpu_compute": 2.0 * compute_demand(f).sum(),
        "storage_capacity": 2.0 * f.weight_memory.sum() * len(f.gpu_price),
        "max_replicas": np.asarray(_MANY_REPLICAS),
    }


def _dearest(f: Fields) -> np.ndarray:
    """Return what no plan that serves the traffic costs in rent and storage, $, where other limits allow it."""
    replicas = np.broadcast_to(f.max_replicas, (len(f.weight_memory), len(f.gpu_price)))
    rent = f.rental_hours * (f.gpu_price * replicas).sum() * f.tp_degree.max()
    data = (f.token_size * tokens_per_query(f) * f.arrival_rate).sum() / 1000.0
    weights = f.weight_memory.sum() * len(f.gpu_price)
    return 2.0 * (rent + f.rental_hours * f.storage_price * (weights + data))


def find_conflict(
    instances: Instances, b: int, find_plan: FindPlan, *, capped: bool, seconds: float = _MOST_SECONDS
) -> Conflict | None:
    """Find the smallest set of limits of scenario ``b`` that together leave no plan.

    Args:
      find_plan: answers ``FEASIBLE`` with a checked plan or ``INFEASIBLE``; anything else proves nothing.
      capped: True for the scenario's own ``unmet_cap``, False for serving everyone.
      seconds: by the clock, after which nothing more is asked.

    Returns:
      None where it is not proven that all limits together leave no plan.
    """
    one = instances.take([b])
    search = _Search(one if capped else one.with_fields(unmet_cap=0.0), find_plan, seconds)
    if search.ask(search.all) is not True:
        return None
    search.shrink()
    search.find_smallest()
    found = tuple(m for m in reversed(search.order) if m in search.found)  # promises first, caps last
    unproven = tuple(m.label for m in found if not search.needs(m))
    return Conflict(found, unproven, search.smallest, capped)


class _Search:
    """Asks which sets of limits conflict.

    Attributes:
      order: the limits, as `list_limits` has them; ``all``, the same as a set.
      corrections: sets that every conflict has a limit of.
      found: the conflict so far.
      smallest: whether no conflict has fewer limits, proven.
    """

    def __init__(self, one: Instances, find_plan: FindPlan, seconds: float) -> None:
        self._one, self._find_plan = one, find_plan
        self.order = list_limits(one, 0)
        self._left, self._deadline = _MOST_QUESTIONS, time.perf_counter() + seconds
        self._caps = [m for m in self.order if m.constraint == "unmet"]
        self.all: Limits = frozenset(self.order)
        self.corrections: list[Limits] = [
            frozenset(self._caps)
        ]  # nobody need be served: nothing is in the way
        self.found = self.all
        self.smallest = False

    def ask(self, kept: Limits) -> bool | None:
        """Say whether limits conflict; None where neither is proven. What a plan breaks is a correction more."""
        if any(not (c & kept) for c in self.corrections):
            return False
        if not self._left or time.perf_counter() >= self._deadline:
            return None
        self._left -= 1
        answer = self._find_plan(keep_limits(self._one, 0, kept))
        if answer.status is Status.INFEASIBLE:
            return True
        plan = answer.plan_for(0)
        if plan is None:
            return None
        broken = self._find_broken(plan, kept)
        if broken & kept:
            return None  # a plan at the edge of the tolerance proves nothing
        self.corrections.append(broken)
        return False

    def _find_broken(self, plan: Plan, kept: Limits) -> Limits:
        """Find what a plan breaks of all limits, by the independent checker; the types it leaves out are unserved."""
        served = frozenset(m for m in self._caps if m in kept)
        broken = set(self._caps) - served
        names = {m.name for m in served}
        for limit in self.order:
            if limit.constraint == "unmet" or (
                limit.constraint in ("delay", "error") and limit.name not in names
            ):
                continue
            if limit.constraint == "replicas":  # a plan of more of them is none to check
                keeps = self._has_replicas(plan)
            else:
                keeps = check_plan(plan, keep_limits(self._one, 0, served | {limit}), 0).feasible
            if not keeps:
                broken.add(limit)
        return frozenset(broken)

    def _has_replicas(self, plan: Plan) -> bool:
        """Say whether every pair may have the replicas that it has in a plan."""
        most, names = self._one.one(0).max_replicas, self._one.names
        return all(
            d.replicas <= most[names.models.index(d.model), names.gpus.index(d.gpu)] for d in plan.deployments
        )

    def shrink(self) -> None:
        """Leave out of ``found`` what is not needed, in blocks that are halved: the deletion filter."""
        blocks = [self.order]
        while blocks:
            block = blocks.pop(0)
            answer = self.ask(self.found - frozenset(block)) if len(block) < len(self.order) else False
            if answer is True:
                self.found -= frozenset(block)
            elif len(block) > 1:
                half = len(block) // 2
                blocks[:0] = [block[:half], block[half:]]

    def needs(self, limit: NamedLimit) -> bool:
        """Say whether it is proven that ``found`` is no conflict without one of its limits."""
        return self.smallest or any(c & self.found == {limit} for c in self.corrections)

    def find_smallest(self) -> None:
        """Replace ``found`` by a smaller conflict, or prove that there is none, as far as questions suffice."""
        while True:
            least, count = _hit_all(self.corrections, self.order)
            if len(self.found) <= count:
                self.smallest = True
                return
            if len(least) >= len(self.found):
                return
            answer = self.ask(least)
            if answer is True:
                self.found, self.smallest = least, len(least) <= count
                return
            if answer is None:
                return
            self._shrink_correction()

    def _shrink_correction(self) -> None:
        """Keep more limits than the last plan does, one after the other, so that the last correction is small."""
        for limit in sorted(self.corrections[-1], key=self.order.index):
            last = self.corrections[-1]
            if limit in last and len(last) > 1:
                self.ask((self.all - last) | {limit})


def _hit_all(corrections: list[Limits], order: list[NamedLimit]) -> tuple[Limits, int]:
    """Return a set of few limits that has one of each correction, and the fewest that any such set has, proven."""
    from solvers.highs import run_highs
    from solvers.sparse import SparseProgram

    program, at = SparseProgram(), {m: n for n, m in enumerate(order)}
    chosen = program.add_columns(np.ones(len(order)), 1.0, integer=True)
    rows = program.add_rows(len(corrections), 1.0, np.inf)
    for row, correction in zip(rows, corrections, strict=True):
        columns = chosen[[at[m] for m in correction]]
        program.put(np.full(len(columns), row), columns, 1.0)
    answer = run_highs(program.arrays(bounded=False), mip_rel_gap=0.0, mip_abs_gap=0.0)
    assert answer.columns is not None, "all limits together hit every correction"
    fewest = math.ceil(answer.bound - 1e-6)
    return frozenset(m for m, value in zip(order, answer.columns, strict=True) if value > 0.5), fewest
