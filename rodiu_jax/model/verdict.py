"""The answer about one plan on one instance, and the constraint families it is given in (MODEL section 5)."""

from __future__ import annotations

from dataclasses import dataclass

COSTS = ("total_cost", "rental_cost", "storage_cost", "delay_cost", "unmet_cost")
"""Cost columns, $ per rental period."""

FAMILIES = ("demand", "unmet", "routes", "memory", "compute", "storage", "budget", "delay", "error")
"""Constraint families, in the order of MODEL section 5."""

SERVING_FAMILIES = ("throughput", "quota", "replicas")
"""Constraint families of MODEL section 9, after the others where scenarios use them."""


@dataclass(frozen=True)
class Verdict:
    """Costs, margins and feasibility of a plan on an instance.

    Attributes:
      feasible: every margin is at least ``-MARGIN_TOLERANCE``.
      costs: $ per rental period by the names of `COSTS`.
      margins: smallest margin of each family, (limit - value) / limit; inf where the plan meets no constraint
        of the family (no route limit, nothing deployed). A limit of 0 is scaled by 1 of its unit; ``demand``
        is minus the absolute error of the sum; ``delay`` and ``error`` are relative to the threshold. Of
        `SERVING_FAMILIES`, where scenarios use them: ``throughput`` is relative to the load that all replicas of the
        pair may have, -inf where a type is sent where it cannot be served; ``quota`` and ``replicas`` are relative to
        the limit, inf without one.
      binding: the constraint with the smallest margin, with its names, such as ``delay[Code_Gen]``; ``demand``, which
        holds with equality, and ``replicas``, which hold so where there is one, only when broken.
    """

    feasible: bool
    costs: dict[str, float]
    margins: dict[str, float]
    binding: str
