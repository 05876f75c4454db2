"""``python -m bench.mpax_peer``: certified lower bounds beside MPAX (Lu and Yang), a first-order LP solver in JAX.

The same LP relaxations, dense and padded to one shape, solved by MPAX's r2HPDHG vmapped over the scenarios in float64.
MPAX is no dependency: ``pip install mpax`` first. Its answer is no proof; its objective is compared with HiGHS's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np

from bench.measure import machine, told
from rodiu_jax.files import write_text
from rodiu_jax.instance import Instances
from rodiu_jax.sampling import sample
from solvers.dual import lower_bounds
from solvers.formulation import Formulation, assemble
from solvers.highs import run_highs
from solvers.terms import collect, tightened


@dataclass(frozen=True)
class Padded:
    """Linear programs min c v, A v = b, G v >= h, 0 <= v <= u of one shape; a leading axis of scenarios."""

    c: np.ndarray
    a: np.ndarray
    b: np.ndarray
    g: np.ndarray
    h: np.ndarray
    u: np.ndarray


def padded(programs: list[Formulation]) -> Padded:
    """Formulations as dense arrays, padded by columns fixed at 0 and empty rows."""
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
    """A compiled run of at most ``iterations`` that returns the objectives (B,)."""
    from mpax import create_lp, r2HPDHG  # pyright: ignore[reportMissingImports]

    solver = r2HPDHG(eps_abs=1e-6, eps_rel=1e-6, iteration_limit=iterations)

    def one(c, a, b, g, h, u):
        answer = solver.optimize(create_lp(c, a, b, g, h, jnp.zeros_like(u), u, use_sparse_matrix=False))
        return answer.primal_objective

    with jax.enable_x64(True):
        arrays = [jnp.asarray(getattr(programs, f.name)) for f in fields(programs)]
        compiled = jax.jit(jax.vmap(one)).lower(*arrays).compile()
    return lambda: np.asarray(compiled(*arrays))


def formulations(instances: Instances) -> list[Formulation]:
    """The LP relaxations that the bound is measured against."""
    gpus = len(instances.gpu_names)
    return [assemble(tightened(collect(instances, b)), gpus) for b in range(instances.size)]


@click.command()
@click.option("--scenarios", default=4, show_default=True)
@click.option("--iterations", default=20_000, show_default=True, help="Of MPAX, at most.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table to a file too.")
def main(scenarios: int, iterations: int, out: Path | None) -> None:
    """Print how fast and how near the LP optimum both are."""
    about = machine()
    instances = sample("seed", n=scenarios, seed=6)
    programs = formulations(instances)
    optima = np.array([run_highs(f, relax=True).objective for f in programs])
    batch = padded(programs)
    lower_bounds(instances, chunk=scenarios)
    began = time.perf_counter()
    lower = lower_bounds(instances, chunk=scenarios).lower
    ours = time.perf_counter() - began
    try:
        run = mpax(batch, iterations)
    except ImportError:
        raise click.UsageError("MPAX is not installed: pip install mpax") from None
    began = time.perf_counter()
    objective = run()
    theirs = time.perf_counter() - began
    lines = [
        f"{scenarios} scenarios of the seed catalogue, both compiled before; MPAX stops at {iterations:,} iterations.",
        "",
        "| side | scenarios per second | ours / this | off the LP optimum, mean | at most |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, seconds, value in (("lower_bounds", ours, lower), ("MPAX", theirs, objective)):
        off = np.abs(value / optima - 1.0)
        cells = (
            name,
            f"{scenarios / seconds:.4g}",
            f"{seconds / ours:.3g}",
            f"{off.mean():.4%}",
            f"{off.max():.4%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n\n".join(["# Lower bounds beside MPAX", about, told(__doc__), "\n".join(lines)])
    click.echo(text)
    if out is not None:
        write_text(out, text + "\n")


if __name__ == "__main__":
    main()
