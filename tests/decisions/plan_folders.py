"""A folder as `rodiu plan` writes it, for the mean scenario of the catalogue `serving`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import rodiu_jax as rj
from rodiu_jax.catalog import Catalog
from rodiu_jax.model.fields import FILE_FIELDS
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import Plan


def solve_one(instances: Instances) -> Plan:
    """The best plan of one scenario, by HiGHS in this process."""
    from solvers.exact import solve_instance

    plan = solve_instance(instances, 0).plan_for(0)
    assert plan is not None
    return plan


def mean_scenario(catalog: Catalog) -> Instances:
    """The middle of the range of every field: nothing is drawn, and so nothing compiled."""
    values: dict[str, Any] = {"tp_degree": np.array([int(n) for n in catalog.sets["tp"]])}
    for name in FILE_FIELDS:
        if name in catalog.quantities:
            low, high = catalog.ranges[name]
            values[name] = low if np.array_equal(low, high) else (low + high) / 2
    sets = catalog.sets
    return make_instances(
        sets["query"], sets["model"], sets["gpu"], "ddu", values, gpu_devices=catalog.gpu_devices
    )


def make_plan_folder(folder: Path) -> Path:
    """Write the robust plan, the nominal one, and the nominal one for 1.2 times the traffic."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "catalog.toml"
    path.write_text('[catalog]\nname = "planned"\nextends = "serving"\n')
    scenario = mean_scenario(rj.load_catalog(path))
    nominal = scenario.with_fields(gamma_throughput=0.0)
    busier = nominal.with_fields(arrival_rate=nominal.one(0).arrival_rate * 1.2)
    scenario.save(folder / "scenario.npz")
    rj.save_plans([solve_one(scenario)], folder / "plan.json")
    others = {
        "nominal": {"plan": solve_one(nominal).to_json(), "what": "every rate is trusted"},
        "headroom 1.2": {"plan": solve_one(busier).to_json(), "what": "made for 1.2 times the traffic"},
    }
    (folder / "alternatives.json").write_text(json.dumps(others))
    return folder
