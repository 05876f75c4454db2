"""A diagnosis as plain sentences, then tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rodiu_jax.model.tolerances import SAME_COST
from rodiu_jax.report.parts.section import PageTable, Section
from rodiu_jax.report.parts.tables import interval, number

if TYPE_CHECKING:
    from rodiu_jax.decisions.diagnose.diagnosis import Adjustment, Diagnosis
    from rodiu_jax.decisions.diagnose.idle_gpus import Entry
    from rodiu_jax.decisions.diagnose.shadow_prices import Shadow

_TOLD = 3


def section(found: Diagnosis) -> Section:
    """Sentences first, then a table each of prices, adjustments and idle GPUs."""
    tables = [_adjustments(found.adjustments)]
    if found.binding:
        tables.insert(0, _prices(found.binding))
    if found.idle:
        tables.append(_idle(found.idle))
    title = f"What costs most in scenario {found.instance}, and what would help"
    return Section("diagnose", title, "", sentences(found), [], tables)


def sentences(found: Diagnosis) -> list[str]:
    """What a planner should know, most important first."""
    answer, plan = found.answer, found.answer.plan
    said = []
    if plan is None:
        said.append(f"Scenario {found.instance}: no plan keeps every limit (proven).")
        works = [a for a in found.adjustments if math.isfinite(a.upper_bound)]
        for a in works:
            said.append(f"With {a.name} there is a plan, at ${number(a.upper_bound)} per period.")
        if not works:
            said.append("None of the four adjustments changes that.")
    else:
        said.append(
            f"Scenario {found.instance}: the best plan costs ${number(answer.upper)} per period "
            f"({answer.status.word}, at least ${number(answer.lower)}): {plan.summary()}."
        )
        priced = [s for s in found.binding if s.price > 0]
        for s in priced[:_TOLD]:
            said.append(
                f"{s.limit.label}: one percent more ({_value(s.value / 100)} of {_value(s.value)}) saves "
                f"${number(s.per_percent)} per period; this holds from {_value(s.holds_from)} to {_value(s.holds_to)}."
            )
        if not priced:
            said.append("With this deployment no limit costs anything.")
        said += _best(found.adjustments, answer.upper)
    said += _everyone(found)
    reached = [e for e in found.idle if math.isfinite(e.cheaper_to)]
    for e in reached[:_TOLD]:
        said.append(
            f"{e.gpu} must be ${number(e.cheaper_to)} of its ${number(e.price)} per hour cheaper "
            f"({100 * e.cheaper_to / e.price:.3g} %) before renting it pays: {e.deployments}."
        )
    never = [e.gpu for e in found.idle if e.reason.startswith("not even")]
    if never:
        said.append(f"Not worth renting even for nothing: {', '.join(never)}.")
    return said


def _best(adjustments: list[Adjustment], cost: float) -> list[str]:
    helps = [a for a in adjustments if a.saving_upper > SAME_COST * abs(cost)]
    idle = [a.name for a in adjustments if a not in helps]
    said = [f"{a.name}: saves ${interval(a.saving_lower, a.saving_upper)} per period." for a in helps]
    return said + ([f"Saves nothing: {'; '.join(idle)}."] if idle else [])


def _everyone(found: Diagnosis) -> list[str]:
    served = found.everyone
    if not served.unmet and served.extra_upper == 0:
        return ["Everyone is served."]
    left = ", ".join(f"{100 * u:.3g} % of {q}" for q, u in served.unmet.items())
    said = [f"Unserved is {left}."] if left else []
    if math.isfinite(served.extra_upper):
        extra = interval(served.extra_lower, served.extra_upper)
        return [
            *said,
            f"Everyone could be served within the limits as they are, for ${extra} more per period.",
        ]
    enough = [lever for lever in served.levers if math.isfinite(lever.enough)]
    if not enough:
        return [*said, "No limit that is multiplied alone, even a thousandfold, lets everyone be served."]
    told = [f"{lever.field} x{lever.enough:.3g}" for lever in enough]
    rest = f" (also enough alone: {', '.join(told[1:])})" if told[1:] else ""
    return [*said, f"The smallest change that lets everyone be served is {told[0]}{rest}."]


def _value(value: float) -> str:
    return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:,.0f}"


def _prices(binding: list[Shadow]) -> PageTable:
    rows = [
        [
            s.limit.label,
            _value(s.value),
            f"{s.price:.4g}" if s.price else "-",
            s.limit.unit,
            f"{_value(s.holds_from)} to {_value(s.holds_to)}" if s.price else "-",
            number(s.per_percent),
            number(s.relaxed_price * s.value / 100),
        ]
        for s in binding
    ]
    columns = ["limit", "now", "shadow price", "unit", "holds", "$ per 1 %", "fractional $ per 1 %"]
    title = "What limits cost: saved per unit more, with this deployment; last, where deployments may be fractional"
    return PageTable("prices", title, columns, rows, (1, 2, 5, 6))


def _adjustments(adjustments: list[Adjustment]) -> PageTable:
    rows = [
        [
            a.name,
            number(a.lower_bound),
            number(a.upper_bound),
            number(a.saving_lower),
            number(a.saving_upper),
            f"{100 * a.unmet_share:.2f} %" if math.isfinite(a.unmet_share) else "-",
        ]
        for a in adjustments
    ]
    columns = ["adjustment", "lower bound", "upper bound", "saves at least", "at most", "unserved"]
    return PageTable("adjustments", "Adjustments, $ per period", columns, rows, (1, 2, 3, 4, 5))


def _idle(idle: list[Entry]) -> PageTable:
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
