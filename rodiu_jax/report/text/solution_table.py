"""Exact solutions of scenarios as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rodiu_jax.io.number_text import number, percent
from rodiu_jax.model.status import Status
from rodiu_jax.report.parts.section import PageTable

if TYPE_CHECKING:
    from rodiu_jax.decisions.fleet import FleetSummary
    from solvers.answers import Answer

_PARTS = ("rental", "storage", "delay", "unmet")


def tabulate_solutions(answers: Iterable[tuple[int, Answer]]) -> PageTable:
    """Make a row per scenario: number, status, cost, bound, gap, the parts of the cost and what is deployed."""
    rows = []
    for instance, answer in answers:
        plan = answer.plan
        rows.append(
            [
                str(instance),
                answer.status.word,
                number(answer.upper),
                number(answer.lower),
                f"{answer.gap:.1e}" if math.isfinite(answer.gap) else "-",
                *(number(cost) for cost in answer.costs[1:].tolist()),
                plan.summary() if plan else "-",
                number(answer.seconds),
            ]
        )
    heads = ["scenario", "status", "total", "lower bound", "gap", *_PARTS, "deployed", "s"]
    caption = "Cheapest robust plans, $ per rental period"
    return PageTable("solutions", caption, heads, rows, (0, 2, 3, 4, 5, 6, 7, 8, 10))


def tabulate_fleets(fleets: Mapping[int, FleetSummary]) -> PageTable:
    """Make a row per scenario: GPUs, rent, price of served tokens, load of each pair, quotas, headroom."""
    rows = [
        [
            str(instance),
            ", ".join(f"{count} {gpu}" for gpu, count in fleet.gpus.items()) or "-",
            number(fleet.rent_per_hour),
            number(fleet.cost_per_million_tokens),
            ", ".join(
                f"{pair.model}@{pair.gpu} {percent(load) if math.isfinite(load) else 'more than all'}"
                for pair, load in fleet.utilization
            )
            or "-",
            ", ".join(
                f"{use.gpus} of {use.quota:g} {use.device}"
                for use in fleet.quotas
                if math.isfinite(use.quota)
            )
            or "-",
            _write_factor(fleet.headroom.factor),
            fleet.headroom.full[0] if fleet.headroom.full else "-",
        ]
        for instance, fleet in fleets.items()
    ]
    heads = [
        "scenario",
        "GPUs",
        "$/h",
        "$/M tokens",
        "load of a replica",
        "quota",
        "takes traffic",
        "then full",
    ]
    caption = "Fleets: rent, load, and the traffic that the same deployment takes when it is routed anew"
    return PageTable("fleets", caption, heads, rows, (0, 2, 3, 6))


def _write_factor(factor: float) -> str:
    return f"x {number(factor)}" if math.isfinite(factor) else "any"


def write_reasons(answers: Iterable[tuple[int, Answer]]) -> list[str]:
    """Say why scenarios have no plan, where one type is to blame."""
    return [
        f"Scenario {instance} has no plan: {answer.message}."
        for instance, answer in answers
        if answer.status is Status.INFEASIBLE and answer.message
    ]
