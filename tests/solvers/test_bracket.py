"""Brackets hold the optimum between them, say no more than is proven, and branching closes them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.model import scenario_blocks
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from solvers import bracket as module
from solvers import deployments, node_programs
from solvers.answers import Answers
from solvers.bracket import brackets, compile_programs
from solvers.dual import Multipliers
from solvers.effort import Effort
from solvers.exact import solve_instance
from tests.oracles.answers import assert_same
from tests.oracles.bounds import above
from tests.oracles.hard_instances import hard_instances
from tests.oracles.instances import default_instances, random_instances

SMALL = (2, 2, 3, 2)
ROOT = Effort(tree_rounds=0, chunk=16)
TREE = replace(ROOT, tree_rounds=25)
PROGRAMS = [node_programs.bound_nodes, deployments._neighbours, deployments._route_plans]


def optima_of(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
    """HiGHS's proven lower bound and the cost of its plan, per scenario; both inf where it proves that none exists."""
    results = [solve_instance(instances, b) for b in range(instances.size)]
    assert {r.status for r in results} <= {Status.OPTIMAL, Status.INFEASIBLE}
    return np.array([r.lower for r in results]), np.array([r.upper for r in results])


def assert_honest(
    found: Answers, instances: Instances, least: np.ndarray, cost: np.ndarray, gap: float
) -> None:
    """What every bracket promises, given the optimum between ``least`` and ``cost``."""
    assert len(found) == instances.size
    lower, upper = found.lower, found.upper
    assert not above(lower, cost).any(), np.flatnonzero(above(lower, cost))
    known = np.isfinite(least)
    assert not (upper < least - 1e-6 * scale(np.where(known, least, 1.0)))[known].any()
    for b, f in enumerate(found):
        assert f.lower <= f.upper
        assert f.nodes >= 1
        assert f.steps >= f.nodes
        plan = f.plan
        if plan is None:
            assert (f.upper, f.cost_by_name) == (math.inf, None)
            assert f.status in (Status.UNKNOWN, Status.INFEASIBLE, Status.ERROR)
        else:
            verdict = check_plan(plan, instances, b)
            assert verdict.feasible, verdict.binding
            assert f.cost_by_name == pytest.approx(verdict.costs, rel=1e-12)
            assert f.upper == f.costs[0]
            assert f.status in (Status.OPTIMAL, Status.GAP_LIMIT, Status.BRACKET)
            assert (f.status is Status.OPTIMAL) == (f.gap <= OPTIMAL_GAP)
            assert (f.status is Status.GAP_LIMIT) == (OPTIMAL_GAP < f.gap <= gap)
            limit = instances.one(b).max_routes
            for q in instances.query_names:
                assert limit == 0 or sum(r.query == q for r in plan.routes) <= limit
        if math.isinf(cost[b]):
            assert f.status in (Status.UNKNOWN, Status.INFEASIBLE)
        else:
            assert f.status is not Status.INFEASIBLE


def scale(values: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(values), 1.0)


@pytest.fixture(scope="module")
def hard():
    """Hard scenarios, limits of unmet shares among them; HiGHS's optima; brackets of root and tree.

    Without limits of routes, which want programs of their own: those are for the long lane.
    """
    instances = hard_instances(21, SMALL)
    instances = instances.take(np.flatnonzero(instances.fields.max_routes == 0))
    return (
        instances,
        *optima_of(instances),
        brackets(instances, gap=1e-3, effort=ROOT),
        brackets(instances, gap=1e-3, effort=TREE),
    )


def test_brackets_of_the_root(hard):
    instances, least, cost, root, _ = hard
    assert_honest(root, instances, least, cost, 1e-3)
    assert (root.nodes == 1).all()
    assert (root.steps == ROOT.root.steps).all()


@pytest.mark.slow
def test_limits_of_routes_among_hard_scenarios():
    instances = hard_instances(21, SMALL)
    least, cost = optima_of(instances)
    for effort in (ROOT, TREE):
        assert_honest(brackets(instances, gap=1e-3, effort=effort), instances, least, cost, 1e-3)


