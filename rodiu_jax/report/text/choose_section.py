"""A choice for people: sentences first, then the table and the picture of the trade-off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.report.parts.section import PageTable, Picture, Section
from rodiu_jax.report.parts.tables import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rodiu_jax.decisions.choose.answer import Choice

_ROWS = 12


def _name(choice: Choice) -> str:
    tail = f"mean cost of the dearest {1 - choice.level:.4g} of scenarios (CVaR at {choice.level:g})"
    names = {
        "expected": "expected cost",
        "cvar": tail,
        "worst": "worst case",
        "regret": "largest regret",
    }
    return names[choice.criterion]


def sentences(choice: Choice) -> list[str]:
    """What to rent, what it costs, how near the best possible that is and how sure, in plain words."""
    pairs = [f"{d.model} on {d.tp} x {d.gpu}" for d in choice.deployment]
    rent = ", ".join(pairs) or "nothing"
    routing = "routing chosen anew in each" if choice.recourse else "one fixed routing"
    seen = f"{choice.scenarios:,} scenarios ({routing})"
    if not choice.meets:
        broken = ", ".join(f"{name} in {count:,}" for name, count in choice.broken.items())
        breaks = f" (what breaks: {broken})." if broken else "."
        if choice.feasible_share:
            lines = [
                f"No candidate keeps every promise in all of {seen}.",
                f"Nearest: rent {rent}; it keeps them in {choice.feasible_share:.2%} of them{breaks}",
            ]
        else:
            lines = [
                f"No candidate keeps every promise in any of {seen}.",
                f"Nearest, were any share of the queries allowed to stay unserved: rent {rent}{breaks}",
            ]
        if choice.hopeless:
            lines.append(
                f"In {choice.hopeless:,} of them it is proven that no plan exists, whatever is rented."
            )
        return lines
    lines = [
        f"Rent {rent}.",
        f"Least {_name(choice)} of {choice.candidates:,} candidates over {seen}: "
        f"${number(choice.value)} per period ({_between(choice.lower, choice.upper)}).",
    ]
    if choice.criterion != "regret" and math.isfinite(choice.best_possible):
        lines.append(
            f"No deployment whatever has less than ${number(choice.best_possible)}: "
            f"this one is within {choice.gap:.2%} of the best possible."
        )
    if choice.stochastic is not None:
        low, high = choice.stochastic
        worth = f"costs ${number(low)} more ({_between(low, high)})"
        worth = worth if math.isfinite(high) else "breaks a promise or a limit in some scenario"
        lines.append(f"What is best for the mean scenario {worth}: that is what knowing the spread is worth.")
    value, share = choice.otherwise
    how = "the best fixed routing" if choice.recourse else "the routing chosen anew in each scenario"
    lines.append(
        f"With {how} it keeps every promise in {share:.2%} of them"
        + (f", at ${number(value)} there." if share else ".")
    )
    held = choice.held_out
    if held is None:
        lines.append("No scenario was held out: the value flatters a little, as it was chosen on them.")
    else:
        low, high = held.interval
        told = f" (95 %: {number(low)} to {number(high)})" if math.isfinite(low) else ""
        known = f"{_name(choice)} ${number(held.value)}{told}, " if math.isfinite(held.value) else ""
        low, high = held.feasible_interval
        lines.append(
            f"In {held.scenarios:,} scenarios held out: {known}every promise held in {held.feasible_share:.2%} "
            f"(95 %: {low:.2%} to {high:.2%}); at most {held.exceeded_interval[1]:.2%} are worse than the worst one "
            "chosen with."
        )
    return lines


def _between(low: float, high: float) -> str:
    """What the brackets leave."""
    told = number(low), number(high)
    return f"exact to {number(max(high - low, 0.005))}" if told[0] == told[1] else f"{told[0]} to {told[1]}"


def frontier_table(choice: Choice) -> PageTable:
    """The chosen plan and those that no other beats in both expected cost and CVaR."""
    shown: Any = choice.table[choice.table["frontier"] | choice.table["chosen"]]
    shown = shown.sort_values(["expected", "cvar"]).head(_ROWS)
    rows = [
        [
            "*" if r["chosen"] else "",
            str(r["deployment"]),
            *(number(float(r[n])) for n in ("expected", "cvar", "worst", "regret_lower", "regret")),
            f"{r['feasible_share']:.2%}",
        ]
        for r in shown.to_dict(orient="records")
    ]
    heads = ["", "deployment", "expected", f"CVaR {choice.level:g}", "worst", "regret from", "to", "kept in"]
    return PageTable(
        "candidates",
        "Trade-off, $ per rental period (* chosen)",
        heads,
        rows,
        tuple(range(2, len(heads))),
        choice.table,
    )


def frontier_figure(choice: Choice) -> Figure:
    """Expected cost against CVaR: every candidate that keeps all promises, the frontier and the choice."""
    from rodiu_jax.report.figures import style

    expected, tail, front, mine = (
        choice.table[n].to_numpy() for n in ("expected", "cvar", "frontier", "chosen")
    )
    figure, (axes,) = style.panels(1, high=4.5)
    drawn = np.isfinite(expected) & np.isfinite(tail)
    axes.scatter(expected[drawn], tail[drawn], s=14, color=style.OTHER, label="candidates")
    order = np.flatnonzero(front)[np.argsort(expected[front])]
    axes.plot(expected[order], tail[order], "o-", color=style.BLUE, markersize=5, label="frontier")
    axes.scatter(
        expected[mine & drawn],
        tail[mine & drawn],
        s=110,
        marker="*",
        color=style.ORANGE,
        zorder=3,
        label="chosen",
    )
    if len(order):  # far candidates would squeeze the trade-off into a corner
        for values, limit in ((expected[order], axes.set_xlim), (tail[order], axes.set_ylim)):
            low, high = float(values.min()), float(values.max())
            room = max(1.5 * (high - low), 0.05 * abs(high), 1e-9)
            limit(low - 0.1 * room, high + room)
    axes.set_xlabel("Expected cost, $ per period")
    axes.set_ylabel(f"CVaR at {choice.level:g}, $ per period")
    axes.ticklabel_format(useOffset=False)
    style.heading(axes, f"{len(choice.table):,} candidates over {choice.scenarios:,} scenarios")
    axes.legend(frameon=False)
    return figure


def section(choice: Choice) -> Section:
    """The choice as a section of a page."""
    text = "Expected cost against CVaR: candidates that keep every promise, those that none beats, the chosen one"
    picture = Picture("candidates", text, choice.table, frontier_figure(choice))
    return Section(
        "choose",
        "What to rent for many scenarios",
        "",
        sentences(choice),
        [picture],
        [frontier_table(choice)],
    )
