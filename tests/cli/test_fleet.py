"""What `rodiu solve` says of scenarios with replicas, rates and quotas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.decisions.fleet import summarize_fleet
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan_json import plan_from_json
from tests.cli.calls import Run, answered, drawn
from tests.golden import Golden
from tests.oracles.serving import serving_instances, stack

SHAPE = (3, 2, 2, 2)


def fleet_scenarios() -> Instances:
    """Two scenarios in which delays cost nothing; in the second q1 cannot be served, although half of it must."""
    first = serving_instances(1, SHAPE, delay_penalty=np.zeros(3), max_replicas=np.full((2, 2), 3))
    throughput = np.array(first.fields.throughput)
    throughput[1] = 0.0
    return stack([first, first.with_fields(throughput=throughput, unmet_cap=0.5)])


def test_solve_shows_the_fleet(rodiu: Run, here: Path, golden: Golden):
    instances = fleet_scenarios()
    instances.save(here / "in.npz")
    text = answered(rodiu("solve", "in.npz", "--workers", 1)).out
    golden("cli/solve-fleet", text[text.index("Fleets") :], numbers=False)
    one, other = json.loads(answered(rodiu("solve", "in.npz", "--workers", 1, "--json")).out)
    plan = plan_from_json(one["plan"], instances)
    expected = summarize_fleet(plan, instances, 0).to_json()
    assert one["fleet"] == expected
    assert one["fleet"]["rent_per_hour"] * instances.one(0).rental_hours == pytest.approx(
        one["costs"]["rental_cost"]
    )
    assert one["costs"]["delay_cost"] == 0.0
    assert (other["status"], other["fleet"]) == ("infeasible", None)
    assert "q1 (its throughput is 0" in other["message"]
    assert any(line.startswith("Scenario 1 has no plan: nobody can serve q1") for line in text.splitlines())


def test_scenarios_without_the_extension_have_no_fleet(rodiu: Run, here: Path):
    drawn(here, n=1)
    assert "Fleets" not in answered(rodiu("solve", "in.npz", "--workers", 1)).out
    (item,) = json.loads(answered(rodiu("solve", "in.npz", "--workers", 1, "--json")).out)
    assert set(item) == {"instance", "status", "objective", "bound", "gap", "costs", "plan", "seconds"}