def test_branching_raises_the_bound_and_never_crosses(hard):
    instances, least, cost, root, tree = hard
    assert_honest(tree, instances, least, cost, 1e-3)
    before, after = root.lower, tree.lower
    known = np.isfinite(before) & np.isfinite(after)  # an infinite bound says that no plan exists
    assert np.isfinite(cost[~known]).sum() == 0
    before, after = before[known], after[known]
    assert (after >= before - 1e-9 * scale(before)).all()
    assert (tree.upper <= root.upper * (1 + 1e-9)).all()
    assert (tree.nodes > 1).any()
    assert (after > before + 1e-3 * scale(before)).sum() > 5
    closed = tree.is_any(Status.OPTIMAL, Status.GAP_LIMIT)
    assert np.mean(closed) > np.mean(root.is_any(Status.OPTIMAL, Status.GAP_LIMIT))
    assert np.mean(closed) > 0.35


def test_plans_are_near_the_optimum(hard):
    instances, _, cost, _, tree = hard
    loose = np.isfinite(cost) & (instances.fields.unmet_cap == 1.0)
    upper = tree.upper
    assert np.isfinite(upper[loose]).all()
    excess = (upper[loose] - cost[loose]) / scale(cost[loose])
    assert np.median(excess) < 1e-4
    assert np.mean(excess) < 0.05


def test_what_is_not_promising_is_in_no_optimum(hard):
    instances, _, _, root, _ = hard
    degrees = instances.axis_names("N")
    assert root.promising is not None
    left = np.flatnonzero(root.has_plan)
    for b in left.tolist():
        best = solve_instance(instances, b)
        plan = best.plan
        if plan is not None and root.upper[b] > best.upper * (1 + 1e-6):
            for d in plan.deployments:
                place = instances.model_names.index(d.model), instances.gpu_names.index(d.gpu)
                assert root.promising[(b, *place, degrees.index(str(d.tp)))]
    assert not root.promising[left].all()


@pytest.fixture(scope="module")
def few_routes():
    """Scenarios with and without limits of routes, and caps of what may stay unserved."""
    few = {"max_routes": [0, 1, 2, 1] * 4, "unmet_cap": [0.3, 0.3, 0.0, 1.0] * 4}
    instances = random_instances(13, SMALL, batch=16, mode="diu", **few)
    return instances.with_fields(tp_speedup=np.tile(instances.fields.tp_speedup, (16, 1)))


@pytest.mark.slow
def test_tight_caps_and_route_limits(few_routes):
    # Whatever is answered is right: a plan within the limits, or no claim.
    instances = few_routes
    least, cost = optima_of(instances)
    found = brackets(instances, gap=1e-3, effort=TREE)
    assert_honest(found, instances, least, cost, 1e-3)
    assert 0 < np.isinf(cost).sum() < 16
    assert found.has_plan[instances.fields.unmet_cap == 1.0].all()


@pytest.mark.slow
@pytest.mark.parametrize("routes", [1, 2])
def test_plans_with_few_routes_are_near_the_optimum(routes):
    instances = default_instances(12, seed=24).with_fields(max_routes=np.array(routes))
    found = brackets(instances, gap=0.01, effort=replace(Effort(), tree_rounds=0))
    best = [solve_instance(instances, b) for b in range(12)]
    assert all(r.status is Status.OPTIMAL for r in best)
    above = np.array([b.upper / r.upper - 1.0 for b, r in zip(found, best, strict=True)])
    below = np.array([1.0 - b.lower / r.upper for b, r in zip(found, best, strict=True)])
    assert (above > -1e-6).all()
    assert (below > -1e-9).all()
    assert above.mean() < 0.015
    assert below.mean() < 0.04, "promises close routes"


@pytest.mark.slow
def test_limits_of_routes_do_not_touch_the_others(few_routes):
    mixed = few_routes.take([0, 1, 4, 2, 7, 8])
    together = brackets(mixed, gap=1e-3, effort=TREE)
    for b in range(6):
        assert_same(brackets(mixed.take([b]), gap=1e-3, effort=TREE), together.take([b]))


