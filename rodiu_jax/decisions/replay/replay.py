"""`rodiu replay`: the plan of a folder and its alternatives meet the same requests, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.readers.arrivals import read_arrivals
from rodiu_jax.catalog.readers.trace_formats import Unit
from rodiu_jax.decisions.plan_folder import PlanFolder, read_plan_folder
from rodiu_jax.decisions.replay.event_loop import PoolRequests, run_pool
from rodiu_jax.decisions.replay.replicas import PoolService, describe_pool, name_shortfalls
from rodiu_jax.decisions.replay.tally import QueryTally, measure_pool
from rodiu_jax.decisions.replay.traffic import RateScale, Traffic, make_traffic
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

THE_PLAN = "the plan"
"""What the folder's own plan is called beside its alternatives."""

COMPARED = ("nominal", "headroom 1.2")
"""The alternatives that a plan is compared with where nobody names others."""

NOT_MODELLED = (
    "Below the first point of a curve latencies count as those of the point; a replica with less to do is faster.",
    "Types that share a replica slow each other by their shares of its load, each along its own curve; in an engine "
    "all requests of a batch take the same steps.",
    "A prompt that is read slows its neighbours as any other request does; bursts of long prompts slow them more.",
    "A request holds the KV memory of its whole length from its start; nothing is preempted, no prefix is cached.",
    "Weights and requests have all of a GPU's memory; an exported engine is given a part of it, 0.9 unless "
    "`rodiu export --memory-utilization` says otherwise.",
    "All replicas are there and empty at the start, and none fails; a request goes to the one with the fewest.",
    "Network, router and clients that give up or ask again cost nothing.",
)
"""What a replay leaves out, in sentences."""


@dataclass(frozen=True)
class Replay:
    """What `replay` found.

    Attributes:
      plans: a row per plan: ``plan``, ``what``, ``rent_per_hour`` ($), ``elsewhere_per_hour`` ($, at the scenario's
        price of a query left unmet), ``gpus``, ``requests``, ``elsewhere`` and ``rejected``, ``within`` (share of the
        requests that the plan serves for which every limit of their promise holds), ``kept``, ``promises`` (query types
        whose promise is kept, and how many have one and traffic).
      queries: a row per plan and query type: ``requests``, ``elsewhere``, ``rejected``, ``served``, ``within``,
        ``kept`` (the promise's own statistics hold; None without a promise), ``limit``, ``ratio`` (the limit that is
        nearest to breaking, and its left side over its right), ``wait_p50`` ... ``wait_max``, ``ttft_mean``,
        ``ttft_p99``, ``tpot_mean``, ``tpot_p99``, ``e2e_mean``, ``e2e_p99`` (ms).
      pools: a row per plan and deployed pair, as `rodiu_jax.decisions.replay.tally.measure_pool` has it.
      settings: what was asked: trace, seconds, rate_scale, shortfalls, seed, sources of the query types' requests.
    """

    plans: pd.DataFrame
    queries: pd.DataFrame
    pools: pd.DataFrame
    settings: dict[str, Any]


