"""Recourse: the deployment is fixed, routing and unmet shares are chosen anew in every scenario, in batch.

With the deployment fixed, the robust MILP is a linear program over the D pairs that it deploys (`solvers.recourse_lp`),
solved by the interior point of `solvers.lp`. Its prices are multipliers of the dual of `solvers.dual` restricted to the
deployment, whose value in float64 is the lower bound. Its shares are a plan, whose cost and margins
`rodiu_jax.model.evaluation.score` computes in float64: the upper bound.

Every deployment is crossed with every scenario first. What does not close is solved again, longer and with the exact
adversary; where no plan was found then, once more for a proof that too much stays unmet. Where routes are limited, the
bound is that of any number of them (but for `solvers.dual.limit_shares_to_promises`), and the plan keeps, type by type,
those that carry most.

Scenarios with replicas, rates, quotas or speed-ups per pair are those of `solvers.fleet_recourse`, without JAX.
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
from jaxtyping import Bool, Float, Int, Int8, Int32

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.evaluation import score
from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, PlanArrays
from rodiu_jax.model.plan_columns import plan_from_shares
from rodiu_jax.model.scenario_blocks import keep_on_device, of_settled, run_scenarios
from rodiu_jax.model.tolerances import (
    ABOVE_ANY_COST,
    MARGIN_TOLERANCE,
    NEGLIGIBLE_SHARE_ON_DEVICE,
    RECOURSE_GAP,
)
from rodiu_jax.model.verdict import Verdict
from rodiu_jax.runtime.block_sizes import block_size
from rodiu_jax.runtime.kept_programs import kept_program
from solvers.dual import Coefficients, certify, derive_coefficients, limit_shares_to_promises
from solvers.dual.coefficients import serving_field
from solvers.fleet_recourse import bracket_fleets
from solvers.lp.interior import interior_point
from solvers.lp.program import LpSolution
from solvers.recourse_brackets import DeploymentRows, Reason, Recourse, write_rows
from solvers.recourse_lp import (
    Variant,
    bound_any_cost,
    build_recourse_lp,
    drop_costs,
    read_recourse_multipliers,
    restrict_to_deployment,
)
from solvers.route_limits import find_triples, most_routes, pick_largest_shares
from solvers.routing import RoutingLp

_FIRST_ITERATIONS = 14
"""Interior-point iterations at first, of every pair; what these do not close is solved again."""

_MORE_ITERATIONS = 40
"""Iterations of what did not close; the exact adversary's columns want more than a plain routing."""

_DEPLOYMENTS = 16
"""Deployments of a compiled block of the crossing; its scenarios are in `rodiu_jax.runtime.block_sizes`."""


