"""The result of a stress test as a section (sentences, then a table) and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rodiu_jax.io.number_text import interval, number, percent
from rodiu_jax.report.data.json_rows import json_rows
from rodiu_jax.report.parts.section import PageTable, Section

if TYPE_CHECKING:
    from rodiu_jax.decisions.stress.draws import Stress

_MOST_ROWS = 60
_MOST_SENTENCES = 12
_NO_DEVIATION = 1e-3
"""Scales of the deviations below this are as good as none."""


def stress_to_json(result: Stress) -> dict[str, Any]:
    """Return the settings, and the rows of both tables."""
    return result.settings | {
        "results": json_rows(result.results),
        "promises": json_rows(result.promises),
    }


def describe_stress(result: Stress) -> Section:
    """Make a section: a sentence per plan and scenario, then the table."""
    groups = [rows.to_dict("records") for _, rows in result.results.groupby(["plan", "instance"], sort=False)]
    lines = [
        [r for r in rows if r["distribution"] == kind]
        for rows in groups
        for kind in ("uniform", "beta", "worst")
    ]
    scales, settings = result.settings["scales"], result.settings
    usual = min(scales, key=lambda s: abs(s - 1.0))
    rated = "overloaded" in result.results
    rows = []
    for line in lines[:_MOST_ROWS]:
        one = next(r for r in line if r["scale"] == usual)
        rows.append(
            [
                f"{one['plan']} {one['kind']}",
                str(one["instance"]),
                one["distribution"],
                *map(_describe_breaks, line),
                one["first"] or "-",
                number(one["breaks_at"], 3),
                number(one["cost_mean"]),
                number(one["cost_q95"]),
                *(_describe_overload(one) if rated else []),
            ]
        )
    heads = [
        "plan",
        "scenario",
        "deviations",
        *(f"x{s:g}" for s in scales),
        "first to break",
        "from",
        "mean",
        "95%",
        *(["overloaded", "by up to"] if rated else []),
    ]
    caption = (
        f"How often some promise breaks ({percent(settings['confidence'])} interval), by scale of the deviations; "
        f"$ per period at x{usual:g}; {settings['draws']:,} draws, reality {settings['reality']}"
    )
    if rated:
        caption += f"; overloaded: some pair has more load than it may, at x{usual:g}"
    if len(lines) > _MOST_ROWS:
        caption += f"; {len(lines) - _MOST_ROWS} more lines in the JSON"
    numbers = (1, *range(3, 3 + len(scales)), *range(4 + len(scales), len(heads)))
    return Section(
        "stress",
        "Do plans keep their promises when things turn out worse?",
        "",
        [_write_sentence(rows) for rows in groups[:_MOST_SENTENCES]]
        + [f"Scenario {n['instance']} has no {n['kind']} plan to compare with." for n in settings["no_plan"]],
        [],
        [PageTable("results", caption, heads, rows, numbers, result.results)],
    )


def _describe_breaks(row: dict[str, Any]) -> str:
    if row["distribution"] == "worst":
        return "yes" if row["violations"] else "no"
    return f"{percent(row['probability'])} ({interval(row['lower'], row['upper'], percent)})"


def _describe_overload(row: dict[str, Any]) -> list[str]:
    is_draw = row["distribution"] != "worst"
    often = percent(row["overloaded"]) if is_draw else "yes" if row["overloaded"] else "no"
    return [often, percent(row["overload_max"]) if row["overloaded"] else "-"]


def _write_sentence(rows: list[dict[str, Any]]) -> str:
    """Say what one plan does on one scenario."""
    head = rows[0]
    parts = []
    for kind in ("uniform", "beta"):
        drawn = [r for r in rows if r["distribution"] == kind]
        chances = ", ".join(f"{percent(r['probability'])} at scale {r['scale']:g}" for r in drawn)
        broken = "a promise" if "overloaded" not in head else "a promise or a pair's load"
        parts.append(f"{kind} deviations break {broken} in {chances}")
    worst = next(r for r in rows if r["distribution"] == "worst")
    if math.isinf(worst["breaks_at"]):
        parts.append("no deviation can break a promise")
    elif worst["breaks_at"] < _NO_DEVIATION:
        parts.append(f"{worst['first']} is at its limit, or beyond, without any deviation")
    else:
        parts.append(f"at their worst, {worst['first']} breaks first, from scale {worst['breaks_at']:.3g} on")
    also = f" It breaks {head['broken_limits']} whatever the deviations." if head["broken_limits"] else ""
    return f"Plan {head['plan']} ({head['kind']}) on scenario {head['instance']}: {'; '.join(parts)}.{also}"
