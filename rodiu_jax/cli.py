"""The command ``rodiu``: arguments in, calls, exit codes out. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rodiu_jax.errors import InputError, WorkFailed

if TYPE_CHECKING:
    from rodiu_jax.instance import Instances

_GAP = click.FloatRange(min=0, max=1)
_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)


def main() -> None:
    """Entry point: exit 0 done, 1 the work failed, 2 bad usage or bad input (one line, no traceback)."""
    try:
        cli.main(standalone_mode=False)
    except InputError as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where is not None else ""
        _stop(" ".join(error.format_message().split()) + hint, 2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _stop("interrupted", 1)
    except WorkFailed as error:
        _stop(str(error), 1)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _stop(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except MemoryError:
        _stop("out of memory: use fewer scenarios at a time", 1)


def _stop(message: str, status: int) -> None:
    click.echo(f"rodiu: {message}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="rodiu-jax")
def cli() -> None:
    """Which LLMs to deploy on which rented GPUs, and how the answer moves.

    \b
    A first walk:
      rodiu describe                               the default catalogue: values, units, sources
      rodiu sample --n 4 --seed 1 -o four.npz      draw four scenarios
      rodiu solve four.npz                         their cheapest robust plans, proven
      rodiu sweep cost-budget --samples 4 -o out   how the optimum moves with prices and budget

    Money is in $ per rental period, delays in ms, memory in GB. Exit status: 0 done, 1 the work failed,
    2 bad usage or bad input.
    """


def _field_help() -> str:
    from rodiu_jax.instance import AXES, FIELD_SPECS

    lines = [
        f"  {name:<18} {spec.unit:<13} {'per ' + ', '.join(AXES[a] for a in spec.axes) if spec.axes else 'one number'}"
        for name, spec in FIELD_SPECS.items()
    ]
    return "\b\nFields that --set knows, with unit:\n" + "\n".join(lines)


def _catalog_options(command: Any) -> Any:
    for option in (
        click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Change a field of every scenario after it is drawn: budget=3000, gpu_price*=0.5 or "
            "'gpu_price[H100_*]*=0.5' (names by pattern). May be repeated; applied in order.",
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


@cli.command()
@click.option("--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to print.")
def describe(catalog: str) -> None:
    """Print a catalogue as tables: values or distributions, units, sources, reliability."""
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.report.tables import describe_catalog, show

    show(describe_catalog(load_catalog(catalog)))


class _WithFields(click.Command):
    """A command whose help ends with the fields that ``--set`` knows."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = _field_help()
        super().format_epilog(ctx, formatter)


@cli.command(cls=_WithFields)
@click.option("--n", type=_COUNT, required=True, help="Scenarios to draw.")
@_catalog_options
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE.npz", help="File to write.")
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
    """
    from rodiu_jax.changes import apply_changes, parse_change
    from rodiu_jax.sampling import sample as draw

    parsed = [parse_change(text) for text in changes]
    instances = draw(catalog or "seed", n=n, seed=seed or 0, uncertainty=uncertainty or "ddu")
    apply_changes(instances, parsed).save(output)


@cli.command()
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.argument("plans", type=_PATH, metavar="PLANS.json")
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE.parquet", help="Table to write.")
def evaluate(instances: Path, plans: Path, output: Path) -> None:
    """Cost and feasibility of plans: each on its instance, or on all where its instance is null.

    \b
    Columns: plan, instance, feasible, total_cost, rental_cost, storage_cost, delay_cost, unmet_cost ($ per
    period), margin_<constraint> (the family's smallest (limit - value) / limit, negative when broken; inf where
    the plan meets no such constraint) and binding (the tightest constraint).
    """
    from rodiu_jax.evaluate import evaluate as score
    from rodiu_jax.files import write_whole
    from rodiu_jax.instance import load_instances
    from rodiu_jax.plan import load_plans

    batch = load_instances(instances)
    table = score(load_plans(plans, batch), batch)
    with write_whole(output) as temporary:
        table.to_parquet(temporary, index=False)
    kept = int(table["feasible"].sum())
    click.echo(f"{len(table)} rows in {output}: {kept} feasible, {len(table) - kept} not")


class _ManyIndices(click.Command):
    """Lets ``--index`` take several numbers: ``--index 0 3 5`` as well as ``--index 0 --index 3``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        inside = False
        for argument in args:
            if inside and argument.isdigit() and spread[-1] != "--index":
                spread.append("--index")
            inside = argument == "--index" or (inside and argument.isdigit())
            spread.append(argument)
        return super().parse_args(ctx, spread)


@cli.command(cls=_ManyIndices)
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.option(
    "--index", "indices", type=click.IntRange(min=0), multiple=True, metavar="B ...", help="Scenarios; all by default."
)
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), help="Seconds per scenario.")
@click.option("--gap", type=_GAP, help="Relative gap to stop at (default 1e-6, which counts as optimal).")
@click.option("--workers", type=_COUNT, help="Processes (default: the cores of this machine).")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, plans included.")
def solve(
    instances: Path,
    indices: tuple[int, ...],
    time_limit: float | None,
    gap: float | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Solve scenarios exactly: cheapest robust plan, its checked cost and a proven lower bound.

    \b
    Status: optimal (gap <= 1e-6), gap_limit (stopped at --gap), time_limit (best plan so far), infeasible
    (proven), error (with a message; exit status 1).
    """
    import json
    import math

    from rodiu_jax.instance import load_instances
    from rodiu_jax.report.progress import progress
    from rodiu_jax.report.tables import results_table, show
    from solvers.pool import solve_iter
    from solvers.result import OPTIMAL_GAP

    batch = load_instances(instances)
    for b in indices:
        batch.check_index(b, "--index")
    todo = list(indices) or list(range(batch.size))
    found = []
    with progress("solve", len(todo)) as bar:
        for result in solve_iter(
            batch, todo, gap=OPTIMAL_GAP if gap is None else gap, time_limit=time_limit or math.inf, workers=workers
        ):
            found.append(result)
            bar.advance()
    if as_json:
        click.echo(json.dumps([r.to_json() for r in found], indent=1, allow_nan=False))
    else:
        show([results_table(found)])
    failed = [r for r in found if r.status == "error"]
    if failed:
        raise WorkFailed(f"{len(failed)} of {len(found)} scenarios: first, {failed[0].instance}: {failed[0].message}")
