"""Fixed routings against one large linear program over all scenarios, written from the model."""

from typing import Any

import highspy
import numpy as np
import pytest

from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan
from rodiu_jax.runtime.block_sizes import BlockSize
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
    """The criterion's least value over one routing for all scenarios: one linear program; inf where it has no solution.

    CVaR is the least eta + mean excess over eta / (1 - level) (Rockafellar and Uryasev, 2000); the largest loss is the
    least eta that no loss exceeds.
    """
    lp = highspy.Highs()
    lp.silent()
    for name, value in {"threads": 1, "primal_feasibility_tolerance": 1e-9}.items():
        assert lp.setOptionValue(name, value) == highspy.HighsStatus.kOk
    share = [[lp.addVariable(0.0, 1.0) for _ in deployment] for _ in instances.query_names]
    unmet = [lp.addVariable(0.0, 1.0) for _ in instances.query_names]
    for shares, left in zip(share, unmet, strict=True):
        lp.addConstr(sum(shares) + left == 1.0)
    losses = [
        add_scenario(lp, instances, b, deployment, share, unmet) - float(offset[b])
        for b in range(instances.size)
    ]
    if criterion == "expected":
        lp.minimize(sum(losses) * (1.0 / len(losses)))
    else:
        eta = lp.addVariable(-highspy.kHighsInf, highspy.kHighsInf)
        most_excess = highspy.kHighsInf if criterion == "cvar" else 0.0
        excess = [lp.addVariable(0.0, most_excess) for _ in losses]
        for loss, over in zip(losses, excess, strict=True):
            lp.addConstr(loss <= eta + over)
        lp.minimize(eta + sum(excess) * (1.0 / ((1.0 - LEVEL) * len(losses))))
    if lp.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return np.inf
    assert lp.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return lp.getObjectiveValue()


def add_scenario(
    lp: highspy.Highs, instances: Instances, b: int, deployment: Deployment, share: list, unmet: list
) -> Any:
    """Add scenario ``b``'s constraints of MODEL section 5 on ``share[i][d]`` and ``unmet[i]``, and return its cost."""
    f = instances.one(b)
    hours, tokens = float(f.rental_hours), f.input_tokens + f.output_tokens
    keeps = 1.0 if instances.uncertainty == "ddu" else 0.0
    pairs = [
        (instances.model_names.index(d.model), instances.gpu_names.index(d.gpu), d.tp) for d in deployment
    ]
    speed = {int(n): float(s) for n, s in zip(f.tp_degree, f.tp_speedup, strict=True)}
    rent = hours * sum(float(f.gpu_price[k] * n + f.storage_price * f.weight_memory[j]) for j, k, n in pairs)
    stored = hours * f.storage_price * f.token_size * tokens * f.arrival_rate / 1000.0
    served = [sum(shares) for shares in share]
    cost = [rent + sum(float(data) * part for data, part in zip(stored, served, strict=True))]
    lp.addConstr(cost[0] <= float(f.budget))

    def worst_case(terms: list, gamma: float) -> Any:
        """W(terms, gamma) = min over t, sigma >= 0 of gamma t + sum sigma with every term <= t + sigma."""
        if instances.uncertainty == "none":
            return 0.0
        t, *sigma = (lp.addVariable(0.0, highspy.kHighsInf) for _ in range(1 + len(terms)))
        for term, extra in zip(terms, sigma, strict=True):
            lp.addConstr(term <= t + extra)
        return float(gamma) * t + sum(sigma)

    for i, x in enumerate(share):
        ms = [float(f.delay_nominal[i, j, k] * tokens[i] / speed[n]) for j, k, n in pairs]
        ms_more = [
            float(f.delay_deviation[i, j, k] * (1 - keeps * f.delay_impact[j, k]) * tokens[i] / speed[n])
            for j, k, n in pairs
        ]
        errors = [float(f.error_nominal[i, j, k]) for j, k, _ in pairs]
        errors_more = [
            float(f.error_deviation[i, j, k] * (1 - keeps * f.error_impact[j, k])) for j, k, _ in pairs
        ]
        delay = weigh(ms, x) + worst_case([a * xd for a, xd in zip(ms_more, x, strict=True)], f.gamma_delay)
        error = weigh(errors, x) + worst_case(
            [a * xd for a, xd in zip(errors_more, x, strict=True)], f.gamma_error
        )
        lp.addConstr(delay <= float(f.delay_threshold[i]) * served[i])
        lp.addConstr(error <= float(f.error_threshold[i]) * served[i])
        lp.addConstr(unmet[i] <= float(f.unmet_cap))
        cost.append(float(hours * f.delay_penalty[i] * f.arrival_rate[i]) * delay)
        cost.append(float(hours * f.unmet_penalty[i] * f.arrival_rate[i]) * unmet[i])
    for d, (j, k, n) in enumerate(pairs):
        x = [shares[d] for shares in share]
        kv = f.kv_per_token[j] * tokens * f.arrival_rate * float(f.residency_hours)
        lp.addConstr(weigh(kv, x) <= float(f.gpu_memory[k] * n - f.weight_memory[j]))
        lp.addConstr(weigh(f.compute_per_token * tokens, x) <= float(f.gpu_compute[k] * n))
    return sum(cost)


def weigh(weights: Any, variables: list) -> Any:
    """The weighted sum of variables."""
    return sum(float(w) * v for w, v in zip(weights, variables, strict=True))


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
    below = CRITERIA[criterion].load()(LEVEL).planes
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
    below = CRITERIA["expected"].load()(LEVEL).planes
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
    below = CRITERIA["expected"].load()(LEVEL).planes
    free, limited = easy(), easy(max_routes=np.array([0, 1, 2, 0, 1]))
    most, plan = (fixed_routings(i, [MORE], below)[0] for i in (free, limited))
    routes = [r.query for r in plan.routes]
    assert len(most.routes) > len(set(routes)) == len(routes) > 0
    assert costs(plan, limited).mean() >= costs(most, free).mean() * (1 - 1e-9)


def test_blocks_change_nothing_and_nothing_recompiles(monkeypatch):
    below = CRITERIA["cvar"].load()(LEVEL).planes
    instances = CASES["any adversary"]()
    whole = fixed_routings(instances, [PAIRS, MORE, ()], below)
    size = module._coefficients.__wrapped__._cache_size()
    assert fixed_routings(instances.take([0, 1, 2, 3, 4]), [MORE], below) == [whole[1]]
    assert module._coefficients.__wrapped__._cache_size() == size
    monkeypatch.setattr(module, "block_size", lambda _: BlockSize(2, 2))
    monkeypatch.setattr(module, "_DEPLOYMENTS", 1)
    assert fixed_routings(instances, [PAIRS, MORE, ()], below) == whole


def test_weights_are_planes_below_the_criterion():
    rng = np.random.default_rng(3)
    for criterion in CRITERIA:
        for level in (0.05, 0.6, 0.95):
            here, there = rng.uniform(0, 1, (2, 12))
            weights = CRITERIA[criterion].load()(level).planes(here)
            assert weights[0] @ here == pytest.approx(float(CRITERIA[criterion].load()(level).value(here)))
            assert (weights @ there <= float(CRITERIA[criterion].load()(level).value(there)) + 1e-12).all()
            assert (weights >= 0).all()
            np.testing.assert_allclose(weights.sum(1), 1.0)
