"""A planned fleet in words and tables: what to run, what it costs, how sure that is, what limits and changes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from rodiu_jax.io.number_text import dollars, interval, number, percent, significant
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from rodiu_jax.report.parts.section import PageTable

if TYPE_CHECKING:
    from rodiu_jax.decisions.planning.day import Day
    from rodiu_jax.decisions.planning.plan import FleetAnswer
    from rodiu_jax.decisions.planning.robustness_price import Protection
    from rodiu_jax.decisions.planning.what_ifs import WhatIf
    from rodiu_jax.model.plan import Deployment

_MOST_TOLD = 3

_WORTH_TELLING = 1e-3
"""Part of the cost that a limit must be proven to save before a sentence names it; the table has all."""


def write_sentences(answer: FleetAnswer) -> list[str]:
    """Say what a planner reads first, most important first."""
    return [
        _say_what_to_run(answer.plan.deployments),
        _say_cost(answer),
        _say_proof(answer),
        *_say_unserved(answer),
        _say_limits(answer),
        _say_headroom(answer),
        *_say_protection(answer),
        *say_day(answer),
        _say_footing(answer),
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


def _say_what_to_run(deployments: Deployment) -> str:
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
    found = answer.found
    what = (
        "these promises"
        if answer.headroom == 1
        else f"these promises at {answer.headroom:g} times the traffic"
    )
    if not math.isfinite(found.lower):
        return (
            f"Nothing is proven about how much cheaper a fleet could keep {what}: the time limit came first."
        )
    near = "as cheap as any" if answer.gap <= OPTIMAL_GAP else f"within {percent(answer.gap)} of the cheapest"
    return f"No fleet keeps {what} for less than {dollars(found.lower)}/h: this one is proven to be {near}."


def _say_unserved(answer: FleetAnswer) -> list[str]:
    lines = []
    for query, reason in answer.unservable.items():
        lines.append(f"{query} cannot be served by any fleet here, and is bought elsewhere: {reason}.")
    bought = {q: s for q, s in answer.plan.unmet.items() if s > 0 and q not in answer.unservable}
    if bought:
        shares = join_words([f"{percent(share)} of {query}" for query, share in bought.items()])
        lines.append(f"Bought elsewhere, as that is cheaper than more GPUs or none may be had: {shares}.")
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
        f"{w.name} saves {interval(base.lower - w.upper, base.upper - w.lower, dollars)}/h"
        for w in helps[:_MOST_TOLD]
    ]
    return f"What limits it, one step looser: {join_words(told)}."


def _say_headroom(answer: FleetAnswer) -> str:
    room = answer.fleet.headroom
    if math.isinf(room.factor):
        return "The same fleet takes any traffic."
    full = f"; then {room.full[0]} is full" if room.full else ""
    if room.factor < 1:
        served = f"up to {number(room.factor, 3)} times this traffic"
        return f"Routed anew, the same fleet serves everyone {served}{full}."
    return f"The same fleet takes {number(room.factor)} times this traffic{full}."


def _say_protection(answer: FleetAnswer) -> list[str]:
    nominal = next((p for p in answer.protections if p.kind == "gamma" and p.level == 0), None)
    if nominal is None or not 0 < nominal.upper < math.inf:
        return []
    gamma = float(answer.scenario.one(0).gamma_throughput)
    lines = []
    chosen = next((p for p in answer.protections if p.kind == "gamma" and p.level == gamma), None)
    if answer.headroom > 1:
        chosen = next(
            (p for p in answer.protections if p.kind == "headroom" and p.level == answer.headroom), chosen
        )
    if chosen is not None and chosen is not nominal and math.isfinite(chosen.upper):
        extra = chosen.upper / nominal.upper - 1
        lines.append(
            f"Its protection against rates that fall short costs {percent(max(extra, 0.0))} more than trusting "
            f"every rate ({dollars(nominal.upper)}/h). With shortfalls drawn at random some pair is sent more than its "
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
    low, high = day.worth
    most = percent(high / day.fixed_upper) if day.fixed_upper > 0 else "0%"
    covered = "the hour" if count == 1 else f"the {count} hours"
    lines = [
        f"Over {covered} of the day that the traces cover, a fleet that stays the same costs "
        f"{dollars(day.fixed_upper)}/h on average, and none less than {dollars(day.fixed_lower)}/h: {fixed}.",
        f"No way of changing the fleet from hour to hour costs less than {dollars(day.hourly_lower)}/h; with replicas "
        f"that start at once {dollars(day.hourly_upper)}/h is reached. Changing is worth "
        f"{interval(low, high, dollars)}/h, {most} at most.",
    ]
    if day.start_minutes > 0:
        lines.append(
            f"With {day.start_minutes:g} minutes to start a replica, which is paid for and serves nothing meanwhile, a "
            f"schedule costs {dollars(day.schedule.cost)}/h."
        )
    hours, peak = day.gpu_hours, day.peak
    lines.append(
        f"GPU-hours: {significant(hours['fixed'], 4)} fixed, {significant(hours['hourly'], 4)} hour by hour, "
        f"{significant(hours['scheduled'], 4)} by the schedule; at the peak {peak['fixed']}, {peak['hourly']} and "
        f"{peak['scheduled']} GPUs."
    )
    return lines


def _say_footing(answer: FleetAnswer) -> str:
    parts = []
    for footing in answer.footing:
        kinds = [f"{percent(share)} {kind}" for kind, share in footing.shares.items() if share > 0]
        only = len(kinds) == 1
        parts.append(f"{footing.inputs} {kinds[0].split(' ', 1)[1] if only else join_words(kinds)}")
    return f"It rests on: {'; '.join(parts)}." if parts else "What it rests on is not stated."


# ---- tables ----


def make_tables(answer: FleetAnswer) -> list[PageTable]:
    """Make the tables of an answer, in the order of reading; each with what its CSV file holds."""
    tables = [
        tabulate_fleet(answer),
        tabulate_routing(answer),
        tabulate_traffic(answer),
        tabulate_quotas(answer),
        *([tabulate_hours(answer.day)] if answer.day is not None else []),
        tabulate_what_ifs("what_if", "What if: each solved again, $/h", answer.what_ifs, answer.found),
        tabulate_protections(answer.protections),
        tabulate_what_ifs("limits", "Limits one step looser, $/h", answer.limits, answer.found),
        tabulate_footing(answer),
    ]
    return [t for t in tables if t.rows]


def tabulate_fleet(answer: FleetAnswer) -> PageTable:
    """Make a row per deployed pair: replicas, GPUs, rent, load."""
    load = {(d.model, d.gpu): u for d, u in answer.fleet.utilization}
    fields = answer.scenario.one(0)
    data = []
    for d in answer.plan.deployments:
        price = float(fields.gpu_price[answer.scenario.gpu_names.index(d.gpu)])
        data.append(
            {
                "model": d.model,
                "gpu": d.gpu,
                "gpus_per_replica": d.tp,
                "replicas": d.replicas,
                "gpus": d.tp * d.replicas,
                "price_per_gpu_hour": price,
                "rent_per_hour": price * d.tp * d.replicas,
                "worst_case_load": load.get((d.model, d.gpu), math.nan),
            }
        )
    rows = [
        [
            r["model"],
            r["gpu"],
            str(r["gpus_per_replica"]),
            str(r["replicas"]),
            str(r["gpus"]),
            number(r["price_per_gpu_hour"]),
            number(r["rent_per_hour"]),
            percent(r["worst_case_load"]),
        ]
        for r in data
    ]
    heads = ["model", "GPU", "GPUs a replica", "replicas", "GPUs", "$/GPU/h", "$/h", "load, worst case"]
    return PageTable("fleet", "The fleet", heads, rows, range(2, 8), pd.DataFrame(data))


def tabulate_routing(answer: FleetAnswer) -> PageTable:
    """Make a row per route, and one per type that is bought elsewhere."""
    fields, queries = answer.scenario.one(0), answer.scenario.query_names
    data = []
    for query, rate in zip(queries, (fields.arrival_rate / 3600.0).tolist(), strict=True):
        routes = [(r.model, r.gpu, r.share) for r in answer.plan.routes if r.query == query]
        unmet = answer.plan.unmet.get(query, 0.0)
        routes += [("bought elsewhere", "", unmet)] if unmet > 0 else []
        data += [
            {"query": query, "model": m, "gpu": g, "share": s, "queries_per_second": s * rate}
            for m, g, s in routes
        ]
    rows = [
        [
            r["query"],
            r["model"],
            r["gpu"] or "-",
            percent(r["share"]),
            significant(r["queries_per_second"], 4),
        ]
        for r in data
    ]
    heads = ["traffic", "goes to", "on", "share", "queries/s"]
    return PageTable("routing", "Where traffic goes", heads, rows, (3, 4), pd.DataFrame(data))


def tabulate_traffic(answer: FleetAnswer) -> PageTable:
    """Make a row per query type: rate, token lengths, promise, price elsewhere, and where the rate comes from."""
    fields = answer.scenario.one(0)
    promises = answer.inputs.catalog.promises
    data = []
    for i, t in enumerate(answer.inputs.traffic):
        promise = promises.get(t.query)
        elsewhere = float(fields.unmet_penalty[i]) / t.tokens * 1e6 if t.tokens > 0 else math.nan
        data.append(
            {
                "query": t.query,
                "queries_per_second": t.rate / 3600.0,
                "input_tokens": t.input_tokens,
                "output_tokens": t.output_tokens,
                "promise": "" if promise is None else str(promise),
                "elsewhere_per_million_tokens": elsewhere,
                "source": t.source,
            }
        )
    rows = [
        [
            r["query"],
            significant(r["queries_per_second"], 4),
            significant(r["input_tokens"], 4),
            significant(r["output_tokens"], 4),
            r["promise"] or "-",
            significant(r["elsewhere_per_million_tokens"], 3),
            r["source"],
        ]
        for r in data
    ]
    heads = ["traffic", "queries/s", "tokens in", "out", "promise", "$/M tokens elsewhere", "rate from"]
    return PageTable(
        "traffic", "Traffic and promises planned for", heads, rows, (1, 2, 3, 5), pd.DataFrame(data)
    )


def tabulate_quotas(answer: FleetAnswer) -> PageTable:
    """Make a row per rented device that has a quota."""
    uses = [u for u in answer.fleet.quotas if math.isfinite(u.quota)]
    data = pd.DataFrame([{"device": u.device, "gpus": u.gpus, "quota": u.quota} for u in uses])
    rows = [
        [u.device, str(u.gpus), f"{u.quota:g}", percent(u.gpus / u.quota if u.quota else 1.0)] for u in uses
    ]
    return PageTable("quotas", "Quotas used", ["device", "GPUs", "quota", "used"], rows, (1, 2, 3), data)


def tabulate_what_ifs(name: str, caption: str, asked: tuple[WhatIf, ...], base: WhatIf) -> PageTable:
    """Make a row per question, after one of the answer as planned."""
    data = [
        {
            "group": w.group,
            "question": w.name,
            "lower_bound": w.lower,
            "upper_bound": w.upper,
            "rent_per_hour": w.rent,
            "elsewhere_per_hour": w.elsewhere,
            "gpus": name_gpus(w.gpus),
            "unmet_share": w.unmet,
            "status": w.status,
            "what": w.what,
        }
        for w in (base, *asked)
    ]
    rows = [
        [
            w.name,
            number(w.lower),
            number(w.upper) if math.isfinite(w.upper) else "no plan",
            write_change(w, base),
            name_gpus(w.gpus),
            percent(w.unmet),
        ]
        for w in (base, *asked)
    ]
    heads = ["what if", "at least", "costs", "change", "GPUs", "bought elsewhere"]
    rows = rows if asked else []
    return PageTable(name, caption, heads, rows, (1, 2, 3, 5), pd.DataFrame(data))


def write_change(asked: WhatIf, base: WhatIf) -> str:
    """Write how much more a question's plan costs than the plan as planned."""
    if asked is base or not (math.isfinite(asked.upper) and base.upper > 0):
        return "-"
    change = asked.upper / base.upper - 1
    return f"{100 * change:+.1f}%"