def replay(
    folder: str | Path | PlanFolder,
    trace: str | Path | None = None,
    *,
    query: str | None = None,
    query_column: str | None = None,
    names: str | Mapping[str, str] | None = None,
    columns: str | Mapping[str, str] | None = None,
    unit: Unit | None = None,
    rate_scale: RateScale = 1.0,
    hours: float | None = None,
    others: bool = False,
    against: Sequence[str] | None = None,
    shortfall: float | Mapping[str, float] = 0.0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda plan: None,
) -> Replay:
    """Replay requests on a plan and on its alternatives, by discrete events.

    Each request is routed by the plan's shares, waits in its replica until batch and KV memory have room, and is then
    served at the speed that the catalogue's curves tell for so many requests at once (`NOT_MODELLED` says what is left
    out). All plans meet the same requests with the same draws.

    Args:
      folder: what `rodiu plan` wrote, by its path or as `rodiu_jax.decisions.plan_folder.read_plan_folder` reads it.
      trace: requests, in any format of `import_trace`; None draws all requests at random (Poisson) at the scenario's
        rates for ``hours`` (1).
      query, query_column, names, columns, unit: as `import_trace` takes them.
      rate_scale: factor on the rate of the trace; ``plan``: each query type as often as the scenario has it.
      hours: for which the trace is cut or begun anew; by default what it spans.
      others: draw the query types that the trace does not have at random, at the scenario's rates.
      against: alternatives of the folder to compare with, ``all`` for all; by default `COMPARED`, or all of a folder
        that has neither.
      shortfall: how much lower rates are than on the curves, in [0, 1): all of them, or by ``MODEL@GPU``, by query
        type, or by ``QUERY:MODEL@GPU``, of which the most special counts.
      seed: of the routing and of requests that are drawn.
      tell: is called with the name of each plan that is done.

    Raises:
      InputError: no such folder; a trace that cannot be read or has no requests; an unknown query type or pair; a
        query type routed to a pair without a curve; a setting out of range.
    """
    import pandas as pd

    options = {"query": query, "query_column": query_column, "names": names, "columns": columns, "unit": unit}
    if trace is None:
        beside = [name for name, value in options.items() if value is not None]
        for name in [*beside, *(["others"] if others else [])]:
            raise InputError("replay", name, "this option beside a trace alone")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError("replay", "seed", "a whole number from 0 to 2^63 - 1", seed)
    found = folder if isinstance(folder, PlanFolder) else read_plan_folder(folder)
    plans = {THE_PLAN: (found.plan, "what `rodiu plan` chose")}
    plans |= {
        n: (found.alternatives[n].plan, found.alternatives[n].what) for n in _choose_others(found, against)
    }
    shortfalls = _check_shortfalls(shortfall, found.instances, [plan for plan, _ in plans.values()])
    arrivals = None
    if trace is not None:
        arrivals = read_arrivals(trace, known=found.instances.query_names, **options)
    traffic, until = make_traffic(
        arrivals, found.instances, rate_scale=rate_scale, hours=hours, others=others, seed=seed
    )
    if not any(len(t.time) for t in traffic):
        raise InputError("replay", "hours", "hours with at least one request", hours)
    rows: dict[str, list[dict[str, Any]]] = {"plans": [], "queries": [], "pools": []}
    services = {name: _describe_pools(plan, found, shortfalls) for name, (plan, _) in plans.items()}
    done: list[tuple[Plan, Any]] = []
    for name, (plan, what) in plans.items():
        # An alternative may be the same plan, which is replayed once.
        answer = next((known for other, known in done if other == plan), None)
        if answer is None:
            answer = replay_plan(plan, services[name], traffic, found.catalog, until)
            done.append((plan, answer))
        queries, pools = answer
        rows["queries"] += [{"plan": name} | row for row in queries]
        rows["pools"] += [{"plan": name} | row for row in pools]
        rows["plans"].append({"plan": name, "what": what} | _summarize(plan, found.instances, queries, until))
        tell(name)
    settings = {
        "folder": str(found.path),
        "trace": None if trace is None else str(trace),
        "failed": 0 if arrivals is None else arrivals.failed,
        "seconds": until,
        "rate_scale": rate_scale,
        "shortfall": dict(shortfalls),
        "seed": seed,
        "sources": {t.query: t.source for t in traffic},
        "not_modelled": list(NOT_MODELLED),
    }
    tables = {name: pd.DataFrame(table) for name, table in rows.items()}
    return Replay(**tables, settings=settings)


def _choose_others(found: PlanFolder, against: Sequence[str] | None) -> list[str]:
    known = list(found.alternatives)
    if against is None:
        return [name for name in COMPARED if name in known] or known
    for name in against:
        if name != "all" and name not in known:
            expected = f"one of {', '.join([*known, 'all'])}{nearest(name, known)}"
            raise InputError("against", "", expected, name)
    return known if "all" in against else list(dict.fromkeys(against))


