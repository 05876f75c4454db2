"""The exact solver: what each status promises, what it answers when HiGHS is wrong, metamorphic relations."""

import math
import subprocess
import sys
from dataclasses import replace

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import FIELD_SPECS, UNCERTAINTY_MODES
from rodiu_jax.model.instance import make_instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from solvers import exact
from solvers._accelerators import Accelerators
from solvers.exact import _solve_with, solve_instance
from solvers.formulation import build
from solvers.highs import HighsAnswer, SolverFailed, run_highs
from tests.oracles.instances import default_instances, random_instances, random_plan, reordered

SMALL = (2, 2, 3, 2)
KIND = highspy.HighsModelStatus


@pytest.fixture(scope="module")
def default():
    """One scenario of the seed catalogue and its optimum."""
    instances = default_instances(1, seed=3)
    return instances, solve_instance(instances, 0)


def assert_honest(result, instances, b=0):
    """What every result promises, whatever its status."""
    if result.plan is None:
        assert (result.upper, result.cost_by_name) == (math.inf, None)
    else:
        verdict = check_plan(result.plan, instances, b)
        assert verdict.feasible
        assert result.cost_by_name == verdict.costs
        assert result.upper == verdict.costs["total_cost"]
        assert result.lower <= result.upper
    if result.status == Status.OPTIMAL:
        assert result.gap <= OPTIMAL_GAP
    assert result.seconds >= 0
    assert (result.message != "") == (result.status == Status.ERROR)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(UNCERTAINTY_MODES), st.sampled_from([0.3, 0.8, 1.0]))
def test_bound_is_below_every_feasible_plan(seed, mode, cap):
    instances = random_instances(seed, SMALL, mode=mode, unmet_cap=cap, error_threshold=[0.2, 0.2])
    result = solve_instance(instances, 0)
    assert_honest(result, instances)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        verdict = check_plan(random_plan(rng, instances, instance=0), instances, 0)
        assert not verdict.feasible or result.lower <= verdict.costs["total_cost"] * (1 + 1e-6)


def test_optimal(default):
    instances, result = default
    assert result.status == Status.OPTIMAL
    assert_honest(result, instances)


def test_scenarios_of_a_batch_are_solved_apart():
    batch = random_instances(7, SMALL, batch=3)
    for b in range(3):
        result = solve_instance(batch, b)
        assert result.upper == solve_instance(batch.take([b]), 0).upper
    with pytest.raises(InputError, match="got 3"):
        solve_instance(batch, 3)


def test_gap_limit(default):
    instances, best = default
    result = solve_instance(instances, 0, gap=0.2)
    assert result.status == Status.GAP_LIMIT
    assert OPTIMAL_GAP < result.gap <= 0.2
    assert result.lower <= best.upper * (1 + 1e-6)
    assert best.lower <= result.upper
    assert_honest(result, instances)


@pytest.mark.parametrize("scale", [1e-11, 1e-6, 1e9])
def test_scaling_money_scales_cost(default, scale):
    instances, best = default
    money = ("gpu_price", "storage_price", "delay_penalty", "unmet_penalty", "budget")
    scaled = {n: scale * np.asarray(getattr(instances.fields, n)) for n in money}
    result = solve_instance(instances.with_fields(**scaled), 0)
    assert result.status == Status.OPTIMAL
    assert result.upper == pytest.approx(scale * best.upper, rel=2e-6, abs=0.0)
    assert result.lower == pytest.approx(scale * best.upper, rel=2e-6, abs=0.0)


@pytest.mark.parametrize("seconds", [0.001, 0.02])
def test_time_limit(default, seconds):
    instances, best = default
    result = solve_instance(instances, 0, time_limit=seconds)
    assert result.status == Status.TIME_LIMIT or seconds > 0.001, "nobody is done in a millisecond"
    assert result.status in (Status.TIME_LIMIT, Status.OPTIMAL)
    assert result.plan is not None, "serving nothing is known from the start"
    assert result.lower <= best.upper <= result.upper * (1 + 1e-6)
    assert_honest(result, instances)


@pytest.mark.parametrize(
    "change",
    [{"budget": 1e9}, {"gamma_delay": 1e-30}, {"gpu_memory": [1e9] * 10}, {"delay_threshold": [1e12] * 6}],
)
def test_coefficients_that_nearly_vanish(default, change):
    # HiGHS warns of coefficients below 1e-9; a rich budget must not turn every scenario into an error.
    instances, _ = default
    result = solve_instance(instances.with_fields(**change), 0, gap=0.05)
    assert result.status in (Status.OPTIMAL, Status.GAP_LIMIT), result.message
    assert_honest(result, instances.with_fields(**change))


