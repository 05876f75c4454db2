"""The smallest set of limits that leaves no plan: against every fleet tried, known answers, what is left unproven."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from rodiu_jax.decisions.diagnose.conflict import Conflict, find_conflict, keep_limits, list_limits
from rodiu_jax.decisions.diagnose.diagnosis import diagnose
from rodiu_jax.model.fields import FILE_FIELDS, axes_of
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.status import Status
from rodiu_jax.report.text.diagnosis_section import write_sentences
from solvers.answers import Answer
from solvers.feasibility import FeasibilityTask, find_any_plan
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances
from tests.oracles.serving import serving_instances, stack


def find_plan(one: Instances) -> Answer:
    return find_any_plan(FeasibilityTask(one))


def labels(found: Conflict | None) -> set[str]:
    assert found is not None
    return {m.label for m in found.limits}


# ---- every fleet tried ----


def leaves_no_plan(instances: Instances, kept: Iterable[str], *, most: int) -> bool:
    """Whether no fleet keeps the limits of these labels, all others lifted by the test's own hand.

    Args:
      most: replicas of a pair that are as good as any number.
    """
    kept, f = set(kept), instances.one(0)
    types = [i for i, q in enumerate(instances.query_names) if f"unmet[{q}]" in kept]
    if not types:
        return False
    values: dict[str, Any] = {}
    for name in FILE_FIELDS:
        value = np.asarray(getattr(f, name)).copy()
        values[name] = value[types] if axes_of(name, value.ndim).startswith("I") else value
    names = [instances.query_names[i] for i in types]
    for i, q in enumerate(names):
        if f"delay[{q}]" not in kept:
            values["delay_threshold"][i] = 1e7
        if f"error[{q}]" not in kept:
            values["error_threshold"][i] = 1e3
    for k, device in enumerate(instances.gpu_devices):
        if f"quota[{device}]" not in kept and values["gpu_quota"].ndim:
            values["gpu_quota"][k] = math.inf
    large = {
        "memory": "gpu_memory",
        "compute": "gpu_compute",
        "storage": "storage_capacity",
        "budget": "budget",
    }
    for label, name in large.items():
        if label not in kept:
            values[name] = np.full(values[name].shape, 1e7)
    if "routes" not in kept:
        values["max_routes"] = np.asarray(0)
    if "throughput" not in kept:
        values["max_utilization"] = np.asarray(1.0)
    if "replicas" not in kept and values["max_replicas"].ndim:
        values["max_replicas"] = np.full(values["max_replicas"].shape, most)
    lifted = make_instances(
        names, *instances.names[1:3], instances.uncertainty, values, gpu_devices=instances.gpu_devices
    )
    return math.isinf(cheapest(lifted, 0))


def tight(seed: int, mode: str) -> Instances:
    """Two types on two configurations, with whole fleets of at most seven replicas a pair, often without a plan."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 2:  # sections 1 to 5 alone
        return random_instances(
            seed, (2, 2, 1, 2), mode=mode, unmet_cap=rng.choice([0.0, 0.3]), max_routes=seed % 2,
            error_threshold=rng.uniform(0.05, 0.3, 2), delay_threshold=rng.uniform(100.0, 900.0, 2),
            budget=rng.uniform(20.0, 120.0),
        )  # fmt: skip
    base = serving_instances(seed, (2, 1, 2, 1), mode=mode, devices=["d", "d"] if seed % 2 else None)
    rate = base.one(0).arrival_rate
    return base.with_fields(
        unmet_cap=rng.choice([0.0, 0.3]), throughput=rate[:, None, None, None] * rng.uniform(0.4, 1.2, (2, 1, 2, 1)),
        throughput_shortfall=rng.uniform(0.0, 0.2, (2, 1, 2)), max_replicas=rng.integers(1, 4, (1, 2)),
        error_threshold=rng.uniform(0.1, 0.4, 2), delay_threshold=rng.uniform(200.0, 2000.0, 2),
        max_routes=seed % 2,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["none", pytest.param("ddu", marks=pytest.mark.slow)])
