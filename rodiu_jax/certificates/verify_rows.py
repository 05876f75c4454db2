"""Whether the rows of a table follow from their certificates: covers, lower bounds, plans, costs, gaps and statuses.

The table is read into `Claims`, the certificates are recomputed into `Proofs`, both in columns over the table's rows;
each named check compares the two and yields the rows at fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rodiu_jax.certificates.certificate_file import Certificate
from rodiu_jax.certificates.witness_dual import dual_values
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.tolerances import OPTIMAL_GAP, RECOMPUTED, RECOMPUTED_FLOOR
from rodiu_jax.model.verdict import COSTS

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 64
"""Leaves evaluated at once: few enough for the arrays to stay in cache, and memory bounded."""

_TWO_SIDED = {status.word for status in Status if status.two_sided}
_WITH_HIGHS = {prover.word for prover in Prover if prover.uses_highs}


class FaultKind(StrEnum):
    """What can be wrong with a row; the kinds are counted, their sentences are read."""

    COVER = "cover"
    NO_CERTIFICATE = "no_certificate"
    INFEASIBILITY = "infeasibility"
    LOWER_BOUND = "lower_bound"
    CERTIFIED_BOUND = "certified_bound"
    PLAN = "plan"
    UPPER_BOUND = "upper_bound"
    CROSSED = "crossed"
    STATUS = "status"
    GAP = "gap"
    COSTS = "costs"


@dataclass(frozen=True)
class Fault:
    """A kind of fault, the rows that have it, and one sentence for all of them or one for each row of the table."""

    kind: FaultKind
    rows: Bool[np.ndarray, " R"]
    text: str | list[str]


@dataclass(frozen=True)
class Claims:
    """What R rows of a table claim; nan claims nothing, and so does a column that the table lacks."""

    scenario: Int64[np.ndarray, " R"]
    lower: Float64[np.ndarray, " R"]
    upper: Float64[np.ndarray, " R"]
    certified: Float64[np.ndarray, " R"]
    gap: Float64[np.ndarray, " R"] | None
    costs: dict[str, Float64[np.ndarray, " R"]]
    status: list[object]
    with_highs: Bool[np.ndarray, " R"]

    @property
    def bounded_below(self) -> Bool[np.ndarray, " R"]:
        """Rows that claim a lower bound."""
        return self.lower > -math.inf

    @property
    def bounded_above(self) -> Bool[np.ndarray, " R"]:
        """Rows that claim an upper bound."""
        return self.upper < math.inf

    @property
    def two_sided(self) -> Bool[np.ndarray, " R"]:
        """Rows that claim two finite bounds."""
        return np.isfinite(self.lower) & np.isfinite(self.upper)

    @property
    def width(self) -> Float64[np.ndarray, " R"]:
        """The relative gap of the claimed bounds; nan where there is none."""
        known = self.two_sided & (self.upper != 0)
        width = np.full(len(self.lower), math.nan)
        lower, upper = self.lower[known], self.upper[known]
        width[known] = (upper - lower) / np.abs(upper)
        return width


@dataclass(frozen=True)
class Proofs:
    """What the certificates of R rows prove, recomputed.

    Attributes:
      bare: rows without a leaf; ``covers``: rows whose leaves hold every plan.
      lower: the least dual value of the leaves; -inf where they prove nothing.
      costs: of the checked plan, by name; nan without one. ``breaks``: what the plan breaks, or empty.
      highest: no plan costs more.
      floor: what rounding leaves of a bound that is 0, in terms of money that is paid, as limits may be of any size.
    """

    bare: Bool[np.ndarray, " R"]
    covers: Bool[np.ndarray, " R"]
    lower: Float64[np.ndarray, " R"]
    costs: dict[str, Float64[np.ndarray, " R"]]
    breaks: list[str]
    highest: Float64[np.ndarray, " R"]
    floor: Float64[np.ndarray, " R"]

    @property
    def upper(self) -> Float64[np.ndarray, " R"]:
        """The cost of the checked plan; inf without one."""
        total = self.costs["total_cost"]
        return np.where(np.isnan(total), math.inf, total)

    def prove(self, claim: Float64[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
        """Return where a claimed lower bound (inf: no plan exists; nan: no claim) follows from ``lower``."""
        with np.errstate(invalid="ignore"):
            above = claim > self.lower + RECOMPUTED * np.abs(claim) + self.floor
        return np.where(claim == math.inf, self.lower > self.highest, ~above)

    def match(
        self,
        claim: Float64[np.ndarray, " R"],
        cost: Float64[np.ndarray, " R"],
        scale: Float64[np.ndarray, " R"],
    ) -> Bool[np.ndarray, " R"]:
        """Return where a claimed and a recomputed cost differ by no more than rounding, relative to ``scale``."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(cost) & (np.abs(claim - cost) <= RECOMPUTED * np.abs(scale) + self.floor)


