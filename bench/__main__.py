"""``python -m bench``: run registered benchmarks, print their tables and keep their results as JSON."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from bench.specs import NAMES, load_benchmark


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
    "--out", type=click.Path(path_type=Path), metavar="FILE.json", help="Write the results to a file too."
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="OLD.json",
    help="Results of an earlier run: which ratios to peers, and on the same kind of machine which rates of ours, have"
    " fallen or risen beyond the spread of both runs.",
)
def main(
    names: tuple[str, ...], smoke: bool, sizes: tuple[int, ...], out: Path | None, compare: Path | None
) -> None:
    """Time our code beside its peers: sampling, evaluation, exact, bound and so on (all by default).

    Exit status 1 where a result is wrong; a ratio below what is wanted changes no status, as times depend on
    the machine.
    """
    # Imported here: the processes that the peers spawn import this module, and need none of it.
    from bench.measure import describe_this_machine, read_load, run_spec
    from bench.records import Record, compare_records, read_record, write_record
    from bench.render import render_benchmark, render_machine
    from rodiu_jax.errors import InputError
    from rodiu_jax.runtime.devices import by_device

    try:
        old = None if compare is None else read_record(compare)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    record = Record(version=1, machine=describe_this_machine())
    if smoke:
        record.note = "Smoke run: first calls are timed, compilation included."
    click.echo("\n\n".join(["# Benchmarks", render_machine(record.machine), *filter(None, [record.note])]))
    for name in names or NAMES:
        spec = load_benchmark(name)
        own = spec.sizes + by_device(cpu=(), accelerator=spec.large)
        record.benchmarks.append(run_spec(replace(spec, sizes=sizes or own), smoke=smoke))
        click.echo("\n" + render_benchmark(record.benchmarks[-1]))
    record.machine.load_at_end = read_load()
    if old is not None and compare is not None:
        moved = [f"- {line}" for line in compare_records(old, record)] or ["nothing in common"]
        click.echo("\n".join(["", f"## Beside {compare.name}", "", *moved]))
    if out is not None:
        try:
            write_record(record, out)
        except InputError as error:
            raise click.UsageError(str(error)) from None
    wrong = [(b.name, case) for b in record.benchmarks for case in b.cases if not case.right]
    if wrong:
        name, case = wrong[0]
        click.echo(f"wrong: {name}, {case.name}: {case.quality}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
