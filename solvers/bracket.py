"""Brackets in batch: a certified lower bound and a checked plan for every scenario, closed by branching.

What stays wide at the root is bracketed a second time with prices that climb far and plans of many pairs (`USUAL`).

Root: dual ascent (`solvers.dual`), then a plan by local search (`solvers.deployments`). Where the bracket is wider than
the target, a best-first branch and bound goes on over all open scenarios at once: in each round every open scenario
splits its weakest nodes on the triple that promises most (`solvers.tree.rate_splits`), and all children are bounded in
one batch, starting from their parent's multipliers. A scenario without a plan is asked for the least rent that it needs
(`solvers.dual.count_rent_alone`) until a plan is found: above the budget, that proves that there is none. A scenario's
rounds are its own: on a CPU its row does not depend on which scenarios share a batch. On an accelerator their number
chooses the size of blocks, and with it the last bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from rodiu_jax.model.fields import has_replicas
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.scenario_blocks import keep_on_device, run_scenarios
from rodiu_jax.model.slots import EMPTY, widen
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.tolerances import (
    ABOVE_ANY_COST,
    CROSSED_BY_DEVICE,
    FLOOR_ROUNDING,
    OPTIMAL_GAP,
)
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.overlap import map_ahead
from solvers.answers import Answers, relative_gap
from solvers.deployments import Deployments, by_width, checked_plans
from solvers.dual import (
    FEASIBILITY_WEIGHT,
    Ascent,
    Multipliers,
    Opening,
)
from solvers.dual.coefficients import serving_field
from solvers.effort import Effort, usual_effort
from solvers.node_programs import Bounded, bound_deployed, bound_nodes, cold_starts, prove_infeasible
from solvers.options import RANGES, list_options
from solvers.routing import THOROUGH_ITERATIONS
from solvers.tree import Nodes, Tree, keep_better, put_rows, take_rows, write_rows

_EVERY = 10**6
"""Deployments routed a round where all that are looked at shall be."""


def brackets(
    instances: Instances, *, gap: float = 0.01, effort: Effort | None = None, certificates: bool = False
) -> Answers:
    """Bracket every scenario's optimum, to a relative gap where branching gets there.

    Raises nothing for a bad scenario: its answer says ``ERROR`` and its neighbours are untouched. Scenarios with and
    without a limit of routes are searched apart, as other programs route them.

    Args:
      effort: what suits the catalogue by default.
      certificates: answers hold the leaves that prove the lower bounds.
    """
    batch = instances.as_batch()
    effort = _with_chunk(effort or usual_effort(batch), batch)
    limited = np.broadcast_to(np.asarray(batch.fields.max_routes) > 0, (batch.size,))  # B
    if limited.all() or not limited.any():
        return _brackets(batch, bool(limited.any()), gap, effort, certificates)
    rows = [np.flatnonzero(limited == kind) for kind in (False, True)]
    parts = [
        _brackets(batch.take(at), kind, gap, effort, certificates)
        for kind, at in zip((False, True), rows, strict=True)
    ]
    return Answers.concatenate(parts, names=batch.names).take(np.argsort(np.concatenate(rows)))


def _with_chunk(effort: Effort, batch: Instances) -> Effort:
    """Return the effort with the size of blocks that suits the device, where it names none."""
    cells = 8 * math.prod(batch.shape) * (len(RANGES) if has_replicas(batch.fields) else 1)  # bytes
    return replace(effort, chunk=effort.chunk or block_size("bracket", bytes_per_row=cells).rows)


def compile_programs(instances: Instances) -> None:
    """Compile, or load, what most brackets of such scenarios run, two programs at a time.

    Of one scenario a bracket is made, and beside it a search that begins with nothing deployed.
    """
    one = instances.as_batch().take([0])
    if serving_field(one.fields):  # HiGHS is asked about these
        return
    effort = _with_chunk(Effort(tree_rounds=1), one)
    limited = bool(np.any(np.asarray(one.fields.max_routes) > 0))

    def search() -> None:
        with jax.enable_x64(True):
            how = effort.search._replace(limited=limited)
            best = Deployments(
                1, keep_on_device(one), how, rounds=1, routed=effort.routed, chunk=effort.chunk
            )
            best.fresh[:] = True
            best.improve(np.full(1, -math.inf), 0.0, np.arange(1))

    def bracket() -> None:
        brackets(one, gap=0.0, effort=effort)

    for _ in map_ahead(lambda work: work(), (bracket, search), at_once=2):
        pass


def _brackets(batch: Instances, limited: bool, gap: float, effort: Effort, certificates: bool) -> Answers:
    everyone = np.arange(batch.size)
    options = list_options(batch)
    expanded = batch if options is None else options.expand(batch)
    with jax.enable_x64(True):
        slots = effort.search.slots
        if options is not None:  # few pairs, of many options each
            slots = min(slots, math.prod(batch.shape[1:3]))
        effort = replace(effort, search=effort.search._replace(limited=limited, slots=slots))
        if (
            limited and not effort.search.scarce
        ):  # floors know no limit of routes, and say little of what is promising
            effort = replace(effort, routed=_EVERY)
        placed = keep_on_device(expanded)
        run, root = _bound_roots(expanded, placed, effort)
        tree = _plant(root, effort, certificates)
        best = Deployments(
            batch.size, placed, effort.search, rounds=effort.rounds, routed=effort.routed, chunk=effort.chunk
        )
        best.offer(everyone, root.starts, root.least)
        best.improve(tree.lower(), gap, everyone)
        beyond = root.highest * (1.0 + ABOVE_ANY_COST)  # B; a bound above it proves that there is no plan
        infeasible = _close_infeasible(run, tree, best)
        infeasible |= ~np.isfinite(best.cost) & (tree.lower() > beyond)
        hard = np.zeros(batch.size, bool)
        if effort.harder is not None:
            narrow = relative_gap(tree.lower(), best.cost) <= effort.beyond
            hard = ~narrow & ~infeasible & np.isfinite(tree.lower())
            tree.close(hard[tree.scenario])
        _branch(run, tree, best, beyond, gap)
        infeasible |= ~np.isfinite(best.cost) & (tree.lower() > beyond)
        plans = checked_plans(batch, placed, best.slot, effort.search, effort.chunk, options)
    lower = np.where(infeasible, math.inf, tree.lower())  # B
    tree.close(np.ones(len(tree.scenario), bool))
    broken = ~np.isfinite(lower) & ~infeasible
    broken |= _crossed(lower, plans.upper)
    plans = plans.without(broken)
    lower = np.where(broken, -math.inf, np.minimum(lower, plans.upper))
    status = _statuses(lower, plans.upper, infeasible, gap)
    status[broken] = Status.ERROR
    # `certify` allows for rounding only in the triples of the minimum; the margin covers the others' floors.
    promising = ~(root.floor > (plans.upper + FLOOR_ROUNDING * np.abs(plans.upper))[:, None, None])
    promising = promising.reshape(expanded.size, *expanded.shape[1:])
    answers = Answers(
        batch.names,
        status,
        np.full(batch.size, Prover.BRACKET, np.int8),
        lower=lower,
        upper=plans.upper,
        certified=lower,
        costs=plans.costs,
        slots=plans.slots,
        shares=plans.shares,
        unmet=plans.unmet,
        nodes=tree.nodes,
        steps=tree.steps,
        seconds=np.full(batch.size, math.nan),
        message=np.where(broken, _NO_NUMBER, "").astype(object),
        promising=promising if options is None else options.of_degrees(promising),
        replicas=plans.replicas,
        leaves=tree.leaves(None if options is None else options.ranges),
    )
    rows = np.flatnonzero(hard)
    if effort.harder is None or not len(rows):
        return answers
    harder = replace(effort.harder, chunk=effort.chunk)
    again = _brackets(batch.take(rows), limited, gap, harder, certificates)
    order = np.arange(batch.size)
    order[rows] = batch.size + np.arange(len(rows))
    better = _better(answers.take(rows), again, gap)
    return Answers.concatenate([answers, better], names=batch.names).take(order)


def _better(first: Answers, second: Answers, gap: float) -> Answers:
    """Return the better of two brackets of each scenario, on each side."""
    both = Answers.concatenate([first, second], names=first.names)
    row, size = np.arange(len(first)), len(first)
    plans = both.take(row + size * (second.upper < first.upper))
    proofs = both.take(row + size * (second.lower > first.lower))
    infeasible = proofs.is_any(Status.INFEASIBLE)
    broken = (first.is_any(Status.ERROR) & second.is_any(Status.ERROR)) | _crossed(proofs.lower, plans.upper)
    lower = np.where(infeasible, math.inf, np.minimum(proofs.lower, plans.upper))
    lower = np.where(broken, -math.inf, lower)
    status = _statuses(lower, plans.upper, infeasible, gap)
    assert first.promising is not None, "a bracket says what is promising"
    assert second.promising is not None, "a bracket says what is promising"
    return replace(
        plans,
        status=np.where(broken, Status.ERROR, status).astype(np.int8),
        lower=lower,
        certified=lower,
        nodes=first.nodes + second.nodes,
        steps=first.steps + second.steps,
        message=np.where(broken, _NO_NUMBER, "").astype(object),
        promising=first.promising & second.promising,
        leaves=proofs.leaves,
    )


def _crossed(lower: Float64[np.ndarray, " B"], upper: Float64[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
    """Return where a bound is above what a plan costs, by more than a device's rounding: one of them is wrong."""
    return lower > upper + CROSSED_BY_DEVICE * np.maximum(np.abs(upper), 1.0)


