"""From traffic to a fleet: the cheapest plan with its proof, what limits it, what would change it, what it rests on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rodiu_jax.decisions.fleet import FleetSummary, summarize_fleet
from rodiu_jax.decisions.plan_basis import PlanBasis, find_plan_basis
from rodiu_jax.decisions.planning.day import Day, make_day, plan_day
from rodiu_jax.decisions.planning.even_routing import route_evenly
from rodiu_jax.decisions.planning.inputs import PlanInputs, describe_promises, prepare
from rodiu_jax.decisions.planning.request import (
    SOURCE,
    Level,
    PlanRequest,
    read_count,
    read_price,
    read_quota,
    read_rate,
    require_number,
)
from rodiu_jax.decisions.planning.robustness_price import FACTORS, Protection, compare_protections
from rodiu_jax.decisions.planning.solving import Solving, open_workers
from rodiu_jax.decisions.planning.what_ifs import (
    WhatIf,
    answer_questions,
    ask_limits,
    ask_questions,
    make_what_if,
    spread_fields,
)
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.files import json_number
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import CASCADE_GAP
from rodiu_jax.runtime.progress import progress

if TYPE_CHECKING:
    from solvers.answers import Answer

GAP = 1e-3
"""Relative gap to which every answer is proven unless asked otherwise."""

TIME_LIMIT = 60.0
"""Seconds for each scenario unless asked otherwise; what is proven by then is said."""

_DAY_SECONDS = 300.0
"""Seconds for the fixed fleet of a day, and for each of its hours."""

_MOST_QUESTIONS = 60
"""What progress is told to expect."""


@dataclass(frozen=True)
class FleetAnswer:
    """What `plan_fleet` found; money in $/h.

    Attributes:
      plan: the recommended one, routed for the real traffic; ``scenario`` (B = 1) is what it is for.
      found: the answer's bracket: with ``headroom`` at the traffic that the fleet is bought for, else the real one.
      costs: of the plan on the scenario, $/h, as the independent checker computes them.
      fleet: GPUs, rent, load, quotas and headroom of the plan.
      unservable: query types that no plan can serve, with the reason.
      limits: every limit of a fleet one step looser; ``what_ifs``: the other questions.
      protections: robust rates beside plain headroom.
      basis: what the plan rests on.
      day: hour by hour, where asked for.
      seconds: wall time.
    """

    inputs: PlanInputs
    scenario: Instances
    plan: Plan
    found: WhatIf
    costs: dict[str, float]
    fleet: FleetSummary
    unservable: dict[str, str]
    limits: tuple[WhatIf, ...]
    what_ifs: tuple[WhatIf, ...]
    protections: tuple[Protection, ...]
    basis: PlanBasis
    day: Day | None
    seconds: float

    @property
    def gap(self) -> float:
        """(upper - lower) / upper of the answer."""
        return 1.0 - self.found.lower / self.found.upper if self.found.upper > 0 else 0.0

    @property
    def headroom(self) -> float:
        """The factor on the traffic that the fleet is bought for."""
        return self.inputs.request.headroom or 1.0

    def alternatives(self) -> dict[str, tuple[Plan, str]]:
        """Return other plans for the same traffic, by name, each with a sentence: what protects them, and how far."""
        found = {p.name: (p.plan, p.what) for p in self.protections if p.plan is not None}
        if self.day is not None:
            fixed = route_evenly(self.scenario, self.day.fixed_plans[0])
            what = (
                f"The cheapest fleet that stays the same over the hours of {self.day.clock.of} that were planned, "
                "routed for the traffic of this scenario."
            )
            found["fixed all day"] = Plan(0, fixed.deployments, fixed.routes, fixed.unmet), what
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all that is said, as JSON values; what is infinite or not known is null."""
        traffic = [
            {
                "query": t.query,
                "queries_per_second": t.rate / 3600.0,
                "input_tokens": t.input_tokens,
                "output_tokens": t.output_tokens,
                "source": t.source,
                "basis": t.basis,
                "mean_end_to_end_ms": json_number(most),
            }
            for t, most in zip(
                self.inputs.traffic, self.scenario.one(0).delay_threshold.tolist(), strict=True
            )
        ]
        return {
            "traffic": traffic,
            "promises": dict(describe_promises(self.inputs.catalog)),
            "notes": list(self.inputs.notes),
            "headroom_bought": self.headroom,
            "answer": self.found.to_json() | {"gap": json_number(self.gap)},
            "costs_per_hour": {name: json_number(value) for name, value in self.costs.items()},
            "fleet": self.fleet.to_json(),
            "plan": self.plan.to_json(),
            "unservable": self.unservable,
            "limits": [w.to_json() for w in self.limits],
            "what_if": [w.to_json() for w in self.what_ifs],
            "protections": [p.to_json() for p in self.protections],
            "rests_on": self.basis.tabulate().to_dict("records"),
            "day": None if self.day is None else self.day.to_json(),
            "seconds": self.seconds,
        }