def test_conflicts_are_smallest_of_every_fleet_tried(mode: str):
    found, sizes = 0, set()
    for seed in range(12):
        instances = tight(seed, mode)
        conflict = find_conflict(instances, 0, find_plan, capped=True)
        everything = [m.label for m in list_limits(instances, 0)]
        assert (conflict is None) == (not leaves_no_plan(instances, everything, most=7)), seed
        if conflict is None:
            continue
        mine = labels(conflict)
        assert (conflict.unproven, conflict.smallest) == ((), True)
        assert leaves_no_plan(instances, mine, most=7), (seed, mine)
        assert not any(leaves_no_plan(instances, mine - {m}, most=7) for m in mine), (seed, mine)
        if len(mine) <= 3:  # every smaller set
            smaller = itertools.combinations(everything, len(mine) - 1)
            assert not any(leaves_no_plan(instances, s, most=7) for s in smaller), (seed, mine)
        found += 1
        sizes.add(len(mine))
    assert found >= 5
    assert len(sizes) >= 2


# ---- known answers ----


def agents(**values: Any) -> Instances:
    """Agents need an H100 for their delay (100 ms there, 400 on an L40S, 200 promised); chats do not.

    Each type has 100 queries/h; a replica takes 60 of either on an H100, 100 on an L40S. One H100 may be rented.
    """
    plain = {
        "arrival_rate": [100.0, 100.0], "throughput": [[[[60.0], [100.0]]]] * 2, "max_replicas": [[5, 5]],
        "throughput_shortfall": np.zeros((2, 1, 2)),
        "gpu_quota": [1.0, 9.0], "gpu_price": [4.0, 1.0], "unmet_penalty": [1.0, 1.0], "unmet_cap": 0.0,
        "storage_price": 0.0, "delay_penalty": [0.0, 0.0], "delay_threshold": [200.0, 1000.0],
        "error_threshold": [1.0, 1.0], "kv_per_token": [0.0], "budget": 1e6, "gpu_memory": [100.0, 100.0],
        "rental_hours": 1.0, "storage_capacity": 1e6, "compute_per_token": [0.0, 0.0], "input_tokens": [50.0, 50.0],
        "output_tokens": [50.0, 50.0], "delay_nominal": [[[1.0, 4.0]]] * 2, "delay_deviation": np.zeros((2, 1, 2)),
    }  # fmt: skip
    base = random_instances(0, (2, 1, 2, 1), mode="none", **(plain | values))
    return make_instances(["agent", "chat"], ["8B"], ["H100", "L40S"], "none", base.fields._asdict())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Half of what 100 agents need fits one H100 (60/h); no other GPU is fast enough. Mixing 1/3 at 400 ms with
        # 2/3 at 100 ms keeps 200 ms: 66.7 agents an hour on H100s.
        ({}, {"delay[agent]", "quota[H100]", "unmet[agent]"}),
        ({"gpu_quota": [9.0, 9.0], "max_replicas": [[1, 5]]}, {"delay[agent]", "replicas", "unmet[agent]"}),
        # Two H100s cost $8.
        ({"gpu_quota": [9.0, 9.0], "budget": 7.9}, {"delay[agent]", "budget", "unmet[agent]"}),
        # A replica of 0.5 takes 30: three for 66.7 agents, two may be rented; at full load two are enough.
        (
            {"gpu_quota": [2.0, 9.0], "max_utilization": 0.5},
            {"delay[agent]", "quota[H100]", "throughput", "unmet[agent]"},
        ),
        ({"weight_memory": [300.0]}, {"memory", "unmet[chat]"}),  # or agent
        ({"throughput": [[[[0.0], [0.0]]], [[[60.0], [100.0]]]]}, {"unmet[agent]"}),
        # One L40S may be rented and no H100: 200 queries on what takes 100. Each type alone can be served.
        (
            {"gpu_quota": [0.0, 1.0], "delay_threshold": [1000.0, 1000.0]},
            {"quota[H100]", "quota[L40S]", "unmet[agent]", "unmet[chat]"},
        ),
        ({"gpu_quota": [9.0, 9.0]}, None),
    ],
)
def test_known_conflicts(changes: dict[str, Any], expected: set[str] | None):
    found = find_conflict(agents(**changes), 0, find_plan, capped=True)
    assert (found and labels(found)) == expected
    assert found is None or found.smallest


