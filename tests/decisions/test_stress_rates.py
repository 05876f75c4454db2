"""Shortfalls of rates out of sample: closed forms, draws recomputed one by one, the adversary enumerated, peers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from rodiu_jax.decisions.stress.comparison_plans import peers_of, rate_variants
from rodiu_jax.decisions.stress.draws import stress
from rodiu_jax.decisions.stress.linear_forms import expose
from rodiu_jax.decisions.stress.tally import draw_tally, vertex_tally
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route, plan_arrays
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.report.text.stress_section import describe_stress, stress_to_json
from rodiu_jax.runtime.threefry import hash32
from solvers.exact import solve_instance
from tests.golden import Golden, section_words
from tests.oracles.instances import random_instances, random_plan
from tests.oracles.serving import serving_instances, with_replicas
from tests.oracles.worst_case import vertices

SHAPE = (3, 2, 2, 2)
SCALES = np.array([0.5, 1.0, 1.5])


def two_types(**fields: Any) -> tuple[Instances, Plan]:
    """Two types on one pair of 2 replicas, of which each type takes 0.5; shortfalls of a half and a third.

    Of the 2 that the pair may have, a load of 1 is half; they add up to 0.5 / 2 = 0.25 and 0.25 / 2 = 0.125.
    """
    instances = random_instances(
        0,
        (2, 1, 1, 1),
        mode="diu",
        **{
            "arrival_rate": [10.0, 20.0], "throughput": [[[[20.0]]], [[[40.0]]]], "max_replicas": [[2]],
            "throughput_shortfall": [[[0.5]], [[1 / 3]]], "gamma_throughput": 2.0, "gpu_memory": [1e4],
            "delay_threshold": [1e9, 1e9], "error_threshold": [1.0, 1.0], "gpu_compute": [1e6],
            "storage_capacity": 1e6, "budget": 1e6,
        } | fields,
    )  # fmt: skip
    routes = (Route("q0", "m0", "g0", 1.0), Route("q1", "m0", "g0", 1.0))
    return instances, Plan(0, (DeployedPair("m0", "g0", 1, 2),), routes, {})


def trapezoid(a: float, b: float, r: float) -> float:
    """P(a U + b V > r) for independent uniform U and V."""

    def corner(x: float) -> float:
        return max(x, 0.0) ** 2 / (2.0 * a * b)

    return max(1.0 - (corner(r) - corner(r - a) - corner(r - b) + corner(r - a - b)), 0.0)


def mean_excess(a: float, b: float, r: float) -> float:
    """E(a U + b V - r | > r), by the midpoint rule on a fine grid."""
    u = (np.arange(4000) + 0.5) / 4000
    excess = np.maximum(a * u[:, None] + b * u[None] - r, 0.0)
    return float(excess.sum() / (excess > 0).sum())


@pytest.mark.parametrize("most", [0.55, 0.62, 0.7, 0.9])
def test_a_pair_is_overloaded_as_often_as_the_area_says(most: float):
    instances, plan = two_types(max_utilization=most)
    found = stress([plan], instances, draws=200_000, confidence=1 - 1e-9, peers=False)
    rows = found.results[found.results["distribution"] == "uniform"]
    by_pair = found.promises[
        (found.promises["promise"] == "throughput[m0,g0]") & (found.promises["distribution"] == "uniform")
    ]
    for row, pair in zip(rows.to_dict("records"), by_pair.to_dict("records"), strict=True):
        a, b = 0.25 * row["scale"] / most, 0.125 * row["scale"] / most
        free = 1.0 - 0.5 / most
        truth = trapezoid(a, b, free + MARGIN_TOLERANCE)
        assert row["overloaded_lower"] <= truth <= row["overloaded_upper"], (row["scale"], truth)
        assert (row["overloaded"], row["overloaded_lower"]) == (pair["probability"], pair["lower"])
        assert row["probability"] == row["overloaded"], "no other promise can break"
        if truth > 1e-3:
            assert pair["overload_mean"] == pytest.approx(mean_excess(a, b, free), rel=0.02)
            assert 0.8 * (a + b - free) < pair["overload_max"] <= a + b - free
            assert row["first"] == "throughput[m0,g0]"
        if truth == 0:
            assert math.isnan(pair["overload_mean"])
            assert pair["overload_max"] == 0.0


def test_the_worst_case_is_that_of_the_budget():
    # Gamma 1: the first type falls short, 0.75 of 0.7 is too much; at scale 0.5 0.625 is not
    instances, plan = two_types(max_utilization=0.7, gamma_throughput=1.0)
    found = stress([plan], instances, draws=10, peers=False).results
    worst = found[found["distribution"] == "worst"].set_index("scale")
    assert worst["overloaded"].tolist() == [0.0, 1.0, 1.0]
    assert worst.loc[1.0, "overload_max"] == pytest.approx(0.75 / 0.7 - 1, abs=2e-6)
    assert worst["breaks_at"].iloc[0] == pytest.approx((0.7 - 0.5) / 0.25, rel=1e-4)
    assert not check_plan(plan, instances, 0).feasible
    assert check_plan(plan, instances.with_fields(gamma_throughput=0.5), 0).feasible


def random_case(seed: int) -> tuple[Instances, Plan]:
    rng = np.random.default_rng(seed)
    instances = serving_instances(seed, SHAPE, max_replicas=np.full((2, 2), 3))
    return instances, with_replicas(rng, random_plan(rng, instances, instance=0), instances)


def test_forms_are_the_checkers_loads():
    """The load with every vertex of the adversary's set, from the fields; at the worst one, the checker's margin."""
    seen = 0
    for seed in range(8):
        instances, plan = random_case(seed)
        if not plan.deployments:
            continue
        f = instances.one(0)
        arrays = plan_arrays([plan], instances)
        exposure = expose(instances, arrays, np.zeros(1, int), np.zeros(1, int), reality="ddu", seed=1)
        forms, least = exposure.forms, math.inf
        for e, d in enumerate(plan.deployments):
            j, k = instances.model_names.index(d.model), instances.gpu_names.index(d.gpu)
            n = f.tp_degree.tolist().index(d.tp)
            share = arrays.share[0, :, e]
            rate = np.where(share > 0, f.throughput[:, j, k, n], 1.0)
            with np.errstate(divide="ignore"):
                load = np.where(share > 0, f.arrival_rate / rate, 0.0) * share
            able = np.where(np.isfinite(load), load, 0.0)
            extra = able * f.throughput_shortfall[:, j, k] / (1 - f.throughput_shortfall[:, j, k])
            most = f.max_utilization * d.replicas
            np.testing.assert_allclose(forms.load[0, :, e], extra / most, rtol=1e-7)
            room = float(forms.room[0, 6 + e])
            assert room == pytest.approx(1 + MARGIN_TOLERANCE - load.sum() / most)
            worst = max(float(xi @ extra) for xi in vertices(3, float(f.gamma_throughput))) / most
            assert exposure.vertex[0, 6 + e] == pytest.approx(worst, rel=1e-6)
            least = min(least, room - MARGIN_TOLERANCE - worst)
            seen += 1
        margin = check_plan(plan, instances, 0).margins["throughput"]
        assert least == pytest.approx(margin, rel=1e-6, abs=1e-7) or least == margin == -math.inf
        assert (vertex_tally(exposure, SCALES).any_overload[0, 1] == 1) == (margin < -MARGIN_TOLERANCE)
    assert seen >= 8


def shortfalls_one_by_one(instances: Instances, plan: Plan, seed: int, draws: int) -> np.ndarray:
    """What shortfalls add to the load of each pair (draws, E), a route and a draw at a time: keys by name."""
    f = instances.one(0)
    added = np.zeros((draws, len(plan.deployments)))
    slot = {(d.model, d.gpu): e for e, d in enumerate(plan.deployments)}
    for r in plan.routes:
        e = slot[r.model, r.gpu]
        pair = plan.deployments[e]
        i, j, k = (
            names.index(name)
            for names, name in zip(instances.names[:3], (r.query, r.model, r.gpu), strict=True)
        )
        sustained = f.throughput[i, j, k, f.tp_degree.tolist().index(pair.tp)]
        if sustained == 0:
            continue
        key = jax.random.wrap_key_data(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))
        for word in (hash32("stress"), 0, *map(hash32, (r.query, r.model, r.gpu, "throughput"))):
            key = jax.random.fold_in(key, word)
        words = jax.vmap(lambda n, key=key: jax.random.key_data(jax.random.fold_in(key, n)))(
            np.arange(draws, dtype=np.uint32)
        )
        chi = np.floor(np.asarray(words, np.float64)[:, 0] / 32) / 2**27
        short = f.throughput_shortfall[i, j, k]
        extra = f.arrival_rate[i] / sustained * short / (1 - short) * r.share
        added[:, e] += extra * chi / (f.max_utilization * pair.replicas)
    return added


def test_tallies_are_those_of_draws_made_one_by_one():
    draws, hits = 2000, 0
    for seed in range(6):
        instances, plan = random_case(seed)
        arrays, at = plan_arrays([plan], instances), np.zeros(1, int)
        forms = expose(instances, arrays, at, at, reality="ddu", seed=9).forms
        pairs = len(plan.deployments)
        # Half of what can happen is too much: every pair meets its limit.
        assert forms.load is not None
        room = forms.room.copy()
        room[0, 6 : 6 + pairs] = forms.load[0].sum(0)[:pairs] / 2
        tally = draw_tally(forms._replace(room=room), draws=draws, scales=SCALES, table=None)
        added = shortfalls_one_by_one(instances, plan, 9, draws)
        assert tally.overload is not None
        assert tally.overload_most is not None
        for s, scale in enumerate(SCALES):
            excess = np.maximum(scale * added - room[0, 6 : 6 + pairs], 0.0)
            assert np.abs(tally.violations[0, s, 6 : 6 + pairs] - (excess > 0).sum(0)).max(initial=0) <= 1
            np.testing.assert_allclose(
                tally.overload[0, s, :pairs] / 2**20, excess.sum(0), atol=draws * 2e-6, rtol=1e-5
            )
            np.testing.assert_allclose(tally.overload_most[0, s, :pairs], excess.max(0), atol=1e-6)
            assert abs(tally.any_overload[0, s] - (excess > 0).any(1).sum()) <= 2
            hits += int((excess > 0).sum())
    assert hits > draws


def test_draws_of_delays_and_errors_are_those_without_rates():
    instances, plan = random_case(3)
    calm = instances.with_fields(throughput=math.inf, throughput_shortfall=0.0)
    at = np.zeros(1, int)
    tallies = []
    for one in (instances, calm):
        forms = expose(one, plan_arrays([plan], one), at, at, reality="ddu", seed=5).forms
        tallies.append(draw_tally(forms, draws=3000, scales=SCALES, table=None))
    rated, plain = tallies
    assert plain.any_overload is None
    np.testing.assert_array_equal(rated.violations[..., :6], plain.violations)
    np.testing.assert_array_equal(rated.histogram, plain.histogram)


def test_the_split_into_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    instances, plan = two_types(max_utilization=0.62)
    at = np.zeros(1, int)
    forms = expose(instances, plan_arrays([plan], instances), at, at, reality="ddu", seed=5).forms
    whole = draw_tally(forms, draws=5000, scales=SCALES, table=None)
    monkeypatch.setattr("rodiu_jax.decisions.stress.tally._DRAWS_PER_CALL", 777)
    parts = draw_tally(forms, draws=5000, scales=SCALES, table=None)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.overload is not None
    assert whole.overload.sum() > 0


def test_plans_to_compare_with():
    instances = serving_instances(
        1, SHAPE, unmet_penalty=np.full(3, 50.0), gamma_throughput=1.5, budget=2000.0
    )
    variants = rate_variants(instances)
    assert list(variants) == [
        "nominal rates",
        "traffic x1.1",
        "traffic x1.2",
        "traffic x1.5",
        "utilization 0.85",
    ]
    assert "nominal rates" not in rate_variants(instances.with_uncertainty("none"))
    assert rate_variants(random_instances(0, SHAPE)) == {}
    rate, most = instances.one(0).arrival_rate, float(instances.one(0).max_utilization)
    for kind, variant in variants.items():
        f = variant.one(0)
        assert f.gamma_throughput == 0.0
        factor = float(kind.split("x")[1]) if "traffic" in kind else 1.0
        np.testing.assert_allclose(f.arrival_rate, rate * factor)
        assert f.max_utilization == (min(most, 0.85) if "util" in kind else most)
    found, none = peers_of([Plan(0, (), (), {})], instances, workers=1)
    assert none == []
    assert {kind for kind, _ in found} == {*variants, "deterministic", "diu"}
    for kind, plan in found:
        if kind in variants:
            assert check_plan(plan, variants[kind], 0).feasible
            assert (
                check_plan(plan, instances.with_fields(gamma_throughput=0.0), 0).margins["throughput"]
                >= -1e-6
            )


def test_what_people_read(golden: Golden):
    instances = serving_instances(
        1,
        SHAPE,
        unmet_penalty=np.full(3, 50.0),
        gamma_throughput=1.5,
        budget=2000.0,
        delay_penalty=np.zeros(3),
    )
    plan = solve_instance(instances, 0).plan_for(0)
    assert plan is not None
    found = stress([plan], instances, draws=2000, workers=1)
    section = describe_stress(found)
    golden("decisions/stress-rates", section_words(section), numbers=False)
    assert all(len(row) == len(section.tables[0].heads) for row in section.tables[0].rows)
    assert "nan" not in " ".join(cell for row in section.tables[0].rows for cell in row)
    rows = found.results[(found.results["distribution"] == "worst") & (found.results["scale"] == 1.0)]
    by_kind = rows.set_index("kind")
    assert by_kind.loc["given", "overloaded"] == 0.0, "its worst case is what it was made for"
    assert by_kind.loc["nominal rates", "overloaded"] == 1.0
    item = stress_to_json(found)
    assert {"overloaded", "overload_max"} <= set(item["results"][0])
    old = stress(
        [replace(plan, instance=0)], instances.with_fields(throughput=math.inf), draws=10, peers=False
    )
    assert "overloaded" not in old.results
    assert "overload_mean" not in old.promises