_NO_NUMBER = "the ascent met something that is not a number"


def _statuses(
    lower: Float64[np.ndarray, " B"],
    upper: Float64[np.ndarray, " B"],
    infeasible: Bool[np.ndarray, " B"],
    gap: float,
) -> np.ndarray:
    """Return the status of each scenario, int8 (B,), from its bounds and the gap asked for."""
    reached = relative_gap(lower, upper)
    cases = (infeasible, ~np.isfinite(upper), reached <= OPTIMAL_GAP, reached <= gap)
    codes = (Status.INFEASIBLE, Status.UNKNOWN, Status.OPTIMAL, Status.GAP_LIMIT)
    return np.select(cases, codes, Status.BRACKET).astype(np.int8)


@dataclass
class _Run:
    """What every call of a bracket's programs needs.

    Attributes:
      placed: the batch as `keep_on_device` has it.
      opening: of every scenario, where nodes need it.
      weight: (B,) of the costs in ascents: almost 0 where only feasibility is asked.
      ray: of every scenario, what its nodes start from where only feasibility is asked; None before anyone asks.
    """

    placed: Instances
    effort: Effort
    opening: Opening | None
    weight: Float[np.ndarray, " B"]
    ray: Multipliers | None = None

    def bound(self, scenario: np.ndarray, decided: np.ndarray, start: Multipliers, ascent: Ascent) -> Bounded:
        """Bound nodes from the multipliers that they have."""
        opening = take_rows(self.opening, scenario)
        arrays = (decided, start, opening, self.weight[scenario])
        static = {"controls": ascent.controls, "reach": ascent.reach, "how": self.effort.search}
        return run_scenarios(bound_nodes, self.placed, scenario, arrays, self.block, **static)

    @property
    def block(self) -> BlockSize:
        """Rows of a block."""
        return BlockSize(self.effort.chunk)


