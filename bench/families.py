"""``python -m bench.families``: the exact solver on default and hard scenarios, beside itself with every accelerator
off and beside the published formulation.

One thread each; the three take turns on each scenario, in one process. Seconds are those that the processor worked for
it, as other work may share the machine; the time limit is by the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.measure import describe_this_machine
from bench.peers import load_solvers, workers
from bench.records import Study
from bench.study import out_option, read_words, save_study, show_study
from rodiu_jax.model.fields import FIELD_SPECS, REQUIRED_FIELDS
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.status import Status
from solvers._accelerators import ALL, Accelerators
from solvers.exact import _solve_with
from tests.oracles.published import solve_published

_SPEED_UP = np.array([1.0, 2.0, 4.0, 8.0]) ** 0.8


@dataclass(frozen=True)
class Family:
    """Scenarios of one kind.

    Attributes:
      sample: draws n of them from a seed.
      gap: the relative gap asked for.
      published: whether the published formulation is built at all.
    """

    sample: Callable[[int, int], Instances]
    gap: float = 1e-4
    published: bool = True


def _drawn(n: int, seed: int, catalog: str = "seed", budget: float = 1.0, **fields: Any) -> Instances:
    from rodiu_jax.catalog.sampling import sample

    drawn = sample(catalog, n=n, seed=seed)
    return drawn.with_fields(budget=budget * np.asarray(drawn.fields.budget), **fields)


def large(n: int, seed: int) -> Instances:
    """20 query types x 20 models x 40 GPUs x 4 degrees, made of independent draws of the seed's catalogue.

    Entry a of an axis is entry a modulo the catalogue's, of draw a divided by it; each entry of a model or GPU axis
    has sizes and prices of its own, within a third of the catalogue's. Budget and storage grow with the types.
    """
    sizes = {"I": 20, "J": 20, "K": 40, "N": 4}
    drawn = _drawn(4 * n, seed)
    base = dict(zip("IJKN", drawn.shape, strict=True))
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for name in REQUIRED_FIELDS:
        spec = FIELD_SPECS[name]
        rows = []
        for b in range(n):
            parts = [np.asarray(getattr(drawn.one(4 * b + m), name)) for m in range(4)]
            if not spec.axes or spec.axes == "N":
                rows.append(parts[0])
                continue
            at = np.meshgrid(*(np.arange(sizes[a]) for a in spec.axes), indexing="ij")
            inside = tuple(p % base[a] for p, a in zip(at, spec.axes, strict=True))
            draw = at[0] // base[spec.axes[0]]
            rows.append(np.stack(parts)[(draw, *inside)])
        values[name] = np.stack(rows)
    for axis, names in (
        ("J", ("weight_memory", "kv_per_token")),
        ("K", ("gpu_memory", "gpu_compute", "gpu_price")),
    ):
        for name in names:
            values[name] = values[name] * rng.uniform(0.75, 1.33, (n, sizes[axis]))
    for what in ("delay", "error"):
        factor = rng.uniform(0.75, 1.33, (n, 1, sizes["J"], sizes["K"]))
        for part in ("nominal", "deviation"):
            values[f"{what}_{part}"] = values[f"{what}_{part}"] * factor
    grown = sizes["I"] / base["I"]
    values["budget"], values["storage_capacity"] = (
        values["budget"] * grown,
        values["storage_capacity"] * grown,
    )
    shared = ("tp_degree", "tp_speedup")
    values |= {name: values[name][0] for name in shared}
    types, models, gpus = ([f"{a}{m}" for m in range(sizes[a])] for a in "IJK")
    return make_instances(types, models, gpus, drawn.uncertainty, values)


FAMILIES = {
    "seed": Family(_drawn),
    "corrected": Family(partial(_drawn, catalog="corrected")),
    "seed, speed-up n^0.8": Family(partial(_drawn, tp_speedup=_SPEED_UP)),
    "corrected, speed-up n^0.8": Family(partial(_drawn, catalog="corrected", tp_speedup=_SPEED_UP)),
    "seed, one route": Family(partial(_drawn, max_routes=1)),
    "seed, budget x 0.3": Family(partial(_drawn, budget=0.3)),
    "seed, budget x 0.05": Family(partial(_drawn, budget=0.05)),
    "seed, all served": Family(partial(_drawn, unmet_cap=0.0)),
    "seed, Gamma 1.5": Family(partial(_drawn, gamma_delay=1.5, gamma_error=1.5)),
    "large, gap 1 %": Family(large, gap=0.01, published=False),
}


@dataclass(frozen=True)
class Solved:
    """One scenario by one of the ways: processor seconds; value and bound in $; whether proven to the gap in time."""

    seconds: float
    objective: float
    bound: float
    proven: bool


WAYS = ("ours", "all off", "published")


def solve_every_way(
    one: Instances, gap: float, time_limit: float, ways: Sequence[str] = WAYS
) -> dict[str, Solved]:
    """Solve a single scenario by several ways, in turn.

    Raises:
      RuntimeError: our solver ended in an error.
    """

    def run(way: str) -> tuple[float, float, bool]:
        if way == "published":
            outcome = solve_published(one, 0, gap=gap, time_limit=time_limit)
            return outcome.objective, outcome.bound, outcome.optimal
        use = ALL if way == "ours" else Accelerators.none()
        result = _solve_with(use, one, 0, gap=gap, time_limit=time_limit)
        if result.status is Status.ERROR:
            raise RuntimeError(f"{way}: {result.message}")
        return result.upper, result.lower, result.status.closed

    found = {}
    for way in ways:
        began = time.process_time()
        objective, bound, proven = run(way)
        found[way] = Solved(time.process_time() - began, objective, bound, proven)
    return found


def agree(found: Mapping[str, Sequence[Solved]], gap: float) -> tuple[bool, float]:
    """Return whether no way's bound is above another's value, and by how much proven values differ, relative."""
    most, right = 0.0, True
    for row in zip(*found.values(), strict=True):
        values = [s.objective for s in row if s.proven and math.isfinite(s.objective)]
        if values:
            most = max(most, (max(values) - min(values)) / abs(min(values)))
        bounds = [s.bound for s in row if math.isfinite(s.bound)]
        costs = [s.objective for s in row if math.isfinite(s.objective)]
        right &= not (bounds and costs) or max(bounds) <= min(costs) * (1 + 2e-6)
        right &= len({math.isfinite(s.objective) for s in row if s.proven}) <= 1
    return right and most <= gap + 1e-6, most


_COLUMNS = [
    *("family", "scenarios", "way", "s: median", "p95", "most", "median / ours", "p95 / ours", "not proven"),
    *("right", "values differ"),
]


def make_rows(
    name: str, family: Family, solved: Mapping[str, Sequence[Solved]]
) -> list[list[str | int | float | None]]:
    """Return a row of `_COLUMNS` per way."""
    right, most = agree(solved, family.gap)

    def quantiles(way: str) -> tuple[float, float, float]:
        seconds = [s.seconds for s in solved[way]]
        return float(np.median(seconds)), float(np.quantile(seconds, 0.95)), max(seconds)

    own = quantiles("ours")
    rows: list[list[str | int | float | None]] = []
    for way, answers in solved.items():
        median, tail, worst = quantiles(way)
        ratios = [None, None] if way == "ours" else [median / own[0], tail / own[1]]
        unproven = sum(not s.proven for s in answers)
        verdict = "yes" if right else "NO"
        rows.append([name, len(answers), way, median, tail, worst, *ratios, unproven, verdict, f"{most:.1e}"])
    return rows


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FAMILIES)), metavar="[FAMILY ...]")
@click.option("--scenarios", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--large", "many", default=3, show_default=True, help="Scenarios of the large family.")
@click.option("--seed", default=9, show_default=True)
@click.option("--time-limit", default=120.0, show_default=True, help="Seconds for each, by the clock.")
@out_option
def main(
    names: Sequence[str], scenarios: int, many: int, seed: int, time_limit: float, out: Path | None
) -> None:
    """Time the exact solver on families of scenarios beside the published way (all families by default)."""
    machine = describe_this_machine()
    words = f"{read_words(__doc__)} Limit: {time_limit:g} s."
    study = Study(
        name="families", title="Exact solver on families of scenarios", words=words, columns=_COLUMNS
    )
    wrong = False
    with workers() as peers:
        peers.map(load_solvers, [FAMILIES["corrected"].sample(1, 0)] * peers.count)
        for name in names or FAMILIES:
            family = FAMILIES[name]
            n = many if family.sample is large else scenarios
            instances = family.sample(n, seed)
            ways = WAYS if family.published else WAYS[:2]
            task = partial(solve_every_way, gap=family.gap, time_limit=time_limit, ways=ways)
            answers = peers.map(task, [instances.take([b]) for b in range(n)])
            solved = {way: [s[way] for s in answers] for way in ways}
            study.rows += make_rows(name, family, solved)
            wrong |= not agree(solved, family.gap)[0]
            click.echo(f"{name}: done", err=True)
            save_study(study, machine, out)
    show_study(study, machine, None, right=not wrong)


if __name__ == "__main__":
    main()
