"""``python -m bench.roofline``: how near each stage comes to the machine's peaks, and what share of the time it takes.

Peaks are measured in the same run by small kernels: memory bandwidth by a + s b over arrays far larger than any cache,
arithmetic by chains of multiply-adds in registers, in float32 and in float64. Bytes and operations of a stage are those
that XLA counts in its compiled program. XLA counts the body of a loop once, so a stage with a loop is compiled without
it too, and the difference counts as often as the loop runs; only the draw's loops over names and the two loops inside
an iteration of a routing stay counted once. Bytes are those between fused kernels: what the caches hold is counted too,
so a share above 100 % of the bandwidth says that the state stays in the caches.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from bench.inputs import RENTED, make_random_plans
from bench.measure import count_by_xla, describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.catalog import draw_program, load_catalog, sampling
from rodiu_jax.model.evaluation import _score_crossed_block, _score_pair_block, _take_pairs
from rodiu_jax.model.fields import FIELD_SPECS, batch_axes
from rodiu_jax.model.plan import plan_arrays
from rodiu_jax.model.scenario_blocks import keep_on_device
from rodiu_jax.runtime.devices import by_device
from solvers import dual
from solvers.bracket import brackets
from solvers.neighbours import Search
from solvers.recourse_brackets import write_rows
from solvers.routing import route_deployment

_REPEATS = 7


@dataclass(frozen=True)
class Peaks:
    """Bytes per second of memory; operations per second by precision."""

    bandwidth: float
    arithmetic: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """What a stage took: seconds for ``scenarios``, XLA's bytes and operations, and the precision of its operations."""

    name: str
    precision: str
    scenarios: int
    seconds: float
    bytes_accessed: float
    operations: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes_accessed


