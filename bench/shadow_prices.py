"""Do shadow prices predict? Random points inside the stated ranges of many scenarios, solved again: a slow check.

    python -m bench.shadow_prices [--instances 50] [--points 2] [--seed 0] [--catalog seed]

Prints a line per limit whose prediction fails, and at the end how many points were right. A prediction is right where
the proven optimum is within the stated tolerance (`rodiu_jax.decisions.shadow.tolerance`) of it.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from rodiu_jax.decisions.prices import price
from rodiu_jax.decisions.resolve import Resolver
from rodiu_jax.decisions.shadow import shadows, tolerance
from rodiu_jax.sampling import sample
from rodiu_jax.sweeps.progress import progress
from solvers.pool import Pool, solve_iter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=50)
    parser.add_argument("--points", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--catalog", default="seed")
    chosen = parser.parse_args()
    instances = sample(chosen.catalog, n=chosen.instances, seed=chosen.seed)
    rng = np.random.default_rng(chosen.seed)
    limits = points = right = 0
    worst = 0.0
    with Pool() as pool, progress("shadow prices", 30 * chosen.instances) as bar:
        for b in range(instances.size):
            resolver = Resolver(instances, b, partial(solve_iter, workers=pool), bar)
            (base,) = resolver([{}])
            if base.plan is None:
                continue
            fields = instances.one(b)
            found = shadows(resolver, base.plan, base.objective, price(instances, b))
            held = [s for s in found if s.holds_to > s.holds_from]
            at = [(s, v) for s in held for v in rng.uniform(s.holds_from, s.holds_to, chosen.points).tolist()]
            limits += len(held)
            for (s, value), result in zip(
                at, resolver([s.limit.at(fields, v) for s, v in at], base.plan), strict=True
            ):
                change = (value - s.value) * s.price
                slack = tolerance(base.objective, change)
                off = max(
                    result.bound - (base.objective - change), base.objective - change - result.objective
                )
                points += 1
                right += off <= slack
                worst = max(worst, off / slack)
                if off > slack:
                    print(
                        f"{b} {s.limit.label} at {value:.6g}: off by ${off:.4g}, tolerance ${slack:.4g}",
                        flush=True,
                    )
    print(
        f"{instances.size} scenarios of {chosen.catalog}, {limits} limits with a range, {points} points inside: "
        f"{right} as predicted; the worst is at {worst:.2f} of its tolerance"
    )


if __name__ == "__main__":
    main()
