"""Choices against enumeration of every deployment, with routing LPs written from the model; honest answers."""

import itertools
import json
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.cli import cli
from rodiu_jax.decisions import sources
from rodiu_jax.decisions.choose import answer as answer_module
from rodiu_jax.decisions.choose import search as module
from rodiu_jax.decisions.choose.answer import Choice
from rodiu_jax.decisions.choose.candidates import deployments_of, neighbours, sort_pairs, triples_near
from rodiu_jax.decisions.choose.criteria import Cvar, Expected, Worst
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.decisions.choose.search import choose
from rodiu_jax.decisions.sources import hard_scenarios, mean_scenario, read_scenarios
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan
from rodiu_jax.model.slots import Names
from rodiu_jax.model.status import Status
from rodiu_jax.report.page.kept_answers import write_decision
from rodiu_jax.report.text.choose_section import describe_choice, draw_frontier, write_sentences
from solvers.answers import Answer, Answers
from solvers.exact import solve_instance
from solvers.fixed_routing import fixed_routings
from solvers.recourse import recourse_plans
from tests.golden import Golden, numbers, section_words
from tests.oracles.enumeration import cheapest_routing
from tests.oracles.instances import random_instances

SMALL = (2, 2, 2, 2)
COUNT = 7
LEVEL = 0.6


@pytest.fixture(scope="module")
def tiny() -> Instances:
    """Scenarios that disagree about what to rent; one caps what may stay unmet."""
    return random_instances(
        15,
        SMALL,
        batch=COUNT,
        budget=np.full(COUNT, 400.0),
        gpu_price=np.full((COUNT, 2), 1.0),
        unmet_cap=[1.0] * 6 + [0.97],
        gpu_memory=np.full((COUNT, 2), 80.0),
        storage_capacity=np.full(COUNT, 150.0),
        gamma_delay=[1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 6.0],
    )


def value_of(costs: np.ndarray, criterion: str, level: float) -> np.ndarray:
    return CRITERIA[criterion].load()(level).value(costs)


def every_deployment(instances: Instances) -> list[Deployment]:
    pairs = list(itertools.product(instances.model_names, instances.gpu_names))
    degrees = [0, *instances.one(0).tp_degree.tolist()]
    return [
        sort_pairs(DeployedPair(*p, n) for p, n in zip(pairs, tps, strict=True) if n)
        for tps in itertools.product(degrees, repeat=len(pairs))
    ]


@pytest.fixture(scope="module")
def truth(tiny):
    """Cost of every deployment in every scenario, inf where it has no plan: {deployment: (B,)}."""
    degrees = tiny.one(0).tp_degree.tolist()
    found = {}
    for deployment in every_deployment(tiny):
        at = [
            (tiny.model_names.index(d.model), tiny.gpu_names.index(d.gpu), degrees.index(d.tp), d.replicas)
            for d in deployment
        ]
        found[deployment] = np.array([cheapest_routing(tiny, b, at, math.inf) for b in range(COUNT)])
    return found


class Known(NamedTuple):
    """Scenarios and a bracket of each one's own optimum."""

    instances: Instances
    answers: Answers


def known_of(instances: Instances, lower, upper, plans) -> Known:
    names = instances.names
    columns = Answers.stack([Answer.of(names, Status.UNKNOWN, plan=plan) for plan in plans], names=names)
    return Known(instances, replace(columns, lower=np.asarray(lower, float), upper=np.asarray(upper, float)))


def pick(known: Known, **options) -> Choice:
    return choose(known.instances, answers=known.answers, **options)


@pytest.fixture(scope="module")
def known(tiny, truth) -> Known:
    """Brackets of 4 % around each scenario's own optimum, and what is best to rent there."""
    least = np.min(list(truth.values()), axis=0)
    best = [min(truth, key=lambda d, b=b: truth[d][b]) for b in range(COUNT)]
    return known_of(tiny, 0.98 * least, 1.02 * least, tuple(Plan(b, d, (), {}) for b, d in enumerate(best)))


