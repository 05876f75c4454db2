"""``python -m bench.fleets``: the exact solver on fleets beside the plain formulation, both on one thread.

Scenarios of `serving`, solved to 1e-4: the plain formulation (r whole, w binary, x <= w <= r <= R w) in HiGHS as it
comes, and ours. The two take turns on each scenario, in one process. Seconds are those that the processor worked for
it, as other work may share the machine; the time limit is by the clock, and what is stopped by it counts with what it
took. Ratios are of each scenario, plain over ours. The root gap is that of the plain linear relaxation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from bench.families import Solved, agree
from bench.measure import describe_this_machine
from bench.peers import workers
from bench.records import Study
from bench.study import out_option, read_words, save_study, show_study
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.status import Status
from solvers.exact import solve_instance
from tests.oracles.plain_fleet import solve_plain

Shape = tuple[int, int, int, int]

SHAPES: dict[str, Shape] = {"5x4x6x4": (5, 4, 6, 4), "20x20x40x4": (20, 20, 40, 4)}
RENTS = (2.0, 30.0, 300.0, 3000.0)
GAMMAS = (0.0, 2.0)
GAP = 1e-4

_NEVER = 1e9
"""A promise that nothing breaks, and room that nothing fills."""


def serving(n: int, seed: int, *, shape: Shape, rent: float, gamma: float, quota: bool) -> Instances:
    """Draw ``n`` scenarios in which rent and unmet traffic are all that costs, and rates, replicas, quotas decide.

    GPUs cost $0.5 to $6 an hour (log-uniform). A replica of degree n of a model with weights from 8 to 80 GB (log-
    uniform) sustains, of each type, 60 queries/h for each ``price^0.9`` of its GPU and ``n^0.85``, divided by the
    weights over 20 GB to the power 0.7 and by what the type asks (log-uniform from 0.3 to 3), times noise (log-normal,
    0.25) for each type, model and GPU; a seventh of these cells nobody measured (rate 0), and nothing runs where its
    weights do not fit (GPUs of 24, 48 or 80 GB). Rates may fall short by 5 to 40 %. The traffic of the types is
    log-uniform from 1 to 10, then scaled alike so that whole traffic at the cheapest rates would cost ``rent`` with
    fractions of GPUs. A query unmet costs 3 to 20 times what serving it would so.

    Args:
      shape: (I, J, K, N) query types, models, GPUs, degrees 1, 2, 4, ...
      rent: $/h of the cheapest fractions of GPUs that serve everyone at full load.
      gamma: types whose rates fall short at once on a pair.
      quota: whether devices are limited: two GPU configurations are one device, and each device has a third of the GPUs
        that the cheapest fractions take, two at least.
    """
    rows = [_draw(np.random.default_rng([seed, b]), shape, rent, gamma, quota) for b in range(n)]
    _, _, gpus, degrees = shape
    values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    values |= {"tp_degree": 2 ** np.arange(degrees), "tp_speedup": np.ones(degrees)}
    queries, names, chips = (
        [f"{kind}{m}" for m in range(size)] for kind, size in zip("qmg", shape, strict=False)
    )
    devices = [f"d{k // 2}" for k in range(gpus)]
    return make_instances(queries, names, chips, "ddu" if gamma else "none", values, gpu_devices=devices)


def _draw(
    rng: np.random.Generator, shape: Shape, rent: float, gamma: float, quota: bool
) -> dict[str, np.ndarray]:
    types, models, gpus, degrees = shape
    degree = 2.0 ** np.arange(degrees)

    def spread(low: float, high: float, *size: int) -> np.ndarray:
        return np.exp(rng.uniform(math.log(low), math.log(high), size))

    price, weights = spread(0.5, 6.0, gpus), spread(8.0, 80.0, models)
    memory = rng.choice([24.0, 48.0, 80.0], gpus)
    asks = spread(0.3, 3.0, types)
    rate = (
        60.0 / asks[:, None, None] * price**0.9 / (weights[:, None] / 20.0) ** 0.7
        * np.exp(rng.normal(0.0, 0.25, (types, models, gpus)))
    )  # fmt: skip
    rate = np.where(rng.random(rate.shape) < 1 / 7, 0.0, rate)[..., None] * degree**0.85
    fits = weights[:, None, None] <= memory[:, None] * degree  # J,K,N
    rate = np.where(fits, rate, 0.0)  # the plain formulation has no row of memory
    traffic = spread(1.0, 10.0, types)
    with np.errstate(divide="ignore"):
        each = np.where(fits & (rate > 0), price[:, None] * degree / rate, np.inf).reshape(types, -1)
    each = np.where(
        np.isinf(each.min(1)), 1.0, each.min(1)
    )  # $ per query of each type; 1 where nobody serves it
    traffic *= rent / (traffic * each).sum()
    with np.errstate(divide="ignore"):
        best = (
            np.where(fits & (rate > 0), price[:, None] * degree / rate, np.inf).reshape(types, -1).argmin(1)
        )
    at = np.unravel_index(best, (models, gpus, degrees))
    taken = float((traffic * each / price[at[1]]).sum())
    limit = max(2.0, math.ceil(taken / 3.0)) if quota else math.inf
    nothing = np.zeros((types, models, gpus))
    return {
        "arrival_rate": traffic, "input_tokens": np.full(types, 512.0), "output_tokens": np.full(types, 128.0),
        "weight_memory": weights, "kv_per_token": np.zeros(models), "gpu_memory": memory,
        "gpu_compute": np.full(gpus, _NEVER), "gpu_price": price, "compute_per_token": np.zeros(types),
        "token_size": np.zeros(types), "storage_price": np.asarray(0.0), "delay_penalty": np.zeros(types),
        "unmet_penalty": each * rng.uniform(3.0, 20.0, types), "delay_nominal": nothing, "delay_deviation": nothing,
        "error_nominal": nothing, "error_deviation": nothing, "delay_impact": np.zeros((models, gpus)),
        "error_impact": np.zeros((models, gpus)), "delay_threshold": np.full(types, _NEVER),
        "error_threshold": np.ones(types), "gamma_delay": np.asarray(0.0), "gamma_error": np.asarray(0.0),
        "budget": np.asarray(1e3 * rent), "rental_hours": np.asarray(1.0), "storage_capacity": np.asarray(_NEVER),
        "residency_hours": np.asarray(0.1), "unmet_cap": np.asarray(1.0), "max_routes": np.asarray(0),
        "max_replicas": np.full((models, gpus), 10_000), "throughput": rate,
        "throughput_shortfall": rng.uniform(0.05, 0.4, (types, models, gpus)),
        "gamma_throughput": np.asarray(gamma), "max_utilization": np.asarray(0.9),
        "gpu_quota": np.full(gpus, limit),
    }  # fmt: skip


class Compared(NamedTuple):
    """One scenario by both ways, and how far the plain relaxation is below the best plan, relative."""

    ours: Solved
    plain: Solved
    root_gap: float


def compare(one: Instances, time_limit: float) -> Compared:
    """Solve a single scenario both ways, one after the other.

    Raises:
      RuntimeError: our solver ended in an error.
    """
    began = time.process_time()
    answer = solve_instance(one, 0, gap=GAP, time_limit=time_limit)
    if answer.status is Status.ERROR:
        raise RuntimeError(f"ours: {answer.message}")
    ours = Solved(time.process_time() - began, answer.upper, answer.lower, answer.status.closed)
    began = time.process_time()
    found = solve_plain(one, 0, gap=GAP, time_limit=time_limit)
    plain = Solved(time.process_time() - began, found.objective, found.bound, found.optimal)
    relaxed = solve_plain(one, 0, relax=True, time_limit=time_limit)
    best = min(ours.objective, plain.objective)
    return Compared(ours, plain, 1.0 - relaxed.bound / best if relaxed.optimal else math.nan)


_COLUMNS = [
    *(
        "shape",
        "rent, $/h",
        "gamma",
        "quota",
        "scenarios",
        "ours, s: median",
        "p95",
        "plain, s: median",
        "p95",
    ),
    *(
        "plain / ours: median",
        "p95 / p95",
        "least",
        "ours not proven",
        "plain not proven",
        "root gap, %",
        "right",
    ),
]


def make_row(case: Sequence[str | float], found: Sequence[Compared]) -> list[str | int | float | None]:
    """Return a row of `_COLUMNS`."""
    ours, plain = (np.array([getattr(c, way).seconds for c in found]) for way in ("ours", "plain"))
    right, _ = agree({"ours": [c.ours for c in found], "plain": [c.plain for c in found]}, GAP)
    tails = np.quantile(ours, 0.95), np.quantile(plain, 0.95)
    gaps = [c.root_gap for c in found if not math.isnan(c.root_gap)]
    return [
        *case,
        len(found),
        float(np.median(ours)),
        float(tails[0]),
        float(np.median(plain)),
        float(tails[1]),
        float(np.median(plain / ours)),
        float(tails[1] / tails[0]),
        float((plain / ours).min()),
        sum(not c.ours.proven for c in found),
        sum(not c.plain.proven for c in found),
        100 * float(np.mean(gaps)) if gaps else None,
        "yes" if right else "NO",
    ]


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)), help="Default: both.")
@click.option("--rent", "rents", multiple=True, type=float, help="$/h; default: 2, 30, 300, 3000.")
@click.option("--gamma", "gammas", multiple=True, type=float, help="Default: 0, 2.")
@click.option(
    "--scenarios", default=20, show_default=True, type=click.IntRange(min=1), help="Of the small shape."
)
@click.option("--large", default=2, show_default=True, type=click.IntRange(min=1), help="Of the large shape.")
@click.option("--seed", default=20, show_default=True)
@click.option("--time-limit", default=60.0, show_default=True, help="Seconds for each, by the clock.")
@out_option
def main(
    shapes: Sequence[str],
    rents: Sequence[float],
    gammas: Sequence[float],
    scenarios: int,
    large: int,
    seed: int,
    time_limit: float,
    out: Path | None,
) -> None:
    """Time the exact solver on fleets beside the plain formulation; each case without and with quotas."""
    machine = describe_this_machine()
    words = f"{read_words(__doc__)} Limit: {time_limit:g} s."
    study = Study(name="fleets", title="Exact solver on fleets", words=words, columns=_COLUMNS)
    with workers() as peers:
        warm = serving(peers.count, 0, shape=(2, 1, 2, 1), rent=2.0, gamma=0.0, quota=False)
        peers.map(partial(compare, time_limit=time_limit), [warm.take([b]) for b in range(peers.count)])
        cases = product(shapes or SHAPES, rents or RENTS, gammas or GAMMAS, (False, True))
        for shape, rent, gamma, quota in cases:
            n = scenarios if shape == "5x4x6x4" else large
            drawn = serving(n, seed, shape=SHAPES[shape], rent=rent, gamma=gamma, quota=quota)
            task = partial(compare, time_limit=time_limit)
            found = peers.map(task, [drawn.take([b]) for b in range(n)])
            study.rows.append(make_row([shape, rent, gamma, "yes" if quota else "no"], found))
            click.echo(f"{shape}, ${rent:g}/h, gamma {gamma:g}: {study.rows[-1][9]:.1f} times", err=True)
            save_study(study, machine, out)
    show_study(study, machine, None, right=all(row[-1] == "yes" for row in study.rows))


if __name__ == "__main__":
    main()