def test_a_member_of_a_batch_and_serving_everyone_though_the_cap_allows_less():
    one = agents(unmet_cap=1.0)
    assert find_conflict(one, 0, find_plan, capped=True) is None
    batch = stack([agents(unmet_cap=0.2), one])
    found = find_conflict(batch, 1, find_plan, capped=False)
    assert labels(found) == {"delay[agent]", "quota[H100]", "unmet[agent]"}
    assert found is not None
    assert not found.capped


# ---- what time leaves unproven ----


def test_what_is_not_answered_is_not_claimed():
    instances = agents()

    def answer(one: Instances, *, silent: bool) -> Answer:
        return Answer.of(one.names, Status.TIME_LIMIT) if silent else find_plan(one)

    assert find_conflict(instances, 0, lambda one: answer(one, silent=True), capped=True) is None

    assert find_conflict(instances, 0, find_plan, capped=True, seconds=0.0) is None

    def knows_impossible_alone(one: Instances) -> Answer:
        found = find_plan(one)
        return answer(one, silent=found.status is not Status.INFEASIBLE)

    found = find_conflict(instances, 0, knows_impossible_alone, capped=True)
    assert labels(found) == {"delay[agent]", "quota[H100]", "unmet[agent]"}
    assert found is not None
    # Nobody served is a plan where nothing is capped: that needs no answer
    assert set(found.unproven) == {"delay[agent]", "quota[H100]"}
    assert not found.smallest


def test_a_plan_that_breaks_what_it_was_asked_to_keep_proves_nothing():
    """Two H100s where one may be rented, as the answer to everything but the first question; agents alone."""
    without_chat = frozenset(m for m in list_limits(agents(), 0) if m.name != "chat")
    plan = find_plan(keep_limits(agents(gpu_quota=[9.0, 9.0]), 0, without_chat)).plan_for(0)
    asked: list[Instances] = []

    def careless(one: Instances) -> Answer:
        asked.append(one)
        return find_plan(one) if len(asked) == 1 else Answer.of(one.names, Status.FEASIBLE, plan=plan)

    found = find_conflict(keep_limits(agents(), 0, without_chat), 0, careless, capped=True)
    assert found is not None
    # That plan keeps all but the quota: so much it does prove
    assert set(found.unproven) == labels(found) - {"quota[H100]", "unmet[agent]"}
    assert not found.smallest


# ---- the answer about feasibility ----


def test_any_plan_is_found_where_there_is_one():
    seen = set()
    for seed in range(12):
        instances = tight(seed, "ddu")
        answer = find_plan(instances)
        assert answer.status is (Status.INFEASIBLE if math.isinf(cheapest(instances, 0)) else Status.FEASIBLE)
        seen.add(answer.status)
        assert answer.has_plan == (answer.status is Status.FEASIBLE)
    assert len(seen) == 2
    assert find_any_plan(FeasibilityTask(tight(0, "ddu"), 1e-9)).status in (
        Status.TIME_LIMIT,
        Status.INFEASIBLE,
    )


# ---- what people read ----


def test_a_diagnosis_names_the_conflict():
    found = diagnose(agents(), 0, workers=1)
    assert labels(found.conflict) == {"delay[agent]", "quota[H100]", "unmet[agent]"}
    item = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert item["conflict"] == {
        "limits": [
            {"constraint": "delay", "name": "agent", "value": 200.0},
            {"constraint": "quota", "name": "H100", "value": 1.0},
            {"constraint": "unmet", "name": "agent", "value": 0.0},
        ],
        "unproven": [],
        "smallest": True,
        "capped": True,
    }
    (line,) = [line for line in write_sentences(found) if line.startswith("Together")]
    assert "delay promise of agent (200 ms), quota of H100 (1 GPUs)" in line
    allowed = diagnose(agents(unmet_cap=1.0), 0, workers=1)
    assert allowed.conflict is not None
    assert not allowed.conflict.capped
    assert any("serving all of agent" in line for line in write_sentences(allowed))
    assert diagnose(agents(gpu_quota=[9.0, 9.0]), 0, workers=1).conflict is None
