"""Kinds of values that several commands take, and the options about what scenarios are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import click


class FloatRange(click.FloatRange):
    """A number in a range; click lets NaN into every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Numbers(click.ParamType):
    """Numbers with commas between, such as ``0.5,1,1.5``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas.", param, ctx)


GAP = FloatRange(min=0, max=1)
SECONDS = FloatRange(min=0, min_open=True)
COUNT = click.IntRange(min=1, max=10**9)
PATH = click.Path(path_type=Path)


class Named(Protocol):
    """An entry of a table of methods, engines or criteria."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...


def summaries(table: Mapping[str, Named]) -> str:
    """Write the help of an option that takes a name of ``table``: ``local: this machine; ray: ...``."""
    return "; ".join(f"{entry.name}: {entry.summary}" for entry in table.values()) + "."


def workers_option(what: str = "scenarios", default: str = "one for each core", note: str = "") -> Any:
    """How many processes answer side by side: the same words in every command.

    Args:
      what: they answer.
      default: how many there are.
      note: a sentence more.
    """
    told = f"Processes that answer {what} side by side and share the cores (default: {default})."
    return click.option("--workers", type=COUNT, help=f"{told} {note}".strip())


def catalog_options(command: Any) -> Any:
    """Where scenarios are drawn from, and how they are changed."""
    for option in (
        click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Change a field of every scenario after it is drawn: budget=3000, gpu_price*=0.5 or "
            "'gpu_price[H100_*]*=0.5'. The pattern in brackets chooses names along the field's last axis (for "
            "delay_nominal the GPUs). promise[Chat]=ttft_p99<=500ms, promise[Chat].ttft_p99=400ms or promise*=0.5 "
            "reads the measured curves anew. "
            "May be repeated; applied in order.",
        ),
        click.option(
            "--uncertainty",
            type=click.Choice(["none", "diu", "ddu"]),
            help="none: as measured; diu: deviations as drawn; ddu: pairing shrinks them.",
        ),
        click.option("--catalog", metavar="NAME|FILE", help="seed, corrected, or a TOML file."),
        click.option("--seed", type=click.IntRange(min=0), help="Seed of the draws."),
    ):
        command = option(command)
    return command


def _field_help() -> str:
    from rodiu_jax.model.fields import AXES, FIELD_SPECS, FILE_FIELDS

    lines = [
        f"  {name:<20} {spec.unit:<13} {'per ' + ', '.join(AXES[a] for a in spec.axes) if spec.axes else 'one number'}"
        for name, spec in ((name, FIELD_SPECS[name]) for name in FILE_FIELDS)
    ]
    return "\b\nFields that --set knows, with unit:\n" + "\n".join(lines)


class WithFields(click.Command):
    """A command whose help ends with the fields that ``--set`` knows."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = _field_help()
        super().format_epilog(ctx, formatter)
