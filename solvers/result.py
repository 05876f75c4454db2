"""What every method answers for one scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from rodiu_jax.io.files import json_number
from rodiu_jax.model.plan import Plan

Status = Literal["optimal", "gap_limit", "time_limit", "bracket", "infeasible", "unknown", "error"]


@dataclass(frozen=True)
class Result:
    """A proven bracket of one scenario's optimal cost.

    Attributes:
      instance: the scenario.
      status: ``optimal`` (gap <= `OPTIMAL_GAP`), ``gap_limit`` (stopped at the gap asked for), ``time_limit``,
        ``bracket`` (a valid bracket, wider than asked), ``infeasible`` (proven: no plan exists), ``unknown``
        (no plan found, infeasibility not proven) or ``error`` (``message`` says why). Never optimistic.
      objective: total cost in $ per period of ``plan`` as the independent checker computes it; inf without one.
      bound: proven lower bound in $ per period; -inf where nothing is proven, inf when infeasible.
      costs: ``total_cost``, ``rental_cost``, ``storage_cost``, ``delay_cost``, ``unmet_cost`` of the plan.
      plan: a plan that the independent checker accepted, or None.
      seconds: wall time spent.
      method: what proved it: ``exact`` (HiGHS), ``bracket`` (dual ascent and branching on the device), or
        ``bracket+exact``.
      nodes, steps: nodes bounded on the device and ascent steps spent on them.
      certified: the lower bound that the dual function proves without HiGHS, as ``bound``; at most ``bound``.
      leaves: its certificate (`solvers.bracket.Bracket`), where asked for.
    """

    instance: int
    status: Status
    objective: float = math.inf
    bound: float = -math.inf
    costs: dict[str, float] | None = None
    plan: Plan | None = None
    seconds: float = math.nan
    message: str = ""
    method: str = "exact"
    nodes: int = 0
    steps: int = 0
    certified: float = -math.inf
    leaves: tuple[Any, ...] = ()

    @property
    def gap(self) -> float:
        """(objective - bound) / |objective|; inf where a side is missing, nan when infeasible."""
        return relative_gap(self.bound, self.objective)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``rodiu solve`` (MODEL section 8); what is not known is null."""

        return {
            "instance": self.instance,
            "status": self.status,
            "objective": json_number(self.objective),
            "bound": json_number(self.bound),
            "gap": json_number(self.gap),
            "costs": self.costs,
            "plan": None if self.plan is None else self.plan.to_json(),
            "seconds": json_number(self.seconds),
            **({"message": self.message} if self.message else {}),
        }


def relative_gap(lower: float, upper: float) -> float:
    """(upper - lower) / |upper|, 0 when both are equal (two zeros included)."""
    if upper == lower and math.isfinite(upper):
        return 0.0
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return math.nan if lower == math.inf else math.inf
    return (upper - lower) / abs(upper) if upper else math.inf
