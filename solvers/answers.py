"""The one result type: what every method answers, in columns over scenarios, with a view of a single scenario.

Answers do not know the numbers of their scenarios: answer b is about scenario b of the batch that was asked about. No
JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Int64, Shaped

from rodiu_jax.io.files import json_number
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_columns import columns_from_plan, plan_from_shares
from rodiu_jax.model.slots import Names, widen
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.verdict import COSTS

if TYPE_CHECKING:  # at run time it would load what draws in a terminal into every solver process
    from rodiu_jax.runtime.progress import Bar


def relative_gap(lower: Any, upper: Any) -> Float64[np.ndarray, "*B"]:
    """Return (upper - lower) / |upper|: 0 where both are equal and finite, inf where a side is missing.

    It is nan where ``lower`` is inf: there is no plan, and no gap.
    """
    lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = (upper - lower) / np.abs(upper)
    known = np.isfinite(lower) & np.isfinite(upper)
    gap = np.where(known & (upper != 0), gap, np.where(lower == math.inf, math.nan, math.inf))
    return np.asarray(np.where(known & (lower == upper), 0.0, gap))


@dataclass(frozen=True, eq=False)
class Leaves:
    """Leaves of the search trees of B scenarios, enough to recompute each leaf's bound: the certificates.

    Attributes:
      scenario: whose leaf it is, increasing.
      path: splits from the root, +(t + 1) where triple t (pair * N + degree) is deployed, -(t + 1) where it is not,
        then zeros.
      multipliers: of the dual function, by the names of `solvers.dual.Multipliers`, a leading axis L each.
      ranges: (degree, fewest, largest replicas) of each option that stands in the place of a degree
        (`solvers.options`); None: degrees.
    """

    scenario: Int64[np.ndarray, " L"]
    path: Int32[np.ndarray, "L T"]
    multipliers: dict[str, Float32[np.ndarray, "L ..."]]
    ranges: tuple[tuple[int, int, int], ...] | None = None

    def take(self, scenarios: Int64[np.ndarray, " B"]) -> Leaves:
        """Return the leaves of ``scenarios``, which are then numbered from 0 in that order."""
        first, stop = (np.searchsorted(self.scenario, scenarios, side) for side in ("left", "right"))
        count = stop - first
        rows = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        scenario = np.repeat(np.arange(len(scenarios)), count)
        multipliers = {n: a[rows] for n, a in self.multipliers.items()}
        return Leaves(scenario, self.path[rows], multipliers, self.ranges)


@dataclass(frozen=True, eq=False)
class Answer:
    """What is proven about one scenario; as `Answers`, without the leading axis.

    As a *start* for the exact solver it says what is known before: a plan, a lower bound, and in ``promising`` and
    ``upper`` what need not be searched.
    """

    names: Names
    status: Status
    prover: Prover
    lower: float
    upper: float
    certified: float
    costs: Float64[np.ndarray, " 5"]
    slots: Int32[np.ndarray, " D"]
    shares: Float64[np.ndarray, "I D"]
    unmet: Float64[np.ndarray, " I"]
    nodes: int
    steps: int
    seconds: float
    message: str
    promising: Bool[np.ndarray, "J K N"] | None = None
    replicas: Int32[np.ndarray, " D"] | None = None

    @classmethod
    def of(
        cls,
        names: Names,
        status: Status,
        *,
        plan: Plan | None = None,
        costs: Mapping[str, float] | None = None,
        prover: Prover = Prover.EXACT,
        **values: Any,
    ) -> Answer:
        """Make an answer; what is not said is not known.

        Args:
          plan: whose costs are ``costs``; ``upper`` is then their total, unless it is given.
          values: of other attributes.
        """
        slots, shares, unmet, replicas = columns_from_plan(names, plan or Plan(None, (), (), {}))
        if plan is None:
            unmet = np.full(len(names.queries), math.nan)
        parts = np.full(len(COSTS), math.nan) if costs is None else np.array([costs[n] for n in COSTS])
        unknown: dict[str, Any] = {
            "lower": math.inf if status is Status.INFEASIBLE else -math.inf,
            "upper": math.inf if costs is None else costs["total_cost"],
            "certified": -math.inf,
            "nodes": 0,
            "steps": 0,
            "seconds": math.nan,
            "message": "",
        }
        return cls(
            names,
            status,
            prover,
            costs=parts,
            slots=slots,
            shares=shares,
            unmet=unmet,
            replicas=replicas if (replicas > 1).any() else None,
            **unknown | values,
        )

    @property
    def gap(self) -> float:
        """(upper - lower) / |upper|; inf where a side is missing, nan where there is no plan."""
        return float(relative_gap(self.lower, self.upper))

    @property
    def has_plan(self) -> bool:
        """True if there is a plan, which the independent checker accepted."""
        return not bool(np.isnan(self.unmet).any())

    @property
    def plan(self) -> Plan | None:
        """The plan by name, for no particular scenario (`plan_for` names one), or None."""
        return self.plan_for(None)

    def plan_for(self, instance: int | None) -> Plan | None:
        """Return the plan by name as that of scenario ``instance``, or None."""
        if not self.has_plan:
            return None
        return plan_from_shares(
            self.names, self.slots, self.shares, self.unmet, replicas=self.replicas, instance=instance
        )

    @property
    def cost_by_name(self) -> dict[str, float] | None:
        """The plan's costs in $ per period by the names of `COSTS`, or None without a plan."""
        return dict(zip(COSTS, self.costs.tolist(), strict=True)) if self.has_plan else None

    def to_json(self, instance: int) -> dict[str, Any]:
        """Return the JSON object of ``rodiu solve`` (MODEL section 8) for scenario ``instance``; unknowns are null."""
        plan = self.plan_for(instance)
        return {
            "instance": instance,
            "status": self.status.word,
            "objective": json_number(self.upper),
            "bound": json_number(self.lower),
            "gap": json_number(self.gap),
            "costs": self.cost_by_name,
            "plan": None if plan is None else plan.to_json(),
            "seconds": json_number(self.seconds),
            **({"message": self.message} if self.message else {}),
        }