def exact_value(costs: np.ndarray, truth: dict, criterion: str) -> float:
    optimum = np.min(list(truth.values()), axis=0)
    return float(value_of(costs - optimum if criterion == "regret" else costs, criterion, LEVEL))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_true_optimum_of_every_criterion(known, truth, criterion):
    found = pick(known, criterion=criterion, level=LEVEL)
    best = min(exact_value(costs, truth, criterion) for costs in truth.values())
    mine = exact_value(truth[found.deployment], truth, criterion)
    scale = min(costs.mean() for costs in truth.values())
    assert found.meets
    assert found.feasible_share == 1.0
    assert mine == pytest.approx(best, abs=1e-3 * scale)
    assert found.value == pytest.approx(mine, abs=1e-3 * scale)
    assert found.lower - 1e-6 * scale <= mine <= found.upper + 1e-6 * scale
    bounds = found.to_json()
    assert bounds["lower_bound"] <= best + 1e-6 * scale
    assert bounds["value"] == bounds["upper_bound"]


def test_criteria_choose_differently(truth):
    chosen = {c: min(truth, key=lambda d, c=c: exact_value(truth[d], truth, c)) for c in CRITERIA}
    assert len(set(chosen.values())) > 1, "or the test above says little"


def test_the_table_holds_the_exact_figures(known, truth):
    found = pick(known, level=LEVEL)
    names = {"; ".join(f"{d.model}@{d.gpu} x{d.tp}" for d in ds) or "nothing": ds for ds in truth}
    assert found.candidates == len(found.table) > 10
    assert found.table["chosen"].sum() == 1
    for row in found.table.to_dict(orient="records"):
        costs = truth[names[row["deployment"]]]
        assert row["feasible_share"] == np.isfinite(costs).mean()
        for name in ("expected", "cvar", "worst"):
            assert row[name] == pytest.approx(exact_value(costs, truth, name), rel=2e-3)
        regret = exact_value(costs, truth, "regret")
        slack = 1e-6 * costs.mean() if np.isfinite(regret) else 0.0
        assert row["regret_lower"] <= regret + slack
        assert row["regret"] >= regret - slack
    front = found.table[found.table["frontier"]]
    for row in front.to_dict(orient="records"):
        better = (front["expected"] <= row["expected"]) & (front["cvar"] <= row["cvar"])
        assert better.sum() == 1


def test_two_stage_bound_and_value_of_the_stochastic_solution(known, truth):
    found = pick(known)
    waits = np.min(list(truth.values()), axis=0).mean()
    assert found.best_possible == pytest.approx(0.98 * waits)
    assert 0 <= found.gap < 1
    best = min(costs.mean() for costs in truth.values())
    average = solve_instance(mean_scenario(known.instances), 0).plan
    value = truth[sort_pairs(average.deployments)].mean() - best
    low, high = found.stochastic
    assert value > 0
    if math.isfinite(value):
        assert low - 1e-3 * best <= value <= high + 1e-3 * best
    else:
        assert low == high == math.inf


def test_small_screens_find_it_too(known, truth, monkeypatch):
    monkeypatch.setattr(module, "_STAGES", (module._Stage(3, 16),))
    best = min(costs.mean() for costs in truth.values())
    found = pick(known_of(known.instances, known.answers.lower, known.answers.upper, (None,) * COUNT))
    assert truth[found.deployment].mean() <= 1.02 * best


def mild(instances: Instances) -> Instances:
    """The same scenarios with promises and memory that one routing can keep in all of them."""
    f = instances.fields
    return instances.with_fields(
        kv_per_token=f.kv_per_token / 20,
        delay_threshold=f.delay_threshold * 10,
        error_threshold=f.error_threshold * 5,
        weight_memory=f.weight_memory / 4,
    )


@pytest.mark.slow
def test_fixed_routing(known):
    easy = known_of(mild(known.instances), np.zeros(COUNT), np.full(COUNT, math.inf), known.answers.plans())
    free, fixed = pick(easy), pick(easy, recourse=False)
    assert fixed.meets
    assert fixed.plan is not None
    assert fixed.plan.instance is None
    assert fixed.plan.routes
    verdicts = [check_plan(fixed.plan, easy.instances, b) for b in range(COUNT)]
    assert all(v.feasible for v in verdicts)
    assert fixed.value == pytest.approx(np.mean([v.costs["total_cost"] for v in verdicts]), rel=1e-12)
    assert fixed.value >= free.lower
    assert fixed.otherwise[1] == 1.0
    assert free.otherwise[1] == 1.0
    assert fixed.otherwise[0] <= fixed.value * (1 + 1e-6)
    assert free.otherwise[0] >= free.value * (1 - 1e-6)
    assert fixed.to_json()["with_recourse"]["value"] == fixed.otherwise[0]
    assert fixed.stochastic is None
    assert fixed.to_json()["plan"]["routes"] == fixed.plan.to_json()["routes"]


