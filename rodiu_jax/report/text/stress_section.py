"""What a stress test found, as sentences, a picture, a table and JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rodiu_jax.report.parts.section import PageTable, Section
from rodiu_jax.report.parts.tables import number
from rodiu_jax.report.text.sensitivity_tables import records

if TYPE_CHECKING:
    from rodiu_jax.decisions.stress.draws import Stress

_MOST_ROWS = 60
_MOST_SENTENCES = 12


def to_json(found: Stress) -> dict[str, Any]:
    """The settings, and the rows of both tables."""
    return found.settings | {"results": records(found.results), "promises": records(found.promises)}


def percent(value: float) -> str:
    """A probability in percent with three significant digits."""
    return "0 %" if value == 0 else f"{100 * value:.3g} %"


def section(found: Stress) -> Section:
    """Sentences first, one per plan and scenario, then the table."""
    groups = [rows.to_dict("records") for _, rows in found.results.groupby(["plan", "instance"], sort=False)]
    lines = [
        [r for r in rows if r["distribution"] == kind]
        for rows in groups
        for kind in ("uniform", "beta", "worst")
    ]
    scales, settings = found.settings["scales"], found.settings
    usual = min(scales, key=lambda s: abs(s - 1.0))
    rows = []
    for line in lines[:_MOST_ROWS]:
        one = next(r for r in line if r["scale"] == usual)
        rows.append(
            [
                f"{one['plan']} {one['kind']}",
                str(one["instance"]),
                one["distribution"],
                *map(_broken, line),
                one["first"] or "-",
                number(one["breaks_at"], 3),
                number(one["cost_mean"]),
                number(one["cost_q95"]),
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
        "95 %",
    ]
    caption = (
        f"How often some promise breaks ({100 * settings['confidence']:g} % interval), by scale of the deviations; "
        f"$ per period at x{usual:g}; {settings['draws']:,} draws, reality {settings['reality']}"
    )
    if len(lines) > _MOST_ROWS:
        caption += f"; {len(lines) - _MOST_ROWS} more lines with --json"
    numbers = (1, *range(3, 3 + len(scales)), *range(4 + len(scales), 7 + len(scales)))
    return Section(
        "stress",
        "Do plans keep their promises when things turn out worse?",
        "",
        [_sentence(rows) for rows in groups[:_MOST_SENTENCES]]
        + [f"Scenario {n['instance']} has no {n['kind']} plan to compare with." for n in settings["no_plan"]],
        [],
        [PageTable("results", caption, heads, rows, numbers, found.results)],
    )


def _broken(row: dict[str, Any]) -> str:
    if row["distribution"] == "worst":
        return "yes" if row["violations"] else "no"
    return f"{percent(row['probability'])} ({100 * row['lower']:.3g}-{100 * row['upper']:.3g})"


def _sentence(rows: list[dict[str, Any]]) -> str:
    """What one plan does on one scenario."""
    head = rows[0]
    said = []
    for kind in ("uniform", "beta"):
        at = [r for r in rows if r["distribution"] == kind]
        chances = ", ".join(f"{percent(r['probability'])} at scale {r['scale']:g}" for r in at)
        said.append(f"{kind} deviations break a promise in {chances}")
    worst = next(r for r in rows if r["distribution"] == "worst")
    if math.isinf(worst["breaks_at"]):
        end = "no deviation can break a promise"
    elif worst["breaks_at"] < 1e-3:
        end = f"{worst['first']} is at its limit, or beyond, without any deviation"
    else:
        end = (
            f"at their worst, {worst['first']} is the first to break, from scale {worst['breaks_at']:.3g} on"
        )
    also = f" It breaks {head['broken_limits']} anyway." if head["broken_limits"] else ""
    name = f"Plan {head['plan']} ({head['kind']}) on scenario {head['instance']}"
    return f"{name}: {'; '.join(said)}; {end}.{also}"
