"""``python -m bench.ahead``: what each program becomes on an H100, compiled ahead of time on a machine without one.

XLA's GPU compiler needs no GPU. It says how many kernels and loops a program has and how much temporary memory it
takes. Bytes and operations are estimates, read from the shapes in the compiled text; graphs and loop reads follow from
rules about when XLA makes a graph. Times are a model of all that. The paces at which kernels, graphs and loops start
are assumptions that no device has confirmed, and where kernels are small the rates move in proportion to them: two
programs, or two versions of one, compare better than either rate does with a real device. A kernel takes the longest
of three: the pace at which kernels follow each other, its bytes over the bandwidth of the memory or of the cache that
holds them, and its operations over the device's. A row is a scenario, a node of a bracket's tree, or a deployment to
be routed; rows are those of blocks that the product makes on an accelerator, for many rows and for few.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from bench.compiled_text import Kernel, Reader, Run
from bench.measure import describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, save_study, show_study

DEVICE = Path(__file__).with_name("h100.txtpb")
"""The device as the compiler wants it described, with the sources of its figures."""

PACKAGE = "jax-cuda13-plugin"

# ---- the model: an H100 SXM5 ----

BANDWIDTH = 0.9 * 3.35e12
"""Bytes/s: nine tenths of what NVIDIA's datasheet states, as copies reach on earlier ones."""

CACHE = 50 * 2**20
"""Bytes of L2 (NVIDIA H100 whitepaper): a kernel whose operands fit finds them there, as the one before left them."""

CACHE_BANDWIDTH = 5.5e12
"""Bytes/s of L2, as Chips and Cheese measured on the PCIe card ("Nvidia's H100: Funny L2, and Tons of Bandwidth")."""

_LANES = 132 * 128 * 1.98e9
OPERATIONS = {"f32": _LANES, "f64": _LANES / 2, "integer": _LANES / 2}
"""Operations/s by precision: one an issue slot, as XLA contracts no multiply and add (half the datasheet's rates)."""

IN_GRAPH = 2e-6
"""Seconds from kernel to kernel inside a graph. An assumption, as are the next three."""

ALONE = 3.5e-6
"""Seconds from kernel to kernel outside."""

GRAPH = 6e-6
"""Seconds to start a graph."""

LOOP_READ = 18e-6
"""Seconds until the host knows a loop's condition and goes on."""


def price_kernel(kernel: Kernel) -> float:
    """Return the seconds that a kernel takes by the model."""
    speed = CACHE_BANDWIDTH if kernel.traffic <= CACHE else BANDWIDTH
    work = sum(count / OPERATIONS[kind] for kind, count in kernel.operations.items())
    return max(IN_GRAPH if kernel.resident else ALONE, kernel.traffic / speed, work)


def price_run(run: Run) -> float:
    """Return the seconds that one run of a program takes by the model."""
    return run.seconds(price_kernel, graph=GRAPH, loop_read=LOOP_READ)


# ---- compiling ----


@dataclass(frozen=True)
class Compiled:
    """A program compiled for some rows.

    Attributes:
      memory: bytes of temporary arrays.
    """

    text: str
    memory: int


def require_packages() -> None:
    """Check that XLA's GPU compiler is installed.

    Raises:
      UsageError: it is not; the message says how to get it.
    """
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        raise click.UsageError(
            f"{PACKAGE} is not installed: pip install -e '.[cuda]' (5 GB; no GPU is needed)"
        ) from None


