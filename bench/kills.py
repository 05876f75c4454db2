"""Sweeps killed at random moments and resumed: ``python -m bench.kills``.

Each trial starts ``rodiu sweep`` in a process group of its own, kills the whole group with SIGKILL at a seeded random
moment of the time that the uninterrupted sweep took, and goes on with ``--resume``, which is killed with even chance
too, until a run ends by itself. Its table must be that of the uninterrupted sweep bit for bit (but for ``seconds``),
its certificates too, with nothing left over in the folder and no process of any killed run alive.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import pandas as pd
import pyarrow.parquet as pq

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.sweeps import read_rows

COMMAND = (sys.executable, "-c", "from rodiu_jax.cli import main; main()", "sweep")
_GRACE = 10.0
"""Seconds in which what a killed run started must be gone."""


@dataclass
class Tally:
    """What the trials came to: kills, those that left rows to go on with, and every difference."""

    kills: int = 0
    rows_kept: int = 0
    wrong: list[str] = field(default_factory=list)


def write_arguments(folder: Path, method: str, samples: int, *, certificates: bool = True) -> list[str]:
    """Return the arguments of a sweep by ``method``, and write what it reads to ``folder``."""
    arguments = ["cost-budget", "--samples", str(samples), "--method", method, "--quiet"]
    arguments += ["--catalog", "corrected"]  # where the plan below fits
    if method != "evaluate":
        return [*arguments, *(["--certificates"] if certificates else [])]
    names = sample("seed", n=1).query_names
    pair = {"model": "Llama-3.2-3B", "gpu": "H100_FP16"}
    plan = {
        "instance": None,
        "deployments": [{**pair, "tp": 8}],
        "routes": [{"query": name, **pair, "share": 0.9} for name in names],
        "unmet": dict.fromkeys(names, 0.1),
    }
    path = folder / "plans.json"
    path.write_text(json.dumps([plan]))
    return [*arguments, "--plans", str(path)]


def kill_and_resume(
    arguments: list[str], folder: Path, *, kills: int, seed: int, loud: bool = False
) -> Tally:
    """Kill so many runs of a sweep, in as many trials as that takes.

    Args:
      folder: an empty one, for the uninterrupted sweep and the trials.
    """
    rng, tally, took = random.Random(seed), Tally(), 0.0
    whole = folder / "whole"
    for _ in range(2):  # the first may compile, which later ones need not
        shutil.rmtree(whole, ignore_errors=True)
        began = time.monotonic()
        _end(_start(arguments, whole))
        took = time.monotonic() - began
    trial = 0
    while tally.kills < kills:
        out = folder / f"trial-{trial}"
        run = _start(arguments, out)
        again = True
        while again and tally.kills < kills:
            time.sleep(rng.uniform(0.0, took))
            if run.poll() is not None:
                break
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            tally.kills += 1
            if not _is_gone(run.pid):
                tally.wrong.append(f"trial {trial}: processes of a killed run live on")
            parts = len(list(out.glob("scenarios/part-*")))
            tally.rows_kept += parts > 0
            if loud:
                click.echo(f"kill {tally.kills}, trial {trial}: {parts} parts on disk", err=True)
            run = _start([*arguments, "--resume"], out)
            again = rng.random() < 0.5
        _end(run)
        tally.wrong += [f"trial {trial}: {difference}" for difference in list_differences(whole, out)]
        shutil.rmtree(out)
        trial += 1
    return tally


def list_differences(whole: Path, out: Path) -> list[str]:
    """List what the resumed sweep in ``out`` has otherwise than the uninterrupted one in ``whole``."""
    found = []
    expected, resumed = (read_rows(folder, plans=True).drop(columns="seconds") for folder in (whole, out))
    try:
        pd.testing.assert_frame_equal(resumed, expected, check_exact=True)
    except AssertionError as error:
        found.append("rows: " + " ".join(str(error).split()))
    proofs = [_read_certificates(folder) for folder in (whole, out)]
    if not proofs[0].equals(proofs[1]):
        found.append("certificates")
    pages = [sorted(p.name for p in folder.iterdir()) for folder in (whole, out)]
    if pages[0] != pages[1]:
        found.append(f"files: {set(pages[0]) ^ set(pages[1])}")
    left = [p.name for p in out.rglob(".*") if p.name != ".lock"]
    return found + [f"left over: {name}" for name in left]


def _read_certificates(folder: Path) -> pd.DataFrame:
    """Read all certificates of a sweep as text: leaves are arrays of arrays."""
    parts = [pq.read_table(p).to_pandas() for p in sorted(folder.glob("certificates/part-*"))]
    return pd.concat(parts, ignore_index=True).map(repr) if parts else pd.DataFrame()


def _start(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _end(run: subprocess.Popen[str]) -> None:
    _, errors = run.communicate()
    if run.returncode:
        raise SystemExit(f"a sweep that nobody killed ended with {run.returncode}: {errors}")


def _is_gone(group: int) -> bool:
    """Return whether, within `_GRACE`, no process of a group lives any more."""
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@click.command()
@click.option("--kills", type=click.IntRange(min=1), default=50, show_default=True, help="Runs to kill.")
@click.option("--method", default="cascade", show_default=True, help="cascade, bracket or evaluate.")
@click.option("--samples", type=click.IntRange(min=1), default=20, show_default=True, help="Of 30 rows each.")
@click.option("--seed", default=0, show_default=True, help="Seed of the moments.")
def main(kills: int, method: str, samples: int, seed: int) -> None:
    """Kill sweeps at random moments and compare what is resumed; exit status 1 where anything differs."""
    with tempfile.TemporaryDirectory() as name:
        arguments = write_arguments(Path(name), method, samples)
        tally = kill_and_resume(arguments, Path(name), kills=kills, seed=seed, loud=True)
    click.echo(
        f"{method}: {tally.kills} kills, {tally.rows_kept} with rows on disk, {len(tally.wrong)} differences"
    )
    for wrong in tally.wrong:
        click.echo(wrong)
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
