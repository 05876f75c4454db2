"""A planned fleet in tables: fleet, routing, traffic, quotas, hours, questions, protections, and what all rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from rodiu_jax.io.number_text import interval, number, percent, significant
from rodiu_jax.report.parts.section import PageTable
from rodiu_jax.report.text.basis_table import tabulate_basis
from rodiu_jax.report.text.plan_sentences import name_gpus

if TYPE_CHECKING:
    from rodiu_jax.decisions.planning.day import Day
    from rodiu_jax.decisions.planning.plan import FleetAnswer
    from rodiu_jax.decisions.planning.robustness_price import Protection
    from rodiu_jax.decisions.planning.what_ifs import WhatIf


def make_tables(answer: FleetAnswer) -> list[PageTable]:
    """Make the tables of an answer, in the order of reading; each with what its CSV file holds."""
    at = f" at {answer.headroom:g} times the traffic" if answer.headroom > 1 else ""
    tables = [
        tabulate_fleet(answer),
        tabulate_routing(answer),
        tabulate_traffic(answer),
        tabulate_promises(answer),
        tabulate_quotas(answer),
        *([tabulate_hours(answer.day)] if answer.day is not None else []),
        tabulate_what_ifs("what_if", f"What if: each solved again{at}, $/h", answer.what_ifs, answer.found),
        tabulate_protections(answer.protections),
        tabulate_what_ifs("limits", f"Limits one step looser{at}, $/h", answer.limits, answer.found),
        *tabulate_basis(answer.basis, "rests_on"),
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
    """Make a row per query type: rate, token lengths, price elsewhere, and where the rate comes from."""
    fields = answer.scenario.one(0)
    data = []
    for i, t in enumerate(answer.inputs.traffic):
        elsewhere = float(fields.unmet_penalty[i]) / t.tokens * 1e6 if t.tokens > 0 else math.nan
        data.append(
            {
                "query": t.query,
                "queries_per_second": t.rate / 3600.0,
                "input_tokens": t.input_tokens,
                "output_tokens": t.output_tokens,
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
            significant(r["elsewhere_per_million_tokens"], 3),
            r["source"],
        ]
        for r in data
    ]
    heads = ["traffic", "queries/s", "tokens in", "out", "$/M tokens elsewhere", "rate from"]
    return PageTable("traffic", "Traffic planned for", heads, rows, range(1, 5), pd.DataFrame(data))


def tabulate_promises(answer: FleetAnswer) -> PageTable:
    """Make a row per query type: what rates are read off curves by, and the end-to-end limit with what it rests on."""
    from rodiu_jax.catalog.describe import find_basis

    catalog = answer.inputs.catalog
    data = []
    for query, most in zip(
        answer.scenario.query_names, answer.scenario.one(0).delay_threshold.tolist(), strict=True
    ):
        promise, held = catalog.promises.get(query), catalog.quantities["delay_threshold"]
        entry = catalog.find_entry("delay_threshold", (query,))
        data.append(
            {
                "query": query,
                "promise": "" if promise is None else str(promise),
                "mean_end_to_end_ms": most,
                "basis": find_basis(catalog, "delay_threshold", (query,)),
                "source": (entry.source if entry is not None else "") or held.source,
            }
        )
    rows = [
        [r["query"], r["promise"] or "-", significant(r["mean_end_to_end_ms"], 6), r["basis"], r["source"]]
        for r in data
    ]
    heads = ["traffic", "promise", "mean end to end at most, ms", "which is", "from"]
    return PageTable("promises", "Promises planned for", heads, rows, (2,), pd.DataFrame(data))


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
            write_lower(w.lower),
            number(w.upper) if math.isfinite(w.upper) else w.status,
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
    """Make a row per way to protect a fleet: what it costs on the traffic planned, and what it was solved for."""
    nominal = next((p for p in protections if p.kind == "gamma" and p.level == 0), None)
    data = pd.DataFrame(
        [
            {
                "protection": p.name,
                "cost": p.cost,
                "solved_for_at_least": p.lower,
                "solved_for_cost": p.upper,
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
        if nominal is not None and p.plan is not None and nominal.cost > 0:
            extra = f"{100 * (p.cost / nominal.cost - 1):+.1f}%"
        rows.append(
            [
                p.name,
                number(p.cost) if p.plan is not None else "no plan",
                extra,
                write_bracket(p.lower, p.upper),
                percent(p.fuller),
                percent(p.overload),
            ]
        )
    heads = [
        "protection",
        "costs",
        "price of it",
        "solved for",
        "fuller than planned",
        "sent more than its rate",
    ]
    caption = (
        "Price of robustness beside plain headroom, $/h on the traffic planned, and the proven range at the traffic "
        "that each was solved for; share of random shortfalls in which some replica is"
    )
    return PageTable("protections", caption, heads, rows, range(1, 6), data)


def write_lower(lower: float) -> str:
    """Write a proven lower bound, or that there is none."""
    return number(lower) if math.isfinite(lower) else "no bound"


def write_bracket(lower: float, upper: float) -> str:
    """Write a proven range, of which either end may be missing."""
    if not math.isfinite(upper):
        return f"at least {number(lower)}" if math.isfinite(lower) else "no bound"
    return interval(lower, upper) if math.isfinite(lower) else f"at most {number(upper)}"


def tabulate_hours(day: Day) -> PageTable:
    """Make a row per hour: traffic, the cheapest fleet, the fixed one, and the schedule."""
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
            day.clock.name(h.hour),
            significant(sum(h.rates.values()) / 3600.0, 4),
            write_lower(h.lower),
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
    return PageTable("hours", f"Hour by hour of {day.clock.of}, $/h", heads, rows, range(1, 9), data)
