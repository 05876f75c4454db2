"""Commands about catalogues and what is drawn from them: describe, validate, calibrate, sample."""

from __future__ import annotations

from pathlib import Path

import click

from rodiu_jax.cli.options import COUNT, PATH, WithFields, catalog_options
from rodiu_jax.errors import WorkFailed


@click.command()
@click.option("--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to print.")
def describe(catalog: str) -> None:
    """Print a catalogue as tables: values or distributions, units, sources, reliability."""
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.report.parts.terminal import show
    from rodiu_jax.report.text.catalog_tables import describe_catalog

    show(describe_catalog(load_catalog(catalog)))


@click.command()
@click.option("--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to check.")
@click.option("--n", type=COUNT, default=2000, show_default=True, help="Scenarios drawn for the check.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--all", "everything", is_flag=True, help="Every (model, GPU, degree), not only the smallest that fits."
)
def validate(catalog: str, n: int, seed: int, everything: bool) -> None:
    """Check a catalogue: observed ranges, memory, compute, worked examples, known contradictions.

    Exit status 1 when a worked example does not come out or a draw leaves its declared range.
    """
    from rodiu_jax.catalog.audit import validate as check
    from rodiu_jax.report.parts.terminal import show
    from rodiu_jax.report.text.audit_tables import describe_audit

    report = check(catalog, n=n, seed=seed)
    show(describe_audit(report, everything=everything))
    if not report.ok:
        raise WorkFailed("; ".join(report.failures))


@click.command()
@click.argument("trace", type=PATH, metavar="TRACE.csv")
@click.option(
    "--query", required=True, metavar="NAME", help="Query type of the catalogue that the trace is of."
)
@click.option(
    "--window", type=float, default=0.1, show_default=True, metavar="H", help="Hours per window of arrivals."
)
@click.option(
    "--windows", type=COUNT, help="Use the first so many windows (default: all that the trace holds)."
)
@click.option(
    "--tokens",
    type=click.Choice(["request", "mean"]),
    default="request",
    show_default=True,
    help="Lengths drawn: quantiles of the requests (shows long ones), or means of the windows (right for costs).",
)
@click.option(
    "--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to extend."
)
@click.option("-o", "--output", type=PATH, required=True, metavar="CATALOG.toml", help="File to write.")
def calibrate(
    trace: Path, query: str, window: float, windows: int | None, tokens: str, catalog: str, output: Path
) -> None:
    """Read arrival rates and token lengths from a trace: the former name of `import trace`, for one release.

    \b
    The same as rodiu import trace TRACE.csv --window 0.1 --tokens request, which draws rate and lengths on their own.
    Example: rodiu calibrate trace.csv --query Code_Gen --catalog corrected -o mine.toml
             rodiu sample --catalog mine.toml --n 100 -o mine.npz
    """
    from typing import Literal, cast

    from rodiu_jax.catalog.calibration import calibrate as read

    kind = cast(Literal["request", "mean"], tokens)
    found = read(trace, query=query, window=window, windows=windows, base=catalog, tokens=kind)
    found.save(output)
    click.echo(f"{found.summary}\nWritten to {output}, which extends {catalog}.")


@click.command(cls=WithFields)
@click.option("--n", type=COUNT, required=True, help="Scenarios to draw.")
@catalog_options
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE.npz", help="File to write.")
def sample(
    n: int,
    seed: int | None,
    catalog: str | None,
    uncertainty: str | None,
    changes: tuple[str, ...],
    output: Path,
) -> None:
    """Draw scenarios from a catalogue.

    Scenario b depends on the seed and b alone: the first scenarios of a longer run are the same.

    FILE.npz holds one array per field listed below, with a leading axis of scenarios where the field varies, and
    query_names, model_names, gpu_names (texts) and uncertainty (none, diu or ddu).
    """
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.catalog.promise_changes import apply_promise_changes, split_changes
    from rodiu_jax.catalog.sampling import sample as draw
    from rodiu_jax.model.changes import apply_changes

    promised, parsed = split_changes(changes)
    loaded = apply_promise_changes(load_catalog(catalog or "seed"), promised)
    instances = draw(loaded, n=n, seed=seed or 0, uncertainty=uncertainty or "ddu")
    apply_changes(instances, parsed).save(output)
