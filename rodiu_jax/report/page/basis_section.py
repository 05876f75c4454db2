"""The section of a sweep's page about its values: what the plans rest on, and which values look wrong."""

from __future__ import annotations

from pathlib import Path

from rodiu_jax.catalog.findings import find_findings
from rodiu_jax.decisions.plan_basis import PlanBasis
from rodiu_jax.errors import InputError
from rodiu_jax.report.data.digest import Digest
from rodiu_jax.report.data.stored_plans import read_stored_plans
from rodiu_jax.report.parts.section import Section
from rodiu_jax.report.text.basis_table import tabulate_basis

_MOST_PLANS = 128
_MOST_FINDINGS = 8
"""Findings on the page; `rodiu validate` has all."""


def make_basis_sections(folder: Path, digest: Digest) -> list[Section]:
    """Make the section about measured, predicted and assumed values; none where there is nothing to say of them."""
    from rodiu_jax.sweeps.store import catalog_of

    try:
        catalog = catalog_of(folder, digest.spec)
        stored, looked = read_stored_plans(folder, digest, _MOST_PLANS)
        basis, plans = PlanBasis(catalog), 0
        for held in stored:
            for b, plan in enumerate(held.plans):
                basis.add(plan, held.instances, b)
                plans += 1
    except InputError:  # told where constraints are
        return []
    findings = find_findings(catalog)["text"].tolist()
    if not plans and not findings:
        return []
    points = [basis.describe()] if plans else []
    points += [f"Warning: {text}." for text in findings[:_MOST_FINDINGS]]
    if len(findings) > _MOST_FINDINGS:
        points.append(
            f"And {len(findings) - _MOST_FINDINGS:,} more warnings: rodiu validate --catalog lists all."
        )
    text = (
        f"From {plans:,} plans of the {looked:,} scenarios looked at. Prices are weighed by the rent that is paid at "
        "them, rates by the load of replicas, the others as the table says; the last row counts each value that a "
        "plan reads once. Values are as the catalogue states them, before the sweep changes any."
    )
    return [Section("basis", "What the answer rests on", text, points, (), tabulate_basis(basis, "basis"))]
