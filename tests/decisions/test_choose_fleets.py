"""Choices of fleets against every fleet with scipy's routings; weights; what must not change; nothing compiles."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import beta

from rodiu_jax.cli import cli
from rodiu_jax.decisions import sources
from rodiu_jax.decisions.choose.answer import Choice, _share_interval
from rodiu_jax.decisions.choose.candidates import sort_pairs
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.decisions.choose.fleet_moves import FleetMoves
from rodiu_jax.decisions.choose.search import choose
from rodiu_jax.decisions.sources import bracket_all, hard_scenarios, mean_scenario, read_scenarios
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from rodiu_jax.report.text.choose_section import describe_choice
from solvers import fixed_routing, recourse
from solvers.answers import Answers
from solvers.exact import solve_instance
from solvers.fixed_routing import fixed_routings
from solvers.fleet_prices import price_triples
from tests.golden import numbers
from tests.oracles.enumeration import cheapest_fixed_routing, cheapest_routing
from tests.oracles.serving import serving_instances, stack

COUNT = 6
LEVEL = 0.6
SHAPE = (2, 2, 2, 1)
WEIGHTS = np.array([1.0, 0.5, 1.0, 8.0, 1.0, 0.0])
"""The last scenario does not count."""


def draw(**limits: object) -> Instances:
    """Scenarios that disagree about the fleet: traffic is 0.1 to 2.5 times 60 queries an hour."""
    rng = np.random.default_rng(3)
    base = serving_instances(
        5,
        SHAPE,
        devices=["d", "d"],
        **{
            "max_replicas": np.array([[2, 2], [2, 1]]),
            "gpu_quota": np.full(2, 5.0),
            "gamma_throughput": 1.5,
            "gpu_memory": np.full(2, 150.0),
            "storage_capacity": 300.0,
            "budget": 5000.0,
            "gpu_price": np.array([16.0, 20.0]),
            "unmet_penalty": np.full(2, 1.6),
            "delay_penalty": np.zeros(2),
            "error_threshold": np.full(2, 0.3),
            "delay_threshold": np.full(2, 3000.0),
            "throughput": rng.uniform(40.0, 90.0, SHAPE),
            **limits,
        },
    )
    factors = rng.uniform(0.1, 2.5, (COUNT, 2))
    return stack([base.with_fields(arrival_rate=60.0 * factor) for factor in factors])


@pytest.fixture(scope="module")
def fleets() -> Instances:
    return draw()


@pytest.fixture(scope="module")
def answers(fleets: Instances) -> Answers:
    found = [solve_instance(fleets, b) for b in range(COUNT)]
    return Answers.stack(found, names=fleets.names)


def every_fleet(instances: Instances) -> list[tuple[Deployment, list[tuple]]]:
    """Every fleet within max_replicas and the quota of 5, by name and by positions."""
    (degree,) = instances.one(0).tp_degree.tolist()
    most = instances.one(0).max_replicas
    pairs = list(np.ndindex(2, 2))
    found = []
    for counts in itertools.product(*(range(int(most[p]) + 1) for p in pairs)):
        if sum(counts) * degree <= 5:
            used = [(j, k, 0, r) for (j, k), r in zip(pairs, counts, strict=True) if r]
            found.append((sort_pairs(DeployedPair(f"m{j}", f"g{k}", degree, r) for j, k, _, r in used), used))
    return found


@pytest.fixture(scope="module")
def truth(fleets: Instances) -> dict[Deployment, np.ndarray]:
    """Cost of every fleet in every scenario (B,), inf where it has no plan."""
    return {
        name: np.array([cheapest_routing(fleets, b, at) for b in range(COUNT)])
        for name, at in every_fleet(fleets)
    }


@pytest.fixture(autouse=True)
def _nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would compile a program for a device fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program for the device, which fleets do not need")

    monkeypatch.setattr(recourse, "run_scenarios", refuse)
    monkeypatch.setattr(fixed_routing, "run_scenarios", refuse)
    monkeypatch.setattr("rodiu_jax.model.evaluation.score_crossed", refuse)
    monkeypatch.setattr("solvers.cascade.bracketed", refuse)


def least(truth: dict[Deployment, np.ndarray], criterion: str, weights: np.ndarray) -> float:
    """The least value of a criterion over all fleets, by its definition."""
    counted = weights > 0
    probability = weights[counted] / weights.sum()
    optimum = np.min(list(truth.values()), axis=0)
    best = math.inf
    for every in truth.values():
        costs = (every - optimum if criterion == "regret" else every)[counted]
        if not np.isfinite(costs).all():
            continue
        if criterion == "expected":
            value = float(probability @ costs)
        elif criterion == "cvar":
            value = min(t + float(probability @ np.maximum(costs - t, 0)) / (1 - LEVEL) for t in costs)
        else:
            value = float(costs.max())
        best = min(best, value)
    return best


@pytest.mark.parametrize(
    ("criterion", "weights"),
    [
        ("expected", None),
        ("expected", WEIGHTS),
        ("regret", WEIGHTS),
        *(pytest.param(c, w, marks=pytest.mark.slow) for c in CRITERIA for w in (None, WEIGHTS)),  # 12 s
    ],
)
def test_the_best_of_all_fleets(fleets, answers, truth, criterion, weights):
    found = choose(fleets, answers=answers, criterion=criterion, level=LEVEL, weights=weights)
    best = least(truth, criterion, np.ones(COUNT) if weights is None else weights)
    assert found.meets
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-3)
    assert found.lower <= found.value * (1 + 1e-9)
    assert found.best_possible <= best * (1 + 1e-6) + 1e-6
    assert found.scenarios == (COUNT if weights is None else COUNT - 1)
    if criterion == "expected":
        waits = np.min(list(truth.values()), axis=0)
        assert found.best_possible == pytest.approx(np.average(waits, weights=weights), rel=1e-5)
        average = mean_scenario(fleets, weights)
        mean = sort_pairs(solve_instance(average, 0).plan.deployments)
        value = np.average(truth[mean], weights=weights) - best
        low, high = found.stochastic
        assert low == high == math.inf if value == math.inf else low - 1e-3 <= value <= high + 1e-3


def test_fleets_of_the_test_disagree(truth):
    chosen = {min(truth, key=lambda d, b=b: truth[d][b]) for b in range(COUNT)}
    assert len(chosen) == 4, "or the tests above say little"
    assert any(pair.replicas > 1 for fleet in chosen for pair in fleet)
    means = [{fleet: np.average(costs, weights=w) for fleet, costs in truth.items()} for w in (None, WEIGHTS)]
    assert len({min(mean, key=lambda d, mean=mean: mean[d]) for mean in means}) == 2, "weights decide"


@pytest.fixture(scope="module")
def weighted(fleets, answers) -> Choice:
    return choose(fleets, answers=answers, weights=WEIGHTS, level=LEVEL)


def test_the_table_holds_the_exact_figures(weighted, truth):
    found = weighted
    names = {"; ".join(map(str, fleet)) or "nothing": fleet for fleet in truth}
    counted = WEIGHTS > 0
    assert len(found.table) > 10
    for row in found.table.to_dict(orient="records"):
        beyond_quota = row["deployment"] not in names
        costs = np.full(5, math.inf) if beyond_quota else truth[names[row["deployment"]]][counted]
        share = float(WEIGHTS[counted] @ np.isfinite(costs)) / WEIGHTS.sum()
        assert row["feasible_share"] == pytest.approx(share, abs=1e-12)
        assert row["expected"] == pytest.approx(np.average(costs, weights=WEIGHTS[counted]), rel=1e-5)
        assert row["worst"] == pytest.approx(costs.max(), rel=1e-5)


def test_equal_scenarios_get_their_own_best_fleet(fleets, truth):
    same = fleets.take([4] * 3)
    one = solve_instance(fleets, 4)
    found = choose(same, answers=Answers.stack([one] * 3, names=fleets.names), weights=[1.0, 7.0, 0.2])
    assert found.deployment == sort_pairs(one.plan.deployments)
    assert found.value == pytest.approx(one.upper, rel=1e-9)
    assert found.value == pytest.approx(min(costs[4] for costs in truth.values()), rel=1e-6)
    assert found.gap == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow  # 5 s; the criteria have short tests of the same
def test_weights_are_relative_and_count_like_copies(fleets, answers):
    weights = np.array([2.0, 1.0, 1.0, 0.0, 3.0, 1.0])
    found = choose(fleets, answers=answers, weights=weights, criterion="cvar", level=LEVEL)
    doubled = choose(fleets, answers=answers, weights=2 * weights, criterion="cvar", level=LEVEL)
    assert doubled.deployment == found.deployment
    assert doubled.value == found.value
    assert doubled.best_possible == found.best_possible
    rows = np.repeat(np.arange(COUNT), weights.astype(int))
    copies = choose(fleets.take(rows), answers=answers.take(rows), criterion="cvar", level=LEVEL)
    assert copies.deployment == found.deployment
    assert copies.value == pytest.approx(found.value, rel=1e-9)
    assert found.effective_scenarios == pytest.approx(8**2 / (4 + 1 + 1 + 9 + 1))


def test_held_out_scenarios_count_by_weight(fleets, answers, truth):
    unseen = [5, 3, 1, 0]
    weights = np.array([1.0, 3.0, 0.0, 4.0])
    found = choose(
        fleets.take([2, 4]),
        answers=answers.take([2, 4]),
        hold_out=fleets.take(unseen),
        hold_out_weights=weights,
    )
    costs = truth[found.deployment][unseen]
    held = found.held_out
    assert held.scenarios == 3
    assert held.value == pytest.approx(np.average(costs, weights=weights), rel=1e-5)
    assert held.feasible_share == 1.0
    mean, effective = held.value, 64 / 26
    spread = float(weights @ (costs - mean) ** 2 / 8) * effective / (effective - 1)
    low, high = held.interval
    assert (low + high) / 2 == pytest.approx(mean, rel=1e-9)
    half = (high - low) / 2
    assert half / math.sqrt(spread / effective) == pytest.approx(
        6.31, rel=0.1
    )  # Student's t, 1.46 degrees of freedom
    hits = 7 / 8 * effective
    exact = beta.ppf(0.025, hits, effective - hits + 1), beta.ppf(0.975, hits + 1, effective - hits)
    assert _share_interval(np.array([False, True, True]), np.array([1.0, 3.0, 4.0]) / 8) == pytest.approx(
        exact
    )


def test_one_fixed_routing_for_all_scenarios(fleets, truth):
    weights = WEIGHTS / WEIGHTS.sum()
    planes = CRITERIA["expected"].load()(LEVEL).planes
    counted = fleets.take(np.flatnonzero(WEIGHTS))
    kept = weights[WEIGHTS > 0]
    cases = [case for case in every_fleet(fleets) if len(case[0]) > 1][::6]
    plans = fixed_routings(counted, [name for name, _ in cases], lambda costs: planes(costs, kept))
    served = 0
    for (name, at), plan in zip(cases, plans, strict=True):
        best = cheapest_fixed_routing(counted, at, kept)
        assert (plan is not None) == math.isfinite(best), name
        if plan is None:
            continue
        verdicts = [check_plan(plan, counted, b) for b in range(counted.size)]
        assert all(v.feasible for v in verdicts)
        assert plan.deployments == name
        mean = float(kept @ [v.costs["total_cost"] for v in verdicts])
        assert mean == pytest.approx(best, rel=2e-6)
        served += min(plan.unmet.values()) < 0.5
    assert served > 3


@pytest.mark.parametrize(("mode", "gamma"), [("none", 1.5), ("diu", 0.6), ("ddu", 1.5), ("ddu", 7.0)])
def test_load_planes_are_exact(mode: str, gamma: float):
    instances = draw(gamma_throughput=gamma).with_uncertainty(mode)
    (name, at) = every_fleet(instances)[-3]
    even = np.full(COUNT, 1 / COUNT)
    (plan,) = fixed_routings(instances, [name], CRITERIA["expected"].load()(LEVEL).planes)
    mean = np.mean([check_plan(plan, instances, b).costs["total_cost"] for b in range(COUNT)])
    assert mean == pytest.approx(cheapest_fixed_routing(instances, at, even), rel=2e-6)


def test_choice_without_recourse(fleets, answers):
    few, weights = fleets.take([0, 3, 4]), np.array([3.0, 1.0, 2.0])
    found = choose(few, answers=answers.take([0, 3, 4]), weights=weights, recourse=False)
    assert found.meets
    best = min(cheapest_fixed_routing(few, at, weights / 6) for _, at in every_fleet(few))
    assert found.value == pytest.approx(best, rel=1e-5)
    assert found.plan is not None
    assert found.plan.deployments == found.deployment
    costs = [check_plan(found.plan, few, b).costs["total_cost"] for b in range(3)]
    assert found.value == pytest.approx(float(weights @ costs) / 6, rel=1e-12)
    assert found.otherwise[0] <= found.value * (1 + 1e-6)


def test_where_no_fleet_keeps_every_promise_the_nearest_is_named(fleets, answers):
    few, known = fleets.take([0, 3, 4]), answers.take([0, 3, 4])
    rates = np.broadcast_to(few.fields.throughput, (3, *SHAPE)).copy()
    rates[1] = 0.0
    hopeless = few.with_fields(unmet_cap=np.array([1.0, 0.0, 1.0]), throughput=rates)
    known = replace(known, lower=np.where(np.arange(3) == 1, math.inf, known.lower))
    found = choose(hopeless, answers=known, weights=[3.0, 1.0, 4.0])
    assert not found.meets
    assert found.hopeless == 1
    assert found.broken == {"unmet": 1}
    assert found.feasible_share == pytest.approx(7 / 8)


# ---- neighbours, and scenarios that stand for many ----


def test_moves_of_fleets(fleets):
    moves = FleetMoves(fleets, fleets)
    (degree,) = fleets.one(0).tp_degree.tolist()
    one, two = DeployedPair("m0", "g0", degree, 2), DeployedPair("m1", "g1", degree, 1)
    assert set(moves.resize((one, two))) == {
        (replace(one, replicas=1), two),
        (one,),
    }  # both are at their most
    far = moves.exchange((one, two))
    assert (one, two) not in far
    assert len(set(far)) == len(far)
    assert {(one,), (two,)} <= set(far)
    assert (one, replace(two, model="m0")) in far, "another pair in the place of one"
    limits = dict(zip(np.ndindex(2, 2), [2, 2, 2, 1], strict=True))
    for fleet in far:
        assert len({(d.model, d.gpu) for d in fleet}) == len(fleet)
        assert all(1 <= d.replicas <= limits[int(d.model[1:]), int(d.gpu[1:])] for d in fleet)
    assert (replace(one, replicas=1), replace(one, model="m1", replicas=1), two) in far, (
        "one replica put elsewhere"
    )
    assert moves.resize(()) == []


def test_prices_of_triples_say_what_good_plans_deploy(fleets, truth):
    price = price_triples(fleets)
    optimum = np.min(list(truth.values()), axis=0)
    for j, k in np.ndindex(2, 2):
        using = [
            costs
            for fleet, costs in truth.items()
            if any((d.model, d.gpu) == (f"m{j}", f"g{k}") for d in fleet)
        ]
        lowest = np.min(using, axis=0)
        assert price[j, k, 0] <= (lowest - 0.5 * optimum).mean(), (
            "no more than above a bound of half the optimum"
        )
    closed = fleets.with_fields(max_replicas=np.array([[2, 2], [2, 0]]))
    assert price_triples(closed)[1, 1, 0] == math.inf
    assert np.isfinite(price).all()


def test_means_count_by_weight_and_limits_that_are_none_stay(fleets):
    quota = np.full((COUNT, 2), 5.0)
    quota[:4] = np.inf
    varied = fleets.with_fields(
        gpu_quota=quota, max_replicas=np.array([[[2, 2]] * 2] * 2 + [[[3, 3]] * 2] * 4)
    )
    mean = mean_scenario(varied, WEIGHTS).one(0)
    rate = fleets.fields.arrival_rate
    np.testing.assert_allclose(mean.arrival_rate, np.average(rate, axis=0, weights=WEIGHTS))
    assert (mean.max_replicas == 3).all()
    assert (mean_scenario(varied, np.array([9.0, 9, 1, 1, 1, 1])).one(0).max_replicas == 2).all()
    hard = hard_scenarios(varied, (0.5, 1.0))
    assert hard.fields.gpu_quota[1:].tolist() == [[math.inf] * 2, [5.0] * 2]
    np.testing.assert_allclose(hard.fields.arrival_rate[2], rate.max(0))


def test_own_optima_of_fleets_are_exact(fleets, answers):
    found = bracket_all(fleets.take([0, 3]), gap=1e-6)
    np.testing.assert_allclose(found.upper, answers.upper[[0, 3]], rtol=1e-6)
    np.testing.assert_allclose(found.lower, answers.lower[[0, 3]], rtol=1e-5)


# ---- the command, and weights in files ----


def test_command(fleets, answers, weighted, truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "bracket_all", lambda instances, **_: answers.take(WEIGHTS > 0))
    file, table = tmp_path / "fleets.npz", tmp_path / "weights.csv"
    fleets.save(file)
    rows = [f"{b},{w}" for b, w in enumerate(WEIGHTS)]
    table.write_text("\n".join(["instance,weight", *rows[::-1]]) + "\n")
    run = CliRunner().invoke(cli, ["choose", str(file), "--weights", str(table), "--json", "--quiet"])
    assert run.exit_code == 0, run.output
    answer = json.loads(run.stdout)
    assert answer["value"] == pytest.approx(least(truth, "expected", WEIGHTS), rel=1e-5)
    assert answer["effective_scenarios"] == pytest.approx(WEIGHTS.sum() ** 2 / (WEIGHTS @ WEIGHTS))
    assert any(d.get("replicas", 1) > 1 for d in answer["deployments"])
    assert any("replicas" in row["deployment"] for row in answer["frontier"])
    said = " ".join(describe_choice(weighted).points)
    assert {round(weighted.effective_scenarios, 2), COUNT - 1} <= {round(n, 2) for n in numbers(said)}
    assert "replicas" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("instance,weigth\n0,1\n", "weigth"),
        ("instance,weight\n0,1\n1,2\n", "2"),
        ("instance,weight\n0,1\n1,2\n2,nan\n", "nan"),
        ("instance,weight\n0,1\n1,2\n2,-1\n", "-1"),
        ("instance,weight\n0,1\n1,2\n2,inf\n", "inf"),
        ("instance,weight\n0,1\n1,2\n2,x\n", "x"),
        ("instance,weight\n0,1\n1,2\n3,1\n", "3"),
        ("instance,weight\n0,1\n1,2\n-1,1\n", "-1"),
        ("instance,weight\n0,1\n1,2\n1,1\n", "once"),
        ("instance,weight\n0,1\n1,2\n2\n", "2 cells"),
        ("instance,weight\n0,0\n1,0\n2,0\n", "above 0"),
    ],
)
def test_bad_files_of_weights(fleets, tmp_path: Path, text: str, said: str):
    file, table = tmp_path / "fleets.npz", tmp_path / "weights.csv"
    fleets.take([0, 1, 2]).save(file)
    table.write_text(text)
    with pytest.raises(InputError) as error:
        read_scenarios(file, gap=0.01, weights=table)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_weights(fleets, answers):
    for weights in (
        [1.0] * 5,
        [1.0] * 5 + [-1.0],
        [1.0] * 5 + [math.nan],
        [0.0] * COUNT,
        [[1.0] * COUNT],
        ["x"] * COUNT,
    ):
        with pytest.raises(InputError, match="weights"):
            choose(fleets, answers=answers, weights=weights)
    with pytest.raises(InputError, match="weights"):
        read_scenarios("cost-budget", gap=0.01, weights="w.csv")


def test_weights_of_a_file_that_gives_up_a_fifth(fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "bracket_all", lambda instances, **_: None)
    many = fleets.take(np.arange(500) % COUNT).with_fields(budget=np.arange(500.0) + 1.0)
    many.save(tmp_path / "many.npz")
    weights = np.arange(500) % 7
    lines = "".join(f"{b},{w}\n" for b, w in enumerate(weights))
    (tmp_path / "weights.csv").write_text("instance,weight\n" + lines)
    found = read_scenarios(tmp_path / "many.npz", gap=0.01, weights=tmp_path / "weights.csv")
    assert found.hold_out is not None
    for part, own in ((found.instances, found.weights), (found.hold_out, found.hold_out_weights)):
        number = part.fields.budget.astype(int) - 1
        np.testing.assert_allclose(own * 6, weights[number])
        assert (own > 0).all()
    assert found.instances.size + found.hold_out.size == (weights > 0).sum()
