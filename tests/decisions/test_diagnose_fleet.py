"""Diagnosis of scenarios with replicas, rates and quotas: one more of each, solved again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rodiu_jax.decisions.diagnose.diagnosis import diagnose
from rodiu_jax.decisions.diagnose.fleet_limits import loosen_fleet
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import DeployedPair, Plan
from rodiu_jax.report.text.diagnosis_section import describe_diagnosis
from solvers.exact import solve_instance
from tests.golden import Golden, section_words
from tests.oracles.instances import random_instances


def short_of_gpus(**values: Any) -> Instances:
    """100 queries/h at $1 each unmet; a replica takes 40 at full load for $4 on g0 and for $9 on g1.

    One GPU of g0 and two of g1 may be had; at a load of 0.8 the three take 96: $22 of rent and 4 unserved.
    """
    plain = {
        "arrival_rate": [100.0], "throughput": [[[[40.0], [40.0]]]], "max_replicas": [[2, 2]],
        "gpu_quota": [1.0, np.inf], "max_utilization": 0.8, "gpu_price": [4.0, 9.0], "unmet_penalty": [1.0],
        "storage_price": 0.0, "delay_penalty": [0.0], "delay_threshold": [1e9], "error_threshold": [1.0],
        "kv_per_token": [0.0], "budget": 1e6, "gpu_memory": [100.0, 100.0], "rental_hours": 1.0,
        "compute_per_token": [0.0], "storage_capacity": 1e6, "gamma_delay": 0.0, "gamma_error": 0.0,
    }  # fmt: skip
    return random_instances(0, (1, 1, 2, 1), **(plain | values))


def test_one_more_of_each(golden: Golden):
    instances = short_of_gpus()
    found = diagnose(instances, 0, workers=1)
    assert found.answer.upper == pytest.approx(26.0)  # 22 of rent, 4 unserved
    saved = {a.name: (a.saving_lower, a.saving_upper) for a in found.adjustments}
    # Two of g0 and two of g1 serve all for $26; two of g0 and one of g1 serve 96 for $17: $21
    assert saved["quota of g0 1 -> 2"] == pytest.approx((5.0, 5.0), abs=1e-4)
    # A third of g1 costs $9 and brings 4
    assert saved["replicas of m0@g1 2 -> 3"] == pytest.approx((0.0, 0.0), abs=1e-4)
    # 34 each: 102, everyone for $22
    assert saved["load of a replica 0.8 -> 0.85"] == pytest.approx((4.0, 4.0), abs=1e-4)
    assert (found.binding, found.idle, found.priced) == ([], [], False)
    assert found.everyone.unmet == {"q0": pytest.approx(0.04)}
    levers = {lever.field: lever.enough for lever in found.everyone.levers}
    assert levers["throughput"] == pytest.approx(100 / 96, rel=0.01)
    assert levers["gpu_quota"] == pytest.approx(2.0, rel=0.01)
    json.dumps(found.to_json(), allow_nan=False)
    golden("decisions/diagnose-fleet", section_words(describe_diagnosis(found)), numbers=False)


def test_changes_are_of_whole_devices_and_of_full_pairs():
    instances = short_of_gpus(gpu_quota=[3.0, 3.0])
    values = instances.fields._asdict()
    del values["gpu_device"]
    shared = make_instances(*instances.names[:3], "ddu", values, gpu_devices=["d", "d"])
    plan = Plan(0, (DeployedPair("m0", "g0", 1, 2), DeployedPair("m0", "g1", 1, 1)), (), {})
    changes = loosen_fleet(shared, 0, plan)
    assert list(changes) == ["quota of d 3 -> 4", "replicas of m0@g0 2 -> 3", "load of a replica 0.8 -> 0.85"]
    assert changes["quota of d 3 -> 4"]["gpu_quota"].tolist() == [4.0, 4.0]
    assert changes["replicas of m0@g0 2 -> 3"]["max_replicas"].tolist() == [[3, 2]]
    assert list(loosen_fleet(shared, 0, None))[1] == "one more replica of every pair"
    assert loosen_fleet(random_instances(0, (1, 1, 2, 1)), 0, plan) == {}
    full = shared.with_fields(max_utilization=0.98)
    assert list(loosen_fleet(full, 0, plan))[-1] == "load of a replica 0.98 -> 1"


def test_no_plan_with_a_fleet():
    instances = short_of_gpus(unmet_cap=0.01)
    assert not solve_instance(instances, 0).has_plan
    found = diagnose(instances, 0, workers=1)
    works = {a.name for a in found.adjustments if np.isfinite(a.upper_bound)}
    assert works >= {"quota of g0 1 -> 2", "one more replica of every pair", "load of a replica 0.8 -> 0.85"}
    json.dumps(found.to_json(), allow_nan=False)