def describe_device() -> Any:
    """Return a device to compile for that is not there.

    JAX's CPU stays what runs programs: call it before anything imports JAX.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    )  # it would run kernels
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        platform="cuda", target_config=DEVICE.read_text(encoding="utf-8"), topology="1x1x1"
    )
    return described.devices[0]


def trace_program(program: Any, rows: int, device: Any) -> Any:
    """Trace a program of `bench.ahead_programs` with the choices that suit a device."""
    import jax
    import numpy as np

    def place(a: Any) -> Any:
        where = jax.sharding.SingleDeviceSharding(device)
        return jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=where)

    args, arrays = program.build(rows)
    static = program.static | {name: value for name, value in arrays.items() if isinstance(value, int)}
    args, arrays = jax.tree.map(place, (args, {n: a for n, a in arrays.items() if n not in static}))
    with jax.enable_x64(True), jax.default_device(device):  # the latter chooses an accelerator's variants
        return program.program.trace(*args, **arrays, **static)


def compile_program(program: Any, rows: int, device: Any) -> Compiled:
    """Compile a program of `bench.ahead_programs` for a described GPU."""
    import jax

    traced = trace_program(program, rows, device)
    with jax.enable_x64(True), jax.default_device(device):
        compiled = traced.lower(lowering_platforms=("cuda",)).compile()
    return Compiled(compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes)


_COLUMNS = [
    *("program", "row", "rows", "kernels in the program", "started", "of a loop's turn"),
    *("graphs", "alone", "loop reads", "KB per row", "temporary KB per row"),
    *("us per row", "rows/s", "rows/s, loops in graphs"),
]


def make_row(program: Any, rows: int, compiled: Compiled) -> list[str | int | float | None]:
    """Return a row of `_COLUMNS`."""
    run = Reader(compiled.text, program.turns).count()
    seconds = price_run(run)
    whole = price_run(Reader(compiled.text, program.turns, loops_in_graphs=True).count())
    return [
        program.name,
        program.row,
        rows,
        run.in_program,
        round(run.started),
        round(run.largest_body),
        round(run.graphs),
        round(run.alone),
        round(run.loop_reads),
        run.traffic / rows / 1e3,
        compiled.memory / rows / 1e3,
        1e6 * seconds / rows,
        rows / seconds,
        rows / whole,
    ]


def list_sizes(program: Any, device: Any) -> list[int]:
    """List the rows of the blocks that a program takes on a device, for 64 rows and for 16,384."""
    import jax

    with jax.default_device(device):
        block = program.block()
    return sorted({block.fit(rows) for rows in (64, 16_384)})


def choose_programs(programs: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """Return the programs whose name begins with one of ``names``, all without them.

    Raises:
      UsageError: a name that begins none.
    """
    programs = list(programs)
    for name in names:
        if not any(p.name.startswith(name) for p in programs):
            known = ", ".join(p.name for p in programs)
            raise click.UsageError(f"PROGRAM: got {name}, expected the beginning of one of {known}")
    return [p for p in programs if not names or p.name.startswith(tuple(names))]


@click.command()
@click.argument("names", nargs=-1, metavar="[PROGRAM ...]")
@click.option(
    "--rows", multiple=True, type=click.IntRange(min=1), help="Rows of a block, in place of the product's."
)
@out_option
def main(names: tuple[str, ...], rows: tuple[int, ...], out: Path | None) -> None:
    """Compile programs (those whose name begins with PROGRAM, or all) for an H100 and print what they become."""
    require_packages()
    device = describe_device()
    import jax

    from bench.ahead_programs import list_programs

    facts = {
        "memory, GB/s": BANDWIDTH / 1e9,
        "L2, GB/s": CACHE_BANDWIDTH / 1e9,
        "L2, MB": CACHE / 2**20,
        "kernel to kernel in a graph, us": 1e6 * IN_GRAPH,
        "kernel to kernel outside, us": 1e6 * ALONE,
        "start of a graph, us": 1e6 * GRAPH,
        "a loop's read, us": 1e6 * LOOP_READ,
        **{f"{kind}, G operations/s": rate / 1e9 for kind, rate in OPERATIONS.items()},
    }
    title = "Programs on an H100, compiled ahead of time and modelled"
    study = Study(name="ahead", title=title, words=read_words(__doc__), facts=facts, columns=_COLUMNS)
    machine = describe_this_machine()
    with jax.enable_x64(True):
        programs = list_programs()
    for program in choose_programs(programs, names):
        for size in rows or list_sizes(program, device):
            study.rows.append(make_row(program, size, compile_program(program, size, device)))
            click.echo(f"{program.name}, {size} rows: {study.rows[-1][-2]:,.0f} rows/s", err=True)
            save_study(study, machine, out)  # what fails later loses nothing
    show_study(study, machine, out)


if __name__ == "__main__":
    main()
