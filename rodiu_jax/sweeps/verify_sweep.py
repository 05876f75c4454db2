"""Checking the rows of a sweep against their certificates and plans, without the solvers' code.

The scenarios are drawn again from the spec and the catalogue; a lower bound must follow from the stored multipliers, an
upper bound must be the cost of the stored plan (`rodiu_jax.certificates`). Memory is that of one part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.certificates import Certificate, load_certificates, verify_rows
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import plan_from_json
from rodiu_jax.model.tolerances import RECOMPUTED
from rodiu_jax.sweeps.rows import plan_columns
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec
from rodiu_jax.sweeps.store import Store, catalog_of, read_spec

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Tally:
    """What was found about the rows of a sweep.

    Attributes:
      rows: checked; ``held``: of those, the ones whose every claim holds.
      certified, by_highs: lower bounds that follow from their certificate, and that rest on HiGHS alone.
      plans: upper bounds that are the cost of their checked plan.
      first: the first row that does not hold, as (sample, point, reason).
    """

    rows: int = 0
    held: int = 0
    certified: int = 0
    by_highs: int = 0
    plans: int = 0
    first: tuple[int, int, str] | None = None

    def add(self, verdicts: pd.DataFrame) -> None:
        """Count the verdicts on more rows."""
        ok = verdicts["ok"].to_numpy(bool)
        self.rows += len(verdicts)
        self.held += int(ok.sum())
        self.certified += verdicts["lower_by"].tolist().count("certificate")
        self.by_highs += verdicts["lower_by"].tolist().count("HiGHS")
        self.plans += verdicts["upper_by"].tolist().count("plan")
        if self.first is None and not ok.all():
            bad = int(np.argmin(ok))
            sample, point, reason = (verdicts[n].tolist()[bad] for n in ("sample", "point", "reason"))
            self.first = sample, point, reason


def verify_sweep(folder: str | Path) -> Iterator[pd.DataFrame]:
    """Verdicts on the rows that are there, part by part: as `verify_rows`, with ``sample`` and ``point``.

    A row that the certificates' part does not prove, or whose part is missing or damaged, does not hold.

    Raises:
      InputError: no sweep in the folder, a damaged part of rows, or another catalogue than the sweep's.
    """
    folder = Path(folder)
    store = Store(folder, read_spec(folder))
    catalog = catalog_of(folder, store.spec)
    for part, table, fault in store.check_parts(certified=False):
        if fault or table is None:
            raise InputError(
                part.path, "", f"a whole part of this sweep; sweep again with --resume ({fault})"
            )
        yield _verified(store, catalog, table.to_pandas(), *part)


def _verified(
    store: Store, catalog: Catalog, table: pd.DataFrame, path: Path, first: int, stop: int
) -> pd.DataFrame:
    instances = scenarios(store.spec, catalog, first, stop)
    held: dict[int, Certificate] = {}
    absent = ""
    if store.spec.certificates:
        try:
            held = load_certificates(store.certificates_folder / path.name, instances, first=first)
        except InputError as error:
            absent = f"its certificate cannot be read ({error})"
    faults = []
    for b, row in enumerate(table.to_dict("records")):
        plan, fault = _plan(row["plan"], instances, b)
        held[b] = replace(held.get(b, Certificate()), plan=plan)
        reasons = [absent, fault, *_beside(store.spec, row, plan, instances, b)]
        faults.append("; ".join(r for r in reasons if r))
    verdicts = verify_rows(table.assign(instance=np.arange(len(table))), held, instances)
    verdicts.insert(0, "sample", table["sample"].to_numpy())
    verdicts.insert(1, "point", table["point"].to_numpy())
    reasons = [
        "; ".join(r for r in pair if r) for pair in zip(faults, verdicts["reason"].tolist(), strict=True)
    ]
    return verdicts.assign(reason=reasons, ok=[not r for r in reasons])


def _plan(text: object, instances: Instances, b: int) -> tuple[Plan | None, str]:
    """A row's plan, or why it cannot be read."""
    if not isinstance(text, str):
        return None, ""
    try:
        return plan_from_json(json.loads(text) | {"instance": b}, instances), ""
    except (ValueError, TypeError, RecursionError) as error:
        return None, f"its plan cannot be read ({error})"


def _beside(
    spec: SweepSpec, row: dict[str, Any], plan: Plan | None, instances: Instances, b: int
) -> Iterator[str]:
    """What is wrong in the columns that the bounds do not reach."""
    for name, level in zip(spec.columns, spec.levels_at(np.array([row["point"]])), strict=True):
        if row[name] != level[0]:
            yield f"{name} is not that of the point"
    for name, value in plan_columns(plan, instances, b).items():
        if name == "plan" or value is None:
            continue
        same = (
            row[name] == value
            if isinstance(value, str)
            else abs(row[name] - value) <= RECOMPUTED * (1 + value)
        )
        if not same:
            yield f"{name} is not that of the plan"
    if row["status"] == "gap_limit" and not row["gap"] <= spec.wanted_gap * (1 + RECOMPUTED):
        yield "status gap_limit with a wider gap"