@pytest.mark.parametrize("criterion", ["cvar", "regret"])
@pytest.mark.slow
def test_no_deployment_is_better_with_one_fixed_routing(known, criterion):
    easy = known_of(mild(known.instances), np.zeros(COUNT), np.full(COUNT, math.inf), known.answers.plans())
    optimum = np.array([r.upper for r in (solve_instance(easy.instances, b) for b in range(COUNT))])
    easy = known_of(easy.instances, optimum, optimum, easy.answers.plans())
    found = pick(easy, criterion=criterion, level=LEVEL, recourse=False)
    offset = optimum if criterion == "regret" else 0.0
    below = CRITERIA[criterion].load()(LEVEL).planes
    values = []
    for plan in fixed_routings(easy.instances, every_deployment(easy.instances), below, offset):
        verdicts = [check_plan(plan, easy.instances, b) for b in range(COUNT)] if plan else []
        if plan and all(v.feasible for v in verdicts):
            costs = np.array([v.costs["total_cost"] for v in verdicts])
            values.append(float(value_of(costs - offset, criterion, LEVEL)))
    assert len(values) > 20
    assert found.value == pytest.approx(min(values), rel=1e-4)


def test_fixed_routing_that_breaks_promises_is_only_the_nearest(known):
    found = pick(known, recourse=False)
    kept = [check_plan(found.plan, known.instances, b).feasible for b in range(COUNT)]
    assert found.feasible_share == np.mean(kept) < 1
    assert found.otherwise[1] >= found.feasible_share
    assert not found.meets


def test_what_holds_in_the_hardest_scenario_holds_in_all(known):
    easy = mild(known.instances)
    hard = hard_scenarios(easy, (0.5, 1.0))
    assert hard.size == 3
    deployments = [d for d in every_deployment(easy) if len(d) == 2][:6]
    served = 0
    for plans in recourse_plans(hard, deployments)[1]:
        if plans[2] is None:
            continue
        plan = replace(plans[2], instance=None)
        served += len(plan.routes)
        assert all(check_plan(plan, easy, b).feasible for b in range(COUNT))
    assert served


@pytest.mark.slow
def test_nothing_is_chosen_by_what_is_held_out(known):
    alone = pick(known, seed=3)
    assert alone.held_out is None
    others = known.instances.take([2, 0, 4])
    with_others = pick(known, hold_out=others, seed=3)
    dearer = others.with_fields(unmet_penalty=others.fields.unmet_penalty * 30.0)
    with_dearer = pick(known, hold_out=dearer, seed=3)
    assert with_others.deployment == with_dearer.deployment == alone.deployment
    assert with_others.value == with_dearer.value == alone.value
    held = with_dearer.held_out
    assert held.scenarios == 3
    assert held.feasible_share == 1.0
    assert held.feasible_interval[1] == 1.0
    assert held.value > with_others.held_out.value
    assert held.exceeded_interval[0] > with_others.held_out.exceeded_interval[0] == 0.0


def test_no_candidate_meets_it(tiny, known, golden: Golden):
    caps = np.array([1.0] * (COUNT - 1) + [0.0])
    memory = tiny.fields.gpu_memory.copy()
    memory[-1] = 0.0
    hopeless = tiny.with_fields(unmet_cap=caps, gpu_memory=memory)
    lower = np.append(known.answers.lower[:-1], math.inf)
    upper = np.append(known.answers.upper[:-1], math.inf)
    found = pick(known_of(hopeless, lower, upper, (*known.answers.plans()[:-1], None)))
    assert not found.meets
    assert math.isnan(found.value)
    assert found.feasible_share == (COUNT - 1) / COUNT
    assert found.hopeless == 1
    assert sum(found.broken.values()) == 1
    said = write_sentences(found)
    assert numbers(said[0]) == [COUNT]
    assert 85.7 in numbers(said[1])
    golden("decisions/choose-nearest", "\n".join(said), numbers=False)
    assert found.to_json()["value"] is None
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["expected", "regret"])
def test_nothing_is_possible_in_any_scenario(tiny, known, criterion, monkeypatch, golden: Golden):
    for one in (module, answer_module):
        monkeypatch.setattr(one, "bracket_all", lambda instances, **_: known.answers)
    caps, memory = np.zeros(COUNT), np.zeros_like(tiny.fields.gpu_memory)
    none = tiny.with_fields(unmet_cap=caps, gpu_memory=memory)
    nowhere = known_of(none, np.full(COUNT, math.inf), np.full(COUNT, math.inf), (None,) * COUNT)
    for recourse in (True, False):
        found = pick(nowhere, criterion=criterion, recourse=recourse)
        assert (found.meets, found.feasible_share, found.hopeless) == (False, 0.0, COUNT)
        golden("decisions/choose-hopeless", write_sentences(found)[-1], numbers=False)
        assert json.loads(json.dumps(found.to_json(), allow_nan=False))["value"] is None


