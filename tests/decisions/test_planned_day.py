"""A day hour by hour: rates counted by hand, bounds solved again, schedules against every way round the clock."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.decisions.planning.day import Day, make_day
from rodiu_jax.decisions.planning.inputs import prepare
from rodiu_jax.decisions.planning.plan import FleetAnswer, plan_fleet
from rodiu_jax.decisions.planning.request import PlanRequest
from rodiu_jax.decisions.planning.schedule import (
    _cost_change,
    count_gpus,
    count_started,
    find_schedule,
    go_round,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.plan import DeployedPair
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
    started = [count_started(fleets[b], fleets[(b + 1) % HOURS]) for b in range(HOURS)]
    assert list(day.schedule.starting) == started
    assert day.gpu_hours["scheduled"] == pytest.approx(sum(map(count_gpus, fleets)) + sum(started) / 6)
    price = dict(zip(day.scenarios.gpu_names, day.scenarios.one(0).gpu_price.tolist(), strict=True))
    paid = sum(
        check_plan(p, day.scenarios, b).costs["total_cost"] / 24 for b, p in enumerate(day.schedule.plans)
    )
    for now, then in zip(fleets, fleets[1:] + fleets[:1], strict=True):
        held = {(d.model, d.gpu, d.tp): d.replicas for d in now}
        for d in then:
            more = max(d.replicas - held.get((d.model, d.gpu, d.tp), 0), 0)
            paid += price[d.gpu] * d.tp * more * 10 / 60
    assert day.schedule.cost == pytest.approx(paid / HOURS)


def test_without_a_start_up_time_the_schedule_is_the_cheapest_of_each_hour(day: Day):
    found = find_schedule(day.scenarios, day.hourly_plans, day.fixed_plans[0].deployments, 0.0)
    assert found.cost == pytest.approx(day.hourly_upper)
    slow = find_schedule(day.scenarios, day.hourly_plans, day.fixed_plans[0].deployments, 60.0)
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

    def total(path: tuple[int, ...]) -> float:
        pairs = zip(path, (*path[1:], path[0]), strict=True)
        return sum(cost[b, c] for b, c in enumerate(path)) + sum(change[a, c] for a, c in pairs)

    best = min(total(path) for path in itertools.product(range(count), repeat=hours))
    assert total(tuple(go_round(cost, change))) == pytest.approx(best)


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


def test_hours_that_traces_do_not_share_are_left_out(folder: Path):
    write_trace(folder / "chat.csv", lambda hour: 3, hours=3)
    request = PlanRequest(
        folder / "small.toml", traces={"Chat": folder / "chat.csv", "Document_QA": folder / "docs.csv"}
    )
    inputs = prepare(request)
    hours, scenarios = make_day(inputs.scenario, inputs.traffic, "p95")
    assert hours == [0, 1, 2]
    assert scenarios.size == 3
    write_trace(folder / "short.csv", lambda hour: 3, hours=1)
    lines = (folder / "short.csv").read_text().splitlines()
    (folder / "short.csv").write_text("\n".join(lines[:20]) + "\n")
    inputs = prepare(PlanRequest(folder / "small.toml", traces={"Chat": folder / "short.csv"}))
    with pytest.raises(InputError, match=r"whole hour of the day in common: those of Chat span 0\.6"):
        make_day(inputs.scenario, inputs.traffic, "p95")