def tabulate_protections(protections: tuple[Protection, ...]) -> PageTable:
    """Make a row per way to protect a fleet against rates that fall short."""
    nominal = next((p for p in protections if p.kind == "gamma" and p.level == 0), None)
    data = pd.DataFrame(
        [
            {
                "protection": p.name,
                "lower_bound": p.lower,
                "upper_bound": p.upper,
                "fuller_than_planned": p.fuller,
                "overload": p.overload,
                "overload_low": p.overload_low,
                "overload_high": p.overload_high,
                "what": p.what,
            }
            for p in protections
        ]
    )
    rows = []
    for p in protections:
        extra = "-"
        if nominal is not None and math.isfinite(p.upper) and 0 < nominal.upper < math.inf:
            extra = f"{100 * (p.upper / nominal.upper - 1):+.1f}%"
        rows.append(
            [
                p.name,
                number(p.lower),
                number(p.upper) if math.isfinite(p.upper) else "no plan",
                extra,
                percent(p.fuller),
                percent(p.overload),
            ]
        )
    heads = [
        "protection",
        "at least",
        "costs",
        "price of it",
        "fuller than planned",
        "sent more than its rate",
    ]
    caption = (
        "Price of robustness beside plain headroom, $/h; share of random shortfalls in which some replica is"
    )
    return PageTable("protections", caption, heads, rows, range(1, 6), data)


