"""Recourse of fleets against routings by scipy written from the model alone; reasons, plans, limits, honest bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from solvers import fleet_recourse as module
from solvers.fleet_recourse import bound_by_duality
from solvers.formulation import build
from solvers.highs import LinearPrograms
from solvers.recourse import recourse, recourse_plans
from solvers.recourse_brackets import Reason
from tests.oracles.enumeration import cheapest_routing
from tests.oracles.serving import serving_instances, stack

SHAPE = (3, 2, 2, 2)
MODES = ("none", "diu", "ddu")


def fleets(rng: np.random.Generator, instances: Instances, count: int, *, most: int = 3) -> list[Deployment]:
    """Random deployments of up to ``most`` replicas of each pair, within what some scenario allows."""
    allowed = np.asarray(instances.fields.max_replicas).reshape(-1, 2, 2).max(0)
    found: list[Deployment] = [()]
    while len(found) < count:
        pairs = [p for p in np.ndindex(2, 2) if rng.random() < 0.6][:: rng.choice([1, -1])]  # in any order
        found.append(
            tuple(
                DeployedPair(
                    f"m{j}",
                    f"g{k}",
                    int(rng.choice(instances.one(0).tp_degree)),
                    int(rng.integers(1, min(most, max(allowed[j, k], 1)) + 1)),
                )
                for j, k in pairs
            )
        )
    return found


def truth(instances: Instances, deployments: list[Deployment]) -> np.ndarray:
    """The least cost (Q,B) of each deployment in each scenario by scipy; inf where limits break."""
    degrees = instances.one(0).tp_degree.tolist()
    found = np.full((len(deployments), instances.size), math.inf)
    for q, deployment in enumerate(deployments):
        fleet = [(int(d.model[1:]), int(d.gpu[1:]), degrees.index(d.tp), d.replicas) for d in deployment]
        for b in range(instances.size):
            f = instances.one(b)
            rented: dict[str, int] = {}
            for d in deployment:
                device = instances.gpu_devices[int(d.gpu[1:])]
                rented[device] = rented.get(device, 0) + d.tp * d.replicas
            quota = dict(zip(instances.gpu_devices, np.broadcast_to(f.gpu_quota, 2), strict=True))
            if any(d.replicas > f.max_replicas[int(d.model[1:]), int(d.gpu[1:])] for d in deployment):
                continue
            if all(count <= quota[device] for device, count in rented.items()):
                found[q, b] = cheapest_routing(instances, b, fleet)
    return found


def scenarios(seed: int, mode: str, count: int = 4, **limits: object) -> Instances:
    """Scenarios of every kind: any adversary of the load, fractional too, quotas shared by two GPUs."""
    gammas, caps = (0.0, 0.6, 1.0, 1.5, 7.0), (1.0, 1.0, 0.7, 0.3)
    return stack(
        [
            serving_instances(
                seed + n,
                SHAPE,
                mode=mode,
                devices=["d", "d"],
                **{
                    "max_replicas": np.full((2, 2), 3) - (n % 2),
                    "gpu_quota": np.full(2, 7.0 - 3 * (n % 2)),
                    "gamma_throughput": gammas[(seed + n) % 5],
                    "unmet_cap": caps[n % 4],
                    "budget": 1000.0 if n % 3 else 150.0,
                    "error_threshold": np.full(3, 0.3),
                    "delay_threshold": np.full(3, 2000.0),
                    **limits,
                },
            )
            for n in range(count)
        ]
    )


ROOMY = {
    "max_replicas": np.full((2, 2), 3),
    "gpu_quota": np.full(2, 40.0),
    "budget": 2000.0,
    "unmet_cap": 1.0,
    "gpu_memory": np.full(2, 200.0),
    "storage_capacity": 500.0,
}


def assert_exact(instances: Instances, deployments: list[Deployment], gap: float = 1e-6) -> np.ndarray:
    """Brackets hold the optimum, close; there is a plan exactly where there is one. Returns the reasons."""
    found, best = recourse(instances, deployments), truth(instances, deployments)
    known = np.isfinite(best)
    np.testing.assert_array_equal(found.reason == Reason.FEASIBLE, known)
    slack = 2e-6 * np.maximum(np.abs(best[known]), 1.0)
    assert (found.lower[known] <= best[known] + slack).all()
    assert (found.upper[known] >= best[known] - slack).all()
    assert (found.upper[known] - found.lower[known] <= gap * np.abs(found.upper[known]) + 1e-9).all()
    assert (found.upper[~known] == math.inf).all()
    assert (found.lower[~known] == math.inf).all()
    return found.reason


@pytest.mark.parametrize("mode", MODES)
def test_brackets_are_what_scipy_finds(mode: str):
    seen = np.zeros(len(Reason), np.int64)
    for seed in (10, 20):
        instances = scenarios(seed, mode)
        deployments = fleets(np.random.default_rng(seed), instances, 10)
        seen += np.bincount(assert_exact(instances, deployments).ravel(), minlength=len(Reason))
    assert seen[Reason.FEASIBLE] > 15
    assert seen[Reason.UNMET] > 5
    assert seen[Reason.QUOTA] > 5
    assert seen[Reason.REPLICAS] > 5
    assert seen[Reason.UNKNOWN] == seen[Reason.ERROR] == 0


@pytest.mark.parametrize(
    "mode", [*(pytest.param(m, marks=pytest.mark.slow) for m in MODES[:2]), "ddu"]
)  # 2 s
def test_limits_of_routes_count(mode: str):
    free = scenarios(40, mode, **ROOMY)
    deployments = [d for d in fleets(np.random.default_rng(4), free, 16) if len(d) > 1][:7]
    unlimited = recourse(free, deployments)
    limited = free.with_fields(max_routes=np.array([1, 1, 2, 2]))
    assert_exact(limited, deployments, gap=1e-3)
    found = recourse(limited, deployments)
    assert (found.upper >= unlimited.lower * (1 - 1e-9)).all()
    both = np.isfinite(found.upper)
    assert (found.upper[both] > unlimited.upper[both] * 1.001).sum() >= 3, "or limits decide nothing"
    for q, plans in enumerate(recourse_plans(limited, deployments)[1]):
        for b, plan in enumerate(plans):
            assert (plan is not None) == both[q, b]
            routes = [] if plan is None else [r.query for r in plan.routes]
            assert all(routes.count(name) <= [1, 1, 2, 2][b] for name in limited.query_names)


def test_plans_are_what_the_bounds_say():
    instances = scenarios(50, "ddu", **(ROOMY | {"unmet_cap": 0.9}))
    throughput = instances.fields.throughput.copy()
    throughput[:, :, 0, 1] = 0.0  # m0 on g1 serves nobody
    instances = instances.with_fields(throughput=throughput)
    deployments = fleets(np.random.default_rng(5), instances, 8)
    found, plans, verdicts = recourse_plans(instances, deployments)
    idle = 0
    for q, deployment in enumerate(deployments):
        for b, (plan, verdict) in enumerate(zip(plans[q], verdicts[q], strict=True)):
            assert (plan is None) == (found.reason[q, b] != Reason.FEASIBLE)
            if plan is None:
                continue
            assert plan.instance == b
            assert set(plan.deployments) == set(deployment), "with all replicas, and idle pairs"
            idle += len({(r.model, r.gpu) for r in plan.routes}) < len(deployment)
            assert verdict == check_plan(plan, instances, b)
            assert found.upper[q, b] == verdict.costs["total_cost"] >= found.lower[q, b]
    assert idle > 0


def test_reasons():
    one = serving_instances(
        3,
        (1, 2, 2, 2),
        devices=["d", "d"],
        weight_memory=np.array([30.0, 40.0]),
        gpu_memory=np.array([50.0, 20.0]),
        storage_capacity=60.0,
        gpu_price=np.ones(2),
        storage_price=0.0,
        rental_hours=12.0,
        budget=72.0,
        gpu_quota=np.full(2, 5.0),
        max_replicas=np.array([[5, 3], [3, 0]]),
    )
    cases = {
        "": (DeployedPair("m0", "g0", 1, 4),),  # $48 of 72, 4 GPUs of 5
        "memory": (DeployedPair("m0", "g1", 1, 1),),  # 30 GB on 20
        "storage": (DeployedPair("m0", "g0", 1, 1), DeployedPair("m1", "g0", 1, 1)),  # 70 GB of 60
        "replicas": (DeployedPair("m1", "g1", 2, 1),),  # 1 of 0
        "quota": (DeployedPair("m0", "g0", 1, 4), DeployedPair("m0", "g1", 2, 1)),  # 6 GPUs of 5
    }
    found = recourse(one, list(cases.values()))
    assert [Reason(r).word for r in found.reason[:, 0]] == list(cases)
    assert (found.upper[1:] == math.inf).all()
    dear = one.with_fields(budget=47.0)
    assert Reason(recourse(dear, [cases[""]]).reason[0, 0]).word == "budget"
    exact = one.with_fields(budget=48.0)  # just what the fleet costs
    assert Reason(recourse(exact, [cases[""]]).reason[0, 0]).word == ""
    nobody = one.with_fields(throughput=np.zeros((1, 2, 2, 2)), unmet_cap=0.9)
    assert Reason(recourse(nobody, [cases[""], ()]).reason[0, 0]).word == "unmet"
    assert Reason(recourse(nobody, [()]).reason[0, 0]).word == "unmet"
    assert Reason(recourse(one, [(DeployedPair("m0", "g0", 1, 6),)]).reason[0, 0]).word == "replicas"


def test_lower_bounds_hold_at_any_multipliers():
    instances = scenarios(60, "ddu", **ROOMY)
    rng = np.random.default_rng(6)
    tight = 0
    for b, deployment in enumerate(fleets(rng, instances, 5)[1:]):
        (best,) = truth(instances.take([b]), [deployment])[0]
        degrees = instances.one(b).tp_degree.tolist()
        at = np.array([(int(d.model[1:]), int(d.gpu[1:]), degrees.index(d.tp)) for d in deployment])
        if not math.isfinite(best):
            continue
        program = build(
            instances, b, deployed=at.reshape(-1, 3), replicas=np.array([d.replicas for d in deployment])
        )
        answer = LinearPrograms().solve(program)
        tight += bound_by_duality(program, answer) == pytest.approx(best, rel=1e-6)
        for scale in (0.0, 0.3, 3.0):
            wrong = answer.row_dual * rng.uniform(1 - scale, 1 + scale, len(answer.row_dual))
            bound = bound_by_duality(program, replace(answer, row_dual=wrong))
            assert -math.inf < bound <= best * (1 + 1e-9)
    assert tight >= 2


def test_one_bad_scenario_leaves_its_neighbours_alone():
    instances = scenarios(70, "ddu")
    deployments = fleets(np.random.default_rng(7), instances, 6)
    clean = recourse(instances, deployments)
    for name in ("gpu_price", "throughput", "budget"):
        values = np.array(getattr(instances.fields, name), np.float64)
        values[2] = math.nan
        found = recourse(replace(instances, fields=instances.fields._replace(**{name: values})), deployments)
        assert (found.reason[:, 2] == Reason.ERROR).all()
        assert (found.lower[:, 2] == -math.inf).all()
        assert (found.upper[:, 2] == math.inf).all()
        for mine, its in zip(found, clean, strict=True):
            np.testing.assert_array_equal(np.delete(mine, 2, 1), np.delete(its, 2, 1))


def test_worker_processes_change_nothing(monkeypatch: pytest.MonkeyPatch):
    instances = scenarios(80, "ddu", count=5)
    deployments = fleets(np.random.default_rng(8), instances, 6)
    alone, plans, _ = recourse_plans(instances, deployments)
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "_TOGETHER", 3)
    together, same_plans, _ = recourse_plans(instances, deployments)
    for mine, its in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert same_plans == plans
