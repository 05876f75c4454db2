"""The command ``rodiu``: arguments in, calls, exit codes out.

Heavy modules are imported by the command that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rodiu_jax.errors import InputError, WorkFailed, device_failure, one_line, shortened
from rodiu_jax.programs import forget_programs, keep_programs

if TYPE_CHECKING:
    from rodiu_jax.plan import Plan
    from rodiu_jax.report.digest import Digest
    from rodiu_jax.report.section import Section


class _FloatRange(click.FloatRange):
    """A number in a range; click lets NaN into every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_GAP = _FloatRange(min=0, max=1)
_SECONDS = _FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1, max=10**9)
_PATH = click.Path(path_type=Path)
_LONGEST = 1500  # signs of the line that says why a command stops


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
    except RuntimeError as error:
        if (said := device_failure(error)) is None:
            raise
        _stop(said, 1)


def _stop(message: str, status: int) -> None:
    click.echo(f"rodiu: {shortened(one_line(message), _LONGEST)}", err=True)
    sys.exit(status)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="rodiu-jax")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Compile anew, and keep nothing in the user's cache folder (below `rodiu`).",
)
@click.pass_context
def cli(ctx: click.Context, no_cache: bool) -> None:
    """Which LLMs to deploy on which rented GPUs, and how the answer moves.

    \b
    A first walk:
      rodiu describe                               the default catalogue: values, units, sources
      rodiu sample --n 4 --seed 1 -o four.npz      draw four scenarios
      rodiu solve four.npz                         their cheapest robust plans, proven
      rodiu sweep cost-budget --samples 4 -o out   how the optimum moves with prices and budget

    Money is in $ per rental period, delays in ms, memory in GB. Exit status: 0 done, 1 the work failed,
    2 bad usage or bad input. Compiled programs are kept from run to run in the user's cache folder, or in
    JAX_COMPILATION_CACHE_DIR.
    """
    if no_cache:
        forget_programs()
    else:
        keep_programs()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


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
            "'gpu_price[H100_*]*=0.5'. The pattern in brackets chooses names along the field's last axis (for "
            "delay_nominal the GPUs). May be repeated; applied in order.",
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
    from rodiu_jax.report.describe import describe_catalog
    from rodiu_jax.report.tables import show

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

    FILE.npz holds one array per field listed below, with a leading axis of scenarios where the field varies, and
    query_names, model_names, gpu_names (texts) and uncertainty (none, diu or ddu).
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

    \b
    PLANS.json, as `rodiu solve --plans` writes it:
      [{"instance": 0,
        "deployments": [{"model": "Llama-3.1-8B", "gpu": "H100_FP16", "tp": 2}],
        "routes": [{"query": "Code_Gen", "model": "Llama-3.1-8B", "gpu": "H100_FP16", "share": 0.9}],
        "unmet": {"Code_Gen": 0.1}}]
    tp is the number of GPUs; shares are of the query type's traffic; unmet holds what is not served (0 where
    a type is not named); "instance": null means every scenario.
    """
    from rodiu_jax.evaluation import evaluate as score
    from rodiu_jax.files import write_whole
    from rodiu_jax.instance import load_instances
    from rodiu_jax.plan import load_plans

    batch = load_instances(instances)
    table = score(load_plans(plans, batch), batch)
    with write_whole(output) as temporary:
        table.to_parquet(temporary, index=False)
    kept = int(table["feasible"].to_numpy().sum())
    click.echo(f"{len(table)} rows in {output}: {kept} feasible, {len(table) - kept} not")


class _ManyIndices(click.Command):
    """Lets ``--index`` take several numbers: ``--index 0 3 5``, ``--index=0 3 5``, ``--index 0 --index 3``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        inside = False
        for argument in args:
            if inside and argument.isdigit() and spread[-1] != "--index":
                spread.append("--index")
            opens = argument == "--index" or argument.startswith("--index=")
            inside = opens or (inside and argument.isdigit())
            spread.append(argument)
        return super().parse_args(ctx, spread)


