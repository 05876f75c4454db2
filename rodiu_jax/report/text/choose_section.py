"""A choice of one deployment as a section: sentences, then the table and the picture of the trade-off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.io.number_text import interval, number, percent
from rodiu_jax.report.parts.section import PageTable, Picture, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rodiu_jax.decisions.choose.answer import Choice
    from rodiu_jax.model.plan import DeployedPair

_MOST_ROWS = 12


def _name_criterion(choice: Choice) -> str:
    tail = f"mean cost of the dearest {1 - choice.level:.4g} of scenarios (CVaR at {choice.level:g})"
    names = {
        "expected": "expected cost",
        "cvar": tail,
        "worst": "worst case",
        "regret": "largest regret",
    }
    return names[choice.criterion]


def write_sentences(choice: Choice) -> list[str]:
    """Say what to rent, what it costs, how near the best possible that is, and how sure."""
    if not choice.meets:
        return _describe_nearest(choice)
    lines = [
        f"Rent {_name_deployment(choice)}.",
        f"It has the least {_name_criterion(choice)} of {choice.candidates:,} candidates over "
        f"{_name_scenarios(choice)}: ${number(choice.value)} per period "
        f"({_write_bracket(choice.lower, choice.upper)}).",
    ]
    if choice.criterion != "regret" and math.isfinite(choice.best_possible):
        lines.append(
            f"No deployment at all costs less than ${number(choice.best_possible)}: "
            f"this one is within {percent(choice.gap)} of the best possible."
        )
    if choice.stochastic is not None:
        low, high = choice.stochastic
        worth = f"costs ${number(low)} more ({_write_bracket(low, high)})"
        worth = worth if math.isfinite(high) else "breaks a promise or a limit in some scenario"
        lines.append(
            f"The best deployment for the mean scenario {worth}: that is the value of knowing the whole range."
        )
    value, share = choice.otherwise
    how = "the best fixed routing" if choice.recourse else "the routing chosen anew in each scenario"
    cost = f", at ${number(value)} there." if share else "."
    lines.append(f"With {how} it keeps every promise in {percent(share)} of them{cost}")
    return [*lines, _describe_hold_out(choice)]


def _name_deployment(choice: Choice) -> str:
    return ", ".join(map(_name_pair, choice.deployment)) or "nothing"


def _name_pair(pair: DeployedPair) -> str:
    name = f"{pair.model} on {pair.tp} x {pair.gpu}"
    return name if pair.replicas == 1 else f"{pair.replicas} replicas of {name}"


def _name_scenarios(choice: Choice) -> str:
    routing = "routing chosen anew in each" if choice.recourse else "one fixed routing"
    weighted = ""
    if choice.effective_scenarios is not None:
        weighted = f" by weight, as good as {number(choice.effective_scenarios)} equal ones"
    return f"{choice.scenarios:,} scenarios{weighted} ({routing})"


def _describe_nearest(choice: Choice) -> list[str]:
    """Name the candidate that comes nearest, where none keeps every promise."""
    seen, rent = _name_scenarios(choice), _name_deployment(choice)
    broken = ", ".join(f"{name} in {count:,}" for name, count in choice.broken.items())
    breaks = f" (what breaks: {broken})." if broken else "."
    if choice.feasible_share:
        lines = [
            f"No candidate keeps every promise in all of {seen}.",
            f"Nearest: rent {rent}; it keeps them in {percent(choice.feasible_share)} of them{breaks}",
        ]
    else:
        lines = [
            f"No candidate keeps every promise in any of {seen}.",
            f"Nearest, if any share of the queries may stay unserved: rent {rent}{breaks}",
        ]
    lines += [f"In {count:,} nobody can serve {told}." for told, count in choice.unservable.items()]
    if choice.hopeless:
        lines.append(f"In {choice.hopeless:,} of them it is proven that no plan exists, whatever is rented.")
    return lines


def _describe_hold_out(choice: Choice) -> str:
    result = choice.held_out
    if result is None:
        return "No scenario was held out, so the value is a little too good: the choice was made on the same ones."
    low, high = result.interval
    range_of_mean = f" (95%: {number(low)} to {number(high)})" if math.isfinite(low) else ""
    value = ""
    if math.isfinite(result.value):
        value = f"{_name_criterion(choice)} ${number(result.value)}{range_of_mean}, "
    return (
        f"In {result.scenarios:,} scenarios held out: {value}every promise is kept in "
        f"{percent(result.feasible_share)} (95%: {interval(*result.feasible_interval, percent)}); "
        f"at most {percent(result.exceeded_interval[1])} are worse than the worst one chosen with."
    )


def _write_bracket(low: float, high: float) -> str:
    text = interval(low, high)
    return text if " to " in text else f"exact to {number(max(high - low, 0.005))}"


def tabulate_frontier(choice: Choice) -> PageTable:
    """Show the chosen plan and those that no other beats in both expected cost and CVaR."""
    shown: Any = choice.table[choice.table["frontier"] | choice.table["chosen"]]
    shown = shown.sort_values(["expected", "cvar"]).head(_MOST_ROWS)
    rows = [
        [
            "*" if r["chosen"] else "",
            str(r["deployment"]),
            *(number(float(r[n])) for n in ("expected", "cvar", "worst", "regret_lower", "regret")),
            percent(r["feasible_share"]),
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


def draw_frontier(choice: Choice) -> Figure:
    """Draw expected cost against CVaR: every candidate that keeps all promises, the frontier and the choice."""
    from rodiu_jax.report.figures import style

    expected, tail, front, chosen = (
        choice.table[n].to_numpy() for n in ("expected", "cvar", "frontier", "chosen")
    )
    figure, (axes,) = style.make_panels(1, high=4.5)
    drawn = np.isfinite(expected) & np.isfinite(tail)
    axes.scatter(expected[drawn], tail[drawn], s=14, color=style.OTHER, label="candidates")
    order = np.flatnonzero(front)[np.argsort(expected[front])]
    axes.plot(expected[order], tail[order], "o-", color=style.BLUE, markersize=5, label="frontier")
    axes.scatter(
        expected[chosen & drawn],
        tail[chosen & drawn],
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
    style.set_heading(axes, f"{len(choice.table):,} candidates over {choice.scenarios:,} scenarios")
    axes.legend(frameon=False)
    return figure


def describe_choice(choice: Choice) -> Section:
    """Make a section of a choice: sentences, the picture and the table of the trade-off."""
    text = "Expected cost against CVaR: candidates that keep every promise, those that none beats, the chosen one"
    picture = Picture("candidates", text, choice.table, draw_frontier(choice))
    return Section(
        "choose",
        "What to rent for many scenarios",
        "",
        write_sentences(choice),
        [picture],
        [tabulate_frontier(choice)],
    )