def test_nothing_can_be_served_but_all_must(hard):
    instances = hard[0]
    rows = np.arange(16)
    hopeless = instances.take(rows).with_fields(
        unmet_cap=np.zeros(16), gpu_memory=np.zeros((16, 3)), weight_memory=np.full((16, 2), 5.0)
    )
    for f in brackets(hopeless, gap=1e-3, effort=ROOT):
        assert (f.plan, f.cost_by_name, f.upper) == (None, None, math.inf)
        assert f.status in (Status.UNKNOWN, Status.INFEASIBLE)


@pytest.fixture(scope="module")
def default():
    """Scenarios of the default catalogue and their brackets at 1 %."""
    instances = sample("seed", n=4, seed=5)
    effort = Effort(tree_rounds=6)
    return instances, brackets(instances, gap=1e-2, effort=effort, certificates=True), effort


@pytest.mark.slow
def test_default_scenarios(default):
    instances, found, _ = default
    least, cost = optima_of(instances)
    assert_honest(found, instances, least, cost, 1e-2)
    assert (found.gap < 0.03).all()
    assert np.mean(found.upper / cost - 1) < 0.01


@pytest.mark.slow
def test_certificates_cover_every_plan(default):
    """The leaves of a scenario's tree part the plans: their paths are the leaves of one binary tree."""
    _, found, _ = default
    assert (found.nodes > 1).any()
    leaves = found.leaves
    assert leaves is not None
    assert (np.diff(leaves.scenario) >= 0).all()
    for b, f in enumerate(found):
        paths = [tuple(p[p != 0].tolist()) for p in leaves.path[leaves.scenario == b]]
        assert f.nodes == 2 * len(paths) - 1
        assert len(set(paths)) == len(paths)
        assert sum(2.0 ** -len(p) for p in paths) == 1.0
        inner = {p[:n] for p in paths for n in range(len(p))}
        for prefix in inner:
            splits = {p[len(prefix)] for p in paths if p[: len(prefix)] == prefix}
            assert len(splits) == 2
            assert sum(splits) == 0
    of_fleets = {"throughput", "load_adversary", "quota"}
    assert list(leaves.multipliers) == [name for name in Multipliers._fields if name not in of_fleets]
    assert all(a.dtype == np.float32 for a in leaves.multipliers.values())


def test_nothing_recompiles_and_rows_are_their_own(hard):
    instances, _, _, _, tree = hard
    sizes = [p.__wrapped__._cache_size() for p in PROGRAMS]
    rows = [20, 3, 29, 8, 17, 0, 31]
    for some in (rows, rows[2:3]):
        part = brackets(instances.take(some), gap=1e-3, effort=replace(TREE))
        assert_same(part, tree.take(some))
    assert [p.__wrapped__._cache_size() for p in PROGRAMS] == sizes


@pytest.mark.parametrize(("name", "value"), [("gpu_price", math.nan), ("delay_nominal", math.nan)])
def test_bad_scenario_is_an_error_and_its_neighbours_are_unchanged(hard, name, value):
    instances = hard[0].take(np.arange(5))
    # The route limits of the others must not change which programs run.
    instances = instances.with_fields(max_routes=np.array([0, 0, 0, 0, 1]))
    clean = brackets(instances, gap=1e-3, effort=ROOT)
    values = np.array(getattr(instances.fields, name))
    values[2] = value
    bad = replace(instances, fields=instances.fields._replace(**{name: values}))
    found = brackets(bad, gap=1e-3, effort=ROOT)
    assert found[2].status is Status.ERROR
    assert found[2].lower == -math.inf
    assert found[2].plan is None
    assert_same(found.take([0, 1, 3, 4]), clean.take([0, 1, 3, 4]))


