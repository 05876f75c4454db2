"""Stress tests of plans: closed forms, draws recomputed one by one, the adversary enumerated, bad input."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from scipy import special, stats

from rodiu_jax.analysis.intervals import clopper_pearson
from rodiu_jax.decisions.stress import tally as module
from rodiu_jax.decisions.stress.comparison_plans import peers_of
from rodiu_jax.decisions.stress.draws import stress
from rodiu_jax.decisions.stress.linear_forms import PROMISES, Exposure, expose
from rodiu_jax.decisions.stress.tally import BINS, draw_tally, quantile_table, vertex_tally
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route, plan_arrays
from rodiu_jax.model.plan_json import save_plans
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.report.text.stress_section import describe_stress
from rodiu_jax.runtime.blocks import BlockRunner
from rodiu_jax.runtime.threefry import hash32
from solvers import pool
from solvers.answers import Answer
from solvers.exact import solve_instance
from tests.cli.calls import Ran, Run
from tests.golden import Golden, numbers
from tests.oracles.instances import random_instances, random_plan, reordered, worked_example
from tests.oracles.worst_case import by_vertices

SCALES = np.array([0.5, 1.0, 1.5])


def exposure_of(instances: Instances, plans: list[Plan], **options: Any) -> Exposure:
    at = np.array([plan.instance or 0 for plan in plans])
    settings = {"reality": "ddu", "seed": 3} | options
    return expose(instances, plan_arrays(plans, instances), np.arange(len(plans)), at, **settings)


def two_routes(**fields: Any) -> tuple[Instances, Plan]:
    """One type over two GPUs; delays deviate by 30 xi and 10 psi ms (T = 100), errors not."""
    instances = random_instances(
        0,
        (1, 1, 2, 1),
        mode="diu",
        **{
            "arrival_rate": [10.0], "input_tokens": [60.0], "output_tokens": [40.0], "delay_penalty": [0.01],
            "delay_nominal": [[[2.0, 1.0]]], "delay_deviation": [[[0.6, 0.2]]], "error_nominal": [[[0.1, 0.1]]],
            "error_deviation": [[[0.0, 0.0]]], "error_threshold": [0.5], "delay_threshold": [170.0],
            "gamma_delay": 2.0, "rental_hours": 2.0, "tp_speedup": [1.0],
        } | fields,
    )  # fmt: skip
    routes = (Route("q0", "m0", "g0", 0.5), Route("q0", "m0", "g1", 0.5))
    return instances, Plan(0, (DeployedPair("m0", "g0", 1), DeployedPair("m0", "g1", 1)), routes, {})


def trapezoid(a: float, b: float, r: float) -> float:
    """P(a U + b V > r) for independent uniform U and V: one minus the area below the line in the unit square."""

    def corner(x: float) -> float:
        return max(x, 0.0) ** 2 / (2.0 * a * b)

    return max(1.0 - (corner(r) - corner(r - a) - corner(r - b) + corner(r - a - b)), 0.0)


@pytest.mark.parametrize("limit", [160.0, 170.0, 175.0, 185.0, 190.0])
def test_two_uniform_deviations_break_as_often_as_the_area_says(limit: float):
    # Nominal 0.5 * (200 + 100) = 150 ms, deviations 30 U + 10 V at scale 1.
    instances, plan = two_routes(delay_threshold=[limit])
    found = stress([plan], instances, draws=200_000, confidence=1 - 1e-9, peers=False).results
    rows = found[found["distribution"] == "uniform"]
    for scale, lower, upper in zip(rows["scale"], rows["lower"], rows["upper"], strict=True):
        truth = trapezoid(30 * scale, 10 * scale, limit * (1 + MARGIN_TOLERANCE) - 150)
        assert lower <= truth <= upper, (scale, truth)
        assert upper - lower < 0.015


def test_one_beta_deviation_breaks_as_often_as_its_distribution_function_says():
    instances, plan = two_routes(delay_deviation=[[[0.6, 0.0]]])
    found = stress([plan], instances, draws=200_000, confidence=1 - 1e-9, beta=(2, 3), peers=False).results
    rows = found[found["distribution"] == "beta"]
    for scale, lower, upper in zip(rows["scale"], rows["lower"], rows["upper"], strict=True):
        assert lower <= 1 - special.betainc(2, 3, min(20 / (30 * scale), 1)) <= upper


def test_cost_has_the_moments_and_quantiles_of_its_distribution():
    # One deviation of 30 ms at 2 h * 0.01 $/ms * 10/h: the cost is uniform over 6 $ times the scale.
    instances, plan = two_routes(delay_deviation=[[[0.6, 0.0]]])
    found = stress([plan], instances, draws=400_000, beta=(2, 3), peers=False).results
    base = check_plan(plan, instances.with_uncertainty("none"), 0).costs["total_cost"]
    for r in found[found["distribution"] != "worst"].to_dict("records"):
        law = stats.uniform() if r["distribution"] == "uniform" else stats.beta(2, 3)
        reach, error = 6 * r["scale"], 6 * r["scale"] / np.sqrt(400_000)
        assert r["nominal_cost"] == pytest.approx(base, rel=1e-12)
        assert abs(r["cost_mean"] - base - reach * law.mean()) < 5 * error
        assert r["cost_sd"] == pytest.approx(reach * law.std(), rel=0.01)
        assert r["resolution"] == pytest.approx(reach / BINS)
        for name, q in (("cost_q05", 0.05), ("cost_q50", 0.5), ("cost_q95", 0.95), ("cost_q99", 0.99)):
            assert abs(r[name] - base - reach * law.ppf(q)) < r["resolution"] + 5 * error
        assert base <= r["cost_min"] < r["cost_q05"] < r["cost_q99"] <= r["cost_max"] <= base + reach


def drawn_one_by_one(
    instances: Instances, plan: Plan, seed: int, draws: int, beta: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations (draws, 2I) at scale 1 and what they add to the cost, from jax's own fold_in and the model's text."""
    b = plan.instance or 0
    f = instances.one(b)
    query, model, gpu = (
        {n: p for p, n in enumerate(names)}
        for names in (instances.query_names, instances.model_names, instances.gpu_names)
    )
    speed = {str(n): s for n, s in zip(f.tp_degree.tolist(), f.tp_speedup, strict=True)}
    degree = {(d.model, d.gpu): str(d.tp) for d in plan.deployments}
    types = len(query)
    deviation, money = np.zeros((draws, 2 * types)), np.zeros(draws)
    for r in plan.routes:
        key = jax.random.fold_in(jax.random.key(seed), hash32("stress"))
        key = jax.random.fold_in(key, b)
        for name in (r.query, r.model, r.gpu):
            key = jax.random.fold_in(key, hash32(name))
        words = jax.vmap(lambda n, key=key: jax.random.key_data(jax.random.fold_in(key, n)))(
            np.arange(draws, dtype=np.uint32)
        )
        xi = np.floor(np.asarray(words, np.float64) / 32) / 2**27
        if beta is not None:
            xi = special.betaincinv(*beta, xi)
        i, j, k = query[r.query], model[r.model], gpu[r.gpu]
        tokens = f.input_tokens[i] + f.output_tokens[i]
        ms = (
            f.delay_deviation[i, j, k]
            * (1 - f.delay_impact[j, k])
            * tokens
            * r.share
            / speed[degree[r.model, r.gpu]]
        )
        deviation[:, i] += ms * xi[:, 0]
        deviation[:, types + i] += (
            f.error_deviation[i, j, k] * (1 - f.error_impact[j, k]) * r.share * xi[:, 1]
        )
        money += f.rental_hours * f.delay_penalty[i] * f.arrival_rate[i] * ms * xi[:, 0]
    return deviation, money