@cli.command(cls=_ManyIndices)
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.option(
    "--index",
    "indices",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="B ...",
    help="Scenarios, such as --index 0 3 5, after FILE.npz; all by default.",
)
@click.option("--time-limit", type=_SECONDS, help="Seconds per scenario.")
@click.option("--gap", type=_GAP, help="Relative gap to stop at (default 1e-6, which counts as optimal).")
@click.option("--workers", type=_COUNT, help="Processes (default: the cores of this machine).")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, plans included.")
@click.option(
    "--plans", type=_PATH, metavar="FILE.json", help="Write the plans found, for `rodiu evaluate` to read."
)
@click.option(
    "--failures", type=_PATH, metavar="DIR", help="Save scenarios that end in error here, each an .npz."
)
def solve(
    instances: Path,
    indices: tuple[int, ...],
    time_limit: float | None,
    gap: float | None,
    workers: int | None,
    as_json: bool,
    plans: Path | None,
    failures: Path | None,
) -> None:
    """Solve scenarios exactly: cheapest robust plan, its checked cost and a proven lower bound.

    \b
    Status: optimal (gap <= 1e-6), gap_limit (stopped at --gap), time_limit (best plan so far), infeasible
    (proven), error (with a message; exit status 1).

    \b
    --json: one object per scenario with instance, status, objective (the plan's cost, $ per period), bound (proven:
    no plan costs less), gap ((objective - bound) / objective), costs (total_cost, rental_cost, storage_cost,
    delay_cost, unmet_cost), plan (as in `rodiu evaluate --help`) and seconds; null where there is none.
    """
    import json

    from rodiu_jax.files import write_whole
    from rodiu_jax.instance import load_instances
    from rodiu_jax.plan import save_plans
    from rodiu_jax.report.tables import results_table, show
    from rodiu_jax.sweeps.progress import progress
    from solvers.pool import solve_iter
    from solvers.result import OPTIMAL_GAP

    batch = load_instances(instances)
    for b in indices:
        batch.check_index(b, "--index")
    todo = list(indices) or list(range(batch.size))
    found = []
    # A place that cannot be written is refused before the work.
    with write_whole(plans) if plans else nullcontext() as file, progress("solve", len(todo)) as bar:
        for result in solve_iter(
            batch,
            todo,
            gap=OPTIMAL_GAP if gap is None else gap,
            time_limit=time_limit or math.inf,
            workers=workers,
            failures=failures,
        ):
            found.append(result)
            bar.advance(result.status, result.gap, result.method)
        if file is not None:
            save_plans([r.plan for r in found if r.plan is not None], file)
    if as_json:
        click.echo(json.dumps([r.to_json() for r in found], indent=1, allow_nan=False))
    else:
        show([results_table(found)])
    failed = [r for r in found if r.status == "error"]
    if failed:
        raise WorkFailed(
            f"{len(failed)} of {len(found)} scenarios: first, {failed[0].instance}: {failed[0].message}"
        )


