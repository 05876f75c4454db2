"""``python -m bench.shadow_prices``: do shadow prices predict within their stated ranges?

Random points inside the ranges of every limit of many scenarios, the ends too, are solved again exactly. A prediction
is right where the proven optimum is within the stated tolerance of it
(`rodiu_jax.decisions.diagnose.shadow_prices.tolerance`). Exit status 1 where one is wrong.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import numpy as np

from bench.measure import describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.decisions.diagnose.linear_programs import relax_deployment
from rodiu_jax.decisions.diagnose.resolve import Resolver
from rodiu_jax.decisions.diagnose.shadow_prices import find_shadow_prices, tolerance
from rodiu_jax.runtime.progress import progress
from solvers.pool import Pool, solve_iter


@click.command()
@click.option("--instances", "count", default=50, show_default=True, help="Scenarios.")
@click.option(
    "--points", default=3, show_default=True, help="Random ones inside each range, besides its ends."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--catalog", default="seed", show_default=True)
@out_option
def main(count: int, points: int, seed: int, catalog: str, out: Path | None) -> None:
    """Solve again what shadow prices predict."""
    study = Study(
        name="shadow-prices", title="Shadow prices against solving again", words=read_words(__doc__)
    )
    machine = describe_this_machine()
    instances = sample(catalog, n=count, seed=seed)
    rng = np.random.default_rng(seed)
    limits = ranges = solved = right = 0
    worst, widths = 0.0, []
    with Pool() as pool, progress("shadow prices", 40 * count) as bar:
        for b in range(instances.size):
            resolver = Resolver(instances, b, partial(solve_iter, workers=pool), bar, spread=pool.map)
            (base,) = resolver([{}])
            plan = base.plan
            if plan is None:
                continue
            fields = instances.one(b)
            found = find_shadow_prices(resolver, plan, base.upper, relax_deployment(instances, b))
            priced = [s for s in found if s.price > 0]
            held = [s for s in priced if s.holds_to > s.holds_from]
            at = [
                (s, v)
                for s in held
                for v in [s.holds_from, *rng.uniform(s.holds_from, s.holds_to, points).tolist(), s.holds_to]
            ]
            limits, ranges = limits + len(priced), ranges + len(held)
            widths += [(s.holds_to - s.holds_from) / s.value for s in held]
            for (s, value), result in zip(
                at, resolver([s.limit.at(fields, v) for s, v in at], plan), strict=True
            ):
                change = (value - s.value) * s.price
                slack = tolerance(base.upper, change)
                predicted = base.upper - change
                off = max(result.lower - predicted, predicted - result.upper)
                solved, right, worst = solved + 1, right + (off <= slack), max(worst, off / slack)
                if off > slack:
                    wrong = f"off by ${off:.4g}, tolerance ${slack:.4g}"
                    study.notes.append(f"wrong: scenario {b}, {s.limit.label} at {value:.6g}: {wrong}")
    study.columns = [
        "catalogue",
        "scenarios",
        "limits with a price",
        "with a range",
        "median width",
        "points",
        "as predicted",
        "worst / tolerance",
    ]
    width = f"{np.median(widths):.2%} of the limit" if widths else "-"
    cells = catalog, instances.size, limits, ranges, width, solved, right, f"{worst:.2f}"
    study.rows = [list(cells)]
    show_study(study, machine, out, right=right >= solved)


if __name__ == "__main__":
    main()
