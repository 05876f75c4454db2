"""The command that replays requests on a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rodiu_jax.cli.options import PATH, SECONDS
from rodiu_jax.errors import InputError


class _Scale(click.ParamType):
    """A factor, or the word plan."""

    name = "scale"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "plan" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor plan.", param, ctx)


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.argument("trace", type=PATH, metavar="[TRACE]", required=False)
@click.option("--query", metavar="NAME", help="Query type that all requests are of.")
@click.option("--query-column", metavar="COLUMN", help="Column whose values are query types.")
@click.option("--map", "names", metavar="VALUE=NAME,..", help="What values of that column are called.")
@click.option(
    "--columns", metavar="time=..,input=..,output=..", help="Columns of a format that is not known."
)
@click.option("--unit", type=click.Choice(["s", "ms"]), help="Unit of a clock that counts.")
@click.option(
    "--rate-scale",
    type=_Scale(),
    default=1.0,
    metavar="X|plan",
    help="Factor on how often requests come; plan: each query type as often as the scenario has it (default: 1).",
)
@click.option(
    "--hours",
    type=SECONDS,
    metavar="H",
    help="Length; a shorter trace begins anew, a longer one is cut (default: the trace's, or 1).",
)
@click.option(
    "--others", is_flag=True, help="Draw query types that the trace lacks at random, at the scenario's rates."
)
@click.option(
    "--against",
    multiple=True,
    metavar="NAME",
    help="Alternative of DIR to compare with, or all (default: nominal and headroom 1.2). May be repeated.",
)
@click.option(
    "--shortfall",
    "shortfalls",
    multiple=True,
    metavar="S|NAME=S",
    help="Rates are this share lower than on the curves: 0.22 all of them, Chat=0.22 those of a query type, "
    "MODEL@GPU=0.22 of a pair, Chat:MODEL@GPU=0.22 of one type there. May be repeated.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of what is drawn."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress on standard error.")
def replay(
    folder: Path,
    trace: Path | None,
    against: tuple[str, ...],
    shortfalls: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Replay requests on a plan, one by one: who waits, whose promise is kept, beside the alternatives.

    DIR is what `rodiu plan` wrote. TRACE is any file that `rodiu import trace` reads; without one, requests are drawn
    at random at the scenario's rates. Each request is routed by the plan's shares to the replica with the fewest
    requests, waits until batch and KV memory have room, and is served at the speed of the catalogue's curves for so
    many requests at once. All plans meet the same requests. The answer says what is not modelled.

    \b
    --json: plans, queries and pools, each a list of rows, and the settings.
    """
    import json

    from rodiu_jax.decisions.replay.replay import replay as run
    from rodiu_jax.report.parts.terminal import section_parts, show
    from rodiu_jax.report.text.replay_section import describe_replay, replay_to_json

    def tell(plan: str) -> None:
        if not quiet and sys.stderr.isatty():
            click.echo(f"replayed: {plan}", err=True)

    try:
        options |= {"against": against or None, "shortfall": _read_shortfalls(shortfalls)}
        found = run(folder, trace, tell=tell, **options)
    except InputError as error:
        if error.source in ("query", "map", "columns", "shortfall", "against"):
            raise error.move_to(f"--{error.source}", error.field) from None
        raise
    if as_json:
        click.echo(json.dumps(replay_to_json(found), indent=1, allow_nan=False))
    else:
        show(section_parts(describe_replay(found)))


def _read_shortfalls(texts: tuple[str, ...]) -> dict[str, float]:
    """Read ``0.22`` and ``NAME=0.22``; a name may hold ``=`` itself."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            raise InputError("--shortfall", "", "a share such as 0.22, or NAME=0.22", text) from None
        if (name or "*") in found:
            raise InputError("--shortfall", "", "each name once", text)
        found[name or "*"] = share
    return found
