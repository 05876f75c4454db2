"""A day hour by hour: rates counted by hand, bounds solved again, schedules against every way round the clock."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.decisions.planning.day import Clock, Day, make_day
from rodiu_jax.decisions.planning.inputs import prepare
from rodiu_jax.decisions.planning.plan import FleetAnswer, plan_fleet
from rodiu_jax.decisions.planning.request import PlanRequest
from rodiu_jax.decisions.planning.schedule import (
    _cost_change,
    _find_parts,
    count_gpus,
    count_started,
    find_schedule,
    go_round,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.plan import DeployedPair
from rodiu_jax.report.text.plan_sentences import say_day
from rodiu_jax.report.text.plan_tables import tabulate_hours
from solvers.exact import solve_instance
from tests.oracles.planning import SMALL, write_trace

HOURS = 6
COUNTS = [200, 100, 900, 3000, 2500, 600]
"""Documents in every tenth of the hours 0 to 5: a replica sustains some 10,000 an hour."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    before, quota, after = SMALL.partition("[quantity.gpu_quota]")
    text = before + quota + re.sub(r"values\.(H100|B200) = .*", r"values.\1 = 6", after, count=2)
    (folder / "small.toml").write_text(text)
    write_trace(folder / "docs.csv", lambda hour: COUNTS[hour], hours=HOURS, tokens=(4096, 512))
    return folder


@pytest.fixture(scope="module")
def answer(folder: Path) -> FleetAnswer:
    return plan_fleet(
        folder / "small.toml",
        traces={"Document_QA": folder / "docs.csv"},
        rates={"Chat": 12.0},
        api_prices="$5/Mtok",
        by_hour=True,
        start_minutes=10.0,
        workers=1,
    )


@pytest.fixture(scope="module")
def day(answer: FleetAnswer) -> Day:
    assert answer.day is not None
    return answer.day


def test_hours_have_the_rates_of_their_windows(day: Day):
    assert [h.hour for h in day.hours] == list(range(HOURS))
    for h, count in zip(day.hours, COUNTS, strict=True):
        assert h.rates["Document_QA"] == pytest.approx(count * 10)
        assert h.rates["Chat"] == pytest.approx(12 * 3600)


def test_each_hour_is_bracketed(day: Day):
    for b, h in enumerate(day.hours):
        again = solve_instance(day.scenarios, b, gap=1e-6)
        assert h.lower <= again.upper / 24 * (1 + 1e-6)
        assert h.upper >= again.lower / 24 * (1 - 1e-6)
        assert h.upper - h.lower <= 0.01 * h.upper * (1 + 1e-9)
    assert day.hourly_lower == pytest.approx(np.mean([h.lower for h in day.hours]))
    assert day.hourly_upper == pytest.approx(np.mean([h.upper for h in day.hours]))


def test_the_fixed_fleet_is_between_the_hours_and_their_envelope(day: Day):
    costs = [check_plan(p, day.scenarios, b).costs["total_cost"] / 24 for b, p in enumerate(day.fixed_plans)]
    assert day.fixed_upper == pytest.approx(np.mean(costs))
    assert [h.fixed for h in day.hours] == pytest.approx(costs)
    assert day.fixed_upper - day.fixed_lower <= 0.01 * day.fixed_upper * (1 + 1e-9)
    assert day.hourly_lower <= day.schedule.cost <= day.fixed_upper * (1 + 1e-9)
    rates = np.stack([day.scenarios.one(b).arrival_rate for b in range(HOURS)])
    single = day.scenarios.take([0]).with_fields(arrival_rate=rates.max(0))
    envelope = solve_instance(single, 0, gap=1e-6)
    assert day.fixed_lower <= envelope.upper / 24 * (1 + 1e-6)
    low, high = day.worth
    assert low == pytest.approx(max(day.fixed_lower - day.hourly_upper, 0.0))
    assert high == pytest.approx(day.fixed_upper - day.hourly_lower)


def test_changing_the_fleet_pays(day: Day):
    """Traffic that differs thirtyfold needs other fleets: proven, and neither is reached by the other."""
    assert day.worth[0] > 0.1 * day.fixed_upper
    assert len({p.deployments for p in day.hourly_plans}) >= 3
    assert len({p.deployments for p in day.schedule.plans}) >= 2
    assert day.hourly_lower < day.schedule.cost < day.fixed_lower


