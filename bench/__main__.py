"""``python -m bench``: run registered benchmarks and write their tables as Markdown."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from rodiu_jax.errors import InputError

NAMES = (
    "sampling",
    "evaluation",
    "exact",
    "bound",
    "plans",
    "starts",
    "cascade",
    "gap",
    "recourse",
    "stress",
    "sweep",
    "growth",
    "start",
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME ...]")
@click.option("--smoke", is_flag=True, help="The smallest size of each, once and cold: is it right?")
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="Sizes in place of a benchmark's own; peers that solve one by one do some hundreds of them.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables to a file too."
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="OLD",
    help="A table of an earlier run: which ratios to peers have fallen or risen beyond the spread of both runs.",
)
def main(
    names: tuple[str, ...], smoke: bool, sizes: tuple[int, ...], out: Path | None, compare: Path | None
) -> None:
    """Time our code beside its peers: sampling, evaluation, exact, bound and so on (all by default).

    Exit status 1 where a result is wrong; a ratio below what is wanted changes no status, as times depend on
    the machine.
    """
    # Imported here: the processes that the peers spawn import this module, and need none of it.
    from bench.measure import load, machine, run_spec, section
    from bench.specs import SPECS
    from bench.tables import compared, read
    from rodiu_jax.io.files import write_text
    from rodiu_jax.runtime.devices import by_device

    parts = [
        "# Benchmarks" + (" (smoke run: first calls are timed, compilation included)" if smoke else ""),
        machine(),
    ]
    click.echo("\n\n".join(parts))
    wrong = []
    for name in names or NAMES:
        own = SPECS[name].sizes + by_device(cpu=(), accelerator=SPECS[name].large)
        spec = replace(SPECS[name], sizes=sizes or own)
        rows = run_spec(spec, smoke=smoke)
        parts.append(section(SPECS[name], rows))
        click.echo("\n" + parts[-1])
        wrong += [f"{name}, {row.case.size}: {row.quality}" for row in rows if not row.ok]
    if compare is not None:
        try:
            old = read(compare.read_text(encoding="utf-8"))
        except ValueError as error:
            raise click.UsageError(f"{compare} is no table of benchmarks: {error}") from None
        moved = compared(old, read("\n".join(parts)))
        parts.append("\n".join([f"## Beside {compare.name}", "", *(f"- {line}" for line in moved)]))
        click.echo("\n" + parts[-1])
        if not moved:
            click.echo("nothing in common", err=True)
    parts.append(f"Load average at the end, our own work included: {load()}")
    if out is not None:
        try:
            write_text(out, "\n\n".join(parts) + "\n")
        except InputError as error:
            raise click.UsageError(str(error)) from None
    if wrong:
        click.echo(f"wrong: {wrong[0]}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
