"""Fixed routings against one large linear program over all scenarios, written from the model."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import linprog

from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan
from solvers import fixed_routing as module
from solvers.fixed_routing import fixed_routings
from tests.oracles.instances import random_instances

LEVEL = 0.6
COUNT = 5
PAIRS = (DeployedPair("m0", "g0", 2), DeployedPair("m1", "g1", 2))
MORE = (*PAIRS, DeployedPair("m0", "g1", 2))


def easy(mode: str = "ddu", seed: int = 15, **fields: object) -> Instances:
    """Scenarios that one routing can serve, though not at no cost."""
    values = {"budget": np.full(COUNT, 900.0), "gpu_price": np.full((COUNT, 2), 1.0)} | fields
    drawn = random_instances(seed, (3, 2, 2, 2), batch=COUNT, mode=mode, **values)
    f = drawn.fields
    return drawn.with_fields(
        gpu_memory=np.full((COUNT, 2), 60.0) + 10.0 * np.arange(COUNT)[:, None],
        weight_memory=f.weight_memory / 4,
        storage_capacity=np.full(COUNT, 500.0),
        delay_threshold=f.delay_threshold * 3,
        error_threshold=f.error_threshold * 2,
    )


def least(instances: Instances, deployment: Deployment, criterion: str, offset: np.ndarray) -> float:
    """The optimum over shares, t and sigma of delay and error per scenario, costs, and CVaR's eta and excesses."""
    count, types, slots = instances.size, len(instances.query_names), len(deployment)
    cells = types * slots
    per = 2 * (types + cells)  # t and sigma, twice
    columns = cells + types + count * (per + 2) + 1
    own = partial(lambda b, start: cells + types + b * (per + 2) + start)
    eta = columns - 1
    rows, limits = [], []

    def row(limit: float) -> np.ndarray:
        rows.append(np.zeros(columns))
        limits.append(limit)
        return rows[-1]

    weight = np.zeros(columns)
    for b in range(count):
        f = instances.one(b)
        at = [
            (
                instances.model_names.index(d.model),
                instances.gpu_names.index(d.gpu),
                d.tp,
                float(f.tp_speedup[list(f.tp_degree).index(d.tp)]),
            )
            for d in deployment
        ]
        tokens, hours = f.input_tokens + f.output_tokens, float(f.rental_hours)
        rent = sum(
            hours * (float(f.gpu_price[k]) * n + float(f.storage_price) * float(f.weight_memory[j]))
            for j, k, n, _ in at
        )
        data = hours * float(f.storage_price) * f.token_size * tokens * f.arrival_rate / 1000.0
        cost = row(-rent + offset[b])  # the cost's other parts less the column of the cost
        money = own(b, per)
        cost[money] = -1.0
        budget = row(float(f.budget) - rent)
        keep = instances.uncertainty == "ddu"
        for i in range(types):
            cost[cells + i] = hours * f.unmet_penalty[i] * f.arrival_rate[i]
            row(float(f.unmet_cap))[cells + i] = 1.0
            delay, error = row(0.0), row(0.0)
            start = own(b, 0)
            for promise, first, gamma in (
                (delay, start, f.gamma_delay),
                (error, start + types + cells, f.gamma_error),
            ):
                promise[first + i] = 0.0 if instances.uncertainty == "none" else float(gamma)
                promise[first + types + i * slots : first + types + (i + 1) * slots] = 1.0
            pay = hours * f.delay_penalty[i] * f.arrival_rate[i]
            for m, (j, k, _, speed) in enumerate(at):
                x = i * slots + m
                ms, slow = f.delay_nominal[i, j, k] * tokens[i] / speed, tokens[i] / speed
                delay[x], error[x] = ms, f.error_nominal[i, j, k]
                deviations = (
                    f.delay_deviation[i, j, k] * (1 - keep * f.delay_impact[j, k]) * slow,
                    f.error_deviation[i, j, k] * (1 - keep * f.error_impact[j, k]),
                )
                for deviation, first in zip(deviations, (start, start + types + cells), strict=True):
                    worst = row(0.0)
                    if instances.uncertainty != "none":
                        worst[[x, first + i, first + types + x]] = deviation, -1.0, -1.0
                budget[x] = data[i]
                cost[x] = data[i]
            cost[:] += pay * delay
            delay[i * slots : (i + 1) * slots] -= f.delay_threshold[i]
            error[i * slots : (i + 1) * slots] -= f.error_threshold[i]
        for m, (j, k, n, _) in enumerate(at):
            memory, compute = row(f.gpu_memory[k] * n - f.weight_memory[j]), row(f.gpu_compute[k] * n)
            for i in range(types):
                memory[i * slots + m] = f.kv_per_token[j] * tokens[i] * f.arrival_rate[i] * f.residency_hours
                compute[i * slots + m] = f.compute_per_token[i] * tokens[i]
        if criterion == "expected":
            weight[money] = 1.0 / count
        else:
            above = row(0.0)  # cost - eta - excess <= 0
            above[money], above[eta], above[own(b, per + 1)] = 1.0, -1.0, -float(criterion == "cvar")
            weight[own(b, per + 1)] = 1.0 / ((1.0 - LEVEL) * count)
    if criterion != "expected":
        weight[eta] = 1.0
    sums = np.zeros((types, columns))
    for i in range(types):
        sums[i, i * slots : (i + 1) * slots] = sums[i, cells + i] = 1.0
    free = np.zeros(columns, bool)
    free[[*(own(b, per) for b in range(count)), eta]] = True
    found = linprog(
        weight,
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        A_eq=sums,
        b_eq=np.ones(types),
        bounds=[(None, None) if f else (0.0, None) for f in free],
    )
    return float(found.fun) if found.status == 0 else np.inf


