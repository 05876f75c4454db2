"""A planned fleet in words: what to run, what it costs, how sure that is, what limits it and what it rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rodiu_jax.decisions.plan_basis import WEIGHTS
from rodiu_jax.io.number_text import dollars, interval, number, percent, significant
from rodiu_jax.model.tolerances import OPTIMAL_GAP, SAME_COST

if TYPE_CHECKING:
    from rodiu_jax.decisions.planning.day import Day
    from rodiu_jax.decisions.planning.plan import FleetAnswer
    from rodiu_jax.model.plan import Deployment

_MOST_TOLD = 3

_WORTH_TELLING = 1e-3
"""Part of the cost that a limit must be proven to save before a sentence names it; the table has all."""


def write_sentences(answer: FleetAnswer) -> list[str]:
    """Say what a planner reads first, most important first."""
    return [
        _say_what_to_run(answer),
        _say_cost(answer),
        _say_proof(answer),
        *_say_unserved(answer),
        _say_limits(answer),
        _say_headroom(answer),
        *_say_changes(answer),
        *_say_protection(answer),
        *say_day(answer),
        _say_basis(answer),
        *answer.inputs.notes,
    ]


def name_fleet(deployments: Deployment) -> str:
    """Name replicas, models and GPUs: ``4 x Llama-3.1-8B on one H100 each``."""
    parts = []
    for d in deployments:
        gpus = f"one {d.gpu}" if d.tp == 1 else f"{d.tp} {d.gpu}"
        each = " each" if d.replicas > 1 else ""
        parts.append(f"{d.replicas} x {d.model} on {gpus}{each}")
    return join_words(parts)


def join_words(parts: list[str]) -> str:
    """Join with commas, and ``and`` before the last."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def name_gpus(gpus: dict[str, int]) -> str:
    """Name GPUs by kind: ``4 H100, 4 B200``; ``none`` where there are none."""
    return ", ".join(f"{count} {gpu}" for gpu, count in gpus.items()) or "none"


def _say_what_to_run(answer: FleetAnswer) -> str:
    deployments = answer.plan.deployments
    if not deployments and set(answer.scenario.query_names) <= set(answer.unservable):
        return "Rent nothing: no fleet here serves any of this traffic within its promises."
    if not deployments:
        return "Rent nothing: buying every answer elsewhere is cheaper than any fleet."
    total = sum(d.tp * d.replicas for d in deployments)
    return f"Run {name_fleet(deployments)}: {total} GPU{'s' if total > 1 else ''} in all."


def _say_cost(answer: FleetAnswer) -> str:
    costs = answer.costs
    parts = [f"{dollars(costs['rental_cost'])}/h of rent"]
    for name, what in (
        ("storage_cost", "for storage"),
        ("delay_cost", "for delay"),
        ("unmet_cost", "for answers bought elsewhere"),
    ):
        if costs[name] >= 0.005:
            parts.append(f"{dollars(costs[name])}/h {what}")
    made = f"({join_words(parts)})" if len(parts) > 1 else "of rent"
    text = f"It costs {dollars(costs['total_cost'])}/h {made}"
    if math.isfinite(answer.fleet.cost_per_million_tokens):
        text += (
            f"; the rent is ${significant(answer.fleet.cost_per_million_tokens, 3)} per million served tokens"
        )
    return f"{text}."


def _say_proof(answer: FleetAnswer) -> str:
    found, larger = answer.found, answer.headroom > 1
    at = f" at {answer.headroom:g} times the traffic" if larger else ""
    if not math.isfinite(found.lower):
        return (
            f"Nothing is proven about how much cheaper a fleet could keep these promises{at}: the time limit came "
            "first."
        )
    near = "as cheap as any" if answer.gap <= OPTIMAL_GAP else f"within {percent(answer.gap)} of the cheapest"
    proven = f"this one is proven to be {near}"
    if larger:
        # What is bought elsewhere at the larger traffic is in both of these, and in nothing that is paid.
        return (
            f"It is bought for {answer.headroom:g} times the traffic. There it costs {dollars(found.upper)}/h with "
            f"what is bought elsewhere then, and no fleet keeps these promises for less than {dollars(found.lower)}/h: "
            f"{proven}."
        )
    return f"No fleet keeps these promises for less than {dollars(found.lower)}/h: {proven}."


def _say_unserved(answer: FleetAnswer) -> list[str]:
    lines = []
    for query, reason in answer.unservable.items():
        lines.append(f"{query} cannot be served by any fleet here, and is bought elsewhere: {reason}.")
    bought = {q: s for q, s in answer.plan.unmet.items() if s > 0 and q not in answer.unservable}
    if bought:
        shares = join_words([f"{percent(share)} of {query}" for query, share in bought.items()])
        lines.append(f"Bought elsewhere, as no cheaper fleet serves everyone: {shares}.")
    elif not answer.unservable:
        lines.append("Every query is served.")
    return lines


def _say_limits(answer: FleetAnswer) -> str:
    base = answer.found
    helps = [w for w in answer.limits if w.upper < base.lower * (1 - _WORTH_TELLING)]
    helps.sort(key=lambda w: w.upper)
    if not helps:
        return f"No limit, one step looser, is proven to save {percent(_WORTH_TELLING)} of the cost."
    told = [
        f"{w.name} saves {_write_saving(base.lower - w.upper, base.upper - w.lower)}/h"
        for w in helps[:_MOST_TOLD]
    ]
    return f"What limits it{_say_larger(answer)}, one step looser: {join_words(told)}."


def _write_saving(low: float, high: float) -> str:
    return interval(low, high, dollars) if math.isfinite(high) else f"at least {dollars(low)}"


