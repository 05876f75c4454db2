"""What every study's command shares: the option for its results' file, and how it ends."""

from __future__ import annotations

from pathlib import Path

import click

from bench.records import Machine, Record, Study, write_record
from bench.render import render_machine, render_study
from rodiu_jax.errors import InputError

out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.json", help="Write the results to a file too."
)


def read_words(doc: str | None) -> str:
    """Return what a module's docstring says after its first line, as one paragraph."""
    return " ".join((doc or "").split("\n\n", 1)[1].split())


def show_study(study: Study, machine: Machine, out: Path | None, *, right: bool = True) -> None:
    """Print a study as Markdown and write it as JSON where ``out`` says so; end with status 1 where it is not right."""
    click.echo(f"{render_machine(machine)}\n\n{render_study(study)}")
    save_study(study, machine, out)
    if not right:
        raise SystemExit(1)


def save_study(study: Study, machine: Machine, out: Path | None) -> None:
    """Write a study as JSON where ``out`` says so."""
    if out is not None:
        try:
            write_record(Record(version=1, machine=machine, studies=[study]), out)
        except InputError as error:
            raise click.UsageError(str(error)) from None
