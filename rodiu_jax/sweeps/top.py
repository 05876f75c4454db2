"""The exact policy ``top``: when every row has its bracket, the K with the largest value in a column are solved.

The choice is made once, on the brackets, and kept in ``top.json``: what is solved later cannot change it, so a sweep
that is interrupted here goes on with the same rows. A part is replaced whole, when its rows of the choice are solved.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed
from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan_json import plan_from_json
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.runtime.events import EventLog
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps.rows import table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.store import Store, read_rows

if TYPE_CHECKING:
    from solvers.pool import Pool
    from solvers.result import Result


def solve_top(store: Store, catalog: Catalog, pool: Pool, *, quiet: bool, log: EventLog | None) -> None:
    """Solve the chosen rows that are not exact yet, starting from their brackets' plans.

    Raises:
      WorkFailed: an exact result contradicts its bracket.
    """
    from solvers.cascade import exactly

    spec = store.spec
    chosen = _chosen(store)
    waiting: deque[tuple[Path, list[dict[str, Any]], list[int], Instances]] = deque()

    def parts() -> Iterator[tuple[Instances, list[Result]]]:
        for path, first, stop in store.parts():
            if not (chosen[first:stop]).any():
                continue
            rows = store.read(path).to_pylist()
            mine = [m for m in range(stop - first) if chosen[first + m] and "exact" not in rows[m]["method"]]
            if mine:
                instances = scenarios(spec, catalog, first, stop).take(mine)
                waiting.append((path, rows, mine, instances))
                yield instances, [_result(rows[m], instances, b) for b, m in enumerate(mine)]

    limit = math.inf if spec.time_limit is None else spec.time_limit
    title, count = f"{spec.name}, the top {chosen.sum()} exactly", int(chosen.sum())
    with progress(title, count, quiet=quiet, stage="top", log=log) as bar:
        try:
            for answers in exactly(parts(), gap=spec.wanted_gap, time_limit=limit, workers=pool):
                path, rows, mine, instances = waiting[0]
                numbers = np.array([rows[m]["sample"] * spec.points + rows[m]["point"] for m in mine])
                solved = table_of(spec, numbers, answers, instances).to_pylist()
                for m, row, answer in zip(mine, solved, answers, strict=True):
                    rows[m] = row
                    bar.advance(answer.status, answer.gap, answer.method)
                store.put(path, pa.Table.from_pylist(rows, schema=store.schema))
                waiting.popleft()
        except AuditFailed as failure:
            _, rows, mine, instances = waiting[0]
            row = rows[mine[failure.instance]]
            number = row["sample"] * spec.points + row["point"]
            raise store.keep_evidence(instances, number, failure) from None


def _chosen(store: Store) -> np.ndarray:
    """Which rows are chosen, bool; ties go to the first, a row without a plan has the widest gap of all."""
    spec, path = store.spec, store.folder / "top.json"
    if not path.exists():
        frame = read_rows(store.folder)
        values = frame[spec.by or "gap"].to_numpy(np.float64, na_value=math.nan)
        unknown = math.inf if (spec.by or "gap") == "gap" else -math.inf
        values = np.where(np.isnan(values), unknown, values)
        values[(frame["status"] == "infeasible").to_numpy()] = -math.inf
        rows = np.argsort(-values, kind="stable")[: spec.top]
        write_text(path, json.dumps({"rows": sorted(rows.tolist())}) + "\n")
    mask = np.zeros(spec.rows, bool)
    mask[read_json(path)["rows"]] = True
    return mask


def _result(row: dict[str, Any], instances: Instances, b: int) -> Result:
    """A stored row as the bracket it was made from."""
    from solvers.result import Result

    def number(name: str, missing: float) -> float:
        return missing if row[name] is None else row[name]

    plan = None if row["plan"] is None else plan_from_json(json.loads(row["plan"]), instances)
    proven = math.inf if row["status"] == "infeasible" else -math.inf
    return Result(
        b,
        row["status"],
        number("upper_bound", math.inf),
        number("lower_bound", proven),
        None if plan is None else {n: row[n] for n in COSTS},
        plan and replace(plan, instance=b),
        number("seconds", math.nan),
        row["message"] or "",
        method=row["method"],
        nodes=row["nodes"],
        steps=row["steps"],
        certified=number("certified_lower_bound", proven),
    )
