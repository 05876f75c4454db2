"""``python -m bench.regret``: do regret intervals contain the exact regret?

Scenarios of each catalogue are chosen for by `rodiu_jax.decisions.choose.search.choose` with the criterion regret.
HiGHS then solves every one of them exactly (relative gap 1e-6), and the routing of every candidate that the choice
crossed with all scenarios, one linear program each. Audited are the interval of each candidate's regret in each
scenario and the interval of its largest regret that the choice's table states. Exit status 1 where one is wrong.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np

from bench.peers import routing, workers
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, deployed_triples

_EXACT = 2e-6
"""Relative to the cost: what the exact optima and linear programs are known to."""


def _deployment(name: str) -> Deployment:
    """Return the deployment that a choice's table calls ``name``."""
    if name == "nothing":
        return ()
    pairs = []
    for pair in name.split("; "):
        where, degree = pair.rsplit(" x", 1)
        model, gpu = where.split("@")
        pairs.append(DeployedPair(model, gpu, int(degree)))
    return tuple(pairs)


def _fit_weights(one: Instances, at: np.ndarray) -> bool:
    """Return whether every model's weights fit at all, which the linear program leaves to its caller."""
    f = one.one(0)
    return bool((f.gpu_memory[at[:, 1]] * f.tp_degree[at[:, 2]] >= f.weight_memory[at[:, 0]]).all())


def _share(inside: np.ndarray) -> str:
    return f"{int(inside.sum()):,} of {inside.size:,}"


@click.command()
@click.option(
    "--scenarios", default=100, show_default=True, type=click.IntRange(min=1), help="Per catalogue."
)
@click.option("--seed", default=11, show_default=True)
@click.option("--gap", default=0.01, show_default=True, help="To which scenarios are bracketed at first.")
@out_option
def main(scenarios: int, seed: int, gap: float, out: Path | None) -> None:
    """Audit the intervals of regrets."""
    from bench.measure import describe_this_machine
    from rodiu_jax.catalog.sampling import sample
    from rodiu_jax.decisions.choose.search import choose
    from rodiu_jax.decisions.sources import bracket_all
    from solvers.pool import solve
    from solvers.recourse import recourse

    machine = describe_this_machine()
    columns = ["catalogue", "scenarios", "candidates", "regrets inside", "width, mean", "most"]
    columns += ["largest regrets inside", "width, mean", "most", "chosen: interval", "exact"]
    words = f"{read_words(__doc__)} Widths are relative to the scenario's own optimum; $ per period."
    study = Study(name="regret", title="Regret intervals against exact regrets", words=words, columns=columns)
    right = True
    for catalog in ("seed", "corrected"):
        instances = sample(catalog, n=scenarios, seed=seed)
        known = bracket_all(instances, gap=gap)
        choice = choose(instances, answers=known, criterion="regret", gap=gap)
        names = choice.table["deployment"].tolist()
        deployments = [_deployment(name) for name in names]
        optimum = solve(instances).upper
        singles = [instances.take([b]) for b in range(scenarios)]
        at = [deployed_triples(instances, d) for d in deployments]
        tasks = [(one, a) for a in at for one in singles]
        with workers() as peers:
            costs = np.array(peers.map(routing, tasks)).reshape(len(at), scenarios)
        fits = np.array([[_fit_weights(one, a) for one in singles] for a in at])
        regret = np.where(fits, costs, math.inf) - optimum
        slack = _EXACT * np.abs(optimum)

        found = recourse(instances, deployments)
        lower, upper = np.maximum(found.lower - known.upper, 0.0), found.upper - known.lower
        inside = (lower - slack <= regret) & (regret <= upper + slack)
        wide = np.subtract(upper, lower, where=np.isfinite(upper), out=np.zeros_like(upper)) / np.abs(optimum)

        largest, where = regret.max(1), regret.argmax(1)
        low, high = (choice.table[n].to_numpy() for n in ("regret_lower", "regret"))
        covered = (low - slack[where] <= largest) & (largest <= high + slack[where])
        finite = np.isfinite(high)
        span = (high[finite] - low[finite]) / np.abs(optimum[where][finite])
        chosen = int(choice.table["chosen"].to_numpy().argmax())
        cells = (catalog, scenarios, len(names), _share(inside), f"{wide.mean():.3%}", f"{wide.max():.3%}")
        cells += (_share(covered), f"{span.mean():.3%}", f"{span.max():.3%}")
        cells += (f"{low[chosen]:,.2f} to {high[chosen]:,.2f}", f"{largest[chosen]:,.2f}")
        study.rows.append(list(cells))
        right &= bool(inside.all() and covered.all())
    show_study(study, machine, out, right=right)


if __name__ == "__main__":
    main()
