"""The section of a sweep's page about fleets: GPUs, rent, price of tokens, load, quotas, headroom and what is full."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.decisions.fleet import FleetSummary, summarize_fleet
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import interval, number, percent
from rodiu_jax.model.fields import uses_serving
from rodiu_jax.report.data.digest import Digest
from rodiu_jax.report.data.stored_plans import read_stored_plans
from rodiu_jax.report.parts.section import PageTable, Section

_MOST_PLANS = 128
"""Plans whose fleets are summed up: each takes a linear program for its headroom, some hundredths of a second."""

_MOST_ROWS = 12
"""Rows of a table on the page; its CSV file has all."""


@dataclass(frozen=True)
class Fleets:
    """The fleets of the plans looked at, by sample and point, and the number of rows looked at."""

    found: dict[tuple[int, int], FleetSummary]
    looked: int


def read_fleets(folder: Path, digest: Digest) -> Fleets | None:
    """Sum up the fleets of some of the plans; None where scenarios have no replicas, rates or quotas.

    Raises:
      InputError: as `rodiu_jax.report.data.stored_plans.read_stored_plans`.
    """
    stored, looked = read_stored_plans(folder, digest, _MOST_PLANS)
    found: dict[tuple[int, int], FleetSummary] = {}
    for held in stored:
        if not uses_serving(held.instances.fields):
            return None
        for b, (point, plan) in enumerate(zip(held.points.tolist(), held.plans, strict=True)):
            found[held.sample, point] = summarize_fleet(plan, held.instances, b)
    return Fleets(found, looked) if found else None


def make_fleet_sections(folder: Path, digest: Digest) -> list[Section]:
    """Make the section about fleets; none where there is nothing to say of them."""
    try:
        fleets = read_fleets(folder, digest)
    except InputError:  # told where constraints are
        return []
    if fleets is None:
        return []
    each = list(fleets.found.values())
    text = (
        f"From {len(each):,} plans of the {digest.rows:,} scenarios. Load is that of a replica in the worst case of "
        "its rates. A fleet takes so many times its traffic as the same deployment serves with nobody left out, routed "
        "anew; below 1 it serves everyone only at so much of the traffic."
    )
    tables = [_tabulate_gpus(each), _tabulate_quotas(each), _tabulate_loads(each), _tabulate_full(each)]
    return [
        Section(
            "fleet",
            "What the fleet takes",
            text,
            write_fleet_sentences(each),
            (),
            [t for t in tables if t.rows],
        )
    ]


def write_fleet_sentences(each: Sequence[FleetSummary]) -> list[str]:
    """Say what fleets cost and how much more traffic they take."""
    lines = [f"Rent: {_spread([f.rent_per_hour for f in each], '$', '/h')}."]
    if tokens := [f.cost_per_million_tokens for f in each if math.isfinite(f.cost_per_million_tokens)]:
        lines.append(f"Rent for a million served tokens: {_spread(tokens, '$', '')}.")
    else:
        lines.append("No plan serves any tokens.")
    limited = [f.headroom.factor for f in each if math.isfinite(f.headroom.factor)]
    if limited:
        lines.append(f"Traffic that a fleet takes: {_spread(limited, 'x ', '')}.")
    if endless := len(each) - len(limited):
        lines.append(f"{percent(endless / len(each))} of the fleets take any traffic.")
    return lines


def _spread(values: Sequence[float], before: str, after: str) -> str:
    """Write a mean and the range around it."""
    mean = f"{before}{number(float(np.mean(values)))}{after} on average"
    low, high = min(values), max(values)
    return mean if number(low) == number(high) else f"{mean}, {before}{interval(low, high)}{after}"


def _tabulate_gpus(each: Sequence[FleetSummary]) -> PageTable:
    names = _by_first(name for f in each for name in f.gpus)
    data = pd.DataFrame(
        [
            {
                "gpu": name,
                "plans": sum(name in f.gpus for f in each),
                "mean_gpus": float(np.mean([f.gpus.get(name, 0) for f in each])),
                "most_gpus": max(f.gpus.get(name, 0) for f in each),
            }
            for name in names
        ],
        columns=["gpu", "plans", "mean_gpus", "most_gpus"],
    ).sort_values(["mean_gpus", "gpu"], ascending=[False, True], kind="stable", ignore_index=True)
    rows = [
        [r.gpu, percent(r.plans / len(each)), number(r.mean_gpus), f"{r.most_gpus:,}"]
        for r in _first_rows(data)
    ]
    heads = ["GPU", "rented in", "GPUs, mean", "most"]
    return PageTable("fleet-gpus", "GPUs rented", heads, rows, (1, 2, 3), data)


def _tabulate_quotas(each: Sequence[FleetSummary]) -> PageTable:
    used: dict[str, list[tuple[float, float]]] = {}
    for fleet in each:
        for use in fleet.quotas:
            if math.isfinite(use.quota):
                used.setdefault(use.device, []).append((use.gpus, use.quota))
    data = pd.DataFrame(
        [
            {
                "device": device,
                "plans": len(uses),
                "mean_used": float(np.mean([_part(*use) for use in uses])),
                "full": sum(gpus >= quota for gpus, quota in uses),
            }
            for device, uses in used.items()
        ],
        columns=["device", "plans", "mean_used", "full"],
    ).sort_values(["full", "mean_used"], ascending=False, kind="stable", ignore_index=True)
    rows = [
        [r.device, f"{r.plans:,}", percent(r.mean_used), percent(r.full / r.plans)] for r in _first_rows(data)
    ]
    caption = "Quotas, over the plans that rent such a device"
    heads = ["device", "plans", "used, mean", "used up in"]
    return PageTable("fleet-quotas", caption, heads, rows, (1, 2, 3), data)


def _part(gpus: float, quota: float) -> float:
    return gpus / quota if quota > 0 else 1.0


def _tabulate_loads(each: Sequence[FleetSummary]) -> PageTable:
    loads: dict[str, list[tuple[float, int]]] = {}
    for fleet in each:
        for pair, load in fleet.utilization:
            loads.setdefault(f"{pair.model}@{pair.gpu}", []).append((load, pair.replicas))
    data = pd.DataFrame(
        [
            {
                "pair": pair,
                "plans": len(found),
                "mean_replicas": float(np.mean([count for _, count in found])),
                "mean_load": float(np.mean([load for load, _ in found])),
                "highest_load": max(load for load, _ in found),
            }
            for pair, found in loads.items()
        ],
        columns=["pair", "plans", "mean_replicas", "mean_load", "highest_load"],
    ).sort_values(["plans", "pair"], ascending=[False, True], kind="stable", ignore_index=True)
    rows = [
        [
            r.pair,
            f"{r.plans:,}",
            number(r.mean_replicas),
            *("more than all" if math.isinf(v) else percent(v) for v in (r.mean_load, r.highest_load)),
        ]
        for r in _first_rows(data)
    ]
    caption = "Load of a replica of each deployed pair"
    heads = ["model@GPU", "plans", "replicas, mean", "load, mean", "highest"]
    return PageTable("fleet-loads", caption, heads, rows, (1, 2, 3, 4), data)


def _tabulate_full(each: Sequence[FleetSummary]) -> PageTable:
    counts = Counter(f.headroom.full[0] for f in each if f.headroom.full)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    data = pd.DataFrame(ranked, columns=["limit", "plans"])
    rows = [[limit, f"{count:,}", percent(count / len(each))] for limit, count in ranked[:_MOST_ROWS]]
    return PageTable(
        "fleet-full", "What is full first as traffic grows", ["limit", "plans", "share"], rows, (1, 2), data
    )


def _first_rows(data: pd.DataFrame) -> Iterator[Any]:
    """Iterate over the rows that the page shows, with the columns as attributes."""
    return iter(data.head(_MOST_ROWS).itertuples())


def _by_first(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