def replay_plan(
    plan: Plan, pools: list[PoolService], traffic: list[Traffic], catalog: Catalog, until: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Replay one plan; return the rows of its query types and of its pools."""
    tallies = [QueryTally(t.query, catalog.promises.get(t.query)) for t in traffic]
    sent: list[list[tuple[Traffic, np.ndarray]]] = [[] for _ in pools]
    where = {(p.pair.model, p.pair.gpu): n for n, p in enumerate(pools)}
    for tally, requests in zip(tallies, traffic, strict=True):
        routes = [r for r in plan.routes if r.query == requests.query and r.share > 0]
        ends = np.cumsum([r.share for r in routes]) if routes else np.zeros(0)
        # What the shares leave of 1 beside rounding goes elsewhere.
        if len(ends) and plan.unmet.get(requests.query, 0.0) <= 0:
            ends[-1] = 1.0
        goal = np.searchsorted(ends, requests.draw, side="right")
        tally.requests = len(requests.time)
        tally.elsewhere = int((goal == len(routes)).sum())
        for n, route in enumerate(routes):
            sent[where[route.model, route.gpu]].append((requests, goal == n))
    rows = []
    for pool, parts in zip(pools, sent, strict=True):
        requests = _join(pool, parts)
        record = run_pool(pool, requests, until)
        rows.append(measure_pool(pool, requests, record, until))
        for tally in tallies:
            tally.add(pool, requests, record)
    return [tally.row() for tally in tallies], rows


def _join(pool: PoolService, parts: list[tuple[Traffic, np.ndarray]]) -> PoolRequests:
    """Put the requests of all query types that go to a pool in the order of their arrival."""
    kinds = {service.query: n for n, service in enumerate(pool.types)}
    empty = np.zeros(0)
    columns = {
        name: np.concatenate([empty, *(getattr(t, name)[mine] for t, mine in parts)])
        for name in ("time", "first", "rest", "tokens")
    }
    kind = np.concatenate(
        [np.zeros(0, np.int64), *(np.full(mine.sum(), kinds[t.query]) for t, mine in parts)]
    )
    order = np.argsort(columns["time"], kind="stable")
    return PoolRequests(kind=kind[order].astype(np.int64), **{n: x[order] for n, x in columns.items()})


def _describe_pools(plan: Plan, found: PlanFolder, shortfalls: Mapping[str, float]) -> list[PoolService]:
    return [
        describe_pool(pair, plan, found.instances, found.catalog, shortfalls) for pair in plan.deployments
    ]


def _check_shortfalls(
    given: float | Mapping[str, float], instances: Instances, plans: list[Plan]
) -> dict[str, float]:
    shortfalls = dict(given) if isinstance(given, Mapping) else {"*": given}
    known = name_shortfalls(instances.query_names, [d for plan in plans for d in plan.deployments])
    for name, value in shortfalls.items():
        if name != "*" and name not in known:
            short = ", ".join(n for n in known if ":" not in n)
            expected = f"one of {short}, or QUERY:MODEL@GPU of them{nearest(name, known)}"
            raise InputError("shortfall", "", expected, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError("shortfall", "" if name == "*" else name, "a share from 0, below 1", value)
    return {name: float(value) for name, value in shortfalls.items()}


def _summarize(
    plan: Plan, instances: Instances, queries: list[dict[str, Any]], until: float
) -> dict[str, Any]:
    fields = instances.one(0)
    prices = dict(zip(instances.query_names, fields.unmet_penalty, strict=True))
    gpus = [(d.tp * d.replicas, instances.gpu_names.index(d.gpu)) for d in plan.deployments]
    judged = [row for row in queries if row["kept"] is not None]
    here = sum(row["served"] + row["rejected"] for row in judged)
    within = sum(row["within"] * (row["served"] + row["rejected"]) for row in judged)
    return {
        "gpus": sum(count for count, _ in gpus),
        "rent_per_hour": math.fsum(count * float(fields.gpu_price[k]) for count, k in gpus),
        "elsewhere_per_hour": math.fsum(row["elsewhere"] * float(prices[row["query"]]) for row in queries)
        / (until / 3600.0),
        "requests": sum(row["requests"] for row in queries),
        "elsewhere": sum(row["elsewhere"] for row in queries),
        "rejected": sum(row["rejected"] for row in queries),
        "within": within / here if here else math.nan,
        "kept": sum(bool(row["kept"]) for row in judged),
        "promises": len(judged),
    }
