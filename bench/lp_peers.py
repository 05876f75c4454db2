"""``python -m bench.lp_peers SOLVER``: certified lower bounds beside first-order LP solvers.

The same LP relaxations, to the same tolerance of 1e-6: dense, padded to one shape and vmapped in float64 (mpax), or as
blocks of one sparse program (pdlp: HiGHS's own, on the CPU; cupdlpx: on an NVIDIA GPU). A peer's answer is no proof;
its last iterate's objective is compared with the optimum of HiGHS's simplex, and may owe its nearness to broken rows.
MPAX and cuPDLPx are no dependencies; install them first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_matrix

from bench.measure import describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.model.instance import Instances
from solvers.dual import lower_bounds
from solvers.formulation import Formulation, assemble
from solvers.highs import load_model, run_highs
from solvers.terms import collect, tighten


@dataclass(frozen=True)
class Padded:
    """Linear programs min c v, A v = b, G v >= h, 0 <= v <= u of one shape; a leading axis of scenarios."""

    c: np.ndarray
    a: np.ndarray
    b: np.ndarray
    g: np.ndarray
    h: np.ndarray
    u: np.ndarray


def pad_programs(programs: list[Formulation]) -> Padded:
    """Return formulations as dense arrays, padded by columns fixed at 0 and empty rows."""
    rows = []
    for f in programs:
        dense = np.zeros((len(f.row_lower), len(f.cost)))
        dense[np.repeat(np.arange(len(f.row_lower)), np.diff(f.start)), f.index] = f.value
        equal = f.row_lower == f.row_upper
        above, below = np.isfinite(f.row_lower) & ~equal, np.isfinite(f.row_upper) & ~equal
        g = np.concatenate([dense[above], -dense[below]])
        h = np.concatenate([f.row_lower[above], -f.row_upper[below]])
        rows.append((f.cost, dense[equal], f.row_lower[equal], g, h, f.upper))
    shapes = [np.max([a.shape for a in part], axis=0) for part in zip(*rows, strict=True)]
    stacked = [
        np.stack([np.pad(a, [(0, m - n) for n, m in zip(a.shape, shape, strict=True)]) for a in part])
        for part, shape in zip(zip(*rows, strict=True), shapes, strict=True)
    ]
    return Padded(*stacked)


def mpax(programs: Padded, iterations: int) -> Callable[[], np.ndarray]:
    """Return a compiled run of at most ``iterations`` that returns the objectives (B,)."""
    from mpax import create_lp, r2HPDHG  # pyright: ignore[reportMissingImports]

    solver = r2HPDHG(eps_abs=TOLERANCE, eps_rel=TOLERANCE, iteration_limit=iterations)

    def one(c, a, b, g, h, u):
        answer = solver.optimize(create_lp(c, a, b, g, h, jnp.zeros_like(u), u, use_sparse_matrix=False))
        return answer.primal_objective

    with jax.enable_x64(True):
        arrays = [jnp.asarray(getattr(programs, f.name)) for f in fields(programs)]
        compiled = jax.jit(jax.vmap(one)).lower(*arrays).compile()
    return lambda: np.asarray(compiled(*arrays))


def join_programs(programs: list[Formulation]) -> Formulation:
    """Return one program with each of ``programs`` as a block."""
    columns = np.cumsum([0, *(len(f.cost) for f in programs)])
    entries = np.cumsum([0, *(len(f.value) for f in programs)])

    def ends(name: str) -> np.ndarray:
        return np.concatenate([getattr(f, name) for f in programs])

    start = np.concatenate([f.start[:-1] + at for f, at in zip(programs, entries, strict=False)])
    index = np.concatenate([f.index + at for f, at in zip(programs, columns, strict=False)])
    rest = ("cost", "lower", "upper", "integer", "value", "row_lower", "row_upper", "row_unit", "unit")
    return replace(
        programs[0],
        **{name: ends(name) for name in rest},
        start=np.append(start, entries[-1]).astype(programs[0].start.dtype),
        index=index.astype(programs[0].index.dtype),
    )


def pdlp(program: Formulation, iterations: int) -> Callable[[], np.ndarray]:
    """Return a run of HiGHS's first-order solver that returns the columns."""

    options = {"threads": 1, "solver": "pdlp", "kkt_tolerance": TOLERANCE, "pdlp_iteration_limit": iterations}

    def run() -> np.ndarray:
        solver = load_model(program, program.cost, np.zeros(len(program.cost), np.int32), options)
        solver.run()
        return np.array(solver.getSolution().col_value)  # the last iterate, where it did not converge

    return run


