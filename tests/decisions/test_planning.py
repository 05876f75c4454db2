"""A planned fleet: every number of it computed again by another way, and input that is refused in one line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rodiu_jax as rj
from rodiu_jax.decisions.pair_load import measure_load
from rodiu_jax.decisions.plan_basis import WEIGHTS, find_plan_basis
from rodiu_jax.decisions.planning.even_routing import route_evenly
from rodiu_jax.decisions.planning.inputs import prepare
from rodiu_jax.decisions.planning.plan import FleetAnswer, plan_fleet
from rodiu_jax.decisions.planning.request import PlanRequest, read_price, read_rate
from rodiu_jax.decisions.planning.robustness_price import (
    DRAWS,
    compare_protections,
    count_overloads,
)
from rodiu_jax.decisions.planning.traffic import pick_level
from rodiu_jax.decisions.planning.what_ifs import WhatIf
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.report.page.plan_page import render_plan_page
from rodiu_jax.report.text.plan_sentences import write_sentences
from rodiu_jax.report.text.plan_tables import tabulate_protections
from solvers.exact import solve_instance
from tests.golden import numbers
from tests.oracles.plain_fleet import solve_plain
from tests.oracles.planning import SMALL

EXCERPT = Path(__file__).parent.parent / "data" / "azure_code_excerpt.csv"
RATES = {"Chat": 150.0, "Document_QA": 20.0}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def answer(catalog: Path) -> FleetAnswer:
    return plan_fleet(catalog, rates=RATES, quotas={"H100": 6}, api_prices="$3/Mtok", workers=1)


def named(answers: tuple[WhatIf, ...], name: str) -> WhatIf:
    return next(w for w in answers if w.name == name)


def assert_brackets(found: WhatIf, instances: Instances, tolerance: float = 1e-3) -> None:
    """The bracket holds the optimum that HiGHS proves of a scenario which was made another way."""
    again = solve_instance(instances, 0, gap=1e-6)
    hours = float(instances.one(0).rental_hours)
    assert found.lower <= again.upper / hours * (1 + 1e-6)
    assert found.upper >= again.lower / hours * (1 - 1e-6)
    assert found.upper - found.lower <= tolerance * found.upper * (1 + 1e-9)


def test_the_answer_is_the_optimum_of_the_plain_formulation(answer: FleetAnswer):
    outcome = solve_plain(answer.scenario, 0, gap=1e-6)
    assert outcome.optimal
    assert answer.found.lower <= outcome.objective / 24 * (1 + 1e-6)
    assert answer.found.upper >= outcome.objective / 24 * (1 - 1e-6)
    assert answer.gap <= 1e-3


def test_costs_are_sums_by_hand(answer: FleetAnswer):
    f = answer.scenario.one(0)
    price = dict(zip(answer.scenario.gpu_names, f.gpu_price.tolist(), strict=True))
    rent = sum(price[d.gpu] * d.tp * d.replicas for d in answer.plan.deployments)
    assert answer.costs["rental_cost"] == pytest.approx(rent, rel=1e-12)
    # $3 for a million of 512 + 256 and of 4096 + 512 tokens
    elsewhere = sum(
        RATES[q] * 3600 * answer.plan.unmet[q] * 3e-6 * tokens
        for q, tokens in (("Chat", 768), ("Document_QA", 4608))
    )
    assert answer.costs["unmet_cost"] == pytest.approx(elsewhere, rel=1e-9)
    assert answer.costs["total_cost"] == pytest.approx(rent + elsewhere, rel=1e-9)
    tokens = sum(
        RATES[q] * 3600 * (1 - answer.plan.unmet[q]) * n for q, n in (("Chat", 768), ("Document_QA", 4608))
    )
    assert answer.fleet.cost_per_million_tokens == pytest.approx(rent / tokens * 1e6, rel=1e-9)
    assert answer.found.rent == pytest.approx(rent, rel=1e-9)


def test_every_question_is_bracketed(answer: FleetAnswer, catalog: Path):
    base = answer.scenario
    f = base.one(0)
    h100 = np.array([g == "H100" for g in base.gpu_names])
    tight = rj.load_catalog(catalog).at_means()
    tight = tight.with_promises({q: p.scaled(0.8) for q, p in tight.promises.items()})
    rates = tight.ranges["throughput"][0]
    many = np.full((2, 2), 999)
    changed = {
        "traffic x 1.5": {"arrival_rate": f.arrival_rate * 1.5},
        "traffic x 2": {"arrival_rate": f.arrival_rate * 2},
        "H100 80GB only": {"gpu_quota": np.where(h100, f.gpu_quota, 0)},
        "B200 180GB only": {"gpu_quota": np.where(h100, 0, f.gpu_quota)},
        "Llama-3.1-8B only": {"max_replicas": np.array([[64, 64], [0, 0]])},
        "Qwen3-30B-A3B only": {"max_replicas": np.array([[0, 0], [64, 64]])},
        "no quota": {"gpu_quota": np.full(2, np.inf), "max_replicas": many},
        "rates 22% lower": {"throughput": f.throughput * 0.78},
        "promises 20% tighter": {"throughput": rates, "delay_threshold": f.delay_threshold * 0.8},
        "B200 180GB 20% dearer": {"gpu_price": np.where(h100, f.gpu_price, f.gpu_price * 1.2)},
        "no B200 180GB": {"gpu_quota": np.where(h100, f.gpu_quota, 0)},
        "H100 80GB 20% dearer": {"gpu_price": np.where(h100, f.gpu_price * 1.2, f.gpu_price)},
        "no H100 80GB": {"gpu_quota": np.where(h100, 0, f.gpu_quota)},
    }
    rented = {d.gpu for d in answer.plan.deployments}
    asked = {w.name for w in answer.what_ifs}
    assert asked == {n for n in changed if n.split()[0] in ("B200", "H100") and n.endswith(("only", "dearer"))
                     and (n.endswith("only") or n.split()[0] in rented)
                     } | {n for n in changed if n.startswith("no ") and (n == "no quota" or n.split()[1] in rented)
                     } | {n for n in changed if n.split()[0] not in ("B200", "H100", "no")}  # fmt: skip
    for name in asked:
        assert_brackets(named(answer.what_ifs, name), base.with_fields(**changed[name]))


def test_limits_are_loosened_by_one_step(answer: FleetAnswer):
    f = answer.scenario.one(0)
    fuller = named(answer.limits, "load of a replica 0.85 -> 0.9")
    assert_brackets(fuller, answer.scenario.with_fields(max_utilization=0.9))
    one_more = named(answer.limits, "quota of H100 80GB 6 -> 7")
    h100 = np.array([g == "H100" for g in answer.scenario.gpu_names])
    assert_brackets(one_more, answer.scenario.with_fields(gpu_quota=f.gpu_quota + h100))
    assert all(w.upper <= answer.found.upper * (1 + 1e-9) for w in answer.limits)


def test_protections_are_bought_and_routed_for_the_real_traffic(answer: FleetAnswer):
    f = answer.scenario.one(0)
    kinds = {(p.kind, p.level) for p in answer.protections}
    assert kinds == {("gamma", g) for g in (0.0, 1.0, 2.0)} | {("headroom", x) for x in (1.1, 1.2, 1.5)}
    for p in answer.protections:
        gamma = p.level if p.kind == "gamma" else 0.0
        factor = p.level if p.kind == "headroom" else 1.0
        trusted = answer.scenario.with_fields(gamma_throughput=gamma)
        bought = trusted.with_fields(arrival_rate=f.arrival_rate * factor)
        again = solve_instance(bought, 0, gap=1e-6)
        assert p.lower <= again.upper / 24 * (1 + 1e-6)
        assert p.upper >= again.lower / 24 * (1 - 1e-6)
        assert p.plan is not None
        verdict = check_plan(p.plan, trusted, 0)
        assert verdict.feasible
        assert verdict.costs["total_cost"] / 24 <= p.upper * (1 + 1e-6)
        assert p.cost == pytest.approx(cost_by_hand(p.plan, answer.scenario), rel=1e-9)
        assert p.overload_low <= p.overload <= p.overload_high
        assert p.overload <= p.fuller
    costs = [p.lower for p in answer.protections if p.kind == "gamma"]
    assert costs == sorted(costs)


def cost_by_hand(plan: Plan, scenario: Instances) -> float:
    """Rent and what is bought elsewhere on the traffic of a scenario, $/h: nothing else costs anything there."""
    f = scenario.one(0)
    price = dict(zip(scenario.gpu_names, f.gpu_price.tolist(), strict=True))
    rent = sum(price[d.gpu] * d.tp * d.replicas for d in plan.deployments)
    rates = zip(scenario.query_names, f.arrival_rate.tolist(), f.unmet_penalty.tolist(), strict=True)
    return rent + sum(rate * penalty * plan.unmet.get(q, 0.0) for q, rate, penalty in rates)


def test_equal_fleets_cost_the_same_however_they_are_protected(catalog: Path):
    """All that the quota allows is rented anyway: buying for half as much traffic again buys nothing, and costs so."""
    asked = PlanRequest(catalog, rates={"Chat": 150.0}, quotas={"H100": 1, "B200": 0}, shortfall=0.0)
    scenario = prepare(asked).scenario

    def solve(batch: Instances) -> list[Any]:
        return [solve_instance(batch, b, gap=1e-6) for b in range(batch.size)]

    nominal, *_, more = compare_protections(scenario, solve, factors=(1.5,))
    assert nominal.plan is not None
    assert more.plan is not None
    assert (more.kind, more.level) == ("headroom", 1.5)
    assert more.plan.deployments == nominal.plan.deployments == (DeployedPair("Llama-3.1-8B", "H100", 1),)
    assert more.cost == pytest.approx(nominal.cost, rel=1e-6)
    assert more.cost == pytest.approx(cost_by_hand(more.plan, scenario), rel=1e-6)
    assert more.upper > 1.3 * nominal.upper  # with what nobody buys at a traffic that is not there
    (row,) = [r for r in tabulate_protections((nominal, more)).rows if r[0] == "headroom 1.5"]
    assert row[2] in ("+0.0%", "-0.0%")


def test_overloads_follow_the_distribution_of_the_shortfall(answer: FleetAnswer):
    """One type on one pair: load l (1 + xi s / (1 - s)), xi uniform, is above r with a probability of a ratio."""
    one = answer.scenario.with_fields(arrival_rate=np.array([3600.0 * 20, 0.0]))
    plan = Plan(
        0,
        (DeployedPair("Llama-3.1-8B", "H100", 1),),
        (Route("Chat", "Llama-3.1-8B", "H100", 1.0),),
        {"Document_QA": 1.0},
    )
    full = 20 * 3600 / float(one.one(0).throughput[0, 0, 0, 0]) / 0.9  # a rate at which the load is 0.9
    one = one.with_fields(arrival_rate=np.array([3600.0 * 20 / full, 0.0]))
    found = measure_load(plan, one, 0)
    assert found.load[:, 0].tolist() == pytest.approx([0.9, 0.0])
    assert found.replicas.tolist() == [1.0]
    short = float(one.one(0).throughput_shortfall[0, 0, 0])
    extra = 0.9 * short / (1 - short)
    assert found.extra[:, 0].tolist() == pytest.approx([extra, 0.0])
    assert found.worst.tolist() == pytest.approx([0.9 + extra])  # Gamma is 1: this type's rate falls short
    expected = 1 - (1 - 0.9) / extra
    above, over = count_overloads(plan, one)
    assert above == DRAWS  # 0.9 is above the 0.85 that is planned for
    assert over / DRAWS == pytest.approx(expected, abs=0.02)


def test_routing_is_as_even_as_can_be(answer: FleetAnswer):
    """Two pairs that serve one type at rates a and b are equally full where each has its part of a + b."""
    f = answer.scenario.one(0)
    one = answer.scenario.with_fields(arrival_rate=np.array([3600.0 * 20, 0.0]), gamma_throughput=0.0)
    pairs = (DeployedPair("Llama-3.1-8B", "H100", 1, 2), DeployedPair("Llama-3.1-8B", "B200", 1, 1))
    lopsided = Plan(0, pairs, (Route("Chat", "Llama-3.1-8B", "B200", 1.0),), {"Document_QA": 1.0})
    even = route_evenly(one, lopsided)
    found = measure_load(even, one, 0)
    a, b = (float(f.throughput[0, 0, k, 0]) for k in (0, 1))
    expected = 3600.0 * 20 / (2 * a + b)
    assert (found.load.sum(0) / found.replicas).tolist() == pytest.approx([expected] * 2, rel=2e-3)
    assert even.deployments == pairs
    assert check_plan(even, one, 0).feasible


def test_headroom_buys_for_more_and_routes_for_the_real_traffic(catalog: Path):
    request = PlanRequest(catalog, rates={"Chat": 100.0}, headroom=1.3)
    scenario = prepare(request).scenario
    assert float(scenario.one(0).gamma_throughput) == 0.0
    found = plan_fleet(catalog, rates={"Chat": 100.0}, headroom=1.3, workers=1)
    assert_brackets(
        found.found, scenario.with_fields(arrival_rate=np.array([130.0 * 3600]), gamma_throughput=0.0)
    )
    assert found.scenario.one(0).arrival_rate.tolist() == [100.0 * 3600]
    assert sum(r.share for r in found.plan.routes) == pytest.approx(1.0)
    assert found.fleet.headroom.factor >= 1.3 * (1 - 1e-6)
    assert "headroom 1.3" in found.alternatives()
    proof, protection = (
        next(line for line in write_sentences(found) if line.startswith(start))
        for start in ("It is bought for 1.3", "On this traffic")
    )
    assert numbers(proof) == pytest.approx([1.3, found.found.upper, found.found.lower], abs=0.005)
    costs = {p.name: p.cost for p in found.protections}
    extra = 100 * (costs["headroom 1.3"] / costs["nominal"] - 1)
    assert numbers(protection)[:2] == pytest.approx([extra, costs["nominal"]], rel=1e-2)


def test_only_named_types_carry_traffic(catalog: Path):
    inputs = prepare(PlanRequest(catalog, users={"Chat": 3000.0}, think_seconds=30.0))
    assert inputs.scenario.query_names == ("Chat",)
    assert inputs.scenario.one(0).arrival_rate.tolist() == [3000 / 30 * 3600]
    assert inputs.idle == ("Document_QA",)
    everyone = prepare(PlanRequest(catalog))
    assert everyone.scenario.query_names == ("Chat", "Document_QA")
    assert everyone.scenario.one(0).arrival_rate.tolist() == [216_000, 63_000]  # middles of uniform ranges


def test_traces_are_planned_at_the_level_asked_for(catalog: Path):
    inputs = prepare(PlanRequest(catalog, traces={"Chat": EXCERPT}))
    assert inputs.scenario.one(0).arrival_rate.tolist() == [370.0]
    (traffic,) = inputs.traffic
    assert traffic.statistics is not None
    rates = traffic.statistics.rates  # of nine windows: 70 140 200 200 210 220 240 270 370
    for level, rate in {"p50": 210.0, "p90": 370.0, "p99": 370.0, "mean": 5.0, "peak": 7.0}.items():
        assert pick_level(rates, level, 5.0, 7.0) == rate
    assert (traffic.input_tokens, traffic.output_tokens) == pytest.approx((1960.9, 26.09), rel=1e-3)
    assert traffic.basis == "measured"
    # the catalogue's rates are of 512 + 256 tokens, which is said
    assert any("Chat" in note and "512 + 256" in note for note in inputs.notes)


def test_what_is_given_is_in_the_catalogue(catalog: Path, tmp_path: Path):
    request = PlanRequest(
        catalog,
        rates={"Chat": 2.0},
        quotas={"B200": 3},
        promises={"Chat": "ttft_mean<=150ms"},
        api_prices={"": 2.0},
        shortfall=0.1,
        gamma=0.5,
    )
    inputs = prepare(request)
    path = tmp_path / "given.toml"
    path.write_text(inputs.catalog_text(tmp_path))
    again = rj.load_catalog(path)
    assert again.digest == inputs.catalog.digest
    assert str(again.promises["Chat"]) == "ttft_mean<=150ms"
    one = rj.sample(again.at_means(), n=1).one(0)
    assert one.gpu_quota.tolist() == [16, 3]
    assert one.unmet_penalty.tolist() == pytest.approx([2.0 * 768 / 1e6])
    assert np.unique(one.throughput_shortfall).tolist() == [0.1]
    assert float(one.gamma_throughput) == 0.5
    assert one.arrival_rate.tolist() == [7200]
    loose = prepare(replace(request, promises={})).scenario.one(0).throughput
    assert (inputs.scenario.one(0).throughput <= loose).all()
    assert (inputs.scenario.one(0).throughput < loose).any()


def test_price_lists_replace_prices(catalog: Path, tmp_path: Path):
    before = prepare(PlanRequest(catalog, rates={"Chat": 2.0})).scenario.one(0).gpu_price
    skypilot = tmp_path / "sky.csv"
    skypilot.write_text(
        "InstanceType,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region\n"
        "a,H100,2,8.0,4.0,x\nb,H100,1,6.0,3.0,y\n"
    )
    after = prepare(PlanRequest(catalog, rates={"Chat": 2.0}, prices=skypilot)).scenario.one(0).gpu_price
    assert after.tolist() == pytest.approx([5.0, before[1]])  # the mean of $4 and $6 a GPU
    with pytest.raises(InputError, match="price_map: got 'H100=B200', expected --prices too"):
        PlanRequest(catalog, rates={"Chat": 2.0}, price_map="H100=B200")


@pytest.mark.parametrize(
    ("text", "expected"), [("20", 20.0), ("20/s", 20.0), ("1200/min", 20.0), ("72000/h", 20.0), (20, 20.0)]
)
def test_rates_are_read_with_their_unit(text: Any, expected: float):
    assert read_rate(text, "Chat") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("$3/Mtok", 3.0), ("3 / Mtokens", 3.0), ("$0.003/ktok", 3.0), (3.0, 3.0)]
)
def test_prices_are_read_with_their_unit(text: Any, expected: float):
    assert read_price(text) == pytest.approx(expected)


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown type": ({"rates": {"Chta": 1}}, ("rates", "'Chta'", "did you mean Chat?")),
    "unknown type of a trace": ({"traces": {"Cod": EXCERPT}}, ("traces", "'Cod'")),
    "unknown GPU": ({"quotas": {"H10": 1}}, ("quotas", "'H10'", "did you mean H100?")),
    "unknown type of a price": ({"api_prices": {"Chatt": 1}}, ("api_prices", "did you mean Chat?")),
    "price of an idle type": (
        {"rates": {"Chat": 1}, "api_prices": {"Document_QA": 1}},
        ("api_prices", "carries traffic"),
    ),
    "unknown type of a promise": ({"promises": {"Cat": "ttft_mean<=1s"}}, ("promises", "'Cat'")),
    "latency not measured": (
        {"promises": {"Chat": "ttft_p99<=1s"}},
        ("promises", "ttft_p99", "ttft_mean", "tpot_mean", "e2e_mean"),
    ),
    "no promise": ({"promises": {"Chat": "fast"}}, ("promises", "Chat=fast", "ttft_p99<=500ms")),
    "promise nobody keeps": (
        {"promises": {"Chat": "ttft_mean<=5ms"}},
        ("promises", "Chat=ttft_mean<=5ms", "ms at best", "times the 5 ms promised"),
    ),
    "no traffic": ({"rates": {"Chat": 0}}, ("rates", "above 0")),
    "no users": ({"users": {"Chat": 0}}, ("users", "above 0")),
    "negative rate": ({"rates": {"Chat": "-3"}}, ("rates", "Chat=-3")),
    "rate in days": ({"rates": {"Chat": "3/d"}}, ("rates", "Chat=3/d", "/min")),
    "price without a unit": ({"api_prices": "$3"}, ("api_prices", "$3", "$3/Mtok")),
    "price of a gallon": ({"api_prices": "$3/gal"}, ("api_prices", "$3/gal")),
    "half a GPU": ({"quotas": {"H100": "1.5"}}, ("quotas", "H100=1.5", "whole")),
    "no GPU at all": ({"quotas": {"H100": 0, "B200": 0}}, ("quotas", "at least one GPU")),
    "two quotas of a device": ({"quotas": {"H100": 1, "H100 80GB": 2}}, ("quotas", "same device")),
    "twice the same type": ({"rates": {"Chat": 1}, "users": {"Chat": 1}}, ("Chat", "once")),
    "headroom and gamma": ({"headroom": 1.2, "gamma": 1}, ("gamma", "--headroom")),
    "headroom and shortfall": ({"headroom": 1.2, "shortfall": 0.1}, ("shortfall", "--headroom")),
    "headroom below 1": ({"headroom": 0.5}, ("headroom", ">= 1")),
    "shortfall of all": ({"shortfall": 1.0}, ("shortfall", "0.99")),
    "level": ({"traffic_at": "p42"}, ("traffic_at", "p95")),
    "start-up time": ({"start_minutes": 90}, ("start_minutes", "60")),
    "hours without a trace": ({"rates": {"Chat": 1}, "by_hour": True}, ("by", "--trace")),
    "gap": ({"gap": 2}, ("gap",)),
    "time limit": ({"time_limit": 0}, ("time_limit",)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_one_line(catalog: Path, what: str):
    options, needles = REFUSED[what]
    with pytest.raises(InputError) as caught:
        plan_fleet(catalog, workers=1, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for needle in needles:
        assert needle in text, (needle, text)


def test_catalogues_without_rates_are_refused():
    with pytest.raises(InputError, match="catalogue with rates"):
        plan_fleet("seed")


def test_hours_of_a_short_trace_are_refused(catalog: Path):
    with pytest.raises(InputError, match="at least one whole hour"):
        plan_fleet(catalog, traces={"Chat": EXCERPT}, by_hour=True)


def test_a_type_that_nobody_can_serve_is_named(tmp_path: Path):
    path = tmp_path / "strict.toml"
    strict = "values = { Chat = 1, Document_QA = 0.01 }"
    before, threshold, after = SMALL.partition("[quantity.error_threshold]")
    path.write_text(before + threshold + after.replace("each = { fixed = 1 }", strict, 1))
    found = plan_fleet(path, rates={"Chat": 20.0, "Document_QA": 2.0}, workers=1)
    assert set(found.unservable) == {"Document_QA"}
    assert found.plan.unmet["Document_QA"] == 1.0
    before, cap, after = path.read_text().partition("[quantity.unmet_cap]")
    path.write_text(before + cap + after.replace("each = { fixed = 1 }", "each = 0.5", 1))
    with pytest.raises(WorkFailed, match="Document_QA"):
        plan_fleet(path, rates={"Chat": 20.0, "Document_QA": 2.0}, workers=1)


def test_where_answers_cost_nothing_elsewhere_nothing_is_rented(catalog: Path):
    found = plan_fleet(catalog, rates={"Chat": 5}, api_prices=0.0, workers=1)
    assert found.plan.deployments == ()
    assert found.costs["total_cost"] == 0.0
    assert found.fleet.gpus == {}
    assert math.isnan(found.fleet.cost_per_million_tokens)
    text = write_sentences(found)
    assert text[0].startswith("Rent nothing")
    assert "100% of Chat" in " ".join(text)
    assert found.to_json()["answer"]["upper_bound"] == 0.0
    assert "Rent nothing" in render_plan_page(found, [])


def test_what_it_rests_on_is_weighed(answer: FleetAnswer, catalog: Path):
    rests = {name: answer.basis.find_shares(name) for name in WEIGHTS}
    assert rests["throughput"]["predicted"] == 1.0
    assert rests["gpu_price"]["measured"] == 1.0
    assert rests["arrival_rate"]["assumed"] == 1.0
    assert rests["gpu_quota"]["assumed"] == 1.0
    assert all(math.isclose(sum(shares.values()), 1.0) for shares in rests.values() if shares)
    said = next(line for line in write_sentences(answer) if line.startswith("It rests on: "))
    assert "traffic assumed" in said
    assert "prices of GPUs measured" in said
    mixed = prepare(
        PlanRequest(catalog, traces={"Chat": EXCERPT}, rates={"Document_QA": 1.0}, traffic_at="peak")
    )
    nothing = Plan(0, (), (), dict.fromkeys(mixed.scenario.query_names, 1.0))
    found = find_plan_basis(mixed.catalog, [(nothing, mixed.scenario, 0)])
    assert found.find_shares("arrival_rate")["measured"] == pytest.approx(370 / (370 + 3600), rel=1e-9)
    prompts = 370 * 1960.9
    assert found.find_shares("input_tokens")["measured"] == pytest.approx(
        prompts / (prompts + 3600 * 4096), rel=1e-3
    )
    assert found.find_shares("throughput") == {}


def test_catalogues_may_leave_out_quotas_and_shortfalls(tmp_path: Path):
    """What is left out means no limit, and quotas can be given all the same."""
    text = SMALL
    for name in ("gpu_quota", "throughput_shortfall", "gamma_throughput", "max_utilization"):
        before, head, after = text.partition(f"[quantity.{name}]")
        assert head
        text = before + after[after.index("\n\n") + 2 :]
    path = tmp_path / "bare.toml"
    path.write_text(text)
    found = plan_fleet(path, rates={"Chat": 100.0}, workers=1)
    assert found.limits == ()
    assert "no quota" not in {w.name for w in found.what_ifs}
    assert_brackets(found.found, prepare(PlanRequest(path, rates={"Chat": 100.0})).scenario)
    assert len({p.upper for p in found.protections if p.kind == "gamma"}) == 1  # nothing may fall short
    limited = prepare(PlanRequest(path, rates={"Chat": 100.0}, quotas={"H100": 1}, shortfall=0.2, gamma=1))
    fields = limited.scenario.one(0)
    assert fields.gpu_quota.tolist() == [1.0, math.inf]
    assert np.unique(fields.throughput_shortfall).tolist() == [0.2]
    assert float(fields.gamma_throughput) == 1.0
