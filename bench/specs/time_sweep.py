"""A whole sweep beside its method alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.measure import Case, Side, Spec
from rodiu_jax.catalog import load_catalog, sampling
from rodiu_jax.sweeps import load_spec, read_rows
from rodiu_jax.sweeps.given_plans import take_cheapest
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.run import RunOptions, run_sweep
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import make_spec


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """One given plan on every row of a preset, ``n`` rows or a few more."""
    spec = load_spec("cost-budget")
    names = sampling.sample(spec.catalog, n=1).query_names
    pair = {"model": "Llama-3.1-8B", "gpu": "H100_FP16"}
    plan = {
        "deployments": [pair | {"tp": 8}],
        "routes": [pair | {"query": query, "share": 0.01} for query in names],
        "unmet": dict.fromkeys(names, 0.99),
    }
    plans = (json.dumps(plan),)
    spec = make_spec(spec.to_dict() | {"method": "evaluate", "plans": plans, "samples": -(-n // spec.points)})
    catalog = load_catalog(spec.catalog)

    def ours() -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            run_sweep(spec, Path(folder) / "out", RunOptions(quiet=True))
            return read_rows(Path(folder) / "out") if n <= 10_000 else pd.DataFrame()

    def alone() -> list[Any]:
        chunk = METHODS["evaluate"].chunk
        ranges = ((first, min(first + chunk, spec.rows)) for first in range(0, spec.rows, chunk))
        return [block for a, b in ranges for block in take_cheapest(scenarios(spec, catalog, a, b), plans)]

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        rows, blocks = results
        claimed = np.concatenate([block.upper for block in blocks])
        kept = rows["upper_bound"].to_numpy() if len(rows) else claimed
        same = np.array_equal(kept, claimed, equal_nan=True)
        return (
            same,
            f"{len(rows) or 'no'} rows read back, {int(np.isfinite(claimed).sum())} with an upper bound",
        )

    sides = (
        Side("rodiu sweep", ours, spec.rows),
        Side("method alone", alone, spec.rows),
    )
    yield iter([Case(f"{spec.rows:,} rows", sides, judge)])


SPEC = Spec(
    name="sweep",
    measures="Rows per second of a whole sweep with the cheapest method, one given plan evaluated everywhere:"
    " folder, scenarios, rows, Parquet (rows are read back up to 10,000). What it takes beyond the peer is the"
    " machinery, whatever the method.",
    item="row",
    peers="the same scenarios made and the same plan evaluated, chunk by chunk, and nothing kept.",
    quality="the upper bounds read back are those of the peer.",
    precision="float64 on both sides",
    by_hand="a scenario is 13 KB drawn once per sample and copied once per point; a row is 25 columns.",
    sizes=(1_000, 10_000, 100_000),
    build=build,
    repeats=3,
)
