"""What robust rates cost and buy: by hand, by optima and checks of their own, and what people read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rodiu_jax.decisions.rate_robustness import FACTORS
from rodiu_jax.decisions.robustness import Robustness, robustness
from rodiu_jax.model.check import check_plan
from rodiu_jax.report.text.robustness_section import describe_robustness, robustness_to_json
from solvers.exact import solve_instance
from tests.oracles.instances import random_instances
from tests.oracles.serving import serving_instances, stack

SHAPE = (3, 2, 2, 2)


def one_pair(**values: Any) -> Robustness:
    """One type that takes one replica at $1, or two where its rate falls short by half; nothing else costs."""
    plain = {
        "arrival_rate": [10.0], "throughput": [[[[10.0]]]], "throughput_shortfall": [[[0.5]]], "max_replicas": [[9]],
        "storage_price": 0.0, "delay_penalty": [0.0], "delay_threshold": [1e9], "error_threshold": [1.0],
        "kv_per_token": [0.0], "budget": 1e6, "gpu_memory": [100.0], "rental_hours": 1.0, "gpu_price": [1.0],
        "compute_per_token": [0.0], "storage_capacity": 1e6, "unmet_penalty": [100.0],
    }  # fmt: skip
    instances = random_instances(0, (1, 1, 1, 1), mode="diu", **(plain | values))
    return robustness(instances, gammas=[0, 0.5, 1], draws=2000, workers=1)


def test_replicas_by_hand():
    found = one_pair().rates
    assert found is not None
    assert found.curve["gamma"].tolist() == [0.0, 0.5, 1.0]
    assert found.curve["cost"].tolist() == pytest.approx([1.0, 2.0, 2.0])  # loads 1, 1.5, 2
    # One replica is too few as soon as anything falls short, two never are.
    assert found.curve["uniform"].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)
    assert found.curve["bound"].tolist() == [1.0, 0.0, 0.0]
    assert found.headroom["factor"].tolist() == list(FACTORS)
    assert found.headroom["cost"].tolist() == pytest.approx([1.0, *[2.0] * 6])  # more than one is two
    assert found.headroom["beta"].tolist() == pytest.approx([1.0, *[0.0] * 6], abs=1e-3)
    assert found.curve["factor"].tolist() == pytest.approx([1.0, 2.0, 2.0])
    assert found.curve["factor_uniform"].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)
    assert (found.scenarios, found.left_out) == (1, 0)


def test_the_bound_is_that_of_a_half():
    # 1 + 0.5 chi over 1.25, as U is 0.9 of 2 at a load of 1.44: gamma 0 breaks where chi is above 0.25
    short = {"throughput_shortfall": [[[1 / 3]]], "arrival_rate": [14.4], "max_utilization": 0.9}
    found = one_pair(**short).rates
    assert found is not None
    first = found.curve.iloc[0]
    chance = 1 - (0.9 * 2 - 1.44) / (1.44 * 0.5)
    assert first["uniform_lower"] - 0.02 <= chance <= first["uniform_upper"] + 0.02
    assert first["uniform"] <= first["bound"] == 1.0


def test_rows_are_optima_at_the_true_traffic_and_never_less_safe():
    scenarios = [
        serving_instances(s, SHAPE, unmet_penalty=np.full(3, 30.0), budget=2000.0, gamma_throughput=1.0)
        for s in (1, 2)
    ]
    instances = stack(scenarios)
    result = robustness(instances, gammas=[0, 1, 3], draws=3000, workers=1)
    found = result.rates
    assert found is not None
    for gamma, row in zip((0.0, 1.0, 3.0), found.curve.to_dict("records"), strict=True):
        answers = [solve_instance(s.with_fields(gamma_throughput=gamma), 0) for s in scenarios]
        assert row["cost"] == pytest.approx(np.mean([a.upper for a in answers]), rel=1e-5)
        assert row["lower_bound"] <= row["cost"] * (1 + 1e-6)
        assert row["uniform_lower"] <= row["bound"]
    assert found.curve["cost"].is_monotonic_increasing
    assert found.curve["uniform"].iloc[-1] == 0.0, "every type may fall short at once"
    for factor, row in zip(FACTORS, found.headroom.to_dict("records"), strict=True):
        costs = []
        for s in scenarios:
            trusting = s.with_fields(gamma_throughput=0.0, arrival_rate=s.one(0).arrival_rate * factor)
            plan = solve_instance(trusting, 0).plan_for(0)
            assert plan is not None
            costs.append(check_plan(plan, s, 0).costs["total_cost"])
        assert row["cost"] == pytest.approx(np.mean(costs), rel=0.02), "other plans may cost the same there"
    assert found.headroom["cost"].iloc[0] == pytest.approx(found.curve["cost"].iloc[0], rel=1e-5)
    section, item = describe_robustness(result), robustness_to_json(result)
    assert [t.name for t in section.tables] == ["curve", "value", "rates", "headroom"]
    for table in section.tables[2:]:
        assert all(len(row) == len(table.heads) for row in table.rows)
        assert "nan" not in str(table.rows)
    assert any(line.startswith(("Rates:", "No Gamma_q")) for line in section.points)
    assert len(json.loads(json.dumps(item, allow_nan=False))["rates"]) == 3
