"""Commands about sweeps and their tables: sweep, report, plot, sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rodiu_jax.cli.options import COUNT, PATH, catalog_options, summaries, workers_option
from rodiu_jax.cli.spec_options import SpecCommand
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.sweeps.engines import ENGINES

if TYPE_CHECKING:
    from rodiu_jax.report.data.digest import Digest


@click.command(cls=SpecCommand)
@click.argument("spec", required=False, metavar="PRESET|SPEC.toml")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder of the rows, pictures and summary.")
@click.option("--list", "list_presets", is_flag=True, help="List the presets with their designs, and end.")
@click.option(
    "--dry-run", is_flag=True, help="Say how many rows, and from a short probe how much time and memory; end."
)
@catalog_options
@workers_option(
    default="one for each core, for brackets one for every four; of a cluster its GPUs, or its nodes",
    note="Here one process evaluates plans, and one has the GPUs, however many are asked for.",
)
@click.option(
    "--engine",
    type=click.Choice(list(ENGINES)),
    default=next(iter(ENGINES)),
    show_default=True,
    help=summaries(ENGINES),
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
    **keys: Any,
) -> None:
    """Solve sampled scenarios at every point of a grid of changes: a table, pictures, a summary.

    \b
    SPEC.toml: catalog, uncertainty, samples, seed, method, gap, exact, top, by, audit, certificates, set = [...], and
    one table per factor:
      [[factors]]
      field = "gpu_price"            a field of the list below
      names = "H100_*"               only these (optional)
      scale = [0.5, 0.75, 1.0]       multipliers, or value = [...]
    field = "promise" with latency = "ttft_p99" is the limit on one latency, ms; scale alone multiplies all limits.
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

        click.echo("\n".join(estimate(spec, **keys).lines()))
        return
    from rodiu_jax.model.status import Status
    from rodiu_jax.sweeps.run import RunOptions, run_sweep
    from rodiu_jax.sweeps.store import first_error

    run = RunOptions(keys.pop("workers"), resume, quiet, log, engine, address)
    run_sweep(spec, output, run, keys)
    digest = _write_report(output, show_answer=log != "-")
    if failed := digest.statuses.get(Status.ERROR.word, 0):
        raise WorkFailed(
            f"{failed} of {digest.rows} scenarios ended with an error; the first: {first_error(output)}"
        )


def _write_report(folder: Path, *, page: Path | None = None, show_answer: bool = True) -> Digest:
    """Write the report of a sweep, and print its answer."""
    from rodiu_jax.report import write_report
    from rodiu_jax.report.data.digest import read_digest
    from rodiu_jax.report.parts.terminal import show
    from rodiu_jax.report.text.summary import describe_proofs, tabulate_costs, write_answer

    digest = read_digest(folder)
    files = write_report(folder, page=page, digest=digest)
    lines = [describe_proofs(digest), *write_answer(digest), f"Report: {files[0]} ({len(files)} files)"]
    if show_answer:
        show([tabulate_costs(digest), "\n".join(lines)])
    return digest


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--page",
    type=PATH,
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
    _write_report(folder, page=page)


class _WithFigures(click.Command):
    """A command whose help ends with the figures that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from rodiu_jax.report.data.outputs import FIGURES

        self.epilog = "\b\nFigures:\n" + "\n".join(f"  {name:<12} {what}" for name, what in FIGURES.items())
        super().format_epilog(ctx, formatter)


@click.command(cls=_WithFigures)
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--figure", required=True, metavar="NAME", help="One of the figures below.")
@click.option("--output", metavar="COLUMN", help="Column to show (default total_cost).")
@click.option("--factors", metavar="A,B", help="Factors of the rows and the columns of a map.")
@click.option(
    "-o",
    "--file",
    "path",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File to write: *.png, *.svg or *.pdf.",
)
def plot(folder: Path, figure: str, output: str | None, factors: str | None, path: Path) -> None:
    """Draw one figure of a sweep into a file."""
    from rodiu_jax.report.figures import style
    from rodiu_jax.report.figures.pictures import plot as draw

    if path.suffix not in style.FORMATS:
        raise InputError("plot", "-o", f"a name that ends in {', '.join(style.FORMATS)}", str(path))
    chosen = None if factors is None else [name.strip() for name in factors.split(",")]
    style.save_figure_as(draw(folder, figure, output=output, factors=chosen).figure, path)


@click.command()
@click.argument("source", type=PATH, metavar="DIR|TABLE.parquet|TABLE.csv")
@click.option(
    "--output", default="total_cost", show_default=True, metavar="COLUMN", help="Numeric column to explain."
)
@click.option(
    "--factors",
    metavar="A,B,...",
    help="Columns that vary, in the design's order (default: those of the sweep in DIR).",
)
@click.option(
    "--levels", type=COUNT, default=4, show_default=True, help="Grid levels of a Morris design (even)."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of bootstraps and folds."
)
@click.option("--json", "as_json", is_flag=True, help="Print every table as JSON.")
@click.option(
    "-o", "--folder", type=PATH, metavar="FOLDER", help="Write tables (CSV) and figures (PNG, SVG) there."
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

    from rodiu_jax.analysis.sensitivity import sensitivity as explain
    from rodiu_jax.report.data.json_rows import json_rows
    from rodiu_jax.report.parts.terminal import Part, show
    from rodiu_jax.report.text.sensitivity_tables import (
        tabulate_boxes,
        tabulate_sensitivity,
        write_sensitivity,
    )

    chosen = [name.strip() for name in factors.split(",")] if factors else None
    found = explain(source, output, chosen, levels=levels, seed=seed)
    files = write_sensitivity(found.tables, folder, output) if folder else []
    if as_json:
        counts = {"output": output, "factors": found.factors, "rows": found.rows, "left_out": found.left_out}
        tables = {name: json_rows(table) for name, table in found.tables.items()}
        note = {"note": found.note} if found.note else {}
        click.echo(json.dumps(counts | note | tables, indent=1, allow_nan=False))
        return
    parts: list[Part] = [*tabulate_sensitivity(found.tables, output)]
    if (boxes := found.tables.get("boxes")) is not None:
        parts.append(tabulate_boxes(boxes) if len(boxes) else "No box gathers any outcome.")
    parts += [found.note] if found.note else []
    parts.append(f"{found.rows} rows, {found.left_out} of them without {output} and left out.")
    parts += [f"{len(files)} files written to {folder}."] if files else []
    show(parts)
