"""Commands that turn scenarios and plans into advice: choose, stress, diagnose, robustness."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rodiu_jax.cli.options import COUNT, GAP, PATH, SECONDS, FloatRange, Numbers, summaries, workers_option
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps.method_table import METHODS

if TYPE_CHECKING:
    from rodiu_jax.model.plan import Plan
    from rodiu_jax.report.parts.section import Section


_TYPED = "rodiu.typed"  # key of click's context, which every command of a call can read


class _DecisionCommand(click.Command):
    """A command that remembers how it was typed, without the options that say where its answer goes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the arguments, then parse them."""
        words, typed = iter(args), ["rodiu", str(ctx.info_name)]
        for word in words:
            if word in ("-o", "--folder"):
                next(words, None)
            elif word not in ("--json", "--quiet") and not word.startswith(("-o", "--folder=")):
                typed.append(word)
        ctx.meta[_TYPED] = shlex.join(typed)
        return super().parse_args(ctx, args)


def _decision_options(command: Any) -> Any:
    """Add the options that say where an answer goes; `_tell` reads them."""
    for option in (
        click.option("--quiet", is_flag=True, help="Show no progress on standard error."),
        click.option(
            "-o",
            "--folder",
            type=PATH,
            metavar="FOLDER",
            help="Write JSON, tables, pictures and plans there. `rodiu report DIR` makes a section of the sweep's page "
            "of each folder DIR/decisions/NAME.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def _prepare(folder: Path | None) -> None:
    """Refuse a place that cannot be written before the work begins."""
    from rodiu_jax.io.files import make_folder

    if folder is not None:
        make_folder(folder)


def _tell(
    section: Section,
    values: dict[str, Any],
    folder: Path | None,
    as_json: bool,
    plans: Sequence[Plan | None] = (),
) -> None:
    """Write an answer to its folder, where one is given, and print it."""
    import json

    from rodiu_jax.report.parts.terminal import section_parts, show

    parts = section_parts(section)
    if folder is not None:
        from rodiu_jax.report.page.kept_answers import write_decision

        found = [plan for plan in plans if plan is not None]
        files = write_decision(
            section, values, folder, made=click.get_current_context().meta[_TYPED], plans=found
        )
        parts.append(f"{len(files)} files written to {folder}.")
    if as_json:
        click.echo(json.dumps(values, indent=1, allow_nan=False))
    else:
        show(parts)


@click.command(cls=_DecisionCommand)
@click.argument("source", metavar="FILE.npz|SWEEP_DIR|SPEC.toml")
@click.option(
    "--criterion",
    type=click.Choice(list(CRITERIA)),
    default=next(iter(CRITERIA)),
    show_default=True,
    help=summaries(CRITERIA),
)
@click.option(
    "--level",
    type=FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Level of CVaR.",
)
@click.option(
    "--no-recourse", is_flag=True, help="Fix the routing too, instead of routing anew in every scenario."
)
@click.option(
    "--weights",
    type=PATH,
    metavar="FILE.csv",
    help="How much each scenario of FILE.npz counts: columns instance, weight (default: all alike).",
)
@click.option(
    "--gap",
    type=GAP,
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
    weights: Path | None,
    gap: float,
    seed: int,
    as_json: bool,
    folder: Path | None,
    quiet: bool,
) -> None:
    """Choose one deployment for many scenarios: what to rent before prices, demand and delays are known.

    \b
    Candidates are the deployments best for some scenario, for the mean one, and their neighbours (local search). A
    candidate must keep every promise in every scenario; where none does, the nearest is named. Scenarios count alike
    without --weights; one that counts 0 is left out. Held out, never chosen with: fresh samples (a sweep, a spec or a
    preset), or a fifth of a file of at least 500 scenarios.

    \b
    --json: criterion, level, recourse; meets (false: no candidate keeps every promise everywhere, value is null);
    value ($ per period, of checked plans); lower_bound, upper_bound: between them lies the least value of any
    deployment (two-stage lower bound), for regret the chosen plan's own regret; interval: the chosen plan's value by
    its brackets; gap: how much better any deployment could be; feasible_share, broken (what breaks, in how many
    scenarios); deployments [{model, gpu, tp, replicas: where there are several}]; plan (without recourse); candidates,
    scenarios; hopeless (scenarios without any plan); value_of_stochastic_solution [from, to] over the mean scenario's
    plan; without_recourse or with_recourse {value, feasible_share}: the same deployment routed the other way; hold_out;
    frontier. With weights, shares are by weight, and effective_scenarios of equal weight tell as much.
    """
    from rodiu_jax.decisions.choose.search import choose as pick
    from rodiu_jax.decisions.sources import read_scenarios
    from rodiu_jax.report.text.choose_section import describe_choice

    _prepare(folder)
    read = read_scenarios(source, gap=gap, seed=seed, quiet=quiet, weights=weights)
    choice = pick(
        read.instances,
        answers=read.answers,
        weights=read.weights,
        criterion=criterion,
        level=level,
        recourse=not no_recourse,
        hold_out=read.hold_out,
        hold_out_weights=read.hold_out_weights,
        gap=gap,
        seed=seed,
        quiet=quiet,
    )
    _tell(describe_choice(choice), choice.to_json(), folder, as_json, [choice.plan])


@click.command(cls=_DecisionCommand)
@click.argument("instances", type=PATH, metavar="FILE.npz")
@click.argument("plans", type=PATH, metavar="PLANS.json")
@click.option("--draws", type=COUNT, default=1_000_000, show_default=True, help="Per plan and scenario.")
@click.option(
    "--scales",
    type=Numbers(),
    default="0.5,1,1.5",
    show_default=True,
    help="What deviations are multiplied by.",
)
@click.option(
    "--beta", type=Numbers(), default="2,5", show_default=True, help="Parameters of the beta distribution."
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
    help="Also solve and stress the plans for Gamma = 0 and for diu of every scenario that a plan names; where rates "
    "are limited also those that trust them, buy for 1.1, 1.2 and 1.5 times the traffic, or fill replicas to 0.85.",
)
@workers_option("scenarios of --peers")
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
    uniform on [0, 1], or Beta, or all at the worst the adversary of MODEL section 3 can do (worst). Where replicas
    sustain limited rates, shortfalls are drawn alike: how often a pair has more load than it may, and by how much.

    \b
    --json: the settings; results, a row per plan, instance, distribution and scale (violations, probability with its
    exact interval lower to upper, breaks_at, first, first_share, costs with quantiles and their resolution); promises,
    the same counts per promise. kind: given, or solved for comparison: deterministic (Gamma = 0), diu, and with limited
    rates nominal rates, traffic x1.1 (x1.2, x1.5), utilization 0.85; no_plan names those that cannot be, as the
    scenario is infeasible. Limited rates add overloaded (its interval overloaded_lower to overloaded_upper),
    overload_max and overload_mean.
    """
    from rodiu_jax.decisions.stress.draws import stress as run
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.model.plan_json import load_plans
    from rodiu_jax.report.text.stress_section import describe_stress, stress_to_json

    batch = load_instances(instances)
    read = load_plans(plans, batch)
    if not read:
        raise InputError(plans, "", "at least one plan")
    _prepare(folder)
    result = run(read, batch, scales=scales, beta=beta, **options)
    _tell(describe_stress(result), stress_to_json(result), folder, as_json)