@pytest.mark.parametrize("beta", [None, (2.0, 5.0)])
def test_tallies_are_those_of_draws_made_one_by_one(beta: tuple[float, float] | None):
    rng = np.random.default_rng(7)
    instances = random_instances(5, (3, 2, 3, 2), batch=2)
    plans = [random_plan(rng, instances, instance=b) for b in (0, 1, 1)]
    draws, table = 3000, None if beta is None else quantile_table(beta)
    exposure = exposure_of(instances, plans)
    tally = draw_tally(exposure.forms, draws=draws, scales=SCALES, table=table)
    for m, plan in enumerate(plans):
        deviation, money = drawn_one_by_one(instances, plan, 3, draws, beta)
        room = exposure.forms.room[m]
        near = np.abs(SCALES[:, None, None] * deviation - room) < 1e-4 * np.abs(
            room
        )  # the table is not exact
        for s, scale in enumerate(SCALES):
            broken = scale * deviation > room
            assert (np.abs(tally.violations[m, s] - broken.sum(0)) <= near[s].sum(0)).all()
            assert abs(tally.any_violation[m, s] - broken.any(1).sum()) <= near[s].sum()
        with np.errstate(divide="ignore"):
            level = np.where(room < 0, -1.0, np.where(deviation > 0, room / deviation, np.inf))
        can = np.isfinite(level.min(1))
        first = np.bincount(level.argmin(1)[can], minlength=len(room))
        assert np.abs(tally.first[m] - first).sum() <= (4 if beta else 0)
        t = money / exposure.swing[m] if exposure.swing[m] > 0 else np.zeros(draws)
        assert tally.total[m] / draws / 2**31 == pytest.approx(t.mean(), abs=1e-4 if beta else 1e-6)
        bins = np.bincount(np.minimum((t * BINS).astype(int), BINS - 1), minlength=BINS)
        assert np.abs(tally.histogram[m].cumsum() - bins.cumsum()).max() <= (20 if beta else 3)
        assert tally.histogram[m].sum() == draws
        assert tally.least[m] == pytest.approx(t.min(), abs=1e-3)
        assert tally.most[m] == pytest.approx(t.max(), abs=1e-3)


