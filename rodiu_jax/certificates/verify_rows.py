"""Whether the rows of a table follow from their certificates: covers, lower bounds, plans, costs, gaps and statuses."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.certificates.codec import Certificate
from rodiu_jax.certificates.witness_dual import dual_values
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import OPTIMAL_GAP, RECOMPUTED, RECOMPUTED_FLOOR
from rodiu_jax.model.verdict import COSTS

if TYPE_CHECKING:
    import pandas as pd


_TWO_SIDED = ("optimal", "gap_limit", "bracket")
"""Statuses that say both bounds are finite."""

_CHUNK = 64
"""Leaves evaluated at once: few enough for the arrays to stay in cache, and memory bounded."""


def verify_rows(
    table: pd.DataFrame,
    certificates: dict[int, Certificate],
    instances: Instances,
    *,
    source: str | Path = "table",
) -> pd.DataFrame:
    """Recompute every bound that ``table`` claims.

    A row holds where all of these do, to 1e-9 relative: ``lower_bound`` is at most the recomputed one (inf, or status
    ``infeasible``, no plan exists: that one exceeds any possible cost); ``upper_bound`` is the cost of the
    certificate's plan, which the checker accepts, and not below the lower bound; the columns of costs and ``gap``,
    where present, are that plan's and that bracket's; a ``status`` that says both bounds are known, or equal, has them
    so. -inf or a missing lower, inf or a missing upper bound claim nothing.

    Where the column ``method`` says that HiGHS had a part, a lower bound above the recomputed one rests on HiGHS: it
    cannot be recomputed here, and ``lower_by`` says so. What is still checked is ``certified_lower_bound``, the part
    of it that the certificate proves, where the table has that column.

    Args:
      table: a row per scenario: ``instance``, ``lower_bound``, ``upper_bound``; other columns may stand beside.
      certificates: by scenario, as `load_certificates` gives them; one without leaves proves no lower bound.
      source: what errors name as the origin of ``table``.

    Returns:
      a row per row of ``table``: ``instance``, ``lower_claimed``, ``lower_recomputed``, ``upper_claimed``,
      ``upper_recomputed``, ``lower_by`` (``certificate``, ``HiGHS``, or empty where nothing is claimed or it does not
      hold), ``upper_by`` (``plan`` or empty), ``ok``, ``reason`` (empty where ok).

    Raises:
      InputError: a column is missing or not numeric, or names a scenario that does not exist.
    """
    import pandas as pd

    scenario = _numbers(table, "instance", source)
    lower_claims, upper_claims = (_numbers(table, n, source) for n in ("lower_bound", "upper_bound"))
    wrong = ~((scenario >= 0) & (scenario < instances.size) & (scenario == np.floor(scenario)))
    if wrong.any():
        expected = f"a whole number from 0 to {instances.size - 1}"
        raise InputError(
            source, f"row {int(np.argmax(wrong))}: instance", expected, float(scenario[wrong][0])
        )
    lowers = _recomputed(
        sorted(set(scenario.astype(int).tolist()) & certificates.keys()), certificates, instances
    )
    beside, rows = _Beside(table, source), []
    lower_claims = np.where(beside.infeasible & np.isnan(lower_claims), math.inf, lower_claims)
    for row, b in enumerate(scenario.astype(int).tolist()):
        held = certificates.get(b)
        lower, upper = lowers.get(b, -math.inf), math.inf
        claimed = float(lower_claims[row]), float(upper_claims[row])
        reasons: list[str] = []
        bare = held is None or not held.paths
        if bare:
            lower = -math.inf
        elif held and not _covers(held.paths):
            reasons.append("the leaves do not cover every plan")
            lower = -math.inf
        highest = _highest_cost(instances, b)
        floor = RECOMPUTED_FLOOR * (1.0 + highest)

        proven = partial(_proven, lower=lower, highest=highest, floor=floor)
        lower_by = upper_by = ""
        if claimed[0] > -math.inf:
            if proven(claimed[0]):
                lower_by = "certificate"
            elif beside.exact[row]:
                lower_by = "HiGHS"
            elif bare:
                reasons.append("no certificate")
            elif claimed[0] == math.inf:
                reasons.append("infeasibility is not proven")
            else:
                reasons.append("the lower bound is above what its certificate proves")
        if not proven(beside.certified[row]):
            why = (
                "no certificate" if bare else "the certified lower bound is above what its certificate proves"
            )
            reasons += [why] if why not in reasons else []
        costs: dict[str, float] = {}
        if held and held.plan is not None:
            verdict = check_plan(held.plan, instances, b)
            if verdict.feasible:
                costs, upper = verdict.costs, verdict.costs["total_cost"]
            elif claimed[1] < math.inf:
                reasons.append(f"the plan breaks {verdict.binding}")
        if claimed[1] < math.inf:
            if _same(claimed[1], upper, upper, floor):
                upper_by = "plan"
            else:
                reasons.append("the upper bound is not the cost of its plan")
            if claimed[0] > claimed[1] + RECOMPUTED * abs(claimed[1]) + floor:
                reasons.append("the lower bound is above the upper bound")
                lower_by = ""
        reasons += beside.faults(row, *claimed, costs, floor)
        rows.append(
            (b, claimed[0], lower, claimed[1], upper, lower_by, upper_by, not reasons, "; ".join(reasons))
        )
    names = (
        "instance",
        "lower_claimed",
        "lower_recomputed",
        "upper_claimed",
        "upper_recomputed",
        "lower_by",
        "upper_by",
        "ok",
        "reason",
    )
    return pd.DataFrame(rows, columns=list(names))


def _recomputed(
    wanted: list[int], certificates: dict[int, Certificate], instances: Instances
) -> dict[int, float]:
    """The least dual value over the leaves of each scenario."""
    scenario = np.array([b for b in wanted for _ in certificates[b].paths], np.int64)
    leaves = [leaf for b in wanted for leaf in zip(*certificates[b][:3], strict=True)]
    found = dict.fromkeys(wanted, math.inf)
    for first in range(0, len(leaves), _CHUNK):
        part = scenario[first : first + _CHUNK]
        with np.errstate(over="ignore", invalid="ignore"):  # such a leaf proves nothing, and says -inf
            values = dual_values(instances, part, leaves[first : first + _CHUNK])
        for b, value in zip(part.tolist(), values.tolist(), strict=True):
            found[b] = min(found[b], value)
    return found


def _covers(paths: list[np.ndarray]) -> bool:
    """True where every plan is in some leaf: at each depth all paths split on one triple, and both sides go on."""
    open_sets = [(0, [p.tolist() for p in paths])]
    while open_sets:
        depth, group = open_sets.pop()
        if len(group) == 1 and len(group[0]) == depth:
            continue
        if not group or any(len(p) <= depth for p in group) or len({abs(p[depth]) for p in group}) > 1:
            return False
        open_sets += [(depth + 1, [p for p in group if (p[depth] > 0) is side]) for side in (True, False)]
    return True


def _highest_cost(instances: Instances, b: int) -> float:
    """No plan costs more: the budget, and per type the penalty of all or a delay within its promise."""
    f = instances.one(b)
    per_hour = f.arrival_rate * (f.unmet_penalty + f.delay_penalty * f.delay_threshold)
    return float(f.budget + f.rental_hours * per_hour.sum())


def _proven(claim: float, *, lower: float, highest: float, floor: float) -> bool:
    """Whether a claimed lower bound (inf: no plan exists; nan: no claim) follows from the recomputed ``lower``."""
    if claim == math.inf:
        return lower > highest
    return claim <= lower or not claim > lower + RECOMPUTED * abs(claim) + floor


def _numbers(table: pd.DataFrame, name: str, source: str | Path) -> np.ndarray:
    """A column as float64, missing values NaN."""
    if name not in table.columns:
        raise InputError(source, name, "this column, which is missing")
    column = table[name]
    numbers = getattr(column.dtype, "kind", "?") in "iuf" or bool(column.isna().to_numpy().all())
    if not numbers:  # texts that look like numbers are none
        raise InputError(source, name, "a column of numbers", str(column.dtype))
    return column.to_numpy(np.float64, na_value=math.nan)


def _same(claimed: float, found: float, scale: float, floor: float) -> bool:
    """True where both are finite and differ by no more than rounding."""
    return math.isfinite(found) and bool(abs(claimed - found) <= RECOMPUTED * abs(scale) + floor)


class _Beside:
    """The columns that stand beside the bounds."""

    def __init__(self, table: pd.DataFrame, source: str | Path) -> None:
        self._status = table["status"].tolist() if "status" in table.columns else None
        self._gap = _numbers(table, "gap", source) if "gap" in table.columns else None
        self._costs = {n: _numbers(table, n, source) for n in COSTS if n in table.columns}
        self.infeasible = np.array([s == "infeasible" for s in self._status or [""] * len(table)], bool)
        methods = table["method"].tolist() if "method" in table.columns else [""] * len(table)
        self.exact = [isinstance(m, str) and "exact" in m for m in methods]
        known = "certified_lower_bound" in table.columns
        self.certified: list[float] = (
            _numbers(table, "certified_lower_bound", source).tolist() if known else [math.nan] * len(table)
        )

    def faults(
        self, row: int, lower: float, upper: float, costs: dict[str, float], floor: float
    ) -> list[str]:
        """What is wrong there, given the bounds claimed and the costs of the checked plan."""
        known = math.isfinite(lower) and math.isfinite(upper)
        reasons = []
        if self._status is not None and self._status[row] in _TWO_SIDED and not known:
            reasons.append(f"status {self._status[row]} without two bounds")
        wide = (upper - lower) / abs(upper) if known and upper else math.nan
        if self._status is not None and self._status[row] == "optimal" and wide > OPTIMAL_GAP + RECOMPUTED:
            reasons.append("status optimal with a wider gap")
        if self._gap is not None and math.isfinite(wide) and not abs(self._gap[row] - wide) <= RECOMPUTED:
            reasons.append("the gap is not that of the bounds")
        for name, column in self._costs.items() if math.isfinite(upper) else ():
            if not _same(column[row], costs.get(name, math.nan), upper, floor):
                reasons.append(f"{name} is not that of the plan")
        return reasons
