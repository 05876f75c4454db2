"""Exact solutions of scenarios as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rodiu_jax.io.number_text import number
from rodiu_jax.report.parts.section import PageTable

if TYPE_CHECKING:
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