@dataclass(frozen=True, eq=False)
class Answers:
    """Proven brackets of the optimal costs of B scenarios.

    Attributes:
      names: of the scenarios' query types, models, GPUs and degrees.
      status, prover: codes of `Status` and `Prover`.
      lower: $ per period; no plan costs less. -inf where nothing is proven, inf where no plan exists.
      upper: $ per period; cost of the plan as the independent checker computes it, inf without one.
      certified: the lower bound that the dual function proves without HiGHS; at most ``lower``.
      costs: the plan's costs in the order of `COSTS`, nan without a plan.
      slots, shares, unmet: the plan (`rodiu_jax.model.plan_columns`); ``unmet`` is nan without one.
      nodes, steps: nodes bounded on the device, and ascent steps spent on them.
      seconds: wall time spent; scenarios bracketed together share theirs (`solvers.cascade` says how).
      message: what went wrong, mostly empty.
      replicas: of the pairs of ``slots`` (1 in empty ones); None where no plan has several of any.
      leaves: the certificates of ``certified``, where asked for.
      promising: False where the root's dual function proves that every plan that deploys that model on that GPU at
        that degree costs more than ``upper``; None where nobody looked.
    """

    names: Names
    status: Int8[np.ndarray, " B"]
    prover: Int8[np.ndarray, " B"]
    lower: Float64[np.ndarray, " B"]
    upper: Float64[np.ndarray, " B"]
    certified: Float64[np.ndarray, " B"]
    costs: Float64[np.ndarray, "B 5"]
    slots: Int32[np.ndarray, "B D"]
    shares: Float64[np.ndarray, "B I D"]
    unmet: Float64[np.ndarray, "B I"]
    nodes: Int64[np.ndarray, " B"]
    steps: Int64[np.ndarray, " B"]
    seconds: Float64[np.ndarray, " B"]
    message: Shaped[np.ndarray, " B"]
    promising: Bool[np.ndarray, "B J K N"] | None = None
    leaves: Leaves | None = None
    replicas: Int32[np.ndarray, "B D"] | None = None

    @classmethod
    def unknown(cls, names: Names, size: int, *, slots: int = 0) -> Answers:
        """Return answers that claim nothing, with room for deployments of ``slots`` pairs."""
        return cls.stack([Answer.of(names, Status.UNKNOWN)] * size, names=names, slots=slots)

    @classmethod
    def stack(cls, answers: Sequence[Answer], *, names: Names, slots: int = 0) -> Answers:
        """Return the answers to single scenarios as columns."""
        size, types = len(answers), len(names.queries)
        width = max([slots, *(len(a.slots) for a in answers)])
        table: dict[str, Any] = {
            "slots": np.full((size, width), -1, np.int32),
            "shares": np.zeros((size, types, width)),
            "unmet": np.zeros((size, types)),
            "costs": np.zeros((size, len(COSTS))),
        }
        for b, answer in enumerate(answers):
            table["slots"][b, : len(answer.slots)] = answer.slots
            table["shares"][b, :, : len(answer.slots)] = answer.shares
            table["unmet"][b], table["costs"][b] = answer.unmet, answer.costs
        if any(a.replicas is not None for a in answers):
            table["replicas"] = np.ones((size, width), np.int32)
            for b, answer in enumerate(answers):
                if answer.replicas is not None:
                    table["replicas"][b, : len(answer.replicas)] = answer.replicas
        for name, kind in _PLAIN.items():
            table[name] = np.array([getattr(a, name) for a in answers], kind)
        return cls(names, **table)

    @classmethod
    def concatenate(cls, parts: Sequence[Answers], *, names: Names) -> Answers:
        """Return the answers of all parts, one after the other.

        Leaves, and what is promising, stay only where every part has them.
        """
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.unknown(names, 0)
        width = max(p.slots.shape[1] for p in parts)
        table = {n: np.concatenate([getattr(p, n) for p in parts]) for n in (*_PLAIN, "unmet", "costs")}
        table["slots"] = np.concatenate([widen(p.slots, width) for p in parts])
        table["shares"] = np.concatenate(
            [np.pad(p.shares, ((0, 0), (0, 0), (0, width - p.shares.shape[2]))) for p in parts]
        )
        if any(p.replicas is not None for p in parts):
            counts = [np.ones_like(p.slots) if p.replicas is None else p.replicas for p in parts]
            pads = [((0, 0), (0, width - c.shape[1])) for c in counts]
            table["replicas"] = np.concatenate(
                [np.pad(c, pad, constant_values=1) for c, pad in zip(counts, pads, strict=True)]
            )
        promising = [p.promising for p in parts if p.promising is not None]
        leaves = [p.leaves for p in parts if p.leaves is not None]
        sizes = [len(p) for p in parts]
        return cls(
            names,
            **table,
            promising=np.concatenate(promising) if len(promising) == len(parts) else None,
            leaves=_concatenate_leaves(leaves, sizes) if len(leaves) == len(parts) else None,
        )

    def take(self, index: Any) -> Answers:
        """Return the answers ``index`` (positions, a mask or a slice), in that order."""
        rows = np.arange(len(self))[index]
        arrays = {n: getattr(self, n)[rows] for n in _ARRAYS}
        return replace(
            self,
            **arrays,
            promising=None if self.promising is None else self.promising[rows],
            replicas=None if self.replicas is None else self.replicas[rows],
            leaves=None if self.leaves is None else self.leaves.take(rows),
        )

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, b: int) -> Answer:
        if not -len(self) <= b < len(self):
            raise IndexError(f"answer {b} of {len(self)}")
        values = {n: getattr(self, n)[b].item() for n in _PLAIN if n not in ("status", "prover", "message")}
        return Answer(
            self.names,
            Status(self.status[b]),
            Prover(self.prover[b]),
            costs=self.costs[b],
            slots=self.slots[b],
            shares=self.shares[b],
            unmet=self.unmet[b],
            message=self.message[b],
            promising=None if self.promising is None else self.promising[b],
            replicas=None if self.replicas is None else self.replicas[b],
            **values,
        )

    def __iter__(self) -> Iterator[Answer]:
        return map(self.__getitem__, range(len(self)))

    @property
    def gap(self) -> Float64[np.ndarray, " B"]:
        """(upper - lower) / |upper|; inf where a side is missing, nan where there is no plan."""
        return relative_gap(self.lower, self.upper)

    @property
    def has_plan(self) -> Bool[np.ndarray, " B"]:
        """Which scenarios have a plan."""
        return np.asarray(~np.isnan(self.unmet).any(1))

    def is_any(self, *statuses: Status) -> Bool[np.ndarray, " B"]:
        """Return which answers have one of ``statuses``."""
        return np.asarray(np.isin(self.status, np.array(statuses, np.int8)))

    def plans(self, instances: Sequence[int] | None = None) -> list[Plan | None]:
        """Return every plan by name, None where there is none.

        Args:
          instances: the numbers of the scenarios that the plans are for; positions by default.
        """
        numbers = range(len(self)) if instances is None else instances
        return [answer.plan_for(b) for answer, b in zip(self, numbers, strict=True)]


