"""First-order LP solvers beside the bounds: each scenario gets its own answer, and a missing solver is named."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import Bounds, LinearConstraint, milp

from bench import lp_peers
from bench.records import read_record
from rodiu_jax.catalog.sampling import sample
from solvers.highs import run_highs


def stand_in(found: list[Any]) -> ModuleType:
    """A module with the interface of cuPDLPx 0.3, whose models HiGHS solves."""

    class Model:
        def __init__(self, cost, rows, row_lower, row_upper, lower, upper) -> None:
            self.given = cost, rows.tocsr(), row_lower, row_upper, lower, upper
            self.params: dict[str, Any] = {}
            self.X = None
            found.append(self)

        def setParams(self, **params: Any) -> None:
            self.params |= params

        def optimize(self) -> None:
            cost, rows, row_lower, row_upper, lower, upper = self.given
            bounds = LinearConstraint(rows, row_lower, row_upper)
            self.X = milp(cost, constraints=bounds, bounds=Bounds(lower, upper)).x

    module = ModuleType("cupdlpx")
    module.Model = Model  # pyright: ignore[reportAttributeAccessIssue]
    return module


def test_a_solver_of_one_sparse_program_answers_each_scenario(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    monkeypatch.setitem(sys.modules, "cupdlpx", stand_in(made))
    programs = lp_peers.build_relaxations(sample("seed", n=3, seed=8))
    optima = [run_highs(f, relax=True).objective for f in programs]
    np.testing.assert_allclose(lp_peers.peer("cupdlpx", programs, 1000)(), optima, rtol=1e-6)
    assert made[0].params["IterationLimit"] == 1000
    assert made[0].params["OptimalityTol"] == lp_peers.TOLERANCE


def test_first_order_solver_of_highs_nears_the_optima():
    programs = lp_peers.build_relaxations(sample("seed", n=2, seed=8))
    optima = np.array([run_highs(f, relax=True).objective for f in programs])
    near = lp_peers.peer("pdlp", programs, 20_000)()
    assert (np.abs(near / optima - 1.0) < 0.05).all()
    far = lp_peers.peer("pdlp", programs, 10)()
    assert (np.abs(far / optima - 1.0) > 0.05).any(), "the limit counts"


@pytest.mark.parametrize("solver", ["mpax", "cupdlpx"])
def test_a_peer_that_is_not_installed_is_named(solver: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, solver, None)
    result = CliRunner().invoke(lp_peers.main, [solver, "--scenarios", "1"])
    assert result.exit_code == 2
    assert f"pip install {solver}" in result.output


@pytest.mark.slow
def test_table_of_one_scenario(tmp_path):
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(lp_peers.main, ["pdlp", "--scenarios", "1", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    (study,) = read_record(out).studies
    assert study.name == "lp-peers-pdlp"
    ours, peer = study.rows
    assert (ours[0], ours[2], peer[0]) == ("lower_bounds", 1.0, "pdlp")
    assert all(isinstance(number, float) and number >= 0 for number in (*ours[1:], *peer[1:]))
