"""Recourse: the deployment is fixed, routing and unmet shares are chosen anew in every scenario, in batch.

With the deployment held, the robust MILP is a linear program over the D pairs that it deploys (slots):

    min   c x + Phi (1 - sum x)       over shares x[i,d] >= 0
    s.t.  demand, memory, compute, delay, error, budget      as in `solvers.primal.routing`

Where an adversary cannot push all pairs of a type at once (0 < Gamma < pairs), the worst case is its dual, as in
`solvers.formulation`: columns t[i] and sigma[i,d] with a[i,d] x[i,d] <= t[i] + sigma[i,d], and Gamma t + sum sigma
in the delay's cost and promise, likewise for errors. Where unmet shares are capped, an elastic column lets each type
exceed its cap at a price so high that, if it is used, the dual exceeds what any plan can cost: infeasibility is
then proven by the same dual function as every other bound.

The program is solved by the interior-point method of `solvers.primal`. Its prices are multipliers of the dual of
`solvers.dual` restricted to the slots, whose value in float64 is the lower bound; its shares are a plan, whose cost and
margins `rodiu_jax.model.evaluation.score` gives in float64, the upper bound. What does not close at first is solved
again, longer and with the exact adversary. Where routes are limited, the bound is that of any number of them (but for
`solvers.dual.limit_shares_to_promises`), and the plan keeps, type by type, those that carry most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.evaluation import score
from rodiu_jax.model.fields import Array, Fields, batch_axes
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import (
    DeployedPair,
    Deployment,
    Plan,
    PlanArrays,
    Route,
    deployed_triples,
    validate_plan,
)
from rodiu_jax.model.tolerances import (
    ABOVE_ANY_COST,
    MARGIN_TOLERANCE,
    NEGLIGIBLE_SHARE_ON_DEVICE,
    RECOURSE_GAP,
)
from rodiu_jax.model.verdict import Verdict
from solvers.dual import Coefficients, Multipliers, certify, derive_coefficients, limit_shares_to_promises
from solvers.interior import Point, interior_point
from solvers.primal import Routing, largest_shares, most_routes, prices, routing

REASONS = ("", "memory", "storage", "budget", "unmet", "unknown", "error")
"""Why a deployment has no plan in a scenario: nothing (it has one); the weights alone break memory, storage or budget;
provably too much stays unmet; no plan was found, nothing is proven; or a number out of range."""

_FEASIBLE, _MEMORY, _STORAGE, _BUDGET, _UNMET, _UNKNOWN, _ERROR = range(len(REASONS))


@dataclass(frozen=True)
class Thoroughness:
    """How recourse is solved.

    Attributes:
      iterations, more: interior-point iterations at first, and for what did not close then.
      scenarios, deployments: size of a compiled block of the crossing; ``rows``: of the pairs solved again. Every
        value compiles its own program.
    """

    iterations: int = 14
    more: int = 40
    scenarios: int = 64
    deployments: int = 16
    rows: int = 64


class Recourse(NamedTuple):
    """Brackets of Q deployments in B scenarios.

    ``lower`` <= cost of the best routing <= ``upper``, $ per period, float64: both inf where the deployment provably
    has no plan; ``upper`` inf and ``lower`` finite where that is open. ``reason`` are positions in `REASONS`.
    """

    lower: np.ndarray  # Q,B
    upper: np.ndarray  # Q,B
    reason: np.ndarray  # Q,B, int8


class _Routed(NamedTuple):
    lower: Array
    upper: Array
    reason: Array
    share: Array  # I,D


def slots_of(instances: Instances, deployments: Sequence[Deployment]) -> np.ndarray:
    """Deployments as rows of slots: positions (model K + gpu) N + degree, sorted, -1 where a slot is empty; (Q,D).

    Raises:
      InputError: a deployment names a model, GPU or degree that ``instances`` lack, or a pair twice.
    """
    rows: list[list[int]] = []
    for q, deployment in enumerate(deployments):
        validate_plan(Plan(None, deployment, (), {}), instances, source=f"deployment {q}")
        triples = deployed_triples(instances, deployment)
        rows.append(np.sort(np.ravel_multi_index(tuple(triples.T), instances.shape[1:])).tolist())
    width = max(4, 1 << max(max(map(len, rows), default=0) - 1, 0).bit_length())
    return np.array([row + [-1] * (width - len(row)) for row in rows], np.int32).reshape(-1, width)


def deployment_of(instances: Instances, slot: np.ndarray) -> Deployment:
    """The deployment by name of a row of slots."""
    gpus, degrees = len(instances.gpu_names), instances.axis_names("N")
    found = []
    for s in slot[slot >= 0].tolist():
        pair, n = divmod(s, len(degrees))
        found.append(
            DeployedPair(
                instances.model_names[pair // gpus], instances.gpu_names[pair % gpus], int(degrees[n])
            )
        )
    return tuple(found)


def held(c: Coefficients, slot: Array) -> Coefficients:
    """The coefficients over the slots of a deployment alone, all of them decided: pairs are slots, one degree each."""
    degrees = c.deploy.shape[1]
    used = slot >= 0
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    slow = c.slowness[degree][None, :]
    none = jnp.zeros((), c.deploy.dtype)

    def of(values: Array) -> Array:
        return jnp.where(used, values[pair, degree], none)[:, None]

    return c._replace(
        deploy=of(c.deploy),
        fits=(used & c.fits[pair, degree])[:, None],
        nominal=c.nominal[:, pair] * slow,
        excess=c.excess[:, pair] * slow,
        slowness=jnp.ones((1,), c.deploy.dtype),
        error=c.error[:, pair],
        error_excess=c.error_excess[:, pair],
        kv=c.kv[:, pair],
        room=of(c.room),
        power=of(c.power),
        most=jnp.where(used[None, :], c.most[:, pair, degree], none)[:, :, None],
        weights=jnp.where(used, c.weights[pair], none),
        decided=jnp.where(used, 1, -1).astype(jnp.int8)[:, None],
    )


def _program(
    c: Coefficients, slot: Array, allowed: Array, ray: Array, *, sharp: bool, capped: bool
) -> Routing:
    """The routing program of held coefficients, with the adversary's columns and the price of excess where asked for.

    With ``sharp`` each type has columns for its shares (D), then t and sigma (D) of delay and of error; after its own
    rows come the worst cases of delay and of error (D each). With ``capped`` what is unmet above the cap has a price.

    Args:
      ray: bool; minimise the excess instead of cost. Its prices, stretched, prove that it is positive.
    """
    none = jnp.zeros_like(c.gamma_delay)
    ray = ray if capped else jnp.zeros_like(ray)  # without a cap nothing is in excess
    whole = routing(c._replace(gamma_delay=none, gamma_error=none) if sharp else c, slot, allowed)
    program, money = whole.program, whole.money
    types, slots = allowed.shape
    if capped:
        closed = jnp.where(program.own[:, 0] > 0, 0.0, 1.0)  # stays shut, whatever counts
        program = program._replace(
            cost=jnp.where(ray, closed, program.cost),
            short=jnp.full(types, jnp.where(ray, 1.0, _ELASTIC * _dearest(c) / money)),
        )
    if sharp:
        open_cell = program.own[:, 0]
        cost, own, rows = [program.cost], [program.own], []
        eye = jnp.eye(slots, dtype=open_cell.dtype)
        level = -jnp.concatenate([jnp.ones((slots, 1), eye.dtype), eye], 1)  # t and sigma in each worst case
        level = jnp.broadcast_to(level, (types, slots, 1 + slots))
        other = jnp.zeros_like(level)
        promises = (
            (c.excess, c.delay_limit, c.gamma_delay, jnp.where(ray, 0.0, c.delay_weight)),
            (c.error_excess, c.error_limit, c.gamma_error, jnp.zeros_like(c.delay_weight)),
        )
        for m, (excess, bound, gamma, weight) in enumerate(promises):
            scale = _scale(excess * open_cell)
            share = jnp.concatenate([gamma[None], jnp.ones(slots, scale.dtype)])  # of t, of each sigma
            of_promise = jnp.asarray(np.eye(3)[1 + m][None, :, None], scale.dtype)
            unit = scale / jnp.where(bound > 0, bound, 1.0)
            own.append(of_promise * (unit[:, None] * share[None])[:, None])
            cost.append((weight * scale / money)[:, None] * share[None])
            shares = (excess * open_cell / scale[:, None])[:, :, None] * eye[None]
            rows.append(jnp.concatenate([shares, *((level, other) if m == 0 else (other, level))], 2))
        program = program._replace(
            cost=jnp.concatenate(cost, 1),
            own=jnp.concatenate([jnp.concatenate(own, 2), *rows], 1),
            limit=jnp.pad(program.limit, ((0, 0), (0, 2 * slots))),
        )
    return Routing(program, whole.fixed, jnp.where(ray, _RAY * _dearest(c), money))


_ELASTIC = 10.0
"""Price of an unmet share above its cap, in units of what any plan can cost: an excess of 10 % is then a proof."""

_RAY = 1e6
"""By how much the prices of the least excess are stretched: an excess of 1e-6 is then a proof."""


def _priced(c: Coefficients, ray: Array) -> Coefficients:
    """The coefficients with the costs that count."""
    return c._replace(
        unmet_cost=jnp.where(ray, 0.0, c.unmet_cost), delay_weight=jnp.where(ray, 0.0, c.delay_weight)
    )


def _scale(excess: Array) -> Array:
    """Largest excess of each type (I,), or 1."""
    largest = excess.max(1)
    return jnp.where(largest > 0, largest, 1.0)


def _dearest(c: Coefficients) -> Array:
    """What no plan of a held deployment can cost: budget, every type's largest worst delay, all penalties."""
    slowest = jnp.where(c.most[:, :, 0] > 0, c.nominal + c.excess, 0.0).max(1)
    return c.budget + (c.delay_weight * slowest).sum() + c.unmet_cost.sum()


