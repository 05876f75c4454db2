"""The result of a replay as a section (sentences, then tables) and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rodiu_jax.io.number_text import dollars, is_missing, number, percent, significant
from rodiu_jax.report.data.json_rows import json_rows
from rodiu_jax.report.parts.section import PageTable, Section

if TYPE_CHECKING:
    from rodiu_jax.decisions.replay.replay import Replay


def replay_to_json(result: Replay) -> dict[str, Any]:
    """Return the settings, and the rows of the three tables."""
    tables = {"plans": result.plans, "queries": result.queries, "pools": result.pools}
    return result.settings | {name: json_rows(table) for name, table in tables.items()}


def describe_replay(result: Replay) -> Section:
    """Make a section: what was replayed, a sentence per plan, what robustness costs, tables, what is left out."""
    plans = result.plans.to_dict("records")
    queries = result.queries.to_dict("records")
    points = [_write_plan(plan, [q for q in queries if q["plan"] == plan["plan"]]) for plan in plans]
    points += [_write_prices(plans[0], plans[1:])] if len(plans) > 1 else []
    points += [f"Not modelled: {line}" for line in result.settings["not_modelled"]]
    tables = [
        _tabulate_plans(plans),
        _tabulate_queries(queries),
        _tabulate_pools(result.pools.to_dict("records")),
    ]
    return Section(
        "replay",
        "Do plans keep their promises when requests queue?",
        _write_traffic(result),
        points,
        [],
        tables,
    )


def _write_traffic(result: Replay) -> str:
    settings = result.settings
    count = int(result.plans["requests"].iloc[0])
    text = f"{count:,} requests in {significant(settings['seconds'] / 3600, 4)} h"
    sources: dict[str, list[str]] = {}
    for query, source in settings["sources"].items():
        sources.setdefault(source, []).append(query)
    words = {
        "trace": f"of {settings['trace']}",
        "poisson": "drawn at random at the scenario's rates",
        "none": "not in the trace, so that their part of the fleet stays idle",
    }
    text += ": " + "; ".join(f"{', '.join(names)} {words[source]}" for source, names in sources.items()) + "."
    if settings["rate_scale"] not in (1, 1.0, "plan"):
        text += f" They come {significant(settings['rate_scale'], 4)} times as often."
    if settings["failed"]:
        text += f" {settings['failed']:,} failed requests of the trace are left out."
    short = {name: value for name, value in settings["shortfall"].items() if value}
    if short:
        parts = [f"{percent(v)} lower{'' if name == '*' else f' for {name}'}" for name, v in short.items()]
        text += f" Rates are {', '.join(parts)} than on the curves."
    return text


def _write_plan(plan: dict[str, Any], queries: list[dict[str, Any]]) -> str:
    text = f"{_capital(plan['plan'])} ({dollars(plan['rent_per_hour'])}/h, {plan['gpus']} GPUs)"
    if not plan["promises"]:
        return f"{text} serves no request that has a promise."
    text += f" keeps {plan['kept']} of {plan['promises']} promises; "
    text += f"{percent(plan['within'])} of the requests are within theirs."
    broken = [q for q in queries if q["kept"] is not None and not q["kept"]]
    worst = [q for q in broken if q["ratio"] > 1]
    if worst:
        parts = [f"{q['query']} ({q['limit']} by {_write_excess(q['ratio'])})" for q in worst]
        text += f" It breaks those of {', '.join(parts)}."
    if plan["rejected"]:
        text += f" {plan['rejected']:,} requests need more KV memory than a replica has."
    if plan["elsewhere"]:
        text += f" {plan['elsewhere']:,} requests are bought elsewhere, for {dollars(plan['elsewhere_per_hour'])}/h."
    return text


def _write_excess(ratio: float) -> str:
    if not math.isfinite(ratio):
        return "all of it"
    return f"x {significant(ratio, 3)}" if ratio >= 2 else percent(ratio - 1)


def _write_used(ratio: float) -> str:
    """Write how much of a limit is used."""
    return f"x {significant(ratio, 3)}" if math.isfinite(ratio) and ratio >= 2 else percent(ratio)


def _write_prices(plan: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """Say what the plan costs beside each other: its GPUs, and what is bought elsewhere."""
    parts = [f"{_compare_costs(_total(plan), _total(o))} {o['plan']}" for o in others]
    return f"{_capital(plan['plan'])} costs {'; '.join(parts)}, with what is bought elsewhere."


def _total(plan: dict[str, Any]) -> float:
    return plan["rent_per_hour"] + plan["elsewhere_per_hour"]


def _compare_costs(cost: float, other: float) -> str:
    more = cost - other
    if abs(more) < 0.005:
        return "as much as"
    share = f" ({percent(abs(more) / other)})" if other > 0 else ""
    return f"{dollars(abs(more))}/h{share} {'more' if more > 0 else 'less'} than"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tabulate_plans(plans: list[dict[str, Any]]) -> PageTable:
    rows = [
        [
            p["plan"],
            number(p["rent_per_hour"]),
            str(p["gpus"]),
            percent(p["within"]),
            f"{p['kept']} of {p['promises']}",
            f"{p['elsewhere']:,}",
            number(p["elsewhere_per_hour"]),
            f"{p['rejected']:,}",
            p["what"],
        ]
        for p in plans
    ]
    heads = [
        "plan",
        "$/h",
        "GPUs",
        "requests within promises",
        "promises kept",
        "elsewhere",
        "for $/h",
        "rejected",
        "made for",
    ]
    return PageTable("replay_plans", "Plans and what they keep", heads, rows, (1, 2, 3, 4, 5, 6, 7))


def _tabulate_queries(queries: list[dict[str, Any]]) -> PageTable:
    rows = [
        [
            q["plan"],
            q["query"],
            f"{q['requests']:,}",
            percent(q["within"]),
            "-" if is_missing(q["kept"]) else "yes" if q["kept"] else "NO",
            q["limit"] or "-",
            _write_used(q["ratio"]),
            *(number(q[f"wait_{at}"], 0) for at in ("p50", "p90", "p99")),
            number(q["ttft_mean"], 0),
            number(q["tpot_mean"], 1),
        ]
        for q in queries
        if q["requests"]
    ]
    waits = [f"wait\n{at}" for at in ("p50", "p90", "p99")]
    heads = [
        "plan",
        "query type",
        "requests",
        "within",
        "kept",
        "nearest limit",
        "used",
        *waits,
        "TTFT",
        "TPOT",
    ]
    caption = (
        "Query types: share within the promise, the limit nearest to breaking, waits and mean latencies in ms"
    )
    return PageTable("replay_queries", caption, heads, rows, (2, 3, 6, 7, 8, 9, 10, 11), unwrapped=(1, 5))


def _tabulate_pools(pools: list[dict[str, Any]]) -> PageTable:
    rows = [
        [
            p["plan"],
            f"{p['model']}@{p['gpu']} x{p['tp']}",
            str(p["replicas"]),
            f"{p['requests']:,}",
            percent(p["load"]),
            percent(p["batch"]),
            number(p["queue_mean"], 1),
            f"{p['queue_max']:,}",
        ]
        for p in pools
    ]
    heads = ["plan", "pool", "replicas", "requests", "load", "batch", "queue, mean", "most"]
    caption = "Pools: load offered over what replicas sustain, how full their batches are, requests that wait in them"
    return PageTable("replay_pools", caption, heads, rows, (2, 3, 4, 5, 6, 7))
