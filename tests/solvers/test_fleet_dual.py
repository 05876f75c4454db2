"""The dual function with whole replicas: never above the optimum, V by brute force, the LP's optimum reached."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from solvers.exact import solve_instance
from solvers.fleet_dual import FleetMultipliers, evaluate_fleet_dual, gains
from solvers.formulation import assemble
from solvers.highs import run_highs
from solvers.pricing import fleet_dual_function, price, read_fleet_multipliers, read_multipliers
from solvers.terms import Terms, collect
from tests.oracles.serving import serving_instances

SHAPE = (3, 2, 3, 2)


def at_lp(terms: Terms) -> tuple[float, FleetMultipliers]:
    """The LP relaxation's optimum, and its multipliers."""
    formulation = assemble(terms, 3, exact=True)
    answer = run_highs(formulation, relax=True)
    everything = np.arange(len(terms.pair))
    shared = read_multipliers(terms, formulation, answer.row_dual)
    return answer.objective, read_fleet_multipliers(terms, shared, everything, formulation, answer.row_dual)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_any_multipliers_give_a_bound(mode: str):
    rng = np.random.default_rng(1)
    for seed in range(4):
        instances = serving_instances(seed, SHAPE, mode=mode, devices=["d", "e", "d"])
        answer = solve_instance(instances, 0)
        terms = collect(instances, 0)
        lp, y = at_lp(terms)
        limit = answer.upper * (1 + 1e-9)
        found = fleet_dual_function(terms, y)
        assert lp * (1 - 1e-6) <= found.bound <= limit
        deployed = {(d.model, d.gpu, d.tp) for d in answer.plan.deployments}
        names = instances.names
        for t, (j, k, n) in enumerate(terms.triple.tolist()):
            if (names.models[j], names.gpus[k], names.degrees[n]) in deployed:
                assert found.bound + found.reduced[t] <= limit
        for scale in (0.1, 0.5, 2.0, 30.0):
            wild = FleetMultipliers(
                y.shared._replace(
                    demand=y.shared.demand * rng.uniform(0, scale, 3),
                    delay=rng.uniform(0, scale, 3),
                    error=rng.uniform(0, 100 * scale, 3),
                    budget=np.asarray(rng.uniform(0, scale)),
                ),
                *(a * rng.uniform(0, scale, a.shape) for a in y[1:4]),
                rng.uniform(-1, scale, 3),
                rng.uniform(-1, 2, y.load_adversary.shape),
            )
            assert fleet_dual_function(terms, wild).bound <= limit


def test_value_of_a_triple_by_brute_force():
    """V at one price, tried at every number of replicas and every share at its bounds."""
    for seed in range(6):
        terms = collect(serving_instances(seed, SHAPE), 0)
        _, y = at_lp(terms)
        fleet = terms.fleet
        found = evaluate_fleet_dual(terms, y)
        gain, _ = gains(terms, y.shared)
        for t in range(len(terms.pair)):
            money = 1 + y.shared.budget
            rent = fleet.rent[t] * money + y.quota[fleet.device[t]] * fleet.gpus[t]
            rent -= y.memory[t] * terms.room[t] + y.compute[t] * terms.power[t]
            rent -= y.throughput[t] * fleet.utilization
            least = np.inf
            for r in range(1, fleet.replicas[t] + 1):
                total = rent * r
                for i in range(3):
                    if terms.most[i, t] == 0:
                        continue
                    load = fleet.load[i, t] + max(y.load_adversary[i, t], 0.0) * fleet.load_excess[i, t]
                    worth = gain[i, t] - y.memory[t] * terms.kv[i, t] - y.compute[t] * terms.work[i, t]
                    worth -= y.throughput[t] * load
                    total -= min(terms.most[i, t], fleet.each[i, t] * r) * max(worth, 0.0)
                least = min(least, total)
            least += fleet.hold[t] * money + y.shared.storage * terms.weights[t]
            # Other prices, and an adversary that spends what it has left, only raise it.
            assert found.value[t] >= least - 1e-9 * (1 + abs(least))


def test_pricing_reaches_the_relaxations_optimum():
    for seed, mode in itertools.product(range(6), ("none", "ddu")):
        instances = serving_instances(seed, (3, 3, 3, 2), mode=mode)
        terms = collect(instances, 0)
        lp = run_highs(assemble(terms, 3, exact=True), relax=True).objective

        def solve(formulation):
            answer = run_highs(formulation, relax=True)
            return answer.objective, answer.row_dual

        priced = price(terms, 3, solve, np.zeros(len(terms.pair), bool))
        assert priced.bound >= lp * (1 - 1e-5)
