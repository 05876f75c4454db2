"""Plans: JSON there and back, arrays, and every way to get them wrong."""

import json
import os

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.evaluation import evaluate
from rodiu_jax.model.plan import DeployedPair, Plan, Route, plan_arrays, validate_plan
from rodiu_jax.model.plan_json import load_plans, plan_from_json, save_plans
from tests.oracles.instances import random_instances, random_plan
from tests.oracles.numpy_evaluator import dense_plan

INSTANCES = random_instances(0, (2, 2, 3, 2), batch=4)
GOOD = {
    "instance": 1,
    "deployments": [{"model": "m0", "gpu": "g2", "tp": 2}, {"model": "m1", "gpu": "g0", "tp": 1}],
    "routes": [
        {"query": "q0", "model": "m0", "gpu": "g2", "share": 0.25},
        {"query": "q0", "model": "m1", "gpu": "g0", "share": 0.5},
        {"query": "q1", "model": "m1", "gpu": "g0", "share": 1},
    ],
    "unmet": {"q0": 0.25},
}


def test_reads():
    plan = plan_from_json(GOOD, INSTANCES)
    assert plan.deployments == (DeployedPair("m0", "g2", 2), DeployedPair("m1", "g0", 1))
    assert plan.routes[2] == Route("q1", "m1", "g0", 1.0)
    assert (plan.instance, plan.unmet) == (1, {"q0": 0.25})
    assert plan.summary() == "m0@g2 x2; m1@g0 x1"
    assert Plan(None, (), (), {}).summary() == "nothing"


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    plans = [random_plan(rng, INSTANCES, instance=b) for b in (0, 3, None, None, 1)]
    save_plans(plans, tmp_path / "plans.json")
    assert load_plans(tmp_path / "plans.json", INSTANCES) == plans
    assert [p["instance"] for p in json.loads((tmp_path / "plans.json").read_text())] == [0, 3, None, None, 1]


def test_save_of_what_is_not_a_number_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_plans([Plan(None, (), (), {"q0": float("nan")})], tmp_path / "plans.json")
    assert os.listdir(tmp_path) == []


def _at(*path, value):
    def change(plan):
        *way, last = path
        for step in way:
            plan = plan[step]
        plan[last] = value

    return change


def _drop(*path):
    def change(plan):
        *way, last = path
        for step in way:
            plan = plan[step]
        del plan[last]

    return change


