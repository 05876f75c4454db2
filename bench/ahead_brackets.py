"""``python -m bench.ahead_brackets``: how many brackets an H100 would make in a second, without one.

Some thousands of default scenarios are bracketed to 1 % on this machine, for each row of the table, with the calls
that an accelerator would get for that row's scenarios: where it routes a few deployments in one call, "few" is scaled
to the scenarios bracketed here. Each call, with as many more rows as the row has more scenarios, is then priced by the
model of `bench.ahead` at the blocks that an accelerator takes. More scenarios may need a few more rounds, of few rows,
which is left out. Calls of scenarios whose capacity is scarce take wider programs; they are counted, and priced as the
widest compiled here, which is too low. What Python and NumPy do between calls is measured here, as processor time of
the main thread. It is measured the second time that the scenarios are bracketed: programs are then compiled and memory
is allocated, as in a long sweep. Starting a block and copying scenarios, arrays and results are assumed. One block of
scenarios at a time takes the sum of host and device; two in flight, at best, the larger of both. "Before" has loops
that are not unrolled, up to four calls where one is made now, 4,096 scenarios, and today's Python.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click

from bench.ahead import (
    Compiled,
    compile_program,
    describe_device,
    price_run,
    require_packages,
)
from bench.compiled_text import Reader
from bench.measure import describe_this_machine
from bench.records import Study
from bench.study import out_option, read_words, show_study

START = 0.5e-3
"""Seconds of the host to start a block: Python, some hundred arguments, and the program's first kernels. Assumed."""

COPIES = 5e9
"""Bytes/s between pageable memory and the device, the host's copies counted. Assumed: a fifth of PCIe 5.0 by 16."""

_BLOCKS = (64, 512, 4096)
"""Rows of the blocks that an accelerator takes of 4,096 at most (`rodiu_jax.runtime.block_sizes`)."""


class Call(NamedTuple):
    """One call of a batched program.

    Attributes:
      slots: of the deployments routed, 0 where none are.
      turns: of the loop whose turns are data.
      moved: bytes sent and fetched, without the scenarios.
      scarce: whether it is of scenarios bracketed as if capacity were scarce, by programs wider than those priced.
    """

    program: str
    rows: int
    slots: int
    turns: int
    moved: int
    scarce: bool = False


@dataclass
class Recorded:
    """What bracketing some scenarios called.

    Attributes:
      uploaded: bytes of the scenarios.
      host: seconds of the processor that were spent between calls.
    """

    scenarios: int
    calls: list[Call] = field(default_factory=list)
    uploaded: int = 0
    host: float = 0.0


def record_brackets(scenarios: int, seed: int, *, few: int) -> Recorded:
    """Bracket scenarios on this machine's CPU and record the calls.

    Args:
      few: most deployments that are routed in one call, whatever they need; 0 as on a CPU.
    """
    import jax
    import numpy as np

    from rodiu_jax.catalog.sampling import sample
    from solvers import bracket, deployments
    from solvers.effort import USUAL

    recorded, inside = Recorded(scenarios), 0.0
    real = deployments.run_scenarios

    def watch(program: Any, batch: Any, scenario: Any, arrays: Any, size: Any, **options: Any) -> Any:
        nonlocal inside
        began = time.thread_time()
        result = real(program, batch, scenario, arrays, size, **options)
        slot = [a for a in arrays if getattr(a, "dtype", None) == np.int32 and np.ndim(a) == 2]
        turns = int(options["controls"][0]) if "controls" in options else int(options.get("iterations", 0))
        moved = sum(np.asarray(a).nbytes for a in jax.tree.leaves((arrays, result)))
        slots = slot[0].shape[1] if slot else 0
        reach = options.get("reach", USUAL.root.reach)
        scarce = slots > USUAL.search.slots or reach not in (USUAL.root.reach, USUAL.node.reach)
        recorded.calls.append(Call(program.__name__, len(scenario), slots, turns, moved, scarce))
        inside += time.thread_time() - began
        return result

    instances = sample("seed", n=scenarios, seed=seed)
    recorded.uploaded = sum(np.asarray(values).nbytes for values in instances.fields)
    with (
        mock.patch.object(bracket, "run_scenarios", watch),
        mock.patch.object(deployments, "run_scenarios", watch),
        mock.patch.object(deployments, "by_device", lambda *, cpu, accelerator: accelerator),
        mock.patch.object(deployments, "_FEW", few),
    ):
        bracket.brackets(instances, gap=0.01)  # compiles programs and allocates memory
        recorded.calls.clear()
        inside, began = 0.0, time.thread_time()
        bracket.brackets(instances, gap=0.01)
        recorded.host = time.thread_time() - began - inside
    return recorded