def tabulate_hours(day: Day) -> PageTable:
    """Make a row per hour of the day: traffic, the cheapest fleet, the fixed one, and the schedule."""
    data = pd.DataFrame(
        [
            {
                "hour": h.hour,
                **{f"{query}_per_second": rate / 3600.0 for query, rate in h.rates.items()},
                "lower_bound": h.lower,
                "upper_bound": h.upper,
                "gpus": h.gpus,
                "fixed_fleet": h.fixed,
                "scheduled": h.scheduled,
                "scheduled_gpus": h.scheduled_gpus,
                "starting_gpus": h.starting,
            }
            for h in day.hours
        ]
    )
    rows = [
        [
            f"{h.hour:02d}-{(h.hour + 1) % 24:02d}",
            significant(sum(h.rates.values()) / 3600.0, 4),
            number(h.lower),
            number(h.upper),
            str(h.gpus),
            number(h.fixed),
            number(h.scheduled),
            str(h.scheduled_gpus),
            str(h.starting),
        ]
        for h in day.hours
    ]
    heads = ["hour", "queries/s", "at least", "cheapest", "GPUs", "fixed", "schedule", "GPUs", "starting"]
    return PageTable("hours", "Hour by hour, $/h", heads, rows, range(1, 9), data)


def tabulate_footing(answer: FleetAnswer) -> PageTable:
    """Make a row per kind of input: what it rests on."""
    data = pd.DataFrame([f.to_json() for f in answer.footing])
    rows = [[f.inputs, f.weight, *(percent(s) for s in f.shares.values())] for f in answer.footing]
    heads = ["inputs", "weighted by", "measured", "predicted", "assumed", "unstated"]
    return PageTable("rests_on", "What the answer rests on", heads, rows, range(2, 6), data)