BAD = {
    "missing part": (_drop("routes"), r"\[0\].routes: expected this key, which is missing"),
    "missing part of a route": (_drop("routes", 1, "share"), r"\[0\].routes\[1\].share: expected this key"),
    "unknown part": (
        _at("cost", value=3),
        r"\[0\]: got 'cost', expected only the keys instance, deployments",
    ),
    "unknown part of a deployment": (
        _at("deployments", 0, "n", value=1),
        r"deployments\[0\]: got 'n', expected only the keys model, gpu, tp",
    ),
    "instance too large": (
        _at("instance", value=4),
        r"instance: got 4, expected null or a whole number from 0 to 3",
    ),
    "negative instance": (_at("instance", value=-1), r"instance: got -1"),
    "instance of another kind": (_at("instance", value="0"), r"instance: got '0'"),
    "instance is a truth value": (_at("instance", value=True), r"instance: got True"),
    "fractional instance": (_at("instance", value=1.0), r"instance: got 1.0"),
    "deployments of another kind": (_at("deployments", value={}), r"deployments: got {}, expected a list"),
    "deployment of another kind": (
        _at("deployments", 0, value="m0"),
        r"deployments\[0\]: got 'm0', expected an object",
    ),
    "unknown model": (_at("deployments", 0, "model", value="m7"), r"model: got 'm7', expected one of m0, m1"),
    "unknown GPU": (_at("deployments", 0, "gpu", value="G2"), r"gpu: got 'G2', expected one of g0, g1, g2"),
    "unknown query": (
        _at("routes", 0, "query", value="q9"),
        r"routes\[0\].query: got 'q9', expected one of q0, q1",
    ),
    "name is a number": (_at("routes", 0, "model", value=0), r"routes\[0\].model: got 0"),
    "unknown degree": (_at("deployments", 0, "tp", value=3), r"tp: got 3, expected one of 1, 2"),
    "degree 0": (_at("deployments", 0, "tp", value=0), r"tp: got 0, expected one of 1, 2"),
    "degree is a text": (_at("deployments", 0, "tp", value="2"), r"tp: got '2'"),
    "degree is a truth value": (_at("deployments", 0, "tp", value=True), r"tp: got True"),
    "pair twice": (
        _at("deployments", 1, value={"model": "m0", "gpu": "g2", "tp": 1}),
        r"deployments\[1\]: got 'm0 on g2', expected each pair deployed once",
    ),
    "not deployed": (
        _drop("deployments", 0),
        r"routes\[0\]: got 'm0 on g2', expected a pair that the plan deploys",
    ),
    "route twice": (
        _at("routes", 1, value={"query": "q0", "model": "m0", "gpu": "g2", "share": 0.1}),
        r"routes\[1\]: got 'q0 to m0 on g2', expected each route once",
    ),
    "negative share": (
        _at("routes", 0, "share", value=-0.1),
        r"routes\[0\].share: got -0.1, expected a finite number from 0 to",
    ),
    "share is a text": (_at("routes", 0, "share", value="0.1"), r"routes\[0\].share: got '0.1'"),
    "share is a truth value": (_at("routes", 0, "share", value=True), r"routes\[0\].share: got True"),
    "share without an end": (_at("routes", 0, "share", value=10**30), r"routes\[0\].share: got 1000"),
    "degree beyond 64 bits": (
        _at("deployments", 0, "tp", value=10**30),
        r"tp: got 1000.* expected one of 1, 2",
    ),
    "two faults": (
        lambda plan: plan["routes"][0].update(share=-1, model=3),
        r"routes\[0\].model: got 3, expected a text \(string\) \(1 more like this\)",
    ),
    "share is nothing": (_at("routes", 0, "share", value=None), r"routes\[0\].share: got None"),
    "unmet of another kind": (_at("unmet", value=[0.1]), r"unmet: got \[0.1\], expected a value by name"),
    "unmet of an unknown query": (_at("unmet", "q9", value=0.1), r"unmet: got 'q9', expected one of q0, q1"),
    "negative unmet": (_at("unmet", "q0", value=-1), r"unmet.q0: got -1"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_bad_plans(tmp_path, spoil, message):
    plan = json.loads(json.dumps(GOOD))
    spoil(plan)
    path = tmp_path / "plans.json"
    path.write_text(json.dumps([plan]))
    with pytest.raises(InputError, match=message) as caught:
        load_plans(path, INSTANCES)
    assert str(caught.value).startswith(f"{path}: [0]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", r"line 1 column 1: expected JSON"),
        ("{}", r"got {}, expected a JSON list of plans"),
        ("[3]", r"\[0\]: got 3, expected an object with instance, deployments"),
        ('[{"instance": NaN}]', r"got 'NaN', expected finite numbers only"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_plans(path, INSTANCES)


_PAIR, _ROUTE = DeployedPair("m0", "g0", 1), Route("q0", "m0", "g0", 1.0)
BAD_OBJECTS = {
    "degree": (
        Plan(0, (DeployedPair("m0", "g0", 3),), (), {}),
        r"deployments\[0\].tp: got 3, expected one of 1, 2",
    ),
    "degree is a truth value": (Plan(0, (DeployedPair("m0", "g0", True),), (), {}), r"tp: got True"),
    "model": (Plan(0, (DeployedPair("m9", "g0", 1),), (), {}), r"deployments\[0\].model: got 'm9'"),
    "GPU": (Plan(0, (DeployedPair("m0", "g9", 1),), (), {}), r"deployments\[0\].gpu: got 'g9'"),
    "pair twice": (Plan(0, (_PAIR, _PAIR), (), {}), r"deployments\[1\]: got 'm0 on g0', expected each pair"),
    "query": (Plan(0, (_PAIR,), (Route("q9", "m0", "g0", 1.0),), {}), r"routes\[0\].query: got 'q9'"),
    "not deployed": (
        Plan(0, (), (_ROUTE,), {}),
        r"routes\[0\]: got 'm0 on g0', expected a pair that the plan",
    ),
    "route twice": (Plan(0, (_PAIR,), (_ROUTE, _ROUTE), {}), r"routes\[1\]: got 'q0 to m0 on g0'"),
    "unmet": (Plan(0, (), (), {"q9": 1.0}), r"unmet: got 'q9', expected one of q0, q1"),
}


@pytest.mark.parametrize(("plan", "message"), BAD_OBJECTS.values(), ids=BAD_OBJECTS.keys())
def test_plans_made_in_python_are_refused_alike(plan, message):
    for refuse in (
        lambda: validate_plan(plan, INSTANCES),
        lambda: check_plan(plan, INSTANCES, 0),
        lambda: plan_arrays([plan], INSTANCES),
        lambda: evaluate([plan], INSTANCES),
    ):
        with pytest.raises(InputError, match=message):
            refuse()


def test_solutions_are_told_from_plans(tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps([{"instance": 0, "status": "optimal", "plan": GOOD}]))
    with pytest.raises(InputError, match=r"\[0\]: expected a plan; .* `rodiu solve --plans`"):
        load_plans(path, INSTANCES)


def test_second_plan_is_named(tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "instance": 99}]))
    with pytest.raises(InputError, match=r"\[1\].instance: got 99"):
        load_plans(path, INSTANCES)


def test_arrays_hold_the_dense_plan():
    rng = np.random.default_rng(1)
    plans = [random_plan(rng, INSTANCES, instance=None, pairs=6) for _ in range(30)]
    arrays = plan_arrays(plans, INSTANCES)
    degrees = INSTANCES.one(0).tp_degree
    for p, plan in enumerate(plans):
        dense = dense_plan(plan, INSTANCES)
        share, degree = np.zeros_like(dense.share), np.zeros_like(dense.degree)
        for s in np.flatnonzero(arrays.degree[p] >= 0):
            j, k = arrays.model[p, s], arrays.gpu[p, s]
            share[:, j, k], degree[j, k] = arrays.share[p, :, s], degrees[arrays.degree[p, s]]
        np.testing.assert_array_equal(share, dense.share)
        np.testing.assert_array_equal(degree, dense.degree)
        np.testing.assert_array_equal(arrays.unmet[p], dense.unmet)
        assert not arrays.share[p][:, arrays.degree[p] < 0].any()


@pytest.mark.parametrize(("pairs", "slots"), [(0, 4), (4, 4), (5, 8), (6, 8)])
def test_slots_are_a_power_of_two(pairs, slots):
    chosen = [(j, k) for j in ("m0", "m1") for k in ("g0", "g1", "g2")][:pairs]
    plan = Plan(None, tuple(DeployedPair(j, k, 1) for j, k in chosen), (), {})
    arrays = plan_arrays([plan], INSTANCES)
    assert arrays.model.shape == arrays.degree.shape == (1, slots)
    assert arrays.share.shape == (1, 2, slots)
    assert (arrays.degree >= 0).sum() == pairs
    assert plan_arrays([plan], INSTANCES, slots=16).share.shape == (1, 2, 16)
    assert plan_arrays([], INSTANCES).share.shape == (0, 2, 4)
