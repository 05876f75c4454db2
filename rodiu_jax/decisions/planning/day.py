"""A day hour by hour: the cheapest fixed fleet, the cheapest fleet of each hour, and what changing it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from rodiu_jax.decisions.planning.request import SOURCE
from rodiu_jax.decisions.planning.schedule import Schedule, count_gpus, find_schedule
from rodiu_jax.decisions.planning.traffic import Traffic, pick_level
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.files import json_number
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

if TYPE_CHECKING:
    from rodiu_jax.catalog.readers.trace import QueryStatistics
    from solvers.answers import Answer
    from solvers.common_fleet import CommonFleet

_COVERED = 0.9 - 1e-9
"""Part of an hour that windows must cover for the hour to count as whole."""


@dataclass(frozen=True)
class Clock:
    """Which hours are planned.

    Attributes:
      hours: in order, from 0 to 23.
      dated: they are hours of the day; otherwise they are counted from each trace's first request.
      repeated: some trace without dates is longer than 24 hours, and further ones count as the same hours again.
    """

    hours: tuple[int, ...]
    dated: bool
    repeated: bool = False

    @property
    def of(self) -> str:
        """What the hours are of."""
        if self.dated:
            return "the day"
        return "each 24 hours of the trace" if self.repeated else "the trace"

    @property
    def follows(self) -> tuple[bool, ...]:
        """For each hour, whether the next one, after the last the first, begins as it ends."""
        nexts = (*self.hours[1:], self.hours[0])
        circle = self.dated or self.repeated
        return tuple(
            len(self.hours) > 1 and (now + 1) % 24 == then and (circle or then > now)
            for now, then in zip(self.hours, nexts, strict=True)
        )

    def name(self, hour: int) -> str:
        """Name an hour: ``07-08`` of a day, or ``hour 7`` of a trace."""
        return f"{hour:02d}-{(hour + 1) % 24:02d}" if self.dated else f"hour {hour}"


@dataclass(frozen=True)
class Hour:
    """One hour; money in $/h.

    Attributes:
      hour: of the day, or of the trace where its clock has no dates, from 0 to 23.
      lower, upper: bracket of the cheapest fleet for this hour alone; ``gpus`` of that fleet.
      fixed: what the fixed fleet costs in this hour.
      scheduled: what the schedule's fleet costs in this hour; ``scheduled_gpus`` of that fleet, and ``starting``, the
        GPUs of replicas that are being started for the next hour.
    """

    hour: int
    rates: dict[str, float]
    lower: float
    upper: float
    gpus: int
    fixed: float
    scheduled: float
    scheduled_gpus: int
    starting: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; rates in queries/s."""
        return {
            "hour": self.hour,
            "queries_per_second": {q: rate / 3600.0 for q, rate in self.rates.items()},
            "lower_bound": json_number(self.lower),
            "upper_bound": json_number(self.upper),
            "gpus": self.gpus,
            "fixed_fleet": json_number(self.fixed),
            "scheduled": json_number(self.scheduled),
            "scheduled_gpus": self.scheduled_gpus,
            "starting_gpus": self.starting,
        }


@dataclass(frozen=True)
class Day:
    """What `plan_day` found; money in $/h, on average over the hours.

    Attributes:
      clock: which hours these are.
      scenarios: one per hour (H), in the order of ``hours``.
      fixed_lower, fixed_upper: bracket of the cheapest fleet that stays the same all day; ``fixed_plans`` route it.
      hourly_lower: certified: no way of changing the fleet from hour to hour costs less, however fast replicas start.
      hourly_upper: the cheapest fleet of each hour, with replicas that start at once; ``hourly_plans``.
      schedule: fleets that can be had with the start-up time, and what they cost.
      gpu_hours: rented in a day of these hours, and ``peak`` GPUs, by ``fixed``, ``hourly`` and ``scheduled``.
    """

    clock: Clock
    scenarios: Instances
    hours: tuple[Hour, ...]
    start_minutes: float
    fixed_lower: float
    fixed_upper: float
    fixed_plans: tuple[Plan, ...]
    hourly_lower: float
    hourly_upper: float
    hourly_plans: tuple[Plan, ...]
    schedule: Schedule
    gpu_hours: dict[str, float]
    peak: dict[str, int]
    seconds: float

    @property
    def worth(self) -> tuple[float, float]:
        """What changing the fleet every hour can save against a fixed one: at least and at most, $/h."""
        return max(self.fixed_lower - self.hourly_upper, 0.0), self.fixed_upper - self.hourly_lower

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "hours_of": self.clock.of,
            "start_minutes": self.start_minutes,
            "fixed": {
                "lower_bound": json_number(self.fixed_lower),
                "upper_bound": json_number(self.fixed_upper),
                "deployments": [d.to_json() for d in self.fixed_plans[0].deployments],
            },
            "hourly": {
                "lower_bound": json_number(self.hourly_lower),
                "upper_bound": json_number(self.hourly_upper),
            },
            "scheduled": json_number(self.schedule.cost),
            "changing_saves_at_least": json_number(self.worth[0]),
            "changing_saves_at_most": json_number(self.worth[1]),
            "gpu_hours": self.gpu_hours,
            "peak_gpus": self.peak,
            "hours": [h.to_json() for h in self.hours],
            "seconds": self.seconds,
        }