@cli.command()
@click.argument("trace", type=_PATH, metavar="TRACE.csv")
@click.option(
    "--query", required=True, metavar="NAME", help="Query type of the catalogue that the trace is of."
)
@click.option(
    "--window", type=float, default=0.1, show_default=True, metavar="H", help="Hours per window of arrivals."
)
@click.option(
    "--windows", type=_COUNT, help="Use the first so many windows (default: all that the trace holds)."
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
@click.option("-o", "--output", type=_PATH, required=True, metavar="CATALOG.toml", help="File to write.")
def calibrate(
    trace: Path, query: str, window: float, windows: int | None, tokens: str, catalog: str, output: Path
) -> None:
    """Read arrival rates and token lengths from a real trace into a catalogue.

    \b
    TRACE.csv has the columns of the Azure 2023 LLM traces: TIMESTAMP, ContextTokens, GeneratedTokens.
    Example: rodiu calibrate trace.csv --query Code_Gen --catalog corrected -o mine.toml
             rodiu sample --catalog mine.toml --n 100 -o mine.npz
    """
    from typing import Literal, cast

    from rodiu_jax.calibration import calibrate as read

    kind = cast(Literal["request", "mean"], tokens)
    found = read(trace, query=query, window=window, windows=windows, base=catalog, tokens=kind)
    found.save(output)
    click.echo(f"{found.summary}\nWritten to {output}, which extends {catalog}.")


@cli.command()
@click.option("--catalog", default="seed", show_default=True, metavar="NAME|FILE", help="Catalogue to check.")
@click.option("--n", type=_COUNT, default=2000, show_default=True, help="Scenarios drawn for the check.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--all", "everything", is_flag=True, help="Every (model, GPU, degree), not only the smallest that fits."
)
def validate(catalog: str, n: int, seed: int, everything: bool) -> None:
    """Check a catalogue: observed ranges, memory, compute, worked examples, known contradictions.

    Exit status 1 when a worked example does not come out or a draw leaves its declared range.
    """
    from rodiu_jax.report.tables import show
    from rodiu_jax.report.validation import render
    from rodiu_jax.validation import validate as check

    report = check(catalog, n=n, seed=seed)
    show(render(report, everything=everything))
    if not report.ok:
        raise WorkFailed("; ".join(report.failures))


@cli.command(cls=_WithFields)
@click.argument("spec", required=False, metavar="PRESET|SPEC.toml")
@click.option("-o", "--output", type=_PATH, metavar="DIR", help="Folder of the rows, pictures and summary.")
@click.option("--list", "list_presets", is_flag=True, help="List the presets with their designs, and end.")
@click.option(
    "--dry-run", is_flag=True, help="Say how many rows, and from a short probe how much time and memory; end."
)
@click.option("--samples", type=_COUNT, help="Scenarios drawn, the same ones at every point (default 4).")
@_catalog_options
@click.option(
    "--method",
    type=click.Choice(["cascade", "bracket", "exact", "evaluate"]),
    help="cascade (default): brackets in batch, HiGHS where they stay wide, 0.1 % audited; bracket: no HiGHS; "
    "exact: HiGHS for every scenario; evaluate: no optimisation, what the plans of --plans cost.",
)
@click.option(
    "--plans",
    type=_PATH,
    metavar="PLANS.json",
    help="For evaluate: the cheapest of these that is feasible is a scenario's upper bound.",
)
@click.option("--gap", type=_GAP, help="Relative gap to prove (default 0.01; exact: 1e-6).")
@click.option("--time-limit", type=_SECONDS, help="Seconds per scenario.")
@click.option(
    "--workers",
    type=_COUNT,
    help="Processes that run HiGHS (default: the cores of this machine), "
    "or workers of a cluster (default: its GPUs, or its nodes).",
)
@click.option(
    "--exact",
    type=click.Choice(["gap", "top", "all", "none"]),
    help="Whom the cascade solves exactly: gap (default): brackets wider than --gap; top: the --top rows with the "
    "largest --by, when all are bracketed; all; none.",
)
@click.option("--top", type=_COUNT, metavar="K", help="Rows to solve, with --exact top.")
@click.option("--by", metavar="COLUMN", help="Column that ranks them: gap (default), total_cost, ...")
@click.option(
    "--audit", type=_GAP, metavar="SHARE", help="Share of the brackets audited (default 0.001, at least 1)."
)
@click.option(
    "--certificates",
    is_flag=True,
    default=None,
    help="Keep what proves the lower bounds in DIR/certificates, for `rodiu verify DIR`.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: this machine; ray: a Ray cluster, --workers with a GPU or a share of the cores each.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Of a running Ray cluster, such as auto or host:6379 (default: one is started on this machine).",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the sweep that is in DIR, with more --samples if you like."
)
@click.option(
    "--quiet",
    is_flag=True,
    help="No progress on standard error, which has none anyway elsewhere than in a terminal.",
)
@click.option(
    "--log-json",
    "log",
    metavar="FILE|-",
    help="Add events to a file, one JSON object a line: start, progress (at most one a second), part, fault, end. "
    "-: to standard output, in place of the summary.",
)
def sweep(
    spec: str | None,
    output: Path | None,
    list_presets: bool,
    dry_run: bool,
    resume: bool,
    quiet: bool,
    log: str | None,
    engine: str,
    address: str | None,
    **options: Any,
) -> None:
    """Solve sampled scenarios at every point of a grid of changes: a table, pictures, a summary.

    \b
    SPEC.toml: catalog, uncertainty, samples, seed, method, gap, exact, top, by, audit, certificates, set = [...], and
    one table per factor:
      [[factors]]
      field = "gpu_price"            a field of the list below
      names = "H100_*"               only these (optional)
      scale = [0.5, 0.75, 1.0]       multipliers, or value = [...]
    Rows go to DIR/scenarios/*.parquet: sample, point, the factors, lower_bound, upper_bound, the costs in $ per period,
    status, method, what is deployed; certified_lower_bound is what is proven without HiGHS. DIR/report.html shows
    them (see `rodiu report --help`). Ctrl-C keeps the finished rows; --resume goes on.
    """
    from rodiu_jax.sweeps import load_spec, preset_names

    if list_presets:
        for preset in map(load_spec, preset_names()):
            click.echo(f"{preset.name:<15} {preset.title:<44} {preset.layout}")
        return
    if spec is None or (output is None and not dry_run):
        missing, what = ("PRESET|SPEC.toml", "a preset or a file") if spec is None else ("-o DIR", "a folder")
        raise InputError("sweep", missing, f"{what}; presets: {', '.join(preset_names())}")
    if output is None or dry_run:
        from rodiu_jax.sweeps.estimate import estimate

        click.echo("\n".join(estimate(spec, **options).lines()))
        return
    from rodiu_jax.sweeps.run import run_sweep
    from rodiu_jax.sweeps.store import first_error

    run_sweep(spec, output, resume=resume, quiet=quiet, log=log, engine=engine, address=address, **options)
    found = _report(output, said=log != "-")
    if failed := found.statuses.get("error", 0):
        raise WorkFailed(
            f"{failed} of {found.rows} scenarios ended with an error; the first: {first_error(output)}"
        )


def _report(folder: Path, *, page: Path | None = None, said: bool = True) -> Digest:
    """Write the report of a sweep and print what it comes to."""
    from rodiu_jax.report import write_report
    from rodiu_jax.report.digest import read_digest
    from rodiu_jax.report.summary import answer, cost_grid, proofs
    from rodiu_jax.report.tables import show

    found = read_digest(folder)
    files = write_report(folder, page=page, digest=found)
    lines = [proofs(found), *answer(found), f"Report: {files[0]} ({len(files)} files)"]
    if said:
        show([cost_grid(found), "\n".join(lines)])
    return found


@cli.command()
@click.argument("folder", type=_PATH, metavar="DIR")
@click.option(
    "--page",
    type=_PATH,
    metavar="FILE.html",
    help="Also write the page alone, without links into DIR, to send.",
)
def report(folder: Path, page: Path | None) -> None:
    """Write the page of a sweep, DIR/report.html: the answer, maps, deployments, constraints, sensitivity, proofs.

    The page is one file that opens offline and asks nothing of anyone. Its pictures are also in DIR/figures (PNG and
    SVG), the tables behind them in DIR/tables and DIR/summary.csv. An unfinished sweep is shown as far as it is.

    \b
    Decisions written into DIR/decisions are sections of the page too:
      rodiu choose DIR -o DIR/decisions/rent && rodiu report DIR
    (also rodiu stress, robustness and diagnose with -o DIR/decisions/NAME).
    """
    _report(folder, page=page)


class _WithFigures(click.Command):
    """A command whose help ends with the figures that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from rodiu_jax.report.outputs import FIGURES

        self.epilog = "\b\nFigures:\n" + "\n".join(f"  {name:<12} {what}" for name, what in FIGURES.items())
        super().format_epilog(ctx, formatter)


@cli.command(cls=_WithFigures)
@click.argument("folder", type=_PATH, metavar="DIR")
@click.option("--figure", required=True, metavar="NAME", help="One of the figures below.")
@click.option("--output", metavar="COLUMN", help="Column to show (default total_cost).")
@click.option("--factors", metavar="A,B", help="Factors of the rows and the columns of a map.")
@click.option(
    "-o",
    "--file",
    "path",
    type=_PATH,
    required=True,
    metavar="FILE",
    help="File to write: *.png, *.svg or *.pdf.",
)
def plot(folder: Path, figure: str, output: str | None, factors: str | None, path: Path) -> None:
    """Draw one figure of a sweep into a file."""
    from rodiu_jax.report import style
    from rodiu_jax.report.pictures import plot as draw

    if path.suffix not in style.FORMATS:
        raise InputError("plot", "-o", f"a name that ends in {', '.join(style.FORMATS)}", str(path))
    chosen = None if factors is None else [name.strip() for name in factors.split(",")]
    style.save_as(draw(folder, figure, output=output, factors=chosen).figure, path)


@cli.command()
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE.parquet", help="Table to write.")
@click.option(
    "--plans", type=_PATH, metavar="PLANS.json", help="Write the plans that attain the upper bounds."
)
@click.option(
    "--certificates",
    type=_PATH,
    metavar="CERTS.parquet",
    help="Write multipliers and plans, from which `rodiu verify` recomputes every bound.",
)
@click.option("--gap", type=_GAP, default=0.01, show_default=True, help="Relative gap to close by branching.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def bound(
    instances: Path, output: Path, plans: Path | None, certificates: Path | None, gap: float, quiet: bool
) -> None:
    """Bracket scenarios in batch: a certified lower bound and a checked plan each, without an exact solver.

    \b
    Columns: instance, lower_bound, upper_bound ($ per period), gap (relative to the upper bound), status, the
    costs of the plan, deployments, nodes and steps (work done). Status: optimal (gap <= 1e-6), gap_limit (closed to
    --gap), bracket (valid, but wider), infeasible (proven), unknown (no plan found), error.
    """
    import math

    import pandas as pd

    from rodiu_jax.certificate import save_certificates
    from rodiu_jax.files import write_whole
    from rodiu_jax.instance import load_instances
    from rodiu_jax.plan import save_plans
    from rodiu_jax.sweeps.progress import progress
    from rodiu_jax.verdict import COSTS
    from solvers.cascade import bracketed

    batch = load_instances(instances)
    found = []
    with progress("bound", batch.size, quiet=quiet) as bar:
        for bracket in bracketed(batch, gap=gap, certificates=certificates is not None):
            found.append(bracket)
            bar.advance(bracket.status, bracket.gap, "bracket")
    table = pd.DataFrame(
        {
            "instance": [b.instance for b in found],
            "lower_bound": [b.lower for b in found],
            "upper_bound": [b.upper for b in found],
            "gap": [b.gap for b in found],
            "status": [b.status for b in found],
            **{name: [(b.costs or {}).get(name, math.nan) for b in found] for name in COSTS},
            "deployments": [b.plan.summary() if b.plan else None for b in found],
            "nodes": [b.nodes for b in found],
            "steps": [b.steps for b in found],
        }
    )
    with write_whole(output) as temporary:
        table.to_parquet(temporary, index=False)
    if plans is not None:
        save_plans([b.plan for b in found if b.plan is not None], plans)
    if certificates is not None:
        save_certificates(certificates, found, batch)
    counts = ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    click.echo(f"{len(table)} rows in {output}: {counts}")
    failed = [b.instance for b in found if b.status == "error"]
    if failed:
        raise WorkFailed(
            f"{len(failed)} of {len(found)} scenarios met a number out of range; the first: {failed[0]}"
        )


@cli.command()
@click.argument("table", type=_PATH, metavar="DIR|TABLE.parquet")
@click.argument("proofs", type=_PATH, required=False, metavar="[CERTS.parquet|PLANS.json]")
@click.argument("instances", type=_PATH, required=False, metavar="[FILE.npz]")
def verify(table: Path, proofs: Path | None, instances: Path | None) -> None:
    """Recompute what a table claims, in NumPy float64, sharing no code with the solvers.

    \b
    rodiu verify DIR                                  a sweep, best made with --certificates
    rodiu verify TABLE.parquet CERTS.parquet FILE.npz what `rodiu bound --certificates` wrote
    rodiu verify TABLE.parquet PLANS.json FILE.npz    what `rodiu evaluate` wrote

    A lower bound holds when the dual function at the stored multipliers, over leaves that cover every plan, is not
    below it; an upper bound when the independent checker accepts the stored plan at that cost. A lower bound of a
    sweep that only HiGHS proves cannot be recomputed, and is counted apart. Exit status 1 names the first row whose
    claim does not hold.
    """
    if table.is_dir():
        if proofs is not None:
            raise InputError("verify", str(proofs), "nothing after the folder of a sweep")
        _verify_sweep(table)
        return
    if proofs is None or instances is None:
        missing = "CERTS.parquet or PLANS.json" if proofs is None else "FILE.npz"
        raise InputError("verify", missing, "this argument, as the first is not the folder of a sweep")
    from rodiu_jax.certificate import load_certificates, verify_rows
    from rodiu_jax.check import check_scores
    from rodiu_jax.instance import load_instances
    from rodiu_jax.observations import read_frame
    from rodiu_jax.plan import load_plans

    batch, rows = load_instances(instances), read_frame(table)
    if proofs.suffix == ".json":
        verdicts = check_scores(rows, load_plans(proofs, batch), batch, source=table)
    else:
        verdicts = verify_rows(rows, load_certificates(proofs, batch), batch, source=table)
    held = verdicts["ok"].tolist()
    click.echo(f"{sum(held)} of {len(held)} rows hold")
    if not all(held):
        first = held.index(False)
        instance, reason = verdicts["instance"].tolist()[first], verdicts["reason"].tolist()[first]
        raise WorkFailed(
            f"{table}: {len(held) - sum(held)} rows do not hold; the first, instance {instance}: {reason}"
        )


def _verify_sweep(folder: Path) -> None:
    from rodiu_jax.sweeps.verification import Tally, verify_sweep

    found = Tally()
    for verdicts in verify_sweep(folder):
        found.add(verdicts)
    click.echo(
        f"{found.held} of {found.rows} rows hold. Lower bounds: {found.certified} hold by certificate, "
        f"{found.by_highs} rest on HiGHS (not recomputed). Upper bounds: {found.plans} hold by plan."
    )
    if found.first is not None:
        sample, point, reason = found.first
        raise WorkFailed(
            f"{folder}: {found.rows - found.held} rows do not hold; the first, sample {sample} point {point}: "
            f"{reason}"
        )


@cli.command()
@click.argument("source", type=_PATH, metavar="DIR|TABLE.parquet|TABLE.csv")
@click.option(
    "--output", default="total_cost", show_default=True, metavar="COLUMN", help="Numeric column to explain."
)
@click.option(
    "--factors",
    metavar="A,B,...",
    help="Columns that vary, in the design's order (default: those of the sweep in DIR).",
)
@click.option(
    "--levels", type=_COUNT, default=4, show_default=True, help="Grid levels of a Morris design (even)."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of bootstraps and folds."
)
@click.option("--json", "as_json", is_flag=True, help="Print every table as JSON.")
@click.option(
    "-o", "--folder", type=_PATH, metavar="FOLDER", help="Write tables (CSV) and figures (PNG, SVG) there."
)
def sensitivity(
    source: Path, output: str, factors: str | None, levels: int, seed: int, as_json: bool, folder: Path | None
) -> None:
    """Say which factors move an output: effects, swings, indices, and the boxes where something happens.

    \b
    Every figure has a 95 % interval and, for total_cost with the columns lower_bound and upper_bound, the interval
    that the brackets leave; a sign or a rank that they do not settle is `undecided`. Rows without the output are
    left out and counted. Rows with equal `sample` are compared with each other.
    Always: tornado, main effects and two-way tables. Rows of a Saltelli design (order of the column `point`): Sobol
    indices. Trajectories: Morris. With the extra `discovery`: boxes of infeasible, unmet, dear and switching rows.
    """
    import json

    import numpy as np

    from rodiu_jax.discovery import discover_all
    from rodiu_jax.observations import numeric, read_table
    from rodiu_jax.report.sensitivity import boxes_table, records, sensitivity_tables, write_sensitivity
    from rodiu_jax.report.tables import show
    from rodiu_jax.sensitivity import analyse

    frame, own = read_table(source)
    chosen = [name.strip() for name in factors.split(",")] if factors else list(own)
    if not chosen:
        raise InputError(source, "--factors", f"names among {', '.join(map(str, frame.columns))}")
    tables = analyse(frame, chosen, output, levels=levels, seed=seed, source=str(source))
    note = ""
    try:
        tables["boxes"] = discover_all(frame, chosen, seed=seed, source=str(source))
    except WorkFailed as lack:
        note = f"No boxes: {lack}."
    missing = int((~np.isfinite(numeric(frame, output, str(source)))).sum())
    counts = {"output": output, "factors": chosen, "rows": len(frame), "left_out": missing}
    files = write_sensitivity(tables, folder, output) if folder else []
    if as_json:
        found = {name: records(table) for name, table in tables.items()}
        click.echo(json.dumps(counts | ({"note": note} if note else {}) | found, indent=1, allow_nan=False))
        return
    parts: list[Any] = [*sensitivity_tables(tables, output)]
    if "boxes" in tables:
        parts.append(boxes_table(tables["boxes"]) if len(tables["boxes"]) else "No box gathers any outcome.")
    parts += [note] if note else []
    parts.append(f"{len(frame)} rows, {missing} of them without {output} and left out.")
    parts += [f"{len(files)} files written to {folder}."] if files else []
    show(parts)


class _Numbers(click.ParamType):
    """Numbers with commas between, such as ``0.5,1,1.5``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas.", param, ctx)


def _decision_options(command: Any) -> Any:
    """Where an answer goes; `_tell` reads these options."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress on standard error."),
        click.option(
            "-o",
            "--folder",
            type=_PATH,
            metavar="FOLDER",
            help="Write JSON, tables, pictures and plans there; of DIR/decisions/NAME, `rodiu report DIR` makes a "
            "section of the page of the sweep in DIR.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def _asked() -> str:
    """The running command as it was typed, but for where its answer goes."""
    import shlex

    context = click.get_current_context()
    words = ["rodiu", str(context.info_name)]
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        typed = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        if not typed or name in ("folder", "as_json", "quiet"):
            continue
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
            continue
        words += parameter.opts[:1] if isinstance(parameter, click.Option) else []
        words.append(",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value))
    return shlex.join(words)


def _prepare(folder: Path | None) -> None:
    """A place that cannot be written is refused before the work."""
    from rodiu_jax.files import make_folder

    if folder is not None:
        make_folder(folder)


def _tell(
    section: Section,
    values: dict[str, Any],
    folder: Path | None,
    as_json: bool,
    plans: Sequence[Plan | None] = (),
) -> None:
    """Keep an answer where asked, and print it."""
    import json

    from rodiu_jax.report.section import terminal
    from rodiu_jax.report.tables import show

    parts = terminal(section)
    if folder is not None:
        from rodiu_jax.report.decisions import write_decision

        found = [plan for plan in plans if plan is not None]
        files = write_decision(section, values, folder, made=_asked(), plans=found)
        parts.append(f"{len(files)} files written to {folder}.")
    if as_json:
        click.echo(json.dumps(values, indent=1, allow_nan=False))
    else:
        show(parts)


@cli.command()
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.argument("plans", type=_PATH, metavar="PLANS.json")
@click.option("--draws", type=_COUNT, default=1_000_000, show_default=True, help="Per plan and scenario.")
@click.option(
    "--scales",
    type=_Numbers(),
    default="0.5,1,1.5",
    show_default=True,
    help="What deviations are multiplied by.",
)
@click.option(
    "--beta", type=_Numbers(), default="2,5", show_default=True, help="Parameters of the beta distribution."
)
@click.option(
    "--reality",
    type=click.Choice(["diu", "ddu"]),
    help="ddu: pairing shrinks deviations; diu: as drawn (default: as FILE.npz says, ddu where it says none).",
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the exact intervals.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--peers/--no-peers",
    default=True,
    show_default=True,
    help="Also solve and stress the plans for Gamma = 0 and for diu of every scenario that a plan names.",
)
@click.option("--workers", type=_COUNT, help="Processes for --peers (default: the cores of this machine).")
@_decision_options
def stress(
    instances: Path,
    plans: Path,
    scales: tuple[float, ...],
    beta: Any,
    as_json: bool,
    folder: Path | None,
    **options: Any,
) -> None:
    """Draw delays and errors out of sample: how often promises break, what it costs, what breaks first.

    Every (query, model, GPU) turns out as nominal + scale x deviation x xi, for its delay and for its error, with xi
    uniform on [0, 1], or Beta, or all at the worst the adversary of MODEL section 3 can do (worst).

    \b
    --json: the settings; results, a row per plan, instance, distribution and scale (violations, probability with its
    exact interval lower to upper, breaks_at, first, first_share, costs with quantiles and their resolution); promises,
    the same counts per promise. kind: given, or solved for comparison: deterministic (Gamma = 0), diu; no_plan names
    those that cannot be, as the scenario is infeasible.
    """
    from rodiu_jax.decisions.stress import stress as run
    from rodiu_jax.instance import load_instances
    from rodiu_jax.plan import load_plans
    from rodiu_jax.report.stress import section, to_json

    batch = load_instances(instances)
    read = load_plans(plans, batch)
    if not read:
        raise InputError(plans, "", "at least one plan")
    _prepare(folder)
    found = run(read, batch, scales=scales, beta=beta, **options)
    _tell(section(found), to_json(found), folder, as_json)


@cli.command()
@click.argument("instances", type=_PATH, metavar="FILE.npz")
@click.option("--index", type=click.IntRange(min=0), required=True, metavar="B", help="Scenario to diagnose.")
@click.option("--time-limit", type=_SECONDS, help="Seconds for each of the solves, some dozens.")
@click.option("--workers", type=_COUNT, help="Processes (default: the cores of this machine).")
@_decision_options
def diagnose(
    instances: Path,
    index: int,
    time_limit: float | None,
    workers: int | None,
    as_json: bool,
    folder: Path | None,
    quiet: bool,
) -> None:
    """Say what costs most in one scenario and what to change, each answer solved again.

    Shadow prices of the limits that bind, with the range in which they predict the optimum within 1 % of the change
    (solved again at both ends; that no other deployment is better in between is proven with the limit free); the four
    adjustments of the seed document; what serving everyone takes; how much cheaper idle GPUs must be.

    \b
    --json: instance, status, objective, lower_bound, plan; binding [{constraint, name, shadow_price, unit, value,
    holds_from, holds_to, per_percent, relaxed_price, resolved}]; adjustments [{name, lower_bound, upper_bound,
    saving_lower, saving_upper, unmet_share}]; everyone {unmet, extra_lower, extra_upper, levers}; idle [{gpu, price,
    certified, cheaper_from, cheaper_to, deployments, reason}]. Prices in $ per period and unit; null: unknown or none.
    """
    from rodiu_jax.decisions.diagnose import diagnose as run
    from rodiu_jax.instance import load_instances
    from rodiu_jax.report.diagnosis import section

    batch = load_instances(instances)
    batch.check_index(index, "--index")
    _prepare(folder)
    found = run(batch, index, time_limit=time_limit or math.inf, workers=workers, quiet=quiet)
    _tell(section(found), found.to_json(), folder, as_json, [found.result.plan])


@cli.command()
@click.argument("source", metavar="FILE.npz|SWEEP_DIR|SPEC.toml")
@click.option(
    "--criterion",
    type=click.Choice(["expected", "cvar", "worst", "regret"]),
    default="expected",
    show_default=True,
    help="expected cost; cvar: mean of the dearest share 1 - level; worst: dearest scenario; regret: largest excess "
    "over a scenario's own optimum.",
)
@click.option(
    "--level",
    type=_FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Level of CVaR.",
)
@click.option(
    "--no-recourse", is_flag=True, help="Fix the routing too, instead of routing anew in every scenario."
)
@click.option(
    "--gap",
    type=_GAP,
    default=0.01,
    show_default=True,
    help="Relative gap to which scenarios are bracketed; rows of a sweep are taken as they are.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of what is held out."
)
@_decision_options
def choose(
    source: str,
    criterion: str,
    level: float,
    no_recourse: bool,
    gap: float,
    seed: int,
    as_json: bool,
    folder: Path | None,
    quiet: bool,
) -> None:
    """Choose one deployment for many scenarios: what to rent before prices, demand and delays are known.

    \b
    Candidates are the deployments best for some scenario, for the mean one, and their neighbours (local search). A
    candidate must keep every promise in every scenario; where none does, the nearest is named. Rows of a sweep count as
    equally likely scenarios. Held out, never chosen with: fresh samples (a sweep, a spec or a preset), or a fifth of a
    file of at least 500 scenarios.

    \b
    --json: criterion, level, recourse; meets (false: no candidate keeps every promise everywhere, value is null);
    value ($ per period, of checked plans); lower_bound, upper_bound: between them lies the least value of any
    deployment (two-stage lower bound), for regret the chosen plan's own regret; interval: the chosen plan's value by
    its brackets; gap: how much better any deployment could be; feasible_share, broken (what breaks, in how many
    scenarios); deployments [{model, gpu, tp}]; plan (without recourse); candidates, scenarios; hopeless (scenarios
    without any plan); value_of_stochastic_solution [from, to] over the mean scenario's plan; without_recourse or
    with_recourse {value, feasible_share}: the same deployment routed the other way; hold_out; frontier.
    """
    from rodiu_jax.decisions.choose import choose as pick
    from rodiu_jax.decisions.scenarios import read_scenarios
    from rodiu_jax.report.choose import section

    _prepare(folder)
    read = read_scenarios(source, gap=gap, seed=seed, quiet=quiet)
    choice = pick(
        read.training,
        criterion=criterion,
        level=level,
        recourse=not no_recourse,
        hold_out=read.hold_out,
        gap=gap,
        seed=seed,
        quiet=quiet,
    )
    _tell(section(choice), choice.to_json(), folder, as_json, [choice.plan])


@cli.command()
@click.argument("source", metavar="FILE.npz|PRESET|SPEC.toml")
@click.option(
    "--gammas",
    type=_Numbers(),
    metavar="A,B,...",
    help="From 0 to models x GPUs; by default closest below 4.",
)
@click.option(
    "--probability",
    type=float,
    default=0.05,
    show_default=True,
    help="Promised share of periods with a breach.",
)
@click.option(
    "--method",
    type=click.Choice(["exact", "bracket"]),
    default="exact",
    show_default=True,
    help="exact: HiGHS; bracket: on the device, for many scenarios.",
)
@click.option("--gap", type=_GAP, help="Relative gap of each optimum (default 1e-6; bracket: 0.01).")
@click.option(
    "--scenarios", type=_COUNT, help="Use the first so many (default: all; of a spec, all its rows)."
)
@click.option("--draws", type=_COUNT, default=100_000, show_default=True, help="Per plan and distribution.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the exact intervals.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option("--time-limit", type=_SECONDS, help="Seconds for each of the solves.")
@click.option("--workers", type=_COUNT, help="Processes (default: the cores of this machine).")
@_decision_options
def robustness(
    source: str,
    scenarios: int | None,
    time_limit: float | None,
    as_json: bool,
    folder: Path | None,
    **options: Any,
) -> None:
    """Say what robustness costs and what it buys: cost and broken promises over Gamma, and what pairing is worth.

    Every scenario is solved at every Gamma (of delays and errors), and its plan meets draws of deviations. Beside the
    measured share of periods with a broken promise stand two proven bounds of Bertsimas and Sim's kind: for deviations
    on [0, 1], and theirs, for deviations symmetric about the nominal.

    \b
    --json: settings, recommended and guaranteed Gamma, curve (a row per mode and gamma), value (a row per gamma: what
    plans cost that ignore that pairing shrinks deviations) and scenarios_by_gamma.
    """
    from rodiu_jax.decisions.robustness import read_instances
    from rodiu_jax.decisions.robustness import robustness as run
    from rodiu_jax.report.robustness import section, to_json

    batch = read_instances(source)
    if scenarios is not None:
        batch = batch.take(range(min(scenarios, batch.size)))
    _prepare(folder)
    found = run(batch, time_limit=time_limit or math.inf, **options)
    _tell(section(found), to_json(found), folder, as_json)