def test_gpu_hours_are_sums(day: Day):
    fixed = count_gpus(day.fixed_plans[0].deployments)
    assert day.gpu_hours["fixed"] == fixed * HOURS
    assert day.gpu_hours["hourly"] == sum(count_gpus(p.deployments) for p in day.hourly_plans)
    fleets = [p.deployments for p in day.schedule.plans]
    started = [count_started(fleets[b], fleets[b + 1]) for b in range(HOURS - 1)] + [
        0
    ]  # hour 6 is not covered
    assert list(day.schedule.starting) == started
    assert day.gpu_hours["scheduled"] == pytest.approx(sum(map(count_gpus, fleets)) + sum(started) / 6)
    price = dict(zip(day.scenarios.gpu_names, day.scenarios.one(0).gpu_price.tolist(), strict=True))
    paid = sum(
        check_plan(p, day.scenarios, b).costs["total_cost"] / 24 for b, p in enumerate(day.schedule.plans)
    )
    for now, then in itertools.pairwise(fleets):
        held = {(d.model, d.gpu, d.tp): d.replicas for d in now}
        for d in then:
            more = max(d.replicas - held.get((d.model, d.gpu, d.tp), 0), 0)
            paid += price[d.gpu] * d.tp * more * 10 / 60
    assert day.schedule.cost == pytest.approx(paid / HOURS)


def test_without_a_start_up_time_the_schedule_is_the_cheapest_of_each_hour(day: Day):
    fixed, follows = day.fixed_plans[0].deployments, day.clock.follows
    found = find_schedule(day.scenarios, day.hourly_plans, fixed, 0.0, follows=follows)
    assert found.cost == pytest.approx(day.hourly_upper)
    slow = find_schedule(day.scenarios, day.hourly_plans, fixed, 60.0, follows=follows)
    assert found.cost <= day.schedule.cost * (1 + 1e-9) <= slow.cost * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_way_round_is_the_best_of_all(seed: int):
    rng = np.random.default_rng(seed)
    hours, count = 5, 3
    cost = rng.uniform(0, 10, (hours, count))
    cost[rng.random((hours, count)) < 0.2] = math.inf
    cost[:, 0] = rng.uniform(5, 15, hours)  # one column is always there
    change = rng.uniform(0, 4, (count, count))
    change[rng.random((count, count)) < 0.2] = math.inf
    np.fill_diagonal(change, 0.0)
    follows = [True] * hours if seed < 2 else (rng.random(hours) < 0.6).tolist()

    def total(path: tuple[int, ...]) -> float:
        pairs = zip(path, (*path[1:], path[0]), follows, strict=True)
        return sum(cost[b, c] for b, c in enumerate(path)) + sum(change[a, c] for a, c, paid in pairs if paid)

    best = min(total(path) for path in itertools.product(range(count), repeat=hours))
    assert total(tuple(go_round(cost, change, follows))) == pytest.approx(best)


def test_changes_cost_what_starts_and_fit_the_quotas(day: Day):
    price = dict(zip(day.scenarios.gpu_names, day.scenarios.one(0).gpu_price.tolist(), strict=True))
    one = (DeployedPair("Llama-3.1-8B", "H100", 1, 2),)
    more = (DeployedPair("Llama-3.1-8B", "H100", 1, 4), DeployedPair("Qwen3-30B-A3B", "B200", 2, 1))
    assert _cost_change(one, more, day.scenarios, 15.0) == pytest.approx(
        (2 * price["H100"] + 2 * price["B200"]) / 4
    )
    assert _cost_change(more, one, day.scenarios, 15.0) == 0.0
    other = (DeployedPair("Llama-3.1-8B", "H100", 2, 3),)  # 4 GPUs beside 6 new ones, of a quota of 6
    assert _cost_change(more, other, day.scenarios, 15.0) == math.inf
    assert count_started(more, other) == 6


def test_what_is_rented_at_once_keeps_replicas_budget_and_storage(day: Day):
    """Each limit just as large as what the two fleets need together, and a thousandth smaller."""
    price = dict(zip(day.scenarios.gpu_names, day.scenarios.one(0).gpu_price.tolist(), strict=True))
    weight = dict(zip(day.scenarios.model_names, day.scenarios.one(0).weight_memory.tolist(), strict=True))
    now = (DeployedPair("Llama-3.1-8B", "H100", 1, 2),)
    then = (DeployedPair("Llama-3.1-8B", "H100", 2, 1), DeployedPair("Qwen3-30B-A3B", "B200", 1, 1))
    rent = 4 * price["H100"] + price["B200"]
    stored = weight["Llama-3.1-8B"] + weight["Qwen3-30B-A3B"]
    data = max(
        sum(
            rate * 0.001 * tokens / 1000
            for rate, tokens in zip(day.scenarios.one(b).arrival_rate, (768, 4608), strict=True)
        )
        for b in range(HOURS)
    )
    kept = day.scenarios.with_fields(storage_price=0.01, token_size=np.full(2, 0.001))
    spent = 24 * (rent + 0.01 * (stored + data))
    for field, least in {"max_replicas": 3.0, "budget": spent, "storage_capacity": stored}.items():
        whole = np.full((2, 2), 3) if field == "max_replicas" else least
        less = np.full((2, 2), 2) if field == "max_replicas" else least * 0.999
        assert math.isfinite(_cost_change(now, then, kept.with_fields(**{field: whole}), 5.0)), field
        assert _cost_change(now, then, kept.with_fields(**{field: less}), 5.0) == math.inf, field
        assert _cost_change(then, then, kept.with_fields(**{field: less}), 5.0) == 0.0  # nothing starts


