"""The price of robustness: optima by enumeration, bounds against sign patterns, the value of decision dependence."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.analysis.intervals import bertsimas_sim
from rodiu_jax.decisions.robustness import default_gammas, read_instances, robustness
from rodiu_jax.decisions.stress.draws import stress
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.check import check_plan
from rodiu_jax.report.text.robustness_section import robustness_to_json
from solvers.exact import solve_instance
from tests.cli.calls import Ran, Run
from tests.golden import numbers
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances
from tests.oracles.worst_case import by_vertices

SPEC = """
name = "two budgets"
title = "Cost by budget"
catalog = "corrected"
samples = 2
[[factors]]
field = "budget"
scale = [0.1, 1.0, 2.0]
"""


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_the_bound_holds_for_every_sign_pattern_and_is_reached(count: int):
    # The extreme symmetric law is eta = +-1: P(sum a eta > W(a, Gamma)) by all patterns.
    rng = np.random.default_rng(count)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=count)))
    for gamma in (0.0, 0.3, 1.0, 1.5, 2.0, 3.7, float(count)):
        bound = float(bertsimas_sim(np.array(count), np.array(gamma)))
        for weights in (np.ones(count), rng.uniform(0, 1, count), rng.uniform(0, 1, count) ** 4):
            assert (signs @ weights > by_vertices(weights, gamma) + 1e-12).mean() <= bound + 1e-12
            # One-sided deviations xi = (1 + eta) / 2, protected by W(a, Gamma) in full:
            shifted = gamma if gamma >= count else 2 * gamma - count
            one_sided = (((1 + signs) / 2) @ weights > by_vertices(weights, gamma) + 1e-12).mean()
            assert one_sided <= float(bertsimas_sim(np.array(count), np.array(shifted))) + 1e-12
    assert float(bertsimas_sim(np.array(count), np.array(float(count)))) == 0.0
    assert float(bertsimas_sim(np.array(count), np.array(-0.1))) == 1.0


def test_the_bound_is_the_papers_formula():
    # n = 10, Gamma = 5: nu = 7.5, half of C(10, 7) and all of C(10, 8) + C(10, 9) + C(10, 10), over 2^10.
    assert float(bertsimas_sim(np.array(10), np.array(5.0))) == pytest.approx((60 + 45 + 10 + 1) / 1024)


@pytest.fixture(scope="module")
def found() -> Any:
    instances = random_instances(31, (2, 1, 3, 2), batch=3, unmet_penalty=np.full(2, 6.0))
    return instances, robustness(instances, gammas=[0, 0.5, 1, 1.5, 3], draws=4000, workers=1)


def test_costs_at_every_gamma_are_the_optima(found: Any):
    instances, result = found
    assert result.rates is None, "scenarios without rates have no curve of them"
    assert "rates" not in robustness_to_json(result)
    for r in result.scenarios.to_dict("records"):
        there = instances.with_uncertainty(r["mode"]).with_fields(
            gamma_delay=r["gamma"], gamma_error=r["gamma"]
        )
        exact = cheapest(there, r["instance"])
        assert r["lower_bound"] <= exact * (1 + 1e-6)
        assert r["upper_bound"] >= exact * (1 - 1e-6)
        assert r["upper_bound"] - r["lower_bound"] <= 1e-6 * r["upper_bound"]
    for mode in ("ddu", "diu"):
        curve = result.curve[result.curve["mode"] == mode]
        mine = result.scenarios[result.scenarios["mode"] == mode]
        assert curve["gamma"].tolist() == [0, 0.5, 1, 1.5, 3]
        np.testing.assert_allclose(curve["upper_bound"], mine.groupby("gamma")["upper_bound"].mean())
        assert (np.diff(curve["upper_bound"]) >= -1e-5 * curve["upper_bound"].iloc[0]).all()
        start = curve.iloc[0]
        for r in curve.to_dict("records"):
            assert r["price_lower"] <= max(r["upper_bound"] - start["lower_bound"], 0.0) == r["price_upper"]


def test_probabilities_are_those_of_the_stress_test_and_below_their_bounds(found: Any):
    instances, result = found
    there = instances.with_fields(gamma_delay=0.5, gamma_error=0.5)
    plans = [p for b in range(3) if (p := solve_instance(there, b).plan_for(b)) is not None]
    same = stress(plans, instances, draws=4000, scales=(1.0,), peers=False).results
    row = result.curve[(result.curve["mode"] == "ddu") & (result.curve["gamma"] == 0.5)].iloc[0]
    for name in ("uniform", "beta"):
        assert row[name] == pytest.approx(same[same["distribution"] == name]["probability"].mean())
        assert row[f"{name}_lower"] <= row[name] <= row[f"{name}_upper"]
    assert row["realised_cost"] == pytest.approx(same[same["distribution"] == "uniform"]["cost_mean"].mean())
    for r in result.curve.to_dict("records"):
        if r["mode"] == "diu":
            continue  # their plans are protected against larger deviations
        assert r["uniform_lower"] <= r["bound"]
        assert r["beta_lower"] <= r["bound"]
        assert r["symmetric_lower"] <= r["bertsimas_sim"]
        if r["gamma"] == 3:  # three GPUs, one model: nothing is left to break
            assert r["uniform"] == r["symmetric"] == r["bound"] == r["bertsimas_sim"] == 0
    assert result.curve.iloc[0]["uniform"] > 0.05
    main = result.curve[result.curve["mode"] == "ddu"]
    kept = main[(main["uniform_upper"] <= 0.05) & (main["beta_upper"] <= 0.05)]
    assert result.recommended == kept["gamma"].min()
    assert result.guaranteed == main[main["bound"] <= 0.05]["gamma"].min()


def test_the_value_of_decision_dependence_is_what_the_diu_plan_costs_too_much(found: Any):
    instances, result = found
    for r in result.value.to_dict("records"):
        there = instances.with_fields(gamma_delay=r["gamma"], gamma_error=r["gamma"])
        costs, best = [], []
        for b in range(3):
            naive = solve_instance(there.with_uncertainty("diu"), b).plan
            assert naive is not None
            verdict = check_plan(naive, there, b)
            assert verdict.feasible
            costs.append(verdict.costs["total_cost"])
            best.append(cheapest(there, b))
        assert r["kept"] == 1
        assert r["diu_plan_cost"] == pytest.approx(np.mean(costs), rel=1e-5)
        exact = np.mean(costs) - np.mean(best)
        assert r["value_lower"] - 1e-4 * np.mean(best) <= exact <= r["value_upper"] + 1e-4 * np.mean(best)
    assert result.value["value_upper"].iloc[0] == pytest.approx(0, abs=1e-3)
    assert result.value["value_lower"].iloc[-1] > 0


def test_scenarios_without_a_plan_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    from solvers import pool

    def here(batch: Any, *, gap: float, **_: Any) -> Any:
        return (solve_instance(batch, b, gap=gap) for b in range(batch.size))

    monkeypatch.setattr(pool, "solve_iter", here)
    good = random_instances(31, (2, 1, 3, 2), batch=2, unmet_penalty=np.full(2, 6.0))
    half = good.with_fields(unmet_cap=np.array([1.0, 0.0]), budget=np.array([200.0, 0.1]))
    found = robustness(half, gammas=[0, 1], draws=100)
    assert (found.settings["scenarios"], found.settings["left_out"]) == (1, 1)
    assert set(found.scenarios["instance"]) == {0}
    with pytest.raises(WorkFailed, match="no scenario has a plan"):
        robustness(good.with_fields(unmet_cap=0.0, budget=0.1), gammas=[0, 1], draws=100)


def test_a_ddu_plan_has_no_bound_where_pairing_does_not_shrink(monkeypatch: pytest.MonkeyPatch):
    from solvers import pool

    monkeypatch.setattr(
        pool, "solve_iter", lambda batch, **_: (solve_instance(batch, b) for b in range(batch.size))
    )
    instances = random_instances(33, (2, 1, 3, 2), batch=6, mode="diu", unmet_penalty=np.full(2, 6.0))
    found = robustness(instances, gammas=[0, 3], draws=2000)
    assert found.settings["mode"] == "diu"
    ddu, diu = (found.curve[found.curve["mode"] == mode].iloc[-1] for mode in ("ddu", "diu"))
    assert (diu["uniform"], diu["bound"]) == (0, 0)
    assert ddu["uniform"] > 0
    assert (ddu["bound"], ddu["bertsimas_sim"]) == (1, 1)


def test_gammas_reach_from_nothing_to_every_pair():
    instances = random_instances(0, (2, 2, 3, 1))
    assert default_gammas(instances) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 6]
    for bad in ([], [-1], [7], [float("nan")]):
        with pytest.raises(InputError, match="from 0 to 6"):
            robustness(instances, gammas=bad)
    for name, value in (
        ("probability", 1.0),
        ("confidence", 0.0),
        ("draws", 0),
        ("gap", 2.0),
        ("method", "evaluate"),
    ):
        with pytest.raises(InputError) as error:
            robustness(instances, **{name: value})
        assert error.value.field == name


def test_every_row_of_a_spec_is_a_scenario(tmp_path: Path):
    (tmp_path / "s.toml").write_text(SPEC)
    instances = read_instances(tmp_path / "s.toml")
    assert instances.size == 6
    budget = np.asarray(instances.fields.budget).reshape(2, 3)
    np.testing.assert_allclose(budget / budget[:, 1:2], [[0.1, 1, 2]] * 2)


def test_command(tmp_path: Path, rodiu: Run):
    random_instances(31, (2, 1, 3, 2), batch=3, unmet_penalty=np.full(2, 6.0)).save(tmp_path / "f.npz")

    def run(*args: str) -> Ran:
        return rodiu("robustness", *args, "--workers", 1)

    file = str(tmp_path / "f.npz")
    code, out, err = run(file, "--gammas", "0,3", "--scenarios", "2", "--draws", "500", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["scenarios"] == 2
    assert [r["gamma"] for r in told["curve"]] == [0, 3, 0, 3]
    assert told["guaranteed"] == 3
    code, out, _ = run(file, "--gammas", "0,3", "--scenarios", "1", "--draws", "500")
    assert code == 0
    assert numbers(out)[0] == 3
    for args, said in (
        (
            (file, "--gammas", "0,99"),
            "--gammas: got [99.0], expected numbers from 0 to 3 (models x GPUs)",
        ),
        ((str(tmp_path / "no.npz"),), "a readable .npz file"),
        (("no-such-preset",), "no-such-preset"),
    ):
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