_MISSED = 1e-3
"""Part of a bound above which what pairs take that were not iterated is worth another ascent over them."""

_ROUNDS = 3
"""Ascents of a root at most: each iterates the pairs that the one before says matter."""


def _bound_roots(batch: Instances, placed: Instances, effort: Effort) -> tuple[_Run, Bounded]:
    """Bound every scenario with nothing decided; pairs that take from a bound and were not iterated are, next time."""
    _, models, gpus, degrees = batch.shape
    scenario = np.arange(batch.size)
    decided = np.zeros((batch.size, models * gpus, degrees), np.int8)
    far = effort.root.far
    start, opening = run_scenarios(cold_starts, placed, scenario, (), BlockSize(effort.chunk), far=far)
    run = _Run(placed, effort, opening, np.ones(batch.size, np.float32))
    root = run.bound(scenario, decided, start, effort.root)
    for _ in range(1, _ROUNDS if far else 1):
        lacking = np.flatnonzero(-root.missed > _MISSED * np.abs(root.bound))
        if not len(lacking):
            break
        again = run.bound(lacking, decided[lacking], take_rows(root.multipliers, lacking), effort.node)
        better = np.flatnonzero(again.bound > root.bound[lacking])
        root = put_rows(root, lacking[better], take_rows(again, better))
    return run, root


def _plant(root: Bounded, effort: Effort, certificates: bool) -> Tree:
    """Return the trees that have nothing but roots."""
    size = len(root.bound)
    nodes = Nodes(
        np.arange(size),
        np.asarray(root.bound),
        np.asarray(root.decided),
        np.asarray(root.promise),
        np.zeros((size, effort.tree_rounds), np.int32),
        root.multipliers,
    )
    return Tree(nodes, effort.root.steps, keep_leaves=certificates)


def _close_infeasible(run: _Run, tree: Tree, best: Deployments) -> Bool[np.ndarray, " B"]:
    """Close the roots of scenarios that provably have no plan, with what proves it; return which they are."""
    result = np.zeros(len(best.cost), bool)
    lost = np.flatnonzero(~np.isfinite(best.cost))
    if len(lost):
        ray = run.effort.ray
        proven, multipliers, opening = run_scenarios(
            prove_infeasible,
            run.placed,
            lost,
            (),
            run.block,
            controls=ray.controls,
            reach=ray.reach,
        )
        result[lost] = proven
        if ray.far:  # what is left of them is asked for feasibility alone, until a plan is found
            run.opening = put_rows(run.opening, lost, opening)
            run.weight[lost] = FEASIBILITY_WEIGHT
            roots = tree.take(np.arange(len(result)))
            run.ray = put_rows(roots.multipliers, lost, multipliers)
        # The open nodes are the roots, one of each scenario in order.
        tree.put_multipliers(lost[proven], take_rows(multipliers, np.flatnonzero(proven)))
    tree.close(result[tree.scenario])
    return result


