"""Commands about scenarios in a file: solve, bound, evaluate, verify."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rodiu_jax.cli.options import GAP, PATH, SECONDS, workers_option
from rodiu_jax.errors import InputError, WorkFailed

if TYPE_CHECKING:
    from rodiu_jax.decisions.fleet import FleetSummary


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


@click.command(cls=_ManyIndices)
@click.argument("instances", type=PATH, metavar="FILE.npz")
@click.option(
    "--index",
    "indices",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="B ...",
    help="Scenarios, such as --index 0 3 5, after FILE.npz; all by default.",
)
@click.option("--time-limit", type=SECONDS, help="Seconds per scenario.")
@click.option("--gap", type=GAP, help="Relative gap to stop at (default 1e-6, which counts as optimal).")
@workers_option()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, plans included.")
@click.option(
    "--plans", type=PATH, metavar="FILE.json", help="Write the plans found, for `rodiu evaluate` to read."
)
@click.option(
    "--failures", type=PATH, metavar="DIR", help="Save scenarios that end in error here, each an .npz."
)
@click.option(
    "--catalog",
    metavar="NAME|FILE",
    help="What the scenarios were drawn from: say which share of the plans is measured, predicted, assumed.",
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
    catalog: str | None,
) -> None:
    """Solve scenarios exactly: cheapest robust plan, its checked cost and a proven lower bound.

    \b
    Status: optimal (gap <= 1e-6), gap_limit (stopped at --gap), time_limit (best plan so far), infeasible
    (proven), error (with a message; exit status 1).

    \b
    --json: one object per scenario with instance, status, objective (the plan's cost, $ per period), bound (proven:
    no plan costs less), gap ((objective - bound) / objective), costs (total_cost, rental_cost, storage_cost,
    delay_cost, unmet_cost), plan (as in `rodiu evaluate --help`) and seconds; null where there is none. Where scenarios
    have replicas, rates or quotas also fleet: gpus, rent_per_hour ($), cost_per_million_tokens ($ of rent),
    utilization, quota, and headroom (factor on all arrival rates at which the same deployment still serves everyone,
    null: any). With --catalog also basis: for values by what they carry, the shares measured, predicted and assumed.
    message says what went wrong, or which query type nobody can serve.
    """
    import json

    # What one answer needs and no more: the first is there in about a second.
    from rodiu_jax.decisions.fleet import summarize_fleet
    from rodiu_jax.io.files import write_whole
    from rodiu_jax.model.fields import uses_serving
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.model.status import Status
    from rodiu_jax.model.tolerances import OPTIMAL_GAP
    from rodiu_jax.report.text.solution_table import tabulate_fleets, tabulate_solutions, write_reasons
    from rodiu_jax.runtime.progress import progress
    from solvers.pool import solve_iter

    batch = load_instances(instances)
    for b in indices:
        batch.check_index(b, "--index")
    known = None
    if catalog is not None:
        from rodiu_jax.catalog import load_catalog
        from rodiu_jax.decisions.plan_basis import check_names

        known = load_catalog(catalog, source="--catalog")
        check_names(known, batch, "--catalog")
    todo = list(indices) or list(range(batch.size))
    answers = []
    # A place that cannot be written is refused before the work.
    with write_whole(plans) if plans else nullcontext() as file, progress("solve", len(todo)) as bar:
        for answer in solve_iter(
            batch,
            todo,
            gap=OPTIMAL_GAP if gap is None else gap,
            time_limit=time_limit or math.inf,
            workers=workers,
            failures=failures,
        ):
            if answer.status is Status.INFEASIBLE:
                from solvers.unservable import explain_no_plan

                answer = replace(answer, message=explain_no_plan(batch, todo[len(answers)]))
            answers.append(answer)
            bar.advance(answer.status.word, answer.gap, answer.prover.closes(answer.status))
        numbered = list(zip(todo, answers, strict=True))
        if file is not None:
            from rodiu_jax.model.plan_json import save_plans

            made = [answer.plan_for(b) for b, answer in numbered]
            save_plans([plan for plan in made if plan is not None], file)
    fleets: dict[int, FleetSummary] = {}
    planned = {b: plan for b, answer in numbered if (plan := answer.plan_for(b)) is not None}
    if uses_serving(batch.fields):
        fleets = {b: summarize_fleet(plan, batch, b) for b, plan in planned.items()}
    if as_json:
        items = [answer.to_json(b) for b, answer in numbered]
        if uses_serving(batch.fields):
            for item in items:
                fleet = fleets.get(item["instance"])
                item["fleet"] = None if fleet is None else fleet.to_json()
        if known is not None:
            from rodiu_jax.decisions.plan_basis import find_plan_basis

            for item in items:
                plan = planned.get(item["instance"])
                found = None if plan is None else find_plan_basis(known, [(plan, batch, item["instance"])])
                item["basis"] = None if found is None else found.tabulate().to_dict("records")
        click.echo(json.dumps(items, indent=1, allow_nan=False))
    else:
        from rodiu_jax.report.parts.terminal import show

        parts = [
            tabulate_solutions(numbered),
            *([tabulate_fleets(fleets)] if fleets else []),
            *write_reasons(numbered),
        ]
        if known is not None and planned:
            from rodiu_jax.decisions.plan_basis import find_plan_basis

            parts.append(find_plan_basis(known, [(plan, batch, b) for b, plan in planned.items()]).describe())
        show(parts)
    failed = [(b, answer.message) for b, answer in numbered if answer.status is Status.ERROR]
    if failed:
        raise WorkFailed(f"{len(failed)} of {len(numbered)} scenarios: first, {failed[0][0]}: {failed[0][1]}")


@click.command()
@click.argument("instances", type=PATH, metavar="FILE.npz")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE.parquet", help="Table to write.")
@click.option(
    "--plans", type=PATH, metavar="PLANS.json", help="Write the plans that attain the upper bounds."
)
@click.option(
    "--certificates",
    type=PATH,
    metavar="CERTS.parquet",
    help="Write multipliers and plans, from which `rodiu verify` recomputes every bound.",
)
@click.option("--gap", type=GAP, default=0.01, show_default=True, help="Relative gap to close by branching.")
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
    import numpy as np

    from rodiu_jax.certificates import tabulate_leaves, write_certificates
    from rodiu_jax.io.files import write_whole
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.model.plan_json import save_plans
    from rodiu_jax.model.status import Status
    from solvers.bound import bound as bracket
    from solvers.bound import tabulate_bounds

    batch = load_instances(instances)
    answers = bracket(batch, gap=gap, certificates=certificates is not None, quiet=quiet)
    table = tabulate_bounds(answers)
    with write_whole(output) as temporary:
        table.to_parquet(temporary, index=False)
    if plans is not None:
        save_plans([plan for plan in answers.plans() if plan is not None], plans)
    if certificates is not None and answers.leaves is not None:
        made = dict(enumerate(answers.plans()))
        write_certificates(certificates, tabulate_leaves(answers.leaves, made, batch))
    counts = ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    click.echo(f"{len(table)} rows in {output}: {counts}")
    failed = np.flatnonzero(answers.is_any(Status.ERROR)).tolist()
    if failed:
        raise WorkFailed(
            f"{len(failed)} of {len(answers)} scenarios met a number out of range; the first: {failed[0]}"
        )


@click.command()
@click.argument("instances", type=PATH, metavar="FILE.npz")
@click.argument("plans", type=PATH, metavar="PLANS.json")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE.parquet", help="Table to write.")
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
    from rodiu_jax.io.files import write_whole
    from rodiu_jax.model.evaluation import evaluate as score
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.model.plan_json import load_plans

    batch = load_instances(instances)
    table = score(load_plans(plans, batch), batch)
    with write_whole(output) as temporary:
        table.to_parquet(temporary, index=False)
    kept = int(table["feasible"].to_numpy().sum())
    click.echo(f"{len(table)} rows in {output}: {kept} feasible, {len(table) - kept} not")


@click.command()
@click.argument("table", type=PATH, metavar="DIR|TABLE.parquet")
@click.argument("proofs", type=PATH, required=False, metavar="[CERTS.parquet|PLANS.json]")
@click.argument("instances", type=PATH, required=False, metavar="[FILE.npz]")
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
    from rodiu_jax.sweeps.verify import verify as recompute

    verdicts = recompute(table, proofs, instances)
    held = verdicts["ok"].tolist()
    click.echo(f"{sum(held)} of {len(held)} rows hold")
    if not all(held):
        first = held.index(False)
        instance, reason = verdicts["instance"].tolist()[first], verdicts["reason"].tolist()[first]
        raise WorkFailed(
            f"{table}: {len(held) - sum(held)} rows do not hold; the first, instance {instance}: {reason}"
        )


def _verify_sweep(folder: Path) -> None:
    from rodiu_jax.sweeps.verify_sweep import Tally, verify_sweep

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
