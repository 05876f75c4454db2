"""Accelerators: with each of them off, and with all, the value is the same; and what each of them does is true."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.status import Status
from solvers._accelerators import ALL, Accelerators
from solvers.answers import Answer
from solvers.exact import _solve_with, solve_instance
from solvers.formulation import Beyond, assemble, build
from solvers.highs import run_highs
from solvers.sparse import RANGE
from solvers.terms import collect, tighten
from tests.oracles.instances import default_instances, random_instances, random_plan, scenarios

SMALL = (2, 2, 3, 2)
NAMES = [f.name for f in fields(Accelerators)]

# Each leaves the small scenarios in another regime: promises that need partners, capped demand, one route, budgets of
# the adversary that split the plans, degrees that differ in speed or not.
REGIMES = {
    "promises bind": {"error_threshold": [0.2, 0.25], "delay_threshold": [400.0, 300.0], "gamma_error": 1.5},
    "capped": {"unmet_cap": 0.3, "error_threshold": [0.3, 0.3], "delay_threshold": [2e3, 2e3]},
    "all served": {"unmet_cap": 0.0, "error_threshold": [0.3, 0.3], "delay_threshold": [2e3, 2e3]},
    "one route": {"max_routes": 1, "error_threshold": [0.2, 0.25], "gamma_delay": 0.4},
    "two routes": {"max_routes": 2, "gamma_error": 1.2, "kv_per_token": [0.02, 0.02]},
    "split": {"gamma_delay": 2.0, "gamma_error": 3.0, "kv_per_token": [0.02, 0.02]},
    "split, small GPUs": {"gamma_delay": 2.5, "gamma_error": 2.0, "gpu_compute": [25.0, 40.0, 30.0]},
    "no speed-up": {"tp_speedup": [1.0, 1.0], "gpu_compute": [900.0, 900.0, 900.0]},
    "tight money": {"budget": 45.0},
}


@pytest.mark.parametrize("regime", REGIMES)
def test_no_accelerator_changes_a_value(regime):
    instances = random_instances(list(REGIMES).index(regime), SMALL, **REGIMES[regime])
    expected = _solve_with(Accelerators.none(), instances, 0)
    assert expected.status in (Status.OPTIMAL, Status.INFEASIBLE)
    for use in (ALL, *(replace(ALL, **{name: False}) for name in NAMES)):
        result = _solve_with(use, instances, 0)
        assert result.status == expected.status, (use, result)
        assert result.upper == pytest.approx(expected.upper, rel=1e-6)


@settings(max_examples=25)
@given(scenarios(SMALL))
def test_any_scenario_costs_the_same_without_accelerators(instances):
    with_them, without = solve_instance(instances, 0), _solve_with(Accelerators.none(), instances, 0)
    assert with_them.status == without.status, (with_them, without)
    assert with_them.upper == pytest.approx(without.upper, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"tp_speedup": np.array([1.0, 2.0, 4.0, 8.0]) ** 0.8}, {"max_routes": 1}, {"gamma_delay": 3.0}],
)
def test_default_scenarios_cost_the_same_without_accelerators(corrected, changes):
    instances = default_instances(1, seed=11, corrected=corrected).with_fields(**changes)
    with_them, without = solve_instance(instances, 0), _solve_with(Accelerators.none(), instances, 0)
    assert with_them.status == without.status == Status.OPTIMAL
    assert with_them.upper == pytest.approx(without.upper, rel=1e-6)


def test_each_accelerator_does_something(asked):
    instances = default_instances(1, seed=3)
    slow = instances.with_fields(gamma_delay=3.0, gamma_error=3.0)

    def sizes(instances, **off):
        asked.clear()
        _solve_with(replace(ALL, **off), instances, 0, gap=1e-4)
        return [(len(f.triple), len(f.cost), options) for f, options in asked]

    quick = sizes(instances)
    assert max(t for t, *_ in quick) < 60
    assert quick[0][2]["mip_heuristic_run_rins"] is False
    assert "mip_heuristic_run_rins" not in sizes(instances, options=False)[0][2]
    assert sizes(instances, pricing=False)[0][0] == 180
    assert sizes(instances, core=False)[0][0] > quick[0][0]
    whole = sizes(instances, core=False, split=False)
    assert whole[0][1] > sizes(instances, core=False)[0][1], "variables of the worst case"
    assert any(f.columns.nothing.stop for f, _ in (sizes(slow), asked)[1]), (
        "more pairs than the adversary's budget"
    )
    limited = instances.with_fields(max_routes=1)
    assert sizes(limited, pricing=False)[0][1] < sizes(limited, pricing=False, tightened=False)[0][1]


def test_bracket_closed_by_the_relaxation_asks_for_no_milp(asked):
    instances = default_instances(1, seed=3)
    plan = solve_instance(instances, 0).plan
    asked.clear()
    result = solve_instance(
        instances, 0, gap=0.05, start=Answer.of(instances.names, Status.UNKNOWN, plan=plan)
    )
    assert result.status == Status.GAP_LIMIT
    assert asked == []


@settings(max_examples=40)
@given(scenarios((2, 2, 2, 3)), st.integers(0, 10**6))
def test_plans_keep_the_tightened_shares(instances, seed):
    terms = collect(instances, 0)
    tight = tighten(terms)
    assert (tight.most <= terms.most).all()
    where = {tuple(t): p for p, t in enumerate(terms.triple.tolist())}
    rng = np.random.default_rng(seed)
    degrees = instances.axis_names("N")
    for _ in range(30):
        plan = random_plan(rng, instances, instance=0, pairs=3)
        if not check_plan(plan, instances, 0).feasible:
            continue
        tp = {(d.model, d.gpu): degrees.index(str(d.tp)) for d in plan.deployments}
        for r in plan.routes:
            j, k = instances.model_names.index(r.model), instances.gpu_names.index(r.gpu)
            t = where[j, k, tp[r.model, r.gpu]]
            assert r.share <= tight.most[instances.query_names.index(r.query), t] + 1e-6


def test_a_partner_is_needed_for_what_breaks_a_promise_alone():
    # Worst errors 0.3 and 0.1 against a promise of 0.2: at most half may go to the first.
    instances = random_instances(
        0, (1, 2, 1, 1), error_nominal=[[[0.3], [0.1]]], error_deviation=np.zeros((1, 2, 1)),
        error_threshold=[0.2], delay_threshold=[1e9], gpu_memory=[1e6], gpu_compute=[1e9], budget=1e9,
    )  # fmt: skip
    assert tighten(collect(instances, 0)).most.tolist() == [[pytest.approx(0.5, rel=1e-5), 1.0]]
    alone = instances.with_fields(max_routes=1)
    assert tighten(collect(alone, 0)).most.tolist() == [[0.0, 1.0]]


@settings(max_examples=40)
@given(scenarios(SMALL))
def test_coefficients_of_a_milp_span_six_decades(instances):
    formulation = build(instances, 0)
    sizes = np.abs(formulation.value)
    row = np.repeat(np.arange(len(formulation.row_lower)), np.diff(formulation.start))
    for r in range(len(formulation.row_lower)):
        mine = sizes[row == r]
        if len(mine):
            assert mine.max() <= 1.0 + 1e-12
            assert mine.min() >= mine.max() / RANGE * (1 - 1e-12)


def test_matrix_of_default_scenarios_spans_six_decades():
    for corrected in (False, True):
        sizes = np.abs(build(default_instances(1, seed=3, corrected=corrected), 0).value)
        assert sizes.max() / sizes.min() <= RANGE * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_many_pairs_or_the_way_out(seed):
    # The cheapest plan of more than two pairs, or the way out where that is cheaper.
    instances = random_instances(
        seed, SMALL, kv_per_token=[0.02, 0.02], gamma_delay=1.5, budget=1e6, storage_capacity=1e6
    )
    terms = collect(instances, 0)
    dear = run_highs(assemble(terms, 3, beyond=Beyond(2, 1e6)), mip_rel_gap=1e-7)
    assert dear.columns[: len(terms.pair)].round().sum() == 3
    assert dear.columns[-1] == pytest.approx(0.0, abs=1e-6)
    best = solve_instance(instances, 0).upper
    assert dear.objective > best * (1 - 1e-6)
    cheap = run_highs(assemble(terms, 3, beyond=Beyond(2, 0.99 * best)), mip_rel_gap=1e-7)
    assert cheap.columns[-1] == pytest.approx(1.0)
    assert cheap.bound == pytest.approx(0.99 * best)