def _seconds(run: Callable[[], Any]) -> float:
    """Return the seconds of the median of some calls after a warm-up; wait for the device each time."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure_peaks(entries: int, *, width: int, length: int) -> Peaks:
    """Measure the peaks of the default device.

    Args:
      entries: of each array of the bandwidth's kernel, float32.
      width: chains of the arithmetic's kernel, side by side.
      length: multiply-adds of a chain in a turn of its loop. An accelerator starts a kernel and asks the host at every
        turn, so that one must take far longer than that (some 30 us).
    """

    @jax.jit
    def triad(a: jax.Array, b: jax.Array) -> jax.Array:
        return a + 3.0 * b

    @jax.jit
    def chain(x: jax.Array, steps: jax.Array) -> jax.Array:
        def step(_: Any, x: jax.Array) -> jax.Array:
            for _ in range(length):
                x = x * 0.999 + 0.001
            return x

        return jax.lax.fori_loop(0, steps, step, x)

    with jax.enable_x64(True):
        a = jnp.ones(entries, jnp.float32)
        b = a + 1
        bandwidth = 3 * a.nbytes / _seconds(lambda: triad(a, b))
        arithmetic = {}
        for kind in ("float32", "float64"):
            x = jnp.ones(width, kind)
            few, many = jnp.int32(50), jnp.int32(250)
            more = _seconds(partial(chain, x, many)) - _seconds(partial(chain, x, few))
            arithmetic[kind] = 200 * length * 2 * x.size / more
    return Peaks(bandwidth, arithmetic)


def _stage(
    name: str,
    precision: str,
    stage: Any,
    args: tuple,
    scenarios: int,
    *,
    loop: int = 0,
    without: Any = None,
    **options: Any,
) -> Stage:
    """Compile, count and time a jitted program.

    Args:
      loop: how often its loop runs, whose body is counted once.
      without: the program without that loop.
    """
    args = jax.tree.map(jnp.asarray, args)
    total = count_by_xla(stage, *args, **options)
    if without is not None:
        outside = count_by_xla(without, *args, **options)
        total = outside + loop * (total - outside)
    seconds = _seconds(lambda: stage(*args, **options))
    return Stage(name, precision, scenarios, seconds, float(total[0]), float(total[1]))


def stages(scenarios: int, plans: int = 64) -> list[Stage]:
    """Time the stages of drawing, bounding, routing and evaluating a block of default scenarios, data on the device."""
    catalog = load_catalog("seed")
    instances = sampling.sample(catalog, n=scenarios, seed=11)
    ascent = dual.Ascent()
    axes = (batch_axes(instances.batched),)
    fields = instances.fields

    drawn = [name for name in FIELD_SPECS if name in catalog.varying]
    program, params = draw_program.make_program(catalog, drawn)
    first = (params, np.zeros(2, np.uint32), np.arange(scenarios, dtype=np.uint32))
    found = [_stage("draw", "float64", sampling._draw, first, scenarios, program=program)]

    def opened(fields: Any) -> tuple[dual.Coefficients, Any]:
        c = dual.derive_coefficients(fields, instances.uncertainty)
        return c, dual.open_ascent(dual.in_single(c), None, ascent.reach)

    prepare = jax.jit(jax.vmap(opened, in_axes=axes))
    found.append(_stage("open the ascent", "float32", prepare, (fields,), scenarios))
    c, opened_all = prepare(fields)
    last = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), opened_all)
    given = (last.iterate, last.part, last.unit)
    name = f"ascent, {ascent.steps} steps"
    none = jnp.asarray(replace(ascent, steps=0).controls)
    still = jax.jit(lambda v, part, units, _: dual.climb_together(v, part, units, none))
    given = (*given, ascent.controls)  # data, as in the program that is used: a constant would be another
    climb = jax.jit(dual.climb_together)
    found.append(_stage(name, "float32", climb, given, scenarios, loop=ascent.steps, without=still))

    bounds = dual.lower_bounds(instances)
    y = jax.tree.map(lambda a: np.asarray(a, np.float64), bounds.multipliers)
    found.append(_stage("certificate", "float64", jax.jit(jax.vmap(dual.certify)), (c, y), scenarios))

    how = Search()
    slots = np.full((scenarios, how.slots), -1, np.int32)
    slots[:, : len(RENTED)] = write_rows(instances, [RENTED]).slots[:, : len(RENTED)]

    def routed(c: dual.Coefficients, slot: jax.Array, iterations: jax.Array) -> jax.Array:
        return route_deployment(c, slot, iterations, limited=False).cost

    route = jax.jit(jax.vmap(routed, in_axes=(0, 0, None)))
    still = jax.jit(lambda c, slots, _: jax.vmap(partial(routed, iterations=jnp.int32(0)))(c, slots))
    given = (c, slots, np.int32(how.iterations))
    name = f"route a deployment, {how.iterations} iterations"
    found.append(_stage(name, "float64", route, given, scenarios, loop=how.iterations, without=still))

    arrays = plan_arrays(make_random_plans(instances, plans, everywhere=True), instances)
    static = {"uncertainty": instances.uncertainty, "batched": instances.batched}
    name = f"evaluate {plans} plans"
    found.append(_stage(name, "float64", _score_crossed_block, (fields, arrays), scenarios, **static))
    everyone, first = np.arange(scenarios), np.zeros(scenarios, np.int64)
    take, static = _take_pairs(instances, arrays, first, everyone)
    given = take(everyone)
    found.append(_stage("evaluate a plan", "float64", _score_pair_block, given, scenarios, **static))
    return found


@dataclass(frozen=True)
class Shares:
    """Seconds per scenario of whole calls, host to host; ``there``: bounded where the scenarios are kept."""

    draw: float
    bound: float
    bracket: float
    there: float


def shares(scenarios: int) -> Shares:
    """Time drawing, bounding and bracketing (to 1 %) whole batches."""
    instances = sampling.sample("seed", n=scenarios, seed=12)
    kept = keep_on_device(instances)
    return Shares(
        _seconds(lambda: sampling.sample("seed", n=scenarios, seed=12).fields.budget) / scenarios,
        _seconds(lambda: dual.lower_bounds(instances).lower) / scenarios,
        _seconds(lambda: brackets(instances).lower) / scenarios,
        _seconds(lambda: dual.lower_bound_values(kept)) / scenarios,
    )


def tabulate(peaks: Peaks, stages: list[Stage], whole: Shares) -> Study:
    """Return the figures as a study; the page draws its picture from it."""
    facts = {"memory, GB/s": peaks.bandwidth / 1e9}
    facts |= {f"{kind}, G operations/s": peak / 1e9 for kind, peak in peaks.arithmetic.items()}
    calls = {"draw": whole.draw, "bound": whole.bound, "bracket to 1 %": whole.bracket}
    calls["draw and bound on the device"] = whole.there
    facts |= {f"{name}, whole call, us per scenario": 1e6 * seconds for name, seconds in calls.items()}
    columns = ["stage", "precision", "scenarios", "us per scenario", "KB", "thousand operations"]
    columns += ["operations per byte", "of memory's peak, %", "of arithmetic's peak, %"]
    rows = []
    for stage in stages:
        memory = stage.bytes_accessed / stage.seconds / peaks.bandwidth
        arithmetic = stage.operations / stage.seconds / peaks.arithmetic[stage.precision]
        each = [1e6 * stage.seconds, stage.bytes_accessed / 1e3, stage.operations / 1e3]
        numbers = [*(x / stage.scenarios for x in each), stage.intensity, 100 * memory, 100 * arithmetic]
        told = [x if math.isfinite(x) else None for x in numbers]  # XLA does not count everywhere
        rows.append([stage.name, stage.precision, stage.scenarios, *told])
    return Study(
        name="roofline", title="roofline", words=read_words(__doc__), facts=facts, columns=columns, rows=rows
    )


@click.command()
@click.option("--scenarios", type=click.IntRange(min=1), help="In a block (default: what suits the device).")
@out_option
def main(scenarios: int | None, out: Path | None) -> None:
    """Print each stage's share of the machine's peaks."""
    machine = describe_this_machine()
    peaks = measure_peaks(
        by_device(cpu=2**26, accelerator=2**28),
        width=by_device(cpu=2**14, accelerator=2**26),
        length=by_device(cpu=64, accelerator=512),
    )
    with jax.enable_x64(True):
        found = stages(scenarios or by_device(cpu=256, accelerator=16_384))
    whole = shares(scenarios or by_device(cpu=1024, accelerator=65_536))
    show_study(tabulate(peaks, found, whole), machine, out)


if __name__ == "__main__":
    main()