@pytest.mark.parametrize("tiny", [1e-308, 1e-200, 1e-30])
@pytest.mark.parametrize("name", ["gamma_delay", "delay_penalty", "gpu_price", "token_size"])
def test_values_near_zero_are_zero(tiny, name):
    # HiGHS took costs of 1e-306 for a reason to serve nothing, and called that optimal.
    instances = random_instances(0, SMALL, delay_threshold=[150.0, 250.0])
    small = np.full_like(getattr(instances.one(0), name), tiny)
    expected = cost(instances.with_fields(**{name: 0.0 * small}))
    assert cost(instances.with_fields(**{name: small})) == pytest.approx(expected, rel=2e-6, abs=1e-6)


def test_time_limit_without_a_plan(default):
    instances, best = default
    result = solve_instance(instances.with_fields(unmet_cap=0.1), 0, time_limit=0.001)
    assert result.status == Status.TIME_LIMIT
    assert result.plan is None
    assert result.lower <= best.upper * 1.01
    assert_honest(result, instances)


HOPELESS = {
    "delays": {"delay_threshold": [0.0, 0.0], "unmet_cap": 0.999},
    "errors": {"error_threshold": [0.0, 0.2], "unmet_cap": 0.0},
    "money": {"budget": 0.0, "unmet_cap": 0.5},
    "memory": {"gpu_memory": [0.0, 0.0, 0.0], "unmet_cap": 0.5},
    "memory of the cache": {"kv_per_token": [1.0, 1.0], "unmet_cap": 0.1},
    "storage": {"storage_capacity": 0.0, "unmet_cap": 0.9},
    "compute": {"compute_per_token": [1e3, 1e3], "unmet_cap": 0.1},
}


@pytest.mark.parametrize("fields", HOPELESS.values(), ids=HOPELESS.keys())
@pytest.mark.parametrize("most", [0, 1])
def test_infeasible(fields, most):
    result = solve_instance(random_instances(0, SMALL, max_routes=most, **fields), 0)
    assert (result.status, result.lower, result.upper, result.plan) == (
        Status.INFEASIBLE,
        math.inf,
        math.inf,
        None,
    )
    assert math.isnan(result.gap)


def test_infeasible_needs_the_second_proof(monkeypatch):
    instances = random_instances(0, SMALL, budget=0.0, unmet_cap=0.5)
    monkeypatch.setattr(exact, "_proven_infeasible", lambda *_: False)
    result = solve_instance(instances, 0)
    assert (result.status, result.lower) == (Status.ERROR, -math.inf)
    assert "does not confirm" in result.message


def test_no_time_for_the_second_proof(monkeypatch):
    def late(self):
        self.deadline = -math.inf
        return False  # HiGHS says that there is no plan

    monkeypatch.setattr(exact._Search, "run", late)
    result = solve_instance(random_instances(0, SMALL, budget=0.0, unmet_cap=0.5), 0)
    assert (result.status, result.plan) == (Status.TIME_LIMIT, None)


EASY = {"error_threshold": [0.3, 0.3], "delay_threshold": [2e3, 2e3], "kv_per_token": [1e-4, 1e-4]}


@pytest.mark.parametrize("cap", [1.0, 0.5])
def test_wrongly_infeasible_is_an_error(monkeypatch, cap):
    # The second computation, which minimises the excess over the cap, still runs for real and finds none.
    real = exact.run_highs

    def wrong(formulation, **options):
        if options.get("mip_rel_gap") == 0.5:
            return real(formulation, **options)
        return HighsAnswer(KIND.kInfeasible, None, math.inf, math.inf)

    monkeypatch.setattr(exact, "run_highs", wrong)
    result = solve_instance(random_instances(0, SMALL, unmet_cap=cap, **EASY), 0)
    assert (result.status, result.lower) == (Status.ERROR, -math.inf)
    assert result.plan is None or (cap == 1.0 and result.plan.deployments == ()), "serving nothing is known"
    assert "infeasible" in result.message


def _altered(monkeypatch, change):
    """Let HiGHS's answer to the MILP pass through ``change``; the routing LP stays as it is."""
    real = exact.run_highs

    def wrong(formulation, **options):
        answer = real(formulation, **options)
        return change(formulation, answer) if formulation.integer.any() else answer

    monkeypatch.setattr(exact, "run_highs", wrong)
    return random_instances(0, SMALL, unmet_cap=0.5, **EASY)