def test_blocks_order_and_company_change_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    instances = random_instances(2, (3, 2, 3, 2), batch=2)
    plans = [random_plan(rng, instances, instance=b) for b in (0, 1)]
    table = quantile_table((2.0, 5.0))
    whole = draw_tally(exposure_of(instances, plans).forms, draws=5000, scales=SCALES, table=table)
    monkeypatch.setattr(module, "_DRAWS_PER_CALL", 1700)
    monkeypatch.setattr(module, "_draws_per_step", lambda *_: 77)
    other = reordered(instances, ([2, 0, 1], [1, 0], [1, 2, 0]))
    split = draw_tally(exposure_of(other, plans[1:], routes=3).forms, draws=5000, scales=SCALES, table=table)
    order = np.array([2, 0, 1, 5, 3, 4])  # of the promises
    found = {name: a for name, a in whole._asdict().items() if a is not None}  # there are no rates
    for name, a in found.items():
        mine = a[1][..., order] if name in ("violations", "first") else a[1]
        if name in ("total", "square_high", "square_low", "histogram", "least", "most"):
            continue  # a sum over types in another order; below
        np.testing.assert_array_equal(mine, getattr(split, name)[0], err_msg=name)
    same = draw_tally(exposure_of(instances, plans[1:]).forms, draws=5000, scales=SCALES, table=table)
    for name, a in found.items():
        np.testing.assert_array_equal(a[1], getattr(same, name)[0], err_msg=name)


def test_the_number_of_cores_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    instances = random_instances(2, (2, 2, 2, 1), batch=2)
    forms = exposure_of(instances, [random_plan(rng, instances, instance=b) for b in (0, 1)]).forms
    cuts, tallies = [], []
    for threads in (1, 3):
        monkeypatch.setattr(module, "RUNNER", BlockRunner(threads))
        cuts.append(module._cut_draws(0, 5000, 2, 1024).tolist())
        tallies.append(draw_tally(forms, draws=5000, scales=SCALES, table=None))
    assert cuts == [[0, 2500, 5000], [0, 1250, 2500, 3750, 5000]]
    for name, one in tallies[0]._asdict().items():
        if one is not None:
            np.testing.assert_array_equal(one, getattr(tallies[1], name), err_msg=name)


