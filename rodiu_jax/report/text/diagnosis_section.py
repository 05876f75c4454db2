"""A diagnosis of one scenario as a section: sentences, then tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rodiu_jax.io.number_text import interval, number, percent, significant
from rodiu_jax.report.parts.section import PageTable, Section

if TYPE_CHECKING:
    from rodiu_jax.decisions.diagnose.conflict import Conflict, NamedLimit
    from rodiu_jax.decisions.diagnose.diagnosis import Adjustment, Diagnosis
    from rodiu_jax.decisions.diagnose.idle_gpus import Entry
    from rodiu_jax.decisions.diagnose.shadow_prices import Shadow

_MOST_TOLD = 3

_LIMITS = {
    "delay": "delay promise of {name} ({value} ms)",
    "error": "error promise of {name} ({value})",
    "quota": "quota of {name} ({value} GPUs)",
    "budget": "budget (${value})",
    "replicas": "max_replicas",
    "throughput": "max_utilization ({value})",
    "routes": "max_routes ({value})",
    "storage": "storage_capacity ({value} GB)",
    "memory": "memory of the GPUs",
    "compute": "compute of the GPUs",
    "unmet": "unmet_cap of {name} ({value})",
}
"""What a limit of a conflict is called, by its constraint."""


def describe_diagnosis(diagnosis: Diagnosis) -> Section:
    """Make a section of a diagnosis: sentences, then a table each of prices, adjustments and idle GPUs."""
    tables = [_tabulate_adjustments(diagnosis.adjustments)]
    if diagnosis.binding:
        tables.insert(0, _tabulate_prices(diagnosis.binding))
    if diagnosis.idle:
        tables.append(_tabulate_idle(diagnosis.idle))
    title = f"What costs most in scenario {diagnosis.instance}, and what would help"
    return Section("diagnose", title, "", write_sentences(diagnosis), [], tables)


def write_sentences(diagnosis: Diagnosis) -> list[str]:
    """Say what a planner should know, most important first."""
    answer, plan = diagnosis.answer, diagnosis.answer.plan
    lines = []
    if plan is None:
        reason = f": {diagnosis.reason}" if diagnosis.reason else ""
        lines.append(f"Scenario {diagnosis.instance}: no plan keeps every limit (proven){reason}.")
        lines += _describe_conflict(diagnosis.conflict)
        works = [a for a in diagnosis.adjustments if math.isfinite(a.upper_bound)]
        for a in works:
            lines.append(f"With {a.name} there is a plan, at ${number(a.upper_bound)} per period.")
        if not works:
            count = "four" if len(diagnosis.adjustments) == 4 else str(len(diagnosis.adjustments))
            lines.append(f"None of the {count} adjustments changes that.")
    else:
        lines.append(
            f"Scenario {diagnosis.instance}: the best plan costs ${number(answer.upper)} per period "
            f"({answer.status.word}, at least ${number(answer.lower)}): {plan.summary()}."
        )
        priced = [s for s in diagnosis.binding if s.price > 0]
        for s in priced[:_MOST_TOLD]:
            lines.append(
                f"{s.limit.label}: 1% more ({significant(s.value / 100, 5)} of {significant(s.value, 5)}) saves "
                f"${number(s.per_percent)} per period; this holds from {significant(s.holds_from, 5)} to "
                f"{significant(s.holds_to, 5)}."
            )
        if diagnosis.priced and not priced:
            lines.append("With this deployment a looser limit saves nothing.")
        lines += _describe_adjustments(diagnosis.adjustments, answer.upper)
    lines += _describe_service(diagnosis)
    reached = [e for e in diagnosis.idle if math.isfinite(e.cheaper_to)]
    for e in reached[:_MOST_TOLD]:
        lines.append(
            f"{e.gpu} must become ${number(e.cheaper_to)} per hour cheaper than its ${number(e.price)} "
            f"({percent(e.cheaper_to / e.price)}) before renting it pays: {e.deployments}."
        )
    never = [e.gpu for e in diagnosis.idle if e.reason.startswith("not even")]
    if never:
        lines.append(f"Not worth renting even for nothing: {', '.join(never)}.")
    return lines


def _describe_adjustments(adjustments: list[Adjustment], cost: float) -> list[str]:
    helps = [a for a in adjustments if a.saves(cost)]
    idle = [a.name for a in adjustments if a not in helps]
    lines = [f"{a.name}: saves ${interval(a.saving_lower, a.saving_upper)} per period." for a in helps]
    return lines + ([f"No saving: {'; '.join(idle)}."] if idle else [])


def _describe_service(diagnosis: Diagnosis) -> list[str]:
    served = diagnosis.everyone
    if not served.unmet and served.extra_upper == 0:
        return ["Everyone is served."]
    unserved = ", ".join(f"{percent(share)} of {query}" for query, share in served.unmet.items())
    lines = [f"Not served: {unserved}."] if unserved else []
    if diagnosis.answer.plan is not None:
        lines += _describe_conflict(diagnosis.conflict)
    if math.isfinite(served.extra_upper):
        extra = interval(served.extra_lower, served.extra_upper)
        return [*lines, f"Everyone could be served within the present limits, for ${extra} more per period."]
    enough = [lever for lever in served.levers if math.isfinite(lever.enough)]
    if not enough:
        return [*lines, "No limit lets everyone be served when it alone is multiplied, even by a thousand."]
    changes = [f"{lever.field} x{lever.enough:.3g}" for lever in enough]
    others = f" (also enough alone: {', '.join(changes[1:])})" if changes[1:] else ""
    return [*lines, f"The smallest change that lets everyone be served is {changes[0]}{others}."]


def _describe_conflict(conflict: Conflict | None) -> list[str]:
    """Say which limits together leave no plan, or none that serves everyone, and what of that is proven."""
    if conflict is None:
        return []
    what = "leave no plan" if conflict.capped else "keep everyone from being served"
    names = [_name_limit(m, conflict.capped) for m in conflict.limits]
    only = [m.name for m in conflict.limits if m.constraint == "unmet"]
    if len(only) == len(names):
        return [f"Whatever else is lifted, {' and '.join(only)} cannot be served."]
    joined = f"{', '.join(names[:-1])} and {names[-1]}"
    line = f"Together these limits {what}: {joined}."
    proofs = []
    if len(conflict.unproven) < len(names):
        but = f" but {', '.join(conflict.unproven)}" if conflict.unproven else ""
        then = "there is a plan" if conflict.capped else "everyone can be served"
        proofs.append(f"without any one of them{but} {then}")
    if conflict.smallest:
        proofs.append("no smaller set of limits does the same")
    if proofs:
        line += f" Proven: {', and '.join(proofs)}."
    if conflict.unproven:
        line += f" Not proven in the time limit: that {', '.join(conflict.unproven)} must be among them."
    return [line]


def _name_limit(limit: NamedLimit, capped: bool) -> str:
    if limit.constraint == "unmet" and not capped:
        return f"serving all of {limit.name}"
    share = limit.constraint in ("error", "throughput", "unmet")
    value = percent(limit.value) if share else significant(limit.value, 5)
    return _LIMITS[limit.constraint].format(name=limit.name, value=value)


def _tabulate_prices(binding: list[Shadow]) -> PageTable:
    rows = [
        [
            s.limit.label,
            significant(s.value, 5),
            f"{s.price:.4g}" if s.price else "-",
            s.limit.unit,
            interval(s.holds_from, s.holds_to, lambda value: significant(value, 5)) if s.price else "-",
            number(s.per_percent),
            number(s.relaxed_price * s.value / 100),
        ]
        for s in binding
    ]
    columns = ["limit", "now", "shadow price", "unit", "holds", "$ per 1%", "fractional $ per 1%"]
    title = (
        "What limits cost: saving per unit more, with this deployment; last, if deployments may be fractional"
    )
    return PageTable("prices", title, columns, rows, (1, 2, 5, 6))


def _tabulate_adjustments(adjustments: list[Adjustment]) -> PageTable:
    rows = [
        [
            a.name,
            number(a.lower_bound),
            number(a.upper_bound),
            number(a.saving_lower),
            number(a.saving_upper),
            percent(a.unmet_share),
        ]
        for a in adjustments
    ]
    columns = ["adjustment", "lower bound", "upper bound", "saves at least", "at most", "unserved"]
    return PageTable("adjustments", "Adjustments, $ per period", columns, rows, (1, 2, 3, 4, 5))


def _tabulate_idle(idle: list[Entry]) -> PageTable:
    rows = [
        [
            e.gpu,
            number(e.price, 3),
            number(e.certified, 3) if math.isfinite(e.certified) else "any",
            e.reason or f"{number(e.cheaper_from, 3)} to {number(e.cheaper_to, 3)}",
            e.deployments or "-",
        ]
        for e in idle
    ]
    columns = ["GPU", "$/h", "not before (dual)", "must be cheaper by", "then deployed"]
    return PageTable("idle", "GPUs that are not rented, $ per GPU and hour", columns, rows, (1, 2))
