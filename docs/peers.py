"""Write ``docs/peers.md``, one question asked of rodiu_jax and of what people use: ``python docs/peers.py FILE.md``.

It needs the extra ``serving`` and takes about three minutes. Every figure on the page is of this run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import logging
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rodiu_jax as rj
from rodiu_jax.model.fields import FIELD_SPECS, REQUIRED_FIELDS
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.status import Status

SCENARIOS = 8
MARGIN = 1.2
"""The rule of thumb buys for so many times the rate."""

ONE_MODEL, ONE_GPU = "Qwen3-32B-FP8", "H100"
"""The model keeps every error promise of the catalogue, so that it may stand alone."""

RATES = (50, 150, 400)
"""Requests/s asked of one model on one GPU type."""


@dataclass(frozen=True)
class Fleet:
    """What a plan rents: $/h, GPUs, and what is bought elsewhere in $/h, means over the scenarios."""

    rent: float
    gpus: float
    elsewhere: float


def solve_fleets(instances: Instances) -> Fleet:
    """Solve every scenario to proven optimality and return the means."""
    count = instances.size or 1
    answers = rj.solve(instances, range(count))
    rent, gpus, elsewhere = [], [], []
    for b in range(count):
        plan = answers[b].plan_for(b)
        assert plan is not None, (b, answers[b].message)
        assert answers[b].status is Status.OPTIMAL, b
        fields = instances.one(b)
        fleet = rj.summarize_fleet(plan, instances, b)
        unmet = np.array([plan.unmet.get(name, 0.0) for name in instances.query_names])
        rent.append(fleet.rent_per_hour)
        gpus.append(sum(fleet.gpus.values()))
        elsewhere.append(float((unmet * fields.arrival_rate * fields.unmet_penalty).sum()))
    return Fleet(*(float(np.mean(x)) for x in (rent, gpus, elsewhere)))


def restrict(instances: Instances, *, models: Sequence[str] = (), gpus: Sequence[str] = ()) -> Instances:
    """Leave only some models and GPUs able to serve; all of them where none is named."""
    rate = np.array(instances.fields.throughput)
    for names, known, axis in ((models, instances.model_names, -3), (gpus, instances.gpu_names, -2)):
        out = [n for n, name in enumerate(known) if names and name not in names]
        np.moveaxis(rate, axis, 0)[out] = 0.0
    return instances.with_fields(throughput=rate)


def plain_instance(
    rates: np.ndarray, arrivals: Sequence[float], prices: Sequence[float], *, whole: bool = False
) -> Instances:
    """One model on several GPU types in which rent alone costs and rates alone bind.

    Args:
      rates: queries/h of one GPU, types by GPUs.
      whole: each type goes whole to one GPU type.
    """
    types, gpus = rates.shape
    sizes = {"I": types, "J": 1, "K": gpus, "N": 1}
    values = {n: np.zeros([sizes[a] for a in FIELD_SPECS[n].axes]) for n in REQUIRED_FIELDS}
    values |= {
        "arrival_rate": np.array(arrivals, float),
        "input_tokens": np.ones(types),
        "gpu_memory": np.ones(gpus),
        "gpu_compute": np.ones(gpus),
        "gpu_price": np.array(prices, float),
        "unmet_penalty": np.full(types, 1e3),
        "delay_threshold": np.ones(types),
        "error_threshold": np.ones(types),
        "budget": np.array(1e9),
        "rental_hours": np.array(1.0),
        "storage_capacity": np.array(1e9),
        "unmet_cap": np.array(0.0),
        "max_routes": np.array(int(whole)),
        "tp_degree": np.array([1]),
        "tp_speedup": np.ones(1),
        "max_replicas": np.full((1, gpus), 1000),
        "throughput": rates[:, None, :, None].astype(float),
    }
    names = [f"type{i}" for i in range(types)], ["model"], [f"gpu{k}" for k in range(gpus)]
    return make_instances(*names, "none", values)


# ---- the peers ----------------------------------------------------------------------------------------------------


def recommend(rate: float) -> dict[str, tuple[int, str]]:
    """Ask aiconfigurator for the fewest GPUs of one type that serve chat with one model.

    Returns:
      by its way of serving (``agg``, ``disagg``), the GPUs and what they are; a way that it finds no answer for is left
      out.
    """
    from aiconfigurator.cli.api import cli_recommend  # pyright: ignore[reportMissingImports]

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = cli_recommend(
                "meta-llama/Meta-Llama-3.1-8B",
                "h100_sxm",
                target_request_rate=float(rate),
                backend="vllm",
                isl=512,
                osl=256,
                ttft=500.0,
                tpot=50.0,
            )
    finally:
        logging.disable(before)
    answers = {}
    for way, table in found.best_configs.items():
        if len(table):
            row = table.loc[table["total_gpus_needed"].idxmin()]
            what = f"{int(row['replicas_needed'])} of degree {int(row['tp'])}" if "tp" in row else ""
            answers[way] = (int(row["total_gpus_needed"]), what)
    return answers


def assign_whole(rates: np.ndarray, arrivals: Sequence[float], prices: Sequence[float]) -> float:
    """Return the least $/h of Mélange's formulation: each bucket whole to one GPU type, whole GPUs by added loads."""
    best = math.inf
    for chosen in itertools.product(range(rates.shape[1]), repeat=len(arrivals)):
        loads = np.zeros(rates.shape[1])
        for i, k in enumerate(chosen):
            loads[k] += arrivals[i] / rates[i, k] if rates[i, k] > 0 else math.inf
        if np.isfinite(loads).all():
            best = min(best, float(np.ceil(loads - 1e-9) @ np.array(prices)))
    return best


