"""Random deviations of plans beside NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.measure import Case, Side, Spec
from rodiu_jax.catalog import sampling
from rodiu_jax.decisions.stress.linear_forms import expose
from rodiu_jax.decisions.stress.tally import BINS, draw_tally, mean_share
from rodiu_jax.model.plan import plan_arrays
from solvers.exact import solve_instance
from tests.oracles.numpy_stress import Counts, stress_one


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Four plans, ``n`` draws of each."""
    instances = sampling.sample("seed", n=4, seed=10)
    certain = instances.with_uncertainty("none")
    found = [solve_instance(certain, b).plan for b in range(instances.size)]
    plans = plan_arrays([plan for plan in found if plan is not None], instances)
    at = np.arange(len(plans.share))
    forms = expose(instances, plans, at, at, reality="ddu", seed=1).forms
    scales = np.array([0.5, 1.0, 1.5])

    def peer() -> list[Counts]:
        rng = np.random.default_rng(2)
        arrays = zip(forms.delay, forms.error, forms.money, forms.room, strict=True)
        return [stress_one(rng, *map(np.asarray, a), draws=n, scales=scales, bins=BINS) for a in arrays]

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        ours, theirs = results
        both = np.stack([ours.violations, np.stack([c.violations for c in theirs])]) / n
        pooled = both.mean(0)
        spread = np.sqrt(np.maximum(2 * pooled * (1 - pooled) / n, 1.0 / n**2))
        far = float((np.abs(both[0] - both[1]) / spread).max())
        means = np.stack([mean_share(ours, n), np.array([c.total for c in theirs]) / n])
        deviation = np.sqrt(np.array([c.square for c in theirs]) / n - means[1] ** 2)
        cost = float((np.abs(means[0] - means[1]) / (deviation * np.sqrt(2 / n))).max())
        text = f"{pooled.size} probabilities within {far:.1f} standard errors, mean costs within {cost:.1f}"
        return max(far, cost) < 6.0, text

    sides = (
        Side("rodiu stress", lambda: draw_tally(forms, draws=n, scales=scales, table=None), len(at) * n),
        Side("NumPy, in blocks", peer, len(at) * n, target=3),
    )
    yield iter([Case(f"4 plans x {n:,} draws", sides, judge)])


SPEC = Spec(
    name="stress",
    measures="Draws per second of all deviations of a plan (the deterministic optimum of a default scenario),"
    " uniform, with every statistic: violations of each promise at three scales, which breaks first, the cost's"
    " moments, extremes and histogram of 4,096 bins. Making the forms is not included.",
    item="draw",
    peers="tests/oracles/numpy_stress.py: NumPy's generator and the same statistics, plan by plan in"
    " blocks of 16,384; neither side draws routes that a plan does not use.",
    quality="every violation probability and mean cost against the peer's, in standard errors (144 are "
    "compared, most of them 0; 6 fails).",
    precision="deviations of 27 bits in float64, sums in whole numbers; peer: float64",
    by_hand="with 10 routes in use a draw is 20 deviations from 10 threefry blocks of 120 integer operations, 12"
    " promises at three scales and some 200 float64 operations: 1,400 operations; nothing is written but the"
    " tally.",
    sizes=(2**14, 2**18),
    large=(2**24,),
    build=build,
)
