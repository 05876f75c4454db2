"""Replicas, rates and quotas (MODEL section 9): files, plans, costs, margins, the checker; absent, nothing changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model.changes import apply_changes, parse_change
from rodiu_jax.model.check import check_columns, check_plan, check_scores
from rodiu_jax.model.evaluation import evaluate
from rodiu_jax.model.fields import (
    FIELD_SPECS,
    FILE_FIELDS,
    REQUIRED_FIELDS,
    UNCERTAINTY_MODES,
    extra_load,
    has_quotas,
    has_rates,
    has_replicas,
    replica_load,
    settle,
    uses_serving,
)
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route, plan_arrays
from rodiu_jax.model.plan_columns import (
    columns_from_plan,
    deployment_texts,
    distinct_plans,
    plan_from_shares,
    plan_texts,
)
from rodiu_jax.model.plan_json import load_plans, plan_from_json, save_plans
from rodiu_jax.model.status import Status
from rodiu_jax.model.verdict import COSTS, FAMILIES, SERVING_FAMILIES
from solvers.answers import Answer, Answers
from tests.oracles.instances import random_instances, random_plan, worked_example
from tests.oracles.serving import serving_instances, stack, with_replicas

SHAPE = (3, 2, 3, 2)
OPTIONAL = [n for n in FIELD_SPECS if n not in REQUIRED_FIELDS]


def drawn(mode: str = "ddu", batch: int = 8) -> Instances:
    devices = ["a", "b", "a"]
    return stack([serving_instances(s, SHAPE, mode=mode, devices=devices) for s in range(batch)])


def example() -> tuple[Instances, Plan, dict[str, float], dict[str, float]]:
    """Extend the worked example: 3 replicas, a rate, a quota; costs and margins by hand.

    10 queries/h of which one replica on 2 GPUs sustains 5: load 2 x 0.8 = 1.6; a shortfall of 0.2 adds a quarter,
    0.4, of which gamma 0.5 counts half: 1.8 of 0.75 x 3 = 2.25. KV 8 GB on three replicas: (20 + 8/3)/2 of 24 GB.
    Rent 2 h x $3 x 2 GPUs x 3 = $36; compute 40 of 50 x 2 x 3 TFLOPs; 6 of 9 GPUs; 3 of 4 replicas.
    """
    instances, plan, costs, margins = worked_example()
    instances = instances.with_fields(
        max_replicas=[[4]], throughput=[[[[math.inf, 5.0]]]], throughput_shortfall=[[[0.2]]],
        gamma_throughput=0.5, max_utilization=0.75, gpu_quota=[9.0],
    )  # fmt: skip
    plan = replace(plan, deployments=(DeployedPair("m0", "g0", 2, 3),))
    costs = costs | {"rental_cost": 36.0, "total_cost": costs["total_cost"] + 24.0}
    margins = margins | {
        "memory": (24 - (20 + 8 / 3) / 2) / 24, "compute": 260 / 300, "budget": (500 - 36 - 21.6) / 500,
        "throughput": (2.25 - 1.8) / 2.25, "quota": 3 / 9, "replicas": 1 / 4,
    }  # fmt: skip
    return instances, plan, costs, margins


def test_worked_by_hand():
    instances, plan, costs, margins = example()
    verdict = check_plan(plan, instances, 0)
    assert verdict.feasible
    assert verdict.costs == pytest.approx(costs, rel=1e-13)
    assert tuple(verdict.margins) == (*FAMILIES, *SERVING_FAMILIES) == instances.families
    assert verdict.margins == pytest.approx(margins, rel=1e-12, abs=1e-15)
    (row,) = evaluate([plan], instances).to_dict("records")
    assert {n: row[n] for n in COSTS} == pytest.approx(costs, rel=1e-13)
    assert {n: row[f"margin_{n}"] for n in margins} == pytest.approx(margins, rel=1e-12, abs=1e-15)
    calm = check_plan(plan, instances.with_uncertainty("none"), 0)
    assert calm.margins["throughput"] == pytest.approx((2.25 - 1.6) / 2.25)


# Each change breaks one constraint of the example and no other.
BREAKING = {
    "throughput": ({"throughput": [[[[math.inf, 3.9]]]]}, "throughput[m0,g0]"),
    "shortfall": ({"throughput_shortfall": [[[0.6]]]}, "throughput[m0,g0]"),
    "more fall short": ({"gamma_throughput": 1.0, "throughput_shortfall": [[[0.3]]]}, "throughput[m0,g0]"),
    "utilization": ({"max_utilization": 0.59}, "throughput[m0,g0]"),
    "cannot serve": ({"throughput": [[[[math.inf, 0.0]]]]}, "throughput[m0,g0]"),
    "quota": ({"gpu_quota": [5.9]}, "quota[g0]"),
    "memory of each replica": ({"gpu_memory": [11.3]}, "memory[m0,g0]"),
    "compute of three replicas": ({"gpu_compute": [6.6]}, "compute[m0,g0]"),
    "rent of three replicas": ({"budget": 57.5}, "budget"),
    "residency": ({"residency_hours": [[[1.1]]]}, "memory[m0,g0]"),
    "speed-up": ({"tp_speedup": [[[[1.6, 1.2]]]]}, "delay[q0]"),
}


@pytest.mark.parametrize("case", BREAKING)
def test_each_constraint_is_named_when_broken(case: str):
    change, binding = BREAKING[case]
    instances, plan, _, _ = example()
    broken = instances.with_fields(**change)
    verdict = check_plan(plan, broken, 0)
    assert (verdict.feasible, verdict.binding) == (False, binding)
    (row,) = evaluate([plan], broken).to_dict("records")
    assert (row["feasible"], row["binding"]) == (False, binding)
    assert not columns_check(broken, [plan], np.zeros(1, np.int64)).feasible[0]


def test_more_replicas_than_one_scenario_allows_break_it():
    instances, plan, _, _ = example()
    both = instances.with_fields(max_replicas=np.array([[[2]], [[4]]]))
    assert [check_plan(plan, both, b).binding for b in (0, 1)] == ["replicas[m0,g0]", "delay[q0]"]
    table = evaluate([replace(plan, instance=None)], both)
    assert table["feasible"].tolist() == [False, True]
    assert table["binding"].tolist() == ["replicas[m0,g0]", "delay[q0]"]
    assert table["margin_replicas"].tolist() == [-0.5, 0.25]


def test_a_type_that_cannot_be_served_never_makes_nan():
    instances, plan, _, _ = example()
    for gamma in (0.0, 0.5, 3.0):
        broken = instances.with_fields(throughput=[[[[math.inf, 0.0]]]], gamma_throughput=gamma)
        assert check_plan(plan, broken, 0).margins["throughput"] == -math.inf
        assert evaluate([plan], broken)["margin_throughput"].tolist() == [-math.inf]
        assert columns_check(broken, [plan], np.zeros(1, np.int64)).margins[0, 9] == -math.inf
        idle = replace(plan, routes=(), unmet={"q0": 1.0})
        assert check_plan(idle, broken, 0).margins["throughput"] == 1.0
        assert evaluate([idle], broken)["margin_throughput"].tolist() == [1.0]


def test_loads_by_hand():
    load = replica_load(np.array([6.0, 6.0, 6.0, 0.0, 1e300]), np.array([2.0, np.inf, 0.0, 0.0, 1e-300]))
    assert load.tolist() == [3.0, 0.0, np.inf, np.inf, 1e30]
    assert extra_load(load, np.array([0.25, 0.5, 0.5, 0.0, 0.0])).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def columns_check(instances: Instances, plans: list[Plan], scenario: np.ndarray):
    answers = Answers.stack(
        [Answer.of(instances.names, Status.FEASIBLE, plan=p) for p in plans], names=instances.names
    )
    return check_columns(
        instances, answers.slots, answers.shares, answers.unmet, replicas=answers.replicas, scenario=scenario
    )


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_evaluation_checker_and_columns_agree(mode: str):
    rng = np.random.default_rng(5)
    instances = drawn(mode)
    plans = [
        with_replicas(rng, random_plan(rng, instances, instance=None, slip=0.1 * (p % 2)), instances)
        for p in range(120)
    ]
    table = evaluate(plans, instances)
    assert check_scores(table, plans, instances)["ok"].all()
    found = columns_check(
        instances, [plans[p] for p in table["plan"]], table["instance"].to_numpy()
    )  # a row per (plan, scenario)
    assert (found.feasible == table["feasible"].to_numpy()).all()
    np.testing.assert_allclose(found.costs, table[list(COSTS)].to_numpy(), rtol=1e-12)
    margins = table[[f"margin_{n}" for n in instances.families]].to_numpy()
    np.testing.assert_allclose(found.margins, margins, rtol=1e-9, atol=1e-12)
    for name in SERVING_FAMILIES:
        broken = (table[f"margin_{name}"] < 0).mean()
        assert 0.05 < broken < 0.98, name
    named = set(table.loc[table["margin_quota"] < -1, "binding"].str.partition("[")[0])
    assert "quota" in named
    single = [replace(p, instance=p_ % instances.size) for p_, p in enumerate(plans)]
    alone = evaluate(single, instances).set_index("plan")
    some = table.set_index(["plan", "instance"])
    for p, plan in enumerate(single):
        expected = some.loc[(p, plan.instance), "total_cost"]
        assert alone.loc[p, "total_cost"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_defaults_in_full_shape_are_the_old_model(mode: str):
    rng = np.random.default_rng(2)
    old = random_instances(3, SHAPE, batch=5, mode=mode, max_routes=2)
    full = old.with_fields(
        max_replicas=np.ones((2, 3)), throughput=np.full(SHAPE, math.inf), gpu_quota=np.full(3, math.inf),
        throughput_shortfall=np.zeros(SHAPE[:3]), gamma_throughput=2.0, max_utilization=0.5,
        tp_speedup=np.broadcast_to(old.fields.tp_speedup, SHAPE),
        residency_hours=np.broadcast_to(old.fields.residency_hours[:, None, None, None], (5, *SHAPE[:3])),
    )  # fmt: skip
    plans = [random_plan(rng, old, instance=None, slip=0.1) for _ in range(40)]
    before, after = evaluate(plans, old), evaluate(plans, full)
    assert list(after) == [*list(before)[:-1], *(f"margin_{n}" for n in SERVING_FAMILIES), "binding"]
    assert after[["margin_throughput", "margin_quota"]].isin([math.inf, 1.0]).to_numpy().all()
    same = [n for n in before if n != "binding"]
    np.testing.assert_allclose(after[same].astype(float), before[same].astype(float), rtol=1e-12, atol=1e-14)
    assert (after["feasible"] == before["feasible"]).all()
    for plan in plans[:10]:
        one, other = check_plan(plan, old, 1), check_plan(plan, full, 1)
        assert one.costs == pytest.approx(other.costs, rel=1e-13)
        assert {n: other.margins[n] for n in FAMILIES} == pytest.approx(one.margins, rel=1e-12, abs=1e-14)


def test_what_scenarios_use_is_told_by_shapes():
    old, new = random_instances(0, SHAPE, batch=2), drawn()
    assert not any(use(old.fields) for use in (has_replicas, has_rates, has_quotas, uses_serving))
    assert all(use(new.fields) for use in (has_replicas, has_rates, has_quotas, uses_serving))
    assert old.families == FAMILIES
    assert "throughput" in new.batched
    assert not set(OPTIONAL) & old.batched
    assert new.one(3).throughput.shape == SHAPE
    assert new.take([1, 1]).fields.max_replicas.shape == (2, 2, 3)
    only = old.with_fields(gpu_quota=[2.0, 3.0, 4.0])
    assert (has_quotas(only.fields), has_rates(only.fields), has_replicas(only.fields)) == (
        True,
        False,
        False,
    )
    assert settle(new.one(0), "none").gamma_throughput == 0
    assert settle(new.one(0), "diu").gamma_throughput == new.one(0).gamma_throughput


# ---- files ----


def test_files_hold_what_is_used(tmp_path: Path):
    old, new = random_instances(0, SHAPE, batch=2), drawn()
    old.save(tmp_path / "old.npz")
    new.save(tmp_path / "new.npz")
    names = {"query_names", "model_names", "gpu_names", "uncertainty"}
    with np.load(tmp_path / "old.npz") as archive:
        assert archive.files == [*REQUIRED_FIELDS, "query_names", "model_names", "gpu_names", "uncertainty"]
    with np.load(tmp_path / "new.npz") as archive:
        assert set(archive.files) == {*FILE_FIELDS, *names, "gpu_devices"}
        assert archive["gpu_devices"].tolist() == ["a", "b", "a"]
    for instances, path in ((old, "old.npz"), (new, "new.npz")):
        again = load_instances(tmp_path / path)
        assert (again.names, again.batched, again.gpu_devices) == (
            instances.names,
            instances.batched,
            instances.gpu_devices,
        )
        for name, one, other in zip(FIELD_SPECS, again.fields, instances.fields, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert np.asarray(one).dtype == np.asarray(other).dtype, name
    assert new.fields.gpu_device.tolist() == [0, 1, 0]
    assert new.with_fields(max_utilization=0.5).gpu_devices == ("a", "b", "a")
    assert "max_utilization" in np.load(tmp_path / "new.npz").files


BAD_FIELDS = {
    "rate below 0": ({"throughput": np.full(SHAPE, -1.0)}, r"throughput\[0,0,0,0\]: got -1.0, expected numbers >= 0"),
    "rate NaN": ({"throughput": np.full(SHAPE, math.nan)}, r"throughput\[0,0,0,0\]: got nan"),
    "rate as one number": ({"throughput": 4.0}, r"throughput: got \(\), expected shape \(3, 2, 3, 2\)"),
    "shortfall of 1": ({"throughput_shortfall": np.ones(SHAPE[:3])}, r"shortfall\[0,0,0\]: got 1.0, .* < 1"),
    "replicas not whole": ({"max_replicas": np.full((2, 3), 1.5)}, r"max_replicas\[0,0\]: got 1.5, expected whole"),
    "replicas below 0": ({"max_replicas": np.full((2, 3), -1)}, r"max_replicas\[0,0\]: got -1.0"),
    "utilization 0": ({"max_utilization": 0.0}, r"max_utilization: got 0.0"),
    "utilization above 1": ({"max_utilization": 1.1}, r"max_utilization: got 1.1"),
    "gamma inf": ({"gamma_throughput": math.inf}, r"gamma_throughput: got inf"),
    "quota NaN": ({"gpu_quota": [1.0, math.nan, 1.0]}, r"gpu_quota\[1\]: got nan"),
    "quotas of one device": ({"gpu_quota": [4.0, 2.0, 5.0]}, r"gpu_quota\[g2\]: got 5.0, expected 4, as g0 says"),
    "speed-up shape": ({"tp_speedup": np.ones((2, 3))}, r"tp_speedup: got \(2, 3\)"),
    "speed-up 0": ({"tp_speedup": np.zeros(SHAPE)}, r"tp_speedup\[0,0,0,0\]: got 0.0"),
    "residency shape": ({"residency_hours": np.ones((3, 2))}, r"residency_hours: got \(3, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_values_are_one_line(case: str):
    values, message = BAD_FIELDS[case]
    one = drawn(batch=2)
    shared = {n: v for n, v in one.one(0)._asdict().items() if n not in OPTIONAL}
    with pytest.raises(InputError, match=message) as caught:
        make_instances(*one.names[:3], "ddu", shared | values, gpu_devices=["a", "b", "a"], source="x.npz")
    assert str(caught.value).startswith("x.npz: ")
    assert "\n" not in str(caught.value)


def test_quotas_of_one_device_that_differ_in_one_scenario():
    one = drawn(batch=2)
    quota = np.array([[4.0, 2.0, 4.0], [4.0, 2.0, 3.0]])
    with pytest.raises(
        InputError, match=r"gpu_quota\[g2\]: got 3.0, expected 4, as g0 says of the same device a"
    ):
        one.with_fields(gpu_quota=quota)
    with pytest.raises(InputError, match="gpu_devices: got 2, expected 3 names"):
        make_instances(*one.names[:3], "ddu", one.one(0)._asdict(), gpu_devices=["a", "b"])


def test_changes_reach_what_is_absent():
    old = random_instances(0, SHAPE, batch=2)
    changes = ["max_replicas=4", "throughput[*,m1,*,*]=0", "gpu_quota[g1]=8", "throughput_shortfall+=0.25"]
    new = apply_changes(old, [parse_change(text) for text in changes])
    assert (new.fields.max_replicas == 4).all()
    assert (new.fields.throughput[:, 1] == 0).all()
    assert (new.fields.throughput[:, 0] == math.inf).all()
    assert new.fields.gpu_quota.tolist() == [math.inf, 8.0, math.inf]
    assert (new.fields.throughput_shortfall == 0.25).all()
    scaled = apply_changes(new, [parse_change("max_replicas[m0,*]*=2")])
    assert scaled.fields.max_replicas.tolist() == [[8, 8, 8], [4, 4, 4]]
    paired = drawn()
    half = apply_changes(paired, [parse_change("tp_speedup[q0,*,*,*]*=0.5")])
    np.testing.assert_array_equal(half.fields.tp_speedup[:, 0], 0.5 * paired.fields.tp_speedup[:, 0])
    np.testing.assert_array_equal(half.fields.tp_speedup[:, 1:], paired.fields.tp_speedup[:, 1:])
    with pytest.raises(InputError, match="gpu_device"):
        parse_change("gpu_device=0")


# ---- plans ----


def test_plans_with_replicas(tmp_path: Path):
    instances, plan, _, _ = example()
    assert plan.summary() == "m0@g0 x2, 3 replicas"
    save_plans([plan, replace(plan, deployments=(DeployedPair("m0", "g0", 2),))], tmp_path / "plans.json")
    stored = json.loads((tmp_path / "plans.json").read_text())
    assert stored[0]["deployments"] == [{"model": "m0", "gpu": "g0", "tp": 2, "replicas": 3}]
    assert stored[1]["deployments"] == [{"model": "m0", "gpu": "g0", "tp": 2}]
    again = load_plans(tmp_path / "plans.json", instances)
    assert again[0] == plan
    assert again[1].deployments[0].replicas == 1
    assert plan_arrays(again, instances).replicas[:, :2].tolist() == [[3, 1], [1, 1]]


@pytest.mark.parametrize(
    ("replicas", "message"),
    [
        (5, r"deployments\[0\].replicas: got 5, expected at most 4, the max_replicas of m0 on g0"),
        (0, r"deployments\[0\].replicas: got 0, expected a whole number >= 1"),
        (-2, r"deployments\[0\].replicas: got -2"),
        (1.5, r"deployments\[0\].replicas: got 1.5, expected a whole number"),
        (True, r"deployments\[0\].replicas: got True, expected a whole number"),
        ("2", r"deployments\[0\].replicas: got '2'"),
        (10**30, r"deployments\[0\].replicas"),
    ],
)
def test_replicas_that_are_refused(replicas, message):
    instances, plan, _, _ = example()
    item = plan.to_json()
    item["deployments"][0]["replicas"] = replicas
    with pytest.raises(InputError, match=message):
        plan_from_json(item, instances)


def test_a_second_replica_needs_a_scenario_that_allows_it():
    instances, plan, _, _ = worked_example()
    with pytest.raises(InputError, match="replicas: got 2, expected at most 1"):
        check_plan(replace(plan, deployments=(DeployedPair("m0", "g0", 2, 2),)), instances, 0)


def test_columns_hold_replicas():
    instances, plan, _, _ = example()
    columns = columns_from_plan(instances.names, plan)
    assert columns.replicas.tolist() == [3]
    assert (
        plan_from_shares(
            instances.names,
            columns.slots,
            columns.shares,
            columns.unmet,
            replicas=columns.replicas,
            instance=0,
        )
        == plan
    )
    single = replace(plan, deployments=(DeployedPair("m0", "g0", 2),))
    parts = [
        Answers.stack([Answer.of(instances.names, Status.FEASIBLE, plan=p)], names=instances.names)
        for p in (single, plan, single)
    ]
    assert [p.replicas is None for p in parts] == [True, False, True]
    both = Answers.concatenate(parts, names=instances.names)
    assert both.replicas is not None
    assert both.replicas.tolist() == [[1], [3], [1]]
    assert both.take([1, 0]).replicas.tolist() == [[3], [1]]
    assert [a.plan_for(0) for a in both] == [single, plan, single]
    first, kind = distinct_plans(both.slots, both.shares, both.unmet, both.replicas)
    assert (len(first), kind[0] == kind[2], kind[0] == kind[1]) == (2, True, False)
    texts = plan_texts(instances.names, both.slots, both.shares, both.unmet, both.replicas)
    assert texts == [json.dumps(replace(p, instance=None).to_json()) for p in (single, plan, single)]
    lines = deployment_texts(instances.names, both.slots, both.replicas)
    assert lines == ["m0@g0 x2", "m0@g0 x2, 3 replicas", "m0@g0 x2"]


def test_columns_with_bad_replicas_are_refused():
    instances, plan, _, _ = example()
    slots, shares, unmet, replicas = (a[None] for a in columns_from_plan(instances.names, plan))
    assert check_columns(instances, slots, shares, unmet, replicas=replicas).feasible[0]
    assert not check_columns(instances, slots, shares, unmet, replicas=0 * replicas).feasible[0]
    assert not check_columns(instances, slots, shares, unmet, replicas=2 * replicas).feasible[0]
    route = Route("q0", "m0", "g0", 0.8)
    assert plan.routes == (route,)