def buy_by_rule(instances: Instances, *, rounded: bool = False) -> Fleet:
    """Buy by the rule of thumb: each type alone on its cheapest (model, GPU, degree), ``ceil(1.2 rate / throughput)``.

    Only models whose error keeps the promise at the end of its interval count.

    Args:
      rounded: cheapest is the rent of the replicas, rounded up; otherwise the rent for one query.
    """
    rent, gpus = [], []
    for b in range(instances.size or 1):
        f = instances.one(b)
        kept = (f.error_nominal + f.error_deviation <= f.error_threshold[:, None, None])[..., None]
        rate = np.where(kept, f.throughput, 0.0)
        price = f.gpu_price[:, None] * f.tp_degree
        with np.errstate(divide="ignore"):
            per_query = np.where(rate > 0, price / rate, np.inf)
            replicas = np.ceil(MARGIN * f.arrival_rate[:, None, None, None] / rate)
        worth = np.where(rate > 0, price * replicas, np.inf) if rounded else per_query
        paid = rented = 0.0
        for i in range(len(f.arrival_rate)):
            j, k, n = np.unravel_index(int(np.argmin(worth[i])), worth[i].shape)
            count = float(replicas[i, j, k, n])
            paid, rented = paid + count * price[k, n], rented + count * f.tp_degree[n]
        rent.append(paid)
        gpus.append(rented)
    return Fleet(float(np.mean(rent)), float(np.mean(gpus)), 0.0)


# ---- the page -----------------------------------------------------------------------------------------------------


def write_page() -> str:
    """Return the page as Markdown."""
    version = importlib.metadata.version
    serving = rj.sample("serving", n=SCENARIOS, seed=1)
    unlimited = np.full(len(serving.gpu_names), math.inf)
    nominal = serving.with_fields(gpu_quota=unlimited, gamma_throughput=0.0, gamma_error=0.0)
    full = nominal.with_fields(max_utilization=1.0)
    parts = [
        "# Beside the tools people use",
        _fill(
            f"Written by `python docs/peers.py docs/peers.md` with rodiu_jax {version('rodiu-jax')}, HiGHS "
            f"{version('highspy')} and aiconfigurator {version('aiconfigurator')}; every figure is of that run, and "
            "both sides of a table have the same inputs."
        ),
        *_compare_recommendations(full),
        *_compare_freedoms(nominal, serving),
        *_compare_melange(),
        *_compare_rule(full),
    ]
    return "\n\n".join(parts) + "\n"


