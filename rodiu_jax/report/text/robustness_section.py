"""The price of robustness as a section (sentences, a picture, tables) and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.decisions.rate_robustness import FACTORS
from rodiu_jax.io.number_text import interval, number, percent
from rodiu_jax.report.data.json_rows import json_rows
from rodiu_jax.report.parts.section import PageTable, Picture, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rodiu_jax.decisions.rate_robustness import RateRobustness
    from rodiu_jax.decisions.robustness import Robustness


def robustness_to_json(result: Robustness) -> dict[str, Any]:
    """Return the settings, the recommendations, and the rows of the three tables."""
    return result.settings | {
        "recommended": result.recommended,
        "guaranteed": result.guaranteed,
        "curve": json_rows(result.curve),
        "value": json_rows(result.value),
        "scenarios_by_gamma": json_rows(result.scenarios),
        **(
            {}
            if result.rates is None
            else {"rates": json_rows(result.rates.curve), "headroom": json_rows(result.rates.headroom)}
        ),
    }


def describe_robustness(result: Robustness) -> Section:
    """Make a section: sentences, then the curve and the value of modelling decision dependence."""
    mode = result.settings["mode"]
    curve = [r for r in json_rows(result.curve) if r["mode"] == mode]
    rows = [
        [
            f"{r['gamma']:g}",
            number(r["lower_bound"]),
            number(r["upper_bound"]),
            interval(r["price_lower"], r["price_upper"]),
            number(r["realised_cost"]),
            f"{percent(r['uniform'])} ({interval(r['uniform_lower'], r['uniform_upper'], percent)})",
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
        for r in json_rows(result.value)
    ]
    scope = f"Mean over {result.settings['scenarios']} scenario(s), {mode}, $ per period; how often some promise breaks"
    description = (
        "Left: lower and upper bound of the least cost by Gamma; right: how often some promise breaks at each Gamma, "
        "measured and proven"
    )
    return Section(
        "robustness",
        "What robustness costs and buys",
        "",
        _write_sentences(result, curve),
        [Picture("curve", description, result.curve, _draw_curve(curve))],
        [
            PageTable(
                "curve",
                scope,
                [*names, "symmetric", "Bertsimas-Sim"],
                rows,
                tuple(range(1, 10)),
                result.curve,
            ),
            PageTable(
                "value",
                "Plans made as if pairing did not matter, in the worst case where it does",
                ["Gamma", "cost", "more than the optimum", "feasible"],
                value,
                tuple(range(1, 4)),
                result.value,
            ),
            *([] if result.rates is None else _tabulate_rates(result.rates)),
        ],
    )


def _tabulate_rates(rates: RateRobustness) -> list[PageTable]:
    """Make a table of robust rates over Gamma_q, and one of plain headroom."""
    curve = [
        [
            f"{r['gamma']:g}",
            number(r["cost"]),
            f"{percent(r['uniform'])} ({interval(r['uniform_lower'], r['uniform_upper'], percent)})",
            percent(r["beta"]),
            percent(r["bound"]),
            f"x {number(r['factor'])}" if r["factor"] is not None else f"over x {FACTORS[-1]:g}",
            percent(r["factor_uniform"]),
        ]
        for r in json_rows(rates.curve)
    ]
    plain = [
        [
            f"x {r['factor']:g}",
            number(r["cost"]),
            f"{percent(r['uniform'])} ({interval(r['uniform_lower'], r['uniform_upper'], percent)})",
            percent(r["beta"]),
        ]
        for r in json_rows(rates.headroom)
    ]
    overloaded = "some pair has more load than it may"
    scope = f"mean over {rates.scenarios} scenario(s), $ per period; how often {overloaded}"
    heads = [
        "Gamma_q",
        "cost",
        "overloaded, uniform",
        "beta",
        "proven",
        "headroom of this cost",
        "overloaded then",
    ]
    return [
        PageTable("rates", f"Robust rates: {scope}", heads, curve, tuple(range(1, 7)), rates.curve),
        PageTable(
            "headroom",
            "Traffic that is bought for, with every rate trusted",
            ["traffic", "cost", "overloaded, uniform", "beta"],
            plain,
            tuple(range(1, 4)),
            rates.headroom,
        ),
    ]


def _draw_curve(curve: list[dict[str, Any]]) -> Figure:
    """Draw cost and broken promises over Gamma, whose values stand at equal distances."""
    from rodiu_jax.report.figures import style

    figure, (cost, breaks) = style.make_panels(2, high=3.4)
    at = np.arange(len(curve))

    def column(name: str) -> np.ndarray:
        return np.array([r[name] for r in curve], np.float64)

    lower, upper = column("lower_bound"), column("upper_bound")
    cost.fill_between(at, lower, upper, **style.BAND)
    cost.plot(at, upper, "o-", color=style.BLUE, markersize=4)
    style.set_heading(cost, "Least cost, $ per period", "the band is what the brackets leave")
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
    style.set_heading(breaks, "Periods in which some promise breaks, %")
    for axes in (cost, breaks):
        axes.set_xticks(at, [f"{r['gamma']:g}" for r in curve])
        axes.set_xlabel("Gamma")
    return figure


def _describe_rates(rates: RateRobustness, probability: float) -> str:
    """Say which Gamma_q keeps pairs from being overloaded, and what headroom of the same cost does."""
    curve = json_rows(rates.curve)
    enough = [r for r in curve if max(r["uniform_upper"], r["beta_upper"]) <= probability]
    if not enough:
        return f"No Gamma_q tried keeps every pair within its load in all but {percent(probability)} of the periods."
    best = enough[0]
    cheaper = (
        f"plain headroom of x {number(best['factor'])} costs the same, and overloads one in "
        f"{percent(best['factor_uniform'])}"
        if best["factor"] is not None
        else f"plain headroom of x {FACTORS[-1]:g} costs less"
    )
    return (
        f"Rates: Gamma_q = {best['gamma']:g} costs ${number(best['cost'] - curve[0]['cost'])} more than trusting every "
        f"rate, and overloads some pair in {percent(best['uniform'])} of the periods instead of "
        f"{percent(curve[0]['uniform'])}; {cheaper}."
    )


def _write_sentences(result: Robustness, curve: list[dict[str, Any]]) -> list[str]:
    first, last = curve[0], curve[-1]
    settings = result.settings
    price, share = (
        interval(last["price_lower"], last["price_upper"]),
        last["price_upper"] / abs(first["upper_bound"] or 1),
    )
    ends = f"Gamma = {first['gamma']:g}", f"Gamma = {last['gamma']:g}"
    lines = [
        f"{ends[1]} costs ${price} per period more than {ends[0]} ({percent(share, 2)}). With uniform deviations some "
        f"promise breaks in {percent(first['uniform'])} of the periods at {ends[0]}, in {percent(last['uniform'])} at "
        f"{ends[1]}, and the mean cost is ${number(first['realised_cost'])} and ${number(last['realised_cost'])}."
    ]
    promised = percent(settings["probability"])
    if result.recommended is None:
        lines.append(f"No Gamma tried keeps all promises in all but {promised} of the periods.")
    else:
        at = next(r for r in curve if r["gamma"] == result.recommended)
        lines.append(
            f"Recommended for at most {promised}: Gamma = {result.recommended:g}, measured {percent(at['uniform'])} "
            f"(at most {percent(at['uniform_upper'])}), for ${interval(at['price_lower'], at['price_upper'])} more."
        )
    if result.guaranteed is not None:
        lines.append(f"From Gamma = {result.guaranteed:g} on this is proven, without any draw.")
    best = max(json_rows(result.value), key=lambda r: r["gamma"])
    saved = interval(best["value_lower"], best["value_upper"])
    lines.append(
        f"Taking into account that good pairings deviate less saves ${saved} per period at Gamma = {best['gamma']:g}."
    )
    if result.rates is not None:
        lines.append(_describe_rates(result.rates, settings["probability"]))
    if settings["left_out"]:
        lines.append(f"Left out, as they have no plan at some Gamma: {settings['left_out']} scenario(s).")
    return lines
