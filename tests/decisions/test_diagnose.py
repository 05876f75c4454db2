"""Diagnosis of a scenario: programs against HiGHS, prices against differences, ranges and entries solved again."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from rodiu_jax.certificates import dual_values
from rodiu_jax.decisions.diagnose.diagnosis import adjustments_of, diagnose
from rodiu_jax.decisions.diagnose.idle_gpus import find_entries
from rodiu_jax.decisions.diagnose.linear_programs import (
    LinearOptimum,
    prove,
    relax_deployment,
    route_deployment,
    routes_allowed,
)
from rodiu_jax.decisions.diagnose.movable_limits import limits, variants
from rodiu_jax.decisions.diagnose.resolve import Resolver
from rodiu_jax.decisions.diagnose.serve_all import serve_everyone
from rodiu_jax.decisions.diagnose.shadow_prices import find_shadow_prices, tolerance
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.report.text.diagnosis_section import write_sentences
from rodiu_jax.runtime.progress import progress
from solvers.answers import Answer
from solvers.dual import Multipliers
from solvers.exact import solve_instance
from solvers.formulation import build
from solvers.highs import run_highs
from tests.cli.calls import Ran, Run
from tests.golden import Golden, numbers
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import default_instances, random_instances


def solve_here(
    instances: Instances, indices: Sequence[int], *, gap: float, starts: Sequence[Answer | None]
) -> Iterator[Answer]:
    for b, start in zip(indices, starts, strict=True):
        yield solve_instance(instances, b, gap=gap, start=start)


def resolver_of(instances: Instances, b: int = 0) -> Resolver:
    with progress("test", 1, quiet=True) as bar:
        return Resolver(instances, b, solve_here, bar)


def optimum(instances: Instances, b: int = 0) -> tuple[Plan, float]:
    result = solve_instance(instances, b)
    assert result.plan is not None
    return result.plan, result.upper


def witnessed(instances: Instances, b: int, y: Multipliers, deployed: np.ndarray | None = None) -> float:
    """What the independent dual function proves at multipliers: of all plans, or of those with this deployment."""
    _, models, gpus, degrees = instances.shape
    path = np.zeros(0, np.int64)
    if deployed is not None:
        number = (deployed[:, 0] * gpus + deployed[:, 1]) * degrees + deployed[:, 2] + 1
        path = -np.arange(1, models * gpus * degrees + 1)
        path[number - 1] = number
    head = np.concatenate([y.demand, y.delay, y.error, [y.budget, y.storage]])
    by_pair = np.concatenate([y.memory, y.compute, y.delay_adversary.T, y.error_adversary.T], axis=1)
    leaf = path, np.arange(models * gpus), np.concatenate([head, by_pair.ravel()])
    with np.errstate(invalid="ignore"):
        return float(dual_values(instances, np.array([b]), [leaf])[0])


CASES = {
    "tiny": lambda: random_instances(3, (3, 2, 3, 2), batch=4),
    "fractional budgets of uncertainty": lambda: random_instances(
        4, (3, 2, 3, 2), batch=4, gamma_delay=0.5, gamma_error=1.3
    ),
    "two routes": lambda: random_instances(5, (3, 2, 3, 2), batch=3, max_routes=2, gamma_delay=1.5),
    "diu": lambda: random_instances(6, (2, 3, 2, 3), batch=3, mode="diu"),
    "none": lambda: random_instances(6, (2, 3, 2, 3), batch=2, mode="none"),
    "default": lambda: default_instances(1),
    "corrected": lambda: default_instances(1, corrected=True),
}


@pytest.mark.parametrize("case", CASES)
def test_linear_programs_are_those_of_the_formulation_and_certified(case: str):
    instances = CASES[case]()
    for b in range(instances.size):
        relaxed = relax_deployment(instances, b)
        assert relaxed.multipliers is not None
        highs = run_highs(build(instances, b), relax=True).bound
        if case != "two routes":  # the formulation has binaries for the routes
            assert relaxed.value == pytest.approx(highs, rel=1e-8)
        assert relaxed.value <= highs * (1 + 1e-8)
        proven = float(prove(instances, b, relaxed.multipliers).bound)
        assert witnessed(instances, b, relaxed.multipliers) == pytest.approx(proven, rel=1e-9)
        assert relaxed.value * (1 - 1e-8) <= proven <= relaxed.value * (1 + 1e-8)
        plan, cost = optimum(instances, b)
        assert proven <= cost * (1 + 1e-9)
        deployed = deployed_triples(instances, plan.deployments)
        routing = route_deployment(instances, b, deployed, routes_allowed(instances, b, plan))
        assert routing.multipliers is not None
        assert routing.value == pytest.approx(cost, rel=1e-7)
        proven = witnessed(instances, b, routing.multipliers, deployed)
        assert proven <= routing.value * (1 + 1e-9)
        if case != "two routes":  # the dual function does not know which routes are allowed
            assert proven == pytest.approx(routing.value, rel=1e-8)


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("case", ["tiny", "fractional budgets of uncertainty", "diu", "default"])
def test_prices_are_the_slopes_of_the_optimum(case: str, relaxed: bool):
    instances = CASES[case]()
    compared = 0
    for b in range(instances.size):
        plan, cost = optimum(instances, b)
        deployed = deployed_triples(instances, plan.deployments)

        def solve(scenarios: Instances, v: int, deployed: np.ndarray = deployed) -> LinearOptimum:
            return relax_deployment(scenarios, v) if relaxed else route_deployment(scenarios, v, deployed)

        here = solve(instances, b)
        fields = instances.one(b)
        for limit in limits(instances):
            value = limit.value(fields)
            step = 1e-4 * value
            ends = [value - step, min(value + step, limit.highest)]
            there = variants(instances, b, [limit.at(fields, end) for end in ends])
            down, up = (solve(there, v).value for v in range(2))
            below = (down - here.value) / (value - ends[0])
            above = (here.value - up) / (ends[1] - value) if ends[1] > value else 0.0
            slope, room = here.price(limit), 1e-6 * cost / value
            assert slope >= -1e-12
            assert slope <= below * (1 + 1e-2) + room, (limit, below, slope, above)
            if ends[1] > value:
                assert slope >= above * (1 - 1e-2) - room, (limit, below, slope, above)
            compared += slope > room
    assert compared > 0


def drawn_cases() -> list[tuple[str, Instances, int]]:
    tiny = random_instances(21, (3, 2, 3, 2), batch=5, unmet_penalty=np.full(3, 6.0))
    tight = random_instances(22, (3, 2, 3, 2), batch=3, mode="diu", gamma_error=1.0, unmet_cap=0.9)
    return [("tiny", tiny, b) for b in range(5)] + [("tight", tight, b) for b in range(3)]


@pytest.mark.slow
def test_shadow_prices_predict_the_resolved_optimum_within_their_range():
    rng = np.random.default_rng(0)
    seen = 0
    for name, instances, b in drawn_cases():
        result = solve_instance(instances, b)
        if result.plan is None:
            continue
        resolver = resolver_of(instances, b)
        fields = instances.one(b)
        for s in find_shadow_prices(resolver, result.plan, result.upper, relax_deployment(instances, b)):
            assert s.holds_from <= s.value <= s.holds_to
            for value in rng.uniform(s.holds_from, s.holds_to, 2) if s.holds_to > s.holds_from else ():
                (there,) = resolver([s.limit.at(fields, value)])
                change = (value - s.value) * s.price
                slack = tolerance(result.upper, change)
                assert there.lower - slack <= result.upper - change <= there.upper + slack, (
                    name,
                    b,
                    s,
                )
                seen += 1
            for w in s.witnesses:
                slack = tolerance(result.upper, w.predicted - result.upper)
                assert w.lower - slack <= w.predicted <= w.upper + slack
    assert seen >= 12


def test_idle_gpus_enter_at_their_price_and_not_before():
    entered = certified_cuts = 0
    for seed in range(6):
        instances = random_instances(seed, (2, 1, 4, 2), unmet_penalty=np.full(2, 6.0))
        plan, cost = optimum(instances)
        resolver = resolver_of(instances)
        prices = np.asarray(instances.one(0).gpu_price)
        hours = float(instances.one(0).rental_hours)
        rented = {d.gpu for d in plan.deployments}
        found = find_entries(resolver, plan, cost, relax_deployment(instances, 0))
        assert {e.gpu for e in found} == set(instances.gpu_names) - rented

        def at(gpu: str, cut: float) -> float:
            moved = prices.copy()  # noqa: B023
            moved[instances.gpu_names.index(gpu)] -= cut  # noqa: B023
            return cheapest(variants(instances, 0, [{"gpu_price": moved}]), 0)  # noqa: B023

        for e in found:
            assert e.certified <= e.cheaper_to
            if np.isfinite(e.certified):
                certified_cuts += e.certified > 0
                assert at(e.gpu, 0.999 * e.certified) >= cost * (1 - 1e-6)
            if np.isfinite(e.cheaper_to):
                entered += 1
                assert 0 <= e.cheaper_from <= e.cheaper_to <= e.price
                assert e.cheaper_to - e.cheaper_from <= 0.02 * e.price
                assert e.gpu in e.deployments
                assert at(e.gpu, e.cheaper_from) >= cost * (1 - 1e-5)
                further = min(1e-3 * cost / hours, e.price - e.cheaper_to)
                if further > 0:
                    assert at(e.gpu, e.cheaper_to + further) < cost
            else:
                assert e.reason
                assert at(e.gpu, e.price) >= cost * (1 - 1e-5)
    assert entered >= 3
    assert certified_cuts >= 1


def test_the_smallest_change_that_serves_everyone_does_and_less_does_not():
    instances = random_instances(8, (3, 2, 3, 2), budget=30.0)
    plan, cost = optimum(instances)
    assert any(plan.unmet.values())
    found = serve_everyone(resolver_of(instances), plan, cost, cost)
    assert found.unmet == {q: u for q, u in plan.unmet.items() if u > 1e-9}
    reached = [lever for lever in found.levers if np.isfinite(lever.enough)]
    assert reached
    assert [lever.enough for lever in reached] == sorted(lever.enough for lever in reached)
    served = {"unmet_cap": np.array(0.0)}
    for lever in reached:
        value = np.asarray(getattr(instances.one(0), lever.field))
        below, above = (served | {lever.field: value * factor} for factor in (lever.not_at, lever.enough))
        assert lever.not_at <= lever.enough <= lever.not_at * 1.01
        there = variants(instances, 0, [below, above])
        assert cheapest(there, 0) == np.inf
        assert cheapest(there, 1) <= lever.cost * (1 + 1e-9)


def test_serving_everyone_within_the_limits_has_a_price():
    instances = random_instances(
        9, (2, 2, 2, 2), unmet_penalty=np.full(2, 1e-4), error_threshold=np.full(2, 0.9), gpu_memory=np.full(2, 500.0),
        delay_threshold=np.full(2, 2000.0), gpu_compute=np.full(2, 900.0), budget=900.0, storage_capacity=900.0,
    )  # fmt: skip
    plan, cost = optimum(instances)
    assert any(plan.unmet.values())
    found = serve_everyone(resolver_of(instances), plan, cost, cost)
    exact = cheapest(variants(instances, 0, [{"unmet_cap": np.array(0.0)}]), 0) - cost
    assert found.levers == []
    assert found.extra_lower == pytest.approx(exact, rel=1e-4)
    assert found.extra_upper == pytest.approx(exact, rel=1e-4)


def test_adjustments_are_the_seeds():
    fields = random_instances(0, (2, 2, 2, 1), budget=3000.0, gamma_delay=10.0).one(0)
    changes = adjustments_of(fields)
    assert list(adjustments_of(fields._replace(gamma_delay=np.array(0.0)))) == list(changes)[:3]
    assert list(changes) == [
        "budget 3,000 -> 5,000",
        "delay thresholds x1.5 and error thresholds x1.2",
        "unmet penalty x0.1",
        "Gamma_d 10 -> 5",
    ]
    assert changes["budget 3,000 -> 5,000"]["budget"] == 5000
    assert changes["Gamma_d 10 -> 5"]["gamma_delay"] == 5
    np.testing.assert_allclose(changes["unmet penalty x0.1"]["unmet_penalty"], 0.1 * fields.unmet_penalty)
    promises = changes["delay thresholds x1.5 and error thresholds x1.2"]
    np.testing.assert_allclose(promises["delay_threshold"], 1.5 * fields.delay_threshold)
    np.testing.assert_allclose(promises["error_threshold"], 1.2 * fields.error_threshold)


def test_adjustments_that_save_nothing_keep_their_order():
    """Whatever a solver's last digits say of them."""
    instances = random_instances(12, (2, 2, 3, 2), batch=2, budget=60.0)
    found = diagnose(instances, 1, workers=1)
    idle = [a.name for a in found.adjustments if a.saving_upper <= 1e-6 * found.answer.upper]
    assert len(idle) >= 2
    asked = list(adjustments_of(instances.one(1)))
    assert idle == sorted(idle, key=asked.index)


