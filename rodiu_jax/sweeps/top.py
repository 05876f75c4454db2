"""The exact policy ``top``: when every row has its bracket, the K with the largest value in a column are solved.

The choice is made once, on the brackets, and kept in ``top.json``: what is solved later cannot change it, so a sweep
that is interrupted here goes on with the same rows. A part is replaced whole, when its rows of the choice are solved.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed
from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.runtime.events import EventLog
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps.rows import answers_from_rows, table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.store import Store, iterate_rows

if TYPE_CHECKING:
    from solvers.answers import Answers
    from solvers.pool import Pool


def solve_top(store: Store, catalog: Catalog, pool: Pool, *, quiet: bool, log: EventLog | None) -> None:
    """Solve the chosen rows that are not exact yet, starting from their brackets' plans.

    Raises:
      WorkFailed: an exact result contradicts its bracket.
    """
    from solvers.answers import report_progress
    from solvers.cascade import exactly

    spec = store.spec
    chosen = _chosen(store)
    waiting: deque[_Part] = deque()

    def parts() -> Iterator[tuple[Instances, Answers]]:
        for path, first, stop in store.parts():
            if not chosen[first:stop].any():
                continue
            table = store.read(path)
            done = [Prover.of(word).uses_highs for word in table["method"].to_pylist()]
            rows = np.flatnonzero(chosen[first:stop] & ~np.array(done, bool))
            if len(rows):
                instances = scenarios(spec, catalog, first, stop).take(rows)
                waiting.append(_Part(path, first, table, rows, instances))
                yield instances, answers_from_rows(table.take(rows), instances, source=path)

    limit = math.inf if spec.time_limit is None else spec.time_limit
    title, count = f"{spec.name}, the top {chosen.sum()} exactly", int(chosen.sum())
    with progress(title, count, quiet=quiet, stage="top", log=log) as bar:
        try:
            for answers in exactly(parts(), gap=spec.wanted_gap, time_limit=limit, workers=pool):
                part = waiting[0]
                solved = table_of(spec, part.first + part.rows, answers, part.instances)
                where = np.arange(len(part.table))
                where[part.rows] = len(part.table) + np.arange(len(part.rows))
                store.put(part.path, pa.concat_tables([part.table, solved]).take(where))
                report_progress(bar, answers)
                waiting.popleft()
        except AuditFailed as failure:
            row = waiting[0].first + int(waiting[0].rows[failure.instance])
            raise store.keep_evidence(waiting[0].instances, row, failure) from None


@dataclass(frozen=True)
class _Part:
    """A part of the sweep of which some rows are solved: their positions and their scenarios."""

    path: Path
    first: int
    table: pa.Table
    rows: np.ndarray
    instances: Instances


def _chosen(store: Store) -> np.ndarray:
    """Which rows are chosen, bool; ties go to the first, a row without a plan has the widest gap of all."""
    spec, path = store.spec, store.folder / "top.json"
    if not path.exists():
        by = spec.by or "gap"
        unknown = math.inf if by == "gap" else -math.inf
        values = np.full(spec.rows, unknown)
        first = 0
        for part in iterate_rows(store.folder, columns=[by, "status"]):  # every row is there, in order
            known = part[by].to_numpy(np.float64, na_value=math.nan)
            known = np.where(np.isnan(known), unknown, known)
            infeasible = (part["status"] == Status.INFEASIBLE.word).to_numpy(bool)
            values[first : first + len(part)] = np.where(infeasible, -math.inf, known)
            first += len(part)
        rows = np.argsort(-values, kind="stable")[: spec.top]
        write_text(path, json.dumps({"rows": sorted(rows.tolist())}) + "\n")
    mask = np.zeros(spec.rows, bool)
    mask[read_json(path)["rows"]] = True
    return mask