def test_an_accelerator_holds_no_more_draws_than_are_asked_for_and_few_mebibytes(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("rodiu_jax.runtime.block_sizes.by_device", lambda *, cpu, accelerator: accelerator)

    def step(draws: int, types: int = 6, slots: int = 0) -> int:
        forms: Any = SimpleNamespace(
            delay=np.empty((1, types, 4)),
            room=np.empty((1, 2 * types + slots)),
            load=np.empty((1, 3, slots)) if slots else None,
        )
        return module._draws_per_step(draws, forms, 3)

    steps = {draws: step(draws) for draws in [1, 100, 1000, 4097, 10_000, 10**5, 10**6, 2**22]}
    assert all(min(draws, 2**18) <= n <= max(8 * draws, 512) for draws, n in steps.items())
    assert set(steps.values()) == {2**6, 2**9, 2**12, 2**15, 2**18}  # each is another compiled program
    assert step(2**22, types=100, slots=400) * 400 * 3 * 16 <= 2**28  # bytes of the excesses alone


def test_no_two_draws_routes_or_scenarios_share_their_deviations():
    instances = random_instances(2, (2, 2, 2, 1), batch=2)
    pairs = [(m, g) for m in instances.model_names for g in instances.gpu_names]
    routes = tuple(Route(q, m, g, 0.25) for q in instances.query_names for m, g in pairs)
    plan = Plan(None, tuple(DeployedPair(m, g, 1) for m, g in pairs), routes, {})
    keys = set()
    for seed in (0, 1, 2**40):
        for b in (0, 1):
            forms = exposure_of(instances, [replace(plan, instance=b)], seed=seed).forms
            keys |= set(zip(forms.key0.ravel().tolist(), forms.key1.ravel().tolist(), strict=True))
    assert len(keys) == 3 * 2 * 8


@pytest.mark.parametrize("seed", range(12))
def test_the_vertex_is_the_worst_case_by_enumeration_and_by_the_checker(seed: int):
    rng = np.random.default_rng(seed)
    gammas = rng.choice([0.0, 0.4, 1.0, 1.5, 2.0, 9.0], 2)
    mode = ("ddu", "diu")[seed % 2]
    instances = random_instances(seed, (3, 2, 2, 2), mode=mode, gamma_delay=gammas[0], gamma_error=gammas[1])
    plan = random_plan(rng, instances, instance=0, pairs=4)
    exposure = exposure_of(instances, [plan], reality=mode)
    forms = exposure.forms
    expected = [by_vertices(a, gammas[0]) for a in forms.delay[0]]
    expected += [by_vertices(a, gammas[1]) for a in forms.error[0]]
    np.testing.assert_allclose(exposure.vertex[0], expected, rtol=1e-12, atol=0)
    verdict = check_plan(plan, instances, 0)
    total = exposure.nominal_cost[0] + exposure.vertex_cost[0]
    assert total == pytest.approx(verdict.costs["total_cost"], rel=1e-7)
    tally = vertex_tally(exposure, np.array([1.0]))
    broken = {name: tally.violations[0, 0, 3 * f : 3 * f + 3].any() for f, name in enumerate(PROMISES)}
    assert broken == {name: verdict.margins[name] < -MARGIN_TOLERANCE for name in PROMISES}
    least = float(tally.breaks_at[0])
    if 0 < least < np.inf:  # just below that scale every promise holds, just above one does not
        ends = vertex_tally(exposure, np.array([least * (1 - 1e-9), least * (1 + 1e-9)]))
        assert ends.any_violation[0].tolist() == [0, 1]


def test_broken_as_measured_and_other_limits_are_told():
    instances, plan, _, _ = worked_example()
    cramped = instances.with_fields(delay_threshold=[10.0], gpu_memory=[1.0])
    row = stress([plan], cramped, draws=10, peers=False).results.iloc[0]
    assert (row["probability"], row["breaks_at"], row["first"]) == (1.0, 0.0, "delay[q0]")
    assert row["broken_limits"] == "memory"
    free = instances.with_fields(delay_deviation=np.zeros((1, 1, 1)), error_deviation=np.zeros((1, 1, 1)))
    row = stress([plan], free, draws=10, peers=False).results.iloc[0]
    assert (row["probability"], row["breaks_at"], row["first"], row["broken_limits"]) == (0.0, np.inf, "", "")
    assert row["cost_mean"] == row["cost_q99"] == row["nominal_cost"]


def test_a_plan_for_all_scenarios_meets_each_of_them():
    instances = random_instances(4, (2, 2, 2, 1), batch=20)
    plan = random_plan(np.random.default_rng(0), instances, instance=None)
    alone = [replace(plan, instance=b) for b in range(20)]
    every = stress([plan], instances, draws=500)  # names no scenario: no peers
    each = stress(alone, instances, draws=500, peers=False)
    columns = [n for n in every.results if n != "plan"]
    assert every.results[columns].equals(each.results[columns])
    assert every.results["kind"].unique().tolist() == ["given"]
    assert len(every.promises) == 20 * 3 * 3 * 4


def test_peers_are_the_optima_of_their_modes():
    instances = random_instances(11, (2, 2, 2, 2), batch=2)
    plan = solve_instance(instances, 1).plan_for(1)
    assert plan is not None
    found = stress([plan], instances, draws=100, workers=1).results
    assert found.groupby("plan")["kind"].first().tolist() == ["given", "deterministic", "diu"]
    for kind, mode in (("deterministic", "none"), ("diu", "diu")):
        there = instances.with_uncertainty(mode)
        best = solve_instance(there, 1).plan
        assert best is not None
        assert found[found["kind"] == kind]["deployments"].iloc[0] == best.summary()
    assert peers_of([replace(plan, instance=None)], instances) == ([], [])


def test_a_scenario_without_a_plan_has_no_peers_and_says_so(golden: Golden):
    instances, plan = two_routes(unmet_cap=0.0, delay_threshold=[1.0])
    found = stress([plan], instances, draws=100, workers=1)
    assert found.results["kind"].unique().tolist() == ["given"]
    assert found.settings["no_plan"] == [{"kind": "deterministic", "instance": 0}]
    golden("decisions/stress-no-plan", describe_stress(found).points[-1])


def test_a_mode_is_no_peer_of_itself(monkeypatch: pytest.MonkeyPatch):
    solved = []
    monkeypatch.setattr(
        pool, "solve_iter", lambda batch, todo, **_: solved.append((batch.uncertainty, todo)) or [nobody]
    )
    instances, plan = two_routes()  # diu
    nobody = Answer.of(instances.names, Status.INFEASIBLE)
    assert peers_of([plan, plan], instances) == ([], [("deterministic", 0)])
    assert solved == [("none", [0])]


def test_clopper_pearson_is_scipys():
    hits, trials = np.array([0, 1, 7, 99, 100]), 100
    lower, upper = clopper_pearson(hits, trials, 0.9)
    for k, low, high in zip(hits.tolist(), lower, upper, strict=True):
        exact = stats.binomtest(k, trials).proportion_ci(0.9, method="exact")
        np.testing.assert_allclose((low, high), (exact.low, exact.high), rtol=1e-9, atol=0)


@pytest.mark.parametrize("beta", [(2.0, 5.0), (0.5, 0.5), (30.0, 4.0)])
def test_the_beta_drawn_is_within_its_stated_error(beta: tuple[float, float]):
    rng = np.random.default_rng(0)
    words = np.concatenate([rng.integers(0, 2**32, 20_000), [0, 2**32 - 1]]).astype(np.uint32)
    with jax.enable_x64(True):
        drawn = np.asarray(module._unit(jax.numpy.asarray(words), jax.numpy.asarray(quantile_table(beta))))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    for side, reach in ((-1, np.greater_equal), (1, np.less_equal)):
        nearby = special.betaincinv(*beta, np.clip(words / 2**32 + side * 2**-16, 0, 1))
        assert reach(drawn, nearby + side * 2**-26).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"draws": 0}, "draws"),
        ({"draws": 2**33}, "draws"),
        ({"draws": 1.5}, "draws"),
        ({"seed": -1}, "seed"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, float("nan"))}, "scales"),
        ({"scales": (-1.0,)}, "scales"),
        ({"beta": (0.0, 1.0)}, "beta"),
        ({"beta": (1.0,)}, "beta"),
        ({"confidence": 1.0}, "confidence"),
        ({"reality": "none"}, "reality"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], field: str):
    instances, plan = two_routes()
    with pytest.raises(InputError) as error:
        stress([plan], instances, peers=False, **options)
    assert error.value.field == field