def _say_headroom(answer: FleetAnswer) -> str:
    room = answer.fleet.headroom
    if math.isinf(room.factor):
        return "The same fleet takes any traffic."
    if not answer.plan.deployments:
        return "Without a fleet there is no headroom."
    if room.factor == 0:
        why = f": {join_words(list(room.full))}" if room.full else ""
        return f"The same fleet cannot serve everyone at any rate{why}; so it has no headroom for all."
    full = f"; then {room.full[0]} is full" if room.full else ""
    if room.factor < 1:
        served = f"up to {number(room.factor, 3)} times this traffic"
        return f"Routed anew, the same fleet serves everyone {served}{full}."
    return f"The same fleet takes {number(room.factor)} times this traffic{full}."


def _say_changes(answer: FleetAnswer) -> list[str]:
    """Say what more traffic, a GPU that is gone and tighter promises would make of the cost, the fleet chosen anew."""
    asked = [w for w in answer.what_ifs if math.isfinite(w.upper)]
    gone = max((w for w in asked if w.group == "gone"), key=lambda w: w.upper, default=None)
    chosen = [w for w in asked if w.name == "traffic x 2" or w.group == "promises" or w is gone]
    told = [f"{dollars(w.upper)}/h with {w.name}" for w in chosen]
    return [f"Chosen anew{_say_larger(answer)}, the cheapest fleet costs {join_words(told)}."] if told else []


def _say_larger(answer: FleetAnswer) -> str:
    """Say at which traffic questions were solved, where it is not the real one."""
    return f" at {answer.headroom:g} times the traffic" if answer.headroom > 1 else ""


def _say_protection(answer: FleetAnswer) -> list[str]:
    nominal = next((p for p in answer.protections if p.kind == "gamma" and p.level == 0), None)
    if nominal is None or not nominal.cost > 0:
        return []
    gamma = min(float(answer.scenario.one(0).gamma_throughput), float(len(answer.scenario.query_names)))
    lines = []
    chosen = next((p for p in answer.protections if p.kind == "gamma" and p.level == gamma), None)
    if answer.headroom > 1:
        chosen = next(
            (p for p in answer.protections if p.kind == "headroom" and p.level == answer.headroom), chosen
        )
    if chosen is not None and chosen is not nominal and chosen.plan is not None:
        extra = chosen.cost / nominal.cost - 1
        more = f"{percent(extra)} more than" if extra > SAME_COST else "no more than"
        lines.append(
            f"On this traffic its protection against rates that fall short costs {more} trusting every rate "
            f"({dollars(nominal.cost)}/h). With shortfalls drawn at random some pair is sent more than its "
            f"rate in {percent(chosen.overload)} of the draws, without protection in "
            f"{percent(nominal.overload)}."
        )
    return lines


def say_day(answer: FleetAnswer) -> list[str]:
    """Say what a day costs with a fleet that stays, with one that changes, and what the change is worth."""
    day = answer.day
    if day is None:
        return []
    count = len(day.hours)
    fixed = name_fleet(day.fixed_plans[0].deployments) if day.fixed_plans[0].deployments else "nothing"
    more = f", bought for {answer.headroom:g} times their traffic" if answer.headroom > 1 else ""
    covered = f"the hour of {day.clock.of}" if count == 1 else f"the {count} hours of {day.clock.of}"
    counted = "" if day.clock.dated else ", counted from the first request of each"
    bound = f", and none less than {dollars(day.fixed_lower)}/h" if math.isfinite(day.fixed_lower) else ""
    lines = [
        f"Over {covered} that the traces cover{counted}{more}, a fleet that stays the same costs "
        f"{dollars(day.fixed_upper)}/h on average{bound}: {fixed}.",
        _say_worth(day),
    ]
    if day.start_minutes > 0:
        free = (
            ""
            if all(day.clock.follows)
            else "; where the next hour is not covered, what starts for it is not counted"
        )
        lines.append(
            f"With {day.start_minutes:g} minutes to start a replica, which is paid for and serves nothing meanwhile, a "
            f"schedule costs {dollars(day.schedule.cost)}/h{free}."
        )
    hours, peak = day.gpu_hours, day.peak
    lines.append(
        f"GPU-hours: {significant(hours['fixed'], 4)} fixed, {significant(hours['hourly'], 4)} hour by hour, "
        f"{significant(hours['scheduled'], 4)} by the schedule; at the peak {peak['fixed']}, {peak['hourly']} and "
        f"{peak['scheduled']} GPUs."
    )
    return lines


def _say_worth(day: Day) -> str:
    reached = f"with replicas that start at once {dollars(day.hourly_upper)}/h is reached"
    low, high = day.worth
    if not math.isfinite(high):
        return (
            f"Nothing is proven about how much less changing the fleet from hour to hour could cost; {reached}, so "
            f"that changing is worth at least {dollars(low)}/h."
        )
    most = percent(high / day.fixed_upper) if day.fixed_upper > 0 else "0%"
    return (
        f"No way of changing the fleet from hour to hour costs less than {dollars(day.hourly_lower)}/h; {reached}. "
        f"Changing is worth {interval(low, high, dollars)}/h, {most} at most."
    )


def _say_basis(answer: FleetAnswer) -> str:
    parts = []
    for name, weighed in WEIGHTS.items():
        shares = {basis: share for basis, share in answer.basis.find_shares(name).items() if share > 0}
        kinds = [
            basis if len(shares) == 1 else f"{percent(share)} {basis}" for basis, share in shares.items()
        ]
        parts += [f"{weighed.words} {join_words(kinds)}"] if kinds else []
    return f"It rests on: {'; '.join(parts)}."
