"""The price of robustness as sentences, a picture, tables and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.report.parts.section import PageTable, Picture, Section
from rodiu_jax.report.parts.tables import interval, number
from rodiu_jax.report.text.sensitivity_tables import records
from rodiu_jax.report.text.stress_section import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rodiu_jax.decisions.robustness import Robustness


def to_json(found: Robustness) -> dict[str, Any]:
    """Settings, recommendations, and the rows of the three tables."""
    return found.settings | {
        "recommended": found.recommended,
        "guaranteed": found.guaranteed,
        "curve": records(found.curve),
        "value": records(found.value),
        "scenarios_by_gamma": records(found.scenarios),
    }


def section(found: Robustness) -> Section:
    """Sentences first, then the curve and the value of modelling decision dependence."""
    mode = found.settings["mode"]
    curve = [r for r in records(found.curve) if r["mode"] == mode]
    rows = [
        [
            f"{r['gamma']:g}",
            number(r["lower_bound"]),
            number(r["upper_bound"]),
            interval(r["price_lower"], r["price_upper"]),
            number(r["realised_cost"]),
            f"{percent(r['uniform'])} ({100 * r['uniform_lower']:.3g}-{100 * r['uniform_upper']:.3g})",
            percent(r["beta"]),
            percent(r["bound"]),
            percent(r["symmetric"]),
            percent(r["bertsimas_sim"]),
        ]
        for r in curve
    ]
    names = ["Gamma", "lower bound", "upper bound", "price", "realised", "breaks, uniform", "beta", "proven"]
    value = [
        [
            f"{r['gamma']:g}",
            number(r["diu_plan_cost"]),
            interval(r["value_lower"], r["value_upper"]),
            percent(r["kept"]),
        ]
        for r in records(found.value)
    ]
    scope = f"Mean over {found.settings['scenarios']} scenario(s), {mode}, $ per period; how often some promise breaks"
    drawn = (
        "Left: lower and upper bound of the least cost by Gamma; right: how often some promise breaks at each Gamma, "
        "measured and proven"
    )
    return Section(
        "robustness",
        "What robustness costs and buys",
        "",
        _sentences(found, curve),
        [Picture("curve", drawn, found.curve, _figure(curve))],
        [
            PageTable(
                "curve", scope, [*names, "symmetric", "Bertsimas-Sim"], rows, tuple(range(1, 10)), found.curve
            ),
            PageTable(
                "value",
                "Plans made as if pairing did not matter, in the worst case where it does",
                ["Gamma", "cost", "more than the optimum", "feasible"],
                value,
                tuple(range(1, 4)),
                found.value,
            ),
        ],
    )


def _figure(curve: list[dict[str, Any]]) -> Figure:
    """Cost and broken promises over Gamma, whose values stand at equal distances."""
    from rodiu_jax.report.figures import style

    figure, (cost, breaks) = style.panels(2, high=3.4)
    at = np.arange(len(curve))

    def column(name: str) -> np.ndarray:
        return np.array([r[name] for r in curve], np.float64)

    lower, upper = column("lower_bound"), column("upper_bound")
    cost.fill_between(at, lower, upper, **style.BAND)
    cost.plot(at, upper, "o-", color=style.BLUE, markersize=4)
    style.heading(cost, "Least cost, $ per period", "the band is what the brackets leave")
    cost.ticklabel_format(axis="y", useOffset=False)
    for name, label, line in (
        ("uniform", "measured, uniform", "o-"),
        ("beta", "measured, beta", "s-"),
        ("bound", "proven", "^--"),
    ):
        breaks.plot(
            at, 100 * column(name), line, color=style.COLOURS[len(breaks.lines)], label=label, markersize=4
        )
    breaks.fill_between(at, 100 * column("uniform_lower"), 100 * column("uniform_upper"), **style.BAND)
    breaks.legend(frameon=False, fontsize=8)
    style.heading(breaks, "Periods in which some promise breaks, %")
    for axes in (cost, breaks):
        axes.set_xticks(at, [f"{r['gamma']:g}" for r in curve])
        axes.set_xlabel("Gamma")
    return figure


def _sentences(found: Robustness, curve: list[dict[str, Any]]) -> list[str]:
    first, last = curve[0], curve[-1]
    settings = found.settings
    price, share = (
        interval(last["price_lower"], last["price_upper"]),
        last["price_upper"] / abs(first["upper_bound"] or 1),
    )
    ends = f"Gamma = {first['gamma']:g}", f"Gamma = {last['gamma']:g}"
    said = [
        f"{ends[1]} costs ${price} per period more than {ends[0]} ({100 * share:.2g} %). With uniform deviations some "
        f"promise breaks in {percent(first['uniform'])} of the periods at {ends[0]}, in {percent(last['uniform'])} at "
        f"{ends[1]}, and the mean cost is ${number(first['realised_cost'])} and ${number(last['realised_cost'])}."
    ]
    promised = percent(settings["probability"])
    if found.recommended is None:
        said.append(f"No Gamma tried keeps all promises but in {promised} of the periods.")
    else:
        at = next(r for r in curve if r["gamma"] == found.recommended)
        said.append(
            f"Recommended for at most {promised}: Gamma = {found.recommended:g}, measured {percent(at['uniform'])} "
            f"(at most {percent(at['uniform_upper'])}), for ${interval(at['price_lower'], at['price_upper'])} more."
        )
    if found.guaranteed is not None:
        said.append(f"Proven without any draw from Gamma = {found.guaranteed:g} on.")
    best = max(records(found.value), key=lambda r: r["gamma"])
    saved = interval(best["value_lower"], best["value_upper"])
    said.append(
        f"Modelling that good pairings deviate less saves ${saved} per period at Gamma = {best['gamma']:g}."
    )
    if settings["left_out"]:
        said.append(f"{settings['left_out']} scenario(s) have no plan at some Gamma and are left out.")
    return said