def test_bound_above_the_cost_is_an_error(monkeypatch):
    instances = _altered(monkeypatch, lambda _, a: replace(a, bound=a.bound * 1.001))
    result = solve_instance(instances, 0)
    assert result.status == Status.ERROR
    assert result.lower == -math.inf
    assert "above the cost" in result.message


@pytest.mark.parametrize("bound", [-math.inf, math.nan])
def test_bound_that_proves_nothing_is_never_optimal(monkeypatch, bound):
    best = solve_instance(random_instances(0, SMALL, unmet_cap=0.5, **EASY), 0)
    instances = _altered(monkeypatch, lambda _, a: replace(a, bound=bound))
    for use in (Accelerators(), Accelerators.none()):
        result = _solve_with(use, instances, 0)
        assert result.status == Status.ERROR
        assert result.lower < best.upper * 0.99, "what the dual function proves, or nothing"


def test_columns_that_serve_too_little_are_an_error(monkeypatch):
    instances = _altered(monkeypatch, lambda _, a: replace(a, columns=np.zeros_like(a.columns)))
    result = solve_instance(instances, 0)
    assert (result.status, result.plan, result.upper) == (Status.ERROR, None, math.inf)
    assert "failed the check" in result.message


def test_worse_plan_than_claimed_is_an_error(monkeypatch):
    # The first deployed triple is left out of the columns: the plan is worse than the optimum HiGHS claims.
    def drop_one(formulation, answer):
        columns = answer.columns.copy()
        gone = np.flatnonzero(columns[formulation.columns.deployed] > 0.5)[0]
        columns[gone] = 0.0
        return replace(answer, columns=columns)

    instances = _altered(monkeypatch, drop_one).with_fields(unmet_cap=1.0)
    result = solve_instance(instances, 0)
    assert result.status == Status.ERROR
    assert "wider than" in result.message
    assert result.lower <= result.upper


def test_plan_that_fails_the_check_is_never_reported(monkeypatch):
    instances = random_instances(0, SMALL, **EASY)
    broken = Plan(0, (), (), {"q0": 1.0})  # type q1 is neither served nor counted as unmet
    monkeypatch.setattr(exact, "route", lambda *_: broken)
    result = solve_instance(instances, 0)
    assert (result.status, result.plan.deployments) == (Status.ERROR, ()), "serving nothing is known"
    assert "demand[q1] is broken" in result.message


@pytest.mark.parametrize("status", [KIND.kUnknown, KIND.kUnbounded, KIND.kIterationLimit, KIND.kInterrupt])
def test_other_endings_are_errors(monkeypatch, status):
    instances = _altered(monkeypatch, lambda _, a: replace(a, status=status))
    result = solve_instance(instances, 0)
    assert result.status == Status.ERROR
    assert str(status) in result.message


def test_refusals_of_highs_become_a_status(monkeypatch):
    def refuse(*_, **__):
        raise SolverFailed("HiGHS answered kError to the model")

    monkeypatch.setattr(exact, "run_highs", refuse)
    result = solve_instance(random_instances(0, SMALL), 0)
    assert (result.status, result.message) == (Status.ERROR, "HiGHS answered kError to the model")


def test_scenario_that_presolve_called_infeasible():
    # HiGHS 1.16 with MIP presolve says that no plan exists; serving nothing is one. The optimum is 1173.46
    # with presolve off, and with its forcing rows or its probing off.
    changes = {"max_routes": 2, "gamma_delay": 0.5, "gamma_error": 10.0}
    instances = random_instances(738, (3, 3, 3, 3), mode="diu", **changes)
    result = solve_instance(instances, 0)
    assert result.status == Status.OPTIMAL
    assert result.upper == pytest.approx(1173.464958576)
    assert solve_instance(instances.with_fields(unmet_cap=0.1), 0).status == Status.INFEASIBLE


def test_refused_option_raises():
    formulation = build(random_instances(0, SMALL), 0)
    for bad in ({"no_such_option": 1}, {"solver": "no such solver"}, {"mip_rel_gap": -1.0}):
        with pytest.raises(SolverFailed, match="option"):
            run_highs(formulation, **bad)


def test_relaxation_is_below_the_optimum(default):
    instances, best = default
    answer = run_highs(build(instances, 0), relax=True)
    assert answer.status == KIND.kOptimal
    assert 0.9 * best.upper < answer.bound <= best.upper * (1 + 1e-7)