_PLAIN: dict[str, Any] = {
    "status": np.int8,
    "prover": np.int8,
    "lower": np.float64,
    "upper": np.float64,
    "certified": np.float64,
    "nodes": np.int64,
    "steps": np.int64,
    "seconds": np.float64,
    "message": object,
}
"""Columns of one value a scenario, and their types."""

_ARRAYS = tuple(f.name for f in fields(Answers) if f.name not in ("names", "promising", "leaves", "replicas"))


def _concatenate_leaves(parts: Sequence[Leaves], sizes: Sequence[int]) -> Leaves:
    """Return the leaves of batches of ``sizes`` scenarios as those of all scenarios one after the other."""
    first = np.cumsum([0, *sizes[:-1]])
    depth = max(p.path.shape[1] for p in parts)
    paths = [np.pad(p.path, ((0, 0), (0, depth - p.path.shape[1]))) for p in parts]
    return Leaves(
        np.concatenate([p.scenario + number for p, number in zip(parts, first, strict=True)]),
        np.concatenate(paths),
        {n: np.concatenate([p.multipliers[n] for p in parts]) for n in parts[0].multipliers},
        parts[0].ranges,
    )


def report_progress(bar: Bar, answers: Answers) -> None:
    """Count answers on a progress bar: each status and prover with the widest gap of theirs."""
    keys = answers.status.astype(np.int64) * len(Prover) + answers.prover
    gaps = answers.gap
    for key in np.unique(keys).tolist():
        rows = keys == key
        status, prover = Status(key // len(Prover)), Prover(key % len(Prover))
        known = gaps[rows][~np.isnan(gaps[rows])]
        widest = float(known.max()) if len(known) else math.nan
        bar.advance(status.word, widest, prover.closes(status), int(rows.sum()))


def gather_answers(parts: Iterable[Answers], bar: Bar, *, names: Names) -> Answers:
    """Return the answers of all parts, one after the other, each part counted on a progress bar as it comes."""
    gathered = []
    for part in parts:
        gathered.append(part)
        report_progress(bar, part)
    return Answers.concatenate(gathered, names=names)