def test_without_time_a_schedule_does_without_parts_of_the_fixed_fleet(day: Day):
    fixed = day.fixed_plans[0].deployments
    assert _find_parts(day.scenarios, fixed, 0.0) == []
    found = find_schedule(
        day.scenarios, day.hourly_plans, fixed, 10.0, follows=day.clock.follows, time_limit=0.0
    )
    assert day.schedule.cost * (1 - 1e-9) <= found.cost <= day.fixed_upper * (1 + 1e-9)


def test_hours_that_are_not_next_to_each_other_are_no_neighbours():
    assert Clock((3, 4, 9), dated=True).follows == (True, False, False)
    assert Clock((0, 1, 23), dated=True).follows == (True, False, True)
    assert Clock(tuple(range(24)), dated=True).follows == (True,) * 24
    assert Clock((5,), dated=True).follows == (False,)


def test_hours_that_traces_do_not_share_are_left_out(folder: Path):
    write_trace(folder / "chat.csv", lambda hour: 3, hours=3)
    request = PlanRequest(
        folder / "small.toml", traces={"Chat": folder / "chat.csv", "Document_QA": folder / "docs.csv"}
    )
    inputs = prepare(request)
    clock, scenarios = make_day(inputs.scenario, inputs.traffic, "p95")
    assert clock == Clock((0, 1, 2), dated=True)
    assert scenarios.size == 3
    write_trace(folder / "short.csv", lambda hour: 3, hours=1)
    lines = (folder / "short.csv").read_text().splitlines()
    (folder / "short.csv").write_text("\n".join(lines[:20]) + "\n")
    inputs = prepare(PlanRequest(folder / "small.toml", traces={"Chat": folder / "short.csv"}))
    with pytest.raises(InputError, match=r"whole hour of the day in common: those of Chat span 0\.6"):
        make_day(inputs.scenario, inputs.traffic, "p95")


def write_counted(path: Path, rate: int, hours: int) -> Path:
    """Write a trace whose times are seconds from a start that nobody dates."""
    times = np.arange(hours * rate + 1) * (3600.0 / rate)
    rows = "\n".join(f"{t:.3f},500,250" for t in times)
    path.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    return path


def test_hours_without_dates_are_of_the_trace(folder: Path):
    """Six hours from the start are no hours of the day: nobody says when the trace began."""
    trace = write_counted(folder / "counted.csv", 40, 6)
    inputs = prepare(PlanRequest(folder / "small.toml", traces={"Chat": trace}))
    clock, scenarios = make_day(inputs.scenario, inputs.traffic, "mean")
    assert clock == Clock((0, 1, 2, 3, 4, 5), dated=False)
    assert (clock.of, clock.name(5)) == ("the trace", "hour 5")
    assert clock.follows == (True,) * 5 + (False,)
    assert [float(scenarios.one(b).arrival_rate[0]) for b in range(6)] == [40.0] * 6
    longer = write_counted(folder / "longer.csv", 10, 30)
    inputs = prepare(PlanRequest(folder / "small.toml", traces={"Chat": longer}))
    clock, _ = make_day(inputs.scenario, inputs.traffic, "mean")
    assert (clock.of, len(clock.hours), all(clock.follows)) == ("each 24 hours of the trace", 24, True)


def test_traces_with_and_without_dates_share_no_hours(folder: Path):
    counted = write_counted(folder / "counted.csv", 40, 6)
    traces = {"Chat": counted, "Document_QA": folder / "docs.csv"}
    inputs = prepare(PlanRequest(folder / "small.toml", traces=traces))
    with pytest.raises(
        InputError, match=r"traces that all have dates, or none of them: .* of Chat count from .* Document_QA"
    ):
        make_day(inputs.scenario, inputs.traffic, "p95")


def test_sentences_of_a_day_name_its_clock_and_missing_bounds(answer: FleetAnswer, day: Day):
    text = " ".join(say_day(answer))
    assert "Over the 6 hours of the day that the traces cover," in text
    assert "where the next hour is not covered" in text
    counted = replace(day, clock=replace(day.clock, dated=False), hourly_lower=-math.inf)
    text = " ".join(say_day(replace(answer, day=counted)))
    assert (
        "Over the 6 hours of the trace that the traces cover, counted from the first request of each," in text
    )
    assert "Nothing is proven about how much less" in text
    assert "$-" not in text
    assert [row[0] for row in tabulate_hours(counted).rows] == [f"hour {h}" for h in range(6)]
    assert [row[0] for row in tabulate_hours(day).rows][:2] == ["00-01", "01-02"]
    hours = (replace(day.hours[0], lower=-math.inf), *day.hours[1:])
    assert tabulate_hours(replace(day, hours=hours)).rows[0][2] == "no bound"