def make_day(scenario: Instances, traffic: Sequence[Traffic], level: str) -> tuple[Clock, Instances]:
    """Make a scenario for each hour that every trace covers whole: the hours, and the scenarios (H).

    Hours are of the day. Where the traces' clocks have no dates they are counted from the first request of each trace.
    The rate of a traced type is the level asked for of the windows in that hour, over all days; types without a trace
    have the same rate all day.

    Raises:
      InputError: no trace, some traces with dates and some without, or no hour that all traces cover whole.
    """
    traced = [(t, t.statistics) for t in traffic if t.statistics is not None]
    if not traced:
        expected = "at least one --trace: only traces say how traffic differs from hour to hour"
        raise InputError(SOURCE, "by", expected)
    dated = [t.query for t, statistics in traced if statistics.dated]
    undated = [t.query for t, statistics in traced if not statistics.dated]
    if dated and undated:
        expected = (
            f"traces that all have dates, or none of them: the times of {', '.join(undated)} count from a start, "
            f"whose hour of the day nobody states, beside the dates of {', '.join(dated)}"
        )
        raise InputError(SOURCE, "by", expected)
    covered = set(range(24))
    for _, statistics in traced:
        covered &= _whole_hours(statistics)
    if not covered:
        names = ", ".join(t.query for t, _ in traced)
        spans = ", ".join(f"{statistics.hours:.3g} h" for _, statistics in traced)
        what = "of the day " if dated else ""
        expected = f"traces that cover at least one whole hour {what}in common: those of {names} span {spans}"
        raise InputError(SOURCE, "by", expected)
    repeated = not dated and any(statistics.hours > 24 for _, statistics in traced)
    clock = Clock(tuple(sorted(covered)), bool(dated), repeated)
    rates = np.array([[_rate_at(t, hour, level) for t in traffic] for hour in clock.hours])
    rows = np.array([scenario.query_names.index(t.query) for t in traffic])
    arrival = np.zeros((len(clock.hours), len(scenario.query_names)))
    arrival[:, rows] = rates
    single = replace(scenario, fields=scenario.one(0))
    return clock, single.with_fields(arrival_rate=arrival)


def _whole_hours(statistics: QueryStatistics) -> set[int]:
    """Return the hours that windows cover, but for a tenth: the last window of a trace is rarely whole."""
    if statistics.hour_of_window is None:
        return set()
    counts = np.bincount(statistics.hour_of_window, minlength=24)
    return {int(hour) for hour in np.flatnonzero(counts * statistics.windows >= _COVERED)}


def _rate_at(traffic: Traffic, hour: int, level: str) -> float:
    statistics = traffic.statistics
    if statistics is None:
        return traffic.rate
    assert statistics.hour_of_window is not None
    rates = statistics.rates[statistics.hour_of_window == hour]
    return pick_level(rates, level, float(rates.mean()), float(rates.max()))