def _fill(text: str) -> str:
    return textwrap.fill(text, width=140, break_long_words=False, break_on_hyphens=False)


def _table(*rows: Sequence[str]) -> str:
    """Write rows of cells as a table; the first is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _compare_recommendations(full: Instances) -> list[str]:
    one = restrict(full, models=["Llama-3.1-8B"], gpus=["H100"])
    rows = []
    for rate in RATES:
        arrivals = np.zeros(len(full.query_names))
        arrivals[full.query_names.index("Chat")] = 3600.0 * rate
        asked = one.with_fields(arrival_rate=arrivals, gpu_price=np.ones(len(full.gpu_names)))
        plan = rj.solve(asked, [0])[0].plan_for(0)
        assert plan is not None
        ours = sum(d.tp * d.replicas for d in plan.deployments)
        layout = ", ".join(f"{d.replicas} of degree {d.tp}" for d in plan.deployments)
        theirs = recommend(rate)
        gpus, what = theirs["agg"]
        apart = str(theirs["disagg"][0]) if "disagg" in theirs else "none found"
        rows.append((str(rate), f"{gpus} ({what})", f"{ours} ({layout})", apart))
    return [
        "## One model, one GPU type: aiconfigurator",
        _fill(
            "Chat (512 tokens in, 256 out, TTFT within 500 ms, TPOT within 50 ms) with Llama-3.1-8B on H100; both "
            "sides trust the predicted rates whole. In brackets the replicas."
        ),
        _table(
            (
                "requests/s",
                "aiconfigurator, GPUs",
                "rodiu_jax, GPUs",
                "aiconfigurator, prefill and decode apart, GPUs",
            ),
            *rows,
        ),
        _fill(
            "Where layouts differ at the same number of GPUs, either is an optimum. aiconfigurator is the better tool "
            "for what it is made for: it searches batch sizes, engines and serving with prefill and decode apart, "
            "which rodiu_jax does not model, and writes the engine's configuration; rodiu_jax reads the rate that "
            "comes of it. It knows neither prices nor several models, types of GPUs or kinds of traffic at once, nor "
            "quotas, nor how wrong a rate may be."
        ),
    ]


def _compare_freedoms(nominal: Instances, serving: Instances) -> list[str]:
    quotas = nominal.with_fields(gpu_quota=np.array(serving.fields.gpu_quota))
    cases = (
        (f"{ONE_MODEL} on {ONE_GPU}", restrict(nominal, models=[ONE_MODEL], gpus=[ONE_GPU])),
        (f"{ONE_MODEL}, GPU types mixed", restrict(nominal, models=[ONE_MODEL])),
        (f"several models on {ONE_GPU}", restrict(nominal, gpus=[ONE_GPU])),
        ("several models, GPU types mixed", nominal),
        ("and the catalogue's quotas", quotas),
        ("and robust: rates and accuracies may fall short", serving),
    )
    rows = []
    for name, instances in cases:
        f = solve_fleets(instances)
        rows.append((name, f"{f.rent:,.2f}", f"{f.gpus:.1f}", f"{f.elsewhere:,.2f}"))
    return [
        "## What mixing, quotas and robustness change",
        _fill(
            f"The catalogue `serving`, means of {SCENARIOS} scenarios, each plan proven optimal: rent and what is "
            "bought elsewhere in $/h."
        ),
        _table(("allowed", "rent", "GPUs", "bought elsewhere"), *rows),
        _fill(
            "The last row is dearer on purpose: its plans keep their promises when the rate of one kind of traffic "
            "on each pair falls short by the catalogue's shortfall, and when an accuracy is at the end of its "
            "interval; those above trust every figure."
        ),
    ]


def _compare_melange() -> list[str]:
    # README of Mélange: requests/s of one GPU by bucket (outputs 1 and 2, inputs 1 and 2), rates of the buckets, $/h.
    rates = np.array([[2.0, 20.0], [1.0, 20.0], [5.0, 40.0], [2.0, 20.0]])
    arrivals, prices = [6.0, 3.0, 15.0, 6.0], [1.01, 3.67]
    theirs = assign_whole(rates, arrivals, prices)
    ours = [
        rj.solve(plain_instance(3600 * rates, [3600 * a for a in arrivals], prices, whole=whole), [0])[
            0
        ].upper
        for whole in (True, False)
    ]
    needed, capacity, costs = 100.0, np.array([[200.0, 100.0]]), [10.0, 6.0]  # llm-d-autoscaling, issue 1251
    chosen = int(np.argmin(np.array(costs) / capacity[0]))
    greedy = costs[chosen] * math.ceil(needed / capacity[0, chosen])
    best = rj.solve(plain_instance(capacity, [needed], costs), [0])[0].upper
    shared = "the same, buckets shared between GPU types"
    return [
        "## Mélange, and an autoscaler's greedy choice",
        _table(
            ("question", "they", "rodiu_jax"),
            ("Mélange's README, whole buckets", f"${theirs:.2f}/h", f"${ours[0]:.2f}/h (`max_routes = 1`)"),
            (shared, "not asked", f"${ours[1]:.2f}/h"),
            (
                "llm-d-autoscaling, issue 1251: 100 from A (200 for $10) or B (100 for $6)",
                f"${greedy:.0f}",
                f"${best:.0f}",
            ),
        ),
        _fill(
            "Mélange's formulation (each bucket whole, loads added, whole GPUs) was solved here by enumeration, and "
            "the autoscaler's by least cost per capacity; neither program was run. Where a router can tell buckets "
            "apart but not split them, Mélange's answer and ours with `max_routes = 1` are the same. It profiles "
            "GPUs by itself, which rodiu_jax does not: `rodiu import profile` reads its profiles."
        ),
    ]


def _compare_rule(full: Instances) -> list[str]:
    priced = full.with_fields(gamma_error=1.0)
    rule, better = buy_by_rule(priced), buy_by_rule(priced, rounded=True)
    ours = solve_fleets(priced.with_fields(max_utilization=1 / MARGIN))
    saved = [1 - (ours.rent + ours.elsewhere) / r.rent for r in (rule, better)]
    return [
        "## The rule of thumb",
        _fill(
            "Each kind of traffic alone on its cheapest (model, GPU, degree) that keeps the error promise, "
            f"`ceil({MARGIN} rate / rate per replica)` replicas; against plans with the same margin "
            f"(`max_utilization = 1/{MARGIN}`) on the same {SCENARIOS} scenarios, without quotas."
        ),
        _table(
            ("", "rent, $/h", "GPUs", "bought elsewhere, $/h"),
            ("rule of thumb, least rent for one query", f"{rule.rent:,.2f}", f"{rule.gpus:.1f}", "0"),
            ("rule of thumb, least rent once rounded up", f"{better.rent:,.2f}", f"{better.gpus:.1f}", "0"),
            ("rodiu_jax", f"{ours.rent:,.2f}", f"{ours.gpus:.1f}", f"{ours.elsewhere:,.2f}"),
        ),
        _fill(
            f"The plans cost {saved[0]:.1%} and {saved[1]:.1%} less: kinds of traffic share replicas, which fills "
            "what the rule rounds up. The rule needs no solver, and comes the nearer the more replicas each kind of "
            "traffic fills."
        ),
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/peers.py FILE.md")
    Path(sys.argv[1]).write_text(write_page(), encoding="utf-8")