def plan_fleet(
    catalog: str | Path = "serving",
    *,
    traces: Mapping[str, str | Path] | None = None,
    rates: Mapping[str, float | str] | None = None,
    users: Mapping[str, float | str] | None = None,
    think_seconds: float = 60.0,
    traffic_at: Level = "p95",
    timezone: str = "UTC",
    columns: str | None = None,
    unit: Literal["s", "ms"] | None = None,
    prices: str | Path | None = None,
    price_map: str | None = None,
    quotas: Mapping[str, int | str] | None = None,
    promises: Mapping[str, str] | None = None,
    api_prices: Mapping[str, float | str] | float | str | None = None,
    headroom: float | None = None,
    shortfall: float | None = None,
    gamma: float | None = None,
    by_hour: bool = False,
    start_minutes: float = 5.0,
    gap: float = GAP,
    time_limit: float = TIME_LIMIT,
    workers: int | None = None,
    quiet: bool = True,
) -> FleetAnswer:
    """Plan a fleet for some traffic: the cheapest one with its proof, and what would change it.

    The scenario has the catalogue's nominal values: means of what it states as distributions. Where any query type is
    named by a trace, a rate or users, only the named ones carry traffic; otherwise all do as the catalogue states.

    Args:
      catalog: a catalogue with rates, its name or its file.
      traces: a file of requests by query type: rate and token lengths (`rodiu_jax.import_trace`).
      rates: queries/s by query type, or text with a unit such as ``1200/min``.
      users: concurrent users by query type. Each asks again ``think_seconds`` after an answer, so that by Little's law
        they ask at most users / think_seconds queries/s, which is planned for.
      traffic_at: the level of a trace's windows (0.1 h each) that is planned for: ``mean``, ``p50``, ``p90``, ``p95``,
        ``p99`` or ``peak``; of several traces each at its own.
      timezone, columns, unit: of the traces, as `rodiu_jax.import_trace`.
      prices: a price list (`rodiu_jax.import_prices`), whose GPUs are called as in the catalogue, or as ``price_map``.
      quotas: most GPUs by GPU or device.
      promises: limits by query type, such as ``ttft_mean<=500ms,tpot_mean<=30ms``, about latencies that curves have.
      api_prices: what a million input and output tokens cost elsewhere, $ or text such as ``$3/Mtok``; of all types, or
        by query type, the empty name standing for all others. What costs less there is not served.
      headroom: trust every rate and buy for so many times the traffic; by default rates may fall short by
        ``shortfall``, those of ``gamma`` types at once on each deployed pair (as the catalogue states if not given).
      by_hour: plan the day too: a scenario for each hour that the traces cover whole (of the day, or of the trace where
        its clock has no dates), at ``traffic_at`` of the windows in that hour; the cheapest fixed fleet, the cheapest
        of each hour, and a schedule between them.
      start_minutes: from when a replica is rented until it serves, from 0 to 60; it counts in that schedule.
      gap: relative gap at which a scenario counts as solved (the fleets of a day: at least 1 %).
      time_limit: seconds for each of them.
      workers: processes; the number of usable cores by default. A single one is this process.
      quiet: show no progress.

    Raises:
      InputError: as `rodiu_jax.decisions.planning.inputs.prepare`; both ``headroom`` and ``shortfall`` or ``gamma``; a
        gap or time limit that is none.
      WorkFailed: no plan keeps every limit of the catalogue, or none was found in the time limit.
    """
    if not 0 <= gap <= 1:
        raise InputError(SOURCE, "gap", "a number from 0 to 1", gap)
    if not time_limit > 0:
        raise InputError(SOURCE, "time_limit", "seconds > 0", time_limit)
    require_number(start_minutes, "start_minutes", "minutes from 0 to 60", most=60.0)
    given = {"": api_prices} if isinstance(api_prices, str | float | int) else api_prices or {}
    request = PlanRequest(
        catalog=catalog,
        traces=dict(traces or {}),
        rates={name: read_rate(value, name) for name, value in (rates or {}).items()},
        users={name: read_count(value, name) for name, value in (users or {}).items()},
        think_seconds=think_seconds,
        traffic_at=traffic_at,
        timezone=timezone,
        columns=columns,
        unit=unit,
        prices=prices,
        price_map=price_map,
        quotas={name: read_quota(value, name) for name, value in (quotas or {}).items()},
        promises=dict(promises or {}),
        api_prices={name: read_price(value) for name, value in given.items()},
        headroom=headroom,
        shortfall=shortfall,
        gamma=gamma,
    )
    minutes = start_minutes if by_hour else None
    return answer_request(
        request, start_minutes=minutes, gap=gap, time_limit=time_limit, workers=workers, quiet=quiet
    )