@click.command(cls=_DecisionCommand)
@click.argument("instances", type=PATH, metavar="FILE.npz")
@click.option("--index", type=click.IntRange(min=0), required=True, metavar="B", help="Scenario to diagnose.")
@click.option("--time-limit", type=SECONDS, help="Seconds for each of the solves, some dozens.")
@workers_option("changed scenarios")
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
    adjustments of the seed document; what serving everyone takes, and the smallest set of limits that together leave no
    plan or keep everyone from being served, each of them proven to be needed; how much cheaper idle GPUs must be. Where
    scenarios have replicas, rates or quotas, no prices and idle GPUs, but adjustments by one GPU of a quota, one
    replica, fuller replicas.

    \b
    --json: instance, status, objective, lower_bound, plan; binding [{constraint, name, shadow_price, unit, value,
    holds_from, holds_to, per_percent, relaxed_price, resolved}]; adjustments [{name, lower_bound, upper_bound,
    saving_lower, saving_upper, unmet_share}]; everyone {unmet, extra_lower, extra_upper, levers}; idle [{gpu, price,
    certified, cheaper_from, cheaper_to, deployments, reason}]; conflict {limits [{constraint, name, value}], unproven,
    smallest, capped} or null. Prices in $ per period and unit; null: unknown or none.
    """
    from rodiu_jax.decisions.diagnose.diagnosis import diagnose as run
    from rodiu_jax.model.npz import load_instances
    from rodiu_jax.report.text.diagnosis_section import describe_diagnosis

    batch = load_instances(instances)
    batch.check_index(index, "--index")
    _prepare(folder)
    diagnosis = run(batch, index, time_limit=time_limit or math.inf, workers=workers, quiet=quiet)
    _tell(
        describe_diagnosis(diagnosis),
        diagnosis.to_json(),
        folder,
        as_json,
        [diagnosis.answer.plan_for(index)],
    )


@click.command(cls=_DecisionCommand)
@click.argument("source", metavar="FILE.npz|PRESET|SPEC.toml")
@click.option(
    "--gammas",
    type=Numbers(),
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
    type=click.Choice([name for name, info in METHODS.items() if info.solves]),
    default="exact",
    show_default=True,
    help="exact: HiGHS; bracket: on the device, for many scenarios; cascade: bracket, then exact where it stays wide.",
)
@click.option("--gap", type=GAP, help="Relative gap of each optimum (default 1e-6; bracket: 0.01).")
@click.option(
    "--scenarios", type=COUNT, help="Use the first so many (default: all; of a spec, all its rows)."
)
@click.option("--draws", type=COUNT, default=100_000, show_default=True, help="Per plan and distribution.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the exact intervals.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option("--time-limit", type=SECONDS, help="Seconds for each of the solves.")
@workers_option()
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
    plans cost that ignore that pairing shrinks deviations) and scenarios_by_gamma. Where replicas sustain limited rates
    also rates (a row per Gamma_q: cost, measured and proven overload, the plain headroom that costs the same) and
    headroom (a row per factor on the traffic).
    """
    from rodiu_jax.decisions.robustness import read_instances
    from rodiu_jax.decisions.robustness import robustness as run
    from rodiu_jax.report.text.robustness_section import describe_robustness, robustness_to_json

    batch = read_instances(source)
    if scenarios is not None:
        batch = batch.take(range(min(scenarios, batch.size)))
    _prepare(folder)
    result = run(batch, time_limit=time_limit or math.inf, **options)
    _tell(describe_robustness(result), robustness_to_json(result), folder, as_json)
