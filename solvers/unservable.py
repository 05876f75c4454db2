"""Query types that no plan can serve, by name, with the reason: said in place of a solver's status. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rodiu_jax.io.number_text import percent
from rodiu_jax.model.instance import Instances
from solvers.terms import Terms, collect, tighten


def find_unservable(instances: Instances, b: int) -> dict[str, str]:
    """Find the query types of which no plan of scenario ``b`` can serve any share, and why.

    Sound, not complete: each limit of a triple (model, GPU, degree) is looked at alone, and a triple that breaks a
    promise counts as one that serves where others could make good what it breaks.
    """
    terms = collect(instances, b)
    share = tighten(terms).most.max(axis=1, initial=0.0)
    return {name: _reason(terms, i) for i, name in enumerate(instances.query_names) if share[i] <= 0.0}


def _reason(terms: Terms, i: int) -> str:
    if not len(terms.pair):
        return "no model fits any GPU within storage, budget, quotas and max_replicas"
    if terms.fleet is not None and not np.isfinite(terms.fleet.load[i]).any():
        return "its throughput is 0 wherever a model fits"
    if not (terms.most[i] > 0).any():
        return "no GPU has memory and compute for any of it beside a model's weights"
    return "no model and GPU keeps its promises"


def group_reasons(found: Mapping[str, str]) -> dict[str, str]:
    """Join the names of types that nobody can serve for the same reason: names by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in found.items():
        names.setdefault(reason, []).append(name)
    return {reason: ", ".join(each) for reason, each in names.items()}


def explain_no_plan(instances: Instances, b: int) -> str:
    """Say which types make a plan of scenario ``b`` impossible, as nobody can serve them; empty where none does."""
    cap = float(instances.one(b).unmet_cap)
    found = find_unservable(instances, b) if cap < 1.0 else {}
    if not found:
        return ""
    told = "; ".join(f"{names} ({reason})" for reason, names in group_reasons(found).items())
    return f"nobody can serve {told}, and unmet_cap lets at most {percent(cap)} of a type go unserved"
