"""Deployments of many scenarios: the cheapest known of each, local search among neighbours, and the plans they make.

A deployment is a set of triples (model, GPU, degree), kept as slots: triple numbers, -1 where a slot is empty. What
one costs is estimated by routing it on the device (`solvers.routing`); only the checker's verdict of the plan made from
the cheapest counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt64

from rodiu_jax.model.check import check_columns
from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan_columns import drop_idle_slots
from rodiu_jax.model.scenario_blocks import of_settled, run_scenarios
from rodiu_jax.model.slots import EMPTY, widen
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE_ON_DEVICE, NEGLIGIBLE_UNMET_ON_DEVICE
from rodiu_jax.runtime.block_sizes import BlockSize
from rodiu_jax.runtime.devices import by_device
from rodiu_jax.runtime.kept_programs import kept_program
from solvers.dual import derive_coefficients
from solvers.neighbours import Search, find_neighbours
from solvers.options import Options, count_replicas
from solvers.routing import THOROUGH_ITERATIONS, route_deployment

_WIDTHS = (4, 12, 24)
"""Slots of the routing programs, beside one for all slots: most deployments need few, and pay for no more."""

_FEW, _NARROW = 1024, 12
"""Deployments that an accelerator routes in one call, and their most slots: so few take about as long as one does."""

_ROOM_TO_MOVE = 6
"""Fewest slots of the programs that look for neighbours: these may deploy a pair more."""

_WORTHWHILE = 1e-5
"""A candidate's estimated cost is good to about this; a smaller gain is noise."""


class _Routed(NamedTuple):
    cost: Array
    sure: Array  # whether so many iterations were enough to know
    share: Array  # I,D


@of_settled
@kept_program("limited")
def _route_plans(fields: Fields, slot: Array, *, iterations: Array, limited: bool) -> _Routed:
    """What deployments cost, and their shares."""

    def one(fields: Fields, slot: Array) -> _Routed:
        found = route_deployment(
            derive_coefficients(fields, SETTLED_MODE, serving=True), slot, iterations, limited=limited
        )
        return _Routed(found.cost, found.settled, found.share)

    return jax.vmap(one)(fields, slot)


@of_settled
@kept_program("how")
def _neighbours(fields: Fields, slot: Array, *, iterations: Array, how: Search) -> tuple[Array, Array]:
    def one(fields: Fields, slot: Array) -> tuple[Array, Array]:
        return find_neighbours(derive_coefficients(fields, SETTLED_MODE, serving=True), slot, iterations, how)

    return jax.vmap(one)(fields, slot)