def _check_cover(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    yield Fault(FaultKind.COVER, ~proofs.bare & ~proofs.covers, "the leaves do not cover every plan")


def _check_lower_bound(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    """A lower bound follows from the certificate, or rests on HiGHS."""
    open_ = claims.bounded_below & ~proofs.prove(claims.lower) & ~claims.with_highs
    yield Fault(FaultKind.NO_CERTIFICATE, open_ & proofs.bare, "no certificate")
    impossible = claims.lower == math.inf
    yield Fault(FaultKind.INFEASIBILITY, open_ & ~proofs.bare & impossible, "infeasibility is not proven")
    text = "the lower bound is above what its certificate proves"
    yield Fault(FaultKind.LOWER_BOUND, open_ & ~proofs.bare & ~impossible, text)


def _check_certified_bound(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    """The part of the lower bound that is claimed to be certified follows from the certificate alone."""
    open_ = ~proofs.prove(claims.certified)
    yield Fault(FaultKind.NO_CERTIFICATE, open_ & proofs.bare, "no certificate")
    text = "the certified lower bound is above what its certificate proves"
    yield Fault(FaultKind.CERTIFIED_BOUND, open_ & ~proofs.bare, text)


def _check_plan(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    broken = np.array([bool(name) for name in proofs.breaks], bool)
    texts = [f"the plan breaks {name}" for name in proofs.breaks]
    yield Fault(FaultKind.PLAN, broken & claims.bounded_above, texts)


def _check_upper_bound(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    wrong = claims.bounded_above & ~proofs.match(claims.upper, proofs.upper, proofs.upper)
    yield Fault(FaultKind.UPPER_BOUND, wrong, "the upper bound is not the cost of its plan")


def _check_order(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    crossed = _cross(claims, proofs)
    yield Fault(FaultKind.CROSSED, crossed, "the lower bound is above the upper bound")


def _check_status(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    """A status that says both bounds are known, or equal, has them so."""
    says_two = np.array([status in _TWO_SIDED for status in claims.status], bool)
    texts = [f"status {status} without two bounds" for status in claims.status]
    yield Fault(FaultKind.STATUS, says_two & ~claims.two_sided, texts)
    optimal = np.array([status == Status.OPTIMAL.word for status in claims.status], bool)
    too_wide = optimal & (claims.width > OPTIMAL_GAP + RECOMPUTED)
    yield Fault(FaultKind.STATUS, too_wide, "status optimal with a wider gap")


def _check_gap(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    if claims.gap is not None:
        wrong = np.isfinite(claims.width) & ~(np.abs(claims.gap - claims.width) <= RECOMPUTED)
        yield Fault(FaultKind.GAP, wrong, "the gap is not that of the bounds")


def _check_costs(claims: Claims, proofs: Proofs) -> Iterator[Fault]:
    for name, claim in claims.costs.items():
        wrong = np.isfinite(claims.upper) & ~proofs.match(claim, proofs.costs[name], claims.upper)
        yield Fault(FaultKind.COSTS, wrong, f"{name} is not that of the plan")


CHECKS: tuple[Callable[[Claims, Proofs], Iterator[Fault]], ...] = (
    _check_cover,
    _check_lower_bound,
    _check_certified_bound,
    _check_plan,
    _check_upper_bound,
    _check_order,
    _check_status,
    _check_gap,
    _check_costs,
)
"""The checks, in the order in which a row's reasons are told."""


def verify_rows(
    table: pd.DataFrame,
    certificates: Mapping[int, Certificate],
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
      hold), ``upper_by`` (``plan`` or empty), ``ok``, ``reason`` (empty where ok), ``faults`` (their kinds).

    Raises:
      InputError: a column is missing or not numeric, or names a scenario that does not exist.
    """
    import pandas as pd

    claims = read_claims(table, instances.size, source)
    proofs = recompute_proofs(claims.scenario, certificates, instances)
    reasons: list[list[str]] = [[] for _ in range(len(table))]
    kinds: list[list[FaultKind]] = [[] for _ in range(len(table))]
    for check in CHECKS:
        for fault in check(claims, proofs):
            for row in np.flatnonzero(fault.rows).tolist():
                text = fault.text if isinstance(fault.text, str) else fault.text[row]
                if text not in reasons[row]:
                    reasons[row].append(text)
                    kinds[row].append(fault.kind)
    by_certificate = claims.bounded_below & proofs.prove(claims.lower)
    lower_by = np.where(by_certificate, "certificate", np.where(claims.with_highs, "HiGHS", ""))
    lower_by = np.where(claims.bounded_below & ~_cross(claims, proofs), lower_by, "")
    plan = claims.bounded_above & proofs.match(claims.upper, proofs.upper, proofs.upper)
    return pd.DataFrame(
        {
            "instance": claims.scenario,
            "lower_claimed": claims.lower,
            "lower_recomputed": proofs.lower,
            "upper_claimed": claims.upper,
            "upper_recomputed": proofs.upper,
            "lower_by": lower_by.astype(object),
            "upper_by": np.where(plan, "plan", "").astype(object),
            "ok": [not r for r in reasons],
            "reason": ["; ".join(r) for r in reasons],
            "faults": [tuple(k) for k in kinds],
        }
    )


def _cross(claims: Claims, proofs: Proofs) -> Bool[np.ndarray, " R"]:
    """Return where the claimed lower bound is above the claimed upper bound."""
    with np.errstate(invalid="ignore"):
        least = claims.upper + RECOMPUTED * np.abs(claims.upper) + proofs.floor
        return claims.bounded_above & (claims.lower > least)


def read_claims(table: pd.DataFrame, size: int, source: str | Path) -> Claims:
    """Read the claims of a table about ``size`` scenarios; raises as `verify_rows`."""
    scenario = _read_numbers(table, "instance", source)
    wrong = ~((scenario >= 0) & (scenario < size) & (scenario == np.floor(scenario)))
    lower, upper = (_read_numbers(table, n, source) for n in ("lower_bound", "upper_bound"))
    if wrong.any():
        field = f"row {int(np.argmax(wrong))}: instance"
        raise InputError(source, field, f"a whole number from 0 to {size - 1}", float(scenario[wrong][0]))

    def words(name: str) -> list[object]:
        return table[name].tolist() if name in table.columns else [""] * len(table)

    status = words("status")
    infeasible = np.array([s == Status.INFEASIBLE.word for s in status], bool)
    certified = "certified_lower_bound"
    return Claims(
        scenario=scenario.astype(np.int64),
        lower=np.where(infeasible, math.inf, lower),
        upper=upper,
        certified=_read_numbers(table, certified, source) if certified in table.columns else lower * math.nan,
        gap=_read_numbers(table, "gap", source) if "gap" in table.columns else None,
        costs={n: _read_numbers(table, n, source) for n in COSTS if n in table.columns},
        status=status,
        with_highs=np.array([method in _WITH_HIGHS for method in words("method")], bool),
    )


def _read_numbers(table: pd.DataFrame, name: str, source: str | Path) -> Float64[np.ndarray, " R"]:
    """Read a column as float64, missing values NaN."""
    if name not in table.columns:
        raise InputError(source, name, "this column, which is missing")
    column = table[name]
    numbers = getattr(column.dtype, "kind", "?") in "iuf" or bool(column.isna().to_numpy().all())
    if not numbers:  # texts that look like numbers are none
        raise InputError(source, name, "a column of numbers", str(column.dtype))
    return column.to_numpy(np.float64, na_value=math.nan)


def recompute_proofs(
    scenario: Int64[np.ndarray, " R"], certificates: Mapping[int, Certificate], instances: Instances
) -> Proofs:
    """Recompute what the certificates of ``scenario``, row by row, prove."""
    nothing = Certificate()
    own = [certificates.get(b, nothing) for b in scenario.tolist()]
    bare = np.array([not c.paths for c in own], bool)
    covers = np.array([_covers_every_plan(c.paths) for c in own], bool)
    least = _least_dual_values(
        {b: certificates[b] for b in {*scenario.tolist()} & {*certificates}}, instances
    )
    lower = np.array([least.get(b, -math.inf) for b in scenario.tolist()], np.float64)
    highest = _highest_costs(instances)[scenario]
    costs = {name: np.full(len(own), math.nan) for name in COSTS}
    breaks = [""] * len(own)
    for row, (b, certificate) in enumerate(zip(scenario.tolist(), own, strict=True)):
        if certificate.plan is None:
            continue
        verdict = check_plan(certificate.plan, instances, b)
        if not verdict.feasible:
            breaks[row] = verdict.binding
            continue
        for name in COSTS:
            costs[name][row] = verdict.costs[name]
    return Proofs(
        bare=bare,
        covers=covers,
        lower=np.where(bare | ~covers, -math.inf, lower),
        costs=costs,
        breaks=breaks,
        highest=highest,
        floor=RECOMPUTED_FLOOR
        * (1.0 + _unserved_costs(instances)[scenario] + np.nan_to_num(costs["total_cost"])),
    )


def _least_dual_values(certificates: Mapping[int, Certificate], instances: Instances) -> dict[int, float]:
    """Return the least dual value over the leaves of each scenario."""
    least = dict.fromkeys(certificates, math.inf)
    for ranges in {c.ranges for c in certificates.values()}:
        of_ranges = [b for b in sorted(certificates) if certificates[b].ranges == ranges]
        leaves = [(b, leaf) for b in of_ranges for leaf in certificates[b].leaves]
        for first in range(0, len(leaves), _CHUNK):
            part = leaves[first : first + _CHUNK]
            scenario = np.array([b for b, _ in part], np.int64)
            with np.errstate(over="ignore", invalid="ignore"):  # such a leaf proves nothing, and says -inf
                values = dual_values(instances, scenario, [leaf for _, leaf in part], ranges)
            for b, value in zip(scenario.tolist(), values.tolist(), strict=True):
                least[b] = min(least[b], value)
    return least


def _covers_every_plan(paths: tuple[np.ndarray, ...]) -> bool:
    """True if every plan is in some leaf: at each depth all paths split on one triple, and both sides go on.

    The two sides of a split have codes of opposite sign (`rodiu_jax.certificates.leaf_codec`).
    """
    open_sets = [(0, [p.tolist() for p in paths])]
    while open_sets:
        depth, group = open_sets.pop()
        if len(group) == 1 and len(group[0]) == depth:
            continue
        if not group or any(len(p) <= depth for p in group) or len({abs(p[depth]) for p in group}) > 1:
            return False
        open_sets += [(depth + 1, [p for p in group if (p[depth] > 0) is side]) for side in (True, False)]
    return True


def _unserved_costs(instances: Instances) -> Float64[np.ndarray, " B"]:
    """Compute what serving nobody costs, $ per period."""
    f = instances.fields
    cost = np.asarray(f.rental_hours) * (np.asarray(f.arrival_rate) * np.asarray(f.unmet_penalty)).sum(-1)
    return np.broadcast_to(np.asarray(cost, np.float64), (instances.size,))


def _highest_costs(instances: Instances) -> Float64[np.ndarray, " B"]:
    """No plan costs more: the budget, and per type the penalty of all or a delay within its promise."""
    f = instances.fields
    per_hour = np.asarray(f.arrival_rate) * (
        np.asarray(f.unmet_penalty) + np.asarray(f.delay_penalty) * np.asarray(f.delay_threshold)
    )
    highest = np.asarray(f.budget) + np.asarray(f.rental_hours) * per_hour.sum(-1)
    return np.broadcast_to(np.asarray(highest, np.float64), (instances.size,))