_LARGEST = 1e5
"""Most that the promises' multipliers may weigh, in units of cost: more proves nothing and drowns in rounding."""


def _bounded(c: Coefficients, y: Multipliers, most: Array) -> Multipliers:
    """The multipliers with those of a type's promises scaled down to ``most``.

    They have no upper limit where a promise leaves a type no pair at all. Its demand is worth no more than its penalty
    where all of it may stay unmet.
    """
    size = y.delay * c.delay_limit + y.error * c.error_limit + (y.delay * c.nominal.max(1) + y.error)
    shrink = jnp.minimum(1.0, most / jnp.where(size > 0, size, 1.0))
    demand = jnp.where(c.unmet_cap >= 1.0, jnp.minimum(y.demand, c.unmet_cost), y.demand)
    return y._replace(demand=demand, delay=y.delay * shrink, error=y.error * shrink)


def _multipliers(c: Coefficients, slot: Array, point: Point, money: Array, *, sharp: bool) -> Multipliers:
    """The multipliers of the held dual that the program's prices are."""
    y = prices(c, slot, point, money)
    most = _LARGEST * jnp.maximum(_dearest(c), money)
    if not sharp:
        return _bounded(c, y, most)

    def share(price: Array, excess: Array, each: Array) -> Array:
        """xi = price of the worst-case row in ms or errors, over what a unit of it is worth."""
        worth = each[:, None] * _scale(excess)[:, None]
        return money * price / jnp.where(worth > 0, worth, 1.0)

    delay, error = jnp.split(point.own[:, 3:], 2, axis=1)
    used = ((slot >= 0)[None, :] & (c.most[:, :, 0] > 0)).astype(delay.dtype)
    return _bounded(c, y, most)._replace(
        delay_adversary=share(delay, c.excess * used, c.delay_weight + y.delay),
        error_adversary=share(error, c.error_excess * used, y.error),
    )