def test_nothing_is_printed():
    code = (
        "from tests.oracles.instances import random_instances\n"
        "from solvers.exact import _solve_with, solve_instance\n"
        "assert solve_instance(random_instances(0, (2, 2, 3, 2)), 0).status.word == 'optimal'\n"
        "print('only this')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT)
    assert (done.stdout, done.stderr) == ("only this\n", "")


_ROOT = __file__.rsplit("tests", 1)[0]


# Relations between optima. Each side is exact to 1e-6, hence the slack.
SLACK = 1 + 3e-6


def cost(instances):
    result = solve_instance(instances, 0)
    assert result.status == Status.OPTIMAL, result
    return result.upper


@pytest.mark.parametrize("seed", range(5))
def test_order_of_names_changes_nothing(seed):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02], max_routes=seed % 2)
    first, second = (
        solve_instance(i, 0) for i in (instances, reordered(instances, ([1, 0], [1, 0], [2, 0, 1])))
    )
    assert second.upper == pytest.approx(first.upper, rel=2e-6)
    assert second.plan.summary() == first.plan.summary()
    assert second.plan.unmet == pytest.approx(first.plan.unmet, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_names_themselves_change_nothing(seed):
    instances = random_instances(seed, SMALL)
    values = instances.fields._asdict()
    renamed = make_instances(["z", "a"], ["ü b", "x"], ["3", "2", "1"], "ddu", values)
    first, second = solve_instance(instances, 0), solve_instance(renamed, 0)
    assert second.upper == first.upper
    as_new = dict(zip(("m0", "m1", "g0", "g1", "g2"), ("ü b", "x", "3", "2", "1"), strict=True))
    moved = {(as_new[d.model], as_new[d.gpu], d.tp) for d in first.plan.deployments}
    assert {(d.model, d.gpu, d.tp) for d in second.plan.deployments} == moved


@pytest.mark.parametrize("seed", range(5))
def test_cents_scale_costs_and_leave_the_plan(seed):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02])
    money = ("gpu_price", "storage_price", "delay_penalty", "unmet_penalty", "budget")
    assert all("$" in FIELD_SPECS[n].unit for n in money)
    assert sum("$" in spec.unit for spec in FIELD_SPECS.values()) == len(money)
    cents = instances.with_fields(**{n: 100.0 * getattr(instances.fields, n) for n in money})
    first, second = solve_instance(instances, 0), solve_instance(cents, 0)
    assert second.costs == pytest.approx(100.0 * first.costs, rel=1e-5, abs=1e-4)
    assert second.upper == pytest.approx(100.0 * first.upper, rel=2e-6)
    assert second.plan.summary() == first.plan.summary()


@settings(max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["gamma_delay", "gamma_error"]),
    st.floats(0.0, 2.5),
    st.floats(0.0, 2.5),
)
def test_lower_gamma_never_costs_more(seed, name, one, other):
    low, high = sorted((one, other))
    instances = random_instances(seed, SMALL, delay_threshold=[150.0, 250.0])
    assert cost(instances.with_fields(**{name: low})) <= cost(instances.with_fields(**{name: high})) * SLACK


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_modes_are_ordered(seed):
    instances = random_instances(seed, SMALL, delay_threshold=[150.0, 250.0], gamma_delay=1.5)
    none, ddu, diu = (cost(instances.with_uncertainty(mode)) for mode in ("none", "ddu", "diu"))
    assert none <= ddu * SLACK
    assert ddu <= diu * SLACK


@settings(max_examples=15)
@given(
    st.integers(0, 10**6), st.sampled_from(["budget", "storage_capacity", "delay_threshold", "gpu_memory"])
)
def test_wider_limits_never_cost_more(seed, name):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02])
    wider = instances.with_fields(**{name: 1.3 * getattr(instances.fields, name)})
    assert cost(wider) <= cost(instances) * SLACK


def test_relations_are_not_empty():
    # The uncertainty does cost something in these scenarios; else the relations above would hold trivially.
    instances = random_instances(4, SMALL, delay_threshold=[150.0, 250.0], gamma_delay=1.5)
    none, ddu, diu = (cost(instances.with_uncertainty(mode)) for mode in ("none", "ddu", "diu"))
    assert none * 1.001 < ddu
    assert ddu * 1.001 < diu


def test_a_share_within_tolerance_is_no_route():
    # HiGHS gave a type a third route with a share of 1e-7 although two were allowed, and the plan failed its check.
    instances = sample("seed", n=64, seed=5).take([24]).with_fields(max_routes=2)
    result = solve_instance(instances, 0, gap=1e-4)
    assert result.status in (Status.OPTIMAL, Status.GAP_LIMIT)
    assert result.upper == pytest.approx(1668.1126816613669, rel=1e-6)