def plan_day(
    clock: Clock,
    scenarios: Instances,
    begin: Callable[[Instances], Callable[[], list[Answer]]],
    *,
    start_minutes: float,
    gap: float,
    time_limit: float,
    bought: float = 1.0,
) -> Day:
    """Plan a day: the cheapest fleet of each hour, the cheapest fixed one, and a schedule with start-up times.

    Args:
      clock: the hour of each scenario.
      scenarios: they differ in their arrival rates alone; every hour weighs the same.
      begin: lets workers begin to solve the hours, while this process looks for the fixed fleet.
      start_minutes: from when a replica is rented until it serves.
      gap: relative gap of the fixed fleet; ``time_limit``: seconds for it, and again for the parts of it that a
        schedule may rent.
      bought: the factor on the real traffic that the scenarios' is; the hours are told with the real one.

    Raises:
      InputError: the scenarios limit routes.
      WorkFailed: an hour has no plan, or no fleet has one in all hours.
    """
    import time

    from solvers.common_fleet import find_common_fleet

    if int(np.max(scenarios.fields.max_routes)) > 0:
        expected = (
            "a catalogue without a limit on routes (max_routes 0): one fleet for all hours is routed in each"
        )
        raise InputError(SOURCE, "by", expected, int(np.max(scenarios.fields.max_routes)))
    began = time.perf_counter()
    wait = begin(scenarios)
    hours = clock.hours
    weights = np.full(len(hours), 1.0 / len(hours))
    try:
        fixed = find_common_fleet(scenarios, weights, gap=gap, time_limit=time_limit)
    except ValueError as error:
        raise WorkFailed(str(error)) from None
    answers = wait()
    own = [answer.plan_for(b) for b, answer in enumerate(answers)]
    plans = [plan for plan in own if plan is not None]
    if len(plans) < len(own):
        worst = next(h for h, plan in zip(hours, own, strict=True) if plan is None)
        raise WorkFailed(f"no plan was found for {clock.name(worst)} of {clock.of}")
    per_hour = float(scenarios.one(0).rental_hours)
    schedule = find_schedule(
        scenarios, plans, fixed.deployment, start_minutes, follows=clock.follows, time_limit=time_limit
    )
    day_rows = _make_hours(hours, scenarios, answers, plans, fixed, schedule, per_hour, bought)
    fixed_gpus = count_gpus(fixed.deployment)
    hourly_gpus = [count_gpus(plan.deployments) for plan in plans]
    started = sum(row.starting for row in day_rows) * start_minutes / 60.0
    scheduled = [row.scheduled_gpus for row in day_rows]
    return Day(
        clock=clock,
        scenarios=scenarios,
        hours=tuple(day_rows),
        start_minutes=start_minutes,
        fixed_lower=fixed.lower / per_hour,
        fixed_upper=fixed.upper / per_hour,
        fixed_plans=fixed.plans,
        hourly_lower=float(np.mean([a.lower for a in answers])) / per_hour,
        hourly_upper=float(np.mean([a.upper for a in answers])) / per_hour,
        hourly_plans=tuple(plans),
        schedule=schedule,
        gpu_hours={
            "fixed": float(fixed_gpus * len(hours)),
            "hourly": float(sum(hourly_gpus)),
            "scheduled": sum(scheduled) + started,
        },
        peak={
            "fixed": fixed_gpus,
            "hourly": max(hourly_gpus),
            "scheduled": max(g + row.starting for g, row in zip(scheduled, day_rows, strict=True)),
        },
        seconds=time.perf_counter() - began,
    )


def _make_hours(
    hours: Sequence[int],
    scenarios: Instances,
    answers: Sequence[Answer],
    plans: Sequence[Plan],
    fixed: CommonFleet,
    schedule: Schedule,
    per_hour: float,
    bought: float,
) -> list[Hour]:
    from rodiu_jax.model.check import check_plan

    rows = []
    for b, hour in enumerate(hours):
        rates: Float64[np.ndarray, " I"] = scenarios.one(b).arrival_rate / bought
        cost = check_plan(fixed.plans[b], scenarios, b).costs["total_cost"]
        rows.append(
            Hour(
                hour=hour,
                rates=dict(zip(scenarios.query_names, rates.tolist(), strict=True)),
                lower=answers[b].lower / per_hour,
                upper=answers[b].upper / per_hour,
                gpus=count_gpus(plans[b].deployments),
                fixed=cost / per_hour,
                scheduled=schedule.hour_costs[b],
                scheduled_gpus=count_gpus(schedule.plans[b].deployments),
                starting=schedule.starting[b],
            )
        )
    return rows