@pytest.mark.slow
def test_where_nothing_holds_anywhere_the_nearest_serves_what_can_be_served(
    tiny, known, monkeypatch, golden: Golden
):
    f = tiny.fields
    strict = tiny.with_fields(
        unmet_cap=np.zeros(COUNT), error_threshold=f.error_threshold * np.array([0.0, 1.0])
    )
    bounds = {"lower": np.full(COUNT, -math.inf), "upper": np.full(COUNT, math.inf)}
    for one in (module, answer_module):
        monkeypatch.setattr(one, "bracket_all", lambda instances, **_: known.answers)
    found = pick(known_of(strict, **bounds, plans=(None,) * COUNT))
    assert (found.meets, found.feasible_share) == (False, 0.0)
    assert found.deployment
    assert found.broken == {"unmet": COUNT}
    assert found.deployment == choose(strict.with_fields(unmet_cap=np.ones(COUNT))).deployment
    golden("decisions/choose-unserved", "\n".join(write_sentences(found)), numbers=False)
    assert found.to_json()["deployments"]


def test_bad_criteria_and_levels(known):
    with pytest.raises(InputError, match="criterion"):
        pick(known, criterion="best")
    for level in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InputError, match="level"):
            pick(known, criterion="cvar", level=level)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
)
def test_cvar_is_the_least_of_its_definition(costs, level):
    # min over t of t + mean(max(c - t, 0)) / (1 - level), attained at one of the costs.
    values = np.array(costs)
    best = min(t + np.maximum(values - t, 0).mean() / (1 - level) for t in values)
    assert Cvar(level).value(values) == pytest.approx(best, rel=1e-6, abs=1e-6)


def test_cvar_of_what_is_infinite():
    assert Cvar(0.5).value(np.array([1.0, 2.0, math.inf])) == math.inf
    assert Cvar(0.5).value(np.array([[3.0, 1.0], [2.0, 2.0]])).tolist() == [3.0, 2.0]


def test_sampling_intervals_cover():
    rng = np.random.default_rng(0)
    hits = {Expected(): 0, Cvar(0.8): 0}
    for _ in range(100):
        costs = rng.uniform(0, 1, 300)
        for criterion, truth in ((Expected(), 0.5), (Cvar(0.8), 0.9)):
            low, high = criterion.sampling_interval(costs, seed=1)
            hits[criterion] += low <= truth <= high
    assert hits[Expected()] >= 88
    assert hits[Cvar(0.8)] >= 85
    for criterion, costs in (
        (Worst(), np.arange(5.0)),
        (Expected(), np.ones(1)),
        (Cvar(), np.full(9, math.inf)),
    ):
        assert all(math.isnan(v) for v in criterion.sampling_interval(costs, seed=0))


def test_neighbours_are_one_move_away(tiny):
    a, b = DeployedPair("m0", "g0", 1), DeployedPair("m1", "g1", 2)
    pool = triples_near(tiny, [(a,)])
    assert len(pool) == 8, "a small catalogue is tried whole"
    found = neighbours(sort_pairs((a, b)), pool)
    assert len(found) == len(set(found)) == 2 + 1 + 1 + 2 * 4 + 4
    assert (b,) in found
    assert all(len({(d.model, d.gpu) for d in f}) == len(f) for f in found)
    assert neighbours((), pool) == [(d,) for d in pool]


def test_found_deployments_are_distinct_and_ranked():
    a, b = DeployedPair("m0", "g0", 1), DeployedPair("m1", "g1", 2)
    plans = [Plan(0, (a, b), (), {}), Plan(1, (b, a), (), {}), Plan(2, (a,), (), {}), None]
    names = Names(("q",), ("m0", "m1"), ("g0", "g1"), (1, 2))
    answers = Answers.stack([Answer.of(names, Status.UNKNOWN, plan=plan) for plan in plans], names=names)
    assert deployments_of(answers, 5) == [(a, b), (a,), ()]
    assert deployments_of(answers, 1) == [(a, b), ()]