def answer_request(
    request: PlanRequest,
    *,
    start_minutes: float | None,
    gap: float,
    time_limit: float,
    workers: int | None,
    quiet: bool,
) -> FleetAnswer:
    """Answer a request that has been read; arguments and errors as `plan_fleet`.

    Args:
      start_minutes: plan the day too, with this start-up time; None: do not.
    """
    from solvers.exact import solve_instance
    from solvers.unservable import find_unservable

    began = time.perf_counter()
    inputs = prepare(request)
    scenario = spread_fields(inputs.scenario)
    factor = request.headroom or 1.0
    day = None if start_minutes is None else make_day(scenario, inputs.traffic, request.traffic_at)
    sized = scenario.with_fields(arrival_rate=np.asarray(scenario.fields.arrival_rate) * factor)
    with progress("plan", _MOST_QUESTIONS, quiet=quiet) as bar, open_workers(workers) as pool:
        solving = Solving(pool, bar, gap=gap, time_limit=time_limit)
        answer = solve_instance(sized, 0, gap=gap, time_limit=time_limit)
        bar.advance(answer.status.word, answer.gap)
        bought = _require_plan(answer, sized)
        plan = route_evenly(scenario, bought)

        def solve(batch: Instances) -> list[Answer]:
            return solving.solve(batch, bought)

        questions = [*ask_limits(sized, bought), *ask_questions(sized, bought, inputs.nominal)]
        answered = answer_questions(sized, questions, solve)
        gammas = [float(scenario.one(0).gamma_throughput)]
        factors = (*FACTORS, *([request.headroom] if request.headroom is not None else []))
        protections = compare_protections(scenario, solve, gammas=gammas, factors=factors)
        planned = None
        if day is not None and start_minutes is not None:
            clock, scenarios = day
            scenarios = scenarios.with_fields(arrival_rate=np.asarray(scenarios.fields.arrival_rate) * factor)
            patient = Solving(pool, bar, gap=max(gap, CASCADE_GAP), time_limit=_DAY_SECONDS)
            planned = plan_day(
                clock,
                scenarios,
                patient.begin,
                start_minutes=start_minutes,
                gap=max(gap, CASCADE_GAP),
                time_limit=_DAY_SECONDS,
                bought=factor,
            )
    hours = float(scenario.one(0).rental_hours)
    verdict = check_plan(plan, scenario, 0)
    what = "The traffic, prices and promises as planned."
    if factor > 1:
        what = (
            f"Prices and promises as planned, at {factor:g} times the traffic, which the fleet is bought for."
        )
    return FleetAnswer(
        inputs=inputs,
        scenario=scenario,
        plan=plan,
        found=make_what_if("base", "as planned", what, sized, 0, answer),
        costs={name: value / hours for name, value in verdict.costs.items()},
        fleet=summarize_fleet(plan, scenario, 0),
        unservable=find_unservable(sized, 0),
        limits=tuple(w for w in answered if w.group == "limit"),
        what_ifs=tuple(w for w in answered if w.group != "limit"),
        protections=tuple(protections),
        basis=find_plan_basis(inputs.catalog, [(plan, scenario, 0)]),
        day=planned,
        seconds=time.perf_counter() - began,
    )


def _require_plan(answer: Answer, scenario: Instances) -> Plan:
    """Return the plan of an answer as that of scenario 0, or say why there is none."""
    from solvers.unservable import explain_no_plan

    plan = answer.plan_for(0)
    if plan is not None:
        return plan
    if answer.status is Status.INFEASIBLE:
        why = explain_no_plan(scenario, 0) or "unmet_cap lets less go unserved than the limits leave unserved"
        raise WorkFailed(f"no plan keeps every limit (proven): {why}")
    raise WorkFailed(f"no plan was found ({answer.status.word}): {answer.message or 'give it more time'}")