def _bound_children(run: _Run, nodes: Nodes, ascent: Ascent) -> tuple[Nodes, Bounded]:
    """Bound nodes; return them with the better of both bounds.

    They start from the multipliers that they have, or where only feasibility is asked from their scenario's ray: what
    proves most of a node that has not been cut off yet is about its costs.
    """
    start = nodes.multipliers
    lost = np.flatnonzero(run.weight[nodes.scenario] < 1.0)
    if len(lost) and run.ray is not None:
        start = put_rows(start, lost, take_rows(run.ray, nodes.scenario[lost]))
    bounded = run.bound(nodes.scenario, nodes.decided, start, ascent)
    found = nodes._replace(
        bound=np.asarray(bounded.bound),
        promise=np.asarray(bounded.promise),
        decided=np.asarray(bounded.decided),
        multipliers=bounded.multipliers,
    )
    keep_better(nodes, found)
    return found, bounded


def _bound_whole_nodes(run: _Run, nodes: Nodes, *, known: bool) -> Nodes:
    """Bound nodes without an open triple by the prices of their deployments' routings, where these prove more.

    Args:
      known: as `bound_deployed`.
    """
    size = len(nodes.bound)
    inside = (nodes.decided > 0).reshape(size, -1)
    # No node deploys more: each round decides one more.
    width = max(run.effort.search.slots, run.effort.tree_rounds)
    order = np.argsort(~inside, axis=1, kind="stable")[:, :width]
    slot = widen(np.where(np.take_along_axis(inside, order, 1), order, EMPTY).astype(np.int32), width)
    bound, parts = np.full(size, -math.inf), {}
    for narrow, rows in by_width(slot):
        arrays = nodes.decided[rows], narrow
        static = {"iterations": np.int32(THOROUGH_ITERATIONS), "known": known}
        bound[rows], found = run_scenarios(
            bound_deployed, run.placed, nodes.scenario[rows], arrays, run.block, **static
        )
        named = {name: values for name, values in found._asdict().items() if values is not None}
        for name, values in named.items():
            parts.setdefault(name, np.zeros((size, *values.shape[1:]), values.dtype))[rows] = values
    bounded = nodes._replace(bound=bound, multipliers=Multipliers(**parts))
    keep_better(nodes, bounded)
    return bounded


def _branch(run: _Run, tree: Tree, best: Deployments, beyond: Float64[np.ndarray, " B"], gap: float) -> None:
    """Split the weakest nodes of every open scenario, round by round, until the target or the limit.

    Each child's estimate of w is also read as a deployment, so the plans improve while the bounds rise. The target is
    the best plan's cost less the gap, or ``beyond``, what no plan costs, where there is none.
    """
    effort = run.effort
    for number in range(effort.tree_rounds):
        known = np.isfinite(best.cost)
        run.weight[known] = 1.0
        cost = np.where(known, best.cost, 0.0)
        target = np.where(known, cost - gap * np.abs(cost), np.nextafter(beyond, math.inf))  # B
        tree.close_finished(target)
        if not len(tree.scenario):
            return
        doublings = number // effort.doubling
        usual = replace(effort.node, steps=effort.node.steps * (2 if doublings else 1))
        feasibility = effort.ray if effort.ray.far else usual
        for has_plan, ascent in ((True, usual), (False, feasibility)):
            if not (known[tree.scenario] == has_plan).any():
                continue
            chosen = tree.weakest(2**doublings)
            chosen = chosen[known[tree.scenario[chosen]] == has_plan]
            among = np.unique(tree.scenario[chosen])
            _split(run, tree, best, chosen, target, ascent, has_plan=has_plan)
            best.improve(tree.lower(), gap, among)


def _split(
    run: _Run,
    tree: Tree,
    best: Deployments,
    chosen: Int64[np.ndarray, " R"],
    target: Float64[np.ndarray, " B"],
    ascent: Ascent,
    *,
    has_plan: bool,
) -> None:
    """Put two bounded children in the place of each chosen node, and offer the deployments that they suggest.

    Args:
      has_plan: whether the scenarios of these nodes have a plan; all or none.
    """
    children, bounded = _bound_children(run, tree.split(chosen), ascent)
    # Whole nodes cannot be split, and an ascent nears slowly what a linear program says at once.
    for known in (True,) if has_plan else (False, True):
        last = np.flatnonzero(children.is_whole() & ~(children.bound >= target[children.scenario]))
        if len(last):
            write_rows(children, last, _bound_whole_nodes(run, children.take(last), known=known))
    tree.replace(chosen, children, ascent.steps)
    best.offer(children.scenario, bounded.starts, bounded.least)
