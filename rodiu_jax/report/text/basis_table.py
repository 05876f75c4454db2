"""What plans rest on, as a table: which share of each kind of value is measured, predicted and assumed."""

from __future__ import annotations

from rodiu_jax.decisions.plan_basis import BASES, PlanBasis
from rodiu_jax.io.number_text import percent
from rodiu_jax.report.parts.section import PageTable


def tabulate_basis(basis: PlanBasis, name: str) -> list[PageTable]:
    """Make a row per field that is weighed, and one of all values that the plans read; no table without plans.

    Args:
      name: of the table's CSV file.
    """
    data = basis.tabulate()
    if data.empty:
        return []
    rows = [[r["field"], r["by"], *(percent(r[b]) for b in BASES)] for r in data.to_dict("records")]
    heads = ["value", "weighed by", *BASES]
    caption = "Which share is measured, predicted and assumed"
    return [PageTable(name, caption, heads, rows, (2, 3, 4), data)]
