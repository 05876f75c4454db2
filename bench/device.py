"""``python -m bench.device DIR``: all that is measured on a machine with a GPU, in one call.

Runs, one after the other, the tests of GPUs, the roofline, the benchmarks that a GPU changes, and each LP solver of
`bench.lp_peers` that is installed. Results go to DIR as DATE-gpu-NAME.json; where one step fails the others still run,
and the exit status is 1. On a machine without a GPU the same runs on the CPU, as a rehearsal (``--smoke``: in few
minutes).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click

BENCHMARKS = ("sampling", "evaluation", "bound", "plans", "gap", "cascade", "stress")

LOOPS_IN_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE"
"""Flag with which XLA puts loops into CUDA graphs too, so that the host is not asked at every turn."""

_GRAPHS = "benchmarks-loops-in-graphs"
"""The step that measures what they gain."""


def list_steps(folder: Path, smoke: bool) -> dict[str, list[str]]:
    """Return the arguments of Python by the step's name."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")

    def out(name: str) -> list[str]:
        return ["--out", str(folder / f"{date}-gpu-{name}.json")]

    few = ["--scenarios", "64"] if smoke else []
    commands = {
        "tests": ["-m", "pytest", "-q", "tests/test_gpu.py"],
        "roofline": ["-m", "bench.roofline", *few, *out("roofline")],
        "benchmarks": ["-m", "bench", *BENCHMARKS, *(["--smoke"] if smoke else []), *out("benchmarks")],
        _GRAPHS: ["-m", "bench", "bound", "gap", *(["--smoke"] if smoke else []), *out(_GRAPHS)],
    }
    for solver in ("mpax", "cupdlpx"):
        if find_spec(solver) is not None:
            size = ["--scenarios", "2", "--iterations", "500"] if smoke else ["--scenarios", "256"]
            commands[solver] = ["-m", "bench.lp_peers", solver, *size, *out(solver)]
    return commands


def make_environment(step: str) -> dict[str, str]:
    """Return the environment of a step: this one's; where loops shall be in graphs, its flags of XLA and one more."""
    if step != _GRAPHS:
        return {**os.environ}
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {LOOPS_IN_GRAPHS}".strip()}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--smoke", is_flag=True, help="The smallest sizes: does every step run here?")
@click.option("--only", multiple=True, metavar="STEP", help="Of the steps, these alone; can be repeated.")
def main(folder: Path, smoke: bool, only: tuple[str, ...]) -> None:
    """Test and measure this machine; results to DIR."""
    todo = list_steps(folder, smoke)
    for name in only:
        if name not in todo:
            raise click.UsageError(f"--only: got {name}, expected one of {', '.join(todo)}")
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in only or todo:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *todo[name]], cwd=Path(__file__).parents[1], env=make_environment(name)
        )
        outcome = "done" if done.returncode == 0 else f"failed with exit status {done.returncode}"
        click.echo(f"{name}: {outcome} in {time.perf_counter() - began:.0f} s", err=True)
        failed += [name] * (done.returncode != 0)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
