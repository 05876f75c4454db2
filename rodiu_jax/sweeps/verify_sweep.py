"""Checking the rows of a sweep against their certificates and plans, without the solvers' code.

The scenarios are drawn again from the spec and the catalogue; a lower bound must follow from the stored multipliers, an
upper bound must be the cost of the stored plan (`rodiu_jax.certificates`). Memory is that of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog
from rodiu_jax.certificates import Certificate, load_certificates, verify_rows
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import RECOMPUTED
from rodiu_jax.sweeps.rows import plan_columns, plans_from_rows
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
    for part, table, fault in store.check_parts():
        if fault or table is None:
            raise InputError(
                part.path, "", f"a whole part of this sweep; sweep again with --resume ({fault})"
            )
        yield _verified(store, catalog, table, *part)


def _verified(
    store: Store, catalog: Catalog, rows: pa.Table, path: Path, first: int, stop: int
) -> pd.DataFrame:
    table = rows.to_pandas()
    instances = scenarios(store.spec, catalog, first, stop)
    held: dict[int, Certificate] = {}
    absent = ""
    if store.spec.certificates:
        try:
            held = load_certificates(store.certificates_folder / path.name, instances, first=first)
        except InputError as error:
            absent = f"its certificate cannot be read ({error})"
    plans, unread = plans_from_rows(rows, instances)
    for b, plan in enumerate(plans):
        held[b] = replace(held.get(b, Certificate()), plan=plan and replace(plan, instance=b))
    faults = [[reason for reason in (absent, fault) if reason] for fault in unread]
    for wrong, reason in _beside(store.spec, rows, plans, instances):
        for b in np.flatnonzero(wrong).tolist():
            faults[b].append(reason)
    verdicts = verify_rows(table.assign(instance=np.arange(len(table))), held, instances)
    verdicts.insert(0, "sample", table["sample"].to_numpy())
    verdicts.insert(1, "point", table["point"].to_numpy())
    reasons = [
        "; ".join([*fault, *([reason] if reason else [])])
        for fault, reason in zip(faults, verdicts["reason"].tolist(), strict=True)
    ]
    return verdicts.assign(reason=reasons, ok=[not r for r in reasons])


def _beside(
    spec: SweepSpec, rows: pa.Table, plans: Sequence[Plan | None], instances: Instances
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield what is wrong in the columns that the bounds do not reach: which rows, bool (B,), and the reason."""
    from solvers.answers import Answer, Answers

    for name, level in zip(spec.columns, spec.levels_at(rows["point"].to_numpy()), strict=True):
        yield rows[name].to_numpy() != level, f"{name} is not that of the point"
    names = instances.names
    answers = Answers.stack([Answer.of(names, Status.UNKNOWN, plan=plan) for plan in plans], names=names)
    expectations = plan_columns(answers, instances)
    del expectations["plan"]  # it is what they are made from
    for name, expected in expectations.items():
        value, meant = rows[name].to_numpy(), np.asarray(expected)
        if name == "deployments":
            same = value == meant
        else:
            same = np.abs(value - meant) <= RECOMPUTED * (1 + np.abs(meant))
            same |= np.isnan(value.astype(float)) & np.isnan(meant.astype(float))
        yield answers.has_plan & ~same, f"{name} is not that of the plan"
    limited = rows["status"].to_numpy() == Status.GAP_LIMIT.word
    close = rows["gap"].to_numpy() <= spec.wanted_gap * (1 + RECOMPUTED)
    yield limited & ~close, "status gap_limit with a wider gap"