def record_for(target: int, scenarios: int, seed: int) -> Recorded:
    """Record the calls of ``scenarios`` with the choices that an accelerator makes for ``target`` of them."""
    from solvers import deployments

    return record_brackets(scenarios, seed, few=deployments._FEW * scenarios // target)


_ALIKE = {
    "bound_deployed": "_route_plans",
    "prove_infeasible": "bound_nodes",
    "cold_starts": "bound_nodes",
}
"""Programs that are not compiled here, called rarely, and what they are counted as."""


class Pricer:
    """Prices calls by the compiled programs of `bench.ahead_programs`, at the blocks of an accelerator.

    Args:
      compiled: by a program's name, the slots of its deployments and the rows of its block.
    """

    def __init__(self, compiled: Mapping[tuple[str, int, int], Compiled]) -> None:
        self._compiled = compiled
        self._known: dict[tuple[str, int, int, int], float] = {}

    def price(self, call: Call, most: int = _BLOCKS[-1]) -> tuple[float, int]:
        """Return the device's seconds of a call, and its blocks."""
        from rodiu_jax.runtime.block_sizes import BlockSize

        rows = BlockSize(most).fit(call.rows)
        name = _ALIKE.get(call.program, call.program)
        widths = sorted({slots for kind, slots, _ in self._compiled if kind == name})
        slots = next((w for w in widths if w >= call.slots), widths[-1])
        key = name, slots, rows, call.turns
        if key not in self._known:
            text = self._compiled[name, slots, rows].text
            self._known[key] = price_run(Reader(text, call.turns).count())
        blocks = -(-call.rows // rows)
        return blocks * self._known[key], blocks


def tabulate(name: str, recorded: Recorded, pricer: Pricer, scenarios: int) -> list[str | int | float | None]:
    """Return a row of `_COLUMNS`, for ``scenarios`` at a time."""
    more = scenarios / recorded.scenarios
    calls = [call._replace(rows=math.ceil(call.rows * more)) for call in recorded.calls]
    priced = [pricer.price(call) for call in calls]
    device = sum(seconds for seconds, _ in priced)
    starts = START * sum(blocks for _, blocks in priced)
    moved = recorded.uploaded + sum(call.moved for call in calls)
    python, copies = recorded.host * more, moved * more / COPIES
    host = python + starts + copies
    return [
        name,
        scenarios,
        len(calls),
        sum(call.rows <= _BLOCKS[0] for call in calls),
        sum(call.scarce for call in calls),
        *(1e6 * seconds / scenarios for seconds in (device, python, starts, copies)),
        scenarios / (host + device),
        scenarios / max(host, device),
    ]


_COLUMNS = [
    *("", "scenarios at a time", "calls", "of at most 64 rows", "of scarce capacity"),
    *("device, us each", "Python, us each", "starting blocks, us each", "copies, us each"),
    *("brackets/s, one block at a time", "brackets/s, two in flight"),
]


@contextmanager
def loops_as_they_are() -> Iterator[None]:
    """Compile the interior point's short loops as loops, as a CPU has them."""
    import jax

    from solvers.lp import stages

    jax.clear_caches()  # what was traced is unrolled
    with mock.patch.object(stages, "by_device", lambda *, cpu, accelerator: cpu):
        yield
    jax.clear_caches()


def compile_all(device: Any) -> dict[tuple[str, int, int], Compiled]:
    """Compile the programs of a bracket at the blocks of an accelerator."""
    import jax

    from bench.ahead_programs import list_programs

    with jax.enable_x64(True):
        programs = [p for p in list_programs() if p.name.startswith(("node", "route", "neighbours"))]
    made: dict[tuple[str, int, int], Compiled] = {}
    for program in programs:
        for rows in _BLOCKS:
            slots = next(
                (a.shape[1] for a in program.build(rows)[0] if getattr(a, "dtype", None) == "int32"), 0
            )
            made[program.program.__name__, slots, rows] = compile_program(program, rows, device)
            click.echo(f"{program.name}, {rows} rows: compiled", err=True)
    return made


@click.command()
@click.option(
    "--scenarios", default=2048, show_default=True, type=click.IntRange(min=1), help="Bracketed here."
)
@click.option("--seed", default=29, show_default=True)
@out_option
def main(scenarios: int, seed: int, out: Path | None) -> None:
    """Print how many brackets an H100 would make in a second by the model, before and now."""
    require_packages()
    device = describe_device()
    machine = describe_this_machine()
    study = Study(
        name="ahead-brackets",
        title="Brackets on an H100, modelled",
        words=read_words(__doc__),
        facts={
            "scenarios bracketed here": scenarios,
            "start of a block, us": 1e6 * START,
            "copies, GB/s": COPIES / 1e9,
        },
        columns=_COLUMNS,
    )
    with loops_as_they_are():
        before = Pricer(compile_all(device))
    now = Pricer(compile_all(device))
    study.rows.append(tabulate("before", record_brackets(scenarios, seed, few=0), before, 4096))
    for target in (4096, 16_384):
        study.rows.append(tabulate("now", record_for(target, scenarios, seed), now, target))
    show_study(study, machine, out)


if __name__ == "__main__":
    main()