def recourse(
    instances: Instances, deployments: Sequence[Deployment], *, gap: float = RECOURSE_GAP
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
      InputError: as `solvers.recourse_brackets.write_rows`.
    """
    return _bracket(instances, write_rows(instances, deployments), gap)[0]


def recourse_plans(
    instances: Instances, deployments: Sequence[Deployment], *, gap: float = RECOURSE_GAP
) -> tuple[Recourse, list[list[Plan | None]], list[list[Verdict | None]]]:
    """Do as `recourse`, and give per deployment and scenario (Q,B) the plan and the checker's verdict on it.

    A plan holds the whole deployment, idle pairs too. Plan and verdict are None where the deployment has no plan, or
    the checker refuses it; the upper bound is then inf, and otherwise the checker's cost.
    """
    rows = write_rows(instances, deployments)
    (lower, upper, reason), shares = _bracket(instances, rows, gap, keep_shares=True)
    assert shares is not None
    plans: list[list[Plan | None]] = [[None] * upper.shape[1] for _ in deployments]
    verdicts: list[list[Verdict | None]] = [[None] * upper.shape[1] for _ in deployments]
    for q, b in np.argwhere(reason == Reason.FEASIBLE).tolist():
        share = shares[q, b]
        slots, replicas = rows.slots[q], rows.replicas[q]
        unmet = np.maximum(1.0 - share[:, slots >= 0].sum(1), 0.0)
        plan = plan_from_shares(instances.names, slots, share, unmet, replicas=replicas, instance=b)
        verdict = check_plan(plan, instances, b)
        if verdict.feasible:
            plans[q][b], verdicts[q][b] = plan, verdict
            upper[q, b] = verdict.costs["total_cost"]
        else:
            upper[q, b], reason[q, b] = math.inf, Reason.UNKNOWN
    return Recourse(np.minimum(lower, upper), upper, reason), plans, verdicts


def _bracket(
    instances: Instances, rows: DeploymentRows, gap: float, *, keep_shares: bool = False
) -> tuple[Recourse, np.ndarray | None]:
    """Bracket every deployment in every scenario; the shares (Q,B,I,D) too, where asked for."""
    if serving_field(instances.fields):
        return bracket_fleets(instances, rows, gap, keep_shares=keep_shares)
    return _bracket_on_device(instances, rows.slots, gap, keep_shares=keep_shares)


# ---- one deployment in one scenario ----


class _Answer(NamedTuple):
    """A bracket, its `Reason` and the plan's shares (I,D); with leading axes in a batch."""

    lower: Array
    upper: Array
    reason: Array
    share: Array


def _solve(
    fields: Fields,
    everything: Coefficients,
    slot: Int[Array, " D"],
    minimise_excess: Bool[Array, ""],
    *,
    iterations: Int[Array, ""],
    variant: Variant,
    limited: bool,
) -> _Answer:
    """Bracket one deployment in one scenario, whose coefficients over all pairs are ``everything``."""
    c = restrict_to_deployment(everything, slot)
    c = c._replace(most=limit_shares_to_promises(c))  # among these pairs alone
    types, slots = c.nominal.shape
    here = jnp.where(slot >= 0, jnp.arange(slots, dtype=slot.dtype), -1)  # the slots among themselves
    allowed = jnp.ones((types, slots), bool)

    def route(allowed: Bool[Array, "I D"]) -> tuple[RoutingLp, LpSolution, Float[Array, "I D"]]:
        problem = build_recourse_lp(c, here, allowed, minimise_excess, variant)
        solution, _ = interior_point(problem.lp, iterations)
        return problem, solution, solution.x[:, :slots]

    problem, solution, share = route(allowed)
    y = read_recourse_multipliers(drop_costs(c, minimise_excess), here, solution, problem.unit, variant)
    lower, _ = certify(c, y)
    if limited:
        allowed = _dive(c, lambda allowed: route(allowed)[2], allowed)
        share = route(allowed)[2]
    share = _drop_negligible(share, allowed & (c.most[:, :, 0] > 0))
    both = jnp.stack([share, jnp.zeros_like(share)])  # serving nobody is a plan too
    costs = jax.vmap(lambda share: _score_plan(fields, slot, share))(both)
    upper, share = costs.min(), both[jnp.argmin(costs)]

    reason = _explain(fields, c, slot, everything.deploy.shape[1], lower, upper)
    proven = (reason >= Reason.MEMORY) & (reason <= Reason.UNMET)
    valid = jnp.where(reason == Reason.ERROR, -jnp.inf, jnp.minimum(lower, upper))
    lower = jnp.where(proven, jnp.inf, valid)
    return _Answer(lower, jnp.where(reason == Reason.FEASIBLE, upper, jnp.inf), reason, share)


def _dive(
    c: Coefficients,
    shares: Callable[[Bool[Array, "I D"]], Float[Array, "I D"]],
    allowed: Bool[Array, "I D"],
) -> Bool[Array, "I D"]:
    """Choose routes within the limit, type by type: those types first whose routes within it carry most.

    Args:
      shares: routes with the given routes allowed.
    """
    types, slots = allowed.shape
    most = most_routes(c, slots)

    def choose(
        _: Array, state: tuple[Bool[Array, "I D"], Bool[Array, " I"]]
    ) -> tuple[Bool[Array, "I D"], Bool[Array, " I"]]:
        allowed, chosen = state
        share = shares(allowed)
        largest = allowed & pick_largest_shares(jnp.where(allowed, share, -1.0), most)
        carried = jnp.where(largest, share, 0.0).sum(1)
        next_type = jnp.arange(types) == jnp.argmax(jnp.where(chosen, -jnp.inf, carried))
        return jnp.where(next_type[:, None], largest, allowed), chosen | next_type

    return jax.lax.fori_loop(0, types, choose, (allowed, jnp.zeros(types, bool)))[0]


def _drop_negligible(share: Float[Array, "I D"], allowed: Bool[Array, "I D"]) -> Float[Array, "I D"]:
    """Give the traffic of negligible shares to the type's other routes; a type's shares sum to at most 1."""
    share = jnp.where(allowed & jnp.isfinite(share), jnp.clip(share, 0.0, 1.0), 0.0)
    total = jnp.minimum(share.sum(1, keepdims=True), 1.0)
    share = jnp.where(share > NEGLIGIBLE_SHARE_ON_DEVICE, share, 0.0)
    left = share.sum(1, keepdims=True)
    return share * jnp.where(left > 0, total / jnp.where(left > 0, left, 1.0), 0.0)


def _score_plan(fields: Fields, slot: Int[Array, " D"], share: Float[Array, "I D"]) -> Float[Array, ""]:
    """Compute the total cost of a plan; inf where it breaks a promise or a limit."""
    gpus, degrees = fields.gpu_memory.shape[0], fields.tp_degree.shape[0]
    triple = jnp.maximum(slot, 0)
    columns: list[Any] = [  # arrays of a device, where the type says NumPy's
        triple // degrees // gpus,
        triple // degrees % gpus,
        jnp.where(slot >= 0, triple % degrees, -1),
        share,
        jnp.maximum(1.0 - share.sum(1), 0.0),
        jnp.ones_like(slot),
    ]
    scores = score(fields, PlanArrays(*columns), SETTLED_MODE)
    return jnp.where((scores.margins >= -MARGIN_TOLERANCE).all(), scores.costs[0], jnp.inf)


def _explain(
    fields: Fields,
    c: Coefficients,
    slot: Int[Array, " D"],
    degrees: int,
    lower: Float[Array, ""],
    upper: Float[Array, ""],
) -> Int8[Array, ""]:
    """Say why there is no plan: the first `Reason` that is true, from the surest to the weakest."""
    rent, weights = c.deploy.sum(), c.weights.sum()
    over = 1.0 + MARGIN_TOLERANCE
    used, pair, degree = find_triples(slot, degrees)
    memory = fields.gpu_memory[pair % fields.gpu_memory.shape[0]] * fields.tp_degree[degree].astype(
        weights.dtype
    )
    cases = {
        Reason.ERROR: ~jnp.isfinite(rent + weights + memory.sum()) | jnp.isnan(lower),
        Reason.MEMORY: (used & (c.weights > memory * over)).any(),
        Reason.STORAGE: weights > c.storage * over,
        Reason.BUDGET: rent > c.budget * over,
        Reason.FEASIBLE: jnp.isfinite(upper),
        Reason.UNMET: lower > bound_any_cost(c) * (1.0 + ABOVE_ANY_COST),
        Reason.UNKNOWN: jnp.isfinite(lower),
    }
    return jnp.select(list(cases.values()), [r.value for r in cases], Reason.ERROR.value).astype(jnp.int8)


# ---- many deployments in many scenarios ----


@of_settled
@kept_program("variant", "limited")
def _cross(
    fields: Fields,
    minimise_excess: Array,
    *,
    slots: Array,
    iterations: Array,
    variant: Variant,
    limited: bool,
) -> _Answer:
    """Bracket the deployments ``slots`` (Q,D) in each of C scenarios; results (C,Q)."""

    def one(fields: Fields, minimise_excess: Array) -> _Answer:
        solve = partial(_solve, fields, derive_coefficients(fields, SETTLED_MODE))
        solve = partial(solve, iterations=iterations, variant=variant, limited=limited)
        return jax.vmap(lambda slot: solve(slot, minimise_excess))(slots)

    return jax.vmap(one)(fields, minimise_excess)


@of_settled
@kept_program("variant", "limited")
def _solve_again(
    fields: Fields,
    slot: Array,
    minimise_excess: Array,
    *,
    iterations: Array,
    variant: Variant,
    limited: bool,
) -> _Answer:
    """Bracket a deployment of its own, ``slot`` (C,D), in each of C scenarios; results (C,)."""

    def one(fields: Fields, slot: Array, minimise_excess: Array) -> _Answer:
        everything = derive_coefficients(fields, SETTLED_MODE)
        return _solve(
            fields,
            everything,
            slot,
            minimise_excess,
            iterations=iterations,
            variant=variant,
            limited=limited,
        )

    return jax.vmap(one)(fields, slot, minimise_excess)


@dataclass
class _Table:
    """Results of all deployments (Q) in all scenarios (B), filled block by block; ``share`` Q,B,I,D or None."""

    lower: np.ndarray
    upper: np.ndarray
    reason: np.ndarray
    share: np.ndarray | None

    def fill(self, first: int, count: int, answer: _Answer) -> None:
        """Write down the deployments from ``first`` on, in all scenarios; results are (B,Q')."""
        rows = slice(first, first + count)
        self.lower[rows], self.upper[rows] = answer.lower[:, :count].T, answer.upper[:, :count].T
        self.reason[rows] = answer.reason[:, :count].T
        if self.share is not None:
            self.share[rows] = np.moveaxis(answer.share[:, :count], 0, 1)

    def improve(self, q: np.ndarray, b: np.ndarray, answer: _Answer) -> None:
        """Take each side of pairs (q, b) over where it is better."""
        old_lower, old_upper, old_reason = self.lower[q, b], self.upper[q, b], self.reason[q, b]
        valid = answer.reason != Reason.ERROR
        cheaper = valid & (answer.upper < old_upper)
        self.lower[q, b] = np.where(valid, np.maximum(old_lower, answer.lower), old_lower)
        self.upper[q, b] = np.where(cheaper, answer.upper, old_upper)
        self.reason[q, b] = np.where(valid & (old_reason != Reason.FEASIBLE), answer.reason, old_reason)
        if self.share is not None:
            self.share[q[cheaper], b[cheaper]] = answer.share[cheaper]

    def find_open(self, gap: float) -> np.ndarray:
        """Find the pairs (M,2) whose bracket is wide or whose reason is not known."""
        known = self.reason == Reason.FEASIBLE
        width = np.subtract(self.upper, self.lower, where=known, out=np.zeros_like(self.upper))
        return np.argwhere((known & (width > gap * np.abs(self.upper))) | (self.reason == Reason.UNKNOWN))


def _bracket_on_device(
    instances: Instances, slots: Int32[np.ndarray, "Q D"], gap: float, *, keep_shares: bool = False
) -> tuple[Recourse, np.ndarray | None]:
    """Bracket as `_bracket`, in batch, where scenarios have no fleets."""
    batch = instances.as_batch()
    shape = len(slots), batch.size
    table = _Table(
        np.full(shape, -math.inf),
        np.full(shape, math.inf),
        np.full(shape, Reason.UNKNOWN, np.int8),
        np.zeros((*shape, len(batch.query_names), slots.shape[1])) if keep_shares else None,
    )
    capped = bool((np.asarray(batch.fields.unmet_cap) < 1.0).any())
    limited = bool((np.asarray(batch.fields.max_routes) > 0).any())
    size = block_size("recourse")
    with jax.enable_x64(True):
        placed = keep_on_device(batch)
        everyone, by_cost = np.arange(batch.size), np.zeros(batch.size, bool)
        for first in range(0, len(slots), _DEPLOYMENTS):
            group = np.arange(first, first + _DEPLOYMENTS)
            group = np.where(group < len(slots), group, first)  # the last group is filled up with its first
            answer = run_scenarios(
                _cross,
                placed,
                everyone,
                (by_cost,),
                size,
                slots=slots[group],
                iterations=np.int32(_FIRST_ITERATIONS),
                variant=Variant(sharp=False, capped=capped),
                limited=limited,
            )
            table.fill(first, min(_DEPLOYMENTS, len(slots) - first), answer)
        variant = Variant(_is_sharp(batch, int((slots >= 0).sum(1).max(initial=1))), capped)
        for minimise_excess in (False, True):
            again = np.argwhere(table.reason == Reason.UNKNOWN) if minimise_excess else table.find_open(gap)
            if not len(again):
                continue
            q, b = again.T
            answer = run_scenarios(
                _solve_again,
                placed,
                b,
                (slots[q], np.full(len(again), minimise_excess)),
                size,
                iterations=np.int32(_MORE_ITERATIONS),
                variant=variant,
                limited=limited,
            )
            table.improve(q, b, answer)
    np.minimum(table.lower, table.upper, out=table.lower)
    assert table.lower.dtype == table.upper.dtype == np.float64, "certificates are float64"
    return Recourse(table.lower, table.upper, table.reason), table.share


def _is_sharp(instances: Instances, pairs: int) -> bool:
    """Say whether some adversary can push one of a type's ``pairs`` but not all of them."""
    if instances.uncertainty == "none":
        return False
    gammas = (np.asarray(instances.fields.gamma_delay), np.asarray(instances.fields.gamma_error))
    return any(bool(((g > 0) & (g < pairs)).any()) for g in gammas)