def test_command(tmp_path: Any, rodiu: Run):
    instances, plan = two_routes()
    instances.save(tmp_path / "f.npz")
    save_plans([plan], tmp_path / "p.json")

    def run(*args: str) -> Ran:
        return rodiu("stress", tmp_path / "f.npz", *args)

    good = str(tmp_path / "p.json")
    code, out, err = run(good, "--draws", "100", "--json", "--no-peers", "--scales", "1,2")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["scales"] == [1.0, 2.0]
    assert {r["distribution"] for r in found["results"]} == {"uniform", "beta", "worst"}
    assert [p["promise"] for p in found["promises"][:2]] == ["delay[q0]", "error[q0]"]
    code, out, _ = run(good, "--draws", "100", "--no-peers")
    assert code == 0
    said = " ".join(out.split())
    assert "delay[q0]" in said
    assert 0.5 in numbers(said)

    save_plans([], tmp_path / "none.json")
    other = json.dumps([replace(plan, deployments=(DeployedPair("Llama", "g0", 1),)).to_json()])
    (tmp_path / "other.json").write_text(other)
    for plans, said in (
        ("none.json", "expected at least one plan"),
        ("other.json", "[0].deployments[0].model: got 'Llama', expected one of m0"),
        ("missing.json", "a readable file"),
    ):
        code, out, err = run(str(tmp_path / plans))
        assert (code, out) == (2, "")
        assert said in err
        assert plans in err
        assert err.count("\n") == 1
    code, _, err = run(good, "--scales", "1,x")
    assert code == 2
    assert "'1,x' is not a list of numbers with commas" in err