@pytest.mark.slow
def test_what_people_see(known, tmp_path, golden: Golden):
    found = pick(known, hold_out=known.instances.take([1, 2]))
    golden("decisions/choose", section_words(describe_choice(found)), numbers=False)
    assert describe_choice(found).tables[0].rows
    assert draw_frontier(found).axes[0].get_xlabel() == "Expected cost, $ per period"
    files = write_decision(describe_choice(found), found.to_json(), tmp_path / "new")
    names = {f"candidates.{kind}" for kind in ("csv", "png", "svg")}
    assert {f.name for f in files} == names | {"choose.json", "section.json"}
    assert json.loads((tmp_path / "new" / "choose.json").read_text())["value"] == found.value


def test_command(known, tmp_path, monkeypatch):
    file = tmp_path / "tiny.npz"
    known.instances.save(file)
    # Brackets have tests of their own, and programs that take long to compile.
    monkeypatch.setattr(sources, "bracket_all", lambda instances, **_: known.answers)
    run = CliRunner().invoke(cli, ["choose", str(file), "--criterion", "worst", "--json", "--quiet"])
    assert run.exit_code == 0, run.output
    answer = json.loads(run.stdout)
    assert {"criterion", "level", "value", "lower_bound", "upper_bound", "feasible_share"} <= set(answer)
    assert answer["deployments"]
    assert set(answer["deployments"][0]) == {"model", "gpu", "tp"}
    assert answer["candidates"] >= len(known.answers) // 2
    assert answer["lower_bound"] <= answer["value"] <= answer["upper_bound"]
    assert answer["hold_out"] is None, "too few to hold some out"
    for level in ("0", "1", "nan"):
        assert CliRunner().invoke(cli, ["choose", str(file), "--level", level]).exit_code == 2
    missing = CliRunner().invoke(cli, ["choose", str(tmp_path / "none.npz")])
    assert isinstance(missing.exception, InputError)


def test_what_is_held_out_of_a_file(known, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "bracket_all", lambda instances, **_: known.answers)
    file = tmp_path / "many.npz"
    many = known.instances.take(np.arange(500) % COUNT).with_fields(budget=np.arange(500.0) + 1.0)
    many.save(file)
    first = read_scenarios(file, gap=0.01, seed=1)
    assert first.hold_out is not None
    both = [first.instances.fields.budget, first.hold_out.fields.budget]
    assert [len(part) for part in both] == [400, 100]
    assert sorted(np.concatenate(both)) == many.fields.budget.tolist()
    again, other = (read_scenarios(file, gap=0.01, seed=seed).hold_out for seed in (1, 2))
    np.testing.assert_array_equal(again.fields.budget, both[1])
    assert (other.fields.budget != both[1]).any()


SPEC = """
name = "two"
title = "Two budgets"
samples = 3
seed = 4
method = "exact"
gap = 0.05
[[factors]]
field = "budget"
value = [900.0, 3000.0]
"""


def test_scenarios_of_a_sweep_and_of_its_spec(tmp_path, monkeypatch):
    from rodiu_jax.sweeps import read_rows, sweep

    path = tmp_path / "two.toml"
    path.write_text(SPEC)
    sweep(path, tmp_path / "out", quiet=True)
    read = read_scenarios(tmp_path / "out", gap=0.01)
    rows = read_rows(tmp_path / "out")
    np.testing.assert_array_equal(read.answers.lower, rows["lower_bound"])
    np.testing.assert_array_equal(read.answers.upper, rows["upper_bound"])
    assert read.instances.fields.budget.tolist() == [900.0, 3000.0] * 3
    for b, plan in enumerate(read.answers.plans()):
        verdict = check_plan(plan, read.instances, b)
        assert verdict.feasible
        assert verdict.costs["total_cost"] == pytest.approx(rows["upper_bound"][b], rel=1e-12)
    fresh = read.hold_out.fields.arrival_rate
    assert len(np.unique(fresh[:, 0])) == 6, "a sample each"
    assert read.hold_out.fields.budget.tolist() == [900.0] * 3 + [3000.0] * 3
    assert not np.isin(fresh, read.instances.fields.arrival_rate).any()
    seen = []
    monkeypatch.setattr(sources, "bracket_all", lambda instances, **_: seen.append(instances))
    again = read_scenarios(path, gap=0.01)
    np.testing.assert_array_equal(seen[0].fields.arrival_rate, read.instances.fields.arrival_rate)
    np.testing.assert_array_equal(again.hold_out.fields.arrival_rate, fresh)