def cupdlpx(program: Formulation, iterations: int) -> Callable[[], np.ndarray]:
    """Return a run of cuPDLPx (Lu and Peng) that returns the columns."""
    from cupdlpx import Model  # pyright: ignore[reportMissingImports]

    shape = len(program.row_lower), len(program.cost)
    rows = csr_matrix((program.value, program.index, program.start), shape=shape)

    def run() -> np.ndarray:
        model = Model(program.cost, rows, program.row_lower, program.row_upper, program.lower, program.upper)
        model.setParams(
            OutputFlag=False, FeasibilityTol=TOLERANCE, OptimalityTol=TOLERANCE, IterationLimit=iterations
        )
        model.optimize()
        return np.asarray(model.X)

    return run


JOINED = {"pdlp": pdlp, "cupdlpx": cupdlpx}
"""Solvers of one large sparse program."""

TOLERANCE = 1e-6
"""Of the peers, relative."""


def peer(name: str, programs: list[Formulation], iterations: int) -> Callable[[], np.ndarray]:
    """Return a run of a solver that returns the objective of each program.

    Raises:
      ImportError: it is not installed.
    """
    if name == "mpax":
        return mpax(pad_programs(programs), iterations)
    run = JOINED[name](join_programs(programs), iterations)
    ends = np.cumsum([len(f.cost) for f in programs])[:-1]

    def objectives() -> np.ndarray:
        parts = np.split(run(), ends)
        return np.array([f.cost @ part for f, part in zip(programs, parts, strict=True)])

    return objectives


def build_relaxations(instances: Instances) -> list[Formulation]:
    """Return the LP relaxations that the bound is measured against."""
    gpus = len(instances.gpu_names)
    return [assemble(tighten(collect(instances, b)), gpus) for b in range(instances.size)]


@click.command()
@click.argument("solver", type=click.Choice(["mpax", *JOINED]))
@click.option("--scenarios", default=4, show_default=True)
@click.option("--iterations", default=20_000, show_default=True, help="Of the peer, at most.")
@out_option
def main(solver: str, scenarios: int, iterations: int, out: Path | None) -> None:
    """Print how fast and how near the LP optimum the bounds and SOLVER are."""
    machine = describe_this_machine()
    instances = sample("seed", n=scenarios, seed=6)
    programs = build_relaxations(instances)
    optima = np.array([run_highs(f, relax=True).objective for f in programs])
    try:
        peer(solver, programs, 10)()  # loads and compiles what it needs
        run = peer(solver, programs, iterations)
    except ImportError:
        raise click.UsageError(f"{solver} is not installed: pip install {solver}") from None
    lower_bounds(instances, chunk=scenarios)
    began = time.perf_counter()
    lower = lower_bounds(instances, chunk=scenarios).lower
    ours = time.perf_counter() - began
    began = time.perf_counter()
    objective = run()
    theirs = time.perf_counter() - began
    limits = f"{scenarios} scenarios of the seed catalogue, compiled before; {solver} stops at {iterations:,}"
    study = Study(
        name=f"lp-peers-{solver}",
        title=f"Lower bounds beside {solver}",
        words=f"{read_words(__doc__)} {limits} iterations.",
        columns=["side", "scenarios per second", "ours / this", "off the LP optimum, mean, %", "at most, %"],
    )
    for name, seconds, value in (("lower_bounds", ours, lower), (solver, theirs, objective)):
        off = 100 * np.abs(value / optima - 1.0)
        study.rows.append([name, scenarios / seconds, seconds / ours, float(off.mean()), float(off.max())])
    show_study(study, machine, out)


if __name__ == "__main__":
    main()
