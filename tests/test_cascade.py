"""The cascade: cheap proofs where they are good enough, HiGHS where not, and audits that can fail."""

from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.check import check_plan
from rodiu_jax.errors import AuditFailed
from rodiu_jax.sampling import sample
from solvers import cascade as module
from solvers.cascade import bracket_results, cascade
from solvers.pool import solve


@pytest.fixture(scope="module")
def batch():
    return sample("seed", n=6, seed=11)


@pytest.fixture(scope="module")
def optima(batch):
    return solve(batch, workers=2)


def test_every_scenario_is_proven_to_the_gap_and_holds_the_optimum(batch, optima):
    results = list(cascade(batch, gap=0.004, workers=2))
    assert [r.instance for r in results] == list(range(6))
    for result, best in zip(results, optima, strict=True):
        assert result.status in ("optimal", "gap_limit")
        assert result.gap <= 0.004
        assert result.bound <= best.objective * (1 + 1e-9)
        assert result.objective >= best.bound * (1 - 1e-9)
        verdict = check_plan(result.plan, batch, result.instance)
        assert verdict.feasible
        assert verdict.costs["total_cost"] == pytest.approx(result.objective, rel=1e-12)


def test_brackets_alone_need_no_exact_solver(batch, optima, monkeypatch):
    monkeypatch.setattr(module, "solve_iter", lambda *_, **__: pytest.fail("HiGHS was called"))
    results = list(bracket_results(batch, gap=0.01))
    assert {r.method for r in results} == {"bracket"}
    for result, best in zip(results, optima, strict=True):
        assert result.bound <= best.objective * (1 + 1e-9)
        assert best.bound * (1 - 1e-9) <= result.objective
        assert result.nodes >= 1
        assert result.steps >= 150


def test_rows_do_not_depend_on_the_batch(batch):
    alone = next(iter(bracket_results(batch.take([4]), gap=0.01)))
    together = list(bracket_results(batch, gap=0.01))[4]
    assert replace(alone, seconds=0.0, instance=4, plan=None) == replace(together, seconds=0.0, plan=None)
    assert alone.plan.routes == together.plan.routes


def test_what_stays_wide_is_solved_from_the_brackets_plan(batch, monkeypatch):
    seen = []

    def watching(instances, indices, *, starts, **options):
        seen.append((list(indices), starts))
        return iter(solve(instances, indices, starts=starts, **options))

    monkeypatch.setattr(module, "solve_iter", watching)
    results = list(cascade(batch.take([0, 1]), gap=1e-5, workers=2, audited=np.array([True, False])))
    assert seen[0] == ([0], None), "an audit starts from nothing"
    (wide,), (start,) = seen[1]
    assert wide == 1
    assert start.deployments
    assert results[0].status == "optimal"
    assert results[1].gap <= 1e-5


@pytest.mark.parametrize("lie", ["bound above the optimum", "cost below the optimum"])
def test_an_audit_outside_its_bracket_stops_the_work(batch, optima, monkeypatch, lie):
    real = module.brackets

    def lying(instances, **options):
        first, *others = real(instances, **options)
        best = optima[0].objective
        wrong = {"lower": best * 1.001, "upper": best * 1.002} if "above" in lie else {"upper": best * 0.99}
        return [replace(first, **({"lower": best * 0.98} | wrong)), *others]

    monkeypatch.setattr(module, "brackets", lying)
    with pytest.raises(AuditFailed, match="contradicts") as caught:
        list(cascade(batch.take([0, 1]), workers=1, audited=np.array([True, False])))
    assert caught.value.instance == 0
    assert set(caught.value.evidence) == {"bracket", "exact"}
