"""A folder as `rodiu plan` writes it, for scenario 2 of the catalogue `serving`."""

from __future__ import annotations

import json
from pathlib import Path

import rodiu_jax as rj
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan


def solve_one(instances: Instances) -> Plan:
    """The best plan of one scenario, by HiGHS in this process."""
    from solvers.exact import solve_instance

    plan = solve_instance(instances, 0).plan_for(0)
    assert plan is not None
    return plan


def make_plan_folder(folder: Path) -> Path:
    """Write the robust plan, the nominal one, and the nominal one for 1.2 times the traffic."""
    scenario = rj.sample("serving", n=3, seed=1).take([2])
    nominal = scenario.with_fields(gamma_throughput=0.0)
    busier = nominal.with_fields(arrival_rate=nominal.one(0).arrival_rate * 1.2)
    folder.mkdir(parents=True, exist_ok=True)
    scenario.save(folder / "scenario.npz")
    rj.save_plans([solve_one(scenario)], folder / "plan.json")
    (folder / "catalog.toml").write_text('[catalog]\nname = "planned"\nextends = "serving"\n')
    others = {
        "nominal": {"plan": solve_one(nominal).to_json(), "what": "every rate is trusted"},
        "headroom 1.2": {"plan": solve_one(busier).to_json(), "what": "made for 1.2 times the traffic"},
    }
    (folder / "alternatives.json").write_text(json.dumps(others))
    return folder