class Deployments:
    """The cheapest deployment known of each scenario, and which ones have been routed.

    Args:
      size, placed: B scenarios, and the batch as `rodiu_jax.model.scenario_blocks.keep_on_device` has them.
      rounds, routed: of the local search, each routing the ``routed`` most promising deployments of a scenario.
      chunk: scenarios in a compiled block.

    Attributes:
      slot (B,D), cost (B,): the cheapest and its estimated cost, inf where none is known yet.
      fresh: bool (B,), whose neighbours have not been looked at.
    """

    def __init__(
        self, size: int, placed: Instances, how: Search, *, rounds: int, routed: int, chunk: int
    ) -> None:
        self.slot = np.full((size, how.slots), -1, np.int32)
        self.cost = np.full(size, math.inf)
        self.fresh = np.zeros(size, bool)
        self._batch, self._how = placed, how
        self._rounds, self._routed = rounds, routed
        self._chunk = chunk
        self._seen = _Seen()

    def offer(self, scenario: np.ndarray, slot: np.ndarray, least: np.ndarray) -> None:
        """Route the offered deployments that are new and may be cheaper than the best, and keep the cheapest.

        Args:
          scenario, slot: (R,) and (R,K,D), K deployments for each of R scenarios.
          least: (R,K), what each costs at least, $ per period.
        """
        least, slot = np.asarray(least), np.asarray(slot)
        order = np.argsort(least, axis=1, kind="stable")[:, : self._routed]
        promising = np.take_along_axis(least, order, 1) < self.cost[scenario][:, None] * (1.0 - _WORTHWHILE)
        row, place = np.nonzero(promising)
        place = order[row, place]
        scenario, slot = scenario[row], slot[row, place]
        slot = -np.sort(-slot.astype(np.int32), axis=1)  # a deployment is a set
        new = self._seen.add(_hash_deployments(scenario, slot))
        if not len(new):
            return
        scenario, slot = scenario[new], slot[new]
        cost = self._price(scenario, slot)
        order = np.lexsort((cost, scenario))
        at, place = np.unique(scenario[order], return_index=True)  # scenarios, and their cheapest in `order`
        row = order[place]
        better = cost[row] < self.cost[at] * (1.0 - _WORTHWHILE)
        at, row = at[better], row[better]
        self.slot[at], self.cost[at], self.fresh[at] = slot[row], cost[row], True

    def improve(self, lower: np.ndarray, gap: float, among: np.ndarray) -> None:
        """Search among neighbours where the bracket is open, until none is cheaper or the rounds are over.

        Args:
          among: the scenarios to look at; no others, so that a scenario's rounds are its own.
        """
        for _ in range(self._rounds):
            at = among[self.fresh[among]]
            cost = self.cost[at]
            known = np.isfinite(cost)
            at = at[~known | (cost - lower[at] > gap * np.abs(np.where(known, cost, 0.0)))]
            if not len(at):
                return
            self.fresh[at] = False
            for slot, rows in by_width(self.slot[at], at_least=_ROOM_TO_MOVE, spare=1):
                near, least = run_scenarios(
                    _neighbours,
                    self._batch,
                    at[rows],
                    (slot,),
                    BlockSize(self._chunk),
                    how=self._how,
                    iterations=np.int32(THOROUGH_ITERATIONS),
                )
                self.offer(at[rows], widen(near, self.slot.shape[1]), least)

    def _price(self, scenario: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """What deployments cost; most need few slots and few iterations, and pay for no more."""
        if len(slot) <= by_device(cpu=0, accelerator=_FEW):
            widest = max(narrow.shape[1] for narrow, _ in by_width(slot))
            if widest <= _NARROW:
                return self._route(scenario, slot[:, :widest], THOROUGH_ITERATIONS).cost
        cost = np.full(len(slot), math.inf)
        for narrow, rows in by_width(slot):
            for iterations in (self._how.iterations, THOROUGH_ITERATIONS):
                if not len(rows):
                    break
                found = self._route(scenario[rows], narrow, iterations)
                cost[rows] = found.cost
                rows, narrow = rows[~found.sure], narrow[~found.sure]
        return cost

    def _route(self, scenario: np.ndarray, slot: np.ndarray, iterations: int) -> _Routed:
        """Route deployments of one width."""
        return run_scenarios(
            _route_plans,
            self._batch,
            scenario,
            (slot,),
            BlockSize(self._chunk),
            limited=self._how.limited,
            iterations=np.int32(iterations),
        )


def by_width(
    slot: Int32[np.ndarray, "R D"], *, at_least: int = 0, spare: int = 0
) -> Iterator[tuple[Int32[np.ndarray, "M W"], Int64[np.ndarray, " M"]]]:
    """Yield the deployments that fit a width, cut to it, and their rows: of each width the program has fewer slots.

    Args:
      slot: deployments whose empty slots are last.
      at_least: fewest slots.
      spare: empty slots wanted in addition, where there are as many.
    """
    most = slot.shape[1]
    needed = np.minimum(np.maximum((slot >= 0).sum(1) + spare, at_least), most)  # R
    last = -1
    for width in (*(w for w in _WIDTHS if at_least <= w < most), most):
        rows = np.flatnonzero((needed > last) & (needed <= width))
        if len(rows):
            yield slot[rows, :width], rows
        last = width


class _Seen:
    """The deployments that were routed, as sorted 64-bit keys."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.uint64)

    def add(self, keys: UInt64[np.ndarray, " R"]) -> Int64[np.ndarray, " M"]:
        """Add keys; return the first position of each one that was new, increasing."""
        keys, first = np.unique(keys, return_index=True)
        place = np.searchsorted(self._keys, keys)
        inside = place < len(self._keys)
        inside[inside] = self._keys[place[inside]] == keys[inside]
        self._keys = np.insert(self._keys, place[~inside], keys[~inside])
        return np.sort(first[~inside])


def _hash_deployments(
    scenario: Int64[np.ndarray, " R"], slot: Int32[np.ndarray, "R D"]
) -> UInt64[np.ndarray, " R"]:
    """Return a 64-bit key per deployment of a scenario; two that share one by chance cost a candidate, no proof."""
    key = np.zeros(len(slot), np.uint64)
    for column in (scenario, *slot.T):
        key = (key ^ (column + 1).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


class CheckedPlans(NamedTuple):
    """Plans of B scenarios that the independent checker accepted, in columns (`rodiu_jax.model.plan_columns`).

    ``upper`` is the plan's cost; it is inf, and ``costs`` and ``unmet`` are nan, where there is no plan.
    """

    upper: Float64[np.ndarray, " B"]
    costs: Float64[np.ndarray, "B 5"]
    slots: Int32[np.ndarray, "B D"]
    shares: Float64[np.ndarray, "B I D"]
    unmet: Float64[np.ndarray, "B I"]
    replicas: Int32[np.ndarray, "B D"] | None = None

    def without(self, refused: Bool[np.ndarray, " B"]) -> CheckedPlans:
        """Return the plans but those of ``refused``."""
        row = refused[:, None]
        return CheckedPlans(
            np.where(refused, math.inf, self.upper),
            np.where(row, math.nan, self.costs),
            np.where(row, EMPTY, self.slots),
            np.where(row[..., None], 0.0, self.shares),
            np.where(row, math.nan, self.unmet),
            None if self.replicas is None else np.where(row, 1, self.replicas).astype(np.int32),
        )


def checked_plans(
    batch: Instances,
    placed: Instances,
    slot: np.ndarray,
    how: Search,
    chunk: int,
    options: Options | None = None,
) -> CheckedPlans:
    """Route each scenario's deployment ``slot`` (B,D) and check the plan, or else the one that serves nobody.

    Args:
      placed: the same scenarios as the search has them, with ``options`` in the place of degrees where they have any.
    """
    routed = np.zeros((batch.size, batch.shape[0], slot.shape[1]))
    for narrow, rows in by_width(slot, at_least=_ROOM_TO_MOVE):
        found = run_scenarios(
            _route_plans,
            placed,
            rows,
            (narrow,),
            BlockSize(chunk),
            limited=how.limited,
            iterations=np.int32(THOROUGH_ITERATIONS),
        )
        routed[rows, :, : narrow.shape[1]] = found.share
    most = np.broadcast_to(np.asarray(batch.fields.max_routes), (batch.size,))
    shares, unmet = _settle_shares(routed, most)
    slots, shares = drop_idle_slots(slot, shares)
    replicas = None
    if options is not None:
        slots = options.triples(slots)
        replicas = count_replicas(batch, slots, shares)
    checks = check_columns(batch, slots, shares, unmet, replicas=replicas)
    lost = ~checks.feasible
    slots[lost], shares[lost], unmet[lost] = EMPTY, 0.0, 1.0
    if replicas is not None:
        replicas[lost] = 1
    again = check_columns(batch, slots[lost], shares[lost], unmet[lost], scenario=np.flatnonzero(lost))
    costs, feasible = checks.costs, checks.feasible
    costs[lost], feasible[lost] = again.costs, again.feasible
    return CheckedPlans(costs[:, 0], costs, slots, shares, unmet, replicas).without(~feasible)


def _settle_shares(
    share: Float64[np.ndarray, "B I D"], most: Int64[np.ndarray, " B"]
) -> tuple[Float64[np.ndarray, "B I D"], Float64[np.ndarray, "B I"]]:
    """Return shares and unmet shares whose sum is 1: negligible shares go to the type's other routes.

    Args:
      most: routes of a type, 0 for any number; the largest shares stay.
    """
    share = np.where(np.isfinite(share) & (share > NEGLIGIBLE_SHARE_ON_DEVICE), share, 0.0)
    total = np.minimum(share.sum(2), 1.0)  # B,I
    if (most > 0).any():
        rank = np.argsort(np.argsort(-share, axis=2, kind="stable"), axis=2)
        over = (most > 0)[:, None, None] & (rank >= most[:, None, None])
        share = np.where(over, 0.0, share)
    routed = share.sum(2)
    share *= np.divide(total, routed, out=np.zeros_like(routed), where=routed > 0)[:, :, None]
    unmet = np.maximum(1.0 - share.sum(2), 0.0)
    unmet[unmet < NEGLIGIBLE_UNMET_ON_DEVICE] = 0.0
    return share, unmet