def test_a_whole_diagnosis_and_its_command(tmp_path: Any, rodiu: Run, golden: Golden):
    instances = random_instances(12, (2, 2, 3, 2), batch=2, budget=60.0)
    found = diagnose(instances, 1, workers=1)
    assert found.answer.has_plan
    assert check_plan(found.answer.plan, instances, 1).feasible
    assert found.relaxation <= found.answer.upper
    savings = [round(a.saving_lower, 6) for a in found.adjustments]
    assert savings == sorted(savings, reverse=True)
    for a in found.adjustments:
        change = adjustments_of(instances.one(1))[a.name]
        exact = cheapest(variants(instances, 1, [change]), 0)
        assert a.lower_bound * (1 - 1e-9) <= exact <= a.upper_bound * (1 + 1e-6)
        assert a.saving_lower - 1e-4 <= found.answer.upper - exact <= a.saving_upper + 1e-4
    assert numbers(write_sentences(found)[0])[:2] == [1, round(found.answer.upper, 2)]

    instances.save(tmp_path / "f.npz")
    (instances.with_fields(unmet_cap=0.0, budget=0.1)).save(tmp_path / "none.npz")

    def run(name: str, *args: str) -> Ran:
        return rodiu("diagnose", tmp_path / name, "--workers", 1, *args)

    code, out, err = run("f.npz", "--index", "1", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["instance"] == 1
    assert {"constraint", "name", "shadow_price", "unit"} <= told["binding"][0].keys()
    keys = {"name", "lower_bound", "upper_bound", "saving_lower", "saving_upper"}
    assert all(keys <= a.keys() for a in told["adjustments"])
    assert len(told["adjustments"]) == 4
    code, out, err = run("none.npz", "--index", "0")
    assert (code, err) == (0, "")
    golden("decisions/diagnose-no-plan", out, numbers=False)
    code, out, err = run("f.npz", "--index", "2")
    assert (code, out) == (2, "")
    assert err == "rodiu: --index: instance: got 2, expected a whole number from 0 to 1\n"


def test_bad_arguments_are_named():
    instances = random_instances(0, (1, 1, 1, 1))
    with pytest.raises(InputError, match="from 0 to 0"):
        diagnose(instances, 1)
    with pytest.raises(InputError, match="time_limit"):
        diagnose(instances, 0, time_limit=0.0)