def test_a_plan_cheaper_than_what_is_proven_is_an_error(monkeypatch):
    instances = random_instances(14, SMALL, batch=6)
    clean = brackets(instances, gap=1e-3, effort=ROOT)
    row = int(np.flatnonzero(clean.has_plan)[0])
    plans = module.checked_plans

    def cheaper(*args):
        found = plans(*args)
        found.costs[row] *= 0.5
        found.upper[row] *= 0.5
        return found

    monkeypatch.setattr(module, "checked_plans", cheaper)
    found = brackets(instances, gap=1e-3, effort=ROOT)
    assert (found[row].status, found[row].lower, found[row].plan) == (Status.ERROR, -math.inf, None)
    others = np.arange(6) != row
    assert_same(found.take(others), clean.take(others))


def test_effort_is_spent_only_where_needed(hard):
    instances, *_ = hard
    easy = brackets(instances.take(np.arange(16)), gap=0.9, effort=TREE)
    assert easy.nodes.sum() < hard[4].nodes[:16].sum()


def test_an_accelerator_routes_few_deployments_in_one_call(monkeypatch: pytest.MonkeyPatch):
    """It finds the plans of the CPU's many calls: each is as cheap, to the accuracy of a routing."""
    instances = random_instances(3, SMALL, batch=24)
    calls: list[tuple[tuple[int, ...], int]] = []
    real = deployments.run_scenarios

    def count(program, batch, scenario, arrays, size, **options):
        if program is deployments._route_plans:
            calls.append((arrays[0].shape, int(options["iterations"])))
        return real(program, batch, scenario, arrays, size, **options)

    monkeypatch.setattr(deployments, "run_scenarios", count)
    usual = brackets(instances, effort=ROOT)
    narrow = {shape[1] for shape, _ in calls}
    assert {iterations for _, iterations in calls} == {
        ROOT.search.iterations,
        deployments.THOROUGH_ITERATIONS,
    }
    many = len(calls)
    calls.clear()
    monkeypatch.setattr(deployments, "by_device", lambda *, cpu, accelerator: accelerator)
    found = brackets(instances, effort=ROOT)
    np.testing.assert_allclose(found.upper, usual.upper, rtol=2e-5)
    np.testing.assert_array_equal(found.lower, usual.lower)
    assert {iterations for _, iterations in calls} == {deployments.THOROUGH_ITERATIONS}
    assert {shape[1] for shape, _ in calls} <= narrow, "no wider than they need"
    assert len(calls) < many
    monkeypatch.setattr(deployments, "_FEW", 0)
    assert_same(brackets(instances, effort=ROOT), usual)


def test_scenarios_stay_on_a_device_that_has_room(monkeypatch: pytest.MonkeyPatch):
    """33 scenarios are kept as 64, so they take the room of 64."""
    monkeypatch.setattr(scenario_blocks, "by_device", lambda *, cpu, accelerator: accelerator)
    instances = random_instances(3, SMALL, batch=33)
    sent = sum(np.asarray(v).nbytes for v in instances.fields)
    monkeypatch.setattr(scenario_blocks, "_MOST_BYTES_ON_DEVICE", 2 * sent)
    assert scenario_blocks.keep_on_device(instances).size == 64
    monkeypatch.setattr(scenario_blocks, "_MOST_BYTES_ON_DEVICE", 3 * sent // 2)
    assert scenario_blocks.keep_on_device(instances) is instances


def test_rows_taken_on_the_device_are_those_taken_on_the_host(monkeypatch: pytest.MonkeyPatch):
    instances = random_instances(3, SMALL, batch=40)
    usual = brackets(instances, effort=TREE)
    monkeypatch.setattr(scenario_blocks, "by_device", lambda *, cpu, accelerator: accelerator)
    assert scenario_blocks.keep_on_device(instances).size == 64, "few sizes"
    assert_same(brackets(instances, effort=TREE), usual)


@pytest.mark.slow
def test_what_is_compiled_ahead_is_what_brackets_run():
    instances = random_instances(3, (2, 3, 2, 3), batch=5)  # a shape of no other test
    compile_programs(instances)
    programs = [p.__wrapped__ for p in PROGRAMS[:2]]
    compiled = [p._cache_size() for p in programs]
    assert all(compiled)
    brackets(instances, gap=1e-4, effort=Effort(tree_rounds=3))
    assert [p._cache_size() for p in programs] == compiled