def _tidy(share: Array, allowed: Array) -> Array:
    """Shares (I,D) without negligible ones, whose traffic goes to the type's other routes; sums at most 1."""
    share = jnp.where(allowed & jnp.isfinite(share), jnp.clip(share, 0.0, 1.0), 0.0)
    total = jnp.minimum(share.sum(1, keepdims=True), 1.0)
    share = jnp.where(share > NEGLIGIBLE_SHARE_ON_DEVICE, share, 0.0)
    kept = share.sum(1, keepdims=True)
    return share * jnp.where(kept > 0, total / jnp.where(kept > 0, kept, 1.0), 0.0)


def _dived(c: Coefficients, shares: Callable[[Array], Array], allowed: Array) -> Array:
    """bool (I,D): routes within the limit, chosen type by type, those first whose routes within it carry most."""
    types, slots = allowed.shape
    most = most_routes(c, slots)

    def choose(_: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        allowed, chosen = found
        share = shares(allowed)
        largest = allowed & largest_shares(jnp.where(allowed, share, -1.0), most)
        kept = jnp.where(largest, share, 0.0).sum(1)
        mine = jnp.arange(types) == jnp.argmax(jnp.where(chosen, -jnp.inf, kept))
        return jnp.where(mine[:, None], largest, allowed), chosen | mine

    return jax.lax.fori_loop(0, types, choose, (allowed, jnp.zeros(types, bool)))[0]


def _solved(
    fields: Fields,
    everything: Coefficients,
    slot: Array,
    ray: Array,
    uncertainty: str,
    *,
    iterations: Array,
    sharp: bool,
    capped: bool,
    limited: bool,
) -> _Routed:
    """Bracket one deployment (D,) in one scenario."""
    c = held(everything, slot)
    c = c._replace(most=limit_shares_to_promises(c))  # among these pairs alone
    types, slots = c.nominal.shape
    here = jnp.where(slot >= 0, jnp.arange(slots, dtype=slot.dtype), -1)
    allowed = jnp.ones((types, slots), bool)

    def solved(allowed: Array) -> tuple[Routing, Point, Array]:
        routed = _program(c, here, allowed, ray, sharp=sharp, capped=capped)
        point, _ = interior_point(routed.program, iterations)
        return routed, point, point.x[:, :slots]

    routed, point, share = solved(allowed)
    lower, _ = certify(c, _multipliers(_priced(c, ray), here, point, routed.money, sharp=sharp))
    if limited:
        allowed = _dived(c, lambda allowed: solved(allowed)[2], allowed)
        share = solved(allowed)[2]
    share = _tidy(share, allowed & (c.most[:, :, 0] > 0))
    both = jnp.stack([share, jnp.zeros_like(share)])  # serving nobody is a plan too
    costs = jax.vmap(lambda share: _checked_cost(fields, slot, share, uncertainty))(both)
    upper, share = costs.min(), both[jnp.argmin(costs)]

    fixed, weights, deployed = c.deploy.sum(), c.weights.sum(), slot >= 0
    over = 1.0 + MARGIN_TOLERANCE
    pair, degree = jnp.maximum(slot, 0) // everything.deploy.shape[1], slot % everything.deploy.shape[1]
    gpus = fields.tp_degree[degree].astype(weights.dtype)
    memory = fields.gpu_memory[pair % fields.gpu_memory.shape[0]] * gpus
    reason = jnp.select(
        [
            ~jnp.isfinite(fixed + weights + memory.sum()) | jnp.isnan(lower),
            (deployed & (c.weights > memory * over)).any(),
            weights > c.storage * over,
            fixed > c.budget * over,
            jnp.isfinite(upper),
            lower > _dearest(c) * (1.0 + ABOVE_ANY_COST),
            jnp.isfinite(lower),
        ],
        [_ERROR, _MEMORY, _STORAGE, _BUDGET, _FEASIBLE, _UNMET, _UNKNOWN],
        _ERROR,
    )
    reason = reason.astype(jnp.int8)
    proven = (reason >= _MEMORY) & (reason <= _UNMET)
    lower = jnp.where(proven, jnp.inf, jnp.where(reason == _ERROR, -jnp.inf, jnp.minimum(lower, upper)))
    return _Routed(lower, jnp.where(reason == _FEASIBLE, upper, jnp.inf), reason, share)


def _checked_cost(fields: Fields, slot: Array, share: Array, uncertainty: str) -> Array:
    """Total cost of a plan, as `rodiu_jax.model.evaluation` says; inf where a promise or a limit is broken."""
    gpus, degrees = fields.gpu_memory.shape[0], fields.tp_degree.shape[0]
    at = jnp.maximum(slot, 0)
    parts: list[Any] = [  # device arrays, where files have NumPy's
        at // degrees // gpus,
        at // degrees % gpus,
        jnp.where(slot >= 0, at % degrees, -1),
        share,
        jnp.maximum(1.0 - share.sum(1), 0.0),
    ]
    found = score(fields, PlanArrays(*parts), uncertainty)
    return jnp.where((found.margins >= -MARGIN_TOLERANCE).all(), found.costs[0], jnp.inf)


@partial(
    jax.jit,
    static_argnames=("uncertainty", "batched", "sharp", "capped", "limited", "crossed"),
)
def _block(
    fields: Fields,
    slot: Array,
    ray: Array,
    *,
    iterations: Array,
    uncertainty: str,
    batched: frozenset[str],
    sharp: bool,
    capped: bool,
    limited: bool,
    crossed: bool,
) -> _Routed:
    """Scenarios C, each with the same Q deployments (``crossed``; results C,Q) or with one of its own.

    Args:
      ray: bool (C,), whether only the excess over the unmet cap counts, as in `_program`.
    """

    def one(fields: Fields, slot: Array, ray: Array) -> _Routed:
        everything = derive_coefficients(fields, uncertainty)
        how = {"sharp": sharp, "capped": capped, "limited": limited}

        def solve(slot: Array) -> _Routed:
            return _solved(fields, everything, slot, ray, uncertainty, iterations=iterations, **how)

        return jax.vmap(solve)(slot) if crossed else solve(slot)

    return jax.vmap(one, in_axes=(batch_axes(batched), None if crossed else 0, 0))(fields, slot, ray)


def _filled(first: int, stop: int, size: int) -> np.ndarray:
    """Positions ``first`` to ``stop - 1``, filled up to ``size`` with the first."""
    return np.where(np.arange(size) < stop - first, first + np.arange(size), first)


def _sharp(instances: Instances, pairs: int) -> bool:
    """Whether some adversary can push one of a type's ``pairs`` but not all of them."""
    if instances.uncertainty == "none":
        return False
    gammas = (np.asarray(instances.fields.gamma_delay), np.asarray(instances.fields.gamma_error))
    return any(bool(((g > 0) & (g < pairs)).any()) for g in gammas)


@dataclass
class _Table:
    """Results of all deployments (Q) in all scenarios (B), filled block by block; ``share`` Q,B,I,D or None."""

    lower: np.ndarray
    upper: np.ndarray
    reason: np.ndarray
    share: np.ndarray | None

    def put(self, q: np.ndarray, b: np.ndarray, found: _Routed) -> None:
        """Results of pairs (q, b), in place of what is there."""
        self.lower[q, b], self.upper[q, b], self.reason[q, b] = found[:3]
        if self.share is not None:
            self.share[q, b] = found.share

    def improve(self, q: np.ndarray, b: np.ndarray, found: _Routed) -> None:
        """Results of pairs (q, b), each side taken over where it is better."""
        old_lower, old_upper, old_reason = self.lower[q, b], self.upper[q, b], self.reason[q, b]
        valid = np.asarray(found.reason) != _ERROR
        cheaper = valid & (found.upper < old_upper)
        self.lower[q, b] = np.where(valid, np.maximum(old_lower, found.lower), old_lower)
        self.upper[q, b] = np.where(cheaper, found.upper, old_upper)
        self.reason[q, b] = np.where(valid & (old_reason != _FEASIBLE), found.reason, old_reason)
        if self.share is not None:
            self.share[q[cheaper], b[cheaper]] = np.asarray(found.share)[cheaper]

    def wide(self, gap: float) -> np.ndarray:
        """Pairs (M,2) that are worth another try."""
        known = self.reason == _FEASIBLE
        width = np.subtract(self.upper, self.lower, where=known, out=np.zeros_like(self.upper))
        return np.argwhere((known & (width > gap * np.abs(self.upper))) | (self.reason == _UNKNOWN))


def _routed(
    instances: Instances, slots: np.ndarray, gap: float, how: Thoroughness, *, keep: bool = False
) -> _Table:
    """Every deployment (Q,D) in every scenario, with the shares where ``keep``."""
    batch = instances if instances.batched else instances.take([0])
    shape = len(slots), batch.size
    table = _Table(
        np.full(shape, -math.inf),
        np.full(shape, math.inf),
        np.full(shape, _UNKNOWN, np.int8),
        np.zeros((*shape, len(batch.query_names), slots.shape[1])) if keep else None,
    )
    static = {
        "uncertainty": batch.uncertainty,
        "batched": batch.batched,
        "capped": bool((np.asarray(batch.fields.unmet_cap) < 1.0).any()),
        "limited": bool((np.asarray(batch.fields.max_routes) > 0).any()),
    }
    with jax.enable_x64(True):
        for start in range(0, batch.size, how.scenarios):
            stop = min(start + how.scenarios, batch.size)
            fields = jax.device_put(batch.take(_filled(start, stop, how.scenarios)).fields)
            costs = np.zeros(how.scenarios, bool)
            for first in range(0, len(slots), how.deployments):
                last = min(first + how.deployments, len(slots))
                rows = slots[_filled(first, last, how.deployments)]
                few = np.int32(how.iterations)
                found = _block(fields, rows, costs, iterations=few, sharp=False, crossed=True, **static)
                q, b = np.meshgrid(np.arange(first, last), np.arange(start, stop), indexing="xy")
                table.put(q, b, _Routed(*(np.asarray(a)[: stop - start, : last - first] for a in found)))
        sharp = _sharp(batch, int((slots >= 0).sum(1).max(initial=1)))
        for ray in (False, True):
            again = np.argwhere(table.reason == _UNKNOWN) if ray else table.wide(gap)
            for start in range(0, len(again), how.rows):
                count = min(how.rows, len(again) - start)
                q, b = again[_filled(start, start + count, how.rows)].T
                found = _block(
                    batch.take(b).fields,
                    slots[q],
                    np.full(how.rows, ray),
                    iterations=np.int32(how.more),
                    sharp=sharp,
                    crossed=False,
                    **static,
                )
                table.improve(q[:count], b[:count], _Routed(*(np.asarray(a)[:count] for a in found)))
    np.minimum(table.lower, table.upper, out=table.lower)
    assert table.lower.dtype == table.upper.dtype == np.float64, "certificates are float64"
    return table


def recourse(
    instances: Instances,
    deployments: Sequence[Deployment],
    *,
    gap: float = RECOURSE_GAP,
    how: Thoroughness = Thoroughness(),
) -> Recourse:
    """Bracket the cost of each deployment in each scenario when only its routing may answer the scenario.

    min over x, u of the total cost of (deployment, x, u) subject to every promise and limit of MODEL section 5; all
    that is deployed is paid for, used or not.

    Args:
      deployments: Q tuples of deployed pairs; an empty one serves nothing.
      gap: relative gap above which a bracket is worked on again.

    Returns:
      brackets of shape (Q,B). Lower bounds are dual values in float64; upper bounds are costs of plans whose margins
      hold in the float64 evaluation (`recourse_plans` shows them, and the independent checker's verdict).

    Raises:
      InputError: as `slots_of`.
    """
    found = _routed(instances, slots_of(instances, deployments), gap, how)
    return Recourse(found.lower, found.upper, found.reason)


def recourse_plans(
    instances: Instances,
    deployments: Sequence[Deployment],
    *,
    gap: float = RECOURSE_GAP,
    how: Thoroughness = Thoroughness(),
) -> tuple[Recourse, list[list[Plan | None]], list[list[Verdict | None]]]:
    """As `recourse`, and per deployment and scenario (Q,B) the plan and the independent checker's verdict on it.

    A plan holds the whole deployment, idle pairs too. Plan and verdict are None where the deployment has no plan, or
    the checker refuses it; the upper bound is then inf, and otherwise the checker's cost.
    """
    slots = slots_of(instances, deployments)
    found = _routed(instances, slots, gap, how, keep=True)
    assert found.share is not None, "shares were asked for"
    plans: list[list[Plan | None]] = [[None] * found.upper.shape[1] for _ in deployments]
    verdicts: list[list[Verdict | None]] = [[None] * found.upper.shape[1] for _ in deployments]
    for q, b in np.argwhere(found.reason == _FEASIBLE).tolist():
        plan = _named(instances, b, deployment_of(instances, slots[q]), found.share[q, b])
        verdict = check_plan(plan, instances, b)
        if verdict.feasible:
            plans[q][b], verdicts[q][b] = plan, verdict
            found.upper[q, b] = verdict.costs["total_cost"]
        else:
            found.upper[q, b], found.reason[q, b] = math.inf, _UNKNOWN
    lower = np.minimum(found.lower, found.upper)
    return Recourse(lower, found.upper, found.reason), plans, verdicts


def _named(instances: Instances, b: int, deployment: Deployment, share: np.ndarray) -> Plan:
    """The plan of scenario ``b`` by name."""
    return Plan(
        b,
        deployment,
        tuple(
            Route(query, d.model, d.gpu, float(share[i, m]))
            for i, query in enumerate(instances.query_names)
            for m, d in enumerate(deployment)
            if share[i, m] > 0
        ),
        {q: float(max(1.0 - share[i].sum(), 0.0)) for i, q in enumerate(instances.query_names)},
    )
