"""The command that plans a fleet from traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rodiu_jax.cli.options import GAP, PATH, SECONDS, FloatRange, workers_option
from rodiu_jax.errors import InputError


class _Named(click.ParamType):
    """``NAME=VALUE``, as a pair of texts; without a name where ``bare`` values stand for all names."""

    name = "NAME=VALUE"

    def __init__(self, what: str, *, bare: bool = False) -> None:
        self.what, self.bare = what, bare

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the first ``=``; limits hold others."""
        if isinstance(value, tuple):
            return value
        left, sign, right = value.partition("=")
        if not sign and self.bare:
            return "", value.strip()
        if not sign or not left.strip() or not right.strip():
            self.fail(f"{value!r} is not {self.what}.", param, ctx)
        return left.strip(), right.strip()


def _pairs(option: str, given: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in given:
        if name in found:
            raise InputError(option, "", "each name once", name or value)
        found[name] = value
    return found


@click.command("plan")
@click.option(
    "--trace",
    "traces",
    type=_Named("NAME=FILE"),
    multiple=True,
    metavar="NAME=FILE",
    help="Requests of a query type: rate and token lengths, as `rodiu import trace` reads them.",
)
@click.option(
    "--rate",
    "rates",
    type=_Named("NAME=QPS"),
    multiple=True,
    metavar="NAME=QPS",
    help="Queries a second of a query type, or with a unit: 1200/min, 72000/h.",
)
@click.option(
    "--users",
    type=_Named("NAME=N"),
    multiple=True,
    metavar="NAME=N",
    help="Concurrent users: they ask at most N / --think queries a second (Little's law).",
)
@click.option(
    "--think",
    "think_seconds",
    type=SECONDS,
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds between an answer and a user's next query.",
)
@click.option(
    "--traffic-at",
    type=click.Choice(["mean", "p50", "p90", "p95", "p99", "peak"]),
    default="p95",
    show_default=True,
    help="Level of a trace's windows of 0.1 h that is planned for.",
)
@click.option(
    "--timezone", default="UTC", show_default=True, metavar="ZONE", help="Zone of the hours of a day."
)
@click.option(
    "--columns", metavar="time=..,input=..,output=..", help="Columns of traces whose format is not known."
)
@click.option("--unit", type=click.Choice(["s", "ms"]), help="Unit of a clock that counts, in such traces.")
@click.option(
    "--catalog",
    default="serving",
    show_default=True,
    metavar="NAME|FILE",
    help="Models, GPUs, rates, promises, prices and quotas: a catalogue with rates.",
)
@click.option("--prices", type=PATH, metavar="FILE", help="Price list, as `rodiu import prices` reads it.")
@click.option("--price-map", metavar="PATTERN=NAME,..", help="GPUs of that list: 'H100*=H100'.")
@click.option(
    "--quota",
    "quotas",
    type=_Named("GPU=N"),
    multiple=True,
    metavar="GPU=N",
    help="Most GPUs of a kind.",
)
@click.option(
    "--promise",
    "promises",
    type=_Named("NAME=LIMITS"),
    multiple=True,
    metavar="NAME=LIMITS",
    help="Such as 'Chat=ttft_mean<=500ms,tpot_mean<=30ms', about latencies that the catalogue's curves have; one "
    "on e2e_mean replaces the catalogue's end-to-end limit.",
)
@click.option(
    "--api-price",
    "api_prices",
    type=_Named("[NAME=]PRICE", bare=True),
    multiple=True,
    metavar="[NAME=]PRICE",
    help="What answers cost elsewhere, such as '$3/Mtok' (default: the catalogue's). What is cheaper there is bought.",
)
@click.option(
    "--headroom",
    type=FloatRange(min=1),
    metavar="F",
    help="Trust every rate, and buy for F times the traffic.",
)
@click.option(
    "--shortfall",
    type=FloatRange(min=0, max=0.99),
    metavar="S",
    help="Largest missing part of every rate (default: the catalogue's).",
)
@click.option(
    "--gamma",
    type=FloatRange(min=0),
    metavar="G",
    help="How many types' rates fall short at once, per deployed pair (default: the catalogue's).",
)
@click.option(
    "--by",
    type=click.Choice(["hour"]),
    help="Plan the day too: a fixed fleet, the cheapest of each hour, and what changing is worth (from --trace).",
)
@click.option(
    "--start-minutes",
    type=FloatRange(min=0, max=60),
    default=5.0,
    show_default=True,
    metavar="M",
    help="From when a replica is rented until it serves.",
)
@click.option("--gap", type=GAP, help="Relative gap to prove every answer to (default 0.001).")
@click.option("--time-limit", type=SECONDS, help="Seconds for each question (default 60).")
@workers_option("questions")
@click.option("--json", "as_json", is_flag=True, help="Print everything said, as JSON.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to write.")
def plan(
    traces: tuple[tuple[str, str], ...],
    rates: tuple[tuple[str, str], ...],
    users: tuple[tuple[str, str], ...],
    quotas: tuple[tuple[str, str], ...],
    promises: tuple[tuple[str, str], ...],
    api_prices: tuple[tuple[str, str], ...],
    by: str | None,
    gap: float | None,
    time_limit: float | None,
    as_json: bool,
    output: Path,
    **options: Any,
) -> None:
    """Plan a fleet from traffic: what to run, what it costs, how sure that is, and what would change it.

    \b
    rodiu plan --rate Chat=40 --rate Document_QA=5 -o fleet
    rodiu plan --trace Chat=requests.csv --prices list.csv --quota H100=16 --api-price '$3/Mtok' -o fleet

    The types named by --trace, --rate or --users carry traffic and no others; without any of them all do, as the
    catalogue states. What the catalogue states as a range is planned at its mean. Every answer is a bracket: a checked
    plan, and a proven bound below which no plan costs.

    \b
    DIR holds report.html (a page), plan.json, scenario.npz and catalog.toml (for evaluate, solve, diagnose, ...),
    alternatives.json (other plans: what, plan), answer.json (as --json), the tables as CSV and, with --by hour,
    hours.npz with the plans of each hour.
    """
    import json

    from rodiu_jax.decisions.planning.plan import GAP as USUAL_GAP
    from rodiu_jax.decisions.planning.plan import TIME_LIMIT, plan_fleet
    from rodiu_jax.report.parts.terminal import show, spaced
    from rodiu_jax.report.plan_folder import check_folder, write_plan
    from rodiu_jax.report.text.plan_sentences import write_sentences
    from rodiu_jax.report.text.plan_tables import make_tables

    listed = [] if options["prices"] is None else [options["prices"]]
    check_folder(output, [options["catalog"], *_pairs("--trace", traces).values(), *listed])
    answer = plan_fleet(
        traces=_pairs("--trace", traces),
        rates=_pairs("--rate", rates),
        users=_pairs("--users", users),
        quotas=_pairs("--quota", quotas),
        promises=_pairs("--promise", promises),
        api_prices=_pairs("--api-price", api_prices),
        by_hour=by == "hour",
        gap=USUAL_GAP if gap is None else gap,
        time_limit=TIME_LIMIT if time_limit is None else time_limit,
        quiet=False,
        **options,
    )
    written = write_plan(answer, output)
    if as_json:
        click.echo(json.dumps(answer.to_json(), indent=1, allow_nan=False, ensure_ascii=False))
        return
    show([*spaced(write_sentences(answer)), "", *make_tables(answer)])
    click.echo(f"Page: {written[0]} ({len(written)} files).")