def costs(plan: Plan, instances: Instances) -> np.ndarray:
    """What the independent checker says; it must accept the plan everywhere."""
    verdicts = [check_plan(plan, instances, b) for b in range(instances.size)]
    assert all(v.feasible for v in verdicts)
    return np.array([v.costs["total_cost"] for v in verdicts])


CASES = {
    "any adversary": lambda: easy(
        gamma_delay=[1.0, 0.5, 1.5, 0.0, 6.0], gamma_error=[0.7, 1.0, 6.0, 1.2, 0.0]
    ),
    "plain sums": lambda: easy(gamma_delay=np.full(COUNT, 9.0), gamma_error=np.full(COUNT, 9.0)),
    "diu": lambda: easy("diu", seed=16, gamma_delay=np.full(COUNT, 1.5)),
    "none": lambda: easy("none", seed=17),
    "capped": lambda: easy(seed=18, unmet_cap=np.full(COUNT, 0.3), gamma_error=np.full(COUNT, 0.4)),
}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("case", CASES)
def test_the_optimum_of_the_large_program(case: str, criterion: str):
    instances = CASES[case]()
    offset = np.linspace(0.0, 300.0, COUNT) if criterion == "regret" else np.zeros(COUNT)
    served = 0
    below = CRITERIA[criterion].load()(LEVEL).weights
    for deployment, plan in zip(
        (PAIRS, MORE), fixed_routings(instances, [PAIRS, MORE], below, offset), strict=True
    ):
        best = least(instances, deployment, criterion, offset)
        if plan is None:
            assert not np.isfinite(best)
            continue
        mine = float(CRITERIA[criterion].load()(LEVEL).value(costs(plan, instances) - offset))
        assert mine == pytest.approx(best, rel=3e-6)
        served += len(plan.routes)
    assert served or case == "capped"


def test_what_cannot_be_kept_everywhere_has_no_routing():
    below = CRITERIA["expected"].load()(LEVEL).weights
    instances = easy(unmet_cap=np.array([1.0, 1.0, 0.0, 1.0, 1.0]))
    dear = instances.with_fields(budget=np.array([900.0] * 4 + [1.0]))
    none = instances.with_fields(error_threshold=np.zeros((COUNT, 3)))
    assert fixed_routings(dear, [PAIRS], below) == [None]
    assert fixed_routings(none, [PAIRS], below) == [None]
    nothing = fixed_routings(easy(), [()], below)[0]
    assert nothing is not None
    assert set(nothing.unmet.values()) == {1.0}
    with pytest.raises(InputError, match="deployment 0"):
        fixed_routings(easy(), [(DeployedPair("m9", "g0", 1),)], below)


def test_route_limits_hold():
    below = CRITERIA["expected"].load()(LEVEL).weights
    free, limited = easy(), easy(max_routes=np.array([0, 1, 2, 0, 1]))
    most, plan = (fixed_routings(i, [MORE], below)[0] for i in (free, limited))
    routes = [r.query for r in plan.routes]
    assert len(most.routes) > len(set(routes)) == len(routes) > 0
    assert costs(plan, limited).mean() >= costs(most, free).mean() * (1 - 1e-9)


def test_blocks_change_nothing_and_nothing_recompiles(monkeypatch):
    below = CRITERIA["cvar"].load()(LEVEL).weights
    instances = CASES["any adversary"]()
    whole = fixed_routings(instances, [PAIRS, MORE, ()], below)
    size = module._coefficients._cache_size()
    assert fixed_routings(instances.take([0, 1, 2, 3, 4]), [MORE], below) == [whole[1]]
    assert module._coefficients._cache_size() == size
    monkeypatch.setattr(module, "_BLOCK", 2)
    monkeypatch.setattr(module, "_DEPLOYMENTS", 1)
    assert fixed_routings(instances, [PAIRS, MORE, ()], below) == whole


def test_weights_are_planes_below_the_criterion():
    rng = np.random.default_rng(3)
    for criterion in CRITERIA:
        for level in (0.05, 0.6, 0.95):
            here, there = rng.uniform(0, 1, (2, 12))
            weights = CRITERIA[criterion].load()(level).weights(here)
            assert weights[0] @ here == pytest.approx(float(CRITERIA[criterion].load()(level).value(here)))
            assert (weights @ there <= float(CRITERIA[criterion].load()(level).value(there)) + 1e-12).all()
            assert (weights >= 0).all()
            np.testing.assert_allclose(weights.sum(1), 1.0)
